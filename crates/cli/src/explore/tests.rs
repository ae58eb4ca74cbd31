//! What keys do, and what is on the screen then.

use longshore_api::layers::{ImageLayer, ImageLayers, LayerFile, LayerName};
use ratatui_core::backend::TestBackend;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier};
use ratatui_core::terminal::Terminal;

use super::app::{App, Effect, Focus, Load, Overlay};
use super::input::{Key, Keys};
use super::tree::tests::{layers, row};
use super::view::{self, Theme};

const PLAIN: Theme = Theme { colours: false, signs: true };

fn about() -> ImageLayers {
    let layer = |number, size, wasted, counts: [u64; 3], step: &str| ImageLayer {
        layer: LayerName {
            number,
            diff_id: format!("sha256:{number:064}"),
            step: step.into(),
            ..LayerName::default()
        },
        size,
        wasted,
        files_added: counts[0],
        files_changed: counts[1],
        files_deleted: counts[2],
        ..ImageLayer::default()
    };
    ImageLayers {
        id: "sha256:0123456789abcdef".into(),
        size: 1_090_776,
        wasted: 1_000_300,
        efficiency: 0.083,
        layers: vec![
            layer(1, 1_090_350, 1_000_300, [7, 0, 0], "ADD rootfs.tar in /"),
            layer(2, 426, 0, [1, 1, 0], "COPY app.conf index.html /"),
            layer(
                3,
                0,
                0,
                [0, 0, 2],
                "RUN rm -rf /var /etc/passwd && a step of so many words that it does not fit",
            ),
        ],
    }
}

fn started() -> App {
    let mut app = App::new("app:1", about());
    for (n, files) in layers().into_iter().enumerate() {
        app.files(n, files);
        app.loaded(n);
    }
    app
}

/// Draws on a screen of that size, as the loop does.
fn screen(app: &mut App, theme: Theme, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            if let Some(panes) = view::panes(frame.area(), app.focus) {
                let (layers, files, whole) = panes.sizes();
                app.resize(layers, files, whole);
            }
            view::draw(app, theme, frame.buffer_mut());
        })
        .unwrap();
    terminal
}

