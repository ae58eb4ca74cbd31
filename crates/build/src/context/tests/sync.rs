use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use longshore_store::{Pool, Store, StoreOptions};

use super::*;
use crate::context::sync::{self, Ask, Use, receive, send_failure, send_tree};

/// A builder with a pool, and what it was told the last time.
struct Rig {
    dir: tempfile::TempDir,
    pool: Pool,
    _store: Store,
    asked: RefCell<Vec<Ask>>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("data"), &StoreOptions::default()).unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        // Which mode a context has is nobody's affair.
        fs::set_permissions(dir.path().join("c"), fs::Permissions::from_mode(0o700)).unwrap();
        Self { pool: store.pool(), dir, _store: store, asked: RefCell::default() }
    }

    fn context(&self) -> std::path::PathBuf {
        self.dir.path().join("c")
    }

    /// Shares the directory with a client that has waited long enough for all that is older than `settled`.
    fn share(&self, sources: &[&str], settled: Duration) -> Result<Context> {
        let (asks, asked) = mpsc::channel();
        let (mut here, there) = UnixStream::pair().unwrap();
        let dir = self.context();
        let client = std::thread::spawn(move || {
            let mut context = None;
            for ask in asked {
                let done = match ask {
                    Ask::Tree(sources) => {
                        let root = Root::open(&dir).unwrap();
                        let options = Options::default();
                        let walked = Context::walk_for(root, &Ignore::default(), &sources, &options).unwrap();
                        send_tree(context.insert(walked), &there)
                    }
                    Ask::Files(files) => {
                        sync::send_files_after(context.as_ref().unwrap(), &files, settled, &there)
                    }
                };
                if let Err(e) = done {
                    send_failure(&e.to_string(), &there).unwrap();
                }
            }
        });
        self.asked.borrow_mut().clear();
        let ask = move |ask: Ask| {
            self.asked.borrow_mut().push(ask.clone());
            asks.send(ask).unwrap();
        };
        let got = receive(
            &self.pool,
            &self.pool.record(&longshore_oci::Digest::of(b"c")),
            &uses(sources),
            &mut here,
            &ask,
        );
        drop(ask);
        client.join().unwrap();
        got
    }

    /// Paths of the files that the client was asked for.
    fn sent(&self, context: &Context) -> Vec<String> {
        let asked = self.asked.borrow();
        let Some(Ask::Files(files)) = asked.get(1) else { return Vec::new() };
        let at = files.iter().flat_map(Range::clone);
        at.map(|at| String::from_utf8(context.tree().get(at).unwrap().path.clone()).unwrap()).collect()
    }
}

fn uses(sources: &[&str]) -> Vec<Use> {
    let one = |s: &&str| Use { sources: vec![s.as_bytes().to_vec()], ..Use::default() };
    sources.iter().map(one).collect()
}

fn all(context: &Context) -> Vec<Selected> {
    select(context.tree(), &["."], &SelectOptions::default()).unwrap()
}

fn read(context: &Context, path: &str) -> String {
    let mut text = String::new();
    let at = context.tree().find(path.as_bytes()).unwrap();
    context.open_file(at).unwrap().read_to_string(&mut text).unwrap();
    text
}

const SOME: &[(&str, &str)] = &[("a", "1"), ("d/b", "22"), ("d/e/c", "333"), ("z", ""), ("l->a", "")];

#[test]
fn what_arrives_is_what_is_there() {
    let rig = Rig::new();
    make(&rig.context(), SOME);
    let big: String = (0..200_000).map(|n| char::from(b'a' + u8::try_from(n % 23).unwrap())).collect();
    fs::write(rig.context().join("big"), &big).unwrap();
    fs::set_permissions(rig.context().join("a"), fs::Permissions::from_mode(0o4751)).unwrap();
    let value =
        rustix::fs::setxattr(rig.context().join("d"), "user.x", b"y\0z", rustix::fs::XattrFlags::empty());
    value.unwrap();
    let (got, disk) = (
        rig.share(&["."], Duration::ZERO).unwrap(),
        Context::open(&rig.context(), &Ignore::default()).unwrap(),
    );
    assert_eq!(got.hash(&all(&got)).unwrap(), {
        let options = Options { owner: Some((0, 0)), ..Options::default() };
        let disk = Context::walk(Root::open(&rig.context()).unwrap(), &Ignore::default(), &options).unwrap();
        disk.hash(&all(&disk)).unwrap()
    });
    for (a, b) in got.entries().iter().zip(disk.entries()) {
        assert_eq!(
            (&a.path, a.kind, a.mode, a.size, a.mtime, &a.link),
            (&b.path, b.kind, b.mode, b.size, b.mtime, &b.link)
        );
    }
    assert_eq!(got.entries().len(), disk.entries().len());
    assert_eq!((read(&got, "big"), read(&got, "d/e/c"), read(&got, "z")), (big, "333".into(), String::new()));
    let d = got.tree().find(b"d").unwrap();
    assert_eq!(got.attributes(d).unwrap(), [(b"user.x".to_vec(), b"y\0z".to_vec())]);
}

