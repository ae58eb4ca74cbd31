//! Builds through the classic door, with the real `docker`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use crate::harness::{Client, Daemon, Done, fixture, signal, wait_until, wait_until_with};

/// A folder with a Dockerfile and files beside it.
pub(crate) fn context(d: &Daemon, name: &str, dockerfile: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = d.dir().join(name);
    fs::create_dir_all(&dir).expect("context");
    fs::write(dir.join("Dockerfile"), dockerfile).expect("Dockerfile");
    for (path, content) in files {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().expect("parent")).expect("folder");
        fs::write(file, content).expect("file");
    }
    dir
}

pub(crate) fn build(d: &Daemon, dir: &Path, more: &[&str]) -> Done {
    let dir = dir.to_str().expect("utf-8");
    let args: Vec<&str> = ["build"].into_iter().chain(more.iter().copied()).chain([dir]).collect();
    d.docker_with_input(&args, b"")
}

/// A build that goes on.
fn start(d: &Daemon, dir: &Path, more: &[&str]) -> Child {
    let mut command = d.command(Client::Docker);
    command.arg("build").args(more).arg(dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("docker")
}

fn id(d: &Daemon, name: &str) -> String {
    d.inspect("{{.Id}}", name)
}

fn entries(dir: PathBuf) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// What a build leaves when it is over: its layers, and nothing of its work.
pub(crate) fn nothing_at_work(d: &Daemon) {
    let left = || {
        let all = ["builds", "containers"].map(|dir| fs::read_dir(d.data_root().join(dir)));
        all.into_iter().flatten().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>()
    };
    wait_until_with(|| format!("builds are over: {:?}", left()), || left().is_empty());
    let check = d.run(Client::Longshore, ["system", "check"]).ok();
    assert!(check.contains("nothing is damaged"), "{check}");
    let df = d.run(Client::Longshore, ["system", "df", "-v"]).ok();
    assert!(!df.contains("leftover"), "{df}");
}

#[test]
fn privileged_a_dockerfile_becomes_an_image_that_runs() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = context(
        &d,
        "c",
        "FROM busybox AS made\nRUN mkdir -p /out/sub && echo made > /out/sub/file\nFROM busybox\n\
         ARG WHO=nobody\nENV GREETING=\"hello $WHO\"\nWORKDIR /work/dir\nCOPY --from=made /out ./out\n\
         COPY --chown=7:8 --chmod=750 a.txt b/ /files/\nLABEL what=test\nEXPOSE 80 53/udp\nUSER 7\n\
         ENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"echo $GREETING; cat /files/a.txt out/sub/file\"]\n",
        &[("a.txt", "a\n"), ("b/c.txt", "c\n"), ("unused", "x")],
    );
    let told =
        build(&d, &dir, &["-t", "made:1", "-t", "made:2", "--build-arg", "WHO=you", "--label", "more=1"])
            .ok();
    assert!(told.contains("Step 13/13 : CMD"), "{told}");
    assert!(told.contains("Successfully tagged made:1\nSuccessfully tagged made:2"), "{told}");
    assert!(told.contains(&format!(" ---> {}\n", &id(&d, "busybox")[7..19])), "{told}");
    assert_eq!(d.docker(["run", "--rm", "made:1"]).ok(), "hello you\na\nmade");
    assert_eq!(
        d.docker(["run", "--rm", "made:2", "stat -c '%u:%g %a' /files/a.txt /files/c.txt; ls /files"]).ok(),
        "7:8 750\n7:8 750\na.txt\nc.txt"
    );
    assert_eq!(
        d.inspect(
            "{{.Config.User}} {{.Config.WorkingDir}} {{json .Config.Labels}} {{json .Config.ExposedPorts}}",
            "made:1"
        ),
        "7 /work/dir {\"more\":\"1\",\"what\":\"test\"} {\"53/udp\":{},\"80/tcp\":{}}"
    );
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_what_was_built_is_not_built_again() {
    let d = Daemon::start();
    d.load("busybox");
    let file = "FROM busybox\nCOPY used /used\nRUN date +%N > /now\nCOPY other /other\n";
    let dir = context(&d, "c", file, &[("used", "1"), ("other", "1"), ("unused", "1")]);
    build(&d, &dir, &["-t", "x:1"]).ok();
    let first = id(&d, "x:1");
    // Times and files that nothing uses do not matter.
    fs::write(dir.join("unused"), "2").expect("write");
    let used = fs::File::options().write(true).open(dir.join("used")).expect("open");
    used.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("touch");
    let told = build(&d, &dir, &["-t", "x:2"]).ok();
    assert_eq!((told.matches("Using cache").count(), id(&d, "x:2")), (3, first.clone()), "{told}");
    // Contents do, and what stands on them.
    fs::write(dir.join("other"), "2").expect("write");
    let told = build(&d, &dir, &["-t", "x:3"]).ok();
    assert_eq!(told.matches("Using cache").count(), 2, "{told}");
    let layers = |name: &str| d.inspect("{{json .RootFS.Layers}}", name);
    assert_ne!(layers("x:3"), layers("x:1"));
    let told = build(&d, &dir, &["-t", "x:4", "--no-cache"]).ok();
    assert_eq!(told.matches("Using cache").count(), 0, "{told}");
    // The cache is listed, and goes; images stay what they are.
    let steps = |n| {
        let df = d.docker(["system", "df", "--format", "{{.Type}}={{.TotalCount}}"]).ok();
        assert!(df.contains(&format!("Build Cache={n}")), "{df}");
    };
    // Without the cache the first file has its new time, and all that stands on it is another step.
    steps(6);
    d.docker(["builder", "prune", "-af"]).ok();
    steps(0);
    assert_eq!(d.docker(["run", "--rm", "x:1", "cat", "/used"]).ok(), "1");
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_the_same_input_gives_the_same_image_anywhere() {
    let file = "FROM busybox\nWORKDIR /a/b\nCOPY . /files\nCOPY <<E /inline\ntext\nE\nADD t.tar /unpacked\nENV A=1\n";
    let made = |touch: &str| {
        let d = Daemon::start();
        d.load("busybox");
        let dir = context(&d, "c", file, &[("one", "1"), ("two/three", "3")]);
        let tar = std::process::Command::new("tar")
            .args(["--mtime=@1000000000", "--owner=0", "--group=0", "--format=gnu", "-cf", "t.tar", "one"])
            .current_dir(&dir)
            .status();
        assert!(tar.expect("tar").success());
        for path in ["one", "two/three", "two", ".", "t.tar", "Dockerfile"] {
            let done = std::process::Command::new("touch").args(["-d", touch]).arg(dir.join(path)).status();
            assert!(done.expect("touch").success());
        }
        build(&d, &dir, &["-t", "x"]).ok();
        let made = id(&d, "x");
        d.finish();
        made
    };
    assert_eq!(made("@1200000000"), made("@1200000000"));
}

#[test]
fn privileged_mounts_are_there_for_one_command_only() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = context(
        &d,
        "c",
        "FROM busybox AS one\nRUN mkdir /out && echo made > /out/file\nFROM busybox\n\
         RUN --mount=type=bind,source=src,target=/src test \"$(cat /src/f)\" = data && ! touch /src/x 2>/dev/null\n\
         RUN --mount=type=bind,from=one,source=/out,target=/deep/er/o,rw cat /deep/er/o/file && touch /deep/er/o/new\n\
         RUN --mount=type=cache,target=/var/kept,id=shelf echo x >> /var/kept/n\n\
         RUN --mount=type=tmpfs,target=/t touch /t/q && mount | grep -q ' /t type tmpfs'\n\
         RUN --mount=type=bind,target=/one,source=src/f cat /one && echo end > /end\n",
        &[("src/f", "data\n")],
    );
    build(&d, &dir, &["-t", "x"]).ok();
    let diff = d.run(Client::Longshore, ["image", "diff", "busybox", "x"]).ok();
    assert_eq!(diff, "A /end");
    // A cache mount outlives its build, and is seen by the next.
    let again = context(
        &d,
        "d",
        "FROM busybox\nRUN --mount=type=cache,target=/elsewhere,id=shelf echo y >> /elsewhere/n; cat /elsewhere/n\n",
        &[],
    );
    assert!(build(&d, &again, &[]).ok().contains("x\ny\n"));
    let df = d.run(Client::Longshore, ["system", "df", "-v"]).ok();
    assert!(df.contains("cache-mount") && df.contains("shelf"), "{df}");
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_a_command_that_fails_says_so_and_leaves_nothing() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = context(
        &d,
        "c",
        "FROM busybox\nRUN echo one > /one\nRUN echo why; echo more >&2; exit 7\nRUN never\n",
        &[],
    );
    let done = build(&d, &dir, &["-t", "x"]);
    assert!(done.stdout.contains("why\n") && done.stdout.contains("more\n"), "{}", done.stdout);
    let wanted = "The command '/bin/sh -c echo why; echo more >&2; exit 7' returned a non-zero code: 7";
    assert!(done.fails(7).contains(wanted));
    assert_eq!(d.docker(["images", "-q", "x"]).ok(), "");
    nothing_at_work(&d);
    // What went before is kept.
    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN echo one > /one\nRUN echo two\n").expect("write");
    assert_eq!(build(&d, &dir, &[]).ok().matches("Using cache").count(), 1);
    d.finish();
}

#[test]
fn privileged_a_build_that_is_called_off_stops_at_once() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = context(&d, "c", "FROM busybox\nRUN echo one > /one\nRUN echo begun; sleep 1000\n", &[]);
    let mut child = start(&d, &dir, &["-t", "x"]);
    wait_until("the command runs", || entries(d.data_root().join("containers")) == 1);
    signal(child.id(), "INT");
    child.wait().expect("docker");
    nothing_at_work(&d);
    assert_eq!(d.docker(["images", "-q", "x"]).ok(), "");
    d.finish();
}

