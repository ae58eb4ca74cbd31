//! Manifests and indexes as they come from a registry: what they are is said twice, and both must agree.

use std::collections::BTreeMap;

use longshore_oci::image::{Index, Manifest, media};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::printable;
use crate::{Error, Result};

/// Docker's layer in zstd, written by nobody but read by containerd.
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker's manifests of old: signed, and with layers named by their contents only.
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
/// Types that say nothing, from servers that keep manifests as files.
const VAGUE: [&str; 4] = ["", "application/json", "application/octet-stream", "text/plain"];
/// More layers than this are refused; no snapshot driver stacks as many.
const MAX_LAYERS: usize = 1000;

/// A document that a tag or a digest can name.
#[allow(clippy::large_enum_variant)] // There is one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image, or one artifact.
    Manifest(Manifest),
    /// Several, for the platforms.
    Index(Index),
}

/// What `Accept` says when a manifest is asked for.
pub(crate) const ACCEPT: [&str; 4] =
    [media::OCI_INDEX, media::DOCKER_LIST, media::OCI_MANIFEST, media::DOCKER_MANIFEST];

impl Document {
    /// Reads `bytes` that came with the header `content_type`; gives the document and its media type.
    ///
    /// The body's `mediaType`, if it has one, and the header must agree, and the body must have that form: a
    /// document that is a manifest to one reader and an index to another is refused (CVE-2021-41190).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for schema 1 and other types, [`Error::Corrupt`] for the rest.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<(Self, String)> {
        let header = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let header = header.to_ascii_lowercase();
        let shape = Shape::of(bytes)?;
        if SCHEMA_1.contains(&header.as_str()) || shape.schema_version == 1 || shape.has("fsLayers") {
            return Err(Error::Unsupported(
                "Docker image manifest version 2, schema 1 is not supported: push the image again with a current \
                 engine, which writes schema 2 or OCI manifests"
                    .into(),
            ));
        }
        let media_type = shape.media_type(&header)?;
        let document = match media_type.as_str() {
            media::OCI_INDEX | media::DOCKER_LIST => Self::Index(typed(bytes)?),
            _ => Self::Manifest(typed(bytes)?),
        };
        Ok((document, media_type))
    }
}

fn typed<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::Corrupt(format!("the manifest is not valid: {e}")))
}

/// The top of a document, before it is known what it is.
struct Shape {
    keys: BTreeMap<String, IgnoredAny>,
    schema_version: u64,
    media_type: Option<String>,
}

impl Shape {
    fn of(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            schema_version: u64,
            media_type: Option<String>,
        }
        let keys: BTreeMap<String, IgnoredAny> = typed(bytes)?;
        let head: Head = typed(bytes)?;
        let media_type = head.media_type.filter(|t| !t.is_empty());
        let shape = Self { keys, schema_version: head.schema_version, media_type };
        shape.unambiguous()?;
        Ok(shape)
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Go's readers ignore the case of keys, so `Layers` beside `layers` would be two documents in one.
    fn unambiguous(&self) -> Result<()> {
        const KNOWN: [&str; 8] = [
            "schemaVersion",
            "mediaType",
            "config",
            "layers",
            "manifests",
            "subject",
            "artifactType",
            "fsLayers",
        ];
        for key in self.keys.keys() {
            if KNOWN.iter().any(|known| key.eq_ignore_ascii_case(known) && key != known) {
                return Err(Error::Corrupt(format!("the manifest is ambiguous: key {:?}", printable(key))));
            }
        }
        let manifest = self.has("layers") || self.has("config");
        if self.has("manifests") && (manifest || self.has("fsLayers")) {
            return Err(Error::Corrupt("the manifest is ambiguous: it has both manifests and layers".into()));
        }
        if self.schema_version > 2 {
            return Err(Error::Unsupported(format!(
                "manifests of schema {} are not supported",
                self.schema_version
            )));
        }
        Ok(())
    }

    /// The one type that header, body and form agree on.
    fn media_type(&self, header: &str) -> Result<String> {
        let vague = VAGUE.contains(&header);
        let said = match (&self.media_type, vague) {
            (Some(body), false) if body != header => {
                return Err(Error::Corrupt(format!(
                    "the manifest says it is {:?}, and the registry says it is {:?}",
                    printable(body),
                    printable(header)
                )));
            }
            (Some(body), _) => body.as_str(),
            (None, false) => header,
            (None, true) if self.has("manifests") => media::OCI_INDEX,
            (None, true) => media::OCI_MANIFEST,
        };
        let fits = match said {
            media::OCI_INDEX | media::DOCKER_LIST => self.has("manifests"),
            media::OCI_MANIFEST | media::DOCKER_MANIFEST => self.has("config") && self.has("layers"),
            other if SCHEMA_1.contains(&other) => false,
            other => return Err(Error::Unsupported(format!("unsupported media type {}", printable(other)))),
        };
        if !fits {
            return Err(Error::Corrupt(format!(
                "the manifest is not what it says it is, {}",
                printable(said)
            )));
        }
        Ok(said.to_owned())
    }
}

