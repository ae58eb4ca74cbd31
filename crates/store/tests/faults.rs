//! A fault at every step: a store is driven by a process of its own under strace, which kills it before, or refuses,
//! the n-th call of each system call that changes something. What is left must be whole or absent, a repetition must
//! succeed, and a restart must find nothing to complain of. `LONGSHORE_LONG=1` tries every call, else a sample.
//! Needs root and strace.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use longshore_oci::image::{ImageDocument, RootFs};
use longshore_oci::{Digest, IdMap};
use longshore_store::archive;
use longshore_store::snapshot::DriverName;
use longshore_store::{Error, Store, StoreOptions};
use tempfile::TempDir;

use common::audit::audit;
use common::{docker_archive, load, sh};

/// System calls that change something on disk, or in the table of mounts.
const CHANGING: &str = "openat,write,pwrite64,writev,ftruncate,fallocate,mkdir,mkdirat,mknodat,symlink,symlinkat,link,linkat,\
    rename,renameat,renameat2,unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,fchown,fchownat,lchown,fsetxattr,lsetxattr,setxattr,\
    utimensat,fsync,fdatasync,syncfs,copy_file_range,sendfile,mount,umount2,fsconfig,fsmount,move_mount";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Load,
    Create,
    Run,
    Commit,
    Keep,
    Rm,
    Rmi,
}

impl Step {
    const ALL: [Self; 7] =
        [Self::Load, Self::Create, Self::Run, Self::Commit, Self::Keep, Self::Rm, Self::Rmi];

    fn name(self) -> String {
        format!("{self:?}")
    }
}

fn open(root: &Path, driver: DriverName) -> Result<Store, Error> {
    Store::open(root, &StoreOptions { driver: Some(driver), sync: true })
}

fn the_image(store: &Store) -> Digest {
    store.images().resolve("f:1").unwrap().id
}

/// Brings the store to where `step` starts from, also from where a fault left it.
fn before(store: &Store, step: Step, archive: &Path) -> Result<(), Error> {
    for name in store.rw_containers()? {
        store.unmount_rw(&name)?;
    }
    if step == Step::Load {
        return Ok(());
    }
    if store.images().resolve("f:1").is_err() {
        load(store, archive)?;
    }
    store.remove_rw("d")?;
    if step == Step::Keep {
        // What it wrote may be gone after a failure.
        store.remove_rw("c")?;
    }
    let there = store.rw_containers()?.iter().any(|c| c == "c");
    if step == Step::Create && there {
        store.remove_rw("c")?;
    }
    if matches!(step, Step::Commit | Step::Keep | Step::Rm) && !there {
        store.create_rw("c", Some(&the_image(store)))?;
        let tree = store.mount_rw("c", &IdMap::default())?;
        sh(&tree, "echo new > made; rm etc/file; mkdir d; mv d e; chmod 700 etc");
        store.unmount_rw("c")?;
    }
    Ok(())
}

fn take(store: &Store, step: Step, archive: &Path) -> Result<(), Error> {
    match step {
        Step::Load => load(store, archive).map(drop),
        Step::Create => store.create_rw("c", Some(&the_image(store))).map(drop),
        Step::Run => {
            store.create_rw("d", Some(&the_image(store)))?;
            let done = store.mount_rw("d", &IdMap::default()).and_then(|_| store.unmount_rw("d"));
            done.and(store.remove_rw("d"))
        }
        Step::Commit => archive::commit(store, "c", Some(&the_image(store)), None, |new| ImageDocument {
            architecture: "amd64".into(),
            os: "linux".into(),
            rootfs: RootFs { kind: "layers".into(), diff_ids: new.diff_ids.clone() },
            ..ImageDocument::default()
        })
        .map(drop),
        Step::Keep => {
            let lease = store.lease("test")?;
            store.keep_step(&Digest::of(b"step"), "c", "RUN x", &lease).map(drop)
        }
        Step::Rm => store.remove_rw("c"),
        Step::Rmi => store.images().remove(&the_image(store)).map(drop),
    }
}

