//! `image layers`, `which`, `diff`, `cat`, `explore`: seeing into layers. Our own; another daemon does not know them.

use hyper::body::Incoming;
use hyper::{Method, Response};
use longshore_api::layers::{DiffLine, FileInfo, ImageLayer, ImageLayers, LayerName, Version, Which};
use longshore_api::stream::Stream;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{App, say};
use crate::args::layers::{CatArgs, DiffArgs, LayersArgs, Look, WhichArgs};
use crate::client::{Client, Payload, each_chunk, escape, query};
use crate::error::{Failure, Result};
use crate::explore;
use crate::format::human::{ago, ellipsis, go_time, local, short_id, size};
use crate::format::{Columns, Object, Row, align_from, print_rows};
use crate::streams::show;
use crate::tty::{self, Visible, one_line};

/// Characters of a step in a table.
const STEP: usize = 60;

/// Carries one of them out.
pub(crate) async fn look(app: &App<'_>, look: Look) -> Result<()> {
    let c = &app.client;
    match look {
        Look::Layers(args) => layers(c, &args).await,
        Look::Which(args) => which(c, &args).await,
        Look::Diff(args) => diff(c, &args).await,
        Look::Cat(args) => cat(c, &args).await,
        Look::Explore(args) => explore::explore(c, &args.image).await,
    }
}

/// Asks for an answer whose body is read by the caller.
pub(crate) async fn ask(c: &Client, path: &str) -> Result<Response<Incoming>> {
    c.call(Method::GET, path, Payload::Empty).await.map_err(foreign)
}

/// Asks for a document.
pub(crate) async fn ask_json<T: DeserializeOwned>(c: &Client, path: &str) -> Result<T> {
    c.json(Method::GET, path, Payload::Empty).await.map_err(foreign)
}

/// Docker's daemon has no such page.
fn foreign(e: Failure) -> Failure {
    if e.is_not_found() && e.message.ends_with("page not found") {
        return Failure::new("this daemon cannot see into layers: it is not Longshore's");
    }
    e
}

/// The path of a question about an image.
pub(crate) fn of_image(image: &str, verb: &str, pairs: &[(&str, &str)]) -> String {
    query(&format!("/longshore/images/{}/{verb}", escape(image)), pairs)
}

fn bytes(n: u64) -> String {
    size(i64::try_from(n).unwrap_or(i64::MAX))
}

/// The step, or what stands for it.
pub(crate) fn step(layer: &LayerName) -> &str {
    match (layer.step.as_str(), layer.comment.as_str()) {
        ("", "") => "<unknown>",
        ("", comment) => comment,
        (step, _) => step,
    }
}

fn step_shown(layer: &LayerName, whole: bool) -> String {
    match layer.created_by.as_str() {
        _ if !whole => ellipsis(step(layer), STEP),
        "" => step(layer).to_owned(),
        text => text.to_owned(),
    }
}

