//! The explorer's state, and what keys and answers do to it. Nothing here asks or draws.

use std::collections::HashSet;

use longshore_api::layers::{ImageLayers, LayerFile};

use super::input::Key;
use super::pager::Pager;
use super::tree::{Filter, Line, Mark, Sort, Tree, View, Wasted};

/// Changes that are opened by themselves.
const OPENED: u32 = 1000;

/// Which side the keys move in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    Layers,
    Files,
}

/// What the right side lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    Tree,
    Wasted,
}

/// What covers both sides.
#[derive(Clone, Debug)]
pub(super) enum Overlay {
    Help,
    /// All that is known of a node.
    Details(usize),
    Pager(Pager),
}

/// What is known of a layer's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    Waiting,
    Done,
    Failed,
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Read a file as it is at a layer (from 0).
    Read {
        path: Vec<u8>,
        layer: usize,
    },
    Copy(Vec<u8>),
    /// Ask for these layers' files again.
    Load(Vec<usize>),
}

/// A list that scrolls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scroll {
    /// The line that is selected.
    pub(super) at: usize,
    /// The first line that is shown.
    pub(super) top: usize,
    /// Lines that can be shown.
    pub(super) height: usize,
}

impl Scroll {
    /// Selects a line of `len`, and shows it.
    pub(super) fn to(&mut self, at: usize, len: usize) {
        self.at = at.min(len.saturating_sub(1));
        let height = self.height.max(1);
        self.top = self.top.clamp((self.at + 1).saturating_sub(height), self.at);
        self.top = self.top.min(len.saturating_sub(height));
    }

    /// The same for a line that may be far away: it is shown in the middle then.
    fn jump(&mut self, at: usize, len: usize) {
        if !(self.top..self.top + self.height).contains(&at) {
            self.top = at.saturating_sub(self.height / 2);
        }
        self.to(at, len);
    }

    /// Moves as a key says; false for keys that move nothing.
    pub(super) fn key(&mut self, key: Key, len: usize) -> bool {
        let page = self.height.max(2) - 1;
        let at = match key {
            Key::Up | Key::Char('k') | Key::Ctrl('p') => self.at.saturating_sub(1),
            Key::Down | Key::Char('j') | Key::Ctrl('n') => self.at + 1,
            Key::PageUp | Key::Ctrl('b') => self.at.saturating_sub(page),
            Key::PageDown | Key::Ctrl('f') => self.at + page,
            Key::Ctrl('u') => self.at.saturating_sub(page.div_ceil(2)),
            Key::Ctrl('d') => self.at + page.div_ceil(2),
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => len.saturating_sub(1),
            _ => return false,
        };
        self.to(at, len);
        true
    }
}

/// The explorer.
#[derive(Debug)]
pub(super) struct App {
    /// As it was asked for.
    pub(super) image: String,
    pub(super) about: ImageLayers,
    pub(super) tree: Tree,
    pub(super) loads: Vec<Load>,
    pub(super) focus: Focus,
    /// The selected layer is its line.
    pub(super) layers: Scroll,
    pub(super) files: Scroll,
    pub(super) listing: Listing,
    pub(super) view: View,
    pub(super) lines: Vec<Line>,
    pub(super) wasted: Vec<Wasted>,
    pub(super) only_changes: bool,
    pub(super) sort: Sort,
    pub(super) filter: Filter,
    /// The filter is being typed.
    pub(super) typing: bool,
    pub(super) overlay: Option<Overlay>,
    /// Said once, until the next key.
    pub(super) message: Option<String>,
    /// Directories that are open.
    open: HashSet<usize>,
    /// Directories that are closed although the filter leads through them.
    closed: HashSet<usize>,
}

impl App {
    pub(super) fn new(image: &str, about: ImageLayers) -> Self {
        let count = about.layers.len();
        let mut app = Self {
            image: image.to_owned(),
            about,
            tree: Tree::new(),
            loads: vec![Load::Waiting; count],
            focus: Focus::Files,
            layers: Scroll { at: count.saturating_sub(1), ..Scroll::default() },
            files: Scroll::default(),
            listing: Listing::Tree,
            view: View::default(),
            lines: Vec::new(),
            wasted: Vec::new(),
            only_changes: false,
            sort: Sort::Name,
            filter: Filter::default(),
            typing: false,
            overlay: None,
            message: None,
            open: HashSet::new(),
            closed: HashSet::new(),
        };
        app.look();
        app
    }

