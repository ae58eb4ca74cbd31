//! Credentials in the client's `config.json`: `auths`, `credsStore` and `credHelpers`. Everything else in the file, and
//! the order of its keys, stays as it is.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize as _};
use serde_json::{Map, Value};

use super::{Credentials, hostname};

/// Largest file that is read.
const MAX_FILE: u64 = 16 << 20;
/// How long another program that writes the file is waited for.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Most symbolic links that lead to the file, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Go's decoder does not mind bits that nothing needs.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// An entry of `auths`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    email: String,
    identitytoken: String,
    registrytoken: String,
}

/// What of an entry is written anew when its credentials change.
const REPLACED: &[&str] =
    &["auth", "username", "password", "serveraddress", "email", "identitytoken", "registrytoken"];

/// Reads the text of a `config.json`. One without any is an empty one.
///
/// # Errors
/// What is wrong with it, in docker's words.
pub fn parse(text: &[u8]) -> Result<Value, String> {
    let empty = || Value::Object(Map::new());
    let read = match serde_json::Deserializer::from_slice(text).into_iter::<Value>().next() {
        None => return Ok(empty()),
        Some(read) => read,
    };
    match read {
        Ok(Value::Null) => Ok(empty()),
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(other) => Err(format!(
            "json: cannot unmarshal {} into Go value of type configfile.ConfigFile",
            kind(&other)
        )),
        Err(e) => {
            let words = longshore_api::json::Node::parse(text).err();
            Err(words.map_or_else(|| e.to_string(), |e| e.to_string()))
        }
    }
}

/// The text of a file with these settings, laid out as docker does.
#[must_use]
pub fn text(config: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    // Writing into memory does not fail.
    let _ = config.serialize(&mut serde_json::Serializer::with_formatter(&mut out, layout));
    out
}

/// What Go calls a value that is of no use.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Null | Value::Object(_) => "object",
    }
}

/// A member, whose name is found without regard to case where it is not there exactly, as in Go.
fn member<'a>(config: &'a Value, name: &str) -> Option<(&'a str, &'a Value)> {
    let map = config.as_object()?;
    let exact = map.get_key_value(name);
    let found = exact.or_else(|| map.iter().rfind(|(k, _)| k.eq_ignore_ascii_case(name)));
    found.map(|(k, v)| (k.as_str(), v))
}

fn entries(config: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let auths = member(config, "auths").and_then(|(_, v)| v.as_object());
    auths.into_iter().flatten().map(|(k, v)| (k.as_str(), v))
}

fn read_entry(server: &str, entry: &Value) -> Result<Credentials, String> {
    let entry: Entry =
        longshore_api::json::from_slice(entry.to_string().as_bytes()).map_err(|e| e.to_string())?;
    let (username, password) = match entry.auth.as_str() {
        "" => (entry.username, entry.password),
        auth => decode(auth)?,
    };
    Ok(Credentials {
        username,
        password,
        email: entry.email,
        server: server.to_owned(),
        identity_token: entry.identitytoken,
        registry_token: entry.registrytoken,
    })
}

/// Name and password in an entry's `auth`.
fn decode(auth: &str) -> Result<(String, String), String> {
    let text: Vec<u8> = auth.bytes().filter(|b| !b"\r\n".contains(b)).collect();
    let decoded = BASE64.decode(&text).map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            _ => text.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })?;
    let decoded = String::from_utf8_lossy(&decoded);
    match decoded.split_once(':') {
        Some((name, password)) if !name.is_empty() => {
            Ok((name.to_owned(), password.trim_matches('\0').to_owned()))
        }
        _ => Err("Invalid auth configuration file".into()),
    }
}

/// The first entry that cannot be read, and why.
#[must_use]
pub fn first_error(config: &Value) -> Option<String> {
    match member(config, "auths") {
        Some((_, v)) if !v.is_null() && !v.is_object() => {
            return Some(format!(
                "json: cannot unmarshal {} into Go struct field ConfigFile.auths of type map[string]types.AuthConfig",
                kind(v)
            ));
        }
        _ => {}
    }
    entries(config).find_map(|(server, entry)| read_entry(server, entry).err())
}

