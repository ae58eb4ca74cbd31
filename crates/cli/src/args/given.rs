//! What a build is given besides its files: secrets, agents of SSH, contexts with names.

use longshore_build::remote::parse_context;

use super::csv;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Secret {
    pub(crate) id: String,
    pub(crate) from: SecretFrom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretFrom {
    File(String),
    Variable(String),
}

impl Secret {
    /// `id=x[,type=file|env][,src=path][,env=name]`, as buildx reads it: without a source it is the variable of the
    /// secret's name if there is one, else the file.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (mut id, mut kind, mut file, mut env) = (String::new(), String::new(), None, None);
        for field in csv::fields(text)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "id" => value.clone_into(&mut id),
                "type" if matches!(value, "file" | "env") => value.clone_into(&mut kind),
                "type" => return Err(format!("unsupported secret type {value:?}")),
                "source" | "src" if kind == "env" => env = Some(value.to_owned()),
                "source" | "src" => file = Some(value.to_owned()),
                "env" => env = Some(value.to_owned()),
                key => return Err(format!("unexpected key '{key}' in '{field}'")),
            }
        }
        if id.is_empty() {
            return Err("a secret needs an id".into());
        }
        let from = match (file, env) {
            (Some(file), None) if kind == "env" => SecretFrom::Variable(file),
            (Some(file), None) => SecretFrom::File(file),
            (None, Some(env)) => SecretFrom::Variable(env),
            (None, None) if kind != "file" && std::env::var_os(&id).is_some() => {
                SecretFrom::Variable(id.clone())
            }
            (None, None) if kind == "env" => SecretFrom::Variable(id.clone()),
            (None, None) => SecretFrom::File(id.clone()),
            (Some(_), Some(_)) => return Err("a secret comes from a file or from a variable".into()),
        };
        Ok(Self { id, from })
    }
}

/// An agent of SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) id: String,
    /// Its socket, or keys that it shall have; none: that of this session.
    pub(crate) paths: Vec<String>,
}

impl Agent {
    /// `id[=socket|key[,key...]]`.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let (id, paths) = match text.split_once('=') {
            Some((id, paths)) => (id, paths.split(',').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        if id.is_empty() || paths.iter().any(String::is_empty) {
            return Err(format!("invalid ssh agent {text:?}: want default, id=socket or id=key"));
        }
        Ok(Self { id: id.to_owned(), paths })
    }
}

/// A context with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Additional {
    pub(crate) name: String,
    pub(crate) from: AdditionalFrom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdditionalFrom {
    Directory(String),
    Image(String),
    /// An image in OCI's layout, by its tag (`latest` where none is given) or digest.
    Layout {
        dir: String,
        tag: String,
        digest: Option<String>,
    },
    /// The daemon fetches it from this address.
    Remote(String),
}

impl Additional {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let bad = || format!("invalid context value: {text}, expected key=value");
        let (name, value) = text.split_once('=').ok_or_else(bad)?;
        if name.is_empty() || value.is_empty() {
            return Err(bad());
        }
        let from = match value.split_once("://") {
            Some(("docker-image", image)) => {
                image.parse::<longshore_oci::Reference>().map_err(|e| format!("context {name}: {e}"))?;
                AdditionalFrom::Image(image.to_owned())
            }
            Some(("oci-layout", place)) => layout(place).map_err(|e| format!("context {name}: {e}"))?,
            Some((kind @ ("target" | "input"), _)) => {
                return Err(format!(
                    "context {name}: contexts of the kind {kind}:// are not implemented yet"
                ));
            }
            _ if parse_context(value).map_err(|e| format!("context {name}: {e}"))?.is_some() => {
                AdditionalFrom::Remote(value.to_owned())
            }
            _ => AdditionalFrom::Directory(value.to_owned()),
        };
        Ok(Self { name: name.to_lowercase(), from })
    }
}

/// `path[:tag][@digest]`
fn layout(place: &str) -> Result<AdditionalFrom, String> {
    let (rest, digest) = match place.split_once('@') {
        Some((rest, digest)) => {
            digest.parse::<longshore_oci::Digest>().map_err(|e| e.to_string())?;
            (rest, Some(digest.to_owned()))
        }
        None => (place, None),
    };
    let (dir, tag) = match rest.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') => (dir, tag),
        _ => (rest, ""),
    };
    if dir.is_empty() {
        return Err("an oci-layout needs a path".into());
    }
    Ok(AdditionalFrom::Layout { dir: dir.to_owned(), tag: tag.to_owned(), digest })
}
