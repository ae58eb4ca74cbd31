//! Layers: recipe and tree give the tar of the diff id, the index is that tar's, the tree is what the index says, and the
//! driver's own files are right.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use longshore_oci::Digest;

use super::{Checked, Fault, FaultKind, Finding, Progress, silent};
use crate::archive::rebuild;
use crate::image::{LayerRecord, parse_id};
use crate::layer::{
    Expected, INDEX_VERSION, Index, Reindexed, WhiteoutFormat, describe, differences, inherited, reindex,
};
use crate::meta::Table;
use crate::open::Store;
use crate::rw::MountRow;
use crate::{Error, IoContext, Result};

/// Something wrong with a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerFault {
    pub(crate) kind: FaultKind,
    pub(crate) what: String,
}

impl LayerFault {
    fn new(kind: FaultKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }
}

/// Counts what passes.
struct Counted<'a, R> {
    inner: R,
    object: &'a str,
    progress: &'a Progress<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.progress.read(self.object, n as u64);
        Ok(n)
    }
}

impl Store {
    pub(super) fn check_layers(
        &self,
        quick: bool,
        checked: &mut Checked,
        progress: &Progress<'_>,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for (key, _) in self.meta().list::<LayerRecord>(Table::Layers)? {
            progress.go_on()?;
            let chain = parse_id(&key)?;
            // It may have gone while others were read.
            let Some(layer) = self.layer(&chain)? else { continue };
            checked.layers += 1;
            let faults = self.layer_faults(&chain, &layer, quick, progress)?;
            if self.layer(&chain)?.is_none_or(|now| now.cache_id != layer.cache_id) {
                continue;
            }
            if faults.is_empty() && !quick {
                self.trusted(&chain)?;
            }
            findings.extend(faults.into_iter().map(|fault| {
                let how = match fault.kind {
                    FaultKind::Index => Fault::Index(chain),
                    FaultKind::Snapshot => Fault::LayerFiles(chain),
                    _ => Fault::Layer(chain),
                };
                Finding::new(fault.kind, format!("layer {chain}"), fault.what, how)
            }));
        }
        for (container, row) in self.meta().list::<MountRow>(Table::Mounts)? {
            checked.containers += 1;
            let faults = self.container_faults(&row)?;
            // A container that goes away takes its files along.
            if self.meta().get::<MountRow>(Table::Mounts, &container)?.as_ref() != Some(&row) {
                continue;
            }
            findings.extend(faults.into_iter().map(|what| {
                let fault = Fault::ContainerFiles(container.clone());
                Finding::new(FaultKind::Snapshot, format!("container {container}"), what, fault)
            }));
        }
        Ok(findings)
    }

    /// What is wrong with the driver's own files of a container.
    pub(super) fn container_faults(&self, row: &MountRow) -> Result<Vec<String>> {
        let parent = row.top.map(|top| self.layer(&top)).transpose()?.flatten().map(|l| l.cache_id);
        let words = |of: &str, faults: Vec<String>| {
            faults.into_iter().map(|f| format!("its {of} layer: {f}")).collect::<Vec<_>>()
        };
        let init = row.init_id();
        let mut faults = match &init {
            Some(init) => words("init", self.driver().inspect(init, parent.as_deref(), true)?),
            None => Vec::new(),
        };
        let below = init.or(parent);
        faults.extend(words("writable", self.driver().inspect(&row.mount_id, below.as_deref(), false)?));
        Ok(faults)
    }

    /// What is wrong with a layer; the first of each kind.
    pub(crate) fn verify_layer(
        &self,
        chain: &Digest,
        layer: &LayerRecord,
        quick: bool,
    ) -> Result<Vec<LayerFault>> {
        self.layer_faults(chain, layer, quick, &Progress::new(&silent, 0, None))
    }

    fn layer_faults(
        &self,
        chain: &Digest,
        layer: &LayerRecord,
        quick: bool,
        progress: &Progress<'_>,
    ) -> Result<Vec<LayerFault>> {
        let parent = layer.parent.map(|p| self.layer(&p)).transpose()?.flatten();
        let below = parent.as_ref().map(|p| p.cache_id.as_str());
        let committed = self.stands_below(chain)?;
        let driver = self.driver();
        let mut faults: Vec<LayerFault> = driver
            .inspect(&layer.cache_id, below, committed)?
            .into_iter()
            .map(|what| LayerFault::new(FaultKind::Snapshot, what))
            .collect();
        let dir = driver.apply_dir(&layer.cache_id);
        if !dir.is_dir() {
            faults.clear();
            return Ok(vec![LayerFault::new(FaultKind::Layer, "its directory is not there")]);
        }
        let recipe = self.layer_files(&layer.cache_id).join("recipe");
        let described = fs::File::open(&recipe).context(|| "open its recipe").and_then(|f| describe(&f));
        match described {
            Ok((diff_id, _)) if diff_id == layer.diff_id => {}
            Ok((diff_id, _)) => {
                let what = format!("its recipe makes the layer {diff_id} instead of {}", layer.diff_id);
                faults.push(LayerFault::new(FaultKind::Layer, what));
                return Ok(faults);
            }
            Err(e @ Error::Unimplemented(_)) => return Err(e),
            Err(e) => {
                faults.push(LayerFault::new(FaultKind::Layer, e.to_string()));
                return Ok(faults);
            }
        }
        let index = Index::open(&self.layer_files(&layer.cache_id).join("index"));
        let index = match index {
            Ok(index) => Some(index),
            Err(e @ Error::Unimplemented(_)) => return Err(e),
            Err(e) => {
                faults.push(LayerFault::new(FaultKind::Index, e.to_string()));
                None
            }
        };
        if !quick {
            let below = parent.map(|p| driver.apply_dir(&p.cache_id));
            faults.extend(self.content_faults(chain, layer, index, below.as_deref(), progress)?);
        }
        Ok(faults)
    }

    /// Whether something stands on a layer.
    pub(super) fn stands_below(&self, chain: &Digest) -> Result<bool> {
        let layers = self.meta().list::<LayerRecord>(Table::Layers)?;
        let mounts = self.meta().list::<MountRow>(Table::Mounts)?;
        Ok(layers.iter().any(|(_, l)| l.parent == Some(*chain))
            || mounts.iter().any(|(_, m)| m.top == Some(*chain)))
    }

    /// Reads all of it.
    fn content_faults(
        &self,
        chain: &Digest,
        layer: &LayerRecord,
        index: Option<Index>,
        below: Option<&Path>,
        progress: &Progress<'_>,
    ) -> Result<Vec<LayerFault>> {
        let fault = |kind, what: String| Ok(vec![LayerFault::new(kind, what)]);
        let again = match self.reindexed(chain, layer, progress) {
            Ok(again) => again,
            Err(e) => return fault(FaultKind::Layer, e.to_string()),
        };
        let Some(index) = index else { return Ok(Vec::new()) };
        // An earlier version wrote less.
        if !again.odd && index.version() == INDEX_VERSION && index.bytes() != again.bytes {
            return fault(FaultKind::Index, "it is not the index of its tar".into());
        }
        let dir = self.driver().apply_dir(&layer.cache_id);
        let alone = self.driver().whiteouts() != WhiteoutFormat::Remove;
        let expected = Expected { index: &index, alone, devices: self.driver().makes_devices() };
        let mut told = if again.odd { Vec::new() } else { differences(&dir, &expected)? };
        if let (false, Some(below)) = (alone, below) {
            told.extend(inherited(&dir, below, &index)?);
        }
        Ok(told.into_iter().map(|what| LayerFault::new(FaultKind::Layer, what)).collect())
    }

    /// Rebuilds the layer's tar and makes its index anew.
    pub(super) fn reindexed(
        &self,
        chain: &Digest,
        layer: &LayerRecord,
        progress: &Progress<'_>,
    ) -> Result<Reindexed> {
        let (reader, writer) = std::io::pipe().context(|| "make a pipe")?;
        let object = format!("layer {chain}");
        std::thread::scope(|scope| {
            let feeder = scope.spawn(|| {
                let mut writer = std::io::BufWriter::with_capacity(256 << 10, writer);
                rebuild(self, &layer.cache_id, layer.diff_id, &mut writer)?;
                writer.flush().context(|| "read a layer")
            });
            let mut source =
                BufReader::with_capacity(256 << 10, Counted { inner: reader, object: &object, progress });
            // As where it was unpacked.
            let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let implied = (self.driver().whiteouts() != WhiteoutFormat::Remove).then_some(own);
            let again = reindex(&mut source, implied);
            // What follows the end marker is of the tar, too.
            let rest = std::io::copy(&mut source, &mut std::io::sink());
            drop(source);
            let fed =
                feeder.join().map_err(|_| Error::Internal("a thread that reads a layer panicked".into()))?;
            // What the recipe says is the cause of what the tar says.
            match (fed, again) {
                (Err(e @ (Error::Corrupt(_) | Error::DigestMismatch { .. })), _) => Err(e),
                (_, Err(e)) | (Err(e), _) => Err(e),
                (Ok(()), Ok(again)) => rest.context(|| "read a layer").map(|_| again),
            }
        })
    }

    /// The chain ids of a layer and all that stand on it.
    pub(super) fn chains_on(&self, chain: &Digest) -> Result<BTreeSet<Digest>> {
        let layers = self.meta().list::<LayerRecord>(Table::Layers)?;
        let mut on = BTreeSet::from([*chain]);
        loop {
            let before = on.len();
            for (key, layer) in &layers {
                if layer.parent.is_some_and(|p| on.contains(&p)) {
                    on.insert(parse_id(key)?);
                }
            }
            if on.len() == before {
                return Ok(on);
            }
        }
    }
}
