//! `build` of our command line: what is sent, what is shown, and what is left when it ends early.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{Act, on_a_terminal, run, words};
use crate::harness::{Client, Daemon, Done, signal, wait_until};
use crate::registry_server::{Door, Registry};

/// Writes files below the test's folder; gives the folder's path.
fn folder(d: &Daemon, name: &str, files: &[(&str, &str)]) -> String {
    let dir = d.dir().join(name);
    fs::create_dir_all(&dir).expect("folder");
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("file");
    }
    dir.display().to_string()
}

fn ours(d: &Daemon, line: &str) -> Command {
    let mut command = d.command(Client::Longshore);
    command.args(words(line)).env_remove("BUILDKIT_PROGRESS");
    command
}

fn done((code, stdout, stderr): (i32, String, String)) -> Done {
    Done { code, stdout, stderr }
}

fn build(d: &Daemon, line: &str) -> Done {
    done(run(ours(d, &format!("build {line}")), &[]))
}

/// The same with something on standard input.
fn piped(d: &Daemon, line: &str, input: &[u8]) -> Done {
    let mut command = ours(d, &format!("build {line}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the command line");
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = child.wait_with_output().expect("output");
    writer.join().expect("writer");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { code: out.status.code().unwrap_or(-1), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

fn in_image(d: &Daemon, image: &str, script: &str) -> String {
    d.docker(["run", "--rm", image, "sh", "-c", script]).ok()
}

fn tar(dir: &str, args: &[&str]) -> Vec<u8> {
    let out = Command::new("tar").args(["-C", dir]).args(args).args(["-cf", "-", "."]).output().expect("tar");
    assert!(out.status.success());
    out.stdout
}

#[test]
fn privileged_a_directory_is_built() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM busybox AS first\nARG FROM_HERE\nRUN echo \"$FROM_HERE\" > /said; echo told\n\
                 FROM first\nCOPY . /all\nENV a=b\n",
            ),
            (".dockerignore", "**/*.log\n.dockerignore\n"),
            ("kept/file", "kept"),
            ("kept/left.log", "left"),
        ],
    );
    let (iid, meta) = (format!("{dir}.iid"), format!("{dir}.json"));
    fs::write(&iid, "of old").expect("file");
    let line = format!(
        "--build-arg FROM_HERE --label a=b -t one -t two:2 --iidfile {iid} --metadata-file {meta} {dir}"
    );
    let mut command = ours(&d, &format!("build {line}"));
    command.env("FROM_HERE", "from the environment");
    let first = done(run(command, &[]));
    let (stdout, stderr) = (first.stdout.clone(), first.stderr.clone());
    first.ok();
    assert_eq!(stdout, "", "results only");
    for want in [
        "#1 [internal] load build context\n#1 transferring context: ",
        " [first 1/2] FROM busybox AS first\n",
        " [first 2/2] RUN echo \"$FROM_HERE\" > /said; echo told\n",
        " told\n",
        " [stage-1 1/1] COPY . /all\n",
        "exporting to image\n",
        " naming to two:2 done\n",
    ] {
        assert!(stderr.contains(want), "{want:?}: {stderr}");
    }
    let id = fs::read_to_string(&iid).expect("the id's file");
    assert_eq!(d.inspect("{{.Id}} {{index .Config.Labels \"a\"}}", "one"), format!("{id} b"));
    assert_eq!(d.inspect("{{.Id}}", "two:2"), id);
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(meta).expect("file")).expect("JSON");
    assert_eq!(meta["containerimage.config.digest"], id);
    assert_eq!(meta["image.name"], "docker.io/library/one:latest,docker.io/library/two:2");
    assert_eq!(in_image(&d, "one", "cat /said; cd /all; find | sort | tr '\\n' ' '"), {
        "from the environment\n. ./Dockerfile ./kept ./kept/file "
    });
    // Again, from the cache, and quietly; under docker's name and its other names too.
    let quiet = build(&d, &format!("-q --build-arg FROM_HERE=from·the·environment --label a=b {dir}"));
    assert_eq!((quiet.stdout.trim_end(), quiet.stderr.as_str()), (id.as_str(), ""));
    for words in ["image build", "builder build", "buildx build"] {
        let line =
            format!("{words} --progress plain --build-arg FROM_HERE=from·the·environment --label a=b {dir}");
        let shown = done(run(ours(&d, &line), &[]));
        assert!(shown.stderr.contains(" CACHED\n"), "{words}: {}", shown.stderr);
        shown.ok();
    }
    // Messages for programs.
    let raw = build(&d, &format!("--progress rawjson {dir}")).stderr;
    assert!(raw.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()), "{raw}");
    d.finish();
}