const LAYERS: Columns = Columns {
    kind: "*layer",
    errors: ("template parsing error", "template parsing error"),
    raw: ("", ""),
    all: &[
        ("Number", "LAYER"),
        ("Size", "SIZE"),
        ("Added", "ADDED"),
        ("Changed", "CHANGED"),
        ("Deleted", "DELETED"),
        ("Directories", "DIRECTORIES"),
        ("Wasted", "WASTED"),
        ("Step", "STEP"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Comment", "COMMENT"),
        ("DiffID", "DIFF ID"),
        ("ChainID", "CHAIN ID"),
        ("CacheID", "CACHE ID"),
        ("Directory", "DIRECTORY"),
        ("Digest", "DIGEST"),
        ("CompressedSize", "COMPRESSED"),
    ],
    default: &["Number", "Size", "Added", "Changed", "Deleted", "Wasted", "DiffID", "Step"],
};

async fn layers(c: &Client, args: &LayersArgs) -> Result<()> {
    let found: ImageLayers = ask_json(c, &of_image(&args.image, "layers", &[])).await?;
    let format = args.format.as_deref().filter(|f| !f.is_empty());
    let rows: Vec<Row> = found.layers.iter().map(|l| layer_row(l, args.no_trunc)).collect();
    print_rows(&LAYERS, &rows, format, args.quiet.then_some("DiffID"))?;
    if format.is_some() || args.quiet {
        return Ok(());
    }
    let layers = if found.layers.len() == 1 { "layer" } else { "layers" };
    say(&format!(
        "\n{} in {} {layers}, {} wasted, efficiency {:.1} %",
        bytes(found.size),
        found.layers.len(),
        bytes(found.wasted),
        found.efficiency * 100.0
    ))
}

fn layer_row(l: &ImageLayer, whole: bool) -> Row {
    let created = l.layer.created.parse::<jiff::Timestamp>().ok();
    let id = |text: &str| if whole { text.to_owned() } else { short_id(text) };
    let compressed = l.compressed.as_ref();
    let row = json!({
        "Number": l.layer.number.to_string(),
        "Size": bytes(l.size),
        "Added": l.files_added.to_string(),
        "Changed": l.files_changed.to_string(),
        "Deleted": l.files_deleted.to_string(),
        "Directories": l.directories.to_string(),
        "Wasted": bytes(l.wasted),
        "Step": one_line(&step_shown(&l.layer, whole)),
        "CreatedBy": one_line(&l.layer.created_by),
        "CreatedSince": created.map_or_else(String::new, |t| ago(t.as_second())),
        "CreatedAt": created.map_or_else(String::new, |t| local(t.as_second())),
        "Comment": one_line(&l.layer.comment),
        "DiffID": id(&l.layer.diff_id),
        "ChainID": id(&l.layer.chain_id),
        "CacheID": id(&l.layer.cache_id),
        "Directory": l.directory,
        "Digest": compressed.map(|b| id(&b.digest)).unwrap_or_default(),
        "CompressedSize": compressed.map(|b| bytes(b.size)).unwrap_or_default(),
    });
    Row::new(row, &Value::Null)
}

async fn which(c: &Client, args: &WhichArgs) -> Result<()> {
    let template = args.format.as_deref().filter(|f| !f.is_empty() && *f != "json").map(Object::parse);
    let template = template.transpose().map_err(|e| Failure::new(format!("template parsing error: {e}")))?;
    let pairs = [("path", args.path.as_str()), ("resolve", if args.no_resolve { "0" } else { "" })];
    let path = |family: &str| query(&format!("/longshore/{family}/{}/which", escape(&args.name)), &pairs);
    let found: Value = match args.kind.as_str() {
        "image" => ask_json(c, &path("images")).await?,
        "container" => ask_json(c, &path("containers")).await?,
        _ => match ask_json(c, &path("images")).await {
            Err(no_image) if no_image.status.is_some_and(|s| s == 404 || s == 400) => {
                match ask_json(c, &path("containers")).await {
                    Err(e) if e.message.contains("No such container") => Err(neither(no_image, &args.name))?,
                    found => found?,
                }
            }
            found => found?,
        },
    };
    match (&template, args.format.as_deref()) {
        (Some(template), _) => {
            say(&template.render(&found).map_err(|e| Failure::new(format!("template parsing error: {e}")))?)
        }
        (None, Some("json")) => say(&serde_json::to_string_pretty(&found).unwrap_or_default()),
        _ => {
            let found: Which = serde_json::from_value(found)
                .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))?;
            show(Stream::Stdout, which_text(&found, args.no_trunc).as_bytes())
        }
    }
}

fn neither(e: Failure, name: &str) -> Failure {
    if e.message.contains("No such image") {
        return Failure::daemon(404, &format!("No such image or container: {name}"));
    }
    e
}

fn which_text(w: &Which, whole: bool) -> String {
    let mut out = String::new();
    for link in &w.links {
        out.push_str(&format!("{} -> {}\n", one_line(&link.path), one_line(&link.target)));
    }
    out.push_str(&one_line(&w.path));
    out.push_str(match w.versions.first() {
        _ if w.exists => "\n",
        Some(v) if v.change == "deleted" => " (deleted)\n",
        _ => " (not there)\n",
    });
    if let Some(m) = &w.mount {
        let what = match m.kind.as_str() {
            "engine" => "the engine's own files are".to_owned(),
            kind => format!("{kind} {} is", one_line(&m.source)).replace("  ", " "),
        };
        out.push_str(&format!(
            "(in the container {what} mounted at {}: that hides what the layers have there)\n",
            one_line(&m.destination)
        ));
    }
    out.push('\n');
    let mut lines = vec!["LAYER\tCHANGE\tSIZE\tMODE\tOWNER\tMODIFIED\tSTEP".to_owned()];
    lines.extend(w.versions.iter().map(|v| version_line(v, &w.path, whole)));
    out.push_str(&align_from(&lines, 0));
    out
}

