//! `RUN --mount=type=cache,target=/root/.cache`

use super::check::parse_bool;
use super::error::Hint;
use super::suggest::hint;

/// Keys that `--mount` has.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARING: [&str; 3] = ["shared", "private", "locked"];
/// Keys of one mount; there are not that many.
const MAX_FIELDS: usize = 100;

/// A mount as written. Its values may hold variables, so it is [resolved](Self::resolve) where these are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// As written, quotes of the flag removed.
    pub source: String,
    fields: Vec<Field>,
}

/// `key=value`, or a key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    /// In lower case.
    key: String,
    value: Option<String>,
}

/// A mount of one `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `type=`
    pub kind: MountKind,
    /// `from=`: a stage, a named context or an image; the build context where there is none, nothing for a cache.
    pub from: Option<String>,
    /// `source=`: a path below `from`; for a secret its name, as `id`. Empty if not given.
    pub source: String,
    /// `target=`: where it is mounted. Empty if not given.
    pub target: String,
    /// `readonly` or `readwrite`; a bind mount is read-only unless it says otherwise.
    pub read_only: bool,
    /// `required`: a missing secret or agent is an error.
    pub required: bool,
    /// `env=`: the variable in which a secret is passed.
    pub env: Option<String>,
    /// `id=`
    pub id: Option<String>,
    /// `sharing=` of a cache.
    pub sharing: Sharing,
    /// `mode=`, from octal digits.
    pub mode: Option<u32>,
    /// `uid=`
    pub uid: Option<u32>,
    /// `gid=`
    pub gid: Option<u32>,
    /// `size=` of a tmpfs in bytes.
    pub size: Option<u64>,
}

/// `type=`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// `sharing=`: who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Anyone.
    #[default]
    Shared,
    /// One at a time; another gets a cache of its own.
    Private,
    /// One at a time; another waits.
    Locked,
}

/// Why a mount is none; the words are Docker's where it has any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum MountError {
    #[error("mount {0:?} has a quote that is not closed or not at the start of a field")]
    Csv(String),
    #[error("mount {0:?} has more than {MAX_FIELDS} fields")]
    TooManyFields(String),
    #[error("invalid field '{0}' must be a key=value pair")]
    KeyOnly(String),
    #[error("unexpected key '{key}' in '{field}'{hint}")]
    Key { key: String, field: String, hint: Hint },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForType { key: &'static str, kind: &'static str },
    #[error("{key} not allowed for {kind:?} type mounts")]
    NotAllowed { key: &'static str, kind: &'static str },
    #[error("unsupported mount type {value:?}{hint}")]
    Type { value: String, hint: Hint },
    #[error("unsupported sharing value {value:?}{hint}")]
    Sharing { value: String, hint: Hint },
    #[error("invalid cache sharing set for {0} mount")]
    SharingFor(&'static str),
    #[error("invalid value for {key}: {value}")]
    Value { key: String, value: String },
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromExpansion,
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("invalid secret mount. one of source, target required")]
    SecretNothing,
    #[error("both source and id can't be set")]
    SecretBoth,
    /// A value cannot be expanded.
    #[error(transparent)]
    Expand(#[from] super::expand::ExpandError),
}

impl MountKind {
    /// As in `type=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

impl MountSpec {
    /// Reads the value of `--mount`. Values without variables are checked at once.
    ///
    /// # Errors
    /// For a text that is no mount.
    pub fn parse(text: &str) -> Result<Self, MountError> {
        let mut fields = Vec::new();
        for field in csv(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            fields.push(Field { key: key.to_ascii_lowercase(), value });
            if fields.len() > MAX_FIELDS {
                return Err(MountError::TooManyFields(short(text)));
            }
        }
        let spec = Self { source: text.to_owned(), fields };
        let expands = |v: &str| v.find('$').is_some_and(|at| at + 1 < v.len());
        if spec.from().is_some_and(expands) {
            return Err(MountError::FromExpansion);
        }
        if !spec.values().any(|v| v.contains(['$', '\\', '`', '"', '\''])) {
            spec.resolve(|v| Ok(v.to_owned()))?;
        }
        Ok(spec)
    }

    /// The value of `from`, which is never expanded.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        let from = self.fields.iter().rev().find(|f| f.key == "from");
        from.and_then(|f| f.value.as_deref()).filter(|v| !v.is_empty())
    }

    /// The values, as written: the words of this mount.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter_map(|f| f.value.as_deref())
    }

    /// With every value expanded by `expand`.
    ///
    /// # Errors
    /// For keys and values that there are not, and for those that do not go with the type.
    pub fn resolve<E>(&self, mut expand: E) -> Result<Mount, MountError>
    where
        E: FnMut(&str) -> Result<String, super::expand::ExpandError>,
    {
        let mut build = Builder::default();
        for field in &self.fields {
            match &field.value {
                Some(value) => build.pair(&field.key, &expand(value)?)?,
                None => build.key(&field.key)?,
            }
        }
        build.finish()
    }
}

