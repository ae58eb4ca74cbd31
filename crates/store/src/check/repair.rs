//! Mending what a check found, from whatever can give it.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Write};

use longshore_oci::Digest;
use rustix::fs::Mode;

use super::{Alone, CheckOptions, Fault, Fetch, Finding, Outcome, Progress, silent};
use crate::archive::{Came, Chain, Custody, Staged, rebuild};
use crate::image::{BlobRecord, LayerRecord, parse_id};
use crate::layer::describe;
use crate::meta::{Batch, Table};
use crate::open::Store;
use crate::rw::{MountRow, Users};
use crate::snapshot::DriverName;
use crate::{Error, IoContext, Result};

/// Who can give a layer again.
enum Source {
    /// Its compressed form, kept here.
    Compressed(Digest),
    /// The same layer on another chain: its chain id and record.
    Other(Digest, LayerRecord),
    /// A snapshot without a record that was made from the same tar.
    Left(String),
    /// Its compressed form, fetched.
    Fetched(BlobRecord, Vec<String>),
}

impl Source {
    fn words(&self) -> String {
        match self {
            Self::Compressed(digest) => format!("unpack it again from its compressed form {digest}"),
            Self::Other(chain, _) => format!("copy it from layer {chain}, which is the same"),
            Self::Left(id) => format!("copy it from the leftover snapshot {id}, which is the same"),
            Self::Fetched(blob, sources) => {
                let from = sources.first().map(|s| format!(" from {s}")).unwrap_or_default();
                format!("fetch {}{from}", blob.digest)
            }
        }
    }
}

pub(super) struct Repair<'a> {
    pub(super) store: &'a Store,
    pub(super) fetch: Option<&'a dyn Fetch>,
    alone: Option<&'a Alone<'a>>,
}

impl<'a> Repair<'a> {
    pub(super) fn new(store: &'a Store, options: &CheckOptions<'a>) -> Self {
        Self { store, fetch: options.fetch, alone: options.alone }
    }

    /// Its place in the order of repairs: what others are mended from comes first, layers from the lowest up.
    pub(super) fn rank(&self, finding: &Finding) -> (u8, usize) {
        match &finding.fault {
            Fault::LostLayer { .. } => (0, 0),
            Fault::ImageLayers(_) => (1, 0),
            Fault::LayerFiles(chain) => (2, self.depth(chain)),
            Fault::Layer(chain) => (3, self.depth(chain)),
            Fault::Index(_) => (4, 0),
            Fault::Blob(_) => (5, 0),
            Fault::ContainerFiles(_) => (6, 0),
            Fault::Needs(_) => (7, 0),
            Fault::Leftover(_) => (8, 0),
            Fault::Hopeless | Fault::Unreadable => (9, 0),
        }
    }

    fn depth(&self, chain: &Digest) -> usize {
        let layer = |chain: &Digest| self.store.layer(chain).ok().flatten();
        std::iter::successors(layer(chain), |l| l.parent.as_ref().and_then(layer)).take(1000).count()
    }

    /// How something would be mended; `None` if nothing here can.
    pub(super) fn remedy(&self, finding: &Finding) -> Result<Option<String>> {
        Ok(match &finding.fault {
            Fault::Hopeless | Fault::Unreadable => None,
            Fault::Layer(chain) => match self.store.layer(chain)? {
                Some(layer) => self.sources(Some(chain), &layer)?.first().map(Source::words),
                None => None,
            },
            Fault::LostLayer { diff_id, .. } => {
                self.sources(None, &lost(*diff_id))?.first().map(Source::words)
            }
            Fault::Needs(_) => Some("mend the layer".into()),
            Fault::Index(_) => Some("make it again from the layer".into()),
            Fault::LayerFiles(_) | Fault::ContainerFiles(_) => Some("write them again".into()),
            Fault::ImageLayers(_) => Some("take those of the configuration".into()),
            Fault::Leftover(_) => Some("remove it".into()),
            Fault::Blob(blob) => self.blob_remedy(blob)?.map(|r| r.words()),
        })
    }

    /// Mends one finding, and looks again.
    pub(super) fn mend(&self, finding: &Finding) -> Outcome {
        match self.try_mend(&finding.fault) {
            Ok(Some(done)) => Outcome::Repaired(done),
            Ok(None) => Outcome::Failed("nothing here can mend it".into()),
            Err(e) => Outcome::Failed(e.to_string()),
        }
    }

