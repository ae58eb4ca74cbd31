//! Working containers and the end of their daemon: by request, and at any moment.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Client, Daemon, wait_until};
use crate::ledger::{agreed, api};
use crate::working::{begun, clean, folder, nothing_runs, sh, status, working};

#[test]
fn privileged_they_outlive_the_daemon() {
    let mut d = Daemon::start();
    d.load("busybox");
    let name = working(&d, "from busybox").ok();
    let id = working(&d, "ls -q --notruncate").ok();
    sh(&d, &name, "echo kept > /kept");
    working(&d, &format!("config --env A=1 --comment said {name}")).ok();
    let tree = working(&d, &format!("mount {name}")).ok();
    for how in ["terminate", "kill"] {
        match how {
            "kill" => d.kill9(),
            _ => d.terminate(),
        }
        assert_eq!(fs::read_to_string(format!("{tree}/kept")).expect("mounted"), "kept\n", "{how}");
        d.launch();
        assert_eq!(working(&d, "mount").ok(), format!("{name} {tree}"), "{how}");
        assert_eq!(sh(&d, &name, "cat /kept; echo $A"), "kept\n1", "{how}");
        assert_eq!(fs::read_to_string(format!("{tree}/kept")).expect("mounted"), "kept\n", "{how}");
        assert_eq!(status(&d, &name), "mounted", "{how}");
    }
    // By its id, and by the beginning of that.
    let about: Value =
        serde_json::from_str(&working(&d, &format!("inspect {}", &id[..10])).ok()).expect("JSON");
    assert_eq!((&about[0]["Id"], &about[0]["Comment"]), (&id.as_str().into(), &"said".into()));
    assert_eq!(working(&d, &format!("inspect -f {{{{.MountPoint}}}} {name}")).ok(), tree);
    working(&d, &format!("umount {name}")).ok();
    assert!(!Path::new(&tree).exists(), "unmounted");
    d.terminate();
    d.launch();
    assert_eq!(working(&d, "mount").ok(), "");
    clean(d);
}

#[test]
fn privileged_a_daemon_that_stops_ends_what_runs() {
    let mut d = Daemon::start();
    d.load("busybox");
    working(&d, "from --name box busybox").ok();
    let mut running = begun(&d, "run box -- sh -c echo·half·>·/half;·exec·sleep·98763");
    wait_until("the command runs", || !nothing_runs("sleep 98763"));
    d.terminate();
    assert!(!running.wait().expect("wait").success());
    assert!(nothing_runs("sleep 98763"));
    d.launch();
    assert_eq!((status(&d, "box").as_str(), sh(&d, "box", "cat /half").as_str()), ("", "half"));
    clean(d);
}

/// Ends the daemon at moments that spread over a command's work, and looks at what is there then.
fn kill_in(d: &mut Daemon, line: &str, before: &str, look: &dyn Fn(&Daemon, bool, &str)) {
    if !before.is_empty() {
        working(d, before).ok();
    }
    let start = Instant::now();
    working(d, line);
    let span = start.elapsed().max(Duration::from_millis(20));
    let kills = if std::env::var_os("LONGSHORE_LONG").is_some() { 40 } else { 5 };
    for i in 0..kills {
        if !before.is_empty() {
            working(d, before);
        }
        let mut client = begun(d, line);
        std::thread::sleep(span * i / kills);
        d.kill9();
        let acknowledged = client.wait().expect("wait").success();
        d.launch();
        let what = format!("{line}: kill {i} of {kills}");
        look(d, acknowledged, &what);
        agreed(d);
        d.run(Client::Longshore, ["system", "check", "--quick"]).ok();
    }
}

#[test]
fn privileged_a_kill_leaves_all_or_nothing_and_says_what_was_cut_short() {
    let mut d = Daemon::start();
    d.load("busybox");
    let dir = folder(&d, "many", &[]);
    for i in 0..2000 {
        fs::create_dir_all(format!("{dir}/{}", i % 20)).expect("folder");
        fs::write(format!("{dir}/{}/{i}", i % 20), i.to_string()).expect("file");
    }
    let all = |d: &Daemon| working(d, "ls -q --notruncate").ok().lines().count();
    kill_in(&mut d, "from --name made busybox", "", &|d, acknowledged, what| {
        assert!(all(d) == 1 || (all(d) == 0 && !acknowledged), "{what}");
        if all(d) == 1 {
            assert_eq!(sh(d, "made", "echo works"), "works", "{what}");
            working(d, "rm made").ok();
        }
    });
    working(&d, "rm -a").ok();
    working(&d, "from --name made busybox").ok();
    kill_in(
        &mut d,
        &format!("copy made {dir} /many"),
        "run made -- rm -rf /many",
        &|d, acknowledged, what| {
            let interrupted = status(d, "made");
            assert!(
                interrupted.is_empty() || interrupted == "interrupted: copy into it",
                "{what}: {interrupted}"
            );
            assert!(!acknowledged || interrupted.is_empty(), "{what}");
            if acknowledged {
                assert_eq!(sh(d, "made", "find /many -type f | wc -l"), "2000", "{what}");
            }
            // The next thing that succeeds makes that past.
            sh(d, "made", "true");
            assert_eq!(status(d, "made"), "", "{what}");
        },
    );
    kill_in(
        &mut d,
        "run made -- sh -c sleep·0.1;·echo·y·>·/y",
        "run made -- rm -f /y",
        &|d, _, what| {
            assert!(nothing_runs("sleep 0.1"), "{what}");
            let interrupted = status(d, "made");
            assert!(
                interrupted.is_empty() || interrupted.starts_with("interrupted: run: sh -c sleep"),
                "{what}"
            );
            working(d, "run made -- rm -rf /many /y").ok();
            working(d, "commit made now").ok();
            // Nothing of how it was run is left.
            let files = d.run(Client::Longshore, ["image", "diff", "busybox", "now"]).ok();
            assert!(files.is_empty(), "{what}: {files}");
            d.docker(["rmi", "now"]).ok();
        },
    );
    sh(&d, "made", "head -c 2000000 /dev/urandom > /noise");
    kill_in(&mut d, "commit made done", "", &|d, acknowledged, what| {
        let there = d.docker(["images", "-q", "done"]).ok();
        assert!(!there.is_empty() || !acknowledged, "{what}");
        if !there.is_empty() {
            assert_eq!(
                d.docker(["run", "--rm", "done", "wc", "-c", "/noise"]).ok(),
                "2000000 /noise",
                "{what}"
            );
            d.docker(["rmi", "done"]).ok();
        }
        assert_eq!(sh(d, "made", "wc -c < /noise"), "2000000", "{what}");
    });
    kill_in(&mut d, "rm second", "from --name second busybox", &|d, acknowledged, what| {
        let left = all(d);
        assert!(left == 1 || (left == 2 && !acknowledged), "{what}: {left}");
        if left == 2 {
            assert_eq!(sh(d, "second", "echo works"), "works", "{what}");
            working(d, "rm second").ok();
        }
    });
    assert_eq!(api(&d, "GET", "/longshore/working").as_array().expect("list").len(), 1);
    clean(d);
}
