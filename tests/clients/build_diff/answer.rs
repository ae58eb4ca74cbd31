//! What a build gave, as a flat list: of the configuration each field, of the tree each path in which it
//! differs from the image that all begin with.
//!
//! Of times only one is told: that of the contexts. Whatever else has a time has that of some build.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;

use longshore_oci::Digest;
use serde_json::{Value, json};

use super::context::TIME;

/// Key and value; `fails` for a build that failed.
pub(crate) type Answer = BTreeMap<String, Value>;

/// What a build that failed gives.
pub(crate) fn failed() -> Answer {
    [("fails".to_owned(), Value::Bool(true))].into()
}

/// What a build gives that makes an image without layers, where those cannot be looked at.
pub(crate) fn empty() -> Answer {
    [("empty".to_owned(), Value::Bool(true))].into()
}

/// The image that all cases begin with.
#[derive(Debug)]
pub(crate) struct Base {
    diff_ids: Vec<Value>,
    config: Answer,
    tree: Tree,
}

impl Base {
    pub(crate) fn read(archive: &[u8]) -> Self {
        let image = Image::read(archive);
        Self { diff_ids: image.diff_ids(), config: configuration(&image.config), tree: image.tree() }
    }
}

/// The answer that an archive of an image (`docker save`) tells.
pub(crate) fn of_archive(archive: &[u8], base: &Base) -> Answer {
    let image = Image::read(archive);
    let mut answer = Answer::new();
    let ours = configuration(&image.config);
    let (no_config, no_tree) = (Answer::new(), Tree::default());
    let stands_on = image.diff_ids().starts_with(&base.diff_ids);
    let (config, tree) = if stands_on { (&base.config, &base.tree) } else { (&no_config, &no_tree) };
    answer.extend(config.keys().filter(|k| !ours.contains_key(*k)).map(|k| (k.clone(), "gone".into())));
    answer.extend(ours.into_iter().filter(|(k, v)| config.get(k) != Some(v)));
    image.tree().differs(tree, &mut answer);
    answer
}

fn configuration(document: &Value) -> Answer {
    let mut answer = Answer::new();
    for key in ["architecture", "os", "variant", "author", "os.version"] {
        put(&mut answer, key, &document[key]);
    }
    for (key, value) in document["config"].as_object().into_iter().flatten() {
        // Traces of the container that the last step ran in.
        if !matches!(key.as_str(), "Hostname" | "Image" | "Domainname") {
            put(&mut answer, &format!("config/{key}"), value);
        }
    }
    // Buildah's name of itself, and its empty lists.
    let labels = answer.get_mut("config/Labels").and_then(Value::as_object_mut);
    if let Some(labels) = labels
        && labels.remove("io.buildah.version").is_some()
    {
        let none = labels.is_empty();
        answer.retain(|k, v| !(none && k == "config/Labels" || k == "config/Entrypoint" && *v == json!([])));
    }
    answer.retain(|k, v| !(k == "config/OnBuild" && *v == json!([])));
    answer
}

/// What means nothing is not told.
fn put(answer: &mut Answer, key: &str, value: &Value) {
    let nothing = match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(s) => s.is_empty(),
        Value::Object(o) => o.is_empty(),
        Value::Number(n) => n.as_i64() == Some(0),
        _ => false,
    };
    if !nothing {
        answer.insert(key.to_owned(), value.clone());
    }
}

struct Image {
    files: HashMap<String, Vec<u8>>,
    config: Value,
    layers: Vec<String>,
}

impl Image {
    fn read(archive: &[u8]) -> Self {
        let mut files = HashMap::new();
        for entry in tar::Archive::new(archive).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(name, content);
        }
        let json = |name: &str| -> Value { serde_json::from_slice(&files[name]).expect("JSON") };
        let manifest = json("manifest.json");
        let one = &manifest[0];
        let config = json(one["Config"].as_str().expect("Config"));
        let names = one["Layers"].as_array().into_iter().flatten();
        let layers = names.filter_map(Value::as_str).map(str::to_owned).collect();
        Self { files, config, layers }
    }

    fn diff_ids(&self) -> Vec<Value> {
        self.config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default()
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        for layer in &self.layers {
            tree.apply(self.files.get(layer).map(Vec::as_slice).unwrap_or_default());
        }
        tree
    }
}

/// Files by their paths; those with several names share a node.
#[derive(Clone, Debug, Default)]
struct Tree {
    nodes: Vec<String>,
    paths: BTreeMap<String, usize>,
}

