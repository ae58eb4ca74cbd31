//! Layers that were unpacked but belong to no image yet.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use longshore_oci::Digest;
use longshore_oci::image::{Descriptor, media};

use super::custody::Custody;
use crate::content::random_id;
use crate::image::{BlobRecord, LayerRecord, Origin};
use crate::layer::compress::Compression;
use crate::layer::{self, ApplyOptions};
use crate::meta::{Batch, Table};
use crate::open::{Adding, Store};
use crate::snapshot::exchange;
use crate::tar::Time;
use crate::{Error, IoContext, Result};
use longshore_sys::root::Root;

/// An unpacked layer in a snapshot of its own, removed again unless an image takes it.
#[derive(Debug)]
pub(crate) struct Staged<'a> {
    custody: &'a Custody,
    cache_id: String,
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    /// Digest of the bytes as they came.
    came_as: Digest,
    blob: Option<BlobRecord>,
    /// Whether the layer says what the root directory is like.
    own_root: bool,
    taken: bool,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.taken
            && let Err(e) = self.custody.store.drop_snapshot(&self.cache_id)
        {
            tracing::warn!(snapshot = self.cache_id, error = %e, "an unpacked layer was not removed; it goes at the next start");
        }
    }
}

/// Keeps a copy of what is read.
struct Tee<'a, R> {
    inner: R,
    copy: &'a mut crate::content::Ingest,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        std::io::Write::write_all(&mut self.copy, &buf[..n])?;
        Ok(n)
    }
}

/// What becomes of the compressed form of a layer, and what is known of it before.
#[derive(Debug)]
pub(crate) enum Came<'d> {
    /// From a file: it is kept, since nothing else could give it again.
    Unannounced,
    /// As this descriptor says, or it is refused; kept.
    Announced(&'d Descriptor),
    /// Out of the content store, where it stays.
    Kept(&'d Descriptor),
}

impl Came<'_> {
    fn announced(&self) -> Option<&Descriptor> {
        match self {
            Self::Unannounced => None,
            Self::Announced(d) | Self::Kept(d) => Some(d),
        }
    }
}

impl<'a> Staged<'a> {
    /// Unpacks a layer, compressed or not, into a snapshot of its own.
    pub(crate) fn unpack(
        custody: &'a Custody,
        start: &[u8],
        came: &Came<'_>,
        source: impl Read + Send,
    ) -> Result<Self> {
        let staged = Self::empty(custody)?;
        custody.store.driver().stage(&staged.cache_id)?;
        staged.fill(start, came, source)
    }

    /// The same on a parent, for drivers that need it first.
    pub(crate) fn unpack_on(
        custody: &'a Custody,
        parent: Option<&str>,
        start: &[u8],
        came: &Came<'_>,
        source: impl Read + Send,
    ) -> Result<Self> {
        let staged = Self::empty(custody)?;
        custody.store.driver().prepare(&staged.cache_id, parent)?;
        staged.fill(start, came, source)
    }

    /// Makes a layer of what was written into the active snapshot `id`, which is left empty; without a copy. Only where
    /// the driver stages. Nobody may have it mounted.
    pub(crate) fn adopt(custody: &'a Custody, id: &str) -> Result<(Self, Time)> {
        let store = &custody.store;
        let driver = store.driver();
        let mut staged = Self::empty(custody)?;
        driver.stage(&staged.cache_id)?;
        let files = staged.files()?;
        driver.take(id, &staged.cache_id)?;
        let dir = driver.apply_dir(&staged.cache_id);
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let done = layer::adopt(&dir, &files.join("recipe"), &files.join("index"), own)?;
        (staged.diff_id, staged.size, staged.came_as) = (done.diff_id, done.size, done.diff_id);
        Ok((staged, done.newest))
    }

    /// One that has a name and nothing else yet. From here on dropping it cleans up.
    fn empty(custody: &'a Custody) -> Result<Self> {
        let none = Digest::of(b"");
        let cache_id = random_id()?;
        custody.hold_snapshot(&cache_id)?;
        Ok(Self {
            custody,
            cache_id,
            diff_id: none,
            size: 0,
            came_as: none,
            blob: None,
            own_root: false,
            taken: false,
        })
    }

    /// Makes the directory for its recipe and index.
    fn files(&self) -> Result<PathBuf> {
        let files = self.custody.store.layer_files(&self.cache_id);
        fs::create_dir_all(&files).context(|| format!("make {}", files.display()))?;
        Ok(files)
    }

