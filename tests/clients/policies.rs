//! Restart policies, across restarts of the daemon too; names; what happens at once.

use crate::harness::{Daemon, wait_until};

#[test]
fn privileged_restart_policies() {
    let mut d = Daemon::start();
    d.load("busybox");
    let count =
        |d: &Daemon, name: &str| -> u32 { d.inspect("{{.RestartCount}}", name).parse().expect("number") };
    d.docker(["run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "0.1"]).ok();
    d.docker(["run", "-d", "--name", "twice", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3"])
        .ok();
    d.docker(["run", "-d", "--name", "fine", "--restart", "on-failure", "busybox", "true"]).ok();
    d.docker(["run", "-d", "--name", "unless", "--restart", "unless-stopped", "busybox", "sleep", "1000"])
        .ok();
    d.docker(["run", "-d", "--name", "held", "--restart", "unless-stopped", "busybox", "sleep", "1000"]).ok();
    wait_until("always restarts", || count(&d, "always") >= 2);
    wait_until("twice gives up", || d.inspect("{{.State.Status}} {{.RestartCount}}", "twice") == "exited 2");
    assert_eq!(d.inspect("{{.State.ExitCode}}", "twice"), "3");
    wait_until("fine has ended", || d.inspect("{{.State.Status}}", "fine") == "exited");
    assert_eq!(count(&d, "fine"), 0);
    // A process that dies is started again; what a person stops stays.
    let pid = d.inspect("{{.State.Pid}}", "unless");
    crate::harness::signal(pid.parse().expect("pid"), "KILL");
    wait_until("it is there again", || {
        let now = d.inspect("{{.State.Status}} {{.State.Pid}}", "unless");
        now.starts_with("running") && !now.ends_with(&format!(" {pid}"))
    });
    d.docker(["stop", "-t", "0", "held"]).ok();
    d.docker(["stop", "-t", "0", "always"]).ok();
    assert_eq!(d.inspect("{{.State.Status}}", "always"), "exited");

    // A killed daemon: what fell due meanwhile is settled; what runs goes on.
    for hard in [true, false] {
        let pid = d.inspect("{{.State.Pid}}", "unless");
        match hard {
            true => d.kill9(),
            false => d.terminate(),
        }
        crate::harness::signal(pid.parse().expect("pid"), "KILL");
        std::thread::sleep(std::time::Duration::from_millis(100));
        d.launch();
        wait_until("it is started again", || {
            let now = d.inspect("{{.State.Status}} {{.State.Pid}}", "unless");
            now.starts_with("running") && !now.ends_with(&format!(" {pid}"))
        });
        assert_eq!(d.inspect("{{.State.Status}}", "held"), "exited", "a person stopped it");
        // As with Docker, `always` starts with the daemon whoever stopped it.
        wait_until("always is back", || d.inspect("{{.State.Status}}", "always") != "exited");
    }
    d.finish();
}

#[test]
fn privileged_the_pause_before_a_restart_grows() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "loop", "--restart", "always", "busybox", "false"]).ok();
    // 0.1 + 0.2 + 0.4 + 0.8 s lie between the first and the fifth: never more than a few restarts in a moment.
    wait_until("it waits", || d.inspect("{{.State.Status}}", "loop") == "restarting");
    wait_until("four restarts", || {
        d.inspect("{{.RestartCount}}", "loop").parse::<u32>().expect("number") >= 4
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock");
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let filter = ["--filter", "event=start", "--format", "{{.TimeNano}}"];
    let events = d.docker(["events", "--since", "1m", "--until", &until].into_iter().chain(filter));
    let times: Vec<i64> = events.ok().lines().map(|l| l.parse().expect("time")).collect();
    let pauses: Vec<i64> = times.windows(2).map(|w| (w[1] - w[0]) / 1_000_000).collect();
    assert!(pauses.len() >= 3, "{pauses:?}");
    for (pause, least) in pauses.iter().zip([100, 200, 400, 800]) {
        assert!(*pause >= least, "{pauses:?}");
    }
    // Stopped while it waits: it does not come back, and can be removed.
    wait_until("it waits", || d.inspect("{{.State.Status}}", "loop") == "restarting");
    d.docker(["stop", "loop"]).ok();
    assert_eq!(d.inspect("{{.State.Status}}", "loop"), "exited");
    d.finish();
}

#[test]
fn privileged_many_at_once() {
    let d = Daemon::start();
    d.load("busybox");
    // One name is given to one container, whoever asks first.
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| d.docker(["create", "--name", "same", "busybox", "true"]).code))
            .collect();
        asked.into_iter().map(|t| t.join().expect("create")).collect()
    });
    assert_eq!(codes.iter().filter(|c| **c == 0).count(), 1, "{codes:?}");
    d.docker(["rm", "same"]).ok();

    std::thread::scope(|scope| {
        for worker in 0..5 {
            let d = &d;
            scope.spawn(move || {
                for i in 0..10 {
                    let name = format!("box{worker}-{i}");
                    d.docker(["create", "--name", &name, "busybox", "sleep", "1000"]).ok();
                }
            });
        }
    });
    assert_eq!(d.docker(["ps", "-aq"]).ok().lines().count(), 50);

    // Started, stopped and removed at once: every answer is one of those possible, and in the end it is gone.
    for i in 0..6 {
        let name = format!("box0-{i}");
        std::thread::scope(|scope| {
            for args in [
                vec!["start", &name],
                vec!["rm", "-f", &name],
                vec!["stop", "-t", "0", &name],
                vec!["start", &name],
                vec!["inspect", &name],
                vec!["ps", "-a"],
            ] {
                let d = &d;
                scope.spawn(move || d.docker(args));
            }
        });
        d.docker(["rm", "-f", &name]);
        assert_ne!(d.docker(["inspect", &name]).code, 0);
    }
    d.finish();
}

#[test]
fn privileged_names_and_beginnings_of_ids() {
    let d = Daemon::start();
    d.load("busybox");
    let mut ids = Vec::new();
    // Two that begin alike are found among a few.
    let prefix = loop {
        ids.push(d.docker(["create", "busybox", "true"]).ok());
        let last = ids.last().expect("one").clone();
        if ids[..ids.len() - 1].iter().any(|id| id[..1] == last[..1]) {
            break last[..1].to_owned();
        }
    };
    let answer = d.docker(["inspect", &prefix]).fails(1);
    assert!(answer.contains("multiple IDs found with provided prefix"), "{answer}");
    let id = &ids[0];
    assert_eq!(d.inspect("{{.Id}}", &id[..12]), *id);
    // A name wins over the beginning of an id.
    let short = &ids[0][..4];
    d.docker(["create", "--name", short, "busybox", "true"]).ok();
    assert_eq!(d.inspect("{{.Name}}", short), format!("/{short}"));
    for bad in ["../x", "a/b", "/", "x y", "-x"] {
        let line = ["create", &format!("--name={bad}"), "busybox", "true"].map(str::to_owned);
        assert!(d.docker(line).fails(1).contains("Invalid container name"), "{bad}");
    }
    d.finish();
}
