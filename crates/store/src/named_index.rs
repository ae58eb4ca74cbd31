//! What a name stands for besides one image: images of several platforms, and annotations.

use std::collections::BTreeMap;

use longshore_oci::{Digest, Platform, Reference};
use serde::{Deserialize, Serialize};

use crate::image::{ImageRecord, ImageRow, Images};
use crate::meta::{Batch, Table};
use crate::{Error, Result};

/// How a name's images leave this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexForm {
    /// As an index of their manifests (OCI image spec, image-index.md).
    Index,
    /// The image that the name stands for by itself, and no other, as a manifest.
    #[default]
    Manifest,
}

/// Images of several platforms, or annotations, under one name. It counts as long as the name stands for [`Self::of`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedIndex {
    /// The image that the name stands for where no platform is asked for: one of [`Self::images`].
    pub of: Digest,
    /// In the order of the index.
    pub images: Vec<IndexedImage>,
    #[allow(missing_docs)]
    pub form: IndexForm,
    /// Those of the index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Those of the index where a layout names it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub descriptor_annotations: BTreeMap<String, String>,
}

/// An image of a [`NamedIndex`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedImage {
    #[allow(missing_docs)]
    pub id: Digest,
    /// What it is for.
    pub platform: Platform,
    /// Those of its manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Those of its manifest where an index names it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub descriptor_annotations: BTreeMap<String, String>,
}

impl IndexedImage {
    /// An image without annotations.
    #[must_use]
    pub fn new(id: Digest, platform: Platform) -> Self {
        Self { id, platform, annotations: BTreeMap::new(), descriptor_annotations: BTreeMap::new() }
    }
}

impl NamedIndex {
    /// That of one image, which leaves this machine with its annotations.
    #[must_use]
    pub fn of_one(image: IndexedImage) -> Self {
        let (annotations, descriptor_annotations) = Default::default();
        let (of, images) = (image.id, vec![image]);
        Self { of, images, form: IndexForm::Manifest, annotations, descriptor_annotations }
    }

    /// The image that the name stands for by itself.
    #[must_use]
    pub fn own(&self) -> Option<&IndexedImage> {
        self.images.iter().find(|image| image.id == self.of)
    }

    /// The images that leave this machine under the name.
    #[must_use]
    pub fn sent(&self) -> Vec<&IndexedImage> {
        match self.form {
            IndexForm::Index => self.images.iter().collect(),
            IndexForm::Manifest => self.own().into_iter().collect(),
        }
    }

    /// The image for a platform, if there is one.
    #[must_use]
    pub fn runs_on(&self, platform: &Platform) -> Option<&IndexedImage> {
        self.images.iter().find(|image| image.platform.runs_on(platform))
    }

    /// Whether the name says no more by it than it says by itself.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = |i: &IndexedImage| i.annotations.is_empty() && i.descriptor_annotations.is_empty();
        self.form == IndexForm::Manifest
            && self.annotations.is_empty()
            && self.descriptor_annotations.is_empty()
            && matches!(self.images.as_slice(), [only] if plain(only))
    }
}

