//! All files of all layers in one tree, and what shows of it at one layer.
//!
//! Every path has what each layer says about it. What a layer shows is found in two passes over all paths, parents
//! first, then children first; nothing is copied when another layer is looked at.

use longshore_api::layers::LayerFile;

/// What a layer does to a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing, or a directory that is as it was.
    #[default]
    Same,
    Added,
    Changed,
    Removed,
}

/// What a layer says about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The layer, from 0.
    pub(super) layer: usize,
    pub(super) mark: Mark,
    pub(super) file: LayerFile,
}

impl Entry {
    pub(super) fn is_dir(&self) -> bool {
        self.file.kind == "dir"
    }

    /// Its own bytes: those of a file with several names count once.
    fn bytes(&self) -> u64 {
        if self.file.kind == "file" && self.file.hard_link.is_empty() { self.file.size } else { 0 }
    }

    /// Whether nothing that lower layers have below the path shows.
    fn ends(&self) -> bool {
        self.mark == Mark::Removed || !self.is_dir()
    }
}

/// A path.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Vec<u8>,
    pub(super) parent: usize,
    /// In the order of their names.
    children: Vec<usize>,
    /// In the order of layers.
    pub(super) entries: Vec<Entry>,
}

/// The tree; the root is node 0, and a parent comes before its children.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    pub(super) const ROOT: usize = 0;

    pub(super) fn new() -> Self {
        Self { nodes: vec![Node { name: Vec::new(), parent: 0, children: Vec::new(), entries: Vec::new() }] }
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Takes an entry of a layer.
    pub(super) fn add(&mut self, layer: usize, mut file: LayerFile) {
        let bytes =
            longshore_api::layers::path_in(&file.path, file.path_bytes.as_deref()).unwrap_or_default();
        let mut at = Self::ROOT;
        for name in bytes.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            at = self.child(at, name);
        }
        let mark = match file.change.as_str() {
            "A" => Mark::Added,
            "C" => Mark::Changed,
            "D" => Mark::Removed,
            _ => Mark::Same,
        };
        // The place in the tree says the same.
        (file.path, file.path_bytes) = (String::new(), None);
        let entries = &mut self.nodes[at].entries;
        let place = entries.partition_point(|e| e.layer < layer);
        entries.insert(place, Entry { layer, mark, file });
    }

    /// Forgets what a layer said.
    pub(super) fn forget(&mut self, layer: usize) {
        self.nodes.iter_mut().for_each(|n| n.entries.retain(|e| e.layer != layer));
    }

    fn child(&mut self, parent: usize, name: &[u8]) -> usize {
        let found =
            self.nodes[parent].children.binary_search_by(|c| self.nodes[*c].name.as_slice().cmp(name));
        let place = match found {
            Ok(at) => return self.nodes[parent].children[at],
            Err(place) => place,
        };
        let node = self.nodes.len();
        self.nodes.push(Node { name: name.to_vec(), parent, children: Vec::new(), entries: Vec::new() });
        self.nodes[parent].children.insert(place, node);
        node
    }

    /// The path of a node, with a slash at its start.
    pub(super) fn path(&self, node: usize) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = node;
        while at != Self::ROOT {
            names.push(self.nodes[at].name.as_slice());
            at = self.nodes[at].parent;
        }
        names.push(b"");
        names.reverse();
        if names.len() == 1 { b"/".to_vec() } else { names.join(&b'/') }
    }

    /// The node of a path, if there is one.
    #[cfg(test)]
    pub(super) fn find(&self, path: &str) -> Option<usize> {
        let mut at = Self::ROOT;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            at = *self.nodes[at].children.iter().find(|c| self.nodes[**c].name == name.as_bytes())?;
        }
        Some(at)
    }
}

/// What shows of a node at a layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// It is there, or was until this layer.
    pub(super) shown: bool,
    pub(super) mark: Mark,
    /// Which of the node's entries; `None` for a directory that is only implied.
    pub(super) entry: Option<usize>,
    /// Bytes of it and all below it.
    pub(super) size: u64,
    /// The same of what the layer removes.
    pub(super) gone: u64,
    /// How many of it and all below it the layer adds, changes or removes.
    pub(super) changed: u32,
    /// It is what the filter looks for.
    pub(super) hit: bool,
    /// The filter lets it through, or something below it.
    pub(super) kept: bool,
    /// The filter lets something below it through.
    pub(super) leads: bool,
}

/// The tree as it shows at one layer.
#[derive(Debug, Default)]
pub(super) struct View {
    seen: Vec<Seen>,
}

