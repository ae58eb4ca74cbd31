//! Stores in temporary folders, and archives made by hand.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

pub mod agree;
pub mod audit;
pub mod trees;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use longshore_oci::Digest;
use longshore_store::archive;
use longshore_store::snapshot::DriverName;
use longshore_store::{Error, Store, StoreOptions};
use tempfile::TempDir;

pub struct Bench {
    pub dir: TempDir,
    pub store: Store,
}

pub fn bench(driver: DriverName) -> Bench {
    let dir = tempfile::Builder::new().prefix("longshore-store-").tempdir().unwrap();
    let store =
        Store::open(&dir.path().join("data"), &StoreOptions { driver: Some(driver), sync: false }).unwrap();
    Bench { dir, store }
}

pub fn sh(dir: &Path, script: &str) {
    let out = Command::new("sh").arg("-ec").arg(script).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A docker-archive of the given layer tars, made by hand.
pub fn docker_archive(dir: &Path, layers: &[PathBuf], tag: &str, lie: bool) -> PathBuf {
    let mut diff_ids: Vec<String> =
        layers.iter().map(|l| Digest::of(&fs::read(l).unwrap()).to_string()).collect();
    if lie {
        diff_ids[0] = Digest::of(b"another layer").to_string();
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| serde_json::json!({"created_by": "step"})).collect::<Vec<_>>(),
    });
    let work = dir.join(format!("archive-{}", tag.replace([':', '/'], "-")));
    fs::create_dir_all(&work).unwrap();
    fs::write(work.join("config.json"), config.to_string()).unwrap();
    let mut names = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        fs::copy(layer, work.join(format!("{i}.tar"))).unwrap();
        names.push(format!("{i}.tar"));
    }
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]);
    fs::write(work.join("manifest.json"), manifest.to_string()).unwrap();
    let out = dir.join(format!("{}.tar", work.file_name().unwrap().to_str().unwrap()));
    sh(&work, &format!("tar -cf {} *", out.display()));
    out
}

pub fn load(store: &Store, archive: &Path) -> Result<Vec<archive::Loaded>, Error> {
    archive::load(store, fs::File::open(archive).unwrap(), &|_| {})
}

/// Two layers with everything that a layer may hold.
pub fn layers(dir: &Path) -> Vec<PathBuf> {
    sh(
        dir,
        "mkdir -p l0/etc l0/dir l0/gone l0/bin; echo one > l0/etc/file; echo keep > l0/dir/old; echo x > l0/gone/x
         ln l0/etc/file l0/etc/hard; ln -s ../etc/file l0/dir/link; mknod l0/dir/null c 1 3; mkfifo l0/dir/fifo
         cp /bin/true l0/bin/su; chown 12:34 l0/bin/su; chmod 4755 l0/bin/su; setcap cap_net_raw=ep l0/bin/su; setfattr -n user.note -v hi l0/etc/file
         truncate -s 1M l0/dir/sparse; echo end >> l0/dir/sparse; touch -d '2001-02-03 04:05:06.123456789' l0/dir/old
         mkdir -p \"l0/$(printf %0200d 7)\"; touch \"l0/$(printf %0200d 7)/$(printf %0200d 8)\"
         tar --xattrs --xattrs-include='*' --format=pax -C l0 -cf 0.tar .
         mkdir -p l1/dir l1/etc; touch l1/.wh.gone l1/dir/.wh..wh..opq; echo new > l1/dir/new; echo two > l1/etc/file
         tar --format=pax -C l1 -cf 1.tar .",
    );
    vec![dir.join("0.tar"), dir.join("1.tar")]
}
