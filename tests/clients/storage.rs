//! Names, filters and configurations of images as Docker has them, and the driver that copies.

use std::fs;

use crate::harness::{Daemon, fixture};

#[test]
fn privileged_changes_of_a_commit_see_the_environment() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["create", "--name", "box", "-e", "A=1", "-w", "/srv", "busybox", "echo", "base"]).ok();
    let commit = |changes: &[&str]| {
        let mut args = vec!["commit"];
        changes.iter().for_each(|c| args.extend(["-c", c]));
        args.extend(["box", "made"]);
        d.docker(args)
    };
    commit(&[
        "ENV PATH=$PATH:/x B=${NO:-$A}",
        "LABEL a=$A",
        "WORKDIR sub",
        "CMD [\"y\"]",
        "ENTRYPOINT [\"x\"]",
    ])
    .ok();
    let config = d.inspect("{{json .Config.Env}} {{json .Config.Labels}} {{.Config.WorkingDir}}", "made");
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/x";
    assert_eq!(config, format!(r#"["A=1","PATH={path}","B=1"] {{"a":"1"}} /srv/sub"#));
    assert_eq!(d.inspect("{{.Config.Entrypoint}} {{.Config.Cmd}}", "made"), "[x] [y]");
    // Nothing was changed: no layer.
    assert_eq!(d.inspect("{{len .RootFS.Layers}}", "made"), "1");
    for (bad, why) in [
        ("ENV A=\"open", "matching double-quote"),
        ("# nothing", "file with no instructions"),
        ("SHELL [\"x\"]", "SHELL is not a valid change command"),
    ] {
        let said = commit(&[bad]).fails(1);
        assert!(said.contains(why), "{bad}: {said}");
    }
    d.finish();
}

/// The answer comes before the body was read: the client must get it all the same.
#[test]
fn privileged_a_refused_upload_says_why() {
    let d = Daemon::start();
    let big = d.dir().join("big.tar");
    fs::write(&big, vec![0u8; 8 << 20]).expect("write");
    for _ in 0..20 {
        let said = d.docker(["import", "-c", "BOGUS x", big.to_str().expect("utf-8")]).fails(1);
        assert!(said.contains("BOGUS is not a valid change command"), "{said}");
    }
    d.finish();
}

#[test]
fn privileged_rmi_refuses_what_docker_refuses() {
    let d = Daemon::start();
    d.load("busybox");
    let id = d.inspect("{{.Id}}", "busybox");
    d.docker(["tag", "busybox", "busybox:2"]).ok();
    assert!(d.docker(["rmi", &id]).fails(1).contains("referenced in multiple repositories"));
    d.docker(["rmi", "busybox:2"]).ok();
    // One that others were made from, by force or not.
    d.docker(["run", "--name", "box", "busybox", "touch", "/x"]).ok();
    d.docker(["commit", "box", "child"]).ok();
    d.docker(["rm", "box"]).ok();
    for args in [vec!["rmi", &id], vec!["rmi", "-f", &id]] {
        let said = d.docker(args).fails(1);
        assert!(said.contains("(cannot be forced) - image has dependent child images"), "{said}");
    }
    assert_eq!(d.docker(["rmi", "busybox"]).ok(), "Untagged: busybox:latest");
    assert_eq!(d.docker(["rmi", "child"]).ok().matches("Deleted: ").count(), 4, "with its parent");
    // A stopped container is in the way, but not of force, and goes on.
    d.load("busybox");
    d.docker(["create", "--name", "box", "busybox", "echo", "still"]).ok();
    assert!(d.docker(["rmi", &id]).fails(1).contains("(must be forced) - image is being used by stopped"));
    assert!(d.docker(["rmi", "-f", &id]).ok().contains("Deleted: sha256:"));
    assert_eq!(d.docker(["images", "-aq"]).ok(), "");
    assert_eq!(d.docker(["start", "-a", "box"]).ok(), "still");
    assert!(d.docker(["commit", "box", "made"]).fails(1).contains("No such image: sha256:"));
    d.docker(["rm", "box"]).ok();
    d.finish();
}

#[test]
fn privileged_names_and_filters_of_images() {
    let d = Daemon::start();
    d.load("busybox");
    assert!(d.docker(["tag", "busybox", "sha256:1"]).fails(1).contains("ambiguous tag"));
    d.docker(["tag", "busybox", "zoo/x:1"]).ok();
    d.docker(["tag", "busybox", "localhost:5000/a"]).ok();
    // By their full names: docker.io/library/busybox stands before docker.io/zoo/x.
    assert_eq!(d.inspect("{{.RepoTags}}", "busybox"), "[busybox:latest zoo/x:1 localhost:5000/a:latest]");
    for (filter, names) in [
        ("reference=*/x", "zoo/x:1"),
        ("reference=*", "busybox:latest"),
        ("until=2020-01-02", ""),
        ("until=2020-01-02T03:04", ""),
    ] {
        let format = "{{.Repository}}:{{.Tag}}";
        assert_eq!(d.docker(["images", "--filter", filter, "--format", format]).ok(), names, "{filter}");
    }
    for (filter, why) in [("reference=[", "syntax error in pattern"), ("label!=x", "invalid filter 'label!'")]
    {
        let said = d.docker(["images", "--filter", filter]).fails(1);
        assert!(said.contains(why), "{filter}: {said}");
    }
    assert!(d.docker(["save", "nope"]).fails(1).contains("No such image: nope\n"));
    let file = fixture("busybox");
    let said = d.docker(["import", "--platform", "beos/x", file.to_str().expect("utf-8")]).fails(1);
    assert!(said.contains("operating system is not supported"), "{said}");
    d.finish();
}

const CHANGES: &str = "mkdir -p /d/sub/old /e/sub; touch /d/x /d/sub/f /e/sub/f";
const MORE: &str =
    "rm -r /e; echo file > /e; rm -r /d; mkdir -p /d/sub; touch /d/y; rm /bin/wget; ln /d/y /cat";

/// Prints what Docker prints, and gives an image that is the container again.
fn diff_and_commit(d: &Daemon) {
    d.load("busybox");
    d.docker(["run", "--name", "one", "busybox", "sh", "-c", CHANGES]).ok();
    d.docker(["commit", "one", "one"]).ok();
    d.docker(["run", "--name", "two", "-v", "/vol", "one", "sh", "-c", MORE]).ok();
    let diff = d.docker(["diff", "two"]).ok();
    let mut lines: Vec<&str> = diff.lines().collect();
    lines.sort_unstable();
    let want = [
        "A /cat",
        "A /d/y",
        "A /vol",
        "C /bin",
        "C /d",
        "C /d/sub",
        "C /e",
        "D /bin/wget",
        "D /d/sub/f",
        "D /d/sub/old",
        "D /d/x",
    ];
    assert_eq!(lines, want);
    d.docker(["commit", "two", "two"]).ok();
    let look = "cat /e; ls /d /d/sub; test -e /bin/wget || stat -c %h /cat";
    assert_eq!(d.docker(["run", "--rm", "two", "sh", "-c", look]).ok(), "file\n/d:\nsub\ny\n\n/d/sub:\n2");
    let saved = d.dir().join("two.tar");
    let saved = saved.to_str().expect("utf-8");
    d.docker(["save", "-o", saved, "two", "one"]).ok();
    d.docker(["rm", "-v", "one", "two"]).ok();
    let ids = d.docker(["images", "-q", "--no-trunc"]).ok();
    d.docker(["rmi", "two", "one", "busybox"]).ok();
    d.docker(["load", "-q", "-i", saved]).ok();
    let again = d.docker(["images", "-q", "--no-trunc"]).ok();
    assert!(again.lines().all(|id| ids.contains(id)) && again.lines().count() == 2, "{again} of {ids}");
    d.docker(["rmi", "two", "one"]).ok();
}

#[test]
fn privileged_diff_and_commit_with_overlay2() {
    let d = Daemon::start();
    diff_and_commit(&d);
    d.finish();
}

#[test]
fn privileged_diff_and_commit_with_vfs_that_says_why() {
    let d = Daemon::start_with(&["--storage-driver", "vfs"]);
    assert!(d.docker(["info"]).ok().contains("Chosen Because: vfs was asked for"));
    diff_and_commit(&d);
    let left = fs::read_dir(d.data_root().join("vfs/dir")).expect("vfs").count();
    assert_eq!(left, 0);
    d.finish();
}