/// One line of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) node: usize,
    pub(super) depth: usize,
}

/// How siblings are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Size,
}

/// The entry that shows of those of layers from `from` to `to`, and from which layer on the children of the node show.
fn last(entries: &[Entry], from: usize, to: usize) -> (Option<usize>, usize) {
    let (mut shown, mut cut) = (None, from);
    for (i, e) in entries.iter().enumerate().filter(|(_, e)| (from..=to).contains(&e.layer)) {
        shown = (e.mark != Mark::Removed).then_some(i);
        if e.ends() {
            cut = e.layer + 1;
        } else if e.file.opaque {
            cut = e.layer;
        }
    }
    (shown, cut)
}

impl View {
    /// What shows at a layer (from 0), with a filter.
    pub(super) fn at(tree: &Tree, layer: usize, filter: &Filter) -> Self {
        let mut seen = vec![Seen::default(); tree.len()];
        // From which layer on children show: now, and one layer lower.
        let mut cuts = vec![(0, 0); tree.len()];
        let mut inside = vec![false; tree.len()];
        for (i, node) in tree.nodes.iter().enumerate() {
            let (now, before) = if i == Tree::ROOT { (0, 0) } else { cuts[node.parent] };
            let (entry, cut) = last(&node.entries, now, layer);
            let (old, old_cut) = match layer.checked_sub(1) {
                Some(below) => last(&node.entries, before, below),
                None => (None, 0),
            };
            cuts[i] = (cut, old_cut);
            let s = &mut seen[i];
            s.entry = entry.or(old);
            s.mark = match (entry, old) {
                (Some(e), _) if node.entries[e].layer == layer => node.entries[e].mark,
                (None, Some(_)) => Mark::Removed,
                _ => Mark::Same,
            };
            s.shown = s.entry.is_some();
            s.size = entry.map_or(0, |e| node.entries[e].bytes());
            s.gone = old.filter(|_| entry.is_none()).map_or(0, |e| node.entries[e].bytes());
            s.changed = u32::from(s.mark != Mark::Same);
            let matches = i != Tree::ROOT && filter.matches(tree, i);
            inside[i] = matches || (i != Tree::ROOT && inside[node.parent]);
            (s.hit, s.kept) = (matches, inside[i]);
        }
        for i in (1..tree.len()).rev() {
            let child = seen[i].clone();
            // A directory that only something in it tells of.
            if !child.shown {
                continue;
            }
            let parent = &mut seen[tree.nodes[i].parent];
            parent.shown = true;
            parent.size += child.size;
            parent.gone += child.gone;
            parent.changed += child.changed;
            parent.kept |= child.kept;
            parent.leads |= child.kept;
        }
        Self { seen }
    }

    /// How many nodes it knows: those that came since are not seen yet.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn seen(&self, node: usize) -> &Seen {
        &self.seen[node]
    }

    /// Whether a node has lines below it.
    pub(super) fn is_dir(&self, tree: &Tree, node: usize) -> bool {
        let held = |e: usize| tree.nodes[node].entries[e].is_dir();
        self.seen[node].entry.map_or(!tree.nodes[node].children.is_empty(), held)
    }

    /// The lines that are shown: what is in open directories.
    pub(super) fn lines(
        &self,
        tree: &Tree,
        open: impl Fn(usize) -> bool,
        only_changes: bool,
        sort: Sort,
    ) -> Vec<Line> {
        let mut out = Vec::new();
        let mut todo = vec![(self.children(tree, Tree::ROOT, only_changes, sort).into_iter(), 0)];
        while let Some((children, depth)) = todo.last_mut() {
            let depth = *depth;
            let Some(node) = children.next() else {
                todo.pop();
                continue;
            };
            out.push(Line { node, depth });
            if open(node) {
                todo.push((self.children(tree, node, only_changes, sort).into_iter(), depth + 1));
            }
        }
        out
    }

    fn children(&self, tree: &Tree, node: usize, only_changes: bool, sort: Sort) -> Vec<usize> {
        let wanted = |c: &&usize| {
            let s = &self.seen[**c];
            s.shown && s.kept && (!only_changes || s.changed > 0)
        };
        let mut all: Vec<usize> = tree.nodes[node].children.iter().filter(wanted).copied().collect();
        if sort == Sort::Size {
            all.sort_by_key(|c| std::cmp::Reverse(self.seen[*c].size));
        }
        all
    }
}

/// Bytes of a path that no container sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wasted {
    pub(super) node: usize,
    pub(super) bytes: u64,
    /// How many layers have it in vain.
    pub(super) times: usize,
}

