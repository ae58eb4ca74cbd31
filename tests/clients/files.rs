//! Files: `cp` both ways, volumes, binds.

use std::fs;

use crate::harness::{Client, Daemon};

#[test]
fn privileged_cp_both_ways() {
    let d = Daemon::start();
    d.load("busybox");
    for (i, client) in [Client::Docker, Client::Longshore].into_iter().enumerate() {
        let name = format!("box{i}");
        let run = |args: &[&str]| d.run(client, args.iter().copied());
        run(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).ok();
        let dir = d.dir().join(format!("local{i}"));
        fs::create_dir_all(dir.join("tree/sub")).expect("folder");
        fs::write(dir.join("tree/sub/file"), "text").expect("file");
        let local = |p: &str| dir.join(p).to_str().expect("utf-8").to_owned();
        let there = |p: &str| format!("{name}:{p}");
        run(&["cp", &local("tree"), &there("/tmp")]).ok();
        assert_eq!(run(&["exec", &name, "cat", "/tmp/tree/sub/file"]).ok(), "text", "{client:?}");
        run(&["cp", &format!("{}/.", local("tree")), &there("/var")]).ok();
        assert_eq!(run(&["exec", &name, "cat", "/var/sub/file"]).ok(), "text");
        run(&["cp", &local("tree/sub/file"), &there("/tmp/renamed")]).ok();
        assert_eq!(run(&["exec", &name, "cat", "/tmp/renamed"]).ok(), "text");
        run(&["cp", &there("/tmp/tree"), &local("back")]).ok();
        assert_eq!(fs::read_to_string(dir.join("back/sub/file")).expect("copied"), "text");
        run(&["cp", &there("/etc/passwd"), &local("")]).ok();
        assert!(fs::read_to_string(dir.join("passwd")).expect("copied").starts_with("root:"));
        // Older clients of Docker name the path in words of their own.
        assert!(run(&["cp", &there("/nosuch"), &local("")]).fails(1).contains("/nosuch"));
        // Stopped containers have files, too.
        run(&["kill", &name]).ok();
        run(&["wait", &name]).ok();
        run(&["cp", &there("/tmp/renamed"), &local("stopped")]).ok();
        assert_eq!(fs::read_to_string(dir.join("stopped")).expect("copied"), "text");
        run(&["cp", &local("stopped"), &there("/late")]).ok();
        assert!(run(&["diff", &name]).ok().contains("A /late"));
    }
    d.finish();
}

#[test]
fn privileged_atk_09_cp_stays_in_the_container() {
    let d = Daemon::start();
    d.load("busybox");
    let canary = d.dir().join("canary");
    fs::write(&canary, "untouched").expect("canary");
    let outside = d.dir().to_str().expect("utf-8");
    let script = format!(
        "mkdir -p /a; ln -s {outside} /a/out; ln -s ../../../../../../../../{outside} /a/up; sleep 1000"
    );
    d.docker(["run", "-d", "--name", "evil", "busybox", "sh", "-c", &script]).ok();
    let file = d.dir().join("file");
    fs::write(&file, "from the host").expect("file");
    for link in ["out", "up"] {
        // Inside, the link leads nowhere: the folder of the host must not be found through it.
        let to = format!("evil:/a/{link}/canary");
        d.docker(["cp", file.to_str().expect("utf-8"), &to]);
        let from = format!("evil:/a/{link}/canary");
        let done = d.docker(["cp", &from, "-"]);
        assert!(!done.stdout.contains("untouched"), "{link}");
    }
    assert_eq!(fs::read_to_string(&canary).expect("canary"), "untouched");
    d.finish();
}

#[test]
fn privileged_volumes_are_filled_kept_and_removed() {
    let d = Daemon::start();
    d.load("nginx");
    d.docker(["run", "--rm", "-v", "data:/srv", "nginx", "sh", "-c", "echo more > /srv/more"]).ok();
    let root = d.inspect("{{.Mountpoint}}", "data");
    assert!(
        fs::read_to_string(format!("{root}/www/index.html"))
            .expect("filled from the image")
            .contains("nginx")
    );
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("{root}/www")).expect("stat"));
    assert_eq!(owner, 33, "with its owners");
    assert_eq!(d.docker(["run", "--rm", "-v", "data:/other", "nginx", "cat", "/other/more"]).ok(), "more");
    d.docker(["run", "-d", "--name", "user", "-v", "data:/srv:ro", "nginx"]).ok();
    assert!(d.docker(["volume", "rm", "data"]).fails(1).contains("volume is in use"));
    assert_eq!(
        d.docker(["exec", "user", "sh", "-c", "touch /srv/x 2>/dev/null || echo refused"]).ok(),
        "refused"
    );
    d.docker(["rm", "-f", "user"]).ok();
    d.docker(["volume", "rm", "data"]).ok();
    assert_eq!(d.docker(["volume", "ls", "-q"]).ok(), "");
    let host = d.dir().join("host");
    fs::create_dir(&host).expect("folder");
    let bind = format!("{}:/b", host.display());
    d.docker(["run", "--rm", "-v", &bind, "nginx", "sh", "-c", "echo x > /b/made"]).ok();
    assert_eq!(fs::read_to_string(host.join("made")).expect("made"), "x\n");
    d.finish();
}