fn version_line(v: &Version, path: &str, whole: bool) -> String {
    let (place, step) = match (v.place.as_str(), &v.layer) {
        (_, Some(layer)) => (layer.number.to_string(), step_shown(layer, whole)),
        ("init", _) => ("init".to_owned(), "what every container has".to_owned()),
        (place, _) => (place.to_owned(), "written by the container".to_owned()),
    };
    let mut change = v.change.clone();
    if !v.via.is_empty() && v.via != path {
        change.push_str(&format!(" with {}", one_line(&v.via)));
    }
    if v.opaque {
        change.push_str(", emptied");
    }
    let file = v.file.as_ref();
    let size = match (file, v.entries) {
        (_, Some(1)) => "1 entry".to_owned(),
        (_, Some(n)) => format!("{n} entries"),
        (Some(f), _) if f.kind == "file" => bytes(f.size),
        _ => String::new(),
    };
    let owner = file.and_then(|f| Some(format!("{}:{}", f.uid?, f.gid?))).unwrap_or_default();
    let time = file.map(|f| time(&f.mtime)).unwrap_or_default();
    let mode = file.map(mode).unwrap_or_default();
    format!("{place}\t{change}\t{size}\t{mode}\t{owner}\t{time}\t{}", one_line(&step))
}

fn time(mtime: &str) -> String {
    // To the second, without the zone: it is UTC.
    go_time(mtime).get(..19).unwrap_or_default().to_owned()
}

/// `-rwsr-xr-x`, as `ls` shows it.
pub(crate) fn mode(f: &FileInfo) -> String {
    mode_text(&f.kind, f.mode)
}

/// The same from a kind and permission bits.
pub(crate) fn mode_text(kind: &str, mode: u32) -> String {
    let mut out = String::with_capacity(10);
    out.push(match kind {
        "dir" => 'd',
        "symlink" => 'l',
        "char" => 'c',
        "block" => 'b',
        "fifo" => 'p',
        "socket" => 's',
        _ => '-',
    });
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => set.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// Sums of a comparison.
#[derive(Debug, Default)]
struct Sums {
    /// Of `A`, `C` and `D`: paths, bytes before, bytes after.
    each: [(u64, u64, u64); 3],
}

impl Sums {
    fn add(&mut self, line: &DiffLine) {
        let at = match line.change.as_str() {
            "A" => 0,
            "D" => 2,
            _ => 1,
        };
        let sum = &mut self.each[at];
        sum.0 += 1;
        sum.1 += line.from.as_ref().map_or(0, |f| f.size);
        sum.2 += line.to.as_ref().map_or(0, |f| f.size);
    }

    fn text(&self) -> String {
        let [added, changed, deleted] = self.each;
        let lines = [
            format!("added\t{}\t+{}", added.0, bytes(added.2)),
            format!("changed\t{}\t{}", changed.0, signed(changed.1, changed.2)),
            format!("deleted\t{}\t-{}", deleted.0, bytes(deleted.1)),
            format!(
                "all\t{}\t{}",
                added.0 + changed.0 + deleted.0,
                signed(changed.1 + deleted.1, changed.2 + added.2)
            ),
        ];
        align_from(&lines, 0)
    }
}

fn signed(before: u64, after: u64) -> String {
    if after < before { format!("-{}", bytes(before - after)) } else { format!("+{}", bytes(after - before)) }
}

async fn diff(c: &Client, args: &DiffArgs) -> Result<()> {
    let format = args.format.as_deref().filter(|f| !f.is_empty());
    if args.stat && format.is_some() {
        return Err(Failure::new("--stat and --format cannot be used together"));
    }
    let template = format.filter(|f| *f != "json").map(Object::parse).transpose();
    let template = template.map_err(|e| Failure::new(format!("template parsing error: {e}")))?;
    let content = if args.content { "1" } else { "" };
    let pairs = [("from", args.from.as_str()), ("to", args.to.as_str()), ("content", content)];
    let answer = ask(c, &query("/longshore/images/diff", &pairs)).await?;
    let mut sums = Sums::default();
    let mut out = String::new();
    lines(answer, |text| {
        if format == Some("json") {
            out.push_str(text);
            out.push('\n');
        } else if let Some(template) = &template {
            let value: Value = parse(text)?;
            let line =
                template.render(&value).map_err(|e| Failure::new(format!("template parsing error: {e}")))?;
            out.push_str(&line);
            out.push('\n');
        } else {
            let line: DiffLine = parse(text)?;
            if args.stat { sums.add(&line) } else { out.push_str(&diff_text(&line, args.size)) }
        }
        if out.len() > (64 << 10) {
            show(Stream::Stdout, out.as_bytes())?;
            out.clear();
        }
        Ok(())
    })
    .await?;
    if args.stat {
        out = sums.text();
    }
    show(Stream::Stdout, out.as_bytes())
}

fn diff_text(line: &DiffLine, sizes: bool) -> String {
    let path = one_line(&line.path);
    if !sizes {
        return format!("{} {path}\n", line.change);
    }
    let (before, after) = (file_size(line.from.as_ref()), file_size(line.to.as_ref()));
    let size = match (before, after) {
        (Some(a), Some(b)) if a == b => bytes(a),
        (Some(a), Some(b)) => format!("{}>{}", bytes(a), bytes(b)),
        (Some(n), None) | (None, Some(n)) => bytes(n),
        (None, None) => String::new(),
    };
    format!("{} {size:>15} {path}\n", line.change)
}

fn file_size(file: Option<&FileInfo>) -> Option<u64> {
    file.filter(|f| f.kind == "file").map(|f| f.size)
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))
}

