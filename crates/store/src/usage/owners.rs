//! Whose an entry under the data root is, by its path and the records: a pure function of both.

use std::collections::{BTreeMap, BTreeSet};

use longshore_oci::Digest;

use super::{Kind, join};
use crate::caches::CacheRecord;
use crate::image::{ImageRow, LayerRecord, parse_id};
use crate::lease::{self, LeaseRecord};
use crate::meta::Table;
use crate::open::Store;
use crate::rw::MountRow;
use crate::{Result, snapshot};

/// What the records say.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Layers by cache id.
    layers: BTreeMap<String, Digest>,
    /// Containers by the cache ids of their two snapshots.
    writable: BTreeMap<String, String>,
    containers: BTreeSet<String>,
    volumes: BTreeSet<String>,
    /// Cache mounts: their names by those of their directories.
    caches: BTreeMap<String, String>,
    /// Compressed layers, and the chain ids of the layers that they are of.
    compressed: BTreeMap<Digest, Vec<Digest>>,
    /// All other blobs that records name.
    documents: BTreeSet<Digest>,
    held: LeaseRecord,
    /// Names of blobs that are being written.
    ingests: BTreeSet<String>,
    /// Images by the chain ids of their layers.
    users: BTreeMap<Digest, Vec<Digest>>,
}

impl Owners {
    pub(super) fn read(store: &Store) -> Result<Self> {
        let meta = store.meta();
        // Leases first: a record is committed before its lease ends.
        let mut all =
            Self { held: lease::held(meta)?, ingests: store.content().ingests(), ..Self::default() };
        for (chain, layer) in meta.list::<LayerRecord>(Table::Layers)? {
            let chain = parse_id(&chain)?;
            if let Some(blob) = &layer.blob {
                all.compressed.entry(blob.digest).or_default().push(chain);
            }
            all.layers.insert(layer.cache_id, chain);
        }
        for (container, mount) in meta.list::<MountRow>(Table::Mounts)? {
            all.writable.extend(mount.ids().map(|id| (id, container.clone())));
        }
        for (image, row) in meta.list::<ImageRow>(Table::Images)? {
            let image = parse_id(&image)?;
            for chain in row.layers {
                all.users.entry(chain).or_default().push(image);
            }
        }
        all.documents = store.named_blobs()?;
        for (key, record) in meta.list::<CacheRecord>(Table::Caches)? {
            all.caches.insert(parse_id(&key)?.hex(), record.name);
        }
        all.containers = meta.keys(Table::Containers)?.into_iter().collect();
        // Commands of builds and working containers have a folder as long as they run.
        all.containers.extend(all.writable.values().cloned());
        all.volumes = meta.keys(Table::Volumes)?.into_iter().collect();
        Ok(all)
    }

    /// Whose one of the directories is that hold objects.
    pub(super) fn of_dir(&self, path: &str) -> (Kind, String) {
        match path.strip_prefix("containers/") {
            Some(id) if self.containers.contains(id) => (Kind::ContainerFiles, id.to_owned()),
            Some(_) => (Kind::Leftover, path.to_owned()),
            None => (Kind::Metadata, "directories".to_owned()),
        }
    }

    /// Whose an entry of such a directory is. `link` is where a link points to.
    pub(super) fn of(&self, dir: &str, name: &str, link: Option<&str>) -> (Kind, String) {
        let path = join(dir, name);
        if let Some(id) = dir.strip_prefix("containers/") {
            let (kind, owner) = self.of_dir(dir);
            let log = kind == Kind::ContainerFiles && name.starts_with(&format!("{id}-json.log"));
            return (if log { Kind::Log } else { kind }, owner);
        }
        let owner = match dir {
            "" if matches!(name, "longshore.db" | "lost+found") => Some((Kind::Metadata, name.to_owned())),
            "overlay2" | "vfs/dir" | "vfs/parent" => self.snapshot(name, &path),
            "layers" => self.layer(name).or_else(|| self.arriving(name, &path)),
            "overlay2/l" => {
                let id = link.and_then(|l| l.strip_prefix("../")?.strip_suffix("/diff"));
                id.and_then(|id| self.snapshot(id, &path))
            }
            "content/blobs/sha256" => Digest::from_hex(name).ok().and_then(|d| self.blob(&d, &path)),
            "content/ingest" if self.ingests.contains(name) => Some((Kind::Arriving, path.clone())),
            "contexts/files" => Some((Kind::Context, "files".to_owned())),
            "contexts" if Digest::from_hex(name).is_ok() => Some((Kind::Context, "records".to_owned())),
            "caches" => self.caches.get(name).map(|cache| (Kind::CacheMount, cache.clone())),
            "builds" if Digest::from_hex(name).is_ok() => Some((Kind::Arriving, path.clone())),
            "volumes" if self.volumes.contains(name) => Some((Kind::Volume, name.to_owned())),
            _ => None,
        };
        owner.unwrap_or((Kind::Leftover, path))
    }

    fn layer(&self, id: &str) -> Option<(Kind, String)> {
        self.layers.get(id).map(|chain| (Kind::Layer, chain.to_string()))
    }