impl Tree {
    /// Paths whose bytes higher layers hide, the most first.
    pub(super) fn wasted(&self, filter: &Filter) -> Vec<Wasted> {
        let mut out: Vec<Wasted> = Vec::new();
        for (node, n) in self.nodes.iter().enumerate() {
            let lost = n.entries.iter().filter(|e| e.file.hidden_by > 0 && e.bytes() > 0);
            let (bytes, times) = lost.fold((0, 0), |(b, t), e| (b + e.bytes(), t + 1));
            if times > 0 && filter.matches(self, node) {
                out.push(Wasted { node, bytes, times });
            }
        }
        out.sort_by_key(|w| std::cmp::Reverse(w.bytes));
        out
    }
}

/// Which paths are looked for: a part of a name, or of the whole path if there is a slash in it; with `*` or `?` all of
/// it. Capitals count only if there are some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) text: String,
}

impl Filter {
    fn matches(&self, tree: &Tree, node: usize) -> bool {
        if self.text.is_empty() {
            return true;
        }
        let subject = if self.text.contains('/') { tree.path(node) } else { tree.nodes[node].name.clone() };
        let mut subject = String::from_utf8_lossy(&subject).into_owned();
        if !self.text.chars().any(char::is_uppercase) {
            subject = subject.to_lowercase();
        }
        if self.text.contains(['*', '?']) { glob(&self.text, &subject) } else { subject.contains(&self.text) }
    }
}

