//! What is sent to be built: which files, and which of them is the Dockerfile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use longshore_build::context::{Context, Extra};
use longshore_build::ignore::{self, Ignore};
use longshore_build::remote::{Address, parse_context};

use super::share::Directory;
use crate::args::given::AdditionalFrom;
use crate::error::{Failure, Result, words};

const DEFAULT: &str = "Dockerfile";
/// Bytes that a Dockerfile or an ignore file may have.
const MAX_FILE: u64 = 16 << 20;
/// Bytes of a tar's header.
const BLOCK: usize = 512;

/// The files of a build.
pub(super) enum Files {
    /// Those of a directory, and some that are added or stand in the place of others.
    Dir(Box<Context>, Vec<Extra>),
    /// Those of directories, for a daemon that asks for what it needs; the Dockerfile is sent by itself.
    Shared(Shared),
    /// These alone.
    Only(Vec<Extra>),
    /// A tar that somebody else made.
    Tar(Box<dyn Read + Send>),
    /// None: the daemon fetches them from this address.
    Elsewhere(String),
}

/// What a build is told instead of being sent files.
#[derive(Default)]
pub(super) struct Shared {
    /// `None`: it is in the context that is elsewhere.
    pub(super) dockerfile: Option<Vec<u8>>,
    /// Where the context is that the daemon fetches.
    pub(super) elsewhere: Option<String>,
    /// The context first, if there is one.
    pub(super) directories: Vec<Option<Directory>>,
    /// Names for directories, by their number, for images, and for addresses.
    pub(super) named_directories: BTreeMap<String, usize>,
    pub(super) named_images: BTreeMap<String, String>,
    pub(super) named_remotes: BTreeMap<String, String>,
}

/// What is sent.
pub(super) struct Source {
    pub(super) files: Files,
    /// The Dockerfile's path in it; empty for the usual one.
    pub(super) dockerfile: String,
    /// What errors call the Dockerfile, and what is in it, where that is known here.
    pub(super) shown: Option<(String, Vec<u8>)>,
}

impl Source {
    /// Finds out what `path` and `file` mean, `-` being `stdin`. Another daemon than ours (not `own`) wants all files at
    /// once.
    pub(super) fn open(path: &str, file: &str, stdin: impl Read + Send + 'static, own: bool) -> Result<Self> {
        match (path, file) {
            ("-", "-") => {
                Err(Failure::new("invalid argument: can't use stdin for both build context and dockerfile"))
            }
            ("-", file) => piped(stdin, file, own),
            (path, file) if Path::new(path).is_dir() => directory(Path::new(path), file, stdin, own),
            (path, file) => elsewhere(path, file, stdin, own),
        }
    }
}

impl Shared {
    fn new(dockerfile: Vec<u8>, context: Option<Directory>) -> Self {
        Self { dockerfile: Some(dockerfile), directories: vec![context], ..Self::default() }
    }

    /// Adds contexts with names; each directory has its own ignore file.
    ///
    /// # Errors
    /// For a directory that is none.
    pub(super) fn add(&mut self, contexts: BTreeMap<String, AdditionalFrom>) -> Result<()> {
        for (name, from) in contexts {
            match from {
                AdditionalFrom::Image(image) => {
                    self.named_images.insert(name, image);
                }
                // The daemon is told of it otherwise.
                AdditionalFrom::Layout { .. } => {}
                AdditionalFrom::Remote(address) => {
                    self.named_remotes.insert(name, address);
                }
                AdditionalFrom::Directory(path) => {
                    let failed = |e: &io::Error| {
                        Failure::new(format!("failed to get build context {name}: {path}: {}", words(e)))
                    };
                    let dir = fs::canonicalize(&path).map_err(|e| failed(&e))?;
                    if !dir.is_dir() {
                        return Err(failed(&ErrorKind::NotADirectory.into()));
                    }
                    let (_, ignore) = read_ignore([(Some(&dir.join(".dockerignore")), None)])?;
                    let ignore = Ignore::parse(&ignore)
                        .map_err(|e| Failure::new(format!("{path}/.dockerignore: {e}")))?;
                    self.directories.push(Some(Directory::open(&dir, ignore)?));
                    self.named_directories.insert(name, self.directories.len() - 1);
                }
            }
        }
        Ok(())
    }
}

