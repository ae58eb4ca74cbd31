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
pub(crate) fn folder(d: &Daemon, name: &str, files: &[(&str, &str)]) -> String {
    let dir = d.dir().join(name);
    fs::create_dir_all(&dir).expect("folder");
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("file");
    }
    dir.display().to_string()
}

pub(crate) fn ours(d: &Daemon, line: &str) -> Command {
    let mut command = d.command(Client::Longshore);
    command.args(words(line)).env_remove("BUILDKIT_PROGRESS");
    command
}

pub(crate) fn done((code, stdout, stderr): (i32, String, String)) -> Done {
    Done { code, stdout, stderr }
}

pub(crate) fn build(d: &Daemon, line: &str) -> Done {
    done(run(ours(d, &format!("build {line}")), &[]))
}

/// The same with something on standard input.
pub(crate) fn piped(d: &Daemon, line: &str, input: &[u8]) -> Done {
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

pub(crate) fn in_image(d: &Daemon, image: &str, script: &str) -> String {
    d.docker(["run", "--rm", image, "sh", "-c", script]).ok()
}

pub(crate) fn tar(dir: &str, args: &[&str]) -> Vec<u8> {
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
        (format!("--cache-from type=gha {dir}"), 125, "type=gha is not implemented yet"),
        (format!("-o type=local {dir}"), 125, "type=local needs dest=FOLDER"),
        (format!("-o type=tar,dest={dir} {dir}"), 1, "is a folder: name a file"),
        (format!("-o - -o - {dir}"), 1, "standard output can take one output only"),
        (format!("--nope {dir}"), 125, "unknown flag: --nope"),
        (format!("--push {dir}"), 1, "a tag is needed when pushing"),
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