/// Longest line that is taken.
const MAX_LINE: usize = 1 << 20;

/// Gives every line of a body to `f` as it arrives.
pub(crate) async fn lines(answer: Response<Incoming>, mut f: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut rest: Vec<u8> = Vec::new();
    each_chunk(answer, |chunk| {
        rest.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(n) = rest[start..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&rest[start..start + n]);
            if !line.trim().is_empty() {
                f(&line)?;
            }
            start += n + 1;
        }
        rest.drain(..start);
        if rest.len() > MAX_LINE {
            Err(Failure::new("the daemon's answer has an endless line"))
        } else {
            Ok(())
        }
    })
    .await?;
    if rest.is_empty() { Ok(()) } else { Err(Failure::new("the daemon's answer breaks off")) }
}

async fn cat(c: &Client, args: &CatArgs) -> Result<()> {
    let layer = args.layer.map(|n| n.to_string()).unwrap_or_default();
    let answer = ask(c, &of_image(&args.image, "file", &[("path", &args.path), ("layer", &layer)])).await?;
    let mut visible = tty::stdout_is_terminal().then(Visible::default);
    each_chunk(answer, |chunk| match &mut visible {
        // What an image holds may not steer the terminal.
        Some(visible) => show(Stream::Stdout, visible.text(chunk).as_bytes()),
        None => show(Stream::Stdout, chunk),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_ls() {
        for (kind, mode, want) in [
            ("file", 0o4755, "-rwsr-xr-x"),
            ("dir", 0o1777, "drwxrwxrwt"),
            ("symlink", 0o777, "lrwxrwxrwx"),
            ("file", 0o2640, "-rw-r-S---"),
            ("char", 0o620, "crw--w----"),
        ] {
            assert_eq!(mode_text(kind, mode), want);
        }
    }

    #[test]
    fn sums_of_a_comparison() {
        let file = |size| Some(FileInfo { kind: "file".into(), size, ..FileInfo::default() });
        let line =
            |change: &str, from, to| DiffLine { change: change.into(), from, to, ..DiffLine::default() };
        let mut sums = Sums::default();
        for l in [line("A", None, file(3000)), line("C", file(2000), file(500)), line("D", file(1), None)] {
            sums.add(&l);
        }
        let want = "added     1   +3kB\nchanged   1   -1.5kB\ndeleted   1   -1B\nall       3   +1.5kB\n";
        assert_eq!(sums.text(), want);
        let shown = diff_text(&DiffLine { path: "/a\n".into(), ..line("C", file(2000), file(500)) }, true);
        assert_eq!(shown, "C        2kB>500B /a\\x0a\n");
    }

    #[test]
    fn the_life_of_a_file_is_told_from_its_end() {
        let layer = |number, step: &str| LayerName {
            number,
            step: step.into(),
            created_by: format!("/bin/sh -c {step}"),
            ..LayerName::default()
        };
        let file = FileInfo {
            kind: "file".into(),
            mode: 0o644,
            size: 1200,
            mtime: "2026-01-02T03:04:05.5Z".into(),
            uid: Some(0),
            gid: Some(7),
            ..FileInfo::default()
        };
        let w = Which {
            path: "/usr/share/x".into(),
            links: vec![longshore_api::layers::FollowedLink {
                path: "/x".into(),
                target: "usr/share/x".into(),
            }],
            versions: vec![
                Version {
                    place: "layer".into(),
                    layer: Some(layer(3, "RUN rm -r /usr/share")),
                    change: "deleted".into(),
                    via: "/usr/share".into(),
                    ..Version::default()
                },
                Version {
                    place: "layer".into(),
                    layer: Some(layer(1, "ADD file:1 in /")),
                    change: "added".into(),
                    file: Some(file),
                    ..Version::default()
                },
            ],
            ..Which::default()
        };
        let want = "/x -> usr/share/x\n/usr/share/x (deleted)\n\n\
            LAYER   CHANGE                    SIZE    MODE         OWNER   MODIFIED              STEP\n\
            3       deleted with /usr/share                                                      RUN rm -r /usr/share\n\
            1       added                     1.2kB   -rw-r--r--   0:7     2026-01-02 03:04:05   ADD file:1 in /\n";
        assert_eq!(which_text(&w, false), want);
    }
}
