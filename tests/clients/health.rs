//! Health checks: what they say, how often they are asked, and that nothing of them is left.

use std::path::Path;

use crate::harness::{Client, Daemon, signal, wait_until, wait_until_with};

fn daemon() -> Daemon {
    let d = Daemon::start();
    d.load("busybox");
    d
}

fn status(d: &Daemon, name: &str) -> String {
    d.inspect("{{.State.Health.Status}}", name)
}

fn await_status(d: &Daemon, name: &str, wanted: &str) {
    let shown = || d.inspect("{{json .State.Health}}", name);
    wait_until_with(|| format!("{name} is {wanted}: {}", shown()), || status(d, name) == wanted);
}

/// `docker run -d` without a network, with options that blanks separate and one health check.
fn run(d: &Daemon, client: Client, name: &str, options: &str, check: &str) {
    let mut args = vec!["run", "-d", "--name", name, "--network", "none", "--health-cmd", check];
    args.extend(options.split_whitespace());
    args.extend(["busybox", "sleep", "1000"]);
    d.run(client, args).ok();
}

/// The processes of the container that run this command line.
fn processes(d: &Daemon, name: &str, command: &str) -> Vec<u32> {
    let top = d.docker(["top", name, "-o", "pid,args"]).ok();
    let rows = top.lines().filter(|l| l.trim_end().ends_with(command));
    rows.filter_map(|l| l.split_whitespace().next()?.parse().ok()).collect()
}

/// Events so far.
fn events(d: &Daemon, filter: &str, format: &str) -> Vec<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock");
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let args = ["events", "--since", "1h", "--until", &until, "-f", filter, "--format", format];
    d.docker(args).ok().lines().map(str::to_owned).collect()
}

#[test]
fn privileged_a_container_starts_gets_well_and_falls_ill() {
    let d = daemon();
    for (client, name) in [(Client::Docker, "theirs"), (Client::Longshore, "ours")] {
        let times = "--health-interval 50ms --health-timeout 20s --health-retries 2 --health-start-period 1h \
                     --health-start-interval 50ms";
        run(&d, client, name, times, "cat /well");
        let config = d.inspect("{{json .Config.Healthcheck}}", name);
        assert_eq!(
            config,
            r#"{"Test":["CMD-SHELL","cat /well"],"Interval":50000000,"Timeout":20000000000,"StartPeriod":3600000000000,"StartInterval":50000000,"Retries":2}"#
        );
        // Failures do not count while it starts, however many there are.
        wait_until("some checks have failed", || {
            d.inspect("{{len .State.Health.Log}} {{.State.Health.Status}}", name) == "5 starting"
        });
        assert_eq!(d.inspect("{{.State.Health.FailingStreak}}", name), "0");
        let last = "{{with index .State.Health.Log 4}}{{.ExitCode}} {{.Output}}{{end}}";
        assert_eq!(d.inspect(last, name), "1 cat: can't open '/well': No such file or directory");
        let ps = |filter: &str| {
            let filter = format!("health={filter}");
            d.run(
                client,
                ["ps", "--format", "{{.Names}} {{.Status}}", "-f", &filter, "-f", &format!("name={name}")],
            )
            .ok()
        };
        assert!(ps("starting").ends_with("(health: starting)"), "{}", ps("starting"));

        d.docker(["exec", name, "sh", "-c", "echo fine > /well"]).ok();
        await_status(&d, name, "healthy");
        assert_eq!(d.inspect(last, name), "0 fine");
        assert!(ps("healthy").ends_with("(healthy)"), "{}", ps("healthy"));
        assert_eq!((ps("starting"), ps("none")), (String::new(), String::new()));

        d.docker(["exec", name, "rm", "/well"]).ok();
        await_status(&d, name, "unhealthy");
        assert!(ps("unhealthy").ends_with("(unhealthy)"), "{}", ps("unhealthy"));
        assert_eq!(d.inspect("{{.State.Running}} {{len .State.Health.Log}}", name), "true 5");
        d.docker(["exec", name, "touch", "/well"]).ok();
        await_status(&d, name, "healthy");
        // No exec of a check can be asked for.
        assert_eq!(d.inspect("{{json .ExecIDs}}", name), "null");

        d.docker(["stop", "-t", "0", name]).ok();
        assert_eq!(status(&d, name), "unhealthy");
        let seen = events(&d, &format!("container={name}"), "{{.Action}}");
        let seen: Vec<_> = seen.iter().filter(|e| e.starts_with("health_status")).collect();
        let [well, ill] = ["health_status: healthy", "health_status: unhealthy"];
        assert_eq!(seen, [well, ill, well]);
    }
    d.docker(["run", "-d", "--name", "plain", "--network", "none", "busybox", "sleep", "1000"]).ok();
    assert_eq!(d.docker(["ps", "--format", "{{.Names}}", "-f", "health=none"]).ok(), "plain");
    d.finish();
}