#[test]
fn privileged_contexts_come_from_anywhere() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            ("Dockerfile", "FROM busybox\nCOPY . /all\n"),
            ("a", "a"),
            ("d/Other", "FROM busybox\nCOPY a /other\n"),
        ],
    );
    // A Dockerfile, a tar, a compressed one.
    piped(&d, "-q -t i -", b"FROM busybox\nRUN echo alone > /x\n").ok();
    assert_eq!(in_image(&d, "i", "cat /x"), "alone");
    for args in [&[][..], &["-z"]] {
        piped(&d, "-q -t i -", &tar(&dir, args)).ok();
        assert_eq!(in_image(&d, "i", "ls /all"), "Dockerfile\na\nd", "{args:?}");
        piped(&d, "-q -t i -f d/Other -", &tar(&dir, args)).ok();
        assert_eq!(in_image(&d, "i", "cat /other"), "a");
    }
    // A Dockerfile from elsewhere is not among the files, nor is what hides it.
    piped(&d, &format!("-q -t i -f - {dir}"), b"FROM busybox\nCOPY . /mine\n").ok();
    assert_eq!(in_image(&d, "i", "ls -A /mine"), "Dockerfile\na\nd");
    let outside = folder(&d, "outside", &[("D", "FROM busybox\nCOPY . /mine\n"), ("D.dockerignore", "a\n")]);
    build(&d, &format!("-q -t i -f {outside}/D {dir}")).ok();
    assert_eq!(in_image(&d, "i", "ls -A /mine"), "Dockerfile\nd");
    // A path is one from where the command is called.
    let mut command = ours(&d, "build -q -t i -f d/Other .");
    command.current_dir(&dir);
    done(run(command, &[])).ok();
    assert_eq!(in_image(&d, "i", "cat /other"), "a");
    d.finish();
}

#[test]
fn privileged_a_build_that_fails_says_where() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            ("Dockerfile", "FROM busybox\nRUN echo on the way; \\\n  exit 3\nCOPY a /\n"),
            ("Wrong", "FROM busybox\nRUM x\n"),
            ("Missing", "FROM busybox\nCOPY none /\n"),
        ],
    );
    let end = "------\nDockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo on the way; \\\n   3 | >>>   exit 3\n   4 |     COPY a /\n";
    for progress in ["plain", "quiet"] {
        let failed = build(&d, &format!("--progress {progress} --iidfile {dir}.iid {dir}"));
        assert_eq!((failed.code, failed.stdout.as_str()), (1, ""));
        assert!(failed.stderr.contains(" on the way\n------\nDockerfile:2\n"), "{}", failed.stderr);
        assert!(failed.stderr.contains(end), "{}", failed.stderr);
        let last = failed.stderr.lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("ERROR: failed to build: ") && last.ends_with(": 3"), "{last}");
        assert_eq!(failed.stderr.contains("\n#3 ERROR: "), progress == "plain", "{}", failed.stderr);
    }
    assert!(!Path::new(&format!("{dir}.iid")).exists());
    let wrong = build(&d, &format!("-f {dir}/Wrong {dir}")).fails(1);
    assert!(wrong.contains("Wrong:2\n") && wrong.contains("   2 | >>> RUM x\n"), "{wrong}");
    assert!(wrong.contains("ERROR: failed to build: dockerfile parse error on line 2: "), "{wrong}");
    let missing = build(&d, &format!("-f {dir}/Missing {dir}")).fails(1);
    assert!(
        missing.contains("   2 | >>> COPY none /\n") && missing.contains("\"/none\": not found"),
        "{missing}"
    );
    // What cannot be sent; who does not use it is not bothered.
    let status = Command::new("mkfifo").arg(format!("{dir}/pipe")).status().expect("mkfifo");
    assert!(status.success());
    fs::write(format!("{dir}/All"), "FROM busybox\nCOPY . /\n").expect("a Dockerfile");
    fs::write(format!("{dir}/One"), "FROM busybox\nCOPY Wrong /\n").expect("a Dockerfile");
    let pipe = build(&d, &format!("-f {dir}/All {dir}")).fails(1);
    assert!(pipe.contains("\"pipe\" is a named pipe, which a context cannot hold"), "{pipe}");
    build(&d, &format!("-q -f {dir}/One {dir}")).ok();
    for (line, code, want) in [
        (format!("--secret id=x {dir}"), 1, "secret x: read x: no such file or directory"),
        (format!("--ssh x={dir}/none {dir}"), 1, "ssh agent x: "),
        (format!("--ssh x={dir}/Missing {dir}"), 1, "it is no socket"),
        (format!("--cache-from type=gha {dir}"), 125, "type=gha is not implemented yet"),
        (format!("-o type=local {dir}"), 125, "type=local needs dest=FOLDER"),
        (format!("-o type=tar,dest={dir} {dir}"), 1, "is a folder: name a file"),
        (format!("-o - -o - {dir}"), 1, "standard output can take one output only"),
        (format!("--nope {dir}"), 125, "unknown flag: --nope"),
        (format!("--push {dir}"), 1, "a tag is needed when pushing"),
        (format!("--platform linux/amd64,linux/arm64 {dir}"), 1, "several platforms is not implemented yet"),
        (format!("--progress tty {dir}"), 1, "standard error is no terminal"),
        (String::new(), 1, "requires 1 argument"),
        (format!("{dir}/none"), 1, "not found"),
        ("https://host.invalid/x.git".into(), 1, "failed to fetch https://host.invalid/x.git: "),
        (
            format!("-f {dir}/none {dir}"),
            1,
            "failed to read dockerfile: open none: no such file or directory",
        ),
    ] {
        let errors = build(&d, &line).fails(code);
        assert!(errors.contains(want), "{line}: {errors}");
    }
    d.finish();
}