/// Whether `manifest` is an image whose layers can be unpacked here.
///
/// # Errors
/// [`Error::Unsupported`] naming what it is instead: an artifact, a layer that lies elsewhere, an encrypted layer.
/// [`Error::TooLarge`] for too many layers.
pub fn check_image(manifest: &Manifest) -> Result<()> {
    /// The last four are what old registries made of Docker's own type (docker/distribution#1621).
    const CONFIGS: [&str; 6] = [
        media::OCI_CONFIG,
        media::DOCKER_CONFIG,
        "",
        "application/json",
        "application/octet-stream",
        "text/html",
    ];
    let config = manifest.config.media_type.as_str();
    let artifact = manifest.artifact_type.as_deref().filter(|t| !t.is_empty());
    if !CONFIGS.contains(&config) {
        return Err(Error::Unsupported(format!(
            "unsupported media type {}: this is an artifact and no image",
            printable(artifact.unwrap_or(config))
        )));
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(Error::TooLarge(format!(
            "the image has {} layers; at most {MAX_LAYERS} are supported",
            manifest.layers.len()
        )));
    }
    manifest.layers.iter().try_for_each(|layer| check_layer(&layer.media_type))
}

/// Whether layers of this media type can be unpacked here.
///
/// # Errors
/// [`Error::Unsupported`] naming what it is instead.
pub fn check_layer(media_type: &str) -> Result<()> {
    const KNOWN: [&str; 6] = [
        media::OCI_LAYER,
        media::OCI_LAYER_GZIP,
        media::OCI_LAYER_ZSTD,
        media::DOCKER_LAYER,
        media::DOCKER_LAYER_GZIP,
        DOCKER_LAYER_ZSTD,
    ];
    if KNOWN.contains(&media_type) {
        return Ok(());
    }
    let why = if media_type.ends_with("+encrypted") {
        "the layer is encrypted, which is not supported"
    } else if media_type.contains(".nondistributable.") || media_type.contains(".foreign.") {
        "the layer is not in the registry but at an address of its own; such layers are not fetched"
    } else {
        "this is no layer of an image"
    };
    Err(Error::Unsupported(format!("unsupported media type {}: {why}", printable(media_type))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2}"#;

    fn manifest(extra: &str) -> String {
        format!(r#"{{"schemaVersion":2,{extra}"config":{D},"layers":[{D}]}}"#)
    }

    fn index(extra: &str) -> String {
        format!(r#"{{"schemaVersion":2,{extra}"manifests":[{D}]}}"#)
    }

    #[test]
    fn types_come_from_header_or_body() {
        let parse = |text: &str, header| Document::parse(text.as_bytes(), header).map(|(_, t)| t);
        assert_eq!(parse(&manifest(""), Some(media::OCI_MANIFEST)).unwrap(), media::OCI_MANIFEST);
        assert_eq!(
            parse(&manifest(""), Some("application/json; charset=utf-8")).unwrap(),
            media::OCI_MANIFEST
        );
        assert_eq!(parse(&index(""), None).unwrap(), media::OCI_INDEX);
        let docker = format!(r#""mediaType":"{}","#, media::DOCKER_LIST);
        assert_eq!(parse(&index(&docker), Some("text/plain")).unwrap(), media::DOCKER_LIST);
    }

    #[test]
    fn atk_23_a_document_that_is_two_things_is_refused() {
        let corrupt = |text: &str, header| {
            let e = Document::parse(text.as_bytes(), header).unwrap_err();
            assert!(matches!(e, Error::Corrupt(_)), "{text}: {e}");
        };
        let says = |t: &str| format!(r#""mediaType":"{t}","#);
        corrupt(&manifest(&says(media::OCI_MANIFEST)), Some(media::OCI_INDEX));
        corrupt(&manifest(&says(media::OCI_MANIFEST)), Some(media::DOCKER_MANIFEST));
        corrupt(&manifest(""), Some(media::OCI_INDEX));
        corrupt(&index(""), Some(media::OCI_MANIFEST));
        corrupt(&index(&says(media::OCI_MANIFEST)), None);
        corrupt(&manifest(r#""manifests":[],"#), Some(media::OCI_MANIFEST));
        corrupt(&index(r#""layers":[],"#), Some(media::OCI_INDEX));
        corrupt(&index(r#""Layers":[],"#), Some(media::OCI_INDEX));
        corrupt(&manifest(r#""layers":[],"#), Some(media::OCI_MANIFEST));
        corrupt("[]", None);
        corrupt("", None);
        corrupt(&"[".repeat(100_000), None);
    }

    #[test]
    fn schema_1_is_refused_by_name() {
        for (text, header) in [
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#,
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            ),
            (r#"{"schemaVersion":1,"name":"x"}"#, Some("application/json")),
        ] {
            let e = Document::parse(text.as_bytes(), header).unwrap_err();
            assert!(e.to_string().contains("schema 1 is not supported"), "{e}");
        }
        let e = Document::parse(manifest("").as_bytes(), Some("application/x-other")).unwrap_err();
        assert_eq!(e.to_string(), "unsupported media type application/x-other");
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let with = |config: &str, layer: &str| {
            let (Document::Manifest(mut m), _) = Document::parse(manifest("").as_bytes(), None).unwrap()
            else {
                panic!("no manifest")
            };
            m.config.media_type = config.into();
            m.layers[0].media_type = layer.into();
            check_image(&m).map_err(|e| e.to_string())
        };
        assert_eq!(with(media::OCI_CONFIG, media::OCI_LAYER_ZSTD), Ok(()));
        assert_eq!(with(media::DOCKER_CONFIG, media::DOCKER_LAYER_GZIP), Ok(()));
        let refused = |config: &str, layer: &str, word: &str| {
            let text = with(config, layer).unwrap_err();
            assert!(text.contains(word), "{text}");
        };
        refused("application/vnd.cncf.helm.config.v1+json", media::OCI_LAYER, "artifact");
        refused(
            media::OCI_CONFIG,
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "not in the registry",
        );
        refused(
            media::OCI_CONFIG,
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "not in the registry",
        );
        refused(media::OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted");
        refused(media::OCI_CONFIG, "text/html", "no layer");
    }
}
