//! `docker load`: layers are unpacked while the archive is read, whatever the order of its members; images appear
//! when all of it was read and checked.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use longshore_oci::{Digest, Platform, Reference, Sha256};

use super::custody::Custody;
use super::feed::{Budget, feed};
use super::manifest::{self, ArchivedIndex, Entry};
use super::staged::{Came, Chain, Staged, check_depth};
use crate::image::{ImageRow, MAX_CONFIG, now, parse_document};
use crate::layer::compress::{Compression, Decoded, decompress};
use crate::meta::{Batch, Table};
use crate::named_index::{IndexForm, IndexedImage, NamedIndex};
use crate::open::Store;
use crate::tar::{self, BLOCK, EntryKind, Limits};
use crate::{Error, IoContext, Result};

/// Members that may be documents are kept in memory up to this size all together.
const MAX_DOCUMENTS: u64 = 64 << 20;
/// Members that may be layers.
const MAX_LAYERS: usize = 4000;
/// Bytes that are read ahead of the threads that unpack them.
const AHEAD: usize = 64 << 20;
/// Layers that are unpacked at once, at most; each keeps up to three processors busy.
const MAX_UNPACKING: usize = 8;

/// What happens during a load, for progress.
#[derive(Clone, Debug)]
pub enum LoadEvent<'a> {
    /// A layer begins: the archive member, and its bytes.
    Layer(&'a str, u64),
    /// A name was taken from the image that had it.
    Renamed(&'a Reference, &'a Digest),
    /// An image is there under this name.
    Tagged(&'a Reference),
    /// An image without a name is there.
    Untagged(&'a Digest),
}

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Loaded {
    pub id: Digest,
    pub tags: Vec<Reference>,
}

/// What was found in the archive.
#[derive(Debug, Default)]
struct Contents<'a> {
    documents: BTreeMap<String, Vec<u8>>,
    layers: HashMap<String, Layer<'a>>,
    /// Links of old archives: `x/layer.tar` that stands for another layer's.
    links: HashMap<String, String>,
    document_bytes: u64,
}

#[derive(Debug)]
enum Layer<'a> {
    /// Unpacked already.
    Staged(Staged<'a>),
    /// Kept as a blob, where the driver needs the parent first.
    Kept(Digest),
}

/// Reads an archive (plain, gzip or zstd) and adds its images, one after the other. On an error those that were
/// announced stay, each of them whole, and nothing else of the archive.
///
/// # Errors
/// `Invalid` or `Corrupt` for a bad archive, `TooLarge` past a limit.
pub fn load(
    store: &Store,
    source: impl Read + Send,
    progress: &(dyn Fn(LoadEvent<'_>) + Sync),
) -> Result<Vec<Loaded>> {
    let limits = Limits::default();
    let custody = Custody::new(store, "load")?;
    let mut contents = decompress(source, &limits, |decoded| read_members(&custody, decoded, progress))?;
    let mut entries = manifest::entries(&contents.documents, &Platform::host())?;
    let named = entries.len();
    let has = |name: &str| contents.layers.contains_key(&contents.target(name));
    let indexes = manifest::indexes(&contents.documents, &has)?;
    for image in indexes.iter().flat_map(|index| &index.images) {
        if entries.iter().all(|entry| entry.config != image.entry.config) {
            entries.push(image.entry.clone());
        }
    }
    // The bulk of it; what is written below is little, and others wait for it.
    store.durable()?;
    let mut out = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let loaded = add(&custody, &mut contents, entry, &entries[i + 1..], progress)?;
        if loaded.tags.is_empty() && i < named {
            progress(LoadEvent::Untagged(&loaded.id));
        }
        loaded.tags.iter().for_each(|t| progress(LoadEvent::Tagged(t)));
        out.push(loaded);
    }
    for index in indexes {
        name_index(store, index)?;
    }
    Ok(out)
}

/// Gives names the images of other platforms that were loaded.
fn name_index(store: &Store, archived: ArchivedIndex) -> Result<()> {
    let ids = archived.images.into_iter().filter_map(|image| {
        let [annotations, descriptor_annotations] = image.annotations;
        let id = manifest::announced(&image.entry.config)?;
        Some(IndexedImage { id, platform: image.platform, annotations, descriptor_annotations })
    });
    let images: Vec<_> = ids.collect();
    let [annotations, descriptor_annotations] = archived.annotations;
    for tag in &archived.tags {
        let of = store.images().lookup(tag)?;
        let Some(of) = of.filter(|of| images.iter().any(|image| image.id == *of)) else { continue };
        let index = NamedIndex {
            of,
            images: images.clone(),
            form: IndexForm::Index,
            annotations: annotations.clone(),
            descriptor_annotations: descriptor_annotations.clone(),
        };
        store.images().set_index(tag, &index)?;
    }
    Ok(())
}

fn read_members<'a>(
    custody: &'a Custody,
    decoded: &mut Decoded,
    progress: &(dyn Fn(LoadEvent<'_>) + Sync),
) -> Result<Contents<'a>> {
    let bench = Bench {
        memory: Budget::new(AHEAD),
        places: Budget::new(std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_UNPACKING))),
        failed: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let mut unpackers = Unpackers { scope, bench: &bench, custody, running: Vec::new(), stopped: false };
        let read = read_all(&mut unpackers, decoded, progress);
        let stopped = unpackers.stopped;
        let layers = unpackers.join();
        // Where reading did not fail of itself, the layer that stopped it says why.
        let (layers, mut contents) = if stopped {
            (layers?, read?)
        } else {
            let read = read?;
            (layers?, read)
        };
        contents.layers.extend(layers);
        Ok(contents)
    })
}