/// Waits until no container is there, and no command of one runs.
fn nothing_runs(d: &Daemon, command: &str) {
    wait_until("the build's command ends", || {
        let ps = Command::new("ps").args(["-eo", "args"]).output().expect("ps");
        !String::from_utf8_lossy(&ps.stdout).lines().any(|line| line == command)
    });
    assert_eq!(d.docker(["ps", "-aq"]).ok(), "");
}

#[test]
fn privileged_an_interrupt_ends_a_build() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(&d, "context", &[("Dockerfile", "FROM busybox\nRUN echo begun; exec sleep 98765\n")]);
    // On a terminal, whose size changes meanwhile.
    let narrow = |t: &mut fs::File, pid: u32| {
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 30, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&*t, size).expect("size");
        signal(pid, "WINCH");
    };
    let leave = |_: &mut fs::File, pid: u32| signal(pid, "INT");
    let mut command = ours(&d, &format!("build {dir}"));
    command.env("TERM", "xterm").env("NO_COLOR", "1");
    let steps: &[(&str, Act<'_>)] = &[(" => => # begun", &narrow), ("[+] Building ", &leave)];
    let start = Instant::now();
    let (shown, code) = on_a_terminal(command, (24, 80), steps);
    assert_eq!(code, 130, "{shown}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(shown.contains(" => CANCELED [2/2] RUN"), "{shown:?}");
    // What stood below is cleared at most.
    assert!(shown.trim_end_matches("\u{1b}[J").ends_with('\n'), "{shown:?}");
    nothing_runs(&d, "sleep 98765");
    // Where lines stay.
    let mut command = ours(&d, &format!("build {dir}"));
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the command line");
    let mut errors = child.stderr.take().expect("stderr");
    let mut seen = String::new();
    let mut buf = [0; 1024];
    while !seen.contains(" begun\n") {
        let n = errors.read(&mut buf).expect("read");
        assert!(n > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    signal(child.id(), "INT");
    errors.read_to_string(&mut seen).expect("read");
    assert_eq!(child.wait().expect("wait").code(), Some(130), "{seen}");
    assert!(seen.contains(" CANCELED\n"), "{seen}");
    nothing_runs(&d, "sleep 98765");
    // A finished build leaves its list behind.
    let dir = folder(&d, "good", &[("Dockerfile", "FROM busybox\nRUN echo done\n")]);
    let mut command = ours(&d, &format!("build -t x {dir}"));
    command.env("TERM", "xterm").env("NO_COLOR", "1");
    let (shown, code) = on_a_terminal(command, (24, 80), &[]);
    assert_eq!(code, 0, "{shown}");
    let last = shown.rsplit("[+] Building ").next().unwrap_or_default();
    assert!(last.contains(" FINISHED") && last.contains(" => [2/2] RUN echo done"), "{shown:?}");
    assert!(last.contains(" => => naming to x:latest done"), "{shown:?}");
    d.finish();
}

#[test]
fn privileged_builds_come_from_registries_and_go_there() {
    let d = Daemon::start();
    d.load("busybox");
    let registry = Registry::start(&d.netns(), Door::Password);
    let (base, built) = (registry.name("base"), registry.name("built"));
    let dir = folder(&d, "context", &[("Dockerfile", &format!("FROM {base}\nRUN echo mine > /x\n"))]);
    let config = d.dir().join("config.json");
    let known = format!(r#"{{"auths": {{"{}": {{"auth": "YW5uOnMzY3JldDp3b3Jk"}}}}}}"#, registry.address());
    fs::write(&config, &known).expect("file");
    d.docker(["tag", "busybox", &base]).ok();
    d.docker(["push", "-q", &base]).ok();
    d.docker(["rmi", &base]).ok();
    // Whoever is nobody there gets nothing; then everything goes by itself.
    fs::write(&config, "{}").expect("file");
    let refused = build(&d, &dir).fails(1);
    assert!(refused.contains("ERROR: failed to build: ") && refused.contains(&base), "{refused}");
    fs::write(&config, &known).expect("file");
    let pushed = build(&d, &format!("--push -t {built} {dir}"));
    assert!(pushed.stderr.contains(" [internal] pull "), "{}", pushed.stderr);
    assert_eq!(pushed.ok(), "");
    d.docker(["rmi", &built, &base]).ok();
    d.docker(["pull", "-q", &built]).ok();
    assert_eq!(in_image(&d, &built, "cat /x"), "mine");
    d.finish();
}

/// A daemon without our routes: ours behind something that knows only Docker's.
fn another_daemon(d: &Daemon) -> String {
    let (socket, own) = (d.dir().join("other.sock"), d.socket());
    let listener = UnixListener::bind(&socket).expect("bind");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let own = own.clone();
            std::thread::spawn(move || pass_on(client, &own));
        }
    });
    format!("unix://{}", socket.display())
}

fn pass_on(mut client: UnixStream, own: &Path) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !client.read(&mut byte).is_ok_and(|n| n == 1) {
            return;
        }
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let answer = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    if line.contains("/longshore/") {
        drop(client.write_all(answer("404 Not Found", r#"{"message":"page not found"}"#).as_bytes()));
        return;
    }
    if line.contains("/version ") {
        drop(client.write_all(answer("200 OK", r#"{"Platform":{"Name":"Docker Engine"}}"#).as_bytes()));
        return;
    }
    let mut daemon = UnixStream::connect(own).expect("connect");
    daemon.write_all(&head).expect("write");
    let (mut from, mut to) = (client.try_clone().expect("clone"), daemon.try_clone().expect("clone"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut daemon, &mut client);
    let _ = client.shutdown(Shutdown::Both);
}

#[test]
fn privileged_dockers_own_daemon_builds_too() {
    let d = Daemon::start();
    d.load("busybox");
    let host = another_daemon(&d);
    let dir = folder(
        &d,
        "context",
        &[("Dockerfile", "FROM busybox\nRUN echo told; cat /etc/hosts > /h\nRUN exit 4\n")],
    );
    let there = |line: &str| {
        let mut command = ours(&d, &format!("build {line}"));
        command.env("DOCKER_HOST", &host);
        done(run(command, &[]))
    };
    let failed = there(&dir).fails(1);
    assert!(failed.contains("Step 2/3 : RUN echo told") && failed.contains("told\n"), "{failed}");
    assert!(failed.contains("returned a non-zero code: 4"), "{failed}");
    fs::write(format!("{dir}/Dockerfile"), "FROM busybox\nRUN echo told\n").expect("file");
    let id = there(&format!("-q -t x {dir}")).ok();
    assert_eq!(d.inspect("{{.Id}}", "x"), id);
    d.finish();
}

/// How many files of contexts the daemon has.
fn pool(d: &Daemon) -> usize {
    fs::read_dir(d.data_root().join("contexts/files")).map_or(0, Iterator::count)
}

#[test]
fn privileged_only_what_is_used_and_changed_is_sent() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            ("Dockerfile", "FROM busybox\nCOPY src /src\nRUN --mount=target=/m,source=bound cat /m/x > /x\n"),
            ("src/a", "1"),
            ("src/b", "2"),
            ("bound/x", "3"),
            ("unused/y", "4"),
        ],
    );
    // File systems count time in steps: what is older is remembered.
    std::thread::sleep(Duration::from_millis(2100));
    let first = build(&d, &format!("--progress plain -t i {dir}"));
    assert_eq!(pool(&d), 3, "{}", first.stderr);
    assert_eq!(in_image(&d, "i", "cat /src/a /src/b /x; test ! -e /m"), "123");
    let id = d.inspect("{{.Id}}", "i");
    let again = build(&d, &format!("--progress plain -t i {dir}"));
    assert!(again.stderr.matches(" CACHED\n").count() == 2, "{}", again.stderr);
    assert_eq!(d.inspect("{{.Id}}", "i"), id);
    // One that changed; one that came; one that went; one that has other permissions.
    fs::write(format!("{dir}/src/a"), "one").expect("write");
    fs::write(format!("{dir}/src/c"), "new").expect("write");
    fs::remove_file(format!("{dir}/src/b")).expect("remove");
    let changed = build(&d, &format!("--progress plain -t i {dir}"));
    assert!(!changed.stderr.contains(" CACHED\n"), "{}", changed.stderr);
    assert_eq!(in_image(&d, "i", "cd /src; ls; cat *"), "a\nc\nonenew");
    assert_eq!(pool(&d), 5);
    // The same by the other door.
    piped(&d, "-q -t j -", &tar(&dir, &[])).ok();
    assert_eq!(d.inspect("{{.Id}}", "j"), d.inspect("{{.Id}}", "i"));
    // It is part of the cache.
    let shown = done(run(ours(&d, "builder du --verbose"), &[])).ok();
    assert!(shown.contains("source.local"), "{shown}");
    done(run(ours(&d, "builder prune -af"), &[])).ok();
    assert_eq!(pool(&d), 0);
    build(&d, &format!("-q -t i {dir}")).ok();
    assert_eq!(pool(&d), 3);
    d.finish();
}

#[test]
fn privileged_what_is_built_comes_out_in_other_forms() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[(
            "Dockerfile",
            "FROM busybox AS build\nRUN mkdir /out && echo made > /out/file && ln -s file /out/link && chmod 751 /out/file\nFROM scratch\nCOPY --from=build /out /\n",
        )],
    );
    let images = d.docker(["images", "-aq"]).ok();
    // A folder, which keeps what it has.
    let out = folder(&d, "out", &[("kept", "k"), ("file", "old")]);
    build(&d, &format!("-q -o {out} -o type=tar,dest={out}.tar {dir}")).ok();
    let mut names: Vec<_> = fs::read_dir(&out).expect("out").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["file", "kept", "link"]);
    assert_eq!(fs::read_to_string(format!("{out}/link")).expect("file"), "made\n");
    let mode = fs::metadata(format!("{out}/file")).expect("file").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o751);
    let listed = Command::new("tar").args(["-tf", &format!("{out}.tar")]).output().expect("tar");
    assert!(String::from_utf8_lossy(&listed.stdout).lines().any(|l| l.ends_with("link")));
    // On standard output, and nothing else there.
    let piped = done(run(ours(&d, &format!("build -q -o - --target build {dir}")), &[]));
    assert!(piped.code == 0 && piped.stdout.contains("bin/busybox"), "{}", piped.stderr);
    // No image came of it.
    assert_eq!(d.docker(["images", "-aq"]).ok(), images);
    // An archive that both kinds of readers take; beside an image, too.
    let shown = build(&d, &format!("--progress plain -o type=oci,dest={out}.oci,name=made:1 {dir}"));
    assert!(shown.stderr.contains("exporting to an image archive"), "{}", shown.stderr);
    assert_eq!(d.docker(["images", "-aq"]).ok(), images);
    let id =
        build(&d, &format!("-q -t made:2 -o type=docker,dest={out}.docker,name=made:1 --load {dir}")).ok();
    assert_eq!(d.inspect("{{.Id}}", "made:2"), id.trim());
    d.docker(["rmi", "made:2", "made:1"]).ok();
    for (kind, names) in [("oci", &["made:1"][..]), ("docker", &["made:2", "made:1"])] {
        let loaded = d.docker(["load", "-q", "-i", &format!("{out}.{kind}")]).ok();
        assert_eq!(loaded, names.iter().map(|n| format!("Loaded image: {n}")).collect::<Vec<_>>().join("\n"));
        assert_eq!(d.inspect("{{.Id}}", "made:1"), id.trim());
        d.docker(["rmi"].into_iter().chain(names.iter().copied())).ok();
    }
    // What fails leaves nothing beside what was there.
    let failing = folder(&d, "failing", &[("Dockerfile", "FROM busybox\nRUN exit 3\n")]);
    build(&d, &format!("-q -o {out} -o type=tar,dest={out}/x.tar {failing}")).fails(1);
    assert_eq!(fs::read_dir(&out).expect("out").count(), 3);
    d.finish();
}

#[test]
fn privileged_contexts_have_names() {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["tag", "busybox", "other:1"]).ok();
    let more = folder(&d, "more", &[("a", "from more"), ("b", "b"), (".dockerignore", "b\n")]);
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM nowhere AS base\nRUN exit 1\nFROM base\nCOPY --from=more . /more\nRUN --mount=from=more,target=/m cat /m/a > /seen\nCOPY a /\n",
            ),
            ("Based", "FROM more\nCOPY --from=busybox /bin/busybox /bin/\nCOPY a /mine\n"),
            ("a", "mine"),
        ],
    );
    let contexts = format!("--build-context more={more} --build-context base=docker-image://other:1");
    build(&d, &format!("-q -t i {contexts} {dir}")).ok();
    assert_eq!(in_image(&d, "i", "ls -A /more; cat /seen /a"), ".dockerignore\na\nfrom moremine");
    build(&d, &format!("-q -t i -f {dir}/Based {contexts} {dir}")).ok();
    assert_eq!(d.docker(["run", "--rm", "i", "/bin/busybox", "cat", "/a", "/mine"]).ok(), "from moremine");
    // With a Dockerfile alone.
    let alone = b"FROM busybox\nCOPY --from=more a /\n";
    piped(&d, &format!("-q -t i --build-context more={more} -"), alone).ok();
    assert_eq!(in_image(&d, "i", "cat /a"), "from more");
    let none = build(&d, &format!("--build-context more={more}/none {dir}")).fails(1);
    assert!(none.contains("failed to get build context more: ") && none.contains("no such file"), "{none}");
    d.finish();
}

