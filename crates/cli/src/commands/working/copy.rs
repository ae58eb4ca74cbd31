//! `working copy` and `working add`: files of this machine are packed as those of a build are, but for those alone that
//! the sources name.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use longshore_api::working::{COPY, Copied, CopyHead};
use longshore_build::context::{Context as Files, pack};
use longshore_build::escaped;
use longshore_build::ignore::Ignore;
use longshore_build::pattern::{Glob, clean_in_root, has_wildcards};
use tokio::sync::mpsc;

use super::{path, pull, users};
use crate::args::working::CopyArgs;
use crate::client::{Payload, read};
use crate::commands::cp::Sender;
use crate::commands::{App, registry, say};
use crate::error::{Context as _, Failure, Result, words};

/// The ignore file of a directory.
const IGNORE: &str = ".dockerignore";
/// Bytes that an ignore file may have.
const MAX_IGNORE: u64 = 16 << 20;

/// `working copy`, `working add`.
pub(super) async fn copy(app: &App<'_>, args: &CopyArgs, add: bool) -> Result<()> {
    let (dest, given) = match args.paths.as_slice() {
        // Alone it goes where commands run.
        [source] => ("./", std::slice::from_ref(source)),
        paths => match paths.split_last() {
            Some((dest, given)) => (dest.as_str(), given),
            None => return Err(Failure::new("a copy needs a source")),
        },
    };
    let remote = given.iter().find(|s| is_remote(s)).filter(|_| args.from.is_empty());
    if let Some(remote) = remote.filter(|_| given.len() > 1 || !add) {
        return Err(Failure::new(match add {
            true => format!("{remote}: what is fetched is added by itself, without other sources"),
            false => format!("{remote}: copy takes files of this machine: use add"),
        }));
    }
    let (sources, files) = match args.from.as_str() {
        "" if remote.is_some() => (Vec::new(), None),
        "" => {
            let (args, given) = (args.clone(), given.to_vec());
            let looking = tokio::task::spawn_blocking(move || look(&args, &given));
            let (sources, files) = looking.await.context(|| "read the files".into())??;
            (sources, Some(files))
        }
        _ if !args.contextdir.is_empty() || !args.ignorefile.is_empty() => {
            return Err(Failure::new(
                "--contextdir and --ignorefile are of this machine: they do not go with --from",
            ));
        }
        _ => (given.iter().map(|s| s.clone().into_bytes()).collect(), None),
    };
    let platform =
        if args.from.is_empty() { String::new() } else { registry::platform(args.platform.as_deref()) };
    let encode = |text: &[u8]| STANDARD.encode(text);
    let head = CopyHead {
        add,
        from: args.from.clone(),
        remote: remote.cloned().unwrap_or_default(),
        checksum: args.checksum.clone(),
        keep_git_dir: args.keep_git_dir,
        sources: sources.iter().map(|s| encode(s)).collect(),
        dest: encode(dest.as_bytes()),
        chown: args.chown.clone(),
        chmod: args.chmod.clone(),
        parents: args.parents,
        exclude: args.exclude.iter().map(|e| encode(e.as_bytes())).collect(),
        add_history: args.add_history,
        platform,
        pull: pull(&args.pull).to_owned(),
    };
    let copied = send(app, &args.container, &head, files).await?;
    if args.quiet { Ok(()) } else { say(copied.digest.trim_start_matches("sha256:")) }
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|start| source.starts_with(start))
}

/// What is sent: the sources as patterns in it, and the files.
fn look(args: &CopyArgs, given: &[String]) -> Result<(Vec<Vec<u8>>, Files)> {
    let (root, sources) = match args.contextdir.as_str() {
        "" => (PathBuf::from("/"), of_machine(given, args.parents)?),
        dir => {
            let root = std::fs::canonicalize(dir).map_err(|e| failed(Path::new(dir), &e))?;
            if !root.is_dir() {
                return Err(Failure::new(format!("--contextdir {dir}: not a directory")));
            }
            (root, given.iter().map(|s| s.clone().into_bytes()).collect())
        }
    };
    let usual = root.join(IGNORE);
    let ignore = match args.ignorefile.as_str() {
        "" if args.contextdir.is_empty() || usual.symlink_metadata().is_err() => Vec::new(),
        "" => ignore_file(&usual)?,
        file => ignore_file(Path::new(file))?,
    };
    let ignore = if args.contextdir.is_empty() { below_here(&ignore)? } else { ignore };
    let ignore = Ignore::parse(&ignore).map_err(|e| Failure::new(e.to_string()))?;
    let files = Files::open_for(&root, &ignore, &sources).map_err(|e| Failure::new(e.to_string()))?;
    Ok((sources, files))
}

fn failed(path: &Path, e: &io::Error) -> Failure {
    Failure::new(format!("{}: {}", path.display(), words(e)))
}

fn ignore_file(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|e| failed(path, &e))?;
    let mut text = Vec::new();
    file.take(MAX_IGNORE + 1).read_to_end(&mut text).map_err(|e| failed(path, &e))?;
    if text.len() as u64 > MAX_IGNORE {
        return Err(Failure::new(format!("{}: more than {MAX_IGNORE} bytes", path.display())));
    }
    Ok(text)
}

fn here() -> Result<Vec<u8>> {
    let dir = std::env::current_dir().map_err(|e| failed(Path::new("."), &e))?;
    Ok(dir.into_os_string().into_vec())
}

