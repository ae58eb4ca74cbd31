//! `cp`: files between this machine and a container, as archives.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use bytes::Bytes;
use hyper::{Method, Response, body::Incoming};
use longshore_api::PathStat;
use tokio::sync::mpsc;

use super::untar::{Temp, Untar, place};
use crate::args::container::CpArgs;
use crate::client::{Client, Payload, each_chunk, escape, query, read};
use crate::error::{Context, Failure, Result};
use crate::format::human::size;
use crate::streams;

/// Directory and link bits of Go's `os.FileMode`.
const GO_DIR: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    Container(&'a str, &'a str),
    Local(&'a str),
    /// Standard input or output.
    Stream,
}

impl<'a> Side<'a> {
    fn parse(text: &'a str) -> Self {
        if text == "-" {
            return Self::Stream;
        }
        // A path of this machine may have a colon: then it starts with a slash or a dot.
        match text.split_once(':') {
            Some((container, path)) if !container.is_empty() && !text.starts_with(['/', '.']) => {
                Self::Container(container, path)
            }
            _ => Self::Local(text),
        }
    }
}

/// `cp`.
pub(crate) async fn cp(c: &Client, args: &CpArgs) -> Result<()> {
    match (Side::parse(&args.source), Side::parse(&args.destination)) {
        (Side::Container(..), Side::Container(..)) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        (Side::Container(container, path), Side::Stream) => to_stdout(c, container, path, args).await,
        (Side::Container(container, path), Side::Local(to)) => {
            from_container(c, container, path, to, args).await
        }
        (Side::Stream, Side::Container(container, path)) => {
            put(c, container, path, args, |out| io::copy(&mut io::stdin().lock(), out).map(drop)).await
        }
        (Side::Local(from), Side::Container(container, path)) => {
            to_container(c, from, container, path, args).await
        }
        _ => Err(Failure::new("must specify at least one container source")),
    }
}

fn archive(container: &str, path: &str) -> String {
    query(&format!("/containers/{}/archive", escape(container)), &[("path", path)])
}

fn stat_of(answer: &Response<Incoming>) -> Result<PathStat> {
    let header = answer.headers().get("x-docker-container-path-stat");
    let header = header.ok_or_else(|| Failure::new("the daemon did not say what the path is"))?;
    let text = base64::engine::general_purpose::STANDARD
        .decode(header.as_bytes())
        .context(|| "read the path's status".into())?;
    longshore_api::json::from_slice(&text).map_err(|e| Failure::new(format!("read the path's status: {e}")))
}

