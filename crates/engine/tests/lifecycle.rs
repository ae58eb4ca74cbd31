//! The engine with real containers, made from a static busybox. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use longshore_engine::model::*;
use longshore_engine::{AttachSession, Engine, EngineOptions};

/// An engine with roots of its own and the image `busybox`.
struct World {
    engine: Engine,
    options: EngineOptions,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ls-engine").tempdir().unwrap();
        let options = EngineOptions {
            data_root: dir.path().join("data"),
            exec_root: dir.path().join("exec"),
            ..Default::default()
        };
        let engine = Engine::open(options.clone()).await.unwrap();
        let world = Self { engine, options, _dir: dir };
        world.import().await;
        world
    }

    async fn import(&self) {
        let request = ImportRequest {
            reference: Some("busybox:latest".parse().unwrap()),
            changes: vec!["CMD [\"sh\"]".into()],
            ..Default::default()
        };
        let body = Box::pin(stream::iter(vec![Ok(Bytes::from(busybox_tar()))]));
        let events: Vec<_> = self.engine.import(request, body).await.unwrap().collect().await;
        assert!(events.iter().all(|e| e.error.is_none()), "{events:?}");
    }

    async fn create(&self, name: &str, cmd: &[&str], change: impl FnOnce(&mut CreateContainer)) -> String {
        let mut r = CreateContainer { name: Some(name.into()), ..Default::default() };
        r.config.image = "busybox".into();
        r.config.run.cmd = Some(cmd.iter().map(|s| (*s).to_owned()).collect());
        r.host.network_mode = "none".into();
        change(&mut r);
        self.engine.create(r).await.unwrap().id
    }

    async fn end(self) {
        for c in self.engine.list(ListContainers { all: true, ..Default::default() }).await.unwrap() {
            let options = RemoveOptions { force: true, volumes: true, ..Default::default() };
            self.engine.remove(&c.id, options).await.unwrap();
        }
        self.engine.shutdown().await;
        let hash = longshore_oci::Digest::of(self.options.data_root.as_os_str().as_encoded_bytes()).hex();
        let bridge = format!("ls-{}", &hash[..8]);
        let _ = std::process::Command::new("ip").args(["link", "del", &bridge]).output();
    }
}

/// A root file system with busybox and a few names for it.
fn busybox_tar() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for d in ["bin", "etc", "tmp", "proc", "dev", "sys", "data"] {
        std::fs::create_dir(root.join(d)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "true", "false", "sleep", "echo", "cat", "ls", "id", "hostname", "mount", "touch", "rm",
        "stty", "kill",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nci:x:1000:1000::/home/ci:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\ndocker:x:999:ci\n").unwrap();
    std::fs::write(root.join("data/seed"), "seed").unwrap();
    let out =
        std::process::Command::new("tar").args(["-C", &root.to_string_lossy(), "-c", "."]).output().unwrap();
    assert!(out.status.success());
    out.stdout
}

async fn text(session: AttachSession) -> (String, String) {
    let mut out = (String::new(), String::new());
    let mut stream = session.output;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        let to = if chunk.stream == OutputStream::Stderr { &mut out.1 } else { &mut out.0 };
        to.push_str(&String::from_utf8_lossy(&chunk.data));
    }
    out
}

