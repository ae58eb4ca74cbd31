//! Images of one new layer: from a root file system's tar (`docker import`), or from what a container changed
//! (`docker commit`).

use std::io::{BufRead, BufReader, BufWriter, PipeWriter, Read, Write};

use longshore_oci::image::ImageDocument;
use longshore_oci::{Digest, Reference};

use super::custody::Custody;
use super::staged::{Came, Chain, Staged, check_depth};
use crate::image::{ImageRow, now};
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::rw::RwLayer;
use crate::tar::{BLOCK, Entry, Limits, Reader, Time, Writer};
use crate::{Error, IoContext, Result};

/// The tar of a container that changed nothing: the end marker alone.
const EMPTY_TAR: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Bytes on their way from one thread to the next.
const BUFFER: usize = 256 << 10;

/// What the new layer is, for the maker of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    /// Diff ids of all layers, lowest first, the new one last.
    pub diff_ids: Vec<Digest>,
    /// Nothing was changed: the image has the layers that it had before.
    pub empty: bool,
}

/// Makes an image of one layer from a root file system's tar, plain or compressed. `document` describes it; its layers
/// are filled in here.
///
/// # Errors
/// `Invalid` or `Corrupt` for a bad tar.
pub fn import(
    store: &Store,
    source: impl Read + Send,
    reference: Option<&Reference>,
    document: impl FnOnce(&NewImage) -> ImageDocument,
) -> Result<Digest> {
    let (start, source) = peek(source)?;
    if start.is_empty() {
        return Err(Error::Invalid("the archive is empty".into()));
    }
    let custody = Custody::new(store, "import")?;
    let staged = if store.driver().stages() {
        Staged::unpack(&custody, &start, &Came::Unannounced, source)?
    } else {
        Staged::unpack_on(&custody, None, &start, &Came::Unannounced, source)?
    };
    finish(&custody, None, Vec::new(), Some(staged), reference.as_slice(), document)
}

/// How a container's files become a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitOptions {
    /// All of them get this time, in seconds since 1970; `None`: they keep theirs.
    pub mtime: Option<i64>,
    /// The whole tree becomes one layer, which stands on nothing.
    pub squash: bool,
}

/// Makes an image from a container's image and what the container changed, as one new layer.
///
/// # Errors
/// `NotFound` when the container has no writable layer.
pub fn commit(
    store: &Store,
    container: &str,
    parent: Option<&Digest>,
    reference: Option<&Reference>,
    document: impl FnOnce(&NewImage) -> ImageDocument,
) -> Result<Digest> {
    commit_with(store, container, parent, reference, CommitOptions::default(), document)
}

/// The same in other ways.
///
/// # Errors
/// As [`commit`].
pub fn commit_with(
    store: &Store,
    container: &str,
    parent: Option<&Digest>,
    reference: Option<&Reference>,
    options: CommitOptions,
    document: impl FnOnce(&NewImage) -> ImageDocument,
) -> Result<Digest> {
    let rw = store.rw(container)?;
    let top = rw.top.filter(|_| !options.squash);
    let below: Vec<Digest> = chain_of(store, top)?;
    check_depth(below.len() + 1)?;
    let custody = Custody::new(store, "commit")?;
    let write = |out: BufWriter<PipeWriter>| match options.squash {
        true => store.export(container, out),
        false => store.write_layer(&rw, out),
    };
    let time = options.mtime.map(|secs| Time { secs, nanos: 0 });
    let staged = match time {
        None => layer_of(&custody, top, write)?,
        Some(time) => layer_of(&custody, top, |out| retimed(write, time, out))?,
    };
    // A layer that says nothing is none.
    let staged = Some(staged).filter(|layer| !says_nothing(layer));
    finish(&custody, parent, below, staged, reference.as_slice(), document)
}

/// Whether a layer changes nothing of what it stands on.
pub(super) fn says_nothing(layer: &Staged<'_>) -> bool {
    layer.diff_id == Digest::of(&EMPTY_TAR)
}

/// What was written into a container's layer, as a layer of its own; the container keeps its own.
pub(super) fn copy_of<'a>(custody: &'a Custody, rw: &RwLayer) -> Result<Staged<'a>> {
    layer_of(custody, rw.top, |out| custody.store.write_layer(rw, out))
}

/// A layer on `top` of the tar that `write` writes.
fn layer_of<'a>(
    custody: &'a Custody,
    top: Option<Digest>,
    write: impl FnOnce(BufWriter<PipeWriter>) -> Result<()> + Send,
) -> Result<Staged<'a>> {
    let store = &custody.store;
    let top = top.map(|t| store.layer(&t)).transpose()?.flatten().map(|l| l.cache_id);
    let (reader, writer) = std::io::pipe().context(|| "make a pipe")?;
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| write(BufWriter::with_capacity(BUFFER, writer)));
        let staged = if store.driver().stages() {
            Staged::unpack(custody, &[], &Came::Unannounced, reader)
        } else {
            Staged::unpack_on(custody, top.as_deref(), &[], &Came::Unannounced, reader)
        };
        let fed =
            feeder.join().map_err(|_| Error::Internal("a thread that reads a container panicked".into()))?;
        // When unpacking fails the feeder only sees a broken pipe.
        let staged = staged?;
        fed?;
        Ok(staged)
    })
}