    fn try_mend(&self, fault: &Fault) -> Result<Option<String>> {
        match fault {
            Fault::Hopeless | Fault::Unreadable => Ok(None),
            Fault::Layer(chain) => self.layer(chain),
            Fault::LostLayer { diff_id, below } => self.lost_layer(diff_id, below.as_ref()),
            Fault::Needs(chain) => match self.store.layer(chain)? {
                Some(_) => Ok(Some("its layer is there again".into())),
                None => Ok(None),
            },
            Fault::Index(chain) => self.index(chain).map(Some),
            Fault::LayerFiles(chain) => {
                self.restack(chain)?;
                self.layer_files(chain).map(Some)
            }
            Fault::ContainerFiles(container) => self.container(container).map(Some),
            Fault::ImageLayers(image) => self.image_layers(image),
            Fault::Blob(blob) => self.blob(blob),
            Fault::Leftover(path) => {
                let mut done = Ok(Vec::new());
                let mut remove = || done = self.store.remove_leftovers(&BTreeSet::from([path.clone()]));
                match self.alone {
                    Some(alone) => alone(&mut remove),
                    None => remove(),
                }
                done.map(|_| Some("removed".into()))
            }
        }
    }

    /// Who can give a layer again, the nearest first. `chain` is its own.
    fn sources(&self, chain: Option<&Digest>, layer: &LayerRecord) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        if let Some(blob) = &layer.blob
            && self.store.content().exists(&blob.digest)?
        {
            sources.push(Source::Compressed(blob.digest));
        }
        let layers = self.store.meta().list::<LayerRecord>(Table::Layers)?;
        let mut known = BTreeSet::new();
        for (key, other) in layers {
            known.insert(other.cache_id.clone());
            let key = parse_id(&key)?;
            if other.diff_id == layer.diff_id && Some(&key) != chain {
                sources.push(Source::Other(key, other));
            }
        }
        for id in self.store.driver().list()?.into_iter().filter(|id| !known.contains(id)) {
            let recipe = fs::File::open(self.store.layer_files(&id).join("recipe"));
            if recipe.is_ok_and(|f| describe(&f).is_ok_and(|(diff_id, _)| diff_id == layer.diff_id)) {
                sources.push(Source::Left(id));
            }
        }
        if let (Some(_), Some(blob)) = (self.fetch, &layer.blob) {
            sources.push(Source::Fetched(blob.clone(), self.store.sources(&blob.digest)?));
        }
        Ok(sources)
    }

    /// Unpacks a layer from a source into a snapshot of its own.
    fn unpack<'c>(
        &self,
        custody: &'c Custody,
        source: &Source,
        diff_id: &Digest,
        parent: Option<&str>,
    ) -> Result<Staged<'c>> {
        let stage = |start: &[u8], tar: &mut (dyn Read + Send)| {
            if self.store.driver().stages() {
                Staged::unpack(custody, start, &Came::Unannounced, tar)
            } else {
                Staged::unpack_on(custody, parent, start, &Came::Unannounced, tar)
            }
        };
        let (staged, came_as) = match source {
            Source::Compressed(digest) => {
                let mut file = self.store.content().open_blob(digest)?;
                (staged_from(&mut file, stage)?, Some(digest))
            }
            Source::Fetched(blob, from) => {
                let fetch = self.fetch.ok_or_else(|| Error::Internal("nobody fetches".into()))?;
                (staged_from(&mut *fetch.fetch(blob, from)?, stage)?, Some(&blob.digest))
            }
            Source::Other(_, layer) => (self.copied(&layer.cache_id, diff_id, stage)?, None),
            Source::Left(id) => (self.copied(id, diff_id, stage)?, None),
        };
        if let Some(digest) = came_as {
            staged.check_blob(&diff_id.to_string(), digest)?;
        }
        if staged.diff_id == *diff_id {
            return Ok(staged);
        }
        let what = "what the source gave".to_owned();
        Err(Error::DigestMismatch { what, expected: *diff_id, actual: staged.diff_id })
    }

    /// The tar of another snapshot, staged.
    fn copied<'c>(
        &self,
        cache_id: &str,
        diff_id: &Digest,
        stage: impl FnOnce(&[u8], &mut (dyn Read + Send)) -> Result<Staged<'c>>,
    ) -> Result<Staged<'c>> {
        let (mut reader, writer) = std::io::pipe().context(|| "make a pipe")?;
        std::thread::scope(|scope| {
            let feeder = scope.spawn(move || {
                let mut writer = std::io::BufWriter::with_capacity(256 << 10, writer);
                rebuild(self.store, cache_id, *diff_id, &mut writer)?;
                writer.flush().context(|| "copy a layer")
            });
            let staged = stage(&[], &mut reader);
            drop(reader);
            let fed =
                feeder.join().map_err(|_| Error::Internal("a thread that copies a layer panicked".into()))?;
            // A broken source makes a broken copy: its own words say more.
            fed.and(staged)
        })
    }

    /// Gives a layer its content again, in the place where it is.
    fn layer(&self, chain: &Digest) -> Result<Option<String>> {
        let Some(layer) = self.store.layer(chain)? else { return Ok(Some("it is gone".into())) };
        if self.is_whole(chain, &layer)? {
            self.store.trusted(chain)?;
            return Ok(Some("it is right by now".into()));
        }
        let sources = self.sources(Some(chain), &layer)?;
        if sources.is_empty() {
            return Ok(None);
        }
        // Before anything is fetched.
        self.not_mounted(chain, &self.store.users())?;
        let parent = layer.parent.map(|p| self.store.layer(&p)).transpose()?.flatten().map(|l| l.cache_id);
        let custody = Custody::new(self.store, "repair a layer")?;
        let mut failed = Vec::new();
        for source in &sources {
            let staged = match self.unpack(&custody, source, &layer.diff_id, parent.as_deref()) {
                Ok(staged) => staged,
                Err(e) => {
                    failed.push(format!("{}: {e}", source.words()));
                    continue;
                }
            };
            {
                let _graph = self.store.collecting();
                let users = self.store.users();
                self.not_mounted(chain, &users)?;
                staged.replace(&layer.cache_id, parent.as_deref())?;
            }
            self.store.driver().mend(&layer.cache_id, parent.as_deref(), self.store.stands_below(chain)?)?;
            let faults = self.store.verify_layer(chain, &layer, false)?;
            if let Some(fault) = faults.first() {
                return Err(Error::Corrupt(format!("after it was made again: {}", fault.what)));
            }
            self.store.trusted(chain)?;
            return Ok(Some(format!("done: {}", source.words())));
        }
        Err(Error::Corrupt(failed.join("; ")))
    }

    pub(super) fn is_whole(&self, chain: &Digest, layer: &LayerRecord) -> Result<bool> {
        Ok(self.store.verify_layer(chain, layer, false)?.is_empty())
    }

    /// Refuses while a container has the layer mounted.
    fn not_mounted(&self, chain: &Digest, users: &HashMap<String, Users>) -> Result<()> {
        let on = self.store.chains_on(chain)?;
        for (container, row) in self.store.meta().list::<MountRow>(Table::Mounts)? {
            if !row.top.is_some_and(|top| on.contains(&top)) {
                continue;
            }
            if self.is_mounted(&container, &row, users)? {
                return Err(Error::Conflict(format!(
                    "container {container} runs on it: stop the container, then repair"
                )));
            }
        }
        Ok(())
    }

    /// Gives an image a layer again whose record was lost.
    fn lost_layer(&self, diff_id: &Digest, below: Option<&Digest>) -> Result<Option<String>> {
        let own = Digest::chain(below, diff_id);
        if self.store.layer(&own)?.is_some() {
            return Ok(Some("it is there by now".into()));
        }
        let sources = self.sources(None, &lost(*diff_id))?;
        if sources.is_empty() {
            return Ok(None);
        }
        let parent = match below {
            Some(below) => match self.store.layer(below)? {
                Some(layer) => Some(layer.cache_id),
                None => return Err(Error::Corrupt(format!("the layer below it, {below}, is lost, too"))),
            },
            None => None,
        };
        let custody = Custody::new(self.store, "repair a layer")?;
        let mut failed = Vec::new();
        for source in &sources {
            let staged = match self.unpack(&custody, source, diff_id, parent.as_deref()) {
                Ok(staged) => staged,
                Err(e) => {
                    failed.push(format!("{}: {e}", source.words()));
                    continue;
                }
            };
            let graph = self.store.adding();
            let mut chain = Chain::on(below.copied().into_iter().collect());
            let added = chain
                .push(self.store, staged)
                .and_then(|()| self.store.durable())
                .and_then(|()| self.store.meta().commit(chain.records(Batch::new())));
            if let Err(e) = added {
                chain.undo(self.store, &graph);
                return Err(e);
            }
            drop(graph);
            self.restack(&own)?;
            return Ok(Some(format!("done: {}", source.words())));
        }
        Err(Error::Corrupt(failed.join("; ")))
    }

    /// Puts right what the driver keeps of a layer and of all that stands on it: a new name of the layer stands in all
    /// their lists.
    fn restack(&self, chain: &Digest) -> Result<()> {
        let on = self.store.chains_on(chain)?;
        let mut layers: Vec<&Digest> = on.iter().collect();
        layers.sort_by_key(|chain| self.depth(chain));
        for chain in layers {
            self.layer_files(chain)?;
        }
        let users = self.store.users();
        for (container, row) in self.store.meta().list::<MountRow>(Table::Mounts)? {
            if row.top.is_some_and(|top| on.contains(&top)) {
                self.container_files(&container, &row, &users)?;
            }
        }
        Ok(())
    }

    /// Puts right what the driver keeps of a container; what it has mounted needs none of it.
    fn container_files(&self, container: &str, row: &MountRow, users: &HashMap<String, Users>) -> Result<()> {
        let parent = row.top.map(|top| self.store.layer(&top)).transpose()?.flatten().map(|l| l.cache_id);
        if !self.is_mounted(container, row, users)? {
            return self.store.mend_snapshots(container, row, parent.as_deref());
        }
        let (driver, init) = (self.store.driver(), row.init_id());
        if let Some(init) = &init {
            driver.mend(init, parent.as_deref(), true)?;
        }
        driver.mend(&row.mount_id, init.or(parent).as_deref(), false)
    }

    /// Whether somebody uses a container's tree; whole copies are nobody's below, and never mounted.
    fn is_mounted(&self, container: &str, row: &MountRow, users: &HashMap<String, Users>) -> Result<bool> {
        let driver = self.store.driver();
        if driver.name() != DriverName::Overlay2 {
            return Ok(false);
        }
        // Its own files may be what is damaged: they are not asked.
        let target = driver.apply_dir(&row.mount_id).with_file_name("merged");
        Ok(users.contains_key(container)
            || (target.exists() && longshore_sys::mount::is_mount_point(&target)?))
    }

    fn index(&self, chain: &Digest) -> Result<String> {
        let Some(layer) = self.store.layer(chain)? else { return Ok("it is gone".into()) };
        let again = self.store.reindexed(chain, &layer, &Progress::new(&silent, 0, None))?;
        if again.odd {
            let done = self.layer(chain)?;
            return done.ok_or_else(|| Error::Corrupt("nobody can give the layer again".into()));
        }
        let path = self.store.layer_files(&layer.cache_id).join("index");
        longshore_sys::atomic::write_atomic_path(&path, &again.bytes, Mode::from_raw_mode(0o600), true)?;
        Ok("done: made again from the layer".into())
    }

    fn layer_files(&self, chain: &Digest) -> Result<String> {
        let Some(layer) = self.store.layer(chain)? else { return Ok("it is gone".into()) };
        let parent = layer.parent.map(|p| self.store.layer(&p)).transpose()?.flatten().map(|l| l.cache_id);
        let committed = self.store.stands_below(chain)?;
        self.store.driver().mend(&layer.cache_id, parent.as_deref(), committed)?;
        still_wrong(self.store.driver().inspect(&layer.cache_id, parent.as_deref(), committed)?)
    }

    fn container(&self, container: &str) -> Result<String> {
        let Some(row) = self.store.meta().get::<MountRow>(Table::Mounts, container)? else {
            return Ok("it is gone".into());
        };
        self.container_files(container, &row, &self.store.users())?;
        still_wrong(self.store.container_faults(&row)?)
    }

    fn image_layers(&self, id: &Digest) -> Result<Option<String>> {
        let _graph = self.store.adding();
        let Some(mut row) = self.store.images().row(id)? else { return Ok(Some("it is gone".into())) };
        let (_, document) = self.store.images().document(id)?;
        let mut chains = Vec::new();
        for diff_id in &document.rootfs.diff_ids {
            let chain = Digest::chain(chains.last(), diff_id);
            if self.store.layer(&chain)?.is_none() {
                return Err(Error::Corrupt(format!(
                    "its layer {chain} is not there: load or pull the image again"
                )));
            }
            chains.push(chain);
        }
        row.layers = chains;
        self.store.meta().commit(Batch::new().put(Table::Images, &id.to_string(), &row))?;
        Ok(Some("done: taken from the configuration".into()))
    }
}

/// Reads the first bytes, which say how a stream is compressed, and stages it.
fn staged_from<'c>(
    source: &mut (dyn Read + Send),
    stage: impl FnOnce(&[u8], &mut (dyn Read + Send)) -> Result<Staged<'c>>,
) -> Result<Staged<'c>> {
    let mut start = Vec::new();
    source.take(6).read_to_end(&mut start).context(|| "read a layer")?;
    stage(&start.clone(), &mut std::io::Cursor::new(start).chain(source))
}

fn still_wrong(faults: Vec<String>) -> Result<String> {
    match faults.first() {
        None => Ok("done: written again".into()),
        Some(fault) => Err(Error::Corrupt(fault.clone())),
    }
}

/// A layer of which no more is known.
fn lost(diff_id: Digest) -> LayerRecord {
    LayerRecord { diff_id, parent: None, cache_id: String::new(), size: 0, blob: None }
}