fn text(app: &mut App, width: u16, height: u16) -> String {
    let terminal = screen(app, PLAIN, width, height);
    let buffer = terminal.backend().buffer();
    let line = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

/// Types, as a terminal sends it (`␛`: the key, and then nothing for a while); gives what is to be done outside.
fn typed(app: &mut App, keys: &str) -> Vec<Effect> {
    let mut all = Vec::new();
    for (n, part) in keys.split('␛').enumerate() {
        all.extend((n > 0).then_some(Key::Esc));
        all.extend(Keys::default().feed(part.as_bytes()));
    }
    all.into_iter().filter_map(|k| app.key(k)).collect()
}

#[test]
fn the_first_screen() {
    let want = "
 app:1  3 layers  1.09MB  wasted 1MB (efficiency 8.3 %)  0123456789ab
 Layers                           │ Files at layer 3
 1  1.09MB ████ ADD rootfs.tar in…│                 bin -> usr/bin
 2    426B ▏    COPY app.conf ind…│     400B ▏    ▸ etc/  1 changed
 3      0B      RUN rm -rf /var /…│      26B ▏    ▸ srv/
                                  │     90kB ████ ▸ usr/
                                  │D     1MB      ▸ var/  2 changed
                                  │
                                  │
                                  │
                                  │
                                  │
                                  │
                                  │
                                  │
──────────────────────────────────│
 0 added 0 changed 2 deleted      │
 0B wasted  000000000000          │
 RUN rm -rf /var /etc/passwd && a │
  step of so many words that it d │
 oes not fit                      │
                                  │
 l--------- 0:0 /bin
 ? help  q quit  Tab side  [ ] layer  a changes  / filter  s sort  w wasted  v …
";
    assert_eq!(text(&mut started(), 80, 24), want[1..]);
}

#[test]
fn directories_open_and_layers_change() {
    let mut app = started();
    text(&mut app, 80, 24);
    typed(&mut app, "[jl");
    let want = "
 app:1  3 layers  1.09MB  wasted 1MB (efficiency 8.3 %)  0123456789ab
 Layers                           │ Files at layer 2
 1  1.09MB ████ ADD rootfs.tar in…│                 bin -> usr/bin
 2    426B ▏    COPY app.conf ind…│     450B ▏    ▾ etc/
 3      0B      RUN rm -rf /var /…│C    400B ███▋     app.conf
                                  │      50B ▌        passwd
                                  │A     26B ▏    ▸ srv/  2 changed
                                  │     90kB ▍    ▸ usr/
                                  │      1MB ███▊ ▸ var/
                                  │
 d--------- 0:0 /etc
 ? help  q quit  Tab side  [ ] layer  a changes  / filter  s sort  w wasted  v …
";
    assert_eq!(text(&mut app, 80, 12), want[1..]);
    // Into it, and out of it: closed by what is in it.
    typed(&mut app, "lh");
    assert_eq!(app.files.at, 1);
    typed(&mut app, "h");
    assert_eq!(app.lines.len(), 5);
    // Another layer keeps the place; where it is gone, what held it.
    typed(&mut app, "jj[");
    assert_eq!(app.tree.path(app.selected().unwrap()), b"/usr");
    typed(&mut app, "]kl\x1b[C");
    assert_eq!(app.tree.path(app.selected().unwrap()), b"/srv/index.html");
    typed(&mut app, "[");
    assert_eq!((app.layer(), app.selected().map(|n| app.tree.path(n))), (0, Some(b"/var".to_vec())));
    typed(&mut app, "[[[[");
    assert_eq!(app.layer(), 0);
}

#[test]
fn only_changes_by_size_and_what_is_wasted() {
    let mut app = started();
    typed(&mut app, "a");
    let want = "
 app:1  3 layers  1.09MB  wasted 1MB (efficiency 8.3 %)  0123456789ab
 Layers                           │ Changes of layer 3
 1  1.09MB ████ ADD rootfs.tar in…│     400B ▏    ▾ etc/
 2    426B ▏    COPY app.conf ind…│D     50B          passwd
 3      0B      RUN rm -rf /var /…│D     1MB      ▾ var/
                                  │D     1MB          cache
 d--------- 0:0 /etc
 ? help  q quit  Tab side  [ ] layer  a changes  / filter  s sort  w wasted  v …
";
    let got = text(&mut app, 80, 8);
    assert_eq!(got, want[1..]);
    typed(&mut app, "a[s");
    let tree: Vec<String> =
        text(&mut app, 80, 24).lines().skip(2).take(5).map(|l| l.chars().skip(35).collect()).collect();
    assert!(tree[0].ends_with("var/") && tree[2].ends_with("usr/"), "{tree:?}");
    typed(&mut app, "w");
    let wasted = text(&mut app, 80, 24);
    assert!(wasted.contains("│ Wasted in all layers"), "{wasted}");
    assert!(wasted.contains("│     1MB ████ 1x /var/cache\n"), "{wasted}");
    assert!(wasted.contains("│    300B ▏    1x /etc/app.conf\n"), "{wasted}");
    // From there to the place in the tree.
    typed(&mut app, "j\r");
    assert_eq!((app.layer(), app.tree.path(app.selected().unwrap())), (0, b"/etc/app.conf".to_vec()));
}

#[test]
fn filters_are_typed_kept_and_cleared() {
    let mut app = started();
    typed(&mut app, "/index");
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("│ Files at layer 3  /index"), "{shown}");
    assert_eq!(app.tree.path(app.selected().unwrap()), b"/srv/index.html");
    assert_eq!(app.lines.len(), 2);
    // Letters are text while it is typed, and keys afterwards.
    typed(&mut app, "q");
    assert!(app.lines.is_empty() && text(&mut app, 80, 24).contains("nothing matches"));
    typed(&mut app, "\x7f\r");
    assert_eq!(typed(&mut app, "q"), [Effect::Quit]);
    typed(&mut app, "␛");
    assert_eq!(
        (app.filter.text.as_str(), app.tree.path(app.selected().unwrap())),
        ("", b"/srv/index.html".to_vec())
    );
    typed(&mut app, "/x␛");
    assert!(!app.typing && app.filter.text.is_empty());
}

