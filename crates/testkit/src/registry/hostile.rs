//! Images that an honest registry delivers to the byte, and that are not what they seem.

use std::io::Write;

use longshore_oci::image::media;
use longshore_oci::{Digest, Platform};
use serde_json::{Value, json};

use super::image::{Image, Layer, noise};
use super::{Blob, Document, Registry};

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hostile {
    // The manifest's form.
    NotJson,
    Empty,
    /// Valid, with five megabytes of annotations.
    FiveMegabytes,
    /// 100,000 arrays, one in the other.
    Deep,
    /// `layers` twice, the second time another.
    DuplicateKeys,
    WrongSchemaVersion,
    /// Docker's first schema, which is no more.
    SchemaOne,
    /// Both `layers` and `manifests`.
    ManifestAndIndex,
    NeitherManifestNorIndex,
    /// `Content-Type` says manifest, `mediaType` says index.
    TypesDiffer,
    UnknownManifestType,

    // An index.
    /// An index of an index of an index, a hundred deep.
    NestedIndexes,
    /// Windows and a processor that nobody has.
    NoSuchPlatform,
    /// Ten thousand entries, ours the last.
    TenThousandEntries,
    IndexSizeWrong,

    // What the manifest says of its blobs.
    UnknownLayerType,
    /// A layer that is not to be distributed, elsewhere. The address is the second argument of `put`.
    ForeignLayer,
    /// The same with an ordinary media type, and not in the registry.
    UrlsOnly,
    LayerSaidLonger,
    LayerSaidShorter,
    ConfigSaidShorter,
    NegativeSize,
    SizeBeyondIntegers,
    DigestIsPath,
    UnknownDigest,
    /// A layer that is nowhere.
    LayerMissing,
    /// Ten thousand times the same layer.
    TenThousandLayers,
    /// No image at all: its configuration is another thing.
    Artifact,

    // The configuration.
    ConfigNotJson,
    ConfigFiveMegabytes,
    ConfigWithoutRootfs,
    /// A diff id that is not the layer's.
    DiffIdWrong,
    DiffIdsTooMany,
    DiffIdsTooFew,

    // The layers.
    /// A quarter of a gigabyte in gzip, a thousandth of that on the wire: as much as gzip can.
    GzipBomb,
    /// Sixty-four gigabytes of zeros in zstd.
    ZstdBomb,
    GzipTrailingGarbage,
    GzipTruncated,
    /// A frame that wants a window of two gigabytes.
    ZstdHugeWindow,
    LayerNotTar,
    /// A file that leaves the tree.
    LayerEscapes,
}

impl Hostile {
    /// All of them.
    pub const ALL: [Self; 41] = [
        Self::NotJson,
        Self::Empty,
        Self::FiveMegabytes,
        Self::Deep,
        Self::DuplicateKeys,
        Self::WrongSchemaVersion,
        Self::SchemaOne,
        Self::ManifestAndIndex,
        Self::NeitherManifestNorIndex,
        Self::TypesDiffer,
        Self::UnknownManifestType,
        Self::NestedIndexes,
        Self::NoSuchPlatform,
        Self::TenThousandEntries,
        Self::IndexSizeWrong,
        Self::UnknownLayerType,
        Self::ForeignLayer,
        Self::UrlsOnly,
        Self::LayerSaidLonger,
        Self::LayerSaidShorter,
        Self::ConfigSaidShorter,
        Self::NegativeSize,
        Self::SizeBeyondIntegers,
        Self::DigestIsPath,
        Self::UnknownDigest,
        Self::LayerMissing,
        Self::TenThousandLayers,
        Self::Artifact,
        Self::ConfigNotJson,
        Self::ConfigFiveMegabytes,
        Self::ConfigWithoutRootfs,
        Self::DiffIdWrong,
        Self::DiffIdsTooMany,
        Self::DiffIdsTooFew,
        Self::GzipBomb,
        Self::ZstdBomb,
        Self::GzipTrailingGarbage,
        Self::GzipTruncated,
        Self::ZstdHugeWindow,
        Self::LayerNotTar,
        Self::LayerEscapes,
    ];

    /// Puts such an image there; `elsewhere` is the origin of another server, for those that name one.
    pub fn put(self, registry: &Registry, repo: &str, tag: &str, elsewhere: &str) -> Digest {
        let image = self.image(elsewhere);
        if self == Self::ConfigNotJson {
            registry.put_blob(repo, NO_CONFIG);
        }
        let plain = image.put(registry, repo, "");
        if matches!(self, Self::LayerMissing | Self::UrlsOnly | Self::ForeignLayer) {
            registry.forget_blob(repo, &plain.layers[0]);
        }
        let document = self.document(&image, registry, repo);
        registry.put_manifest(repo, tag, document)
    }

