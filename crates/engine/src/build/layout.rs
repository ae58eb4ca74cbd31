//! Images in OCI layouts of clients, as contexts with names: what a build needs of one is loaded as if it were an archive.

use std::io::{self, Write};
use std::sync::Arc;

use longshore_build::layout::Peer;
use longshore_oci::image::{Descriptor, Manifest, media};
use longshore_oci::{Digest, Platform};
use longshore_registry::choose;
use longshore_store::archive;
use longshore_store::image::MAX_CONFIG;
use longshore_store::tar::{Entry, EntryKind, Writer};

use super::travel::{REF_NAME, parse_index, parse_manifest};
use crate::model::CacheDirectory;
use crate::{Engine, Error, Result};

/// Indexes inside indexes.
const MAX_NESTING: usize = 4;

/// An image that was found in a layout.
struct Found {
    peer: Arc<Peer>,
    /// What names its manifest.
    descriptor: Descriptor,
    raw: Vec<u8>,
    manifest: Manifest,
}

impl Engine {
    /// The id of an image in a client's directory, for a platform where it is there for several; and whether it was not
    /// here before.
    ///
    /// # Errors
    /// When it is not there, or is not what it should be.
    pub(super) fn load_from_layout(
        &self,
        directory: &CacheDirectory,
        platform: &Platform,
    ) -> Result<(Digest, bool)> {
        let called = |e: String| Error::invalid(format!("oci-layout {}: {e}", directory.name));
        let peer = self.inner.layouts.find(&directory.id);
        let peer = peer.ok_or_else(|| called("the client does not offer it any more".into()))?;
        let found = find(peer, directory, platform).map_err(called)?;
        let id = found.manifest.config.digest;
        if self.inner.store.images().get(&id).is_ok() {
            return Ok((id, false));
        }
        let (reader, writer) = io::pipe().map_err(|e| Error::io("make a pipe", e))?;
        let loaded = std::thread::scope(|scope| {
            let packing = scope.spawn(|| pack(&found, writer));
            let loaded = archive::load(&self.inner.store, reader, &|_| ());
            match (loaded, packing.join()) {
                (_, Ok(Err(Stopped::Client(e)))) => Err(called(e.to_string())),
                (Err(e), _) => Err(Error::new(e.kind(), format!("oci-layout {}: {e}", directory.name))),
                (Ok(loaded), Ok(Ok(()))) => Ok(loaded),
                _ => Err(Error::internal("an image of a layout was not packed")),
            }
        })?;
        match loaded.iter().any(|image| image.id == id) {
            true => Ok((id, true)),
            false => Err(called("it holds no image".into())),
        }
    }
}

fn find(
    peer: Arc<Peer>,
    directory: &CacheDirectory,
    platform: &Platform,
) -> std::result::Result<Found, String> {
    let words = |e: io::Error| e.to_string();
    let index = parse_index(&peer.index().map_err(words)?.ok_or("it has no index.json")?)?;
    let named = |d: &&Descriptor| match &directory.digest {
        Some(digest) => d.digest == *digest,
        None => d.annotations.get(REF_NAME) == Some(&directory.tag),
    };
    let mut descriptor = match (index.manifests.iter().find(named), index.manifests.as_slice()) {
        (Some(found), _) => found.clone(),
        // Without a tag the only one is meant.
        (None, [only]) if directory.digest.is_none() && directory.tag == LATEST => only.clone(),
        _ => {
            let asked = directory.digest.map_or_else(|| directory.tag.clone(), |digest| digest.to_string());
            return Err(format!("its index.json does not name {asked}"));
        }
    };
    for _ in 0..MAX_NESTING {
        let raw = peer.read_blob(&descriptor, MAX_CONFIG).map_err(words)?;
        if ![media::OCI_INDEX, media::DOCKER_LIST].contains(&descriptor.media_type.as_str()) {
            let manifest = parse_manifest(&raw)?;
            return Ok(Found { peer, descriptor, raw, manifest });
        }
        descriptor =
            choose(&parse_index(&raw)?, Some(platform), &Platform::host()).map_err(|e| e.to_string())?;
    }
    Err("its indexes are nested too deep".into())
}

/// What a layout's image is called that nobody called otherwise.
const LATEST: &str = "latest";

/// Why an image was not packed.
enum Stopped {
    /// The client does not give it.
    Client(io::Error),
    /// Nobody takes it: whoever loads it knows why.
    Taker,
}

impl From<io::Error> for Stopped {
    fn from(e: io::Error) -> Self {
        Self::Client(e)
    }
}

/// Writes an image as an archive.
fn pack(found: &Found, out: impl Write) -> std::result::Result<(), Stopped> {
    let mut tar = Writer::new(io::BufWriter::with_capacity(1 << 20, out));
    let own = Descriptor::new(&found.descriptor.media_type, found.descriptor.digest, found.descriptor.size);
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [own]});
    let index = index.to_string();
    file(&mut tar, "index.json", index.len() as u64, &mut index.as_bytes())?;
    blob(&mut tar, &found.descriptor, &mut found.raw.as_slice())?;
    let config = &found.manifest.config;
    blob(&mut tar, config, &mut found.peer.read_blob(config, MAX_CONFIG)?.as_slice())?;
    let mut packed = Vec::new();
    for layer in &found.manifest.layers {
        if !packed.contains(&layer.digest) {
            let none =
                || io::Error::new(io::ErrorKind::NotFound, format!("blob {} is not there", layer.digest));
            blob(&mut tar, layer, &mut found.peer.blob(&layer.digest)?.ok_or_else(none)?)?;
            packed.push(layer.digest);
        }
    }
    let mut out = tar.finish().map_err(|_| Stopped::Taker)?;
    out.flush().map_err(|_| Stopped::Taker)
}

fn blob<W: Write>(
    tar: &mut Writer<W>,
    of: &Descriptor,
    from: &mut dyn io::Read,
) -> std::result::Result<(), Stopped> {
    file(tar, &format!("blobs/sha256/{}", of.digest.hex()), of.size, from)
}

fn file<W: Write>(
    tar: &mut Writer<W>,
    name: &str,
    size: u64,
    from: &mut dyn io::Read,
) -> std::result::Result<(), Stopped> {
    let path = name.as_bytes().to_vec();
    let entry = Entry { path, kind: EntryKind::File, mode: 0o644, size, ..Entry::default() };
    tar.entry(&entry).map_err(|_| Stopped::Taker)?;
    let (mut buffer, mut left) = (vec![0; 256 << 10], size);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = from.read(buffer.get_mut(..most).unwrap_or_default())?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} is too short")).into());
        }
        tar.data(buffer.get(..n).unwrap_or_default()).map_err(|_| Stopped::Taker)?;
        left -= n as u64;
    }
    match from.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is too long")).into()),
    }
}
