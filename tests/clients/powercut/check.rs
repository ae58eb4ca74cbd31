//! Looks at what a disk holds after its power was cut, with a daemon started on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;

use longshore_oci::Digest;
use serde_json::Value;

use super::work::get;
use super::world::{Kind, Must};
use crate::harness::{Client, Daemon, fixture};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What the daemon has, and its ids.
fn there(d: &Daemon) -> BTreeMap<(Kind, String), String> {
    let socket = d.socket();
    let mut found = BTreeMap::new();
    for image in get(&socket, "/images/json").as_array().expect("images") {
        for name in image["RepoTags"].as_array().into_iter().flatten() {
            found.insert((Kind::Image, text(name)), text(&image["Id"]));
        }
    }
    for container in get(&socket, "/containers/json?all=1").as_array().expect("containers") {
        let name = text(&container["Names"][0]).trim_start_matches('/').to_owned();
        found.insert((Kind::Container, name), text(&container["Id"]));
    }
    for volume in get(&socket, "/volumes")["Volumes"].as_array().into_iter().flatten() {
        found.insert((Kind::Volume, text(&volume["Name"])), String::new());
    }
    found
}

/// Everything that is wrong, in words.
pub(super) fn check(d: &Daemon, must: &BTreeMap<(Kind, String), Must>) -> Vec<String> {
    let mut wrong = Vec::new();
    let begun = names(d, "content/ingest");
    if !begun.is_empty() {
        wrong.push(format!("content/ingest has {begun:?}"));
    }
    let found = there(d);
    for (thing, must) in must {
        match (must, found.get(thing)) {
            (Must::Be(_), None) => wrong.push(format!("{thing:?} was acknowledged and is lost")),
            (Must::Be(Some(id)), Some(other)) if id != other => {
                wrong.push(format!("{thing:?} was acknowledged as {id} and is {other}"));
            }
            (Must::BeGone, Some(_)) => wrong.push(format!("{thing:?} was removed and is back")),
            _ => {}
        }
    }
    for (kind, name) in found.keys() {
        if !must.contains_key(&(*kind, name.clone())) && name != "busybox:latest" {
            wrong.push(format!("{kind:?} {name} was never asked for"));
        }
    }
    let ids: BTreeSet<String> = get(&d.socket(), "/images/json?all=1")
        .as_array()
        .expect("images")
        .iter()
        .map(|image| text(&image["Id"]))
        .collect();
    for id in ids {
        if let Err(e) = whole(d, &id) {
            wrong.push(format!("image {id} is not whole: {e}"));
        }
    }
    for image in get(&d.socket(), "/images/json").as_array().expect("images") {
        let pulled =
            image["RepoTags"].as_array().into_iter().flatten().any(|name| text(name).starts_with("127."));
        if pulled && image["RepoDigests"].as_array().is_none_or(Vec::is_empty) {
            wrong.push(format!("image {} was pulled and has no digest", image["RepoTags"]));
        }
    }
    // Before anything is started: that changes what it looks at.
    let checked = d.run(Client::Longshore, ["system", "check"]);
    if checked.code != 0 {
        wrong.push(format!("system check: {}{}", checked.stdout, checked.stderr));
    }
    for (kind, name) in found.keys() {
        match kind {
            Kind::Container => wrong.extend(runs(d, name)),
            Kind::Volume => {
                let dir = d.data_root().join("volumes").join(name).join("_data");
                if !fs::metadata(dir).is_ok_and(|m| m.is_dir()) {
                    wrong.push(format!("volume {name} has no directory"));
                }
            }
            _ => {}
        }
    }
    wrong.extend(clear(d, &found));
    wrong
}

/// A container that was never started starts, and one that is there once more can be removed.
fn runs(d: &Daemon, name: &str) -> Option<String> {
    let done = d.docker(["start", "-a", name]);
    (done.code != 0).then(|| format!("container {name} does not start: {}", done.stderr.trim()))
}