    fn arriving(&self, id: &str, path: &str) -> Option<(Kind, String)> {
        self.held.snapshots.contains(id).then(|| (Kind::Arriving, path.to_owned()))
    }

    fn snapshot(&self, id: &str, path: &str) -> Option<(Kind, String)> {
        let writable = || self.writable.get(id).map(|c| (Kind::Writable, c.clone()));
        self.layer(id).or_else(writable).or_else(|| self.arriving(id, path))
    }

    fn blob(&self, digest: &Digest, path: &str) -> Option<(Kind, String)> {
        if self.compressed.contains_key(digest) {
            return Some((Kind::Compressed, digest.to_string()));
        }
        if self.documents.contains(digest) {
            return Some((Kind::Document, digest.to_string()));
        }
        self.held.blobs.contains(digest).then(|| (Kind::Arriving, path.to_owned()))
    }

    /// The images that an object belongs to.
    pub(super) fn images(&self, kind: Kind, name: &str) -> Vec<Digest> {
        let Ok(id) = name.parse::<Digest>() else { return Vec::new() };
        let mut chains = Vec::new();
        match kind {
            Kind::Layer => chains.push(id),
            Kind::Compressed => chains.extend(self.compressed.get(&id).into_iter().flatten()),
            Kind::Document => return vec![id],
            _ => {}
        }
        let all: BTreeSet<Digest> =
            chains.iter().filter_map(|c| self.users.get(c)).flatten().copied().collect();
        all.into_iter().collect()
    }
}

/// Whether a leftover's name is one that this program gives, so that it can only be its own.
pub(super) fn is_ours(path: &str) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    match dir {
        "overlay2" | "vfs/dir" | "vfs/parent" | "layers" => {
            snapshot::is_id(name.strip_suffix(snapshot::REMOVING).unwrap_or(name))
        }
        "overlay2/l" => snapshot::is_link_name(name),
        "content/blobs/sha256" | "content/ingest" | "containers" => Digest::from_hex(name).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_one_owner() {
        let (chain, blob, image, seen) =
            (Digest::of(b"c"), Digest::of(b"b"), Digest::of(b"i"), Digest::of(b"s"));
        let (id, mount, held) = (Digest::of(b"1").hex(), Digest::of(b"2").hex(), Digest::of(b"3").hex());
        let owners = Owners {
            layers: [(id.clone(), chain)].into(),
            writable: [(mount.clone(), "box".to_owned()), (format!("{mount}-init"), "box".to_owned())].into(),
            containers: ["box".to_owned()].into(),
            volumes: ["data".to_owned()].into(),
            caches: [(id.clone(), "cargo".to_owned())].into(),
            compressed: [(blob, vec![chain])].into(),
            documents: [image, blob].into(),
            held: LeaseRecord {
                snapshots: [held.clone()].into(),
                blobs: [seen].into(),
                ..LeaseRecord::default()
            },
            ingests: ["now".to_owned()].into(),
            users: [(chain, vec![image])].into(),
        };
        let of = |path: &str, link: Option<&str>| {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
            owners.of(dir, name, link)
        };
        let (layer, writable) = ((Kind::Layer, chain.to_string()), (Kind::Writable, "box".to_owned()));
        for (path, link, want) in [
            (format!("overlay2/{id}"), None, layer.clone()),
            (format!("overlay2/{mount}-init"), None, writable.clone()),
            (format!("overlay2/l/{}", "A".repeat(26)), Some(format!("../{mount}/diff")), writable),
            (format!("layers/{id}"), None, layer),
            (format!("content/blobs/sha256/{}", blob.hex()), None, (Kind::Compressed, blob.to_string())),
            (format!("content/blobs/sha256/{}", image.hex()), None, (Kind::Document, image.to_string())),
            ("containers/box/box-json.log.1".into(), None, (Kind::Log, "box".into())),
            ("containers/box/hosts".into(), None, (Kind::ContainerFiles, "box".into())),
            ("volumes/data".into(), None, (Kind::Volume, "data".into())),
            (format!("caches/{id}"), None, (Kind::CacheMount, "cargo".into())),
            ("longshore.db".into(), None, (Kind::Metadata, "longshore.db".into())),
        ] {
            assert_eq!(of(&path, link.as_deref()), want, "{path}");
        }
        for path in [
            format!("layers/{held}"),
            format!("vfs/dir/{held}"),
            format!("content/blobs/sha256/{}", seen.hex()),
            "content/ingest/now".into(),
        ] {
            assert_eq!(of(&path, None), (Kind::Arriving, path.clone()));
        }
        let ours = [
            format!("overlay2/{id}-removing"),
            format!("overlay2/l/{}", "B".repeat(26)),
            format!("content/ingest/{id}"),
            format!("containers/{id}"),
        ];
        for path in
            ours.iter().map(String::as_str).chain(["note", "volumes/lost", "overlay2/note", "containers/x/y"])
        {
            assert_eq!(of(path, None).0, Kind::Leftover, "{path}");
            assert_eq!(is_ours(path), ours.iter().any(|o| o == path), "{path}");
        }
        assert_eq!(owners.images(Kind::Compressed, &blob.to_string()), [image]);
    }
}
