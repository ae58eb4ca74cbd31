//! Images in and out.

use crate::harness::{Daemon, fixture};

#[test]
fn privileged_save_then_load_gives_the_same_image() {
    let d = Daemon::start();
    d.load("nginx");
    let id = d.inspect("{{.Id}}", "nginx");
    let layers = d.inspect("{{json .RootFS.Layers}}", "nginx");
    let file = d.dir().join("saved.tar");
    d.docker(["save", "-o", file.to_str().expect("utf-8"), "nginx"]).ok();
    d.docker(["rmi", "nginx"]).ok();
    assert_eq!(d.docker(["images", "-q"]).ok(), "");
    d.docker(["load", "-i", file.to_str().expect("utf-8")]).ok();
    assert_eq!((d.inspect("{{.Id}}", "nginx"), d.inspect("{{json .RootFS.Layers}}", "nginx")), (id, layers));
    d.finish();
}

#[test]
fn privileged_tag_and_rmi() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["tag", "busybox", "foo/bar:1"]).ok();
    assert_eq!(d.docker(["rmi", "foo/bar:1"]).ok(), "Untagged: foo/bar:1");
    d.docker(["create", "--name", "user", "busybox"]).ok();
    assert!(d.docker(["rmi", "busybox"]).fails(1).contains("(must force) - container"));
    d.docker(["rm", "user"]).ok();
    assert!(d.docker(["rmi", "busybox"]).ok().contains("Deleted: sha256:"));
    assert!(
        d.docker(["run", "--pull=never", "busybox", "true"])
            .fails(125)
            .contains("No such image: busybox:latest")
    );
    d.finish();
}

#[test]
fn privileged_import_export_commit() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "--name", "box", "busybox", "sh", "-c", "echo text > /made; rm /bin/wget"]).ok();
    d.docker(["commit", "-c", "CMD cat /made", "-a", "me", "-m", "why", "box", "made:1"]).ok();
    assert_eq!(d.docker(["run", "--rm", "made:1"]).ok(), "text");
    assert_eq!(
        d.docker(["run", "--rm", "made:1", "sh", "-c", "ls /bin/wget 2>/dev/null || echo gone"]).ok(),
        "gone"
    );
    assert_eq!(d.inspect("{{.Author}} {{.Comment}}", "made:1"), "me why");
    assert_eq!(d.inspect("{{len .RootFS.Layers}}", "made:1"), "2");
    let file = d.dir().join("tree.tar");
    d.docker(["export", "-o", file.to_str().expect("utf-8"), "box"]).ok();
    d.docker(["import", "--change", "CMD [\"cat\", \"/made\"]", file.to_str().expect("utf-8"), "imported:1"])
        .ok();
    assert_eq!(d.docker(["run", "--rm", "imported:1"]).ok(), "text");
    d.finish();
}

#[test]
fn privileged_atk_20_broken_archives_leave_nothing() {
    let d = Daemon::start();
    let whole = std::fs::read(fixture("busybox")).expect("fixture");
    for (what, bytes) in
        [("truncated", whole[..whole.len() / 2].to_vec()), ("noise", vec![0x5a; 4096]), ("empty", Vec::new())]
    {
        let file = d.dir().join("bad.tar");
        std::fs::write(&file, bytes).expect("write");
        let done = d.docker(["load", "-i", file.to_str().expect("utf-8")]);
        assert_ne!(done.code, 0, "{what}: {}", done.stdout);
    }
    assert_eq!(d.docker(["images", "-aq"]).ok(), "");
    let layers: Vec<_> = std::fs::read_dir(d.data_root().join("overlay2"))
        .expect("overlay2")
        .flatten()
        .filter(|e| e.file_name() != "l")
        .collect();
    assert!(layers.is_empty(), "layers are left: {layers:?}");
    d.finish();
}