/// What a path of a container is; `None` if that cannot be told. What is wrong shows when something is done with it.
async fn stat(c: &Client, container: &str, path: &str) -> Result<Option<PathStat>> {
    match c.call(Method::HEAD, &archive(container, path), Payload::Empty).await {
        Ok(answer) => stat_of(&answer).map(Some),
        Err(e) if e.status.is_some() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a path means what is in a directory rather than the directory: it ends with a dot.
fn is_contents(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    path == "." || path.ends_with("/.")
}

/// A path of this machine in full, as errors show it.
fn full(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Where a link on this machine leads in the end, there or not; other paths lead to themselves.
fn link_end(path: &Path) -> PathBuf {
    let mut end = path.to_owned();
    // As many as the kernel follows.
    for _ in 0..40 {
        let Ok(next) = fs::read_link(&end) else { break };
        end = end.parent().unwrap_or(Path::new("")).join(next);
    }
    end
}

/// The source in a container, a link followed if that is wanted.
async fn source(c: &Client, container: &str, path: &str, follow: bool) -> Result<String> {
    if follow
        && let Some(s) = stat(c, container, path).await?
        && s.mode & GO_LINK != 0
    {
        return Ok(s.link_target);
    }
    Ok(path.to_owned())
}

async fn to_stdout(c: &Client, container: &str, path: &str, args: &CpArgs) -> Result<()> {
    let path = source(c, container, path, args.follow_link).await?;
    let answer = c.call(Method::GET, &archive(container, &path), Payload::Empty).await?;
    each_chunk(answer, |chunk| streams::show(longshore_api::stream::Stream::Stdout, chunk)).await
}

async fn from_container(c: &Client, container: &str, path: &str, to: &str, args: &CpArgs) -> Result<()> {
    let path = source(c, container, path, args.follow_link).await?;
    let answer = c.call(Method::GET, &archive(container, &path), Payload::Empty).await?;
    let about = stat_of(&answer)?;
    let contents = is_contents(&path);
    let target = local_target(&link_end(Path::new(to)), to.ends_with('/'), &about, contents)?;
    let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temp = Temp::beside(parent)?;
    // With --archive owners are kept, as its help says; docker's command line forgets them on this side.
    let copied = unpack(answer, temp.path(), args.archive).await?;
    let made = if contents { temp.path().to_owned() } else { only_child(temp.path())? };
    place(&made, &target)?;
    report(args, copied, to);
    Ok(())
}

/// Where a container's path goes on this machine, by docker's rules.
fn local_target(to: &Path, slash: bool, about: &PathStat, contents: bool) -> Result<PathBuf> {
    let is_dir = about.mode & GO_DIR != 0;
    match fs::metadata(to) {
        Ok(m) if m.is_dir() && contents => Ok(to.to_owned()),
        Ok(m) if m.is_dir() => Ok(to.join(about.name.trim_matches('/'))),
        Ok(_) if is_dir => Err(Failure::new("cannot copy directory")),
        Ok(_) => Ok(to.to_owned()),
        Err(_) if slash && !is_dir => Err(Failure::new("no such directory")),
        Err(_) => {
            let parent = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !parent.is_dir() {
                return Err(Failure::new(format!(
                    "invalid output path: directory {:?} does not exist",
                    full(parent)
                )));
            }
            Ok(to.to_owned())
        }
    }
}

/// Unpacks a body into an empty folder; gives the bytes that came.
async fn unpack(answer: Response<Incoming>, into: &Path, owners: bool) -> Result<u64> {
    let untar = Untar::start(into, owners);
    let mut total = 0;
    let mut body = answer.into_body();
    while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
        let frame = frame.context(|| "read the archive".into())?;
        if let Ok(data) = frame.into_data() {
            total += data.len() as u64;
            if !untar.push(data).await {
                break;
            }
        }
    }
    untar.finish().await?;
    Ok(total)
}

fn only_child(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).context(|| format!("read {}", dir.display()))?;
    match (entries.next(), entries.next()) {
        (Some(Ok(one)), None) => Ok(one.path()),
        _ => Err(Failure::new("the archive does not hold what was asked for")),
    }
}

async fn to_container(c: &Client, from: &str, container: &str, path: &str, args: &CpArgs) -> Result<()> {
    let local = PathBuf::from(from);
    let follows = args.follow_link || from.ends_with('/');
    let meta = if follows { fs::metadata(&local) } else { fs::symlink_metadata(&local) };
    let meta = meta.map_err(|e| {
        Failure::new(format!("lstat {}: {}", full(&local).display(), crate::error::words(&e)))
    })?;
    let contents = is_contents(from);
    let mut there = path.to_owned();
    let mut about = stat(c, container, &there).await?;
    if let Some(s) = about.as_ref().filter(|s| s.mode & GO_LINK != 0) {
        there.clone_from(&s.link_target);
        about = stat(c, container, &there).await?;
    }
    let base =
        fs::canonicalize(&local).ok().and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()));
    let base =
        local.file_name().map(|n| n.to_string_lossy().into_owned()).or(base).unwrap_or_else(|| ".".into());
    let split = |p: &str| match p.trim_end_matches('/').rsplit_once('/') {
        Some((dir, name)) => (if dir.is_empty() { "/".into() } else { dir.to_owned() }, name.to_owned()),
        None => ("/".to_owned(), p.to_owned()),
    };
    let (dir, name) = match about {
        Some(s) if s.mode & GO_DIR != 0 => (there.clone(), if contents { ".".into() } else { base }),
        Some(_) if meta.is_dir() => {
            return Err(Failure::new("cannot copy directory"));
        }
        None if path.ends_with('/') && !meta.is_dir() => {
            return Err(Failure::new("no such directory"));
        }
        _ => split(&there),
    };
    // Only the source itself is followed; links below it stay links.
    let local = if follows { link_end(&local) } else { local };
    put(c, container, &dir, args, move |out| {
        let mut tar = tar::Builder::new(out);
        tar.follow_symlinks(false);
        if meta.is_dir() {
            tar.append_dir_all(&name, &local)?
        } else {
            tar.append_path_with_name(&local, &name)?
        }
        tar.finish()
    })
    .await
}

