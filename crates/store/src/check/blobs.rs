//! Blobs: each has the bytes of its name, and each that a record names is there.

use std::collections::BTreeMap;
use std::io::Read;

use longshore_oci::Digest;

use super::{Checked, Fault, FaultKind, Finding, Progress};
use crate::open::Store;
use crate::{Error, Result};

const CHUNK: usize = 1 << 20;

impl Store {
    pub(super) fn check_blobs(
        &self,
        quick: bool,
        checked: &mut Checked,
        progress: &Progress<'_>,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let wanted = self.blobs_wanted()?;
        for blob in self.content().list()? {
            progress.go_on()?;
            checked.blobs += 1;
            let size = wanted.get(&blob).and_then(|of| of.size);
            let Some(what) = self.blob_fault(&blob, size, quick, progress)? else { continue };
            // One that nobody names is a leftover, whatever is in it.
            if let Some(of) = self.blobs_wanted()?.remove(&blob) {
                let fault = Fault::Blob(blob);
                findings.push(Finding::new(
                    FaultKind::Blob,
                    format!("blob {blob}"),
                    format!("{what} ({})", of.words),
                    fault,
                ));
            }
        }
        for (blob, of) in self.blobs_wanted()? {
            if !of.may_be_missing && !self.content().exists(&blob)? {
                let what = format!("it is not there ({})", of.words);
                findings.push(Finding::new(FaultKind::Blob, format!("blob {blob}"), what, Fault::Blob(blob)));
            }
        }
        Ok(findings)
    }

    /// What is wrong with a blob; nothing if it went away meanwhile.
    fn blob_fault(
        &self,
        blob: &Digest,
        wanted: Option<u64>,
        quick: bool,
        progress: &Progress<'_>,
    ) -> Result<Option<String>> {
        let size = match self.content().size(blob) {
            Ok(size) => size,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        if let Some(wanted) = wanted.filter(|w| *w != size) {
            return Ok(Some(format!("it has {size} bytes instead of {wanted}")));
        }
        if quick {
            return Ok(None);
        }
        let mut reader = match self.content().reader(blob) {
            Ok(reader) => reader,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        let (object, mut buf) = (format!("blob {blob}"), vec![0; CHUNK]);
        loop {
            match reader.read(&mut buf).map_err(|e| Error::io(format!("read {object}"), e)) {
                Ok(0) => return Ok(None),
                Ok(n) => progress.read(&object, n as u64),
                Err(Error::DigestMismatch { actual, .. }) => {
                    return Ok(Some(format!("its bytes have the digest {actual}")));
                }
                // A disk that cannot read a sector is damage, too.
                Err(e) => return Ok(Some(e.to_string())),
            }
        }
    }

    /// The blobs that records name.
    fn blobs_wanted(&self) -> Result<BTreeMap<Digest, Wanted>> {
        let mut wanted = BTreeMap::new();
        for blob in self.named_blobs()? {
            let words = "a document of an image".to_owned();
            wanted.insert(blob, Wanted { words, size: None, may_be_missing: false });
        }
        for (digest, layers) in self.compressed_forms()? {
            let Some((chain, layer)) = layers.first() else { continue };
            let Some(blob) = &layer.blob else { continue };
            let words = format!("the compressed form of layer {chain}");
            let may_be_missing = layers.iter().any(|(_, l)| l.blob.as_ref().is_some_and(|b| b.dropped));
            wanted.insert(digest, Wanted { words, size: Some(blob.size), may_be_missing });
        }
        Ok(wanted)
    }
}

/// Why a blob is wanted.
#[derive(Clone, Debug)]
struct Wanted {
    words: String,
    size: Option<u64>,
    may_be_missing: bool,
}
