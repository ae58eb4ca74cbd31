//! The build cache as it travels: which steps gave which layers, as a JSON document beside the layers in an artifact of
//! OCI's form. `docs/BUILD-CACHE.md` describes it. A document is read with suspicion: whoever wrote it may be anybody.

use std::collections::{BTreeMap, BTreeSet};

use longshore_oci::Digest;
use longshore_oci::image::{Descriptor, Manifest, media};
use longshore_store::archive::oci_type;
use serde::{Deserialize, Serialize};

use crate::solve::Outcome;

/// The artifact's type.
pub const ARTIFACT: &str = "application/vnd.longshore.build.cache.v1";
/// The media type of its document.
pub const DOCUMENT: &str = "application/vnd.longshore.build.cache.document.v1+json";
/// The version that is written and read.
pub const VERSION: u32 = 1;
/// Bytes that a document may have.
pub const MAX_DOCUMENT: u64 = 16 << 20;
/// Steps that a document may have.
const MAX_STEPS: usize = 10_000;
/// Layers and cache mounts that a document may have.
const MAX_LAYERS: usize = 10_000;
/// Keys that a step may have.
const MAX_KEYS: usize = 4;
/// Bytes of a step's description; what is longer is cut.
const MAX_WHAT: usize = 1024;

/// A document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// In the order of the build.
    pub steps: Vec<PortableStep>,
    /// Diff ids of the artifact's layers, in its order.
    pub layers: Vec<Digest>,
    /// Cache mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<PortableMount>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortableStep {
    /// What it is known by, the key that covers everything first.
    pub keys: Vec<Digest>,
    /// Digest of the tar of its layer; `None` for a step that changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// Bytes of the files in its layer.
    #[serde(default)]
    pub size: u64,
    /// When the newest file of its layer was changed, nanoseconds since 1970.
    #[serde(default)]
    pub newest: i64,
    /// What it was, for people.
    #[serde(default)]
    pub what: String,
}

/// A cache mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortableMount {
    /// Its name.
    pub name: String,
    /// Digest of the tar of what is in it: one of the document's layers.
    pub diff_id: Digest,
}

impl PortableStep {
    /// What a build got to know of a step.
    #[must_use]
    pub fn new(outcome: &Outcome, what: &str) -> Self {
        let mut end = what.len().min(MAX_WHAT);
        while !what.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            keys: outcome.keys.clone(),
            diff_id: outcome.diff_id,
            size: outcome.size,
            newest: outcome.newest,
            what: what.get(..end).unwrap_or_default().to_owned(),
        }
    }
}

impl Document {
    /// A document over steps and cache mounts; equal steps are there once.
    #[must_use]
    pub fn new(steps: Vec<PortableStep>, mounts: Vec<PortableMount>) -> Self {
        let mut known = BTreeSet::new();
        let steps: Vec<_> = steps
            .into_iter()
            .filter(|step| step.keys.first().is_some_and(|key| known.insert(*key)))
            .take(MAX_STEPS)
            .collect();
        let mut seen = BTreeSet::new();
        let layers = steps.iter().filter_map(|step| step.diff_id).chain(mounts.iter().map(|m| m.diff_id));
        let layers = layers.filter(|diff_id| seen.insert(*diff_id)).collect();
        Self { version: VERSION, steps, layers, mounts }
    }