#[test]
fn privileged_a_daemon_that_dies_in_a_build_leaves_nothing() {
    let mut d = Daemon::start();
    d.load("busybox");
    let dir = context(&d, "c", "FROM busybox\nRUN echo one > /one\nRUN echo begun; sleep 1000\n", &[]);
    let mut child = start(&d, &dir, &["-t", "x"]);
    let containers = d.data_root().join("containers");
    wait_until("the second command runs", || {
        d.docker(["system", "df", "--format", "{{.Type}}={{.TotalCount}}"]).stdout.contains("Build Cache=1")
            && entries(containers.clone()) == 1
    });
    d.kill9();
    child.wait().expect("docker");
    d.launch();
    nothing_at_work(&d);
    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN echo one > /one\nRUN echo two\n").expect("write");
    assert_eq!(build(&d, &dir, &["-t", "x"]).ok().matches("Using cache").count(), 1);
    d.finish();
}

#[test]
fn privileged_stages_run_side_by_side_and_only_if_they_are_needed() {
    let d = Daemon::start();
    d.load("busybox");
    // Each waits for the other; the third would fail.
    let wait = "for i in $(seq 300); do test -e /s/$OTHER && exit; sleep 0.1; done; exit 1";
    let file = format!(
        "FROM busybox AS a\nENV OTHER=b\nRUN --mount=type=cache,target=/s touch /s/a; {wait}\n\
         FROM busybox AS unused\nRUN exit 1\n\
         FROM busybox AS b\nENV OTHER=a\nRUN --mount=type=cache,target=/s touch /s/b; {wait}\n\
         FROM scratch\nCOPY --from=a /bin/busybox /a\nCOPY --from=b /bin/busybox /b\n"
    );
    let dir = context(&d, "c", &file, &[]);
    let told = build(&d, &dir, &["-t", "x"]).ok();
    assert!(!told.contains("unused"), "{told}");
    assert!(build(&d, &dir, &["--target", "unused"]).fails(1).contains("returned a non-zero code: 1"));
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_builds_at_the_same_time_do_one_thing_once() {
    let d = Daemon::start();
    d.load("busybox");
    let file =
        "FROM busybox\nRUN --mount=type=cache,target=/s echo x >> /s/count; sleep 1; cp /s/count /count\n";
    let dir = context(&d, "c", file, &[]);
    let children: Vec<Child> = (0..4).map(|n| start(&d, &dir, &["-t", &format!("x:{n}")])).collect();
    for child in children {
        assert!(child.wait_with_output().expect("docker").status.success());
    }
    assert_eq!(d.docker(["run", "--rm", "x:3", "cat", "/count"]).ok(), "x");
    assert_eq!(id(&d, "x:0"), id(&d, "x:3"));
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_triggers_run_in_the_image_that_is_made_of_theirs() {
    let d = Daemon::start();
    d.load("busybox");
    let base = "FROM busybox\nONBUILD COPY here /here\nONBUILD RUN cp /here /there\n";
    build(&d, &context(&d, "base", base, &[]), &["-t", "base"]).ok();
    assert_eq!(
        d.inspect("{{json .Config.OnBuild}}", "base"),
        "[\"COPY here /here\",\"RUN cp /here /there\"]"
    );
    let made = context(&d, "made", "FROM base\nRUN cat /there\n", &[("here", "text\n")]);
    assert!(build(&d, &made, &["-t", "made"]).ok().contains("text\n"));
    assert_eq!(d.inspect("{{json .Config.OnBuild}}", "made"), "null");
    d.finish();
}

#[test]
fn privileged_bad_input_has_a_clear_answer() {
    let d = Daemon::start();
    d.load("busybox");
    for (file, wanted) in [
        (
            "FROM busybox\nCOPIE a b\n",
            "dockerfile parse error on line 2: unknown instruction: COPIE (did you mean COPY?)",
        ),
        ("FROM busybox\nCOPY nothing /x\n", "\"/nothing\": not found"),
        ("FROM busybox\nCOPY --from=later Dockerfile /x\nFROM busybox AS later\n", "later"),
        ("FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n", "secret s: not found"),
        ("FROM busybox\nADD ftp://example.invalid/x /x\n", "ftp:// is not fetched"),
        ("FROM busybox\nRUN --network=host true\n", "network.host is not allowed"),
        ("FROM busybox\nRUN --security=insecure true\n", "security.insecure is not allowed"),
        ("FROM busybox\nSTOPSIGNAL NONSENSE\n", "invalid signal: NONSENSE"),
        ("FROM busybox\nEXPOSE 80/icmp\n", "80/icmp"),
    ] {
        let dir = context(&d, "c", file, &[]);
        let said = build(&d, &dir, &[]).fails(1);
        assert!(said.contains(wanted), "{file}: {said}");
    }
    let dir = context(&d, "c", "FROM busybox\n", &[]);
    assert!(build(&d, &dir, &["--squash"]).fails(1).contains("squash"));
    let without = build(&d, &dir, &["--cache-from", "x"]).ok();
    assert!(without.contains("the cache x:latest is not used: No such image: x:latest"), "{without}");
    assert!(build(&d, &dir, &["-f", "none"]).stderr.contains("none"));
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_atk_50_sources_and_destinations_stay_inside() {
    let d = Daemon::start();
    d.load("busybox");
    let outside = d.dir().join("outside");
    fs::create_dir(&outside).expect("folder");
    fs::write(outside.join("secret"), "HIDDEN\n").expect("file");
    let out = outside.to_str().expect("utf-8");
    let dir = context(&d, "c", "", &[("plain", "plain\n")]);
    symlink(&outside, dir.join("link")).expect("link");
    symlink(format!("{out}/secret"), dir.join("file")).expect("link");
    for file in [
        "FROM busybox\nCOPY link/secret /x\n".to_owned(),
        "FROM busybox\nCOPY file /x\n".to_owned(),
        format!("FROM busybox\nCOPY ../../../..{out}/secret /x\n"),
        "FROM busybox\nRUN --mount=type=bind,source=link,target=/m cat /m/secret\n".to_owned(),
        format!("FROM busybox AS a\nRUN ln -s {out} /l\nFROM busybox\nCOPY --from=a /l/secret /x\n"),
        format!(
            "FROM busybox AS a\nRUN ln -s {out} /l\nFROM busybox\nRUN --mount=type=bind,from=a,source=/l,target=/m cat /m/secret\n"
        ),
    ] {
        fs::write(dir.join("Dockerfile"), &file).expect("Dockerfile");
        let done = build(&d, &dir, &[]);
        assert!(done.code != 0 && !done.stdout.contains("HIDDEN"), "{file}: {done:?}");
    }
    // What is written through a link of the image lands in the image.
    fs::write(
        dir.join("Dockerfile"),
        format!("FROM busybox\nRUN ln -s {out} /l && ln -s {out}/secret /f\nCOPY plain /l/\nCOPY plain /f\nWORKDIR /l/sub\nADD plain /l/sub/\n"),
    )
    .expect("Dockerfile");
    build(&d, &dir, &["-t", "x"]).ok();
    assert_eq!(fs::read_to_string(outside.join("secret")).expect("file"), "HIDDEN\n");
    assert_eq!(entries(outside.clone()), 1);
    assert_eq!(
        d.docker(["run", "--rm", "x", "cat", &format!("{out}/sub/plain"), &format!("{out}/plain")]).ok(),
        "plain\nplain"
    );
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_an_image_from_a_registry_is_fetched_for_a_build() {
    let d = Daemon::start();
    assert!(fixture("busybox").exists());
    let dir = context(&d, "c", "FROM 127.0.0.1:1/none\n", &[]);
    let said = build(&d, &dir, &[]).fails(1);
    assert!(said.contains("127.0.0.1:1"), "{said}");
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_atk_51_secrets_are_seen_by_their_command_and_nowhere_else() {
    const CANARY: &str = "canary-4711-canary";
    let d = Daemon::start_with(&["--log-level", "debug"]);
    d.load("busybox");
    let file = "FROM busybox\n\
        RUN --mount=type=secret,id=one test \"$(cat /run/secrets/one)\" = \"$(echo canary)-4711-canary\" && stat -c %a /run/secrets/one\n\
        RUN --mount=type=secret,id=one,target=/x/y,mode=0444,uid=5 --mount=type=secret,id=two,env=TWO \\\n\
        test -s /x/y && test \"$TWO\" = \"$(cat /x/y)\" && mount | grep -q ' /x/y type tmpfs (ro'\n\
        RUN --mount=type=secret,id=none test ! -e /run/secrets/none && echo end > /end\n";
    let dir = context(&d, "c", file, &[]);
    let secret = d.dir().join("secret");
    fs::write(&secret, CANARY).expect("secret");
    let run = |more: &[&str]| {
        let mut command = d.command(Client::Longshore);
        command.arg("build").args(more).arg(&dir).stdin(Stdio::null()).env("SECOND", CANARY);
        let out = command.output().expect("longshore");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let one = format!("id=one,src={}", secret.display());
    let (code, told) = run(&["-t", "x", "--secret", &one, "--secret", "id=two,env=SECOND"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains(CANARY), "{told}");
    assert!(told.contains("400"), "{told}");
    fs::remove_file(&secret).expect("secret");
    // Another value is no reason to build again, as with BuildKit.
    fs::write(&secret, "another").expect("secret");
    let (code, told) = run(&["--secret", &one, "--secret", "id=two,env=SECOND"]);
    assert!(code == Some(0) && told.matches("CACHED").count() == 3, "{told}");
    assert_eq!(d.run(Client::Longshore, ["image", "diff", "busybox", "x"]).ok(), "A /end");
    nothing_at_work(&d);
    let image = d.dir().join("x.tar");
    d.docker(["save", "-o", image.to_str().expect("utf-8"), "x"]).ok();
    assert!(!d.log().contains(CANARY), "the log has it");
    let found =
        std::process::Command::new("grep").args(["-rlaF", CANARY]).arg(d.dir()).output().expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    d.finish();
}

#[test]
fn privileged_linked_copies_are_one_layer_on_any_base() {
    let d = Daemon::start();
    d.load("busybox");
    let file = "ARG BASE=busybox\nFROM busybox AS other\nRUN echo x > /x\nFROM $BASE\n\
                COPY --link --chown=5:6 --chmod=u=rwX,go= a.txt b /files/\n";
    let dir = context(&d, "c", file, &[("a.txt", "a\n"), ("b/c.txt", "c\n")]);
    build(&d, &dir, &["-t", "one"]).ok();
    build(&d, &dir, &["-t", "two", "--build-arg", "BASE=other"]).ok();
    let top = |name: &str| d.inspect("{{json .RootFS.Layers}}", name).rsplit('"').nth(1).map(str::to_owned);
    assert_eq!(top("one"), top("two"));
    let script = "stat -c '%u:%g %a %n' /files/a.txt /files/c.txt; cat /files/*";
    let seen = d.docker(["run", "--rm", "two", "sh", "-c", script]).ok();
    assert_eq!(seen, "5:6 600 /files/a.txt\n5:6 600 /files/c.txt\na\nc");
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_other_frontends_are_refused() {
    let d = Daemon::start();
    d.load("busybox");
    for syntax in
        ["docker/dockerfile:1", "docker/dockerfile:1.20-labs", "docker.io/docker/dockerfile:1.4@sha256:0"]
    {
        let dir = context(&d, "c", &format!("# syntax={syntax}\nFROM busybox\n"), &[]);
        build(&d, &dir, &[]).ok();
    }
    let dir = context(&d, "c", "# syntax=example.com/other:1\nFROM busybox\n", &[]);
    assert!(
        build(&d, &dir, &[]).fails(1).contains("other frontends than docker/dockerfile:1 are not supported")
    );
    d.finish();
}