/// The names of the registries with an entry.
#[must_use]
pub fn servers(config: &Value) -> Vec<String> {
    entries(config).map(|(server, _)| server.to_owned()).collect()
}

/// The names of the registries whose credentials another program keeps.
#[must_use]
pub fn helped(config: &Value) -> Vec<String> {
    let own = member(config, "credHelpers").and_then(|(_, v)| v.as_object());
    own.into_iter().flatten().map(|(server, _)| server.clone()).collect()
}

/// Credentials of a registry: those under its name, else under a URL of it, as they were written of old. An entry that
/// cannot be read is none.
#[must_use]
pub fn get(config: &Value, server: &str) -> Option<Credentials> {
    let found = entries(config)
        .find(|(name, _)| *name == server)
        .or_else(|| entries(config).find(|(name, _)| hostname(name) == server));
    found.and_then(|(name, entry)| read_entry(name, entry).ok())
}

/// Whether the file names registries or a program that keeps them; otherwise a program is looked for.
#[must_use]
pub fn contains_credentials(config: &Value) -> bool {
    let filled =
        |name: &str| member(config, name).and_then(|(_, v)| v.as_object()).is_some_and(|map| !map.is_empty());
    store(config).is_some() || filled("credHelpers") || filled("auths")
}

fn store(config: &Value) -> Option<&str> {
    member(config, "credsStore").and_then(|(_, v)| v.as_str()).filter(|s| !s.is_empty())
}

/// The program that keeps a registry's credentials: its own of `credHelpers`, else that of `credsStore`. An empty own
/// one means this file.
#[must_use]
pub fn helper<'a>(config: &'a Value, server: &str) -> Option<&'a str> {
    let own = member(config, "credHelpers").and_then(|(_, v)| v.as_object()?.get(server)?.as_str());
    match own.filter(|_| !server.is_empty()) {
        Some(own) => Some(own).filter(|h| !h.is_empty()),
        None => store(config),
    }
}

/// Puts a registry's credentials in place of what was under that name; says whether anything changed.
pub fn put(config: &mut Value, credentials: &Credentials) -> bool {
    let server = credentials.server.as_str();
    let old = entries(config).find(|(name, _)| *name == server).map(|(name, entry)| read_entry(name, entry));
    if old == Some(Ok(credentials.clone())) {
        return false;
    }
    let Some(auths) = auths(config) else { return false };
    let entry = auths.entry(server).or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    let Value::Object(entry) = entry else { return false };
    entry.retain(|key, _| !REPLACED.iter().any(|r| key.eq_ignore_ascii_case(r)));
    let basic = match (credentials.username.as_str(), credentials.password.as_str()) {
        ("", "") => String::new(),
        (name, password) => BASE64.encode(format!("{name}:{password}")),
    };
    for (key, value) in [
        ("auth", &basic),
        ("email", &credentials.email),
        ("identitytoken", &credentials.identity_token),
        ("registrytoken", &credentials.registry_token),
    ] {
        if !value.is_empty() {
            entry.insert(key.to_owned(), Value::from(value.as_str()));
        }
    }
    true
}

/// Removes what is under a name; says whether there was anything.
pub fn remove(config: &mut Value, server: &str) -> bool {
    if !entries(config).any(|(name, _)| name == server) {
        return false;
    }
    auths(config).is_some_and(|auths| auths.shift_remove(server).is_some())
}

/// Names the program that keeps all credentials, where the file names none.
pub fn set_store(config: &mut Value, suffix: &str) -> bool {
    if store(config) == Some(suffix) {
        return false;
    }
    let Value::Object(map) = config else { return false };
    map.insert("credsStore".into(), Value::from(suffix));
    true
}

/// `auths` of a file, made if it is not there.
fn auths(config: &mut Value) -> Option<&mut Map<String, Value>> {
    let key = member(config, "auths").map_or_else(|| "auths".to_owned(), |(key, _)| key.to_owned());
    let Value::Object(map) = config else { return None };
    let auths = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !auths.is_object() {
        *auths = Value::Object(Map::new());
    }
    auths.as_object_mut()
}