#[test]
fn privileged_a_build_explains_itself() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            ("Dockerfile", "FROM busybox\nARG WHO=you\nCOPY . /all\nRUN echo $WHO\n"),
            ("a", "1"),
            ("b/c", "2"),
        ],
    );
    let why = |line: &str| {
        let shown = build(&d, &format!("-q --explain {line} {dir}"));
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        shown.stderr.lines().map(|l| l.split_once("  ").unwrap_or_default().1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(why(""), ["carried out: no step of this instruction is in the cache"; 2]);
    assert_eq!(why(""), ["cached: what it depends on is what it was"; 2]);
    fs::write(format!("{dir}/a"), "3").expect("write");
    fs::write(format!("{dir}/d"), "4").expect("write");
    fs::remove_file(format!("{dir}/b/c")).expect("remove");
    let base = "carried out: the files that it starts from are others";
    assert_eq!(why(""), ["carried out: changed: a; new: d; gone: b/c", base]);
    let said = why("--build-arg WHO=me");
    assert_eq!(said[0], "cached: what it depends on is what it was");
    assert_eq!(said[1], "carried out: variable WHO was \"you\", and is \"me\"");
    assert!(why("--no-cache").iter().all(|w| w.contains("the cache was not to be used")));
    d.finish();
}

#[test]
fn privileged_a_build_is_verified_to_be_reproducible() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            ("Dockerfile", "FROM busybox\nCOPY a /b/\nWORKDIR /c/d\nENV A=1\n"),
            ("Random", "FROM busybox\nRUN head -c 20 /dev/urandom > /random; touch -d @0 /random /\n"),
            ("a", "1"),
        ],
    );
    let same = build(&d, &format!("-q --verify-reproducible -t same {dir}"));
    assert_eq!(same.code, 0, "{}", same.stderr);
    assert!(same.stderr.contains("Reproducible: built a second time"), "{}", same.stderr);
    let images = d.docker(["images", "-aq"]).ok().lines().count();
    let differs = build(&d, &format!("-q --verify-reproducible -t random -f {dir}/Random {dir}")).fails(1);
    assert!(
        differs.contains("not reproducible: a second build differs in 1 files, first /random: content"),
        "{differs}"
    );
    // The second one is gone again.
    assert_eq!(d.docker(["images", "-aq"]).ok().lines().count(), images + 1);
    let folder = build(&d, &format!("--verify-reproducible -o out {dir}")).fails(1);
    assert!(folder.contains("--verify-reproducible compares images"), "{folder}");
    d.finish();
}