fn read_all<'a: 's, 's>(
    unpackers: &mut Unpackers<'s, '_, 'a>,
    decoded: &mut Decoded,
    progress: &(dyn Fn(LoadEvent<'_>) + Sync),
) -> Result<Contents<'a>> {
    let mut contents = Contents::default();
    let mut reader = tar::Reader::new(decoded, Limits::default());
    let mut entry = tar::Entry::default();
    let mut any = false;
    while reader.next_entry(&mut entry, &mut ())? {
        any = true;
        let name = manifest::clean(&String::from_utf8_lossy(&entry.path));
        match entry.kind {
            EntryKind::File => member(unpackers, &mut contents, &name, &mut reader, progress)?,
            EntryKind::Symlink | EntryKind::HardLink => {
                let link = String::from_utf8_lossy(&entry.link).into_owned();
                let base = if entry.kind == EntryKind::Symlink {
                    name.rsplit_once('/').map_or("", |(d, _)| d)
                } else {
                    ""
                };
                contents.links.insert(name.clone(), manifest::clean(&format!("{base}/{link}")));
            }
            _ => {}
        }
    }
    if any { Ok(contents) } else { Err(Error::Invalid("the archive is empty".into())) }
}

fn member<'a: 's, 's>(
    unpackers: &mut Unpackers<'s, '_, 'a>,
    contents: &mut Contents<'a>,
    name: &str,
    reader: &mut tar::Reader<&mut Decoded>,
    progress: &(dyn Fn(LoadEvent<'_>) + Sync),
) -> Result<()> {
    let size = reader.payload_left();
    let mut payload = Payload { reader, start: Vec::new(), pos: 0 };
    payload.peek(BLOCK)?;
    if !is_layer(&payload.start, size) {
        if size <= MAX_CONFIG && contents.document_bytes + size <= MAX_DOCUMENTS {
            let mut bytes = Vec::new();
            payload.read_to_end(&mut bytes).context(|| format!("read {name}"))?;
            if let Some(digest) = manifest::announced(name) {
                manifest::verify(&digest, &bytes)?;
            }
            contents.document_bytes += size;
            contents.documents.insert(name.to_owned(), bytes);
        }
        return Ok(());
    }
    if contents.layers.len() + unpackers.running.len() >= MAX_LAYERS {
        return Err(Error::TooLarge(format!("the archive has more than {MAX_LAYERS} layers")));
    }
    progress(LoadEvent::Layer(name, size));
    if unpackers.custody.store.driver().stages() {
        unpackers.unpack(name, size, payload)
    } else {
        let kept = keep(unpackers.custody, name, payload)?;
        contents.layers.insert(name.to_owned(), Layer::Kept(kept));
        Ok(())
    }
}

/// What the threads that unpack share.
struct Bench {
    memory: Budget,
    places: Budget,
    failed: AtomicBool,
}

/// Threads that unpack a layer each.
struct Unpackers<'scope, 'env, 'a> {
    scope: &'scope Scope<'scope, 'env>,
    bench: &'scope Bench,
    custody: &'a Custody,
    running: Vec<(String, ScopedJoinHandle<'scope, Result<Staged<'a>>>)>,
    /// Whether one has failed, so that the rest need not be read.
    stopped: bool,
}