/// The tar that `write` writes, all its entries being of one time.
fn retimed(
    write: impl FnOnce(BufWriter<PipeWriter>) -> Result<()> + Send,
    time: Time,
    out: BufWriter<PipeWriter>,
) -> Result<()> {
    let (reader, writer) = std::io::pipe().context(|| "make a pipe")?;
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| write(BufWriter::with_capacity(BUFFER, writer)));
        let done = set_times(BufReader::with_capacity(BUFFER, reader), time, out);
        let fed =
            feeder.join().map_err(|_| Error::Internal("a thread that reads a container panicked".into()))?;
        match (fed, done) {
            // Whoever failed first, the other one only saw a broken pipe or an end.
            (Err(Error::Io { source, .. }), Err(e)) if source.kind() == std::io::ErrorKind::BrokenPipe => {
                Err(e)
            }
            (Err(e), _) | (Ok(()), Err(e)) => Err(e),
            (Ok(()), Ok(())) => Ok(()),
        }
    })
}

fn set_times(from: impl BufRead, time: Time, out: impl Write) -> Result<()> {
    let mut reader = Reader::new(from, Limits::default());
    let mut writer = Writer::new(out);
    let mut entry = Entry::default();
    while reader.next_entry(&mut entry, &mut ())? {
        entry.mtime = time;
        writer.entry(&entry)?;
        // Only files have any.
        loop {
            let data = reader.payload()?;
            let n = data.len();
            if n == 0 {
                break;
            }
            writer.data(data)?;
            reader.consume(n);
        }
    }
    writer.finish()?.flush().context(|| "write a layer")
}

/// Makes an image of layers that are there already, and gives it names. The layers are made durable with it.
///
/// # Errors
/// `Corrupt` when a layer has no record.
pub fn record(
    store: &Store,
    top: Option<Digest>,
    references: &[Reference],
    document: ImageDocument,
) -> Result<Digest> {
    let custody = Custody::new(store, "build")?;
    let references: Vec<&Reference> = references.iter().collect();
    finish(&custody, None, chain_of(store, top)?, None, &references, |_| document)
}

/// Chain ids from the lowest layer up to `top`.
pub(super) fn chain_of(store: &Store, top: Option<Digest>) -> Result<Vec<Digest>> {
    let mut out = Vec::new();
    let mut next = top;
    while let Some(chain) = next {
        let layer =
            store.layer(&chain)?.ok_or_else(|| Error::Corrupt(format!("layer {chain} has no record")))?;
        out.push(chain);
        next = layer.parent;
    }
    out.reverse();
    Ok(out)
}

fn finish<'a>(
    custody: &'a Custody,
    parent: Option<&Digest>,
    below: Vec<Digest>,
    staged: Option<Staged<'a>>,
    references: &[&Reference],
    document: impl FnOnce(&NewImage) -> ImageDocument,
) -> Result<Digest> {
    let store = &custody.store;
    // The bulk of it; what is written below is little, and others wait for it.
    let before = now();
    store.durable()?;
    let graph = store.adding();
    let mut diff_ids = Vec::new();
    for chain in &below {
        let layer =
            store.layer(chain)?.ok_or_else(|| Error::Corrupt(format!("layer {chain} has no record")))?;
        diff_ids.push(layer.diff_id);
    }
    let empty = staged.is_none();
    diff_ids.extend(staged.as_ref().map(|s| s.diff_id));
    let mut chain = Chain::on(below);
    let made = (|| {
        if let Some(staged) = staged
            && !chain.reuse(store, &staged.diff_id)?
        {
            chain.push(store, staged)?;
        }
        let mut document = document(&NewImage { diff_ids: diff_ids.clone(), empty });
        document.rootfs = longshore_oci::image::RootFs { kind: "layers".into(), diff_ids };
        let raw = serde_json::to_vec(&document)
            .map_err(|e| Error::Internal(format!("write image configuration: {e}")))?;
        let id = custody.put(&raw)?;
        store.durable()?;
        let mut row = store.images().row(&id)?.unwrap_or_default();
        row = ImageRow { layers: chain.ids.clone(), parent: parent.copied().or(row.parent), ..row };
        let batch = chain.records(Batch::new()).put(Table::Used, &id.to_string(), &now());
        let mut batch = store.steps_are_synced(batch, before)?;
        for tag in references {
            row.last_tagged = now();
            batch = store.images().name(batch, tag, &id);
        }
        store.meta().commit(batch.put(Table::Images, &id.to_string(), &row))?;
        Ok(id)
    })();
    if made.is_err() {
        chain.undo(store, &graph);
    }
    made
}

/// The first bytes of a stream, and the stream with them.
fn peek<R: Read>(mut source: R) -> Result<(Vec<u8>, impl Read)> {
    let mut start = Vec::new();
    source.by_ref().take(6).read_to_end(&mut start).context(|| "read archive")?;
    Ok((start.clone(), std::io::Cursor::new(start).chain(source)))
}