#[test]
fn privileged_a_shell_opens_in_what_a_failed_command_left() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[("Dockerfile", "FROM busybox\nARG A=given\nWORKDIR /work\nRUN echo left > here; exit 7\n")],
    );
    let images = d.docker(["images", "-aq"]).ok();
    let mut command = ours(&d, &format!("build --progress plain --debug-shell {dir}"));
    command.env("TERM", "dumb");
    let look = |t: &mut fs::File, _: u32| t.write_all(b"echo $A; pwd; cat here\n").expect("type");
    let leave = |t: &mut fs::File, _: u32| t.write_all(b"exit 5\n").expect("type");
    let steps: &[(&str, Act<'_>)] =
        &[("A shell in what the failed command left", &|_, _| ()), ("# ", &look), ("left\r\n", &leave)];
    let (shown, code) = on_a_terminal(command, (24, 80), steps);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("given\r\n/work\r\nleft\r\n"), "{shown}");
    assert!(shown.contains("returned a non-zero code: 7"), "{shown}");
    assert_eq!((d.docker(["images", "-aq"]).ok(), d.docker(["ps", "-aq"]).ok()), (images, String::new()));
    let no = build(&d, &format!("--debug-shell {dir}")).fails(1);
    assert!(no.contains("--debug-shell needs a terminal"), "{no}");
    d.finish();
}