    /// The selected layer, from 0.
    pub(super) fn layer(&self) -> usize {
        self.layers.at
    }

    /// Whether a layer at or below the selected one is still to come.
    pub(super) fn waiting(&self) -> usize {
        self.loads.iter().take(self.layer() + 1).filter(|l| **l == Load::Waiting).count()
    }

    /// The node of the selected line.
    pub(super) fn selected(&self) -> Option<usize> {
        match self.listing {
            Listing::Tree => self.lines.get(self.files.at).map(|l| l.node),
            Listing::Wasted => self.wasted.get(self.files.at).map(|w| w.node),
        }
    }

    /// Whether a directory is shown open.
    pub(super) fn is_open(&self, node: usize) -> bool {
        let led = !self.filter.text.is_empty() && self.view.seen(node).leads && !self.closed.contains(&node);
        self.open.contains(&node) || led
    }

    fn count(&self) -> usize {
        match self.listing {
            Listing::Tree => self.lines.len(),
            Listing::Wasted => self.wasted.len(),
        }
    }

    /// Looks at everything again: another layer, other files, another filter.
    pub(super) fn look(&mut self) {
        self.view = View::at(&self.tree, self.layer(), &self.filter);
        self.wasted = match self.listing {
            Listing::Wasted => self.tree.wasted(&self.filter),
            Listing::Tree => Vec::new(),
        };
        self.list();
    }

    /// Lists the lines again, and stays where it was.
    fn list(&mut self) {
        let before = self.selected();
        if self.listing == Listing::Tree {
            let lines = self.view.lines(&self.tree, |n| self.is_open(n), self.only_changes, self.sort);
            self.lines = lines;
        }
        // Where it is hidden now, what it lies in.
        let mut node = before;
        let at = loop {
            let Some(n) = node else { break None };
            let found = match self.listing {
                Listing::Tree => self.lines.iter().position(|l| l.node == n),
                Listing::Wasted => self.wasted.iter().position(|w| w.node == n),
            };
            if found.is_some() || n == Tree::ROOT {
                break found;
            }
            node = Some(self.tree.node(n).parent);
        };
        self.files.jump(at.unwrap_or(self.files.at), self.count());
    }

    /// The terminal has another size.
    pub(super) fn resize(&mut self, layers: usize, files: usize, whole: (usize, usize)) {
        self.layers.height = layers;
        self.files.height = files;
        self.layers.to(self.layers.at, self.about.layers.len());
        self.files.to(self.files.at, self.count());
        if let Some(Overlay::Pager(pager)) = &mut self.overlay {
            pager.resize(whole);
        }
    }

    /// Files of a layer arrived.
    pub(super) fn files(&mut self, layer: usize, files: Vec<LayerFile>) {
        files.into_iter().for_each(|f| self.tree.add(layer, f));
    }

    /// All files of a layer are there.
    pub(super) fn loaded(&mut self, layer: usize) {
        self.loads[layer] = Load::Done;
        self.look();
        if self.only_changes && layer == self.layer() {
            self.open_changes();
        }
    }

    /// The daemon failed to tell of a layer.
    pub(super) fn failed(&mut self, layer: usize, why: &str) {
        self.loads[layer] = Load::Failed;
        self.tree.forget(layer);
        self.look();
        self.message = Some(format!("{why} (r: try again)"));
    }