impl<'a: 'scope, 'scope> Unpackers<'scope, '_, 'a> {
    /// Reads all of a layer; when this returns it may still be being unpacked.
    fn unpack(&mut self, name: &str, size: u64, payload: Payload<'_, '_>) -> Result<()> {
        let (bench, custody) = (self.bench, self.custody);
        let place = bench.places.take(1);
        if bench.failed.load(Ordering::Relaxed) {
            return self.stop();
        }
        let (feeder, fed) = feed(&bench.memory, size);
        let (start, own_name) = (payload.start.clone(), name.to_owned());
        let thread = self.scope.spawn(move || {
            let _place = place;
            let unpacked =
                Staged::unpack(custody, &start, &Came::Unannounced, fed).map_err(|e| named(&own_name, e));
            let unpacked = unpacked.and_then(|staged| match manifest::announced(&own_name) {
                Some(digest) => staged.check_blob(&own_name, &digest).map(|()| staged),
                None => Ok(staged),
            });
            bench.failed.fetch_or(unpacked.is_err(), Ordering::Relaxed);
            unpacked
        });
        self.running.push((name.to_owned(), thread));
        if feeder.pour(payload).context(|| format!("read {name}"))? { Ok(()) } else { self.stop() }
    }

    fn stop(&mut self) -> Result<()> {
        self.stopped = true;
        Err(Error::Invalid("a layer of the archive could not be unpacked".into()))
    }

    /// What they have unpacked, or the first failure in the archive's order.
    fn join(self) -> Result<Vec<(String, Layer<'a>)>> {
        let ended: Vec<_> = self.running.into_iter().map(|(name, thread)| (name, thread.join())).collect();
        ended
            .into_iter()
            .map(|(name, ended)| {
                let staged =
                    ended.map_err(|_| Error::Internal("a thread that unpacks a layer panicked".into()))??;
                Ok((name, Layer::Staged(staged)))
            })
            .collect()
    }
}

/// Stores a layer as it comes.
fn keep(custody: &Custody, name: &str, mut payload: impl Read) -> Result<Digest> {
    let mut ingest = custody.store.content().ingest()?;
    let (mut hash, mut buf) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let n = payload.read(&mut buf).context(|| format!("read {name}"))?;
        if n == 0 {
            break;
        }
        hash.update(&buf[..n]);
        std::io::Write::write_all(&mut ingest, &buf[..n]).context(|| format!("keep {name}"))?;
    }
    let digest = hash.finish();
    match manifest::announced(name) {
        Some(expected) if expected != digest => {
            Err(Error::DigestMismatch { what: format!("layer {name}"), expected, actual: digest })
        }
        _ => custody.commit(ingest, digest).map(|()| digest),
    }
}

fn named(name: &str, e: Error) -> Error {
    match e {
        Error::Corrupt(m) => Error::Corrupt(format!("layer {name}: {m}")),
        Error::Invalid(m) => Error::Invalid(format!("layer {name}: {m}")),
        Error::TooLarge(m) => Error::TooLarge(format!("layer {name}: {m}")),
        other => other,
    }
}

/// Whether a member is a layer, by its first block: compressed, a tar header, or the zeros of an empty tar.
fn is_layer(start: &[u8], size: u64) -> bool {
    if Compression::detect(start) != Compression::None {
        return true;
    }
    start.len() == BLOCK
        && (start[257..].starts_with(b"ustar")
            || (size >= 1024 && start.iter().all(|b| *b == 0))
            || old_header(start))
}

/// A tar header from before `ustar`: its checksum is right.
fn old_header(block: &[u8]) -> bool {
    let field = std::str::from_utf8(&block[148..156]).unwrap_or_default();
    let stored = u32::from_str_radix(field.trim_matches(['\0', ' ']), 8);
    let sum: u32 =
        block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    stored == Ok(sum)
}

/// The rest of the current member, its first bytes looked at before.
struct Payload<'a, 'b> {
    reader: &'a mut tar::Reader<&'b mut Decoded>,
    start: Vec<u8>,
    pos: usize,
}

impl Payload<'_, '_> {
    fn peek(&mut self, n: usize) -> Result<()> {
        while self.start.len() < n {
            let data = self.reader.payload()?;
            let take = data.len().min(n - self.start.len());
            if take == 0 {
                break;
            }
            self.start.extend_from_slice(&data[..take]);
            self.reader.consume(take);
        }
        Ok(())
    }
}

