//! Small images for a registry, made piece by piece.

use std::io::Write;

use longshore_oci::image::media;
use longshore_oci::{Digest, Platform};
use serde_json::{Value, json};

use super::{Blob, Document, Registry};

/// A layer: its tar, and the form that it has in a registry.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The bytes that the registry has.
    pub blob: Blob,
    /// Digest of the tar.
    pub diff_id: Digest,
    /// What the manifest says of it.
    pub media_type: String,
    /// Where else it is said to be.
    pub urls: Vec<String>,
}

impl Layer {
    /// A tar with these files.
    ///
    /// # Panics
    /// When a path does not fit into a tar.
    #[must_use]
    pub fn tar(files: &[(&str, &[u8])]) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            // As it is, also where it leads out of the tree.
            let name = header.as_old_mut().name.get_mut(..path.len()).expect("a short path");
            name.copy_from_slice(path.as_bytes());
            header.set_cksum();
            tar.append(&header, *bytes).expect("memory");
        }
        Self::of(tar.into_inner().expect("memory"))
    }

    /// A tar with one file of so many bytes that do not shrink much, and are not kept in memory.
    ///
    /// # Panics
    /// When the path does not fit into a tar.
    #[must_use]
    pub fn big(path: &str, size: u64) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).expect("a short path");
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        let padding = size.next_multiple_of(512) - size;
        Self::of(
            Blob::from(header.as_bytes().as_slice()).then_repeat(b'x', size).then_repeat(0, padding + 1024),
        )
    }

    /// These bytes as they are.
    #[must_use]
    pub fn of(tar: impl Into<Blob>) -> Self {
        let blob = tar.into();
        Self { diff_id: blob.digest(), blob, media_type: media::OCI_LAYER.into(), urls: Vec::new() }
    }

    /// In gzip.
    #[must_use]
    pub fn gzip(mut self) -> Self {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::copy(&mut self.blob.reader(0), &mut out).expect("memory");
        self.blob = out.finish().expect("memory").into();
        self.media_type = media::OCI_LAYER_GZIP.into();
        self
    }

    /// In zstd.
    #[must_use]
    pub fn zstd(mut self) -> Self {
        let mut out = zstd::Encoder::new(Vec::new(), 3).expect("encoder");
        std::io::copy(&mut self.blob.reader(0), &mut out).expect("memory");
        self.blob = out.finish().expect("memory").into();
        self.media_type = media::OCI_LAYER_ZSTD.into();
        self
    }

    /// With bytes of no meaning behind it.
    #[must_use]
    pub fn then(mut self, garbage: &[u8]) -> Self {
        self.blob = self.blob.then(garbage);
        self
    }

    /// With another media type.
    #[must_use]
    pub fn media_type(mut self, media_type: &str) -> Self {
        media_type.clone_into(&mut self.media_type);
        self
    }
}

/// An image that is being made.
#[derive(Clone, Debug)]
pub struct Image {
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The configuration; its diff ids are filled in unless they are there.
    pub config: Value,
    pub(super) docker: bool,
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

/// The digests of an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest.
    pub manifest: Digest,
    /// Of the configuration: the image's id.
    pub config: Digest,
    /// Of the layers as they are in the registry, lowest first.
    pub layers: Vec<Digest>,
}

impl Image {
    /// Without layers, for the platform that this runs on.
    #[must_use]
    pub fn new() -> Self {
        let host = Platform::host();
        let config = json!({
            "created": "2026-01-01T00:00:00Z",
            "architecture": host.architecture,
            "os": host.os,
            "config": {"Cmd": ["true"]},
        });
        Self { layers: Vec::new(), config, docker: false }
    }