#[test]
fn privileged_commands_may_ask_an_agent() {
    use std::os::unix::net::UnixListener;
    let d = Daemon::start();
    d.load("nginx");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM nginx\nRUN id -u > /tmp/x\nUSER 1234\nRUN --mount=type=ssh,uid=1234,required perl -MIO::Socket::UNIX -e \
                 '$s = IO::Socket::UNIX->new($ENV{SSH_AUTH_SOCK}) or die; print $s qq(hello\\n); print STDERR <$s>' && ls -ln $SSH_AUTH_SOCK\n",
            ),
            ("Optional", "FROM nginx\nRUN --mount=type=ssh test -z \"$SSH_AUTH_SOCK\"\n"),
        ],
    );
    let socket = format!("{dir}.sock");
    let listener = UnixListener::bind(&socket).expect("bind");
    let agent = std::thread::spawn(move || {
        // The daemon looks whether somebody is there first.
        for _ in 0..2 {
            let (mut client, _) = listener.accept().expect("accept");
            let mut said = [0; 6];
            if client.read_exact(&mut said).is_ok() {
                assert_eq!(&said, b"hello\n");
                client.write_all(b"keys of the agent\n").expect("write");
                return;
            }
        }
        panic!("nobody asked");
    });
    let built = build(&d, &format!("--progress plain -t i --ssh default={socket} {dir}"));
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stderr.contains("keys of the agent"), "{}", built.stderr);
    assert!(
        built.stderr.contains("1234") && built.stderr.contains("/run/buildkit/ssh_agent.0"),
        "{}",
        built.stderr
    );
    agent.join().expect("the agent");
    // Nothing of it is in the image.
    assert_eq!(
        in_image(&d, "i", "ls -A /run/buildkit 2>&1 || true"),
        "ls: cannot access '/run/buildkit': No such file or directory"
    );
    let needs = build(&d, &format!("--no-cache {dir}")).fails(1);
    assert!(needs.contains("ssh agent default: not found: give it with --ssh"), "{needs}");
    build(&d, &format!("-q -f {dir}/Optional {dir}")).ok();
    let gone = build(&d, &format!("--no-cache --ssh default={socket} {dir}")).fails(1);
    assert!(gone.contains("the SSH agent cannot be reached"), "{gone}");
    d.finish();
}