impl Images<'_> {
    /// The index of a name, if it has one.
    ///
    /// # Errors
    /// When the metadata cannot be read.
    pub fn index(self, reference: &Reference) -> Result<Option<NamedIndex>> {
        let index: Option<NamedIndex> = self.store.meta().get(Table::Indexes, &reference.to_string())?;
        let of = self.store.meta().get::<Digest>(Table::Tags, &reference.to_string())?;
        Ok(index.filter(|index| Some(index.of) == of))
    }

    /// [`Self::resolve`], and of images of several platforms under that name the one for `platform` if there is one.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_for(self, text: &str, platform: &Platform) -> Result<ImageRecord> {
        let record = self.resolve(text)?;
        let Ok(reference) = text.parse::<Reference>().map(Reference::or_latest) else { return Ok(record) };
        let index = self.index(&reference)?.filter(|index| index.of == record.id);
        match index.and_then(|index| index.runs_on(platform).map(|image| image.id)) {
            Some(id) => self.get(&id),
            None => Ok(record),
        }
    }

    /// Gives a name an index; the name stands for [`NamedIndex::of`] then.
    ///
    /// # Errors
    /// `NotFound` when an image is not there.
    pub fn set_index(self, reference: &Reference, index: &NamedIndex) -> Result<()> {
        let _graph = self.store.adding();
        let missing = |id: &Digest| Error::NotFound(format!("No such image: {id}"));
        for image in &index.images {
            self.row(&image.id)?.ok_or_else(|| missing(&image.id))?;
        }
        let mut row: ImageRow = self.row(&index.of)?.ok_or_else(|| missing(&index.of))?;
        row.last_tagged = crate::image::now();
        let key = reference.to_string();
        let batch = Batch::new().put(Table::Images, &index.of.to_string(), &row);
        let batch = batch.put(Table::Tags, &key, &index.of);
        self.store.meta().commit(match index.is_plain() {
            true => batch.delete(Table::Indexes, &key),
            false => batch.put(Table::Indexes, &key, index),
        })
    }

    /// Remembers an image for another platform than the one that a name stands for, without changing what the name says to
    /// others. A name that stands for nothing stands for it then; and one whose own image is not for `host`, where this
    /// one is.
    ///
    /// # Errors
    /// `NotFound` when the image, or the one that the name stands for, is not there.
    pub fn add_platform(self, reference: &Reference, image: IndexedImage, host: &Platform) -> Result<()> {
        let Some(of) = self.lookup(reference)? else { return self.tag(&image.id, reference) };
        let mut index = match self.index(reference)? {
            // What was built here is not added to.
            Some(index) if index.form == IndexForm::Index => return Ok(()),
            Some(index) => index,
            None => {
                let (_, document) = self.document(&of)?;
                NamedIndex::of_one(IndexedImage::new(of, document.platform()))
            }
        };
        index.images.retain(|other| other.id == of || other.platform != image.platform);
        if image.platform.runs_on(host) && !index.own().is_some_and(|own| own.platform.runs_on(host)) {
            index.of = image.id;
        }
        if index.images.iter().all(|other| other.id != image.id) {
            index.images.push(image);
        }
        self.set_index(reference, &index)
    }

    /// Lets a name stand for an image and nothing else, in a batch.
    pub(crate) fn name(self, batch: Batch, reference: &Reference, id: &Digest) -> Batch {
        let key = reference.to_string();
        batch.put(Table::Tags, &key, id).delete(Table::Indexes, &key)
    }

    /// Takes an image out of all indexes, in a batch; with the image that a name stands for goes its index.
    pub(crate) fn out_of_indexes(self, mut batch: Batch, id: &Digest) -> Result<Batch> {
        for (key, mut index) in self.indexes()? {
            let before = index.images.len();
            index.images.retain(|image| image.id != *id);
            batch = match index.images.len() {
                _ if index.of == *id => batch.delete(Table::Indexes, &key),
                left if left == before => batch,
                _ => batch.put(Table::Indexes, &key, &index),
            };
        }
        Ok(batch)
    }

    /// Names by the images that they stand for on another platform only.
    pub(crate) fn elsewhere(self) -> Result<BTreeMap<Digest, Vec<Reference>>> {
        let mut names: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for (key, index) in self.indexes()? {
            let Ok(name) = key.parse::<Reference>() else { continue };
            if self.store.meta().get::<Digest>(Table::Tags, &key)? != Some(index.of) {
                continue;
            }
            for image in index.images.iter().filter(|image| image.id != index.of) {
                names.entry(image.id).or_default().push(name.clone());
            }
        }
        Ok(names)
    }

    fn indexes(self) -> Result<BTreeMap<String, NamedIndex>> {
        Ok(self.store.meta().list(Table::Indexes)?.into_iter().collect())
    }
}