    /// A file's bytes arrived, or not.
    pub(super) fn read(&mut self, path: &[u8], answer: Result<(Vec<u8>, u64), String>) {
        match answer {
            Ok((bytes, size)) => {
                self.message = None;
                self.overlay = Some(Overlay::Pager(Pager::new(path, &bytes, size)));
            }
            Err(why) => self.message = Some(why),
        }
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: Key) -> Option<Effect> {
        self.message = None;
        match key {
            Key::Ctrl('c') => return Some(Effect::Quit),
            Key::Ctrl('z') => return Some(Effect::Suspend),
            Key::Ctrl('l') => return Some(Effect::Redraw),
            _ => {}
        }
        if self.overlay.is_some() {
            return self.overlay_key(key);
        }
        if self.typing {
            self.type_filter(key);
            return None;
        }
        match key {
            Key::Char('q') => return Some(Effect::Quit),
            Key::Char('?') => self.overlay = Some(Overlay::Help),
            Key::Tab => {
                self.focus = if self.focus == Focus::Files { Focus::Layers } else { Focus::Files };
            }
            Key::Char('[') => self.select_layer(self.layer().saturating_sub(1)),
            Key::Char(']') => self.select_layer(self.layer() + 1),
            Key::Char('a') => self.toggle_changes(),
            Key::Char('s') => {
                self.sort = if self.sort == Sort::Name { Sort::Size } else { Sort::Name };
                self.list();
            }
            Key::Char('w') => self.toggle_wasted(),
            Key::Char('/') => {
                self.typing = true;
                self.focus = Focus::Files;
            }
            Key::Esc => self.leave(),
            Key::Char('r') => return self.load_again(),
            Key::Char('y') => {
                let path = self.tree.path(self.selected()?);
                self.message = Some(format!("copied {}", super::view::text(&path)));
                return Some(Effect::Copy(path));
            }
            _ if self.focus == Focus::Layers => self.layers_key(key),
            _ => return self.files_key(key),
        }
        None
    }

    fn layers_key(&mut self, key: Key) {
        let mut scroll = self.layers;
        if scroll.key(key, self.about.layers.len()) {
            self.select_layer(scroll.at);
        } else if matches!(key, Key::Enter | Key::Right | Key::Char('l')) {
            self.focus = Focus::Files;
        }
    }

    fn select_layer(&mut self, layer: usize) {
        let before = self.layer();
        self.layers.to(layer, self.about.layers.len());
        if self.layer() != before {
            self.look();
            if self.only_changes {
                self.open_changes();
            }
        }
    }

    fn files_key(&mut self, key: Key) -> Option<Effect> {
        if self.files.key(key, self.count()) {
            return None;
        }
        let node = self.selected()?;
        let is_dir = self.view.is_dir(&self.tree, node);
        match key {
            Key::Char('i') => self.overlay = Some(Overlay::Details(node)),
            Key::Char('v') if !is_dir => return self.read_file(node),
            Key::Enter if self.listing == Listing::Wasted => self.show_in_tree(node),
            Key::Enter | Key::Char(' ') if is_dir => self.set_open(node, !self.is_open(node)),
            Key::Enter => return self.read_file(node),
            Key::Right | Key::Char('l') if is_dir && !self.is_open(node) => self.set_open(node, true),
            Key::Right | Key::Char('l') => {
                let at = self.files.at + usize::from(is_dir);
                self.files.to(at, self.count());
            }
            Key::Left | Key::Char('h') if is_dir && self.is_open(node) => self.set_open(node, false),
            Key::Left | Key::Char('h') => {
                let parent = self.tree.node(node).parent;
                if let Some(at) = self.lines.iter().position(|l| l.node == parent) {
                    self.files.to(at, self.count());
                }
            }
            Key::Char('e') => self.open_below(node),
            Key::Char('c') => {
                self.open.clear();
                self.list();
            }
            _ => {}
        }
        None
    }