/// Reads a file to its end, if there is one.
///
/// # Errors
/// What is wrong, with the file's name.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let failed = |e: &io::Error| format!("open {}: {}", path.display(), crate::error::words(e));
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| failed(&e))?,
    };
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(|e| failed(&e))?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("{} is larger than {MAX_FILE} bytes", path.display()));
    }
    Ok(Some(text))
}

/// Changes a file: reads it as it is now, lets `edit` change the settings, and puts the result in its place in one
/// step. Nothing is written where `edit` says that nothing changed. Says whether something did.
///
/// A symbolic link stays; the file behind it is replaced, and made where the link leads nowhere yet. The file is for
/// its owner alone, whoever could read it before: it holds passwords.
///
/// # Errors
/// Among others when the file cannot be read as JSON: it is not thrown away for that.
pub(crate) fn update(path: &Path, edit: impl Fn(&mut Value) -> bool) -> Result<bool, String> {
    let target = resolve(path).map_err(|e| format!("{}: {}", path.display(), crate::error::words(&e)))?;
    let edited = || {
        let before = read(&target)?.unwrap_or_default();
        let mut config =
            parse(&before).map_err(|e| format!("parsing config file ({}): {e}", path.display()))?;
        Ok::<_, String>(edit(&mut config).then_some(config))
    };
    if edited()?.is_none() {
        return Ok(false);
    }
    let dir = target.parent().unwrap_or(Path::new("/"));
    let failed = |e: &io::Error| format!("write {}: {}", target.display(), crate::error::words(e));
    make_private(dir).map_err(|e| failed(&e))?;
    let _lock = lock(dir);
    // Another may have written it before the lock was ours.
    let Some(config) = edited()? else { return Ok(false) };
    replace(dir, &target, &text(&config)).map_err(|e| failed(&e))?;
    Ok(true)
}

/// Makes a folder for its owner alone.
fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Where a path leads, also where nothing is there yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("/")).join(to),
            // No link: a file, or nothing.
            Err(e) if [io::ErrorKind::InvalidInput, io::ErrorKind::NotFound].contains(&e.kind()) => {
                return Ok(path);
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Keeps other writers of our kind away until it is dropped, so that two logins at once are both kept. Where that does
/// not work, or takes too long, it goes on without, as docker does.
fn lock(dir: &Path) -> Option<File> {
    let folder = File::open(dir).ok()?;
    let end = Instant::now() + MAX_WAIT;
    loop {
        match rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => return None,
        }
    }
}