#[test]
fn privileged_what_weakens_the_confinement_has_to_be_allowed() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs none /m && echo mounted\n",
            ),
            ("Host", "FROM busybox\nRUN --network=host cat /proc/net/dev | grep -c : > /count\n"),
            (
                "Written",
                "FROM busybox\nRUN --mount=target=/c,rw echo 2 > /c/a && cat /c/a > /seen\nRUN --mount=target=/c cat /c/a >> /seen\n",
            ),
            ("a", "1\n"),
        ],
    );
    let no = build(&d, &dir).fails(1);
    assert!(no.contains("security.insecure is not allowed: build with --allow security.insecure"), "{no}");
    let yes = build(&d, &format!("--progress plain --allow security.insecure {dir}"));
    assert!(yes.code == 0 && yes.stderr.contains("mounted"), "{}", yes.stderr);
    let no = build(&d, &format!("-f {dir}/Host {dir}")).fails(1);
    assert!(no.contains("network.host is not allowed: build with --allow network.host"), "{no}");
    build(&d, &format!("-q -f {dir}/Host --allow network.host {dir}")).ok();
    // What is written to a mounted context is thrown away.
    build(&d, &format!("-q -t i -f {dir}/Written {dir}")).ok();
    assert_eq!(in_image(&d, "i", "cat /seen"), "2\n1");
    piped(&d, "-q -t j -f Written -", &tar(&dir, &[])).ok();
    assert_eq!(in_image(&d, "j", "cat /seen"), "2\n1");
    assert_eq!(fs::read_to_string(format!("{dir}/a")).expect("a"), "1\n");
    d.finish();
}