    fn image(self, elsewhere: &str) -> Image {
        let base = || Layer::tar(&[("file", &noise(self as u64, 5000))]);
        let layer = match self {
            Self::UnknownLayerType => base().media_type("application/vnd.example.layer.v9.cpio"),
            Self::ForeignLayer | Self::UrlsOnly => {
                let mut layer = base().gzip();
                layer.urls = vec![format!("{elsewhere}/layer")];
                if self == Self::ForeignLayer {
                    layer = layer.media_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
                }
                layer
            }
            Self::GzipBomb => Layer::big("zeros", 256 << 20).gzip(),
            Self::ZstdBomb => zstd_bomb(),
            Self::GzipTrailingGarbage => base().gzip().then(&noise(1, 1000)),
            Self::GzipTruncated => {
                let mut layer = base().gzip();
                layer.blob = layer.blob.slice(0, layer.blob.len() - 20);
                layer
            }
            Self::ZstdHugeWindow => {
                // RFC 8878, 3.1.1: a window of 2^31 bytes; a raw block.
                let mut layer = Layer::tar(&[("file", b"x")]);
                let tar = layer.blob.to_vec();
                let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 21 << 3];
                let block = u32::try_from(tar.len()).unwrap_or(u32::MAX) << 3 | 1;
                frame.extend_from_slice(&block.to_le_bytes()[..3]);
                frame.extend_from_slice(&tar);
                layer.blob = frame.into();
                layer.media_type(media::OCI_LAYER_ZSTD)
            }
            Self::LayerNotTar => Layer::of(noise(2, 4096)),
            Self::LayerEscapes => Layer::tar(&[("../../../../../../tmp/longshore-escaped", b"out")]).gzip(),
            _ => base().gzip(),
        };
        let image = Image::new().layer(layer);
        let diff_id = image.layers[0].diff_id.to_string();
        let rootfs = |ids: &[&str]| json!({"type": "layers", "diff_ids": ids});
        let other = Digest::of(b"another").to_string();
        match self {
            Self::ConfigFiveMegabytes => image.with("comment", "x".repeat(5 << 20).into()),
            Self::ConfigWithoutRootfs => image.with("rootfs", Value::Null),
            Self::DiffIdWrong => image.with("rootfs", rootfs(&[&other])),
            Self::DiffIdsTooMany => image.with("rootfs", rootfs(&[&diff_id, &other])),
            Self::DiffIdsTooFew => image.with("rootfs", rootfs(&[])),
            Self::TenThousandLayers => {
                let layer = image.layers[0].clone();
                Image { layers: vec![layer; 10_000], ..image }
            }
            _ => image,
        }
    }

    fn document(self, image: &Image, registry: &Registry, repo: &str) -> Document {
        let mut m = image.manifest();
        let mut media_type = media::OCI_MANIFEST.to_owned();
        match self {
            Self::NotJson => {
                return Document::new(media::OCI_MANIFEST, "<html>Log in to the hotel's network</html>");
            }
            Self::Empty => return Document::new(media::OCI_MANIFEST, ""),
            Self::Deep => {
                let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
                let text = m.to_string();
                return Document::new(media::OCI_MANIFEST, format!("{{\"deep\":{deep},{}", &text[1..]));
            }
            Self::DuplicateKeys => {
                let other = Image::new().layer(Layer::tar(&[("other", b"other")]));
                let layers = other.manifest()["layers"].to_string();
                let text = m.to_string();
                return Document::new(
                    media::OCI_MANIFEST,
                    format!("{},\"layers\":{layers}}}", &text[..text.len() - 1]),
                );
            }
            Self::SchemaOne => return schema_one(),
            Self::NestedIndexes => return nested(image, registry, repo),
            Self::NoSuchPlatform | Self::TenThousandEntries | Self::IndexSizeWrong => {
                return index(self, &image.document());
            }
            Self::FiveMegabytes => m["annotations"] = json!({"long": "x".repeat(5 << 20)}),
            Self::WrongSchemaVersion => m["schemaVersion"] = 7.into(),
            Self::ManifestAndIndex => {
                m["manifests"] = json!([descriptor(media::OCI_MANIFEST, &image.document().bytes)]);
            }
            Self::NeitherManifestNorIndex => {
                m = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST})
            }
            Self::TypesDiffer => m["mediaType"] = media::OCI_INDEX.into(),
            Self::UnknownManifestType => {
                media_type = "application/vnd.example.manifest.v9+json".into();
                m["mediaType"] = media_type.clone().into();
            }
            Self::LayerSaidLonger => resize(&mut m["layers"][0], 1000),
            Self::LayerSaidShorter => resize(&mut m["layers"][0], -1000),
            Self::ConfigSaidShorter => resize(&mut m["config"], -10),
            Self::NegativeSize => m["layers"][0]["size"] = (-1).into(),
            Self::SizeBeyondIntegers => m["layers"][0]["size"] = 1e30.into(),
            Self::DigestIsPath => m["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into(),
            Self::UnknownDigest => m["layers"][0]["digest"] = format!("md5:{}", "0".repeat(32)).into(),
            Self::Artifact => {
                m["artifactType"] = "application/vnd.example.chart".into();
                m["config"]["mediaType"] = "application/vnd.example.chart.config.v1+json".into();
                m["layers"][0]["mediaType"] = "application/vnd.example.chart.content.v1".into();
            }
            Self::ConfigNotJson => m["config"] = descriptor(media::OCI_CONFIG, NO_CONFIG),
            _ => {}
        }
        Document::new(&media_type, m.to_string())
    }
}