#[test]
fn files_are_read_as_they_are_at_the_layer() {
    let mut app = started();
    let read = |path: &str, layer| vec![Effect::Read { path: path.into(), layer }];
    typed(&mut app, "[/app.conf\r");
    assert_eq!(typed(&mut app, "v"), read("/etc/app.conf", 1));
    typed(&mut app, "[");
    assert_eq!(typed(&mut app, "\r"), read("/etc/app.conf", 0));
    // What a layer deletes is read below it; what is in vain, where it is.
    typed(&mut app, "␛]]/passwd\r");
    assert_eq!(typed(&mut app, "v"), read("/etc/passwd", 1));
    typed(&mut app, "␛w");
    assert_eq!(typed(&mut app, "v"), read("/var/cache", 0));
    app.read(b"/etc/app.conf", Ok((b"one\ntwo\n".to_vec(), 8)));
    let shown = text(&mut app, 60, 8);
    assert!(shown.contains(" /etc/app.conf  2/2 lines\none\ntwo\n"), "{shown}");
    typed(&mut app, "jq");
    assert!(app.overlay.is_none());
    app.read(b"/x", Err("Error response from daemon: no".into()));
    assert!(text(&mut app, 80, 24).contains("\n Error response from daemon: no\n"));
    assert_eq!(typed(&mut app, "y"), [Effect::Copy(b"/var/cache".to_vec())]);
}

#[test]
fn details_tell_which_layers_have_a_file() {
    let mut app = started();
    typed(&mut app, "/app.conf\ri");
    let want = "
 /etc/app.conf

 layer 2 changed
   COPY app.conf index.html /
   ---------- 0:0 400B

 layer 1 added
   ADD rootfs.tar in /
   ---------- 0:0 300B
   hidden by layer 2
";
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains(&want[1..]), "{shown}");
    typed(&mut app, "␛?");
    assert!(matches!(app.overlay, Some(Overlay::Help)) && text(&mut app, 80, 24).contains(" Keys\n"));
    assert_eq!(typed(&mut app, "␛q"), [Effect::Quit]);
}

#[test]
fn layers_that_are_still_to_come_and_those_that_failed() {
    let mut app = App::new("app:1", about());
    let mut all = layers();
    app.files(2, std::mem::take(&mut all[2]));
    app.loaded(2);
    assert!(text(&mut app, 80, 24).contains("Files at layer 3  loading 1/3"));
    // Keys before anything is there, and while a part is.
    typed(&mut app, "jklhaswei/x␛␛wv\r\x1b[B\x1b[A GgyQr");
    app.files(0, std::mem::take(&mut all[0]));
    typed(&mut app, "jklhasweei␛wv\r\x1b[B e\x1b[A GgyQr[]aawwss");
    app.loaded(0);
    app.files(1, all[1][..2].to_vec());
    app.failed(1, "Error response from daemon: gone");
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains(" Error response from daemon: gone (r: try again)"), "{shown}");
    assert!(shown.contains("\n!2 ") && !shown.contains("loading"), "{shown}");
    assert_eq!(typed(&mut app, "r"), [Effect::Load(vec![1])]);
    assert_eq!(app.loads, [Load::Done, Load::Waiting, Load::Done]);
    let conf = app.tree.find("/etc/app.conf").unwrap();
    assert_eq!(app.tree.node(conf).entries.len(), 1, "what it had said was forgotten");
}

