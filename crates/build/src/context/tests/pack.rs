use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

fn packed(context: &Context, extra: &[Extra]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    pack(context, extra, &mut out)?;
    Ok(out)
}

/// What an archive holds: kind, name, and content or target.
fn listed(archive: &[u8]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack(archive, &dir.path().join("x"), &UnpackOptions::default()).unwrap();
    let context = Context::open(&unpacked.root, &Ignore::default()).unwrap();
    let entries = context.entries().iter().map(|e| {
        let path = text(&e.path);
        let content = || String::from_utf8(fs::read(unpacked.root.join(&path)).unwrap()).unwrap();
        match e.kind {
            EntryKind::Dir => format!("{path}/"),
            EntryKind::Symlink => format!("{path} -> {}", text(&e.link)),
            _ => format!("{path}: {}", content()),
        }
    });
    entries.collect()
}

#[test]
fn a_context_arrives_as_it_is() {
    let (dir, _) = tree(&["a/b", "a/c/d", "z", "l->a/b"]);
    let long = "n".repeat(200);
    fs::write(dir.path().join(&long), "long").unwrap();
    fs::hard_link(dir.path().join("z"), dir.path().join("zz")).unwrap();
    fs::set_permissions(dir.path().join("a/b"), fs::Permissions::from_mode(0o4750)).unwrap();
    let _socket = UnixListener::bind(dir.path().join("s")).unwrap();
    let context = Context::open(dir.path(), &Ignore::parse(b"a/c\n").unwrap()).unwrap();
    let bytes = packed(&context, &[]).unwrap();
    assert_eq!(listed(&bytes), ["a/", "a/b: a/b", "l -> a/b", &format!("{long}: long"), "z: z", "zz: z"]);
    assert_eq!(packed(&context, &[]).unwrap(), bytes, "the same again");
    let to = dir.path().join("to");
    let root = unpack(&bytes[..], &to, &UnpackOptions::default()).unwrap().root;
    let [before, after] = [dir.path(), &root].map(|d| fs::metadata(d.join("a/b")).unwrap());
    assert_eq!((after.mode() & 0o7777, after.mtime_nsec()), (0o4750, before.mtime_nsec()));
    assert_eq!(after.mtime(), before.mtime());
    let owners = bytes[108..124].iter().all(|b| *b == b'0' || *b == 0);
    assert!(owners, "everything belongs to root");
}

#[test]
fn files_are_added_and_replaced() {
    let (_dir, context) = tree(&["a", "b"]);
    let extra = |path: &str, content: &str| Extra { path: path.into(), content: content.into() };
    let bytes = packed(&context, &[extra(".x", "1"), extra("b", "2")]).unwrap();
    assert_eq!(listed(&bytes), [".x: 1", "a: a", "b: 2"]);
    let mut alone = Vec::new();
    pack_files(&[extra("Dockerfile", "FROM x")], &mut alone).unwrap();
    assert_eq!(listed(&alone), ["Dockerfile: FROM x"]);
}

#[test]
fn what_cannot_be_sent_is_named() {
    let (dir, _) = tree(&["a"]);
    mknodat(CWD, dir.path().join("p"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let context = Context::open(dir.path(), &Ignore::default()).unwrap();
    assert_eq!(
        packed(&context, &[]).unwrap_err().to_string(),
        "\"p\" is a named pipe, which a context cannot hold: exclude it with a .dockerignore file"
    );
    let context = Context::open(dir.path(), &Ignore::parse(b"p\n").unwrap()).unwrap();
    fs::remove_file(dir.path().join("a")).unwrap();
    let error = packed(&context, &[]).unwrap_err();
    assert!(matches!(&error, Error::Changed(path) if path == "a"), "{error}");
}

/// Changes a file once its first bytes have arrived.
struct Meddler<F: FnMut()> {
    out: Vec<u8>,
    meddle: Option<F>,
}

impl<F: FnMut()> Write for Meddler<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.extend_from_slice(bytes);
        if self.out.len() > 200_000
            && let Some(mut meddle) = self.meddle.take()
        {
            meddle();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn files_that_change_their_size_meanwhile() {
    let (dir, _) = tree(&["a"]);
    let path = dir.path().join("a");
    let pack_while = |meddle: &dyn Fn()| {
        fs::write(&path, vec![b'x'; 1_000_000]).unwrap();
        let context = Context::open(dir.path(), &Ignore::default()).unwrap();
        let mut out = Meddler { out: Vec::new(), meddle: Some(meddle) };
        pack(&context, &[], &mut out).map(|()| out.out)
    };
    let longer = pack_while(&|| {
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&[b'y'; 100_000]).unwrap();
    });
    let sent = listed(&longer.unwrap());
    assert_eq!(sent, [format!("a: {}", "x".repeat(1_000_000))]);
    let shorter = pack_while(&|| fs::File::create(&path).map(drop).unwrap());
    assert!(matches!(shorter, Err(Error::Changed(path)) if path == "a"));
}

#[test]
fn a_receiver_that_has_gone_is_told_apart() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_dir, context) = tree(&["a"]);
    assert!(
        matches!(pack(&context, &[], Gone), Err(Error::Send(e)) if e.kind() == std::io::ErrorKind::BrokenPipe)
    );
}