#[test]
fn privileged_files_are_the_same_however_they_came() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM below\nCOPY . /all\nCOPY . /link/new/\nCOPY a b/a twin /there/\nCOPY a /deep/er/\nCOPY b /merged\nCOPY c /merged\n\
                 COPY --chmod=640 --chown=12:34 . /looks\nCOPY --exclude=*/x . /some\nCOPY --parents b/./c/x a /parents/\nCOPY a a /same/\n\
                 COPY --link . /linked\nCOPY odd /odd\n",
            ),
            ("a", "a\n"),
            ("twin", "a\n"),
            ("empty", ""),
            ("b/a", "b\n"),
            ("b/c/x", "x\n"),
            ("c/a", "c\n"),
            ("c/c/y", "y\n"),
            ("odd/name with space", "1"),
            ("odd/[brackets]*", "2"),
        ],
    );
    std::os::unix::fs::symlink("a", format!("{dir}/odd/to")).expect("link");
    std::os::unix::fs::symlink("../a", format!("{dir}/b/up")).expect("link");
    let mode = |path: &str, mode| {
        fs::set_permissions(format!("{dir}/{path}"), std::os::unix::fs::PermissionsExt::from_mode(mode))
    };
    mode("twin", 0o755).expect("mode");
    mode("b/c", 0o700).expect("mode");
    mode("c/a", 0o4711).expect("mode");
    let layers = |image: &str| d.inspect("{{json .RootFS.Layers}}", image);
    let below = b"FROM busybox\nRUN mkdir -p /real /there && ln -s real /link && echo old > /there/a\n";
    piped(&d, "-q -t below -", below).ok();
    // As a tar, whose times are whole, and file by file: at first the layers get the pool's own files, then copies.
    let tar = tar(&dir, &["--format=posix"]);
    piped(&d, "-q --no-cache -t tar -", &tar).ok();
    for turn in ["first", "second"] {
        build(&d, &format!("-q --no-cache -t {turn} {dir}")).ok();
        assert_eq!(layers(turn), layers("tar"), "the {turn} time");
    }
    assert_eq!(in_image(&d, "first", "cat /there/a /merged/a /real/new/a; ls -A /merged/c"), "b\nc\na\nx\ny");
    assert_eq!(in_image(&d, "first", "stat -c '%a %u %g' /looks/c/a /looks/b"), "640 12 34\n640 12 34");
    // What is written in a container stays there.
    assert_eq!(in_image(&d, "first", "echo more >> /all/a; cat /linked/a /some/a"), "a\na");
    build(&d, &format!("-q -t third {dir}")).ok();
    assert_eq!(layers("third"), layers("tar"));
    let checked = done(run(ours(&d, "system check"), &[]));
    assert_eq!(checked.code, 0, "{} {}", checked.stdout, checked.stderr);
    d.finish();
}

#[test]
fn privileged_secrets_in_files_of_an_image_are_warned_of() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM busybox\nCOPY . /app\nRUN echo '-----BEGIN PRIVATE KEY-----' > /server.key\nRUN rm /app/id_rsa\n",
            ),
            (".env", "NAME=x\nAPI_TOKEN=abc\n"),
            ("id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            ("cert.pem", "-----BEGIN CERTIFICATE-----\n"),
        ],
    );
    let said = build(&d, &format!("--progress plain {dir}")).stderr;
    assert!(said.contains("SecretInLayer: /app/.env has a value for API_TOKEN"), "{said}");
    assert!(said.contains("SecretInLayer: /server.key has a private key"), "{said}");
    // It is in a layer although a later one removes it.
    assert!(
        said.contains("SecretInLayer: /app/id_rsa has a private key") && !said.contains("cert.pem has"),
        "{said}"
    );
    assert!(!said.contains("abc"), "the value itself is not told: {said}");
    assert!(
        !build(&d, &format!("--progress plain {dir}")).stderr.contains("SecretInLayer"),
        "nothing new was made"
    );
    d.finish();
}

#[test]
fn privileged_what_was_built_may_become_one_layer() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM busybox\nCOPY . /all\nRUN rm -r /all/b /bin/true && echo new > /all/a && mkdir -m 751 /d && ln -s a /all/l\nENV A=1\nRUN echo x > /d/x\n",
            ),
            ("a", "old"),
            ("b/c", "gone"),
        ],
    );
    build(&d, &format!("-q -t apart {dir}")).ok();
    for _ in 0..2 {
        build(&d, &format!("-q --squash -t one {dir}")).ok();
        let layers = |image: &str| d.inspect("{{len .RootFS.Layers}}", image);
        assert_eq!((layers("busybox"), layers("apart"), layers("one")), ("1".into(), "4".into(), "2".into()));
        assert_eq!(d.inspect("{{.Config.Env}}", "one"), d.inspect("{{.Config.Env}}", "apart"));
        let diff = done(run(ours(&d, "image diff --content apart one"), &[])).ok();
        assert_eq!(diff, "", "the same files");
        let files = done(run(ours(&d, "image layers --format {{.DiffID}} one"), &[])).ok();
        assert_eq!(files.lines().count(), 2, "{files}");
    }
    // What is gone in the end is in no layer.
    let saved = format!("{dir}.tar");
    d.docker(["save", "-o", &saved, "one"]).ok();
    assert!(!String::from_utf8_lossy(&fs::read(&saved).expect("archive")).contains("gone"));
    assert_eq!(
        in_image(&d, "one", "cat /all/a /d/x; ls /all; test ! -e /bin/true; stat -c %a /d"),
        "new\nx\nDockerfile\na\nl\n751"
    );
    d.finish();
}