/// What is no directory: something that the daemon fetches.
fn elsewhere(path: &str, file: &str, stdin: impl Read, own: bool) -> Result<Source> {
    let remote = parse_context(path)
        .map_err(|e| Failure::new(format!("unable to prepare context: {}: {e}", hidden(path))))?;
    match (remote, file) {
        (Some(_), "-") if !own => Err(Failure::new(
            "a Dockerfile from stdin with a context that is elsewhere needs a Longshore daemon: this one is another",
        )),
        (Some(_), file) if own => {
            let given = if file == "-" { Some(limited("Dockerfile from stdin", stdin)?) } else { None };
            let dockerfile = if file == "-" { String::new() } else { clean(file) };
            let shared = Shared {
                dockerfile: given.clone(),
                elsewhere: Some(path.to_owned()),
                directories: vec![None],
                ..Shared::default()
            };
            let shown = given.map(|text| (DEFAULT.into(), text));
            Ok(Source { files: Files::Shared(shared), dockerfile, shown })
        }
        (Some(_), file) => {
            let files = Files::Elsewhere(path.to_owned());
            Ok(Source { files, dockerfile: clean(file), shown: None })
        }
        (None, _) => Err(Failure::new(match Path::new(path).exists() {
            true => format!("unable to prepare context: path {path:?} is not a directory"),
            false => format!("unable to prepare context: path {path:?} not found"),
        })),
    }
}

/// An address without what may be a password.
fn hidden(path: &str) -> String {
    Address::new(path).map_or_else(|_| "the address".to_owned(), |address| address.to_string())
}

/// A tar, or a Dockerfile.
fn piped(mut stdin: impl Read + Send + 'static, file: &str, own: bool) -> Result<Source> {
    let failed = |e: io::Error| Failure::new(format!("failed to read the context from stdin: {}", words(&e)));
    let mut start = Vec::new();
    Read::by_ref(&mut stdin).take(BLOCK as u64).read_to_end(&mut start).map_err(failed)?;
    if is_archive(&start) {
        let files = Files::Tar(Box::new(Cursor::new(start).chain(stdin)));
        return Ok(Source { files, dockerfile: clean(file), shown: None });
    }
    if !file.is_empty() {
        return Err(Failure::new(
            "ambiguous Dockerfile source: stdin is no tar, so it is a Dockerfile, and --file names another",
        ));
    }
    let text = limited("Dockerfile from stdin", Cursor::new(start).chain(stdin))?;
    let files = match own {
        true => Files::Shared(Shared::new(text.clone(), None)),
        false => Files::Only(vec![Extra { path: DEFAULT.into(), content: text.clone() }]),
    };
    Ok(Source { files, dockerfile: String::new(), shown: Some((DEFAULT.into(), text)) })
}