/// What a store holds when `step` has been taken, and after it was emptied: nothing.
fn complete_and_clear(store: &Store, step: Step, archive: &Path, what: &str) {
    for name in store.rw_containers().unwrap() {
        store.unmount_rw(&name).unwrap();
        if name == "d" {
            store.remove_rw(&name).unwrap();
        }
    }
    assert_eq!(audit(store), Vec::<String>::new(), "{what}: after a restart");
    before(store, step, archive).unwrap_or_else(|e| panic!("{what}: before it once more: {e}"));
    take(store, step, archive).unwrap_or_else(|e| panic!("{what}: once more: {e}"));
    assert_eq!(audit(store), Vec::<String>::new(), "{what}: after it was repeated");
    for name in store.rw_containers().unwrap() {
        store.remove_rw(&name).unwrap();
    }
    let steps: Vec<Digest> = store.steps().unwrap().into_iter().map(|(key, _)| key).collect();
    store.drop_steps(&steps).unwrap();
    for image in store.images().list().unwrap() {
        store.images().remove(&image.id).unwrap();
    }
    assert_eq!(audit(store), Vec::<String>::new(), "{what}: when all was removed");
    assert_eq!(store.content().list().unwrap(), [], "{what}");
    assert_eq!(store.driver().list().unwrap(), Vec::<String>::new(), "{what}");
}

/// The process under strace: takes one step, and once more where it failed. Without its variables it takes every step
/// here, without faults.
#[test]
fn privileged_steps() {
    let Some(step) = std::env::var_os("FAULT_STEP") else {
        for driver in [DriverName::Overlay2, DriverName::Vfs] {
            for step in Step::ALL {
                let disk = Disk::new(64);
                let archive = disk.archive();
                let store = open(&disk.root(), driver).unwrap();
                before(&store, step, &archive).unwrap();
                complete_and_clear(&store, step, &archive, &format!("{step:?} {driver}"));
            }
        }
        return;
    };
    let step = Step::ALL.into_iter().find(|s| *s.name() == *step).unwrap();
    let var = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let (root, archive) = (var("FAULT_ROOT"), var("FAULT_ARCHIVE"));
    let driver = var("FAULT_DRIVER").to_str().unwrap().parse().unwrap();
    let store = open(&root, driver).or_else(|e| {
        println!("FAULT: {e}");
        open(&root, driver)
    });
    let store = store.unwrap_or_else(|e| panic!("opened again: {e}"));
    let mut done = take(&store, step, &archive);
    // The store is of use without a restart. Every thread has its n-th call, so more than one may fail.
    for _ in 0..8 {
        let Err(e) = done else { return };
        println!("FAULT: {e}");
        done = before(&store, step, &archive).and_then(|()| take(&store, step, &archive));
    }
    println!("PERSISTS: {done:?}");
}

/// A file system in memory of its own.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn new(megabytes: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("longshore-fault-").tempdir().unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        let disk = Self { dir };
        sh(disk.dir.path(), &format!("mount -t tmpfs -o size={megabytes}m,mode=700 longshore disk"));
        disk
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("disk/data")
    }

    /// Two layers, one of them compressed, with what layers have.
    fn archive(&self) -> PathBuf {
        let dir = self.dir.path();
        sh(
            dir,
            "mkdir -p l0/etc l0/gone l0/bin l1/etc; echo one > l0/etc/file; ln l0/etc/file l0/etc/hard
             ln -s ../etc/file l0/bin/link; mknod l0/null c 1 3; cp /bin/true l0/bin/su; chmod 4755 l0/bin/su
             setcap cap_net_raw=ep l0/bin/su; echo x > l0/gone/x; touch l1/.wh.gone; echo two > l1/etc/file
             head -c 300000 /dev/urandom > l1/big
             tar --xattrs --xattrs-include='*' --format=pax -C l0 -cf 0.tar .; tar --format=pax -C l1 -cf 1.tar .",
        );
        let plain = docker_archive(dir, &[dir.join("0.tar"), dir.join("1.tar")], "f:1", false);
        sh(&plain.with_extension(""), "gzip -n 1.tar; mv 1.tar.gz 1.tar; tar -cf ../mixed.tar *");
        dir.join("mixed.tar")
    }

    /// A store that is ready for `step`, to be copied.
    fn template(&self, step: Step, driver: DriverName, archive: &Path) -> PathBuf {
        let root = self.dir.path().join("disk/template");
        let store = open(&root, driver).unwrap();
        before(&store, step, archive).unwrap();
        drop(store);
        root
    }

    /// Takes `step` on a fresh copy of the template in a process of its own under strace.
    fn traced(&self, step: Step, driver: DriverName, archive: &Path, inject: &[String]) -> (Output, String) {
        sh(self.dir.path(), "rm -rf disk/data; cp -a disk/template disk/data");
        let log = self.dir.path().join("strace.log");
        let output = Command::new("strace")
            .args(["-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-o"])
            .arg(&log)
            .args(inject)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "privileged_steps", "--nocapture", "--test-threads=1"])
            .env("FAULT_STEP", step.name())
            .env("FAULT_ROOT", self.root())
            .env("FAULT_ARCHIVE", archive)
            .env("FAULT_DRIVER", driver.as_str())
            .output()
            .expect("strace: `make test` installs it");
        (output, fs::read_to_string(log).unwrap_or_default())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let disk = self.dir.path().join("disk");
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = disk.to_string_lossy().into_owned();
        let mounts: Vec<&str> =
            table.lines().filter_map(|l| l.split(' ').nth(1)).filter(|m| m.starts_with(&below)).collect();
        for mount in mounts.iter().rev() {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}