    fn fill(mut self, start: &[u8], came: &Came<'_>, source: impl Read + Send) -> Result<Self> {
        let custody = self.custody;
        let store = &custody.store;
        let files = self.files()?;
        let driver = store.driver();
        let options = ApplyOptions {
            whiteouts: driver.whiteouts(),
            skip_devices: !driver.makes_devices(),
            // What the tree does not show of a layer cannot be given back from it.
            recipe: Some(files.join("recipe")),
            index: Some(files.join("index")),
            writeback: store.is_durable(),
            ..ApplyOptions::default()
        };
        let dir = driver.apply_dir(&self.cache_id);
        let own_type = match Compression::detect(start) {
            Compression::Bzip2 | Compression::Xz if came.announced().is_some() => {
                return Err(Error::Unimplemented(
                    "layers in registries that are compressed with bzip2 or xz are not supported: use gzip or zstd"
                        .into(),
                ));
            }
            // No registry has such layers: they are kept as if they were plain.
            Compression::None | Compression::Bzip2 | Compression::Xz => None,
            Compression::Gzip => Some(media::OCI_LAYER_GZIP),
            Compression::Zstd => Some(media::OCI_LAYER_ZSTD),
        };
        let mut copy = match (own_type, came) {
            (None, _) | (_, Came::Kept(_)) => None,
            (Some(_), Came::Unannounced | Came::Announced(_)) => Some(store.content().ingest()?),
        };
        if let (Some(copy), Some(announced)) = (&mut copy, came.announced()) {
            copy.set_limit(announced.size);
        }
        let done = match &mut copy {
            None => layer::apply(&dir, source, &options)?,
            Some(copy) => layer::apply(&dir, Tee { inner: source, copy }, &options)?,
        };
        let (digest, size) = (done.compressed, done.compressed_size);
        if let Some(announced) = came.announced() {
            check_announced(announced, digest, size)?;
        }
        if let Some(copy) = copy {
            custody.commit(copy, digest)?;
        }
        self.blob = own_type.map(|own| {
            let (media_type, origin) = match came.announced() {
                Some(descriptor) => (descriptor.media_type.as_str(), Origin::Registry),
                None => (own, Origin::File),
            };
            BlobRecord::new(digest, size, media_type, origin)
        });
        (self.diff_id, self.size, self.came_as) = (done.diff_id, done.size, digest);
        self.own_root = layer::IndexFile::open(&files.join("index"))?.find(b"")?.entry.is_some();
        Ok(self)
    }

    /// Refuses a layer that an archive keeps under another digest than its own.
    pub(crate) fn check_blob(&self, name: &str, announced: &Digest) -> Result<()> {
        if self.came_as == *announced {
            return Ok(());
        }
        Err(Error::DigestMismatch {
            what: format!("layer {name}"),
            expected: *announced,
            actual: self.came_as,
        })
    }

    /// Takes the place of a layer's tree, recipe and index, each in one step; what was there is removed. Nobody may have
    /// it mounted.
    pub(crate) fn replace(self, cache_id: &str, parent: Option<&str>) -> Result<()> {
        let store = &self.custody.store;
        let driver = store.driver();
        if driver.stages() {
            driver.place(&self.cache_id, parent, self.own_root)?;
        }
        let (tree, files) = (driver.apply_dir(cache_id), store.layer_files(cache_id));
        for missing in [&tree, &files].into_iter().filter(|dir| !dir.is_dir()) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o710).create(missing);
            made.context(|| format!("make {}", missing.display()))?;
        }
        store.durable()?;
        driver.exchange(&self.cache_id, cache_id)?;
        exchange(&store.layer_files(&self.cache_id), &files)
    }

    /// A second snapshot with the same content, made from the recipe: one layer may stand on several chains.
    fn again(&self) -> Result<Self> {
        again(self.custody, &self.cache_id, self.diff_id, None)
    }
}

/// Refuses bytes that are not what their descriptor says.
pub(crate) fn check_announced(announced: &Descriptor, digest: Digest, size: u64) -> Result<()> {
    if size != announced.size {
        return Err(Error::Corrupt(format!(
            "blob {} has {size} bytes, {} were announced",
            announced.digest, announced.size
        )));
    }
    if digest != announced.digest {
        return Err(Error::DigestMismatch {
            what: "blob".into(),
            expected: announced.digest,
            actual: digest,
        });
    }
    Ok(())
}

/// Unpacks an existing layer once more, on `parent` where the driver needs it first.
pub(super) fn again<'a>(
    custody: &'a Custody,
    cache_id: &str,
    diff_id: Digest,
    parent: Option<&str>,
) -> Result<Staged<'a>> {
    let store = &custody.store;
    let (reader, writer) = std::io::pipe().context(|| "make a pipe")?;
    std::thread::scope(|scope| {
        let feeder = scope.spawn(move || {
            let mut writer = std::io::BufWriter::with_capacity(256 << 10, writer);
            rebuild(store, cache_id, diff_id, &mut writer)?;
            std::io::Write::flush(&mut writer).context(|| "copy a layer")
        });
        let staged = if store.driver().stages() {
            Staged::unpack(custody, &[], &Came::Unannounced, reader)
        } else {
            Staged::unpack_on(custody, parent, &[], &Came::Unannounced, reader)
        };
        let fed =
            feeder.join().map_err(|_| Error::Internal("a thread that copies a layer panicked".into()))?;
        let staged = staged?;
        fed?;
        Ok(staged)
    })
}