    fn overlay_key(&mut self, key: Key) -> Option<Effect> {
        if let Some(Overlay::Pager(pager)) = &mut self.overlay
            && pager.key(key)
        {
            return None;
        }
        match (&self.overlay, key) {
            (Some(Overlay::Details(node)), Key::Char('v') | Key::Enter) => {
                let node = *node;
                if !self.view.is_dir(&self.tree, node) {
                    return self.read_file(node);
                }
            }
            (_, Key::Char('q') | Key::Esc | Key::Enter | Key::Char('i' | '?' | 'h') | Key::Left) => {
                self.overlay = None;
            }
            _ => {}
        }
        None
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Enter | Key::Tab | Key::Down | Key::Up => {
                self.typing = false;
                return;
            }
            Key::Esc => return self.leave(),
            Key::Backspace if self.filter.text.is_empty() => {
                self.typing = false;
                return;
            }
            Key::Backspace => drop(self.filter.text.pop()),
            Key::Ctrl('u') => self.filter.text.clear(),
            Key::Char(c) if self.filter.text.len() < 256 => self.filter.text.push(c),
            _ => return,
        }
        self.closed.clear();
        self.look();
        if let Some(at) = self.lines.iter().position(|l| self.view.seen(l.node).hit) {
            self.files.to(at, self.count());
        }
    }

    /// Steps back: out of the filter, of the list of what is wasted.
    fn leave(&mut self) {
        if self.typing || !self.filter.text.is_empty() {
            self.typing = false;
            let node = self.selected();
            self.filter.text.clear();
            self.closed.clear();
            // What was found stays in sight.
            let mut at = node;
            while let Some(n) = at.filter(|n| *n != Tree::ROOT) {
                let parent = self.tree.node(n).parent;
                self.open.insert(parent);
                at = Some(parent);
            }
            self.look();
        } else if self.listing == Listing::Wasted {
            self.toggle_wasted();
        }
    }

    fn toggle_changes(&mut self) {
        self.only_changes = !self.only_changes;
        self.listing = Listing::Tree;
        if self.only_changes {
            self.open_changes();
        }
        self.look();
    }

    /// Opens the way to what the layer changes, if it is not too much to see.
    fn open_changes(&mut self) {
        if self.view.seen(Tree::ROOT).changed <= OPENED {
            for node in 0..self.view.len() {
                let seen = self.view.seen(node);
                if seen.changed > u32::from(seen.mark != Mark::Same) {
                    self.open.insert(node);
                }
            }
        }
        self.list();
    }

    fn toggle_wasted(&mut self) {
        self.listing = if self.listing == Listing::Wasted { Listing::Tree } else { Listing::Wasted };
        self.files.to(0, 0);
        self.look();
    }

    /// Shows a path in the tree, at the first layer that has it in vain.
    fn show_in_tree(&mut self, node: usize) {
        let lost = self.tree.node(node).entries.iter().find(|e| e.file.hidden_by > 0).map(|e| e.layer);
        (self.listing, self.only_changes) = (Listing::Tree, false);
        self.filter.text.clear();
        self.layers.to(lost.unwrap_or(self.layer()), self.about.layers.len());
        let mut at = node;
        while at != Tree::ROOT {
            at = self.tree.node(at).parent;
            self.open.insert(at);
        }
        self.look();
        if let Some(at) = self.lines.iter().position(|l| l.node == node) {
            self.files.jump(at, self.count());
        }
    }

    fn set_open(&mut self, node: usize, open: bool) {
        if open {
            self.open.insert(node);
            self.closed.remove(&node);
        } else {
            self.open.remove(&node);
            self.closed.insert(node);
        }
        self.list();
    }

    /// Opens all directories in this one.
    fn open_below(&mut self, node: usize) {
        let mut inside = vec![false; self.view.len()];
        for n in node..self.view.len() {
            inside[n] = n == node || (n != Tree::ROOT && inside[self.tree.node(n).parent]);
            if inside[n] && self.view.is_dir(&self.tree, n) {
                self.open.insert(n);
            }
        }
        self.list();
    }

    fn read_file(&mut self, node: usize) -> Option<Effect> {
        let seen = self.view.seen(node);
        let entry = &self.tree.node(node).entries[seen.entry?];
        let layer = match (self.listing, seen.mark) {
            (Listing::Wasted, _) => self.tree.node(node).entries.iter().find(|e| e.file.hidden_by > 0)?.layer,
            // What the layer removes can be read where it still was.
            (_, Mark::Removed) => self.layer().checked_sub(1)?,
            _ => self.layer(),
        };
        if !matches!(entry.file.kind.as_str(), "file" | "symlink") {
            self.message = Some(format!("a {} cannot be read", entry.file.kind));
            return None;
        }
        let path = self.tree.path(node);
        self.message = Some(format!("reading {}", super::view::text(&path)));
        Some(Effect::Read { path, layer })
    }

    fn load_again(&mut self) -> Option<Effect> {
        let failed: Vec<usize> = (0..self.loads.len()).filter(|l| self.loads[*l] == Load::Failed).collect();
        if failed.is_empty() {
            return None;
        }
        failed.iter().for_each(|l| self.loads[*l] = Load::Waiting);
        Some(Effect::Load(failed))
    }
}