    /// With a layer more.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// With another value in the configuration.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// With Docker's media types, as images of the years before OCI.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// The configuration's bytes.
    #[must_use]
    pub fn config_bytes(&self) -> Vec<u8> {
        let mut config = self.config.clone();
        if config.get("rootfs").is_none() {
            let diff_ids: Vec<String> = self.layers.iter().map(|l| l.diff_id.to_string()).collect();
            config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        }
        config.to_string().into_bytes()
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> Value {
        let config = self.config_bytes();
        let (manifest_type, config_type) = if self.docker {
            (media::DOCKER_MANIFEST, media::DOCKER_CONFIG)
        } else {
            (media::OCI_MANIFEST, media::OCI_CONFIG)
        };
        let layers: Vec<Value> = self.layers.iter().map(|l| self.descriptor(l)).collect();
        json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {"mediaType": config_type, "digest": Digest::of(&config).to_string(), "size": config.len()},
            "layers": layers,
        })
    }

    fn descriptor(&self, layer: &Layer) -> Value {
        let media_type = match layer.media_type.as_str() {
            media::OCI_LAYER_GZIP if self.docker => media::DOCKER_LAYER_GZIP,
            media::OCI_LAYER if self.docker => media::DOCKER_LAYER,
            other => other,
        };
        let digest = layer.blob.digest().to_string();
        let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": layer.blob.len()});
        if !layer.urls.is_empty() {
            descriptor["urls"] = json!(layer.urls);
        }
        descriptor
    }

    /// Puts the blobs there, but no manifest.
    pub fn put_blobs(&self, registry: &Registry, repo: &str) {
        registry.put_blob(repo, self.config_bytes());
        for layer in &self.layers {
            registry.put_blob(repo, layer.blob.clone());
        }
    }

    /// The image as `docker save` would write it, under these names.
    ///
    /// # Panics
    /// Never: memory can be written.
    #[must_use]
    pub fn archive(&self, names: &[&str]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        let mut member = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            out.append_data(&mut header, name, bytes).expect("memory");
        };
        let config = self.config_bytes();
        let config_name = format!("{}.json", Digest::of(&config).hex());
        member(&config_name, &config);
        let layers: Vec<String> = (0..self.layers.len()).map(|i| format!("{i}/layer.tar")).collect();
        for (name, layer) in layers.iter().zip(&self.layers) {
            member(name, &layer.blob.to_vec());
        }
        let manifest = json!([{"Config": config_name, "RepoTags": names, "Layers": layers}]);
        member("manifest.json", manifest.to_string().as_bytes());
        out.into_inner().expect("memory")
    }

    /// The manifest as a registry has it.
    #[must_use]
    pub fn document(&self) -> Document {
        let media_type = if self.docker { media::DOCKER_MANIFEST } else { media::OCI_MANIFEST };
        Document::new(media_type, self.manifest().to_string())
    }

    /// Puts the image there.
    pub fn put(&self, registry: &Registry, repo: &str, tag: &str) -> Pushed {
        self.put_blobs(registry, repo);
        Pushed {
            manifest: registry.put_manifest(repo, tag, self.document()),
            config: Digest::of(&self.config_bytes()),
            layers: self.layers.iter().map(|l| l.blob.digest()).collect(),
        }
    }
}

/// Puts an index of images there: for each, `os/architecture` and the manifest.
pub fn put_index(registry: &Registry, repo: &str, tag: &str, images: &[(&str, &str, &Pushed)]) -> Digest {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(os, architecture, pushed)| {
            let (_, document) =
                registry.manifest(repo, &pushed.manifest.to_string()).unwrap_or_else(|| unreachable!());
            json!({
                "mediaType": document.media_type,
                "digest": pushed.manifest.to_string(),
                "size": document.bytes.len(),
                "platform": {"os": os, "architecture": architecture},
            })
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
    registry.put_manifest(repo, tag, Document::new(media::OCI_INDEX, index.to_string()))
}

/// Bytes that do not shrink: every layer that a test makes of another `seed` is another.
#[must_use]
pub fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(n + 8);
    while out.len() < n {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).unwrap_or_default();
    }
    out.truncate(n);
    out
}