/// Patterns of an ignore file that is relative to where this program was called, as patterns from the root on.
fn below_here(text: &[u8]) -> Result<Vec<u8>> {
    let here = escaped(&here()?);
    let mut out = Vec::new();
    for line in text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
        let (not, pattern) = line.strip_prefix(b"!").map_or((&b""[..], line), |rest| (b"!", rest));
        if pattern.is_empty() || pattern.starts_with(b"#") {
            continue;
        }
        let pattern = pattern.trim_ascii();
        let pattern = pattern.strip_prefix(b"/").unwrap_or(pattern);
        out.extend([not, here.as_slice(), b"/", pattern, b"\n"].concat());
    }
    Ok(out)
}

/// Sources of this machine as patterns from its root on. With `parents` what leads to a relative one counts from where
/// this program was called.
fn of_machine(given: &[String], parents: bool) -> Result<Vec<Vec<u8>>> {
    let here = here()?;
    let mut out = Vec::new();
    for source in given {
        let pivot: &[u8] = if parents && !source.contains("/./") { b"/./" } else { b"/" };
        let whole = match source.starts_with('/') {
            true => source.clone().into_bytes(),
            false => [&escaped(&here), pivot, source.as_bytes()].concat(),
        };
        match parents || !has_wildcards(&whole) {
            true => out.push(whole),
            false => out.extend(matches(&whole, source)?),
        }
    }
    Ok(out)
}

/// What a pattern matches, if only its last part has wildcards: then nothing else of its directory is sent.
fn matches(pattern: &[u8], shown: &str) -> Result<Vec<Vec<u8>>> {
    let clean = clean_in_root(pattern);
    let (dir, last) = match clean.iter().rposition(|b| *b == b'/') {
        Some(at) => (clean.get(..at).unwrap_or_default(), clean.get(at + 1..).unwrap_or_default()),
        None => (&b""[..], clean.as_slice()),
    };
    if has_wildcards(dir) {
        return Ok(vec![pattern.to_vec()]);
    }
    let glob = Glob::parse(last).map_err(|e| Failure::new(format!("{shown}: {e}")))?;
    let plain: Vec<u8> = unescaped(dir);
    let path = Path::new("/").join(OsStr::from_bytes(&plain));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(|e| failed(&path, &e))? {
        let name = entry.map_err(|e| failed(&path, &e))?.file_name().into_vec();
        if glob.matches(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(Failure::new(format!("{shown}: no file matches")));
    }
    names.sort();
    Ok(names.iter().map(|name| [b"/", dir, b"/", &escaped(name)].concat()).collect())
}

fn unescaped(pattern: &[u8]) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), pattern.iter());
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => out.extend(bytes.next()),
            b => out.push(*b),
        }
    }
    out
}

/// Sends the head, and the files as they are packed.
async fn send(app: &App<'_>, container: &str, head: &CopyHead, files: Option<Files>) -> Result<Copied> {
    let text = serde_json::to_vec(head).context(|| "write the request".into())?;
    let length = u32::try_from(text.len()).map_err(|_| Failure::new("there are too many sources"))?;
    let before = [length.to_be_bytes().as_slice(), &text].concat();
    let users = users(app).await?;
    let (send, chunks) = mpsc::channel::<io::Result<Bytes>>(8);
    let packing = tokio::task::spawn_blocking(move || {
        let mut out = Sender { send, buffer: before, total: 0 };
        let packed = match &files {
            Some(files) => pack(files, &[], &mut out).map_err(|e| io::Error::other(e.to_string())),
            None => Ok(()),
        };
        let done = packed.and_then(|()| out.flush());
        if let Err(e) = &done {
            // The daemon must not take half an archive for a whole one.
            let _ = out.send.blocking_send(Err(io::Error::other(e.to_string())));
        }
        done
    });
    let route = path(container, "copy");
    let answer = app.client.call_as_all(&users, Method::POST, &route, Payload::Stream(COPY, chunks)).await;
    let packed = packing.await.context(|| "pack the files".into())?;
    let answer = match (answer, packed) {
        // What cannot be read here is the reason for the daemon's complaint.
        (Err(e), Err(local)) if e.status != Some(404) && e.status != Some(409) => {
            return Err(Failure::new(format!("{local} ({})", e.message)));
        }
        (answer, _) => answer?,
    };
    longshore_api::json::from_slice(&read(answer).await?)
        .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_paths_from_the_root_on() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display().to_string();
        for name in ["a.txt", "b.txt", "c[1].txt", "d"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let of = |source: &str| {
            let all = of_machine(&[source.to_owned()], false).map_err(|e| e.message)?;
            let text =
                all.into_iter().map(|s| String::from_utf8(s).unwrap().replace(&at, "")).collect::<Vec<_>>();
            Ok::<_, String>(text)
        };
        assert_eq!(of("/etc/hosts").unwrap(), ["/etc/hosts"]);
        assert_eq!(of(&format!("{at}/*.txt")).unwrap(), ["/a.txt", "/b.txt", "/c\\[1\\].txt"]);
        assert!(of(&format!("{at}/*.no")).unwrap_err().ends_with("no file matches"));
        let here = String::from_utf8(escaped(&here().unwrap())).unwrap();
        assert_eq!(of("x/y").unwrap(), [format!("{here}/x/y")]);
        assert_eq!(of_machine(&["x/y".into()], true).unwrap(), [format!("{here}/./x/y").into_bytes()]);
    }

    #[test]
    fn only_what_sources_name_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/one", "a/two", "b/three", "link-to"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::write(dir.path().join(IGNORE), "**/two\n").unwrap();
        let args = CopyArgs { contextdir: dir.path().display().to_string(), ..CopyArgs::default() };
        let (_, files) = look(&args, &["a".into()]).unwrap();
        let names: Vec<_> =
            files.entries().iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect();
        assert_eq!(names, ["a", "a/one"]);
        assert!(is_remote("https://x/y") && !is_remote("x/http"));
    }
}
