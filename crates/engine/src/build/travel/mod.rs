//! The build cache on its way to other machines and from them: in registries, in directories of clients, within images.

mod export;
mod import;
mod layouts;

use longshore_oci::image::{Index, Manifest};

pub(super) use self::export::{Made, export_all, inline};
pub(super) use self::import::Imports;
pub(crate) use self::layouts::Layouts;
use crate::model::{BuildEvent, BuildTask};

/// The annotation of a layout's index that says what a manifest is called.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

pub(super) type Send<'a> = &'a (dyn Fn(BuildEvent) + std::marker::Send + Sync);

/// Something that is told as it goes on.
pub(super) struct Task<'a> {
    name: String,
    send: Send<'a>,
}

impl<'a> Task<'a> {
    pub(super) fn begin(name: String, send: Send<'a>) -> Self {
        let task = Self { name, send };
        task.tell(BuildTask::Begun);
        task
    }

    pub(super) fn tell(&self, said: BuildTask) {
        (self.send)(BuildEvent::Task { name: self.name.clone(), said });
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        self.tell(BuildTask::Note(text.into()));
    }
}

/// A layout's index, or one that it names.
pub(super) fn parse_index(bytes: &[u8]) -> Result<Index, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("its index.json is not understood: {e}"))
}

/// A manifest of it.
pub(super) fn parse_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("its manifest is not understood: {e}"))
}