#[derive(Debug, Default)]
struct Builder {
    kind: MountKind,
    from: Option<String>,
    source: String,
    target: String,
    read_only: Option<bool>,
    required: Option<bool>,
    env: Option<String>,
    id: Option<String>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
}

impl Builder {
    fn key(&mut self, key: &str) -> Result<(), MountError> {
        match key {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => self.required = Some(true),
            // An empty name is that of the secret.
            "env" => self.env = Some(String::new()),
            _ if KEYS.contains(&key) => return Err(MountError::KeyOnly(short(key))),
            _ => return Err(unexpected(key, key)),
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value: &str) -> Result<(), MountError> {
        let bad = || MountError::Value { key: key.to_owned(), value: short(value) };
        let boolean = || parse_bool(value).ok_or_else(bad);
        let number = |radix| {
            u32::from_str_radix(value, radix).ok().filter(|_| !value.starts_with('+')).ok_or_else(bad)
        };
        let some = || Some(value.to_owned()).filter(|v| !v.is_empty());
        match key {
            "type" => self.kind = kind(value)?,
            "from" => self.from = some(),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "readonly" | "ro" => self.read_only = Some(boolean()?),
            "readwrite" | "rw" => self.read_only = Some(!boolean()?),
            "required" => self.required = Some(boolean()?),
            "id" => self.id = some(),
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(value.to_owned()),
            "size" => self.size = Some(size(value).ok_or_else(bad)?),
            _ => return Err(unexpected(key, &format!("{key}={value}"))),
        }
        Ok(())
    }

    fn finish(self) -> Result<Mount, MountError> {
        let kind = self.kind.name();
        let secret = self.kind == MountKind::Secret;
        let only = |given: bool, key, ok: bool| {
            if given && !ok { Err(MountError::KeyForType { key, kind }) } else { Ok(()) }
        };
        only(self.required.is_some(), "required", secret || self.kind == MountKind::Ssh)?;
        only(self.size.is_some(), "size", self.kind == MountKind::Tmpfs)?;
        only(self.env.is_some(), "env", secret)?;
        let owned = secret || matches!(self.kind, MountKind::Ssh | MountKind::Cache);
        for (key, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
            if given.is_some() && !owned {
                return Err(MountError::NotAllowed { key, kind });
            }
        }
        if secret {
            if self.from.is_some() {
                return Err(MountError::SecretFrom);
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_none() {
                return Err(MountError::SecretNothing);
            }
            if !self.source.is_empty() && self.id.is_some() {
                return Err(MountError::SecretBoth);
            }
        }
        if self.sharing.is_some() && self.kind != MountKind::Cache {
            return Err(MountError::SharingFor(kind));
        }
        let read_only = !matches!(self.kind, MountKind::Cache | MountKind::Tmpfs);
        Ok(Mount {
            kind: self.kind,
            from: self.from,
            source: self.source,
            target: self.target,
            read_only: self.read_only.unwrap_or(read_only),
            required: self.required.unwrap_or_default(),
            env: self.env,
            id: self.id,
            sharing: self.sharing.unwrap_or_default(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            size: self.size,
        })
    }
}

fn kind(value: &str) -> Result<MountKind, MountError> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        _ => return Err(MountError::Type { value: short(value), hint: hint(value, TYPES) }),
    })
}

fn sharing(value: &str) -> Result<Sharing, MountError> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "shared" => Sharing::Shared,
        "private" => Sharing::Private,
        "locked" => Sharing::Locked,
        _ => return Err(MountError::Sharing { value: short(value), hint: hint(value, SHARING) }),
    })
}

fn unexpected(key: &str, field: &str) -> MountError {
    MountError::Key { key: short(key), field: short(field), hint: hint(key, KEYS) }
}

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

/// A size in bytes: `64m`, `1.5 GiB`; units are powers of 1024 (docker/go-units, `RAMInBytes`).
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let number: f64 = number.parse().ok()?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if !unit.contains('i') => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if !matches!(unit.get(unit.len().min(1)..), Some("" | "b" | "ib")) {
        return None;
    }
    let bytes = number * f64::from(2_u32).powi(shift);
    // Far below where a float or a kernel would give in.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..9e18).contains(&bytes).then_some(bytes as u64)
}

/// Comma-separated fields; one may be quoted, a quote in it doubled (RFC 4180).
pub(super) fn csv(text: &str) -> Result<Vec<String>, MountError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let bad = || MountError::Csv(short(text));
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut inner = quoted;
            loop {
                let (piece, after) = inner.split_once('"').ok_or_else(bad)?;
                field.push_str(piece);
                inner = after;
                match after.strip_prefix('"') {
                    Some(after) => {
                        field.push('"');
                        inner = after;
                    }
                    None => break,
                }
            }
            (field, inner)
        } else {
            let (field, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            if field.contains('"') {
                return Err(bad());
            }
            (field.to_owned(), after)
        };
        fields.push(field);
        if fields.len() > MAX_FIELDS {
            return Err(MountError::TooManyFields(short(text)));
        }
        if after.is_empty() {
            return Ok(fields);
        }
        rest = after.strip_prefix(',').ok_or_else(bad)?;
    }
}