/// The names in a folder of the data root.
pub(crate) fn names(d: &Daemon, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(d.data_root().join(dir)).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n != "l").collect()
}

/// Reads an image back and compares every layer with what its configuration says.
pub(crate) fn whole(d: &Daemon, id: &str) -> Result<(), String> {
    let file = d.dir().join("saved.tar");
    let done = d.docker(["save", "-o", file.to_str().expect("utf-8"), id]);
    if done.code != 0 {
        return Err(done.stderr);
    }
    let mut members = BTreeMap::new();
    let mut archive = tar::Archive::new(fs::File::open(file).map_err(|e| e.to_string())?);
    for entry in archive.entries().map_err(|e| e.to_string())? {
        let mut entry = entry.map_err(|e| e.to_string())?;
        let path = entry.path().map_err(|e| e.to_string())?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        members.insert(path, bytes);
    }
    let member = |name: &str| members.get(name).ok_or(format!("saved without {name}"));
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|e| e.to_string());
    let manifest = parse(member("manifest.json")?)?;
    let config = member(&text(&manifest[0]["Config"]))?;
    if Digest::of(config).to_string() != id {
        return Err("its configuration has another digest".into());
    }
    let diff_ids = parse(config)?["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    let layers = manifest[0]["Layers"].as_array().cloned().unwrap_or_default();
    if layers.len() != diff_ids.len() {
        return Err(format!("{} layers of {}", layers.len(), diff_ids.len()));
    }
    for (layer, diff_id) in layers.iter().zip(&diff_ids) {
        let bytes = plain(member(&text(layer))?)?;
        if Digest::of(&bytes).to_string() != text(diff_id) {
            return Err(format!("layer {diff_id} has another digest"));
        }
    }
    Ok(())
}

/// A layer, unpacked where it was kept as it came.
fn plain(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let done = match bytes {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::Decoder::new(bytes).and_then(|mut d| d.read_to_end(&mut out)),
        _ => return Ok(bytes.to_vec()),
    };
    done.map(|_| out).map_err(|e| e.to_string())
}

/// Removes all images: children first, and so as long as one goes.
fn remove_images(d: &Daemon) -> Option<String> {
    loop {
        let ids = d.docker(["images", "-q", "--no-trunc"]).ok();
        let ids: BTreeSet<&str> = ids.lines().collect();
        let refused: Vec<String> = ids
            .iter()
            .map(|id| d.docker(["rmi", "-f", id]))
            .filter(|done| done.code != 0)
            .map(|done| done.stderr)
            .collect();
        if refused.is_empty() || refused.len() == ids.len() {
            return refused.into_iter().next();
        }
    }
}

/// Removes all there is; then nothing may be left. What comes next works.
fn clear(d: &Daemon, found: &BTreeMap<(Kind, String), String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (kind, name) in found.keys() {
        let args: &[&str] = match kind {
            Kind::Container => &["rm", "-f", "-v", name],
            Kind::Volume => &["volume", "rm", name],
            Kind::Image => continue,
        };
        let done = d.docker(args);
        if done.code != 0 {
            wrong.push(format!("{args:?}: {}", done.stderr.trim()));
        }
    }
    wrong.extend(remove_images(d));
    for dir in [
        "overlay2",
        "overlay2/l",
        "layers",
        "containers",
        "content/ingest",
        "content/blobs/sha256",
        "volumes",
    ] {
        let left = names(d, dir);
        for name in left {
            let path = d.data_root().join(dir).join(&name);
            let to = fs::read_link(&path).map(|to| format!(", a link to {}", to.display()));
            wrong.push(format!("{dir} still has {name}{}", to.unwrap_or_default()));
        }
    }
    let file = fixture("busybox");
    for args in [
        vec!["load", "-q", "-i", file.to_str().expect("utf-8")],
        vec!["run", "--rm", "--network", "none", "busybox", "true"],
    ] {
        let done = d.docker(&args);
        if done.code != 0 {
            wrong.push(format!("afterwards, {args:?}: {}", done.stderr.trim()));
        }
    }
    wrong
}