/// `*` stands for any text, `?` for one character.
fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut i, mut k) = (0, 0);
    // Where the last star stood, and up to where it reaches.
    let mut star: Option<(usize, usize)> = None;
    while k < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, k));
                i += 1;
            }
            Some(c) if *c == '?' || *c == t[k] => (i, k) = (i + 1, k + 1),
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    (i, k) = (at + 1, reach + 1);
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An entry as the API gives it.
    pub(in crate::explore) fn row(path: &str, change: &str, kind: &str, size: u64) -> LayerFile {
        LayerFile {
            path: path.into(),
            change: change.into(),
            kind: kind.into(),
            size,
            ..LayerFile::default()
        }
    }

    /// Three layers that do a bit of everything.
    pub(in crate::explore) fn layers() -> [Vec<LayerFile>; 3] {
        [
            vec![
                row("/", "A", "dir", 0),
                LayerFile { link_target: "usr/bin".into(), ..row("/bin", "A", "symlink", 0) },
                row("/etc", "A", "dir", 0),
                LayerFile { hidden_by: 2, ..row("/etc/app.conf", "A", "file", 300) },
                row("/etc/passwd", "A", "file", 50),
                row("/usr", "A", "dir", 0),
                row("/usr/bin", "A", "dir", 0),
                row("/usr/bin/tool", "A", "file", 90_000),
                LayerFile { hard_link: "/usr/bin/tool".into(), ..row("/usr/bin/twin", "A", "file", 90_000) },
                LayerFile { hidden_by: 3, ..row("/var", "A", "dir", 0) },
                LayerFile { hidden_by: 3, ..row("/var/cache", "A", "file", 1_000_000) },
            ],
            vec![
                row("/etc", "K", "dir", 0),
                row("/etc/app.conf", "C", "file", 400),
                row("/srv", "A", "dir", 0),
                row("/srv/index.html", "A", "file", 26),
            ],
            vec![row("/etc", "K", "dir", 0), row("/etc/passwd", "D", "", 0), row("/var", "D", "", 0)],
        ]
    }

    fn sample() -> Tree {
        let mut tree = Tree::new();
        // As they may arrive.
        for layer in [1, 0, 2] {
            layers()[layer].iter().for_each(|r| tree.add(layer, r.clone()));
        }
        tree
    }

    fn shown(tree: &Tree, view: &View, only_changes: bool, sort: Sort) -> Vec<String> {
        let lines = view.lines(tree, |n| view.is_dir(tree, n), only_changes, sort);
        lines
            .iter()
            .map(|l| {
                let s = view.seen(l.node);
                let mark = match s.mark {
                    Mark::Same => ' ',
                    Mark::Added => 'A',
                    Mark::Changed => 'C',
                    Mark::Removed => 'D',
                };
                let path = String::from_utf8(tree.path(l.node)).unwrap();
                assert_eq!(path.matches('/').count(), l.depth + 1);
                format!("{mark} {path} {}", s.size)
            })
            .collect()
    }

    #[test]
    fn each_layer_shows_what_is_there_and_what_it_does() {
        let tree = sample();
        let at = |layer| View::at(&tree, layer, &Filter::default());
        assert_eq!(
            shown(&tree, &at(0), false, Sort::Size),
            [
                "A /var 1000000",
                "A /var/cache 1000000",
                "A /usr 90000",
                "A /usr/bin 90000",
                "A /usr/bin/tool 90000",
                "A /usr/bin/twin 0",
                "A /etc 350",
                "A /etc/app.conf 300",
                "A /etc/passwd 50",
                "A /bin 0",
            ]
        );
        let want = ["  /etc 450", "C /etc/app.conf 400", "A /srv 26", "A /srv/index.html 26"];
        assert_eq!(shown(&tree, &at(1), true, Sort::Name), want);
        let want = ["  /etc 400", "D /etc/passwd 0", "D /var 0", "D /var/cache 0"];
        assert_eq!(shown(&tree, &at(2), true, Sort::Name), want);
        assert_eq!((at(2).seen(Tree::ROOT).changed, at(2).seen(Tree::ROOT).gone), (3, 1_000_050));
        assert_eq!(at(2).seen(Tree::ROOT).size, 90_000 + 400 + 26);
    }

    #[test]
    fn opaque_directories_and_other_types_hide_what_was_there() {
        let mut tree = Tree::new();
        for r in [
            row("/d", "A", "dir", 0),
            row("/d/old", "A", "file", 1),
            row("/t", "A", "dir", 0),
            row("/t/x", "A", "file", 1),
        ] {
            tree.add(0, r);
        }
        tree.add(1, LayerFile { opaque: true, ..row("/d", "K", "dir", 0) });
        tree.add(1, row("/d/new", "A", "file", 2));
        tree.add(1, row("/t", "C", "file", 5));
        tree.add(2, row("/t", "C", "dir", 0));
        tree.add(2, row("/t/y", "A", "file", 3));
        let at = |layer| View::at(&tree, layer, &Filter::default());
        let want = ["  /d 2", "A /d/new 2", "D /d/old 0", "C /t 5"];
        assert_eq!(shown(&tree, &at(1), false, Sort::Name), want);
        assert_eq!(shown(&tree, &at(2), false, Sort::Name), ["  /d 2", "  /d/new 2", "C /t 3", "A /t/y 3"]);
        tree.forget(2);
        assert_eq!(View::at(&tree, 2, &Filter::default()).seen(tree.find("/t").unwrap()).size, 5);
    }

    #[test]
    fn directories_that_nothing_tells_of_are_shown_for_what_is_in_them() {
        let mut tree = Tree::new();
        tree.add(0, row("/a/b/c", "A", "file", 7));
        let view = View::at(&tree, 0, &Filter::default());
        assert_eq!(shown(&tree, &view, false, Sort::Name), ["  /a 7", "  /a/b 7", "A /a/b/c 7"]);
    }

    #[test]
    fn filters_keep_the_way_to_what_is_found() {
        let tree = sample();
        let found = |text: &str| {
            let filter = Filter { text: text.into() };
            let view = View::at(&tree, 1, &filter);
            view.lines(&tree, |n| view.seen(n).leads, false, Sort::Name)
                .iter()
                .map(|l| String::from_utf8(tree.path(l.node)).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("pass"), ["/etc", "/etc/passwd"]);
        assert_eq!(found("*.conf"), ["/etc", "/etc/app.conf"]);
        assert_eq!(found("usr/bin/t"), ["/usr", "/usr/bin", "/usr/bin/tool", "/usr/bin/twin"]);
        assert_eq!(found("/*/index*"), ["/srv", "/srv/index.html"]);
        assert_eq!(found("ETC"), Vec::<String>::new());
        assert_eq!(found("nothing like it"), Vec::<String>::new());
        assert!(glob("a*b*c", "a-b-bc") && !glob("a*b", "abc") && glob("**", "") && glob("?x", "\u{e9}x"));
    }

    #[test]
    fn wasted_bytes_are_listed_by_path() {
        let tree = sample();
        let list = tree.wasted(&Filter::default());
        let told: Vec<_> =
            list.iter().map(|w| (String::from_utf8(tree.path(w.node)).unwrap(), w.bytes, w.times)).collect();
        assert_eq!(told, [("/var/cache".to_owned(), 1_000_000, 1), ("/etc/app.conf".to_owned(), 300, 1)]);
        assert_eq!(tree.wasted(&Filter { text: "conf".into() }).len(), 1);
    }
}
