//! Records: each can be read, and what they say of one another is true.

use std::collections::{BTreeMap, BTreeSet};

use longshore_oci::Digest;
use serde::de::DeserializeOwned;

use super::{CheckOptions, Checked, Fault, FaultKind, Finding};
use crate::image::{ImageRow, LayerRecord};
use crate::meta::Table;
use crate::named_index::NamedIndex;
use crate::open::Store;
use crate::rw::MountRow;
use crate::{Error, Result};

/// Tables whose records others write.
const OTHERS: [Table; 4] = [Table::Containers, Table::Working, Table::Networks, Table::Volumes];

/// How something is removed that has a writable layer.
fn remedy(table: Table) -> Option<&'static str> {
    match table {
        Table::Containers => Some("longshore rm"),
        Table::Working => Some("longshore working rm"),
        _ => None,
    }
}

fn record(object: impl Into<String>, what: impl Into<String>, fault: Fault) -> Finding {
    Finding::new(FaultKind::Record, object, what, fault)
}

impl Store {
    pub(super) fn check_records(
        &self,
        options: &CheckOptions<'_>,
        checked: &mut Checked,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let layers = self.readable::<LayerRecord>(Table::Layers, &mut findings)?;
        let images = self.readable::<ImageRow>(Table::Images, &mut findings)?;
        let mounts = self.readable::<MountRow>(Table::Mounts, &mut findings)?;
        let tags = self.readable::<Digest>(Table::Tags, &mut findings)?;
        let indexes = self.readable::<NamedIndex>(Table::Indexes, &mut findings)?;
        let layers: BTreeMap<Digest, LayerRecord> =
            layers.into_iter().filter_map(|(k, l)| Some((k.parse().ok()?, l))).collect();
        checked.images += images.len();
        for (chain, layer) in &layers {
            findings.extend(self.check_layer_record(chain, layer, &layers)?);
        }
        let mut lost = BTreeSet::new();
        for (key, row) in &images {
            let Ok(id) = key.parse::<Digest>() else {
                findings.push(record(format!("image {key}"), "its key is no digest", Fault::Hopeless));
                continue;
            };
            findings.extend(self.check_image(&id, row, &layers, &mut lost)?);
        }
        let known: BTreeSet<&str> = images.iter().map(|(key, _)| key.as_str()).collect();
        for (tag, image) in &tags {
            // A tag and its image come and go in one step.
            if !known.contains(image.to_string().as_str()) && self.images().row(image)?.is_none() {
                let what = format!("it names {image}, which is no image here: load or pull it again");
                findings.push(record(format!("tag {tag}"), what, Fault::Hopeless));
            }
        }
        for (name, index) in &indexes {
            for image in index.images.iter().map(|image| image.id) {
                if !known.contains(image.to_string().as_str()) && self.images().row(&image)?.is_none() {
                    let what = format!("it names {image}, which is no image here: build the name again");
                    findings.push(record(format!("index of {name}"), what, Fault::Hopeless));
                }
            }
        }
        for (container, mount) in &mounts {
            if let Some(top) = mount.top.filter(|top| !layers.contains_key(top))
                && self.layer(&top)?.is_none()
            {
                let what = format!("layer {top}, on which it stands, has no record");
                findings.push(record(format!("container {container}"), what, Fault::Needs(top)));
            }
        }
        findings.extend(self.check_others(options)?);
        Ok(findings)
    }

    /// The records of a table that can be read; the others are findings.
    fn readable<T: DeserializeOwned>(
        &self,
        table: Table,
        findings: &mut Vec<Finding>,
    ) -> Result<Vec<(String, T)>> {
        let mut out = Vec::new();
        for (key, value) in self.meta().values(table)? {
            match value.and_then(|v| {
                serde_json::from_value(v)
                    .map_err(|e| Error::Corrupt(format!("its record is not understood: {e}")))
            }) {
                Ok(value) => out.push((key, value)),
                Err(e) => {
                    findings.push(record(
                        format!("{} {key}", table.name()),
                        e.to_string(),
                        Fault::Unreadable,
                    ));
                }
            }
        }
        Ok(out)
    }

    fn check_layer_record(
        &self,
        chain: &Digest,
        layer: &LayerRecord,
        layers: &BTreeMap<Digest, LayerRecord>,
    ) -> Result<Vec<Finding>> {
        let object = || format!("layer {chain}");
        let mut findings = Vec::new();
        let own = Digest::chain(layer.parent.as_ref(), &layer.diff_id);
        if own != *chain {
            findings.push(record(
                object(),
                format!("its parent and its diff id make {own}"),
                Fault::Hopeless,
            ));
        }
        if let Some(parent) = layer.parent
            && !layers.contains_key(&parent)
            && self.layer(&parent)?.is_none()
            && self.layer(chain)?.is_some()
        {
            let what = format!("the layer below it, {parent}, has no record");
            findings.push(record(object(), what, Fault::Needs(parent)));
        }
        Ok(findings)
    }

    /// `lost` has the layers that were told of already.
    fn check_image(
        &self,
        id: &Digest,
        row: &ImageRow,
        layers: &BTreeMap<Digest, LayerRecord>,
        lost: &mut BTreeSet<Digest>,
    ) -> Result<Vec<Finding>> {
        let object = || format!("image {id}");
        let mut findings = Vec::new();
        let document = match self.images().document(id) {
            Ok((_, document)) => document,
            // The blob is told of with the blobs.
            Err(Error::NotFound(_) | Error::DigestMismatch { .. } | Error::Corrupt(_)) => {
                return Ok(findings);
            }
            Err(e) => {
                return Ok(vec![record(object(), format!("its configuration: {e}"), Fault::Hopeless)]);
            }
        };
        let mut chains: Vec<Digest> = Vec::new();
        for diff_id in &document.rootfs.diff_ids {
            chains.push(Digest::chain(chains.last(), diff_id));
        }
        if chains != row.layers {
            let what = "its layers are not those of its configuration";
            findings.push(record(object(), what, Fault::ImageLayers(*id)));
        }
        let mut below = None;
        for (chain, diff_id) in chains.iter().zip(&document.rootfs.diff_ids) {
            let is_lost = !layers.contains_key(chain)
                && self.layer(chain)?.is_none()
                && self.images().row(id)?.is_some();
            if is_lost && lost.insert(*chain) {
                let what = format!("its layer {chain} (diff id {diff_id}) has no record");
                findings.push(record(object(), what, Fault::LostLayer { diff_id: *diff_id, below }));
            }
            below = Some(*chain);
        }
        Ok(findings)
    }

    fn check_others(&self, options: &CheckOptions<'_>) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for table in OTHERS {
            for (key, value) in self.meta().values(table)? {
                let object = match table {
                    Table::Working => format!("working container {key}"),
                    table => format!("{} {key}", table.name().trim_end_matches('s')),
                };
                let wrong = match value {
                    Ok(value) => options.decode.and_then(|decode| decode(table, &key, &value).err()),
                    Err(e) => Some(e.to_string()),
                };
                if let Some(what) = wrong {
                    findings.push(record(object, what, Fault::Hopeless));
                } else if let Some(remedy) = remedy(table)
                    && !self.meta().contains(Table::Mounts, &key)?
                    && self.meta().contains(table, &key)?
                {
                    let what = format!("its writable layer has no record: remove it ({remedy})");
                    findings.push(record(object, what, Fault::Hopeless));
                }
            }
        }
        Ok(findings)
    }
}
