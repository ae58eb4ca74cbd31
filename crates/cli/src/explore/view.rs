//! Draws the explorer's state. Nothing here changes it.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

use super::app::{App, Focus, Listing, Load, Overlay};
use super::pager::Pager;
use super::tree::{Entry, Mark, Seen};
use crate::commands::layers::{mode_text, step};
use crate::format::human::{ago, local, short_id, size};
use crate::tty::one_line;

/// Narrower, and only one side is shown.
const TWO_SIDES: u16 = 64;
/// Smaller, and nothing can be shown.
const SMALLEST: (u16, u16) = (24, 5);
/// From this height on the selected layer is described below the list.
const DESCRIBED: u16 = 16;

/// How things look: with colours or without, with signs beyond ASCII or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) colours: bool,
    pub(super) signs: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn mark(self, mark: Mark) -> Style {
        match mark {
            Mark::Same => Style::new(),
            Mark::Added => self.colour(Color::Green),
            Mark::Changed => self.colour(Color::Yellow),
            Mark::Removed => self.colour(Color::Red),
        }
    }

    fn dim(self) -> Style {
        self.colour(Color::DarkGray)
    }

    fn title(self, focused: bool) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if focused { style.patch(self.colour(Color::Cyan)).add_modifier(Modifier::UNDERLINED) } else { style }
    }

    fn selected(focused: bool) -> Style {
        if focused {
            // In one colour: reversed ones would look like bars.
            Style::new().fg(Color::Reset).add_modifier(Modifier::REVERSED)
        } else {
            Style::new().add_modifier(Modifier::BOLD)
        }
    }

    fn open(self, open: bool) -> &'static str {
        match (self.signs, open) {
            (true, true) => "▾",
            (true, false) => "▸",
            (false, true) => "v",
            (false, false) => ">",
        }
    }

    /// A part of a whole, `width` cells wide.
    fn bar(self, part: u64, whole: u64, width: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        if part == 0 || whole == 0 {
            return " ".repeat(width);
        }
        let eighths = (u128::from(part) * width as u128 * 8).div_ceil(u128::from(whole));
        let eighths = usize::try_from(eighths).unwrap_or(0).min(width * 8);
        let (full, rest) = if self.signs { (eighths / 8, eighths % 8) } else { (eighths.div_ceil(8), 0) };
        let mut out = (if self.signs { "█" } else { "#" }).repeat(full);
        out.push_str(EIGHTHS[rest]);
        let drawn = full + usize::from(rest > 0);
        out + &" ".repeat(width - drawn)
    }
}

/// Where everything stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panes {
    header: Rect,
    layers: Option<Rect>,
    about: Option<Rect>,
    files: Option<Rect>,
    footer: Rect,
    whole: Rect,
}

/// What fits where; `None` when nothing does.
pub(super) fn panes(area: Rect, focus: Focus) -> Option<Panes> {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return None;
    }
    let foot = if area.height >= 8 { 2 } else { 1 };
    let body = Rect { y: area.y + 1, height: area.height - 1 - foot, ..area };
    let (left, right) = if area.width >= TWO_SIDES {
        let width = (area.width * 3 / 7).clamp(28, 60);
        let rest = area.width - width - 1;
        (Some(Rect { width, ..body }), Some(Rect { x: body.x + width + 1, width: rest, ..body }))
    } else if focus == Focus::Layers {
        (Some(body), None)
    } else {
        (None, Some(body))
    };
    let about = left.filter(|l| l.height >= DESCRIBED).map(|l| Rect { y: l.bottom() - 7, height: 7, ..l });
    let layers = left.map(|l| Rect { height: l.height - about.map_or(0, |a| a.height), ..l });
    Some(Panes {
        header: Rect { height: 1, ..area },
        layers,
        about,
        files: right,
        footer: Rect { y: area.bottom() - foot, height: foot, ..area },
        whole: Rect { y: area.y + 1, height: area.height - 2, ..area },
    })
}

impl Panes {
    /// Lines of the two lists, and lines and columns of what covers both.
    pub(super) fn sizes(&self) -> (usize, usize, (usize, usize)) {
        let lines = |r: Option<Rect>| r.map_or(1, |r| usize::from(r.height.saturating_sub(1)));
        let whole = (usize::from(self.whole.height.saturating_sub(1)), usize::from(self.whole.width));
        (lines(self.layers), lines(self.files), whole)
    }
}

/// A path or name as it can be shown.
pub(super) fn text(bytes: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(bytes))
}