    /// Its bytes: the same document, the same bytes.
    ///
    /// # Errors
    /// When it is larger than [`MAX_DOCUMENT`], or cannot be written; in words for people.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(self).map_err(|e| format!("write the cache's document: {e}"))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(format!("its document has {} bytes, at most {MAX_DOCUMENT} are read", bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads a document that lies beside `layers` layers; `None` for one within an image, whose layers it need not all name.
    ///
    /// # Errors
    /// For what is none, contradicts itself or passes a limit; in words for people.
    pub fn read(bytes: &[u8], layers: Option<usize>) -> Result<Self, String> {
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(format!("its document has {} bytes, at most {MAX_DOCUMENT} are read", bytes.len()));
        }
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let wrong = |e: serde_json::Error| format!("its document is not understood: {e}");
        let head: Head = serde_json::from_slice(bytes).map_err(wrong)?;
        if head.version != VERSION {
            return Err(format!("its document is of version {}, only {VERSION} is known", head.version));
        }
        let document: Self = serde_json::from_slice(bytes).map_err(wrong)?;
        document.check(layers)?;
        Ok(document)
    }

    fn check(&self, layers: Option<usize>) -> Result<(), String> {
        for (what, count, most) in [
            ("steps", self.steps.len(), MAX_STEPS),
            ("layers", self.layers.len(), MAX_LAYERS),
            ("cache mounts", self.mounts.len(), MAX_LAYERS),
        ] {
            if count > most {
                return Err(format!("it has {count} {what}, at most {most} are read"));
            }
        }
        if let Some(layers) = layers.filter(|layers| self.layers.len() != *layers) {
            return Err(format!("its document names {} layers, its manifest {layers}", self.layers.len()));
        }
        let there: BTreeSet<&Digest> = self.layers.iter().collect();
        let named = self.steps.iter().filter_map(|s| s.diff_id.as_ref());
        if let Some(none) =
            named.chain(self.mounts.iter().map(|m| &m.diff_id)).find(|diff_id| !there.contains(diff_id))
        {
            return Err(format!("it has no layer {none}, which a step of it gave"));
        }
        for step in &self.steps {
            if step.keys.is_empty() || step.keys.len() > MAX_KEYS || step.what.len() > MAX_WHAT {
                return Err("a step of it has no key, too many, or too long a name".into());
            }
        }
        Ok(())
    }
}

/// The manifest over a document and its layers, which come in the document's order.
#[must_use]
pub fn manifest(document: &[u8], layers: &[Descriptor]) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.to_owned()),
        artifact_type: Some(ARTIFACT.to_owned()),
        config: Descriptor::new(DOCUMENT, Digest::of(document), document.len() as u64),
        layers: layers.iter().map(|l| Descriptor::new(oci_type(&l.media_type), l.digest, l.size)).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn step(key: u8, layer: Option<u8>) -> PortableStep {
        PortableStep {
            keys: vec![digest(key)],
            diff_id: layer.map(digest),
            size: 1,
            newest: 2,
            what: "RUN x".into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mounts = vec![PortableMount { name: "m".into(), diff_id: digest(9) }];
        let all = vec![step(1, Some(7)), step(2, None), step(1, Some(7)), step(3, Some(7)), step(4, Some(8))];
        let document = Document::new(all, mounts);
        assert_eq!(document.steps.len(), 4, "equal steps are one");
        assert_eq!(document.layers, [digest(7), digest(8), digest(9)]);
        let bytes = document.to_bytes().unwrap();
        assert_eq!(Document::read(&bytes, Some(3)).unwrap(), document);
        assert_eq!(document.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let good = Document::new(vec![step(1, Some(7))], Vec::new());
        let check = |change: &dyn Fn(&mut Document), want: &str| {
            let mut bad = good.clone();
            change(&mut bad);
            let bytes = serde_json::to_vec(&bad).unwrap();
            let error = Document::read(&bytes, Some(1)).unwrap_err();
            assert!(error.contains(want), "{want}: {error}");
        };
        check(&|d| d.version = 2, "version 2");
        check(&|d| d.layers.clear(), "names 0 layers, its manifest 1");
        check(&|d| d.layers = vec![digest(8)], "has no layer");
        check(&|d| d.steps[0].keys.clear(), "no key");
        check(&|d| d.steps[0].keys = vec![digest(1); 5], "too many");
        check(&|d| d.steps[0].what = "x".repeat(MAX_WHAT + 1), "too long");
        check(&|d| d.steps = vec![step(1, None); MAX_STEPS + 1], "10001 steps");
        check(&|d| d.mounts = vec![PortableMount { name: "m".into(), diff_id: digest(9) }], "has no layer");
        assert!(Document::read(b"{", None).unwrap_err().contains("not understood"));
        assert!(Document::read(br#"{"version":1,"steps":[{"keys":["../x"]}],"layers":[]}"#, None).is_err());
        assert!(Document::read(&vec![b' '; 16 << 20 | 1], None).unwrap_err().contains("at most"));
    }

    #[test]
    fn long_names_are_cut() {
        let outcome = Outcome { chain: None, diff_id: None, size: 0, newest: 0, keys: vec![digest(1)] };
        let step = PortableStep::new(&outcome, &"ä".repeat(MAX_WHAT));
        assert_eq!(step.what, "ä".repeat(MAX_WHAT / 2));
    }
}
