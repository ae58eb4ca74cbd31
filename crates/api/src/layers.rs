//! Seeing into layers: an extension of our own, below `/longshore`.
//!
//! ```text
//! GET /longshore/images/{name}/layers                     ImageLayers
//! GET /longshore/images/{name}/which?path=&resolve=       Which
//! GET /longshore/containers/{name}/which?path=&resolve=   Which
//! GET /longshore/images/{name}/files?layer=N&dir=         LayerFile, one a line
//! GET /longshore/images/{name}/file?path=&layer=&offset=&limit=
//!                                                         the bytes; a header tells of the file (FileStat). With `layer`
//!                                                         the image is taken without the layers above that number
//! HEAD /longshore/images/{name}/file?path=&layer=         the header alone
//! GET /longshore/images/diff?from=&to=&content=           DiffLine, one a line
//! ```
//!
//! Layers are numbered from 1, the lowest first. Paths start with a slash. One that is not UTF-8 is given as `PathBytes`
//! too, in base64, and asked for with `path64=` instead of `path=`.

use serde::{Deserialize, Serialize};

use crate::is_default;

/// `GET /longshore/images/{name}/layers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ImageLayers {
    pub id: String,
    /// Bytes of the regular files of all layers.
    pub size: u64,
    /// Bytes that no container can see: a higher layer replaced or deleted the files.
    pub wasted: u64,
    /// The part of the bytes that is not wasted, from 0 to 1.
    pub efficiency: f64,
    /// The lowest first.
    pub layers: Vec<ImageLayer>,
}

/// A layer and what it does. What is no directory counts as a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ImageLayer {
    #[serde(flatten)]
    pub layer: LayerName,
    /// Bytes of its regular files.
    pub size: u64,
    pub wasted: u64,
    pub files_added: u64,
    pub files_changed: u64,
    pub files_deleted: u64,
    /// Directories made or given another look.
    pub directories: u64,
    /// Where its files lie on the daemon's host.
    pub directory: String,
    /// The compressed form, if one is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compressed: Option<CompressedLayer>,
}

/// Which layer, and the step that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct LayerName {
    pub number: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    /// Digest of it and all layers below.
    pub chain_id: String,
    pub cache_id: String,
    /// The step for people: without the words that builders add.
    pub step: String,
    /// The step as the image tells it.
    pub created_by: String,
    pub comment: String,
    /// Absent where the image does not tell.
    #[serde(skip_serializing_if = "is_default")]
    pub created: String,
}

/// A compressed layer in the content store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct CompressedLayer {
    pub digest: String,
    pub size: u64,
    pub media_type: String,
}

/// What a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct FileInfo {
    /// `file`, `dir`, `symlink`, `char`, `block`, `fifo` or `socket`.
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub size: u64,
    /// RFC 3339; absent where it is not known.
    #[serde(skip_serializing_if = "is_default")]
    pub mtime: String,
    /// Absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Of a symbolic link.
    #[serde(skip_serializing_if = "is_default")]
    pub link_target: String,
    /// Another name of the file in the same layer.
    #[serde(skip_serializing_if = "is_default")]
    pub hard_link: String,
    /// Of a device: major and minor number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
}

/// `GET /longshore/images/{name}/which` and `GET /longshore/containers/{name}/which`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Which {
    /// The image's id.
    pub image: String,
    /// The container's id, if one was asked about.
    #[serde(skip_serializing_if = "is_default")]
    pub container: String,
    /// The path that was found, after all links.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// The links that led there, in order.
    pub links: Vec<FollowedLink>,
    /// Whether it is there at last.
    pub exists: bool,
    /// Of a container: what is mounted over the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountedOver>,
    /// What happened to it, the last first.
    pub versions: Vec<Version>,
}

/// A link on the way to a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct FollowedLink {
    pub path: String,
    pub target: String,
}