impl Tree {
    fn apply(&mut self, layer: &[u8]) {
        for entry in tar::Archive::new(layer).entries().expect("a layer") {
            let path = clean(&entry.expect("an entry").path_bytes());
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                self.remove(parent, false);
            } else if let Some(name) = name.strip_prefix(".wh.") {
                self.remove(&join(parent, name), true);
            }
        }
        for entry in tar::Archive::new(layer).entries().expect("a layer") {
            let mut entry = entry.expect("an entry");
            let path = clean(&entry.path_bytes());
            if path.rsplit('/').next().is_some_and(|name| name.starts_with(".wh.")) {
                continue;
            }
            if entry.header().entry_type() != tar::EntryType::Directory {
                self.remove(&path, true);
            }
            let node = match entry.header().entry_type() {
                tar::EntryType::Link => {
                    let to = clean(&entry.link_name_bytes().expect("a target"));
                    *self
                        .paths
                        .get(&to)
                        .unwrap_or_else(|| panic!("{path} is a link to {to}, which is not there"))
                }
                _ => {
                    self.nodes.push(describe(&mut entry));
                    self.nodes.len() - 1
                }
            };
            self.paths.insert(path, node);
        }
    }

    fn remove(&mut self, path: &str, itself: bool) {
        let below = format!("{path}/");
        self.paths.retain(|p, _| {
            !((itself && p == path) || p.starts_with(&below) || (path.is_empty() && !p.is_empty()))
        });
    }

    /// Lines of all paths. A file with several names tells the first of them.
    fn lines(&self) -> BTreeMap<&str, String> {
        let mut names: HashMap<usize, Vec<&str>> = HashMap::new();
        for (path, node) in &self.paths {
            names.entry(*node).or_default().push(path);
        }
        let line = |node: &usize| match names[node].as_slice() {
            [first, _, ..] => format!("{} ={first}", self.nodes[*node]),
            _ => self.nodes[*node].clone(),
        };
        self.paths.iter().map(|(path, node)| (path.as_str(), line(node))).collect()
    }

    fn differs(&self, below: &Self, answer: &mut Answer) {
        let (ours, theirs) = (self.lines(), below.lines());
        for (path, line) in &ours {
            if theirs.get(path) != Some(line) {
                answer.insert(format!("/{path}"), Value::String(line.clone()));
            }
        }
        for path in theirs.keys().filter(|path| !ours.contains_key(*path)) {
            answer.insert(format!("/{path}"), Value::String("gone".into()));
        }
    }
}

/// Kind, permissions, owner; then what there is of: size and content, target, time, attributes.
fn describe(entry: &mut tar::Entry<'_, &[u8]>) -> String {
    let header = entry.header().clone();
    let kind = header.entry_type();
    let letter = match kind {
        tar::EntryType::Directory => 'd',
        tar::EntryType::Symlink => 'l',
        tar::EntryType::Fifo => 'p',
        tar::EntryType::Char => 'c',
        tar::EntryType::Block => 'b',
        _ => 'f',
    };
    let mode = if letter == 'l' { 0o777 } else { header.mode().expect("mode") & 0o7777 };
    let (uid, gid) = (header.uid().expect("uid"), header.gid().expect("gid"));
    let mut line = format!("{letter} {mode:o} {uid}:{gid}");
    let mut time = header.mtime().expect("mtime");
    let mut attributes = BTreeMap::new();
    for pair in entry.pax_extensions().expect("extensions").into_iter().flatten().flatten() {
        let key = pair.key().unwrap_or_default();
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            attributes.insert(name.to_owned(), pair.value_bytes().to_vec());
        } else if key == "mtime" {
            let seconds = pair.value().unwrap_or_default().split('.').next().unwrap_or_default();
            time = seconds.parse().unwrap_or(time);
        }
    }
    match letter {
        'f' => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            line += &format!(" {} {}", content.len(), text(&content));
        }
        'l' => {
            let to = entry.link_name_bytes().unwrap_or_default();
            line += &format!(" -> {}", String::from_utf8_lossy(&to));
        }
        'c' | 'b' => {
            let (major, minor) = (header.device_major(), header.device_minor());
            line += &format!(" {:?}:{:?}", major.ok().flatten(), minor.ok().flatten());
        }
        _ => {}
    }
    if time == TIME {
        line += " t";
    }
    for (name, value) in attributes {
        line += &format!(" {name}={}", value.iter().map(|b| format!("{b:02x}")).collect::<String>());
    }
    line
}

/// Short contents as they are, others by their digest.
fn text(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) if text.len() <= 60 => format!("{text:?}"),
        _ => format!("#{}", &Digest::of(content).hex()[..12]),
    }
}

fn clean(path: &[u8]) -> String {
    let text: String = match std::str::from_utf8(path) {
        Ok(text) => text.to_owned(),
        Err(_) => path
            .iter()
            .map(|b| if b.is_ascii() { char::from(*b).to_string() } else { format!("%{b:02X}") })
            .collect(),
    };
    let parts: Vec<&str> = text.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    parts.join("/")
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}