/// Writes a layer's tar again, to the byte.
pub(crate) fn rebuild(
    store: &Store,
    cache_id: &str,
    diff_id: Digest,
    out: &mut impl std::io::Write,
) -> Result<()> {
    let dir = Root::open(&store.driver().apply_dir(cache_id))?;
    let actual = layer::rebuild(&recipe(store, cache_id)?, &dir, out)?;
    if actual == diff_id {
        return Ok(());
    }
    Err(Error::DigestMismatch { what: format!("layer snapshot {cache_id}"), expected: diff_id, actual })
}

/// Bytes of a layer's tar.
pub(crate) fn tar_size(store: &Store, cache_id: &str) -> Result<u64> {
    Ok(layer::describe(&recipe(store, cache_id)?)?.1)
}

fn recipe(store: &Store, cache_id: &str) -> Result<fs::File> {
    let path = store.layer_files(cache_id).join("recipe");
    fs::File::open(&path).context(|| format!("open {}", path.display()))
}

/// Layers that one image may have. With the two of a container there is room below the limit of the overlay driver, and
/// what Docker cannot run is refused as Docker refuses it.
const MAX_DEPTH: usize = 125;

/// Refuses a chain of more layers than a container can be made on.
pub(crate) fn check_depth(layers: usize) -> Result<()> {
    if layers > MAX_DEPTH {
        return Err(Error::TooLarge(format!(
            "max depth exceeded: an image of {layers} layers, the limit is {MAX_DEPTH}"
        )));
    }
    Ok(())
}

/// New layer records for one image, to be committed with it.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) ids: Vec<Digest>,
    new: BTreeMap<Digest, LayerRecord>,
}

impl Chain {
    /// A chain that goes on from existing layers.
    pub(crate) fn on(ids: Vec<Digest>) -> Self {
        Self { ids, new: BTreeMap::new() }
    }

    /// Cache id of the layer on top.
    fn top(&self, store: &Store) -> Result<Option<String>> {
        let Some(top) = self.ids.last() else { return Ok(None) };
        if let Some(layer) = self.new.get(top) {
            return Ok(Some(layer.cache_id.clone()));
        }
        let layer = store.layer(top)?.ok_or_else(|| Error::Corrupt(format!("layer {top} has no record")))?;
        Ok(Some(layer.cache_id))
    }

    /// Whether the next layer, of this diff id, is there already; if so it is put on the chain.
    pub(crate) fn reuse(&mut self, store: &Store, diff_id: &Digest) -> Result<bool> {
        let chain = Digest::chain(self.ids.last(), diff_id);
        let there = self.new.contains_key(&chain) || store.layer(&chain)?.is_some();
        if there {
            self.ids.push(chain);
        }
        Ok(there)
    }

    /// Puts a staged layer on the chain. `more` says that another chain will want it, too.
    pub(crate) fn place<'a>(
        &mut self,
        store: &'a Store,
        staged: &mut Option<Staged<'a>>,
        more: bool,
    ) -> Result<()> {
        let Some(layer) = staged.take() else { return Err(Error::Internal("a layer was used up".into())) };
        if more {
            *staged = Some(layer.again()?);
        }
        self.push(store, layer)
    }

    /// Puts a staged layer on the chain.
    pub(crate) fn push(&mut self, store: &Store, mut layer: Staged<'_>) -> Result<()> {
        let parent = self.top(store)?;
        if store.driver().stages() {
            store.driver().place(&layer.cache_id, parent.as_deref(), layer.own_root)?;
        }
        let chain = Digest::chain(self.ids.last(), &layer.diff_id);
        let record = LayerRecord {
            diff_id: layer.diff_id,
            parent: self.ids.last().copied(),
            cache_id: layer.cache_id.clone(),
            size: layer.size,
            blob: layer.blob.clone(),
        };
        layer.taken = true;
        self.new.insert(chain, record);
        self.ids.push(chain);
        Ok(())
    }

    /// The snapshot that the next layer goes on, for drivers that need it first.
    pub(crate) fn parent_snapshot(&self, store: &Store) -> Result<Option<String>> {
        self.top(store)
    }

    /// Adds the records to `batch`; the layers must have been made durable before it is committed.
    pub(crate) fn records(&self, mut batch: Batch) -> Batch {
        for (chain, layer) in &self.new {
            batch = batch.put(Table::Layers, &chain.to_string(), layer);
        }
        batch
    }

    /// Takes the new layers away again after a failure.
    pub(crate) fn undo(self, store: &Store, _graph: &Adding<'_>) {
        for layer in self.new.into_values() {
            let _ = store.drop_snapshot(&layer.cache_id);
        }
    }
}