/// Puts a file in the place of another; a failure leaves that one as it was.
fn replace(dir: &Path, target: &Path, text: &[u8]) -> io::Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = dir.join(format!("{name}.{}", std::process::id()));
    let written = (|| {
        // One of the same name was left behind by a process that is gone.
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        if let Ok(old) = fs::metadata(target)
            && old.uid() > 0
            && old.gid() > 0
        {
            // With sudo the file stays its user's; who may not do that owns it anyway.
            let _ = std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.sync_all()?;
        fs::rename(&temporary, target)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(server: &str, name: &str, password: &str) -> Credentials {
        Credentials {
            server: server.into(),
            username: name.into(),
            password: password.into(),
            ..Credentials::default()
        }
    }

    #[test]
    fn entries_are_read_as_docker_reads_them() {
        let config = json!({"Auths": {
            "a": {"auth": "YW5uOnMzY3JldDp3b3Jk"},
            "https://b:5000/v1/": {"username": "u", "password": "p", "email": "e"},
            "c": {"auth": "dTo=", "identitytoken": "t", "more": 1},
            "bad": {"auth": "!"},
            "nobody": {"auth": "OnA="},
            "odd": 5,
        }});
        assert_eq!(get(&config, "a").unwrap(), of("a", "ann", "s3cret:word"));
        assert_eq!(
            get(&config, "b:5000").unwrap(),
            Credentials { email: "e".into(), ..of("https://b:5000/v1/", "u", "p") }
        );
        assert_eq!(
            get(&config, "c").unwrap(),
            Credentials { identity_token: "t".into(), ..of("c", "u", "") }
        );
        for none in ["bad", "nobody", "odd", "d", ""] {
            assert_eq!(get(&config, none), None, "{none}");
        }
        assert_eq!(first_error(&config).unwrap(), "illegal base64 data at input byte 0");
        assert_eq!(
            first_error(&json!({"auths": {"x": {"auth": "OnA="}}})).unwrap(),
            "Invalid auth configuration file"
        );
        assert_eq!(first_error(&json!({"auths": null})), None);
        assert!(first_error(&json!({"auths": []})).is_some());
    }

    #[test]
    fn the_keeper_is_found() {
        let config = json!({"credsStore": "all", "credHelpers": {"a": "own", "b": ""}, "auths": {"c": {}}});
        assert_eq!(
            (helper(&config, "a"), helper(&config, "b"), helper(&config, "c")),
            (Some("own"), None, Some("all"))
        );
        assert_eq!(helper(&json!({}), "a"), None);
        assert!(contains_credentials(&config) && contains_credentials(&json!({"auths": {"a": {}}})));
        assert!(!contains_credentials(&json!({"auths": {}, "credsStore": "", "credHelpers": {}})));
    }

    #[test]
    fn what_is_not_credentials_stays() {
        let text = "{\n\t\"z\": 1.50,\n\t\"auths\": {\n\t\t\"a\": {\n\t\t\t\"x\": true,\n\t\t\t\"auth\": \"dTpw\"\n\t\t}\n\t},\n\t\"b\": {\"n\": null}}";
        let mut config = parse(text.as_bytes()).unwrap();
        assert!(!put(&mut config, &of("a", "u", "p")), "nothing new");
        assert!(put(&mut config, &of("a", "u", "q")));
        assert!(put(&mut config, &Credentials { identity_token: "t".into(), ..of("n:1", "", "") }));
        assert_eq!(
            String::from_utf8(super::text(&config)).unwrap(),
            "{\n\t\"z\": 1.5,\n\t\"auths\": {\n\t\t\"a\": {\n\t\t\t\"x\": true,\n\t\t\t\"auth\": \"dTpx\"\n\t\t},\n\t\t\"n:1\": {\n\t\t\t\"identitytoken\": \"t\"\n\t\t}\n\t},\n\t\"b\": {\n\t\t\"n\": null\n\t}\n}"
        );
        assert!(remove(&mut config, "a") && !remove(&mut config, "a"));
        assert_eq!(servers(&config), ["n:1"]);
    }

    #[test]
    fn files_are_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        assert!(update(&path, |c| put(c, &of("a", "u", "p"))).unwrap());
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let before = fs::metadata(&path).unwrap().ino();
        assert!(!update(&path, |c| put(c, &of("a", "u", "p"))).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), before, "nothing was written");

        // A link, and one that leads nowhere yet.
        let real = dir.path().join("real.json");
        fs::write(&real, r#"{"psFormat": "x"}"#).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
        for (link, to) in [("link", "real.json"), ("dangling", "later.json")] {
            let link = dir.path().join(link);
            std::os::unix::fs::symlink(to, &link).unwrap();
            assert!(update(&link, |c| put(c, &of("a", "u", "p"))).unwrap());
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(mode(&dir.path().join(to)), 0o600);
        }
        assert!(fs::read_to_string(&real).unwrap().starts_with("{\n\t\"psFormat\": \"x\",\n\t\"auths\""));

        // What is no JSON is not thrown away.
        fs::write(&path, "{oops").unwrap();
        let e = update(&path, |c| put(c, &of("a", "u", "p"))).unwrap_err();
        assert!(e.contains("invalid character 'o'"), "{e}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{oops");
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn logins_at_once_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::thread::scope(|s| {
            for i in 0..8 {
                let path = &path;
                s.spawn(move || update(path, |c| put(c, &of(&format!("h{i}"), "u", "p"))).unwrap());
            }
        });
        let config = parse(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(servers(&config).len(), 8, "{config}");
    }
}