/// Sends what `write` writes as an archive to a directory of a container.
async fn put(
    c: &Client,
    container: &str,
    dir: &str,
    args: &CpArgs,
    write: impl FnOnce(&mut Sender) -> io::Result<()> + Send + 'static,
) -> Result<()> {
    let (send, chunks) = mpsc::channel(8);
    let packing = tokio::task::spawn_blocking(move || {
        let mut out = Sender { send, buffer: Vec::new(), total: 0 };
        let done = write(&mut out).and_then(|()| out.flush());
        if let Err(e) = done {
            // The daemon must not take half an archive for a whole one.
            let _ = out.send.blocking_send(Err(io::Error::other(e.to_string())));
            return Err(e);
        }
        Ok(out.total)
    });
    let mut pairs = vec![("path", dir), ("noOverwriteDirNonDir", "true")];
    if args.archive {
        pairs.push(("copyUIDGID", "true"));
    }
    let path = query(&format!("/containers/{}/archive", escape(container)), &pairs);
    let answer = c.call(Method::PUT, &path, Payload::Stream("application/x-tar", chunks)).await;
    let packed = packing.await.context(|| "pack".into())?;
    let answer = match (answer, &packed) {
        // A local file that cannot be read is the reason for the daemon's complaint.
        (Err(e), Err(local)) if local.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::new(format!("pack: {local} ({e})")));
        }
        (answer, _) => answer?,
    };
    read(answer).await?;
    report(args, packed.unwrap_or(0), &format!("{container}:{dir}"));
    Ok(())
}

/// Writes into a request's body.
pub(super) struct Sender {
    pub(super) send: mpsc::Sender<io::Result<Bytes>>,
    pub(super) buffer: Vec<u8>,
    pub(super) total: u64,
}

impl Write for Sender {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(buf);
        if self.buffer.len() >= 256 << 10 {
            self.flush()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.total += chunk.len() as u64;
        self.send.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn report(args: &CpArgs, bytes: u64, to: &str) {
    if !args.quiet && std::io::IsTerminal::is_terminal(&io::stderr()) {
        eprintln!("Successfully copied {} to {to}", size(i64::try_from(bytes).unwrap_or(i64::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_at_the_end_means_the_contents() {
        for (path, contents) in
            [(".", true), ("./", true), ("a/.", true), ("a/./", true), ("a", false), ("a.", false)]
        {
            assert_eq!(is_contents(path), contents, "{path}");
        }
    }

    #[test]
    fn sides_are_told_apart() {
        assert_eq!(Side::parse("c:/x"), Side::Container("c", "/x"));
        assert_eq!(Side::parse("./a:b"), Side::Local("./a:b"));
        assert_eq!(Side::parse("/a:b"), Side::Local("/a:b"));
        assert_eq!(Side::parse("-"), Side::Stream);
        assert_eq!(Side::parse("file"), Side::Local("file"));
    }
}