#[test]
fn privileged_events_of_a_check_are_those_of_an_exec() {
    let d = daemon();
    let times = "--health-interval 1h --health-start-period 1h --health-start-interval 50ms";
    run(&d, Client::Docker, "one", times, "true; exit 0");
    await_status(&d, "one", "healthy");
    let seen = events(
        &d,
        "container=one",
        "{{.Action}}|{{.Actor.Attributes.exitCode}}|{{.Actor.Attributes.execID}}",
    );
    let seen: Vec<_> = seen.iter().filter(|l| l.starts_with("exec_") || l.starts_with("health_")).collect();
    let id = seen[0].rsplit('|').next().expect("an id");
    assert_eq!(id.len(), 64);
    let check = "/bin/sh -c true; exit 0";
    assert_eq!(
        seen,
        [
            &format!("exec_create: {check}|<no value>|{id}"),
            &format!("exec_start: {check}|<no value>|{id}"),
            &format!("exec_die|0|{id}"),
            "health_status: healthy|<no value>|<no value>"
        ]
    );
    assert_eq!(events(&d, "event=health_status", "{{.Action}}"), ["health_status: healthy"]);
    d.finish();
}

#[test]
fn privileged_a_check_that_takes_too_long_is_ended_with_its_children() {
    let d = daemon();
    let times = "--health-interval 50ms --health-timeout 400ms --health-retries 2";
    run(&d, Client::Longshore, "slow", times, "echo begun; sleep 4321; echo never");
    await_status(&d, "slow", "unhealthy");
    let first = d.inspect("{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}", "slow");
    assert_eq!(first, "-1 Health check exceeded timeout (400ms): begun");
    // There is never more than one at a time, and a pause ends the one that runs.
    for _ in 0..5 {
        let found = processes(&d, "slow", "sleep 4321").len();
        assert!(found <= 1, "{found} processes");
    }
    wait_until("one runs", || processes(&d, "slow", "sleep 4321").len() == 1);
    d.docker(["pause", "slow"]).ok();
    d.docker(["unpause", "slow"]).ok();
    // One that hangs is in nobody's way, and ends with its container.
    wait_until("one runs", || processes(&d, "slow", "sleep 4321").len() == 1);
    let child = processes(&d, "slow", "sleep 4321");
    d.docker(["exec", "slow", "true"]).ok();
    d.docker(["rename", "slow", "slower"]).ok();
    d.docker(["rm", "-f", "slower"]).ok();
    assert!(child.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
    d.finish();
}

#[test]
fn privileged_checks_that_cannot_be_run_count_as_failed() {
    let d = daemon();
    let create = |name: &str, config: &str| {
        let body = format!(
            r#"{{"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{{"NetworkMode":"none"}},{config}}}"#
        );
        let answer = d.raw(&format!(
            "POST /containers/create?name={name} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        d.docker(["start", name]).ok();
    };
    let last = "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}";
    let check = |test: &str| format!(r#""Healthcheck":{{"Test":{test},"Interval":50000000,"Retries":1}}"#);
    create("lost", &check(r#"["CMD","nosuch"]"#));
    await_status(&d, "lost", "unhealthy");
    let said = d.inspect(last, "lost");
    assert!(said.starts_with("-1 OCI runtime exec failed") && said.contains("\"nosuch\""), "{said}");
    create("empty", &check(r#"["CMD"]"#));
    await_status(&d, "empty", "unhealthy");
    let id = d.inspect("{{.Id}}", "empty");
    assert_eq!(d.inspect(last, "empty"), format!("-1 healthcheck for container {id} has no command"));
    // The shell is the image's; much output is cut.
    let shell = r#""Shell":["/bin/sh","-ec"],"#.to_owned();
    create(
        "loud",
        &(shell + &check(r#"["CMD-SHELL","head -c 5000 /dev/zero | tr '\\0' a; false; exit 0"]"#)),
    );
    await_status(&d, "loud", "unhealthy");
    assert_eq!(d.inspect(last, "loud"), format!("1 {}...", "a".repeat(4096)));
    // What a check leaves behind with its streams open does not hold it up.
    create("forks", &check(r#"["CMD-SHELL","sleep 1000 & echo left"]"#));
    await_status(&d, "forks", "healthy");
    assert_eq!(d.inspect(last, "forks"), "0 left");
    for (name, test) in [("none", r#"["NONE"]"#), ("odd", r#"["BAD","x"]"#), ("nothing", "[]")] {
        create(name, &check(test));
        assert!(!d.inspect("{{json .State}}", name).contains("Health"), "{name}");
    }
    d.finish();
}

#[test]
fn privileged_checks_survive_the_daemon() {
    let mut d = daemon();
    let times = "--health-interval 50ms --health-retries 1";
    run(&d, Client::Docker, "well", times, "true");
    run(&d, Client::Docker, "ill", times, "false");
    // Well once; then its check hangs.
    let hangs = "test ! -e /begun || exec sleep 4321; touch /begun";
    run(&d, Client::Docker, "hangs", "--health-interval 50ms", hangs);
    run(&d, Client::Docker, "rests", times, "true");
    await_status(&d, "well", "healthy");
    await_status(&d, "ill", "unhealthy");
    await_status(&d, "rests", "healthy");
    d.docker(["pause", "rests"]).ok();
    wait_until("a check hangs", || processes(&d, "hangs", "sleep 4321").len() == 1);
    let hung = processes(&d, "hangs", "sleep 4321");
    for kill in [true, false] {
        if kill {
            d.kill9()
        } else {
            d.terminate()
        }
        d.launch();
        let before = |name: &str| d.inspect("{{.State.Health.Status}}", name);
        // Nobody who looks is told that it starts.
        assert_eq!([before("well"), before("ill"), before("hangs")], ["healthy", "unhealthy", "healthy"]);
        let latest = |name: &str| d.inspect("{{range .State.Health.Log}}{{.Start}} {{end}}", name);
        let seen = latest("well");
        wait_until("it is checked again", || latest("well") != seen);
        wait_until("what hung has been ended", || !processes(&d, "hangs", "sleep 4321").contains(&hung[0]));
        wait_until("and another one hangs", || processes(&d, "hangs", "sleep 4321").len() == 1);
    }
    // One that rests is asked nothing until it goes on.
    let log = d.inspect("{{json .State.Health.Log}}", "rests");
    assert_eq!(status(&d, "rests"), "unhealthy");
    d.docker(["unpause", "rests"]).ok();
    await_status(&d, "rests", "healthy");
    assert_ne!(d.inspect("{{json .State.Health.Log}}", "rests"), log);
    // The end of the container while nobody looks.
    let pid: u32 = d.inspect("{{.State.Pid}}", "well").parse().expect("pid");
    d.kill9();
    signal(pid, "KILL");
    d.launch();
    wait_until("the end is known", || d.inspect("{{.State.Status}}", "well") == "exited");
    assert_eq!(status(&d, "well"), "unhealthy");
    d.finish();
}

#[test]
fn privileged_an_image_says_what_the_container_does_not() {
    let d = daemon();
    let dockerfile = "FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\nHEALTHCHECK --interval=1h --start-period=1h --start-interval=50ms --retries=7 CMD false; true\nCMD sleep 1000";
    d.docker_with_input(&["build", "-q", "-t", "checked", "-"], dockerfile.as_bytes()).ok();
    let config = |name: &str| d.inspect("{{json .Config.Healthcheck}}", name);
    let shown = |retries: u32, test: &str| {
        format!(
            r#"{{"Test":{test},"Interval":3600000000000,"StartPeriod":3600000000000,"StartInterval":50000000,"Retries":{retries}}}"#
        )
    };
    d.docker(["run", "-d", "--name", "heir", "--network", "none", "checked"]).ok();
    assert_eq!(config("heir"), shown(7, r#"["CMD-SHELL","false; true"]"#));
    // With the image's shell the first failure is the last.
    wait_until("it was checked", || d.inspect("{{len .State.Health.Log}}", "heir") != "0");
    assert_eq!(d.inspect("{{(index .State.Health.Log 0).ExitCode}}", "heir"), "1");
    let args = [
        "run",
        "-d",
        "--name",
        "own",
        "--network",
        "none",
        "--health-cmd",
        "true",
        "--health-retries",
        "2",
        "checked",
    ];
    d.run(Client::Longshore, args).ok();
    assert_eq!(config("own"), shown(2, r#"["CMD-SHELL","true"]"#));
    await_status(&d, "own", "healthy");
    for (client, name) in [(Client::Docker, "off1"), (Client::Longshore, "off2")] {
        d.run(client, ["run", "-d", "--name", name, "--network", "none", "--no-healthcheck", "checked"]).ok();
        assert_eq!(d.inspect("{{index .Config.Healthcheck.Test 0}}", name), "NONE");
        assert_eq!(
            d.docker(["ps", "--format", "{{.Names}}", "-f", "health=none", "-f", &format!("name={name}")])
                .ok(),
            name
        );
        let both = ["run", "--no-healthcheck", "--health-cmd", "true", "checked"];
        assert!(
            d.run(client, both).fails(125).contains("--no-healthcheck conflicts with --health-* options")
        );
        let short = ["run", "--health-interval", "1us", "checked"];
        assert!(d.run(client, short).fails(125).contains("Interval in Healthcheck cannot be less than 1ms"));
    }
    // A commit freezes it for a moment, which says nothing about its health.
    d.docker(["commit", "own", "committed"]).ok();
    assert_eq!(status(&d, "own"), "healthy");
    d.finish();
}

#[test]
fn privileged_a_restart_begins_anew() {
    let d = daemon();
    let policy = "--restart always --health-interval 50ms --health-retries 1";
    run(&d, Client::Docker, "back", policy, "test -e /ill && exit 1; echo well");
    await_status(&d, "back", "healthy");
    d.docker(["exec", "back", "touch", "/ill"]).ok();
    await_status(&d, "back", "unhealthy");
    let ended = d.inspect("{{.State.Pid}}", "back");
    d.docker(["exec", "back", "rm", "/ill"]).ok();
    signal(ended.parse().expect("pid"), "KILL");
    wait_until("it is back", || {
        let pid = d.inspect("{{.State.Pid}}", "back");
        pid != "0" && pid != ended
    });
    await_status(&d, "back", "healthy");
    // Started by hand it waits for its first check, and remembers the last ones.
    d.docker(["update", "--restart", "no", "back"]).ok();
    d.docker(["restart", "-t", "0", "back"]).ok();
    assert_ne!(d.inspect("{{len .State.Health.Log}}", "back"), "0");
    await_status(&d, "back", "healthy");
    d.finish();
}