impl Read for Payload<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.pos < self.start.len() {
            let n = buf.len().min(self.start.len() - self.pos);
            buf[..n].copy_from_slice(&self.start[self.pos..self.pos + n]);
            self.pos += n;
            return Ok(n);
        }
        let data = self.reader.payload()?;
        let n = data.len().min(buf.len());
        buf[..n].copy_from_slice(&data[..n]);
        self.reader.consume(n);
        Ok(n)
    }
}

impl Contents<'_> {
    /// The member that a name stands for, through links.
    fn target(&self, name: &str) -> String {
        let mut name = name.to_owned();
        for _ in 0..8 {
            if self.layers.contains_key(&name) {
                break;
            }
            match self.links.get(&name) {
                Some(next) => name.clone_from(next),
                None => break,
            }
        }
        name
    }
}

/// Adds one image; layers that it shares with images further on are kept for them.
fn add<'a>(
    custody: &'a Custody,
    contents: &mut Contents<'a>,
    entry: &Entry,
    later: &[Entry],
    progress: &(dyn Fn(LoadEvent<'_>) + Sync),
) -> Result<Loaded> {
    let store = &custody.store;
    let raw = contents.documents.get(&entry.config).cloned().ok_or_else(|| {
        Error::Invalid(format!("the archive lacks the image configuration {}", entry.config))
    })?;
    let document = parse_document(&raw)?;
    let diff_ids = &document.rootfs.diff_ids;
    if diff_ids.len() != entry.layers.len() {
        return Err(Error::Corrupt(format!(
            "{} names {} layers, the manifest {}",
            entry.config,
            diff_ids.len(),
            entry.layers.len()
        )));
    }
    check_depth(diff_ids.len())?;
    let id = Digest::of(&raw);
    let names: Vec<String> = entry.layers.iter().map(|l| contents.target(l)).collect();
    let wanted_later = |contents: &Contents<'_>, name: &str, from: usize| {
        names[from..].iter().any(|n| n == name)
            || later.iter().any(|e| e.layers.iter().any(|l| contents.target(l) == name))
    };
    let graph = store.adding();
    let mut chain = Chain::default();
    let placed = (|| {
        for (i, (diff_id, name)) in diff_ids.iter().zip(&names).enumerate() {
            if chain.reuse(store, diff_id)? {
                continue;
            }
            let more = wanted_later(contents, name, i + 1);
            match contents.layers.remove(name) {
                Some(Layer::Staged(staged)) => {
                    check_diff(name, diff_id, &staged.diff_id)?;
                    let mut slot = Some(staged);
                    chain.place(store, &mut slot, more)?;
                    if let Some(copy) = slot {
                        contents.layers.insert(name.clone(), Layer::Staged(copy));
                    }
                }
                Some(Layer::Kept(kept)) => {
                    let parent = chain.parent_snapshot(store)?;
                    let mut file = store.content().open_blob(&kept)?;
                    let mut start = [0u8; 6];
                    let n = file.read(&mut start).context(|| "read layer")?;
                    std::io::Seek::rewind(&mut file).context(|| "read layer")?;
                    let staged =
                        Staged::unpack_on(custody, parent.as_deref(), &start[..n], &Came::Unannounced, file)
                            .map_err(|e| named(name, e))?;
                    check_diff(name, diff_id, &staged.diff_id)?;
                    chain.push(store, staged)?;
                    if more {
                        contents.layers.insert(name.clone(), Layer::Kept(kept));
                    }
                }
                None => return Err(Error::Invalid(format!("the archive lacks the layer {name}"))),
            }
        }
        custody.put(&raw)?;
        store.durable()?;
        let mut row = store.images().row(&id)?.unwrap_or_default();
        row = ImageRow { layers: chain.ids.clone(), ..row };
        let mut batch = chain.records(Batch::new()).put(Table::Used, &id.to_string(), &now());
        let mut renamed = Vec::new();
        for tag in &entry.tags {
            let old = store.images().lookup(tag)?.filter(|old| *old != id);
            renamed.extend(old.map(|old| (tag, old)));
            batch = store.images().name(batch, tag, &id);
        }
        store.meta().commit(batch.put(Table::Images, &id.to_string(), &row))?;
        Ok(renamed)
    })();
    match placed {
        Ok(renamed) => {
            renamed.iter().for_each(|(tag, old)| progress(LoadEvent::Renamed(tag, old)));
            Ok(Loaded { id, tags: entry.tags.clone() })
        }
        Err(e) => {
            chain.undo(store, &graph);
            Err(e)
        }
    }
}

pub(super) fn check_diff(name: &str, expected: &Digest, actual: &Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::DigestMismatch { what: format!("layer {name}"), expected: *expected, actual: *actual })
}