const NO_CONFIG: &[u8] = b"\x7fELF, and not a configuration";

fn resize(descriptor: &mut Value, by: i64) {
    let size = descriptor["size"].as_i64().unwrap_or_default();
    descriptor["size"] = (size + by).into();
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

fn schema_one() -> Document {
    let history = json!({"v1Compatibility": "{\"id\":\"0\",\"os\":\"linux\"}"});
    let blob = Digest::of(b"").to_string();
    let body = json!({
        "schemaVersion": 1, "name": "old", "tag": "latest", "architecture": "amd64",
        "fsLayers": [{"blobSum": blob}], "history": [history], "signatures": [],
    });
    Document::new("application/vnd.docker.distribution.manifest.v1+prettyjws", body.to_string())
}

/// An index of one entry of an index of one entry; in the end there is the image.
fn nested(image: &Image, registry: &Registry, repo: &str) -> Document {
    let mut inner = image.document();
    for _ in 0..100 {
        registry.put_manifest(repo, "", inner.clone());
        let host = Platform::host();
        let mut entry = descriptor(&inner.media_type, &inner.bytes);
        entry["platform"] = json!({"os": host.os, "architecture": host.architecture});
        let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [entry]});
        inner = Document::new(media::OCI_INDEX, index.to_string());
    }
    inner
}

fn index(of: Hostile, image: &Document) -> Document {
    let entry = |os: &str, architecture: &str| {
        let mut entry = descriptor(media::OCI_MANIFEST, &image.bytes);
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entry
    };
    let host = Platform::host();
    let mut own = entry(&host.os, &host.architecture);
    let manifests = match of {
        Hostile::NoSuchPlatform => vec![entry("windows", "amd64"), entry("linux", "z80")],
        Hostile::IndexSizeWrong => {
            resize(&mut own, -1);
            vec![own]
        }
        _ => (0..9999).map(|i| entry("linux", &format!("z{i}"))).chain([own]).collect(),
    };
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
    Document::new(media::OCI_INDEX, index.to_string())
}

/// A frame of which every megabyte is the same few bytes: made once, and repeated.
fn zstd_bomb() -> Layer {
    const SIZE: u64 = 64 << 30;
    const PIECE: usize = 64 << 20;
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(SIZE);
    header.as_old_mut().name[..5].copy_from_slice(b"zeros");
    header.set_cksum();
    let frame = |bytes: &[u8]| {
        let mut out = zstd::Encoder::new(Vec::new(), 3).unwrap_or_else(|_| unreachable!());
        out.write_all(bytes).unwrap_or_default();
        out.finish().unwrap_or_default()
    };
    let mut bytes = frame(header.as_bytes());
    let piece = frame(&vec![0; PIECE]);
    for _ in 0..SIZE / PIECE as u64 {
        bytes.extend_from_slice(&piece);
    }
    bytes.extend_from_slice(&frame(&[0; 1024]));
    // Nobody gets as far as to see that the diff id is not its own.
    let blob = Blob::from(bytes);
    Layer { diff_id: blob.digest(), blob, media_type: media::OCI_LAYER_ZSTD.into(), urls: Vec::new() }
}
