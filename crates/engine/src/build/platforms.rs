//! Images for several platforms: what they are together, under the names of a build.

use longshore_build::Error as BuildError;
use longshore_oci::{Digest, Platform};
use longshore_store::archive::{self, Unrecorded};
use longshore_store::{IndexForm, IndexedImage, NamedIndex};

use crate::model::{BuildAnnotated, BuildRequest};
use crate::{Engine, Error, Result};

/// What images are made for: at least one.
pub(super) fn platforms(request: &BuildRequest) -> Vec<Platform> {
    match request.platforms.as_slice() {
        [] => vec![Platform::host()],
        platforms => platforms.to_vec(),
    }
}

/// Looks whether what is asked of platforms and annotations makes sense.
///
/// # Errors
/// For a platform that is asked for twice, and for annotations of what will not be.
pub(super) fn check(request: &BuildRequest) -> Result<()> {
    let platforms = &request.platforms;
    let twice = platforms.iter().enumerate().find(|(n, p)| platforms.iter().take(*n).any(|q| q == *p));
    if let Some((_, platform)) = twice {
        return Err(Error::invalid(format!("platform {platform} is asked for twice")));
    }
    for annotation in &request.annotations {
        let of_index = matches!(annotation.of, BuildAnnotated::Index | BuildAnnotated::IndexDescriptor);
        if of_index && platforms.len() < 2 {
            return Err(Error::invalid(format!(
                "annotation {}: index annotations are not supported for a single platform: there is no index",
                annotation.key
            )));
        }
        if let Some(wanted) = &annotation.platform
            && !self::platforms(request).contains(wanted)
        {
            return Err(Error::invalid(format!(
                "annotation {}: nothing is built for {wanted}",
                annotation.key
            )));
        }
    }
    Ok(())
}

/// What images are under their names, `images` being those of [`platforms`] in their order.
///
/// # Errors
/// When an image's document cannot be written.
pub(super) fn index_of(request: &BuildRequest, images: &[Unrecorded]) -> Result<NamedIndex, BuildError> {
    let annotations = |of: BuildAnnotated, platform: Option<&Platform>| {
        let all = request.annotations.iter().filter(move |a| a.of == of);
        let meant = all.filter(move |a| a.platform.is_none() || a.platform.as_ref() == platform);
        meant.map(|a| (a.key.clone(), a.value.clone())).collect()
    };
    let mut indexed = Vec::new();
    for (image, wanted) in images.iter().zip(platforms(request)) {
        let has = image.document.platform();
        indexed.push(IndexedImage {
            id: image.id()?,
            // One that does not say is for what it was made for.
            platform: if has.architecture.is_empty() { wanted.clone() } else { has },
            annotations: annotations(BuildAnnotated::Manifest, Some(&wanted)),
            descriptor_annotations: annotations(BuildAnnotated::ManifestDescriptor, Some(&wanted)),
        });
    }
    let host = Platform::host();
    let own = indexed.iter().find(|image| image.platform.runs_on(&host)).or_else(|| indexed.first());
    let of = own.ok_or_else(|| BuildError::Internal("a build made no image".into()))?.id;
    Ok(NamedIndex {
        of,
        images: indexed,
        form: if request.platforms.len() > 1 { IndexForm::Index } else { IndexForm::Manifest },
        annotations: annotations(BuildAnnotated::Index, None),
        descriptor_annotations: annotations(BuildAnnotated::IndexDescriptor, None),
    })
}

impl Engine {
    /// Records what was built under the names that it gets; gives the ids, in the order of platforms.
    pub(super) fn record_built(
        &self,
        request: &BuildRequest,
        images: Vec<Unrecorded>,
        index: &NamedIndex,
    ) -> Result<Vec<Digest>, BuildError> {
        let store = &self.inner.store;
        let names = if index.is_plain() { request.tags.as_slice() } else { &[] };
        let record = |image: Unrecorded| archive::record(store, image.top, names, image.document);
        let ids = images.into_iter().map(record).collect::<Result<Vec<_>, _>>()?;
        if !index.is_plain() {
            request.tags.iter().try_for_each(|name| store.images().set_index(name, index))?;
        }
        Ok(ids)
    }
}