/// The calls of a step: how often each system call is made by the thread that makes it most.
fn calls(log: &str) -> BTreeMap<String, u32> {
    let mut by_thread: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            *by_thread.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), n) in by_thread {
        let entry = most.entry(call.to_owned()).or_insert(0);
        *entry = n.max(*entry);
    }
    most
}

/// Which calls get a fault: all, or a sample.
fn points(calls: &BTreeMap<String, u32>, sample: usize) -> Vec<(String, u32)> {
    let all: Vec<(String, u32)> =
        calls.iter().flat_map(|(call, n)| (1..=*n).map(move |i| (call.clone(), i))).collect();
    if std::env::var_os("LONGSHORE_LONG").is_some() || all.len() <= sample {
        return all;
    }
    (0..sample).map(|i| all[(2 * i + 1) * all.len() / (2 * sample)].clone()).collect()
}

/// Whether a call that was refused could be, and is the store's: not the test framework's output, not the archive, not
/// the randomness of the system.
fn is_ours(line: &str, fault: &str) -> bool {
    let foreign = [" write(1,", " write(2,", "mixed.tar", "\"/dev/", "\"/proc/", "\"/sys/"];
    let reads = line.contains(" openat(") && !line.contains("O_CREAT");
    !(foreign.iter().any(|f| line.contains(f)) || reads && fault.contains("ENOSPC"))
}

fn faults(step: Step, driver: DriverName, fault: &str, sample: usize) {
    let disk = Disk::new(64);
    let archive = disk.archive();
    disk.template(step, driver, &archive);
    let (output, log) = disk.traced(step, driver, &archive, &["-e".into(), format!("trace={CHANGING}")]);
    assert!(output.status.success(), "{output:?}");
    for (call, n) in points(&calls(&log), sample) {
        let inject =
            ["-e".into(), format!("trace={call}"), "-e".into(), format!("inject={call}:{fault}:when={n}")];
        let (output, log) = disk.traced(step, driver, &archive, &inject);
        if log.lines().filter(|l| l.contains("(INJECTED)")).any(|l| !is_ours(l, fault)) {
            continue;
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let what = format!("{step:?} {driver} {fault} {call} {n}");
        let died = fault.starts_with("signal") && !output.status.success();
        assert!(
            died || output.status.success(),
            "{what}: {said}\n{}\n{log}",
            String::from_utf8_lossy(&output.stderr)
        );
        // A thread that lives as long as an attempt gets its fault each time.
        let injected = log.matches("(INJECTED)").count();
        assert!(!said.contains("PERSISTS") || injected > 8, "{what}: {said}");
        for line in said.lines().filter(|l| l.contains("FAULT: ") && fault.contains("ENOSPC")) {
            assert!(line.to_lowercase().contains("no space left on device"), "{what}: {line}");
        }
        let store = open(&disk.root(), driver).unwrap_or_else(|e| panic!("{what}: {e}"));
        complete_and_clear(&store, step, &archive, &what);
    }
}

macro_rules! faults {
    ($($name:ident: $step:ident,)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn privileged_atk_55_killed() {
                faults(Step::$step, DriverName::Overlay2, "signal=KILL", 6);
            }

            #[test]
            fn privileged_atk_54_disk_full() {
                faults(Step::$step, DriverName::Overlay2, "error=ENOSPC", 6);
            }

            #[test]
            fn privileged_atk_54_input_output_error() {
                faults(Step::$step, DriverName::Overlay2, "error=EIO", 3);
            }

            #[test]
            fn privileged_atk_54_disk_full_vfs() {
                faults(Step::$step, DriverName::Vfs, "error=ENOSPC", 2);
            }

            #[test]
            fn privileged_atk_55_killed_vfs() {
                faults(Step::$step, DriverName::Vfs, "signal=KILL", 2);
            }
        }
    )*};
}

faults! {
    load_image: Load,
    create_container: Create,
    run_container: Run,
    commit_image: Commit,
    remove_container: Rm,
    remove_image: Rmi,
}