/// Whether a stream begins as a tar does, or as something that is compressed.
fn is_archive(start: &[u8]) -> bool {
    const MAGIC: &[&[u8]] = &[b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"];
    if MAGIC.iter().any(|magic| start.starts_with(magic)) {
        return true;
    }
    let (Some(block), Some(sum)) = (start.get(..BLOCK), start.get(148..156)) else { return false };
    // The sum of all bytes, those of itself being spaces.
    let spaces = u64::from(b' ') * 8;
    let own: u64 = sum.iter().map(|b| u64::from(*b)).sum();
    let all: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let text = String::from_utf8_lossy(sum);
    let stated = u64::from_str_radix(text.trim_matches(['\0', ' ']), 8);
    all == 0 || stated == Ok(all - own + spaces)
}

fn directory(dir: &Path, file: &str, stdin: impl Read, own: bool) -> Result<Source> {
    let dir = fs::canonicalize(dir)
        .map_err(|e| Failure::new(format!("unable to prepare context: {}: {}", dir.display(), words(&e))))?;
    let found = match file {
        "-" => Found { inside: None, beside: None, text: limited("Dockerfile from stdin", stdin)? },
        "" => default(&dir)?,
        file => named(&dir, Path::new(file))?,
    };
    let (ignore_name, ignore_text) = ignore_file(&dir, &found)?;
    let ignore = Ignore::parse(&ignore_text)
        .map_err(|e| Failure::new(format!("{}: {e}", ignore_name.as_deref().unwrap_or(".dockerignore"))))?;
    let shown = match file {
        "" => found.inside.clone().unwrap_or_else(|| DEFAULT.into()),
        "-" => DEFAULT.into(),
        file => file.to_owned(),
    };
    if own {
        let directory = Directory::open(&dir, ignore)?;
        let files = Files::Shared(Shared::new(found.text.clone(), Some(directory)));
        return Ok(Source { files, dockerfile: String::new(), shown: Some((shown, found.text)) });
    }
    let (dockerfile, extra) = match &found.inside {
        Some(path) => (path.clone(), Vec::new()),
        None => beside(&found.text, &ignore_text),
    };
    let always = [Some(dockerfile.clone()), ignore_name.filter(|_| found.inside.is_some())];
    let always = always.iter().flatten().map(String::as_bytes);
    let sent = ignore.sending(always).map_err(|e| Failure::new(e.to_string()))?;
    let context =
        Context::open(&dir, &sent).map_err(|e| Failure::new(format!("unable to prepare context: {e}")))?;
    Ok(Source { files: Files::Dir(Box::new(context), extra), dockerfile, shown: Some((shown, found.text)) })
}

/// A Dockerfile that is none of the context's files is sent beside them, under a name that nothing has, and seen by no
/// instruction. The ignore file that says so is sent as the context's.
fn beside(text: &[u8], ignore: &[u8]) -> (String, Vec<Extra>) {
    let name = format!(".dockerfile.{}", random());
    let mut lines = ignore.to_vec();
    lines.extend_from_slice(format!("\n{name}\n").as_bytes());
    let file = |path: &str, content: &[u8]| Extra { path: path.into(), content: content.into() };
    let extra = vec![file(&name, text), file(".dockerignore", &lines)];
    (name, extra)
}

/// Twenty digits that nobody guesses.
pub(super) fn random() -> String {
    let mut bytes = [0u8; 10];
    // A kernel that has no random numbers yet would wait for them.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A Dockerfile.
struct Found {
    /// Its path in the context, if it is there.
    inside: Option<String>,
    /// Where an ignore file of its own would be.
    beside: Option<PathBuf>,
    text: Vec<u8>,
}

/// `Dockerfile`, else `dockerfile`.
fn default(dir: &Path) -> Result<Found> {
    let name = [DEFAULT, "dockerfile"].into_iter().find(|name| dir.join(name).symlink_metadata().is_ok());
    named(dir, &dir.join(name.unwrap_or(DEFAULT)))
}

/// The file at a path, which is relative to where this program was called.
fn named(dir: &Path, file: &Path) -> Result<Found> {
    let failed = |e: &io::Error| {
        let shown = file.strip_prefix(dir).unwrap_or(file).display();
        Failure::new(format!("failed to read dockerfile: open {shown}: {}", words(e)))
    };
    let real = fs::canonicalize(file).map_err(|e| failed(&e))?;
    if !fs::metadata(&real).map_err(|e| failed(&e))?.is_file() {
        return Err(Failure::new(format!("failed to read dockerfile: {} is not a file", file.display())));
    }
    let text = limited(&file.display().to_string(), File::open(&real).map_err(|e| failed(&e))?)?;
    // Where a link leads to it, the daemon would have to follow that, and the link's target may be left out.
    let inside = real.strip_prefix(dir).ok().filter(|_| lexical(file).as_deref() == Some(&real));
    let inside = inside.and_then(|path| path.to_str()).map(str::to_owned);
    let mut beside = file.as_os_str().as_bytes().to_vec();
    beside.extend_from_slice(ignore::FILE_NAME);
    Ok(Found { inside, beside: Some(std::ffi::OsString::from_vec(beside).into()), text })
}

/// A path from the root on without `.` and `..`, no link being followed but those to where we are.
fn lexical(path: &Path) -> Option<PathBuf> {
    let from = fs::canonicalize(std::env::current_dir().ok()?).ok()?;
    let mut out = PathBuf::new();
    for part in from.join(path).components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    Some(out)
}

/// The ignore file that applies: one of the Dockerfile's own, else the context's. Its name is one in the context.
fn ignore_file(dir: &Path, found: &Found) -> Result<(Option<String>, Vec<u8>)> {
    let usual = dir.join(".dockerignore");
    let inside = found.inside.as_ref().map(|path| format!("{path}.dockerignore"));
    read_ignore([(found.beside.as_ref(), inside), (Some(&usual), Some(".dockerignore".to_owned()))])
}

/// The first of these files that is there, by the name that goes with it.
fn read_ignore<'a>(
    files: impl IntoIterator<Item = (Option<&'a PathBuf>, Option<String>)>,
) -> Result<(Option<String>, Vec<u8>)> {
    for (path, name) in files {
        let Some(path) = path else { continue };
        match File::open(path) {
            Ok(file) => return Ok((name, limited(&path.display().to_string(), file)?)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) => return Err(Failure::new(format!("open {}: {}", path.display(), words(&e)))),
        }
    }
    Ok((None, Vec::new()))
}

fn limited(name: &str, from: impl Read) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    from.take(MAX_FILE + 1)
        .read_to_end(&mut out)
        .map_err(|e| Failure::new(format!("read {name}: {}", words(&e))))?;
    if out.len() as u64 > MAX_FILE {
        return Err(Failure::new(format!("{name}: more than {MAX_FILE} bytes")));
    }
    Ok(out)
}

/// A path in a tar as the daemon looks for it.
fn clean(path: &str) -> String {
    path.trim_start_matches("./").to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use longshore_build::context::pack;

    use super::*;

    /// What another daemon would be sent: the names in a tar, those of random names as `*`, and the Dockerfile's.
    fn sent(dir: &Path, file: &str, stdin: &str) -> Result<(String, Vec<String>)> {
        let source = Source::open(dir.to_str().unwrap(), file, Cursor::new(stdin.to_owned()), false)?;
        let Files::Dir(context, extra) = source.files else { panic!("no directory") };
        let mut archive = Vec::new();
        pack(&context, &extra, &mut archive).unwrap();
        let mut archive = tar::Archive::new(&archive[..]);
        let random = source.dockerfile.strip_prefix(".dockerfile.").map(str::to_owned);
        let hide = |name: String| random.as_ref().map_or(name.clone(), |r| name.replace(r.as_str(), "*"));
        let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
        Ok((
            hide(source.dockerfile.clone()),
            names.map(|n| n.trim_end_matches('/').to_owned()).map(hide).collect(),
        ))
    }

    /// What is shared: the Dockerfile, and the names of what may be asked for.
    fn shared(dir: &Path, file: &str, stdin: &str) -> Result<(String, Vec<String>)> {
        let source = Source::open(dir.to_str().unwrap(), file, Cursor::new(stdin.to_owned()), true)?;
        let Files::Shared(Shared { dockerfile, directories, .. }) = source.files else {
            panic!("not shared")
        };
        let context = directories[0].as_ref().unwrap().walk(&[b".".to_vec()]).unwrap();
        let names = context.entries().iter().map(|e| String::from_utf8(e.path.clone()).unwrap());
        Ok((String::from_utf8(dockerfile.unwrap()).unwrap(), names.collect()))
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn an_ignore_file_decides_what_is_sent() {
        let check = |files: &[(&str, &str)], file: &str, dockerfile: &str, there: &[&str], asked: &[&str]| {
            let dir = folder(files);
            let file =
                if file.is_empty() { String::new() } else { format!("{}/{file}", dir.path().display()) };
            let (got, all) = sent(dir.path(), &file, "").unwrap();
            assert_eq!((got.as_str(), all), (dockerfile, names(there)));
            assert_eq!(shared(dir.path(), &file, "").unwrap().1, names(asked));
        };
        let all = ["Dockerfile", "a"];
        check(&[("Dockerfile", ""), ("a", "")], "", "Dockerfile", &all, &all);
        let all = ["a", "dockerfile"];
        check(&[("dockerfile", ""), ("a", "")], "", "dockerfile", &all, &all);
        check(
            &[("Dockerfile", ""), (".dockerignore", "*\n!a\n"), ("a", ""), ("b", "")],
            "",
            "Dockerfile",
            &[".dockerignore", "Dockerfile", "a"],
            &["a"],
        );
        // One of the Dockerfile's own goes before.
        check(
            &[("d/X", ""), ("d/X.dockerignore", "d\nb"), (".dockerignore", "a"), ("a", ""), ("b", "")],
            "d/X",
            "d/X",
            &[".dockerignore", "a", "d", "d/X", "d/X.dockerignore"],
            &[".dockerignore", "a"],
        );
    }

    #[test]
    fn a_dockerfile_may_come_from_elsewhere() {
        let dir = folder(&[("c/a", ""), ("c/b", ""), ("c/.dockerignore", "b"), ("D", "FROM x")]);
        let context = dir.path().join("c");
        // Docker's daemon knows one ignore file only.
        let want = (".dockerfile.*".to_owned(), names(&[".dockerfile.*", ".dockerignore", "a"]));
        let outside = format!("{}/D", dir.path().display());
        assert_eq!(sent(&context, &outside, "").unwrap(), want);
        assert_eq!(sent(&context, "-", "FROM y").unwrap(), want);
        // To ours it comes by itself; the context's ignore file is a file as any other, unless it is left out.
        assert_eq!(
            shared(&context, &outside, "").unwrap(),
            ("FROM x".into(), names(&[".dockerignore", "a"]))
        );
        assert_eq!(shared(&context, "-", "FROM y").unwrap().0, "FROM y");
        symlink("../D", context.join("Dockerfile")).unwrap();
        assert_eq!(sent(&context, "", "").unwrap().0, ".dockerfile.*");
        assert_eq!(shared(&context, "", "").unwrap().0, "FROM x");
        // Its own ignore file is taken from beside it.
        fs::write(dir.path().join("D.dockerignore"), "*").unwrap();
        assert_eq!(sent(&context, &outside, "").unwrap().1, want.1[..2]);
        assert_eq!(shared(&context, &outside, "").unwrap().1, names(&[]));
        let source = Source::open(context.to_str().unwrap(), &outside, io::empty(), false).unwrap();
        let Files::Dir(_, extra) = &source.files else { panic!() };
        assert_eq!(extra[1].path, b".dockerignore");
        assert_eq!(String::from_utf8_lossy(&extra[1].content), format!("*\n{}\n", source.dockerfile));
    }

    #[test]
    fn a_directory_is_known_by_more_than_its_name() {
        let dir = folder(&[("Dockerfile", "FROM x")]);
        let key = || Directory::open(dir.path(), Ignore::default()).unwrap().key().to_owned();
        let before = key();
        assert_eq!(key(), before);
        let aside = dir.path().with_extension("aside");
        fs::rename(dir.path(), &aside).unwrap();
        fs::create_dir(dir.path()).unwrap();
        assert_ne!(key(), before);
        fs::remove_dir_all(aside).unwrap();
    }

    #[test]
    fn standard_input_is_a_tar_or_a_dockerfile() {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut tar::Header::new_gnu(), "x", io::empty()).unwrap();
        let tar = tar.into_inner().unwrap();
        let kind = |bytes: &[u8], file: &str| {
            let source = Source::open("-", file, Cursor::new(bytes.to_vec()), true);
            source.map(|s| match s.files {
                Files::Tar(mut all) => {
                    let mut read = Vec::new();
                    all.read_to_end(&mut read).unwrap();
                    assert_eq!(read, bytes);
                    format!("tar {}", s.dockerfile)
                }
                Files::Only(files) => String::from_utf8(files[0].content.clone()).unwrap(),
                Files::Shared(shared) => String::from_utf8(shared.dockerfile.unwrap()).unwrap(),
                Files::Dir(..) | Files::Elsewhere(_) => panic!(),
            })
        };
        assert_eq!(kind(&tar, "./d/D").unwrap(), "tar d/D");
        assert_eq!(kind(b"\x1f\x8b\x08...", "").unwrap(), "tar ");
        assert_eq!(kind(b"FROM x\n", "").unwrap(), "FROM x\n");
        let long = "# x\n".repeat(1000);
        assert_eq!(kind(long.as_bytes(), "").unwrap(), long);
        assert_eq!(kind(b"", "").unwrap(), "");
        assert!(kind(b"FROM x", "D").unwrap_err().message.starts_with("ambiguous Dockerfile source"));
        assert!(kind(&tar, "-").unwrap_err().message.contains("both build context and dockerfile"));
    }

    #[test]
    fn what_is_elsewhere_the_daemon_fetches() {
        for path in ["https://host/x.git#main:sub", "git@host:x", "github.com/o/x", "http://host/c.tar.gz"] {
            let source = Source::open(path, "./d/X", io::empty(), false).unwrap();
            assert!(matches!(source.files, Files::Elsewhere(to) if to == path), "{path}");
            assert_eq!(source.dockerfile, "d/X");
            let source = Source::open(path, "-", Cursor::new("FROM x"), true).unwrap();
            let Files::Shared(shared) = source.files else { panic!("not shared") };
            assert_eq!(shared.elsewhere.as_deref(), Some(path));
            assert_eq!(shared.dockerfile.as_deref(), Some(&b"FROM x"[..]));
            let refused = Source::open(path, "-", io::empty(), false).err().unwrap();
            assert!(refused.message.contains("needs a Longshore daemon"), "{}", refused.message);
        }
    }

    #[test]
    fn what_is_no_context_is_told() {
        let dir = folder(&[("a", "")]);
        let at = |path: &str| dir.path().join(path).display().to_string();
        for (path, file, want) in [
            (at("none"), "", "not found"),
            (at("a"), "", "is not a directory"),
            (at(""), "", "failed to read dockerfile: open Dockerfile: no such file or directory"),
            (at(""), &at("none"), "none: no such file or directory"),
            (at(""), &at(""), "is not a file"),
            (
                "ftp://me:pw@host/x".into(),
                "",
                "unable to prepare context: ftp://host/x: ftp:// is not fetched",
            ),
            ("https://host/x.git#-x".into(), "", "invalid Git reference"),
        ] {
            let error = Source::open(&path, file, io::empty(), true).err().unwrap().message;
            assert!(error.contains(want), "{path} {file}: {error}");
        }
        fs::write(dir.path().join("Dockerfile"), "").unwrap();
        fs::write(dir.path().join(".dockerignore"), "a\n[\n").unwrap();
        let error = Source::open(&at(""), "", io::empty(), true).err().unwrap().message;
        assert!(error.starts_with(".dockerignore: ignore file: line 2: "), "{error}");
    }
}