#[test]
fn only_what_changed_is_sent_again() {
    let rig = Rig::new();
    make(&rig.context(), SOME);
    std::thread::sleep(Duration::from_millis(20));
    let first = rig.share(&["."], Duration::ZERO).unwrap();
    assert_eq!(rig.sent(&first), ["", "a", "d", "d/b", "d/e", "d/e/c", "z"]);
    let again = rig.share(&["."], Duration::ZERO).unwrap();
    assert_eq!(rig.sent(&again), [""; 0]);
    assert_eq!(again.hash(&all(&again)).unwrap(), first.hash(&all(&first)).unwrap());
    fs::write(rig.context().join("d/b"), "44").unwrap();
    fs::set_permissions(rig.context().join("z"), fs::Permissions::from_mode(0o600)).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let changed = rig.share(&["."], Duration::ZERO).unwrap();
    assert_eq!(rig.sent(&changed), ["d/b", "z"]);
    assert_eq!((read(&changed, "d/b"), read(&again, "d/b")), ("44".into(), "22".into()));
    assert_ne!(changed.hash(&all(&changed)).unwrap(), first.hash(&all(&first)).unwrap());
}

#[test]
fn only_what_is_used_is_walked_and_sent() {
    let rig = Rig::new();
    make(&rig.context(), SOME);
    let got = rig.share(&["l", "d/*"], Duration::ZERO).unwrap();
    assert_eq!(rig.sent(&got), ["a", "d/b", "d/e", "d/e/c"]);
    assert!(got.tree().find(b"z").is_none());
    // A source that is not there is the step's affair.
    let none = rig.share(&["none"], Duration::ZERO).unwrap();
    assert_eq!(none.entries(), []);
    assert!(select(none.tree(), &["none"], &SelectOptions::default()).is_err());
}

#[test]
fn a_file_that_was_just_written_is_not_remembered() {
    let rig = Rig::new();
    make(&rig.context(), SOME);
    let hour = Duration::from_secs(3600);
    for _ in 0..2 {
        let got = rig.share(&["a"], hour).unwrap();
        assert_eq!(rig.sent(&got), ["a"]);
    }
    // Nor one from the future.
    let future = std::time::SystemTime::now() + hour;
    fs::File::open(rig.context().join("a")).unwrap().set_modified(future).unwrap();
    for _ in 0..2 {
        let got = rig.share(&["a"], Duration::ZERO).unwrap();
        assert_eq!(rig.sent(&got), ["a"]);
    }
}

#[test]
fn what_cannot_be_sent_is_told_by_its_name() {
    let rig = Rig::new();
    make(&rig.context(), SOME);
    let fifo = rig.context().join("d/p");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let error = rig.share(&["."], Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("\"d/p\" is a named pipe"), "{error}");
    // Who does not use it is not bothered.
    assert!(rig.share(&["a"], Duration::ZERO).is_ok());
}

/// A client that sends anything at all.
fn hostile(frames: &[u8]) -> String {
    let rig = Rig::new();
    let (mut here, mut there) = UnixStream::pair().unwrap();
    there.write_all(frames).unwrap();
    drop(there);
    let record = rig.pool.record(&longshore_oci::Digest::of(b"x"));
    let got = receive(&rig.pool, &record, &uses(&["."]), &mut here, &|_| ());
    got.map(|_| ()).unwrap_err().to_string()
}

fn frame(tag: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn entry(path: &str, kind: u8) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend_from_slice(&u16::try_from(path.len()).unwrap().to_le_bytes());
    out.extend_from_slice(path.as_bytes());
    out.push(kind);
    out.extend_from_slice(&[0; 8 + 12 + 12 + 8 + 4]);
    out
}

#[test]
fn a_client_that_lies_gets_an_error() {
    let list = |entries: &[(&str, u8)]| {
        let all: Vec<u8> = entries.iter().flat_map(|(path, kind)| entry(path, *kind)).collect();
        let mut out = frame(1, &all);
        out.extend(frame(2, &(entries.len() as u64).to_le_bytes()));
        out
    };
    let root = ("", b'd');
    for bad in [
        list(&[]),
        list(&[("a", b'f')]),
        list(&[("", b'f')]),
        list(&[root, root]),
        list(&[root, ("..", b'd')]),
        list(&[root, ("a/../b", b'f')]),
        list(&[root, ("/a", b'f')]),
        list(&[root, ("a/b", b'f')]),
        list(&[root, ("a", b'f'), ("a/b", b'f')]),
        list(&[root, ("b", b'f'), ("a", b'f')]),
        list(&[root, ("a", b'f'), ("a", b'd')]),
        list(&[root, ("a\0b", b'f')]),
        list(&[root, ("a", b'x')]),
        frame(2, &[0; 8]),
        [frame(1, &entry("", b'd')), frame(2, &[2; 8])].concat(),
        frame(1, &[1, 2, 3]),
        frame(3, &[]),
    ] {
        let error = hostile(&bad);
        assert!(error.contains("malformed") || error.contains("something else"), "{error}");
    }
    assert!(hostile(&[1, 255, 255, 255, 255]).contains("frame of 4294967295 bytes"));
    assert!(hostile(&[1, 2]).contains("went away"));
    assert_eq!(hostile(&frame(6, b"open a: no")), "open a: no");
    // Files that were not asked for, and attributes that no image gets.
    let one = list(&[root, ("a", b'f')]);
    let head = |place: u32, name: &[u8]| {
        let mut out = place.to_le_bytes().to_vec();
        out.extend_from_slice(&[0; 8 + 12 + 12 + 8 + 4]);
        if !name.is_empty() {
            out.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
            out.extend_from_slice(name);
            out.extend_from_slice(&[0; 4]);
        }
        frame(3, &out)
    };
    for bad in [head(1, b""), head(0, b"trusted.overlay.opaque"), head(0, b"user.overlay.opaque")] {
        let error = hostile(&[one.clone(), bad].concat());
        assert!(error.contains("in a wrong way"), "{error}");
    }
    let error = hostile(&[one, head(0, b""), frame(4, b"x")].concat());
    assert!(error.contains("something else"), "bytes of a directory: {error}");
}