fn bytes(n: u64) -> String {
    size(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Writes into one line of an area, and remembers where it is.
struct Pen<'a> {
    buf: &'a mut Buffer,
    x: u16,
    y: u16,
    end: u16,
}

impl<'a> Pen<'a> {
    fn at(buf: &'a mut Buffer, area: Rect, line: u16) -> Self {
        Self { buf, x: area.x, y: area.y + line, end: area.right() }
    }

    fn room(&self) -> usize {
        usize::from(self.end.saturating_sub(self.x))
    }

    fn put(&mut self, text: &str, style: Style) -> &mut Self {
        let room = self.room();
        (self.x, _) = self.buf.set_stringn(self.x, self.y, text, room, style);
        self
    }

    /// The same with an ellipsis where it does not fit.
    fn fit(&mut self, text: &str, style: Style, theme: Theme) -> &mut Self {
        let room = self.room();
        if text.chars().count() <= room {
            return self.put(text, style);
        }
        let cut: String = text.chars().take(room.saturating_sub(1)).collect();
        self.put(&cut, style).put(if theme.signs { "…" } else { "~" }, style)
    }
}

/// Draws all of it.
pub(super) fn draw(app: &App, theme: Theme, buf: &mut Buffer) {
    let area = buf.area;
    let Some(panes) = panes(area, app.focus) else {
        Pen::at(buf, area, 0).put("too small", Style::new());
        return;
    };
    header(app, theme, panes.header, buf);
    match &app.overlay {
        Some(Overlay::Help) => help(theme, panes.whole, buf),
        Some(Overlay::Details(node)) => details(app, *node, theme, panes.whole, buf),
        Some(Overlay::Pager(p)) => pager(p, theme, panes.whole, buf),
        None => {
            if let Some(area) = panes.layers {
                layers(app, theme, area, buf);
            }
            if let Some(area) = panes.about {
                about(app, theme, area, buf);
            }
            if let Some(area) = panes.files {
                files(app, theme, area, buf);
            }
            if let (Some(left), Some(_)) = (panes.layers, panes.files) {
                let line = if theme.signs { "│" } else { "|" };
                for y in left.y..panes.footer.y {
                    buf.set_stringn(left.right(), y, line, 1, theme.dim());
                }
            }
        }
    }
    footer(app, theme, panes.footer, buf);
}

fn header(app: &App, theme: Theme, area: Rect, buf: &mut Buffer) {
    let about = &app.about;
    let layers = if about.layers.len() == 1 { "layer" } else { "layers" };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut pen = Pen::at(buf, area, 0);
    pen.put(" ", bold).fit(&one_line(&app.image), bold, theme);
    pen.put(&format!("  {} {layers}  {}", about.layers.len(), bytes(about.size)), Style::new());
    let wasted = format!("  wasted {} (efficiency {:.1} %)", bytes(about.wasted), about.efficiency * 100.0);
    pen.put(&wasted, if about.wasted > 0 { theme.colour(Color::Magenta) } else { Style::new() });
    pen.put(&format!("  {}", short_id(&about.id)), theme.dim());
}

fn layers(app: &App, theme: Theme, area: Rect, buf: &mut Buffer) {
    let focused = app.focus == Focus::Layers;
    Pen::at(buf, area, 0).put(" Layers", theme.title(focused));
    let most = app.about.layers.iter().map(|l| l.size).max().unwrap_or(0);
    let digits = app.about.layers.len().to_string().len();
    let shown = app.about.layers.iter().enumerate().skip(app.layers.top).take(app.layers.height);
    for (line, (i, layer)) in (1..).zip(shown) {
        let selected = i == app.layer();
        let mut pen = Pen::at(buf, area, line);
        let load = match app.loads[i] {
            Load::Done => " ",
            Load::Waiting => ".",
            Load::Failed => "!",
        };
        pen.put(load, theme.colour(Color::Red));
        pen.put(&format!("{:>digits$} ", layer.layer.number), Style::new());
        pen.put(&format!("{:>7} ", bytes(layer.size)), Style::new());
        pen.put(&theme.bar(layer.size, most, 4), theme.colour(Color::Blue)).put(" ", Style::new());
        pen.fit(&one_line(step(&layer.layer)), Style::new(), theme);
        if selected {
            let row = Rect { y: area.y + line, height: 1, ..area };
            buf.set_style(row, Theme::selected(focused));
        }
    }
}

/// What the selected layer is and does.
fn about(app: &App, theme: Theme, area: Rect, buf: &mut Buffer) {
    let Some(layer) = app.about.layers.get(app.layer()) else { return };
    let rule = if theme.signs { "─" } else { "-" }.repeat(usize::from(area.width));
    Pen::at(buf, area, 0).put(&rule, theme.dim());
    let mut pen = Pen::at(buf, area, 1);
    pen.put(&format!(" {} added", layer.files_added), theme.mark(Mark::Added));
    pen.put(&format!(" {} changed", layer.files_changed), theme.mark(Mark::Changed));
    pen.put(&format!(" {} deleted", layer.files_deleted), theme.mark(Mark::Removed));
    let mut pen = Pen::at(buf, area, 2);
    let wasted = if layer.wasted > 0 { theme.colour(Color::Magenta) } else { Style::new() };
    pen.put(&format!(" {} wasted", bytes(layer.wasted)), wasted);
    pen.put(&format!("  {}", short_id(&layer.layer.diff_id)), theme.dim());
    if let Ok(created) = layer.layer.created.parse::<jiff::Timestamp>() {
        let since = format!("  {}", ago(created.as_second()));
        if pen.room() >= since.len() {
            pen.put(&since, theme.dim());
        }
    }
    let width = usize::from(area.width.saturating_sub(2)).max(1);
    let text: Vec<char> = one_line(step(&layer.layer)).chars().collect();
    let room = usize::from(area.height) - 3;
    for (line, (n, part)) in (3..).zip(text.chunks(width).take(room).enumerate()) {
        let mut part: String = part.iter().collect();
        if n + 1 == room && text.len() > room * width {
            part.pop();
            part.push(if theme.signs { '…' } else { '~' });
        }
        Pen::at(buf, area, line).put(" ", Style::new()).put(&part, Style::new());
    }
}

fn files(app: &App, theme: Theme, area: Rect, buf: &mut Buffer) {
    let focused = app.focus == Focus::Files;
    let number = app.about.layers.get(app.layer()).map_or(0, |l| l.layer.number);
    let title = match (app.listing, app.only_changes) {
        (Listing::Wasted, _) => " Wasted in all layers".to_owned(),
        (_, true) => format!(" Changes of layer {number}"),
        (_, false) => format!(" Files at layer {number}"),
    };
    let mut pen = Pen::at(buf, area, 0);
    pen.put(&title, theme.title(focused));
    if app.sort == super::tree::Sort::Size && app.listing == Listing::Tree {
        pen.put(" by size", theme.dim());
    }
    if app.waiting() > 0 {
        let (left, all) = (app.waiting(), app.layer() + 1);
        pen.put(&format!("  loading {}/{all}", all - left), theme.colour(Color::Cyan));
    }
    if app.typing || !app.filter.text.is_empty() {
        pen.put("  /", theme.colour(Color::Cyan)).put(&one_line(&app.filter.text), Style::new());
        if app.typing {
            pen.put(" ", Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    let shown = usize::from(area.height.saturating_sub(1));
    let first = app.files.top;
    match app.listing {
        Listing::Tree => {
            for (line, (i, l)) in (1..).zip(app.lines.iter().enumerate().skip(first).take(shown)) {
                let row = Rect { y: area.y + line, height: 1, ..area };
                tree_line(app, l.node, l.depth, theme, row, buf);
                if i == app.files.at {
                    buf.set_style(row, Theme::selected(focused));
                }
            }
            if app.lines.is_empty() && app.waiting() == 0 {
                let none = if app.filter.text.is_empty() { " no files" } else { " nothing matches" };
                Pen::at(buf, area, 1.min(area.height - 1)).put(none, theme.dim());
            }
        }
        Listing::Wasted => {
            let most = app.wasted.first().map_or(0, |w| w.bytes);
            for (line, (i, w)) in (1..).zip(app.wasted.iter().enumerate().skip(first).take(shown)) {
                let mut pen = Pen::at(buf, area, line);
                pen.put(&format!(" {:>7} ", bytes(w.bytes)), Style::new());
                pen.put(&theme.bar(w.bytes, most, 4), theme.colour(Color::Magenta));
                pen.put(&format!(" {}x ", w.times), theme.dim());
                pen.fit(&text(&app.tree.path(w.node)), Style::new(), theme);
                if i == app.files.at {
                    let row = Rect { y: area.y + line, height: 1, ..area };
                    buf.set_style(row, Theme::selected(focused));
                }
            }
            if app.wasted.is_empty() && app.waiting() == 0 {
                Pen::at(buf, area, 1.min(area.height - 1)).put(" nothing is wasted", theme.dim());
            }
        }
    }
}

fn letter(mark: Mark) -> &'static str {
    match mark {
        Mark::Same => " ",
        Mark::Added => "A",
        Mark::Changed => "C",
        Mark::Removed => "D",
    }
}

fn entry_of<'a>(app: &'a App, node: usize, seen: &Seen) -> Option<&'a Entry> {
    seen.entry.and_then(|e| app.tree.node(node).entries.get(e))
}

fn tree_line(app: &App, node: usize, depth: usize, theme: Theme, area: Rect, buf: &mut Buffer) {
    let seen = app.view.seen(node);
    let entry = entry_of(app, node, seen);
    let is_dir = app.view.is_dir(&app.tree, node);
    let size = match entry {
        _ if seen.mark == Mark::Removed => seen.gone,
        _ if is_dir => seen.size,
        Some(e) => e.file.size,
        None => 0,
    };
    let mark = theme.mark(seen.mark);
    let mut pen = Pen::at(buf, area, 0);
    pen.put(letter(seen.mark), mark.add_modifier(Modifier::BOLD));
    let empty = size == 0 && entry.is_none_or(|e| e.file.kind != "file");
    pen.put(&format!("{:>8} ", if empty { String::new() } else { bytes(size) }), Style::new());
    // The part that it has of its directory.
    let whole = app.view.seen(app.tree.node(node).parent).size;
    let whole = if seen.mark == Mark::Removed { 0 } else { whole };
    pen.put(&theme.bar(size, whole, 4), theme.colour(Color::Blue)).put(" ", Style::new());
    // What is deep moves no further to the right than half of the room.
    let indent = depth.min(usize::from(area.width) / 4);
    pen.put(&"  ".repeat(indent), Style::new());
    let sign = if is_dir { theme.open(app.is_open(node)) } else { " " };
    pen.put(sign, theme.dim()).put(" ", Style::new());
    let mut style = if seen.mark == Mark::Same && is_dir { theme.colour(Color::Blue) } else { mark };
    if is_dir {
        style = style.add_modifier(Modifier::BOLD);
    }
    if seen.mark == Mark::Removed {
        style = style.add_modifier(Modifier::CROSSED_OUT);
    }
    let mut name = text(&app.tree.node(node).name);
    if is_dir {
        name.push('/');
    }
    pen.fit(&name, style, theme);
    match entry {
        Some(e) if !e.file.link_target.is_empty() => {
            pen.fit(&format!(" -> {}", one_line(&e.file.link_target)), theme.dim(), theme);
        }
        Some(e) if !e.file.hard_link.is_empty() => {
            pen.fit(&format!(" = {}", one_line(&e.file.hard_link)), theme.dim(), theme);
        }
        _ if is_dir && seen.changed > 0 && !app.is_open(node) => {
            pen.fit(&format!("  {} changed", seen.changed), theme.dim(), theme);
        }
        _ => {}
    }
}

/// Mode, owner, size and time of an entry.
fn look(entry: &Entry) -> String {
    let f = &entry.file;
    let mut out = format!("{} {}:{}", mode_text(&f.kind, f.mode), f.uid, f.gid);
    if f.kind == "file" {
        out.push_str(&format!(" {}", bytes(f.size)));
    }
    if let Some((major, minor)) = f.device {
        out.push_str(&format!(" {major},{minor}"));
    }
    if f.mtime != 0 {
        out.push_str(&format!(" {}", local(f.mtime).get(..19).unwrap_or_default()));
    }
    out
}

fn footer(app: &App, theme: Theme, area: Rect, buf: &mut Buffer) {
    let keys = match app.overlay {
        Some(Overlay::Help) => "Esc back",
        Some(Overlay::Details(_)) => "v view  Esc back",
        Some(Overlay::Pager(_)) => "arrows, PgUp PgDn move  g G ends  Esc back",
        None if app.typing => "type a part of a name, or * and ?  Enter keep  Esc clear",
        None => "? help  q quit  Tab side  [ ] layer  a changes  / filter  s sort  w wasted  v view  i info",
    };
    if area.height > 1 {
        let mut pen = Pen::at(buf, area, 0);
        match (&app.message, app.selected().filter(|_| app.overlay.is_none())) {
            (Some(message), _) => {
                pen.put(" ", Style::new()).fit(&one_line(message), theme.colour(Color::Yellow), theme);
            }
            (None, Some(node)) => {
                let path = text(&app.tree.path(node));
                pen.put(" ", Style::new());
                if let Some(entry) = entry_of(app, node, app.view.seen(node)) {
                    pen.put(&look(entry), theme.dim()).put(" ", Style::new());
                }
                pen.fit(&path, Style::new(), theme);
            }
            _ => {}
        }
    }
    let mut pen = Pen::at(buf, area, area.height - 1);
    if let (1, Some(message)) = (area.height, &app.message) {
        pen.fit(&one_line(message), theme.colour(Color::Yellow), theme);
        return;
    }
    pen.put(" ", Style::new()).fit(keys, theme.dim(), theme);
}

const HELP: &[(&str, &str)] = &[
    ("Tab", "between layers and files"),
    ("up down, j k", "move (also PgUp PgDn, Ctrl-u Ctrl-d, g G)"),
    ("right left, l h", "open and close a directory"),
    ("Enter", "open a directory, view a file"),
    ("[ ]", "the layer below, the layer above"),
    ("a", "all files, or only what the layer changes"),
    ("/", "filter: a part of a name, a path with /, or * and ?"),
    ("s", "sort by name or by size"),
    ("w", "what is wasted: files that higher layers hide"),
    ("v", "view the file"),
    ("i", "all about the file: which layers have it"),
    ("y", "copy the path, where the terminal lets us"),
    ("e c", "open all below, close all"),
    ("r", "ask the daemon again after a failure"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("A C D", "added, changed, deleted by the selected layer"),
];

fn help(theme: Theme, area: Rect, buf: &mut Buffer) {
    Pen::at(buf, area, 0).put(" Keys", theme.title(true));
    let room = usize::from(area.height.saturating_sub(1));
    for (line, (keys, what)) in (1..).zip(HELP.iter().take(room)) {
        let mut pen = Pen::at(buf, area, line);
        pen.put(&format!(" {keys:<17}"), theme.colour(Color::Cyan)).fit(what, Style::new(), theme);
    }
}

/// Which layers have a path, and what it is in each.
fn details(app: &App, node: usize, theme: Theme, area: Rect, buf: &mut Buffer) {
    let mut pen = Pen::at(buf, area, 0);
    pen.put(" ", Style::new()).fit(&text(&app.tree.path(node)), theme.title(true), theme);
    let mut line = 1;
    let mut put = |text: &str, style: Style| {
        if line < area.height {
            Pen::at(buf, area, line).put(" ", Style::new()).fit(text, style, theme);
        }
        line += 1;
    };
    let entries = &app.tree.node(node).entries;
    if entries.is_empty() {
        put("no layer describes this directory: it is there because something lies in it", Style::new());
    }
    for entry in entries.iter().rev() {
        let layer = app.about.layers.get(entry.layer);
        let step = layer.map(|l| one_line(step(&l.layer))).unwrap_or_default();
        let what = match entry.mark {
            Mark::Same => "as it was",
            Mark::Added => "added",
            Mark::Changed => "changed",
            Mark::Removed => "deleted",
        };
        put("", Style::new());
        let here = if entry.layer == app.layer() { "  (selected)" } else { "" };
        put(
            &format!("layer {} {what}{here}", entry.layer + 1),
            theme.mark(entry.mark).add_modifier(Modifier::BOLD),
        );
        put(&format!("  {step}"), theme.dim());
        if entry.mark != Mark::Removed {
            put(&format!("  {}", look(entry)), Style::new());
        }
        let f = &entry.file;
        if !f.link_target.is_empty() {
            put(&format!("  link to {}", one_line(&f.link_target)), Style::new());
        }
        if !f.hard_link.is_empty() {
            put(&format!("  the same file as {}", one_line(&f.hard_link)), Style::new());
        }
        if f.opaque {
            put("  what lower layers had in it is hidden", Style::new());
        }
        if f.hidden_by > 0 {
            put(&format!("  hidden by layer {}", f.hidden_by), theme.colour(Color::Magenta));
        }
    }
}

fn pager(p: &Pager, theme: Theme, area: Rect, buf: &mut Buffer) {
    let mut pen = Pen::at(buf, area, 0);
    pen.put(" ", Style::new()).fit(&text(&p.path), theme.title(true), theme);
    let last = (p.scroll.top + p.scroll.height).min(p.lines.len());
    let mut state = format!("  {last}/{} lines", p.lines.len());
    if p.shown < p.size {
        state =
            format!("  the first {} of {}, {last}/{} lines", bytes(p.shown), bytes(p.size), p.lines.len());
    }
    pen.put(&state, theme.dim());
    for (line, text) in (1..area.height).zip(p.lines.iter().skip(p.scroll.top)) {
        let part: String = text.chars().skip(p.left).collect();
        Pen::at(buf, area, line).put(&part, Style::new());
    }
}