/// A mount that hides what layers have there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct MountedOver {
    /// `bind`, `volume`, `tmpfs`, or `engine` for those of every container.
    #[serde(rename = "Type")]
    pub kind: String,
    pub destination: String,
    /// A volume's name or a path of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
}

/// One thing that happened to a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Version {
    /// `layer`; `container` for what it wrote itself; `init` for what every container has.
    pub place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerName>,
    /// `added`, `changed`, `deleted`, or `kept` for a directory that is as it was but for what is in it.
    pub change: String,
    /// Of a deletion: the path that was deleted, replaced or emptied.
    #[serde(skip_serializing_if = "is_default")]
    pub via: String,
    /// What it was from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileInfo>,
    /// Nothing older shows in the directory.
    #[serde(skip_serializing_if = "is_default")]
    pub opaque: bool,
    /// Entries that the layer has in the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
}

/// A line of `GET /longshore/images/{name}/files`: what is left out is 0, empty or unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct LayerFile {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// `A` added, `C` changed, `D` deleted, `K` kept: a directory that is as it was but for what is in it.
    pub change: String,
    /// As in [`FileInfo`]; absent for a deletion.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub size: u64,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "is_default")]
    pub mtime: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub gid: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub link_target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub hard_link: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Nothing of lower layers shows in the directory.
    #[serde(skip_serializing_if = "is_default")]
    pub opaque: bool,
    /// Number of the layer above that replaces or deletes it.
    #[serde(skip_serializing_if = "is_default")]
    pub hidden_by: u64,
}

/// A line of `GET /longshore/images/diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct DiffLine {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// `A` added, `C` changed, `D` deleted.
    pub change: String,
    /// What is different: `kind`, `content`, `mode`, `owner`, `mtime`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<FileInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<FileInfo>,
}

/// What the header of `GET /longshore/images/{name}/file` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct FileStat {
    /// Where it was found, after all links.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// Number of the layer that it lies in.
    pub layer: u64,
    pub file: FileInfo,
}

impl FileStat {
    /// The header's name.
    pub const HEADER: &'static str = "x-longshore-file-stat";

    /// The header's value: JSON in base64.
    #[must_use]
    pub fn to_header(&self) -> String {
        encode(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads the header's value; `None` when it is not what it should be.
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        crate::json::from_slice(&decode(value)?).ok()
    }
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// A path as `Path` and `PathBytes`: with a slash at its start, and its bytes if they are not UTF-8.
#[must_use]
pub fn path_out(path: &[u8]) -> (String, Option<String>) {
    let text = format!("/{}", String::from_utf8_lossy(path));
    (text, std::str::from_utf8(path).is_err().then(|| encode(&[b"/", path].concat())))
}

/// The bytes of `Path` and `PathBytes`, or of the parameters `path` and `path64`; `None` for base64 that is none.
#[must_use]
pub fn path_in(text: &str, bytes: Option<&str>) -> Option<Vec<u8>> {
    bytes.map_or_else(|| Some(text.as_bytes().to_vec()), decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_out_and_come_in() {
        for path in [&b"usr/bin"[..], b"", b"not\xffutf8"] {
            let (text, bytes) = path_out(path);
            assert_eq!(bytes.is_some(), path.contains(&0xff));
            assert_eq!(path_in(&text, bytes.as_deref()).as_deref(), Some(&[b"/", path].concat()[..]));
        }
        assert_eq!(path_in("x", Some("%")), None);
        let stat = FileStat { path: "/a".into(), layer: 3, ..FileStat::default() };
        assert_eq!(FileStat::from_header(&stat.to_header()), Some(stat));
        assert_eq!(FileStat::from_header("nonsense"), None);
    }

    #[test]
    fn a_line_says_only_what_there_is_to_say() {
        let line = LayerFile { path: "/a".into(), change: "D".into(), ..LayerFile::default() };
        assert_eq!(serde_json::to_string(&line).unwrap(), r#"{"Path":"/a","Change":"D"}"#);
    }
}