#[test]
fn every_size_can_be_drawn_and_keys_never_break_it() {
    let mut app = started();
    let keys = "jk[]lhaswwtie\t?q/a\r␛vGg[]yc e";
    for (n, (width, height)) in
        (1..=90).step_by(7).flat_map(|w| (1..=40).step_by(3).map(move |h| (w, h))).enumerate()
    {
        let key = keys.chars().nth(n % keys.chars().count()).unwrap_or('j');
        typed(&mut app, &key.to_string());
        app.read(b"/file", Ok((vec![b'x'; n * 10], 1)));
        text(&mut app, width, height);
        typed(&mut app, "␛");
        text(&mut app, width, height);
    }
    assert!(text(&mut app, 20, 4).starts_with("too small"));
    assert!(view::panes(Rect::new(0, 0, 24, 5), Focus::Files).is_some());
}

#[test]
fn a_narrow_terminal_shows_one_side() {
    let mut app = started();
    let shown = text(&mut app, 40, 10);
    assert!(shown.contains(" Files at layer 3") && !shown.contains(" Layers"), "{shown}");
    typed(&mut app, "\t");
    let shown = text(&mut app, 40, 10);
    assert!(shown.contains(" Layers") && shown.contains("1  1.09MB ████ ADD rootfs.tar in /"), "{shown}");
    typed(&mut app, "k\r");
    assert!(text(&mut app, 40, 10).contains(" Files at layer 2"));
}

#[test]
fn colours_only_where_they_are_wanted_and_signs_where_they_are_known() {
    let mut app = started();
    typed(&mut app, "[jl");
    let styles = |app: &mut App, theme| {
        let terminal = screen(app, theme, 80, 24);
        let cells = terminal.backend().buffer().content.clone();
        let coloured = cells.iter().filter(|c| c.fg != Color::Reset || c.bg != Color::Reset).count();
        let marked = cells.iter().filter(|c| c.modifier.contains(Modifier::REVERSED)).count();
        (coloured > 0, marked > 0, cells.iter().all(|c| c.symbol().is_ascii()))
    };
    assert_eq!(styles(&mut app, Theme { colours: true, signs: true }), (true, true, false));
    assert_eq!(styles(&mut app, Theme { colours: false, signs: true }), (false, true, false));
    assert_eq!(styles(&mut app, Theme { colours: false, signs: false }), (false, true, true));
}

#[test]
fn atk_40_names_steps_and_links_cannot_steer_the_terminal() {
    let mut about = about();
    about.layers[0].layer.step = "RUN \x1b[2J\nevil".into();
    let mut app = App::new("app\x1b[31m", about);
    let evil = LayerFile { link_target: "\x1b]0;x\x07".into(), ..row("/a\x1b[2Jb\r\n", "A", "symlink", 0) };
    app.files(0, vec![evil]);
    (0..3).for_each(|n| app.loaded(n));
    app.failed(2, "\x1b[2J");
    app.read(b"/\x1b", Ok((b"\x1b[2J\x9b".to_vec(), 1)));
    for keys in ["", "q", "i"] {
        typed(&mut app, keys);
        let terminal = screen(&mut app, PLAIN, 120, 30);
        for cell in &terminal.backend().buffer().content {
            assert!(cell.symbol().chars().all(|c| !c.is_control()), "{:?}", cell.symbol());
        }
    }
    assert!(text(&mut app, 120, 30).contains("\\x1b"));
}

#[test]
fn a_hundred_thousand_files_are_looked_at_at_once() {
    let mut app = App::new("many", about());
    let files = (0..100_000).map(|n| row(&format!("/files/{}/{}", n / 1000, n % 1000), "A", "file", 4));
    app.files(0, files.collect());
    (0..3).for_each(|n| app.loaded(n));
    assert_eq!(app.view.seen(0).size, 400_000);
    typed(&mut app, "e");
    assert_eq!(app.lines.len(), 1 + 100 + 100_000);
    typed(&mut app, "G/77/77\r");
    assert_eq!(app.tree.path(app.selected().unwrap()), b"/files/77/77");
}