async fn exec(world: &World, name: &str, cmd: &[&str]) -> (String, Option<i32>) {
    let request = CreateExec {
        cmd: cmd.iter().map(|s| (*s).to_owned()).collect(),
        attach_stdout: true,
        attach_stderr: true,
        ..Default::default()
    };
    let id = world.engine.create_exec(name, request).await.unwrap();
    let session = world.engine.start_exec(&id, false, None).await.unwrap().unwrap();
    let (out, err) = text(session).await;
    (out + &err, world.engine.inspect_exec(&id).await.unwrap().exit_code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_run_attach_wait_logs_diff_remove() {
    let w = World::new().await;
    let id = w
        .create(
            "web",
            &["sh", "-c", "echo out; echo err >&2; echo hi > /TEST; rm /etc/group; exit 3"],
            |_| {},
        )
        .await;
    let request = AttachRequest { stdout: true, stderr: true, stream: true, ..Default::default() };
    let session = w.engine.attach("web", request).await.unwrap();
    let wait = w.engine.wait("web", WaitCondition::NextExit).await.unwrap();
    w.engine.start("web").await.unwrap();
    let got = text(session).await;
    assert_eq!(got, ("out\n".into(), "err\n".into()));
    assert_eq!(wait.await.unwrap().code, 3);
    let view = w.engine.inspect(&id[..12], true).await.unwrap();
    assert_eq!((view.state.status, view.state.exit_code, view.state.pid), (Status::Exited, 3, 0));
    assert!(Path::new(&view.hostname_path).exists() && Path::new(&view.log_path).exists());
    let merged = &view.graph["MergedDir"];
    assert!(!Path::new(merged).join("bin").exists(), "unmounted after its end");
    let changes: Vec<_> =
        w.engine.changes("web").await.unwrap().into_iter().map(|c| (c.path, c.kind)).collect();
    assert_eq!(
        changes,
        [
            ("/TEST".to_owned(), ChangeKind::Added),
            ("/etc".to_owned(), ChangeKind::Modified),
            ("/etc/group".to_owned(), ChangeKind::Deleted)
        ]
    );
    let logs =
        w.engine.logs("web", LogsRequest { stdout: true, stderr: true, ..Default::default() }).await.unwrap();
    let lines: Vec<_> =
        logs.output.map(|c| String::from_utf8_lossy(&c.unwrap().data).into_owned()).collect().await;
    assert_eq!(lines, ["out\n", "err\n"]);
    w.engine.remove("web", RemoveOptions::default()).await.unwrap();
    assert_eq!(w.engine.inspect("web", false).await.unwrap_err().to_string(), "No such container: web");
    w.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_exec_stop_kill_pause_rename() {
    let w = World::new().await;
    let id = w.create("co", &["sleep", "1000"], |r| r.config.run.user = "ci".into()).await;
    w.engine.start("co").await.unwrap();
    assert_eq!(w.engine.start("co").await.unwrap_err().kind(), longshore_oci::Kind::NotModified);
    assert_eq!(exec(&w, "co", &["sh", "-c", "echo o; exit 4"]).await, ("o\n".into(), Some(4)));
    let (who, _) = exec(&w, "co", &["id"]).await;
    assert!(who.contains("uid=1000") && who.contains("999"), "{who}");
    let missing = CreateExec { cmd: vec!["nosuch".into()], ..Default::default() };
    let bad = w.engine.create_exec("co", missing).await.unwrap();
    let e = w.engine.start_exec(&bad, false, None).await.unwrap_err().to_string();
    assert!(e.contains("executable file not found in $PATH"), "{e}");
    assert_eq!(w.engine.inspect_exec(&bad).await.unwrap().exit_code, Some(127));
    let top = w.engine.top("co", "").await.unwrap();
    assert_eq!(top.titles[0], "UID");
    assert!(top.rows.iter().any(|r| r[7] == "sleep 1000"), "{top:?}");
    let e = w.engine.remove("co", RemoveOptions::default()).await.unwrap_err().to_string();
    assert_eq!(
        e,
        "cannot remove container \"co\": container is running: stop the container before removing or force remove"
    );
    w.engine.pause("co").await.unwrap();
    assert_eq!(
        w.engine.pause("co").await.unwrap_err().to_string(),
        format!("Container {id} is already paused")
    );
    w.engine.unpause("co").await.unwrap();
    w.engine.rename("co", "dd").await.unwrap();
    let e = w.engine.kill("dd", Some("BAD".into())).await.unwrap_err().to_string();
    assert_eq!(e, "cannot kill container: dd: invalid signal: BAD");
    w.engine.stop("dd", None, Some(0)).await.unwrap();
    assert_eq!(w.engine.stop("dd", None, None).await.unwrap_err().kind(), longshore_oci::Kind::NotModified);
    assert_eq!(w.engine.inspect("dd", false).await.unwrap().state.exit_code, 137);
    w.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_start_failures_in_dockers_words() {
    let w = World::new().await;
    for (cmd, code, words) in [
        ("nosuchcmd", 127, "exec: \"nosuchcmd\": executable file not found in $PATH"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
    ] {
        w.create("xx", &[cmd], |_| {}).await;
        let e = w.engine.start("xx").await.unwrap_err();
        assert!(e.to_string().contains(words), "{e}");
        assert_eq!(e.kind(), longshore_oci::Kind::Invalid);
        let view = w.engine.inspect("xx", false).await.unwrap();
        assert_eq!((view.state.status, view.state.exit_code), (Status::Created, code));
        w.engine.remove("xx", RemoveOptions::default()).await.unwrap();
    }
    w.create("uu", &["true"], |r| r.config.run.user = "nosuch".into()).await;
    assert_eq!(
        w.engine.start("uu").await.unwrap_err().to_string(),
        "unable to find user nosuch: no matching entries in passwd file"
    );
    w.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_volumes_are_filled_and_removed() {
    let w = World::new().await;
    w.create("vv", &["cat", "/data/seed"], |r| r.host.binds = Some(vec!["vol1:/data".into()])).await;
    let wait = w.engine.wait("vv", WaitCondition::NextExit).await.unwrap();
    w.engine.start("vv").await.unwrap();
    assert_eq!(wait.await.unwrap().code, 0);
    let volume = w.engine.volume("vol1").await.unwrap();
    assert_eq!(std::fs::read_to_string(Path::new(&volume.mountpoint).join("seed")).unwrap(), "seed");
    let id = w.engine.inspect("vv", false).await.unwrap().id;
    assert_eq!(
        w.engine.remove_volume("vol1", false).await.unwrap_err().to_string(),
        format!("remove vol1: volume is in use - [{id}]")
    );
    w.engine.remove("vv", RemoveOptions::default()).await.unwrap();
    w.engine.remove_volume("vol1", false).await.unwrap();
    assert_eq!(w.engine.volume("vol1").await.unwrap_err().to_string(), "get vol1: no such volume");
    w.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_auto_remove_and_restart_policy() {
    let w = World::new().await;
    w.create("rm", &["true"], |r| r.host.auto_remove = true).await;
    let gone = w.engine.wait("rm", WaitCondition::Removed).await.unwrap();
    w.engine.start("rm").await.unwrap();
    assert_eq!(gone.await.unwrap().code, 0);
    assert!(w.engine.inspect("rm", false).await.is_err());
    w.create("again", &["false"], |r| {
        r.host.restart = RestartPolicy { name: "on-failure".into(), max_retries: 2 }
    })
    .await;
    w.engine.start("again").await.unwrap();
    let mut request = EventsRequest { since: Some(0), ..Default::default() };
    request.filters = BTreeMap::from([
        ("event".to_owned(), vec!["die".to_owned()]),
        ("container".to_owned(), vec!["again".to_owned()]),
    ]);
    let deaths: Vec<_> = w.engine.events(request).await.unwrap().take(3).collect().await;
    assert!(deaths.iter().all(|e| e.as_ref().unwrap().attributes["exitCode"] == "1"));
    let wait = w.engine.wait("again", WaitCondition::NotRunning).await.unwrap();
    wait.await.unwrap();
    let view = w.engine.inspect("again", false).await.unwrap();
    assert_eq!((view.restart_count, view.state.status), (2, Status::Exited));
    w.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_a_new_daemon_finds_what_ran_on() {
    let w = World::new().await;
    w.create("stays", &["sleep", "1000"], |_| {}).await;
    w.create("ends", &["sh", "-c", "cat; exit 5"], |r| {
        r.config.open_stdin = true;
        r.config.stdin_once = true;
    })
    .await;
    let attach = AttachRequest { stdin: true, stream: true, ..Default::default() };
    let session = w.engine.attach("ends", attach).await.unwrap();
    w.engine.start("stays").await.unwrap();
    w.engine.start("ends").await.unwrap();
    let pid = w.engine.inspect("stays", false).await.unwrap().state.pid;
    w.engine.shutdown().await;
    let World { engine, options, _dir } = w;
    drop((session, engine));
    // Everything of the old one has to let go of the database first.
    let mut opened = Engine::open(options.clone()).await;
    for _ in 0..200 {
        if opened.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        opened = Engine::open(options.clone()).await;
    }
    let engine = opened.unwrap();
    let view = engine.inspect("stays", false).await.unwrap();
    assert_eq!((view.state.status, view.state.pid), (Status::Running, pid));
    let wait = engine.wait("ends", WaitCondition::NotRunning).await.unwrap();
    assert_eq!(wait.await.unwrap().code, 5);
    World { engine, options, _dir }.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_bridge_ports_and_commit() {
    let w = World::new().await;
    let change = |r: &mut CreateContainer| {
        r.host.network_mode = "bridge".into();
        let binding = PortBinding { host_ip: "127.0.0.1".into(), host_port: String::new() };
        r.host.port_bindings = Some([("80/tcp".to_owned(), Some(vec![binding]))].into());
    };
    w.create("net", &["sh", "-c", "echo $HOSTNAME > /made; sleep 1000"], change).await;
    w.engine.start("net").await.unwrap();
    let view = w.engine.inspect("net", false).await.unwrap();
    let endpoint = &view.networks["bridge"];
    assert!(!endpoint.ip_address.is_empty() && !endpoint.mac_address.is_empty());
    assert_eq!(view.ports["80/tcp"].len(), 1);
    let (hosts, _) = exec(&w, "net", &["cat", "/etc/hosts"]).await;
    assert!(hosts.contains(&endpoint.ip_address), "{hosts}");
    assert_eq!(w.engine.network("bridge").await.unwrap().containers.len(), 1);
    while w.engine.changes("net").await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let commit = CommitRequest {
        container: "net".into(),
        reference: Some("made:1".parse().unwrap()),
        changes: vec!["CMD [\"cat\", \"/made\"]".into()],
        pause: true,
        ..Default::default()
    };
    w.engine.commit(commit).await.unwrap();
    assert_eq!(w.engine.image("made:1", None).await.unwrap().document.history.len(), 2);
    let deleted = w.engine.remove_image("made:1", false, true).await.unwrap();
    assert_eq!(deleted[0], ImageDeleted::Untagged("made:1".into()));
    let e = w.engine.remove_image("busybox", false, true).await.unwrap_err().to_string();
    assert!(
        e.starts_with("conflict: unable to remove repository reference \"busybox\" (must force) - container"),
        "{e}"
    );
    w.end().await;
}
