//! Our command line and the real one with images that come from and go to a registry: the same words to both, against
//! the same daemon and registries, must give the same output, errors, status and settings.
//!
//! With `LONGSHORE_DOCKERD=SOCKET,NETNS` another daemon is asked in place of ours, Docker's own: ours is a client of
//! that too. Its network namespace is a file, as `ip netns` keeps them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::cli::{Act, on_a_terminal, run, words};
use crate::harness::{Client, Daemon, fixture, make_netns, signal};
use crate::registry_server::{Door, PASSWORD, Registry, USER};
use crate::small_server::{Server, index, slowly};

/// [`USER`] and [`PASSWORD`] as `config.json` has them, and a wrong password.
const RIGHT: &str = "YW5uOnMzY3JldDp3b3Jk";
const WRONG: &str = "YW5uOndyb25n";

/// A daemon with three registries beside it, and a folder for both command lines.
struct Place {
    /// Ours, unless another was named.
    own: Option<Daemon>,
    host: String,
    netns: PathBuf,
    dir: TempDir,
    plain: Registry,
    password: Registry,
    secure: Registry,
}

impl Place {
    fn new() -> Self {
        let (own, host, netns) = match std::env::var("LONGSHORE_DOCKERD") {
            Ok(named) => {
                let (socket, netns) = named.split_once(',').expect("LONGSHORE_DOCKERD=SOCKET,NETNS");
                (None, format!("unix://{socket}"), PathBuf::from(netns))
            }
            Err(_) => {
                let d = Daemon::start();
                let (host, netns) = (format!("unix://{}", d.socket().display()), d.netns());
                (Some(d), host, netns)
            }
        };
        let dir = tempfile::Builder::new().prefix("longshore-test-").tempdir().expect("temporary folder");
        let link = dir.path().join("docker");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_longshore"), link).expect("symlink");
        let helpers = dir.path().join("bin");
        fs::create_dir(&helpers).expect("folder");
        let log = dir.path().join("helper.log");
        for (name, says) in [
            (
                "ok",
                format!(
                    r#"case $1 in get) echo '{{"ServerURL":"x","Username":"{USER}","Secret":"{PASSWORD}"}}';; esac"#
                ),
            ),
            ("token", r#"case $1 in get) echo '{"Username":"<token>","Secret":"t"}';; esac"#.into()),
            ("none", "echo credentials not found in native keychain; exit 1".into()),
            ("bad", "echo no reason; echo to the user >&2; exit 3".into()),
        ] {
            let file = helpers.join(format!("docker-credential-{name}"));
            let script = format!("#!/bin/sh\necho \"$1 $(cat)\" >> {}\n{says}\n", log.display());
            fs::write(&file, script).expect("helper");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("mode");
        }
        let plain = Registry::start(&netns, Door::Plain);
        let password = Registry::start(&netns, Door::Password);
        let secure = Registry::start(&netns, Door::Secure);
        Self { own, host, netns, dir, plain, password, secure }
    }

    /// Images in all registries: `busybox`, and `other` with a layer more, which is nowhere else.
    fn furnished() -> Self {
        let place = Self::new();
        let file = fixture("busybox");
        place.prepare(&format!("load -q -i {}", file.display()));
        place.prepare("run --name longshore-other busybox touch /new");
        for registry in [&place.plain, &place.password, &place.secure] {
            place.prepare(&format!("tag busybox {}", registry.name("busybox")));
            place.prepare(&format!("commit longshore-other {}", registry.name("other")));
            place.prepare(&format!("push -q {}", registry.name("busybox")));
            place.prepare(&format!("push -q {}", registry.name("other")));
            place.prepare(&format!("rmi {}", registry.name("other")));
        }
        place.prepare("rm longshore-other");
        place
    }

    fn text(&self, line: &str) -> String {
        line.replace("{plain}", self.plain.address())
            .replace("{password}", self.password.address())
            .replace("{secure}", self.secure.address())
            .replace("{right}", RIGHT)
            .replace("{wrong}", WRONG)
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// A command line in the daemon's network, where the registries are: docker asks one by itself about manifests.
    fn command(&self, client: Client) -> Command {
        let program = match client {
            Client::Docker => PathBuf::from("docker"),
            Client::Longshore => self.dir.path().join("docker"),
        };
        let path = std::env::var("PATH").expect("PATH");
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.netns.display()))
            .arg(program)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", self.config())
            .env("PATH", format!("{}:{path}", self.dir.path().join("bin").display()))
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// The real docker, which must succeed; it knows all passwords.
    fn prepare(&self, line: &str) -> String {
        self.set(r#"{"auths": {"{password}": {"auth": "{right}"}, "{secure}": {"auth": "{right}"}}}"#);
        let (code, out, err) = run(self.command(Client::Docker), &words(line));
        assert_eq!(code, 0, "docker {line}: {out}{err}");
        out.trim_end().to_owned()
    }

    /// Writes the settings; without any there is no file.
    fn set(&self, config: &str) {
        let _ = fs::remove_dir_all(self.config());
        let _ = fs::remove_file(self.dir.path().join("helper.log"));
        fs::create_dir(self.config()).expect("folder");
        if !config.is_empty() {
            fs::write(self.config().join("config.json"), self.text(config)).expect("config.json");
        }
    }

    /// What a command line does: status, output, errors, the settings afterwards and what helpers were told.
    fn outcome(&self, client: Client, line: &str, config: &str) -> Outcome {
        self.set(config);
        let (code, out, err) = run(self.command(client), &words(&self.text(line)));
        let read = |file: PathBuf| fs::read_to_string(file).unwrap_or_default();
        let after = read(self.config().join("config.json"));
        let after = serde_json::from_str(&after).unwrap_or(serde_json::Value::from(after));
        // Seen only where it takes long enough.
        let lasting = |line: &&str| !line.ends_with(": Verifying Checksum\n");
        let [out, err] = [out, err].map(|text| text.split_inclusive('\n').filter(lasting).collect());
        // Docker tells some things twice.
        let told = read(self.dir.path().join("helper.log"));
        let mut told: Vec<String> = told.lines().map(str::to_owned).collect();
        told.dedup();
        Outcome { code, out, err, after, told }
    }

    /// Removes what a pull brought.
    fn forget(&self) {
        for registry in [&self.plain, &self.password, &self.secure] {
            let mut command = self.command(Client::Docker);
            command.args(["rmi", "-f", &registry.name("other")]).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().expect("docker");
        }
    }

    fn compare(&self, lines: &[(&str, &str)]) {
        let mut differences = String::new();
        for (line, config) in lines {
            let [theirs, ours] = [Client::Docker, Client::Longshore].map(|client| {
                if !line.starts_with("push") {
                    self.forget();
                }
                self.outcome(client, line, config)
            });
            if theirs != ours {
                differences +=
                    &format!("docker {line}   {config}\n  docker: {theirs:?}\n  ours:   {ours:?}\n");
            }
        }
        assert!(differences.is_empty(), "{differences}");
    }

    fn finish(self) {
        for registry in [&self.plain, &self.password, &self.secure] {
            let names = [registry.name("busybox"), registry.name("other"), registry.name("big")];
            let mut command = self.command(Client::Docker);
            command.args(["rmi", "-f"]).args(names).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().expect("docker");
        }
        if let Some(d) = self.own {
            d.finish();
        }
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    code: i32,
    out: String,
    err: String,
    after: serde_json::Value,
    told: Vec<String>,
}

const KNOWN: &str = r#"{"auths": {"{password}": {"auth": "{right}"}, "{secure}": {"auth": "{right}"}}}"#;
const REFUSED: &str = r#"{"psFormat": "x", "auths": {"{password}": {"auth": "{wrong}"}}}"#;
const OLD: &str = r#"{"auths": {"https://{password}/v1/": {"auth": "{right}"}}}"#;

/// Lines, and the settings with which they are run.
const LINES: &[(&str, &str)] = &[
    // Pulls.
    ("pull {plain}/busybox", ""),
    ("pull {plain}/other", ""),
    ("pull {plain}/other:latest", ""),
    ("pull -q {plain}/other", ""),
    ("pull -a {plain}/other", ""),
    ("pull -q -a {plain}/other", ""),
    ("pull {plain}/other:none", ""),
    ("pull {plain}/none", ""),
    ("pull 127.0.0.1:1/none", ""),
    ("pull -a {plain}/none", ""),
    ("pull --platform foo {plain}/other", ""),
    ("pull --platform Linux/AMD64 {plain}/other", ""),
    ("pull --platform linux/s390x {plain}/other", ""),
    ("pull {password}/other", ""),
    ("pull {password}/other", KNOWN),
    ("pull {password}/other", OLD),
    ("pull {secure}/other", KNOWN),
    ("pull {plain}/other", r#"{"credsStore": "none"}"#),
    ("pull {password}/other", r#"{"credsStore": "ok"}"#),
    ("pull {password}/other", r#"{"credsStore": "bad", "credHelpers": {"{password}": "ok"}}"#),
    (
        "pull {password}/other",
        r#"{"credsStore": "bad", "credHelpers": {"{password}": ""}, "auths": {"{password}": {"auth": "{right}"}}}"#,
    ),
    // Pushes; everything is there.
    ("push {plain}/busybox", ""),
    ("push {plain}/busybox:latest", ""),
    ("push -q {plain}/busybox", ""),
    ("push -a {plain}/busybox", ""),
    ("push {plain}/busybox:none", ""),
    ("push {plain}/none", ""),
    ("push -a {plain}/none", ""),
    ("push --platform linux/amd64 {plain}/busybox", ""),
    ("push --platform linux/s390x {plain}/busybox", ""),
    ("push {password}/busybox", ""),
    ("push {password}/busybox", KNOWN),
    ("push {secure}/busybox", KNOWN),
    // Logins.
    ("login -u ann -p s3cret:word {password}", ""),
    ("login -u ann -p s3cret:word {secure}", ""),
    ("login -u ann -p s3cret:word http://{password}/v1/", ""),
    ("login -u ann -p s3cret:word {password}", KNOWN),
    ("login -u ann -p s3cret:word {password}", REFUSED),
    ("login -u ann -p wrong {password}", ""),
    ("login -u ann -p wrong {password}", KNOWN),
    ("login -u ann -p x 127.0.0.1:1", ""),
    ("login -u ann -p x {plain}", ""),
    ("login {password}", ""),
    ("login {password}", KNOWN),
    ("login {password}", REFUSED),
    ("login https://{password}/x", KNOWN),
    ("login {password}", OLD),
    ("login {password}", r#"{"credsStore": "ok"}"#),
    ("login {password}", r#"{"credsStore": "token"}"#),
    ("login {password}", r#"{"credsStore": "none"}"#),
    ("login -u ann -p s3cret:word {password}", r#"{"credsStore": "ok"}"#),
    ("login -u ann -p s3cret:word {password}", r#"{"credsStore": "bad"}"#),
    ("login -u ann -p s3cret:word {password}", r#"{"credsStore": "nosuch"}"#),
    ("login -u ann -p s3cret:word {password}", r#"{"credHelpers": {"{password}": "ok"}}"#),
    // Logouts.
    ("logout {password}", KNOWN),
    ("logout https://{password}/v1/", KNOWN),
    ("logout {password}", OLD),
    ("logout {password}", REFUSED),
    ("logout", KNOWN),
    ("logout", r#"{"auths": {"https://index.docker.io/v1/": {"auth": "{right}"}, "x": {}}}"#),
    ("logout {password}", r#"{"credsStore": "ok", "auths": {"{password}": {}}}"#),
    ("logout", r#"{"credsStore": "bad"}"#),
    ("logout", r#"{"credsStore": "ok"}"#),
    // Containers of images that are not there.
    ("run --rm {plain}/other ls /new", ""),
    ("run -q --rm {plain}/other ls /new", ""),
    ("run --rm --pull always {plain}/busybox true", ""),
    ("run --rm --pull always -q {plain}/busybox true", ""),
    ("run --rm --pull never {plain}/other true", ""),
    ("run --rm {plain}/none true", ""),
    ("run --rm -q {plain}/none true", ""),
    ("run --rm {password}/other true", ""),
    ("run --rm {password}/other ls /new", KNOWN),
    ("run --rm {password}/other true", r#"{"credsStore": "bad"}"#),
    ("run --rm --platform linux/s390x {plain}/none true", ""),
    ("create --pull always {plain}/none", ""),
];

#[test]
fn privileged_registries_are_used_as_docker_uses_them() {
    let place = Place::furnished();
    place.compare(LINES);
    // A password that is no argument.
    for input in ["s3cret:word", "s3cret:word\n", "s3cret:word\r\n", "s3cret:word\n\n", "wrong\n", ""] {
        let told = [Client::Docker, Client::Longshore].map(|client| {
            place.set("");
            let mut command = place.command(client);
            command.args(["login", "-u", USER, "--password-stdin", place.password.address()]);
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the command line");
            child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write");
            let out = child.wait_with_output().expect("the command line");
            (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
        });
        assert_eq!(told[0], told[1], "{input:?}");
    }
    // What was never pushed before: both do it, each to a name of its own.
    let pushed = [Client::Docker, Client::Longshore].map(|client| {
        let name = format!("new-{client:?}").to_lowercase();
        place.prepare(&place.text(&format!("tag busybox {{plain}}/{name}")));
        let outcome = place.outcome(client, &format!("push {{plain}}/{name}"), "");
        place.prepare(&place.text(&format!("rmi {{plain}}/{name}")));
        // From which of the repositories that have it is the daemon's choice.
        let out = outcome.out.replace(&name, "new");
        let out = out.lines().map(|l| l.split(" from ").next().unwrap_or(l)).collect::<Vec<_>>().join("\n");
        Outcome { out, ..outcome }
    });
    assert_eq!(pushed[0], pushed[1]);
    place.finish();
}

/// Where ours differs on purpose.
#[test]
fn privileged_where_docker_says_too_little() {
    let place = Place::furnished();
    // A program that should know the user and fails is told of: without, the image seems not to be there.
    let broken = r#"{"credsStore": "bad"}"#;
    place.forget();
    let pull = place.outcome(Client::Longshore, "pull {plain}/other", broken);
    assert_eq!(pull.code, 0, "{pull:?}");
    let warning = "WARNING: error getting credentials - err: exit status 3, out: `no reason`\n";
    assert_eq!(pull.err, format!("to the user\n{warning}"));
    // What docker's web-based login left goes too; it cannot be taken back at Docker Hub.
    let web = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "{right}"}, "https://index.docker.io/v1/access-token": {"auth": "{right}"},
        "https://index.docker.io/v1/refresh-token": {"username": "ann", "password": "token..client"}}}"#;
    let logout = place.outcome(Client::Longshore, "logout", web);
    assert_eq!((logout.code, logout.after.to_string().as_str()), (0, r#"{"auths":{}}"#), "{logout:?}");
    assert!(logout.err.contains("not revoked at Docker Hub"), "{logout:?}");
    let logout = place.outcome(Client::Longshore, "logout {password}", broken);
    assert!(logout.err.contains("WARNING: could not erase credentials:\n"), "{logout:?}");
    // A registry that does not know the user, and nobody at a terminal to ask: docker waits without end.
    let refused = place.outcome(Client::Longshore, "pull {password}/other", REFUSED);
    assert_eq!((refused.code, refused.err.contains("unauthorized")), (1, true), "{refused:?}");
    // What is in the file besides stays, in its order; a damaged file too.
    let more = r#"{"zz": {"y": [1]}, "auths": {"{password}": {"more": 1, "auth": "{wrong}"}}, "a": null}"#;
    let login = "login -u ann -p s3cret:word {password}";
    let kept = place.outcome(Client::Longshore, login, more);
    let want = more.replace("{wrong}", "{right}");
    assert_eq!(
        (kept.code, kept.after.to_string()),
        (0, place.text(&want).replace(": ", ":").replace(", ", ","))
    );
    let damaged = place.outcome(Client::Longshore, login, r#"{"auths": {"#);
    assert_eq!((damaged.code, damaged.after.as_str()), (1, Some(r#"{"auths": {"#)), "{damaged:?}");
    assert!(damaged.err.contains("Error saving credentials: parsing config file"), "{damaged:?}");
    let file = place.config().join("config.json");
    place.outcome(Client::Longshore, login, "");
    assert_eq!(fs::metadata(file).expect("config.json").permissions().mode() & 0o777, 0o600);
    place.finish();
}

#[test]
fn privileged_names_and_passwords_are_asked_for_at_a_terminal() {
    let place = Place::furnished();
    let keys =
        |text: &'static str| move |t: &mut fs::File, _: u32| t.write_all(text.as_bytes()).expect("type");
    let (name, password, wrong, enter) = (keys("ann\n"), keys("s3cret:word\n"), keys("bad\n"), keys("\n"));
    type Session<'a> = (&'a str, &'a str, &'a [(&'a str, Act<'a>)]);
    let sessions: &[Session<'_>] = &[
        ("login {password}", "", &[("Username: ", &name), ("Password: ", &password)]),
        ("login {password}", REFUSED, &[("Username (ann): ", &enter), ("Password: ", &password)]),
        ("login -u ann {password}", "", &[("Password: ", &wrong)]),
        ("login {password}", "", &[("Username: ", &enter)]),
        ("login {password}", "", &[("Username: ", &name), ("Password: ", &enter)]),
    ];
    for (line, config, steps) in sessions {
        let [theirs, ours] = [Client::Docker, Client::Longshore].map(|client| {
            place.set(config);
            let mut command = place.command(client);
            command.args(words(&place.text(line)));
            let seen = on_a_terminal(command, (24, 80), steps);
            let after = fs::read_to_string(place.config().join("config.json")).unwrap_or_default();
            (seen, serde_json::from_str::<serde_json::Value>(&after).unwrap_or_default())
        });
        assert_eq!(theirs, ours, "{line}");
        assert!(!ours.0.0.contains("s3cret"), "{ours:?}");
    }
    // Ctrl-C gives the terminal back; docker calls that a success.
    let leave = |_: &mut fs::File, pid: u32| signal(pid, "INT");
    place.set("");
    let mut command = place.command(Client::Longshore);
    command.args(["login", "-u", "ann", place.password.address()]);
    let (shown, code) = on_a_terminal(command, (24, 80), &[("Password: ", &leave)]);
    assert_eq!((shown.as_str(), code), ("Password: \r\n", 130));
    // Somebody whom the registry does not know is asked in the middle of a pull, where the daemon says that it is that.
    // Ours says what Docker's says of a private image, and the remedy: docker must not wait for one who is not there.
    place.set(REFUSED);
    let mut command = place.command(Client::Longshore);
    command.args(["pull", "-q", &place.password.name("other")]);
    let own = place.own.is_some();
    let steps: &[(&str, Act<'_>)] =
        if own { &[] } else { &[("Username (ann): ", &enter), ("Password: ", &password)] };
    let (shown, code) = on_a_terminal(command, (24, 80), steps);
    let want = if own { (1, "may require 'docker login'") } else { (0, "Login prior to pull:") };
    assert!(code == want.0 && shown.contains(want.1), "{code} {shown}");
    place.finish();
}

#[test]
fn privileged_progress_fits_every_terminal() {
    let place = Place::furnished();
    // Layers of some size, that do not compress: the first of them takes a while.
    let script = "dd if=/dev/urandom of=/a bs=1M count=6 2> /dev/null";
    place.prepare(&format!("run --name longshore-big busybox sh -c {}", script.replace(' ', "·")));
    place.prepare(&format!("commit longshore-big {}", place.plain.name("big")));
    place.prepare("rm longshore-big");
    place.prepare(&format!("push -q {}", place.plain.name("big")));
    place.prepare(&format!("rmi {}", place.plain.name("big")));
    let to = place.plain.address().to_owned();
    let slow = Server::start(&place.netns, move |stream| slowly(stream, &to, 2_000_000));
    let name = format!("{}/big", slow.address);
    let terminal = |line: &[&str], columns: u16, steps: &[(&str, Act<'_>)]| {
        place.set("");
        let mut command = place.command(Client::Longshore);
        command.args(line).env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        on_a_terminal(command, (24, columns), steps)
    };
    // Ctrl-C ends it, and what was begun; the next pull begins again.
    let leave = |_: &mut fs::File, pid: u32| signal(pid, "INT");
    for line in [&["pull", &name][..], &["run", "--rm", &name, "true"]] {
        let (shown, code) = terminal(line, 80, &[("Downloading ", &leave)]);
        assert_eq!(code, 130, "{shown}");
        assert!(shown.ends_with('\n') && !shown.contains("Run 'docker"), "{shown}");
    }
    let missing = place.outcome(Client::Docker, &format!("image inspect {name}"), "");
    assert_eq!(missing.code, 1, "{missing:?}");
    // No line is ever wider than the terminal, which changes its size meanwhile.
    let narrow = |t: &mut fs::File, pid: u32| {
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 30, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&*t, size).expect("size");
        signal(pid, "WINCH");
    };
    let nothing = |_: &mut fs::File, _: u32| ();
    let (shown, code) = terminal(
        &["pull", &name],
        80,
        &[("━", &nothing), ("Downloading ", &narrow), ("Downloading 9", &nothing)],
    );
    assert_eq!(code, 0, "{shown}");
    let lines: Vec<String> = shown.split(['\r', '\n']).map(plain).collect();
    let first_narrow = lines.iter().position(|l| l.contains('%')).expect("a percentage");
    assert!(lines[..first_narrow].iter().all(|l| l.chars().count() < 80), "{lines:#?}");
    let moving =
        lines[first_narrow..].iter().filter(|l| l.contains(": Downloading ") || l.contains(": Pull c"));
    assert!(moving.clone().count() > 0 && moving.clone().all(|l| l.chars().count() < 30), "{lines:#?}");
    assert!(shown.contains(&format!("Status: Downloaded newer image for {name}:latest")), "{shown}");
    assert!(shown.ends_with(&format!("{name}:latest\r\n")), "{shown}");
    place.prepare(&format!("rmi {name}"));
    slow.stop(&place.netns);
    place.finish();
}

/// A line as it is seen.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\x1b') {
        out.push_str(before);
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, r)| r);
    }
    out + rest
}

#[test]
fn privileged_searches_are_shown_as_docker_shows_them() {
    let place = Place::new();
    let server = Server::start(&place.netns, index);
    let term = format!("{}/x", server.address);
    let lines: Vec<String> = [
        "",
        "--no-trunc",
        "--limit 2",
        "--limit 500",
        "--limit -1",
        "-f stars=7",
        "-f is-official=true",
        "-f is-official=maybe",
        "-f is-automated=true",
        "-f foo=bar",
        "--format json",
        "--format table",
        "--format {{.Name}}|{{.StarCount}}|{{.IsOfficial}}|{{json·.}}",
        "--format table·{{.Name}}\\t{{.IsOfficial}}",
        "--format {{.Foo}}",
        "--format {{",
    ]
    .iter()
    .map(|options| format!("search {options} {term}"))
    .collect();
    let lines: Vec<(&str, &str)> = lines.iter().map(|l| (l.as_str(), "")).collect();
    place.compare(&lines);
    place.compare(&[("search {plain}/x", ""), ("search http://x/x", ""), ("search 127.0.0.1:1/x", "")]);
    server.stop(&place.netns);
    place.finish();
}

#[test]
fn privileged_manifests_are_shown_as_docker_shows_them() {
    let place = Place::furnished();
    let name = place.plain.name("busybox");
    if place.own.is_none() {
        let refused = place.outcome(Client::Longshore, &format!("manifest inspect {name}"), "");
        assert!(refused.code == 1 && refused.err.contains("this daemon does not show"), "{refused:?}");
        place.finish();
        return;
    }
    let put = |path: &str, kind: &str, body: &str| {
        let url = format!("http://{}/v2/{path}", place.plain.address());
        let mut curl = Command::new("nsenter");
        curl.arg(format!("--net={}", place.netns.display())).args([
            "curl",
            "-sf",
            "-X",
            "PUT",
            "--data-binary",
            body,
        ]);
        let status = curl.args(["-H", &format!("Content-Type: {kind}"), &url]).status().expect("curl");
        assert!(status.success(), "{url}");
    };
    let raw = place.outcome(Client::Docker, &format!("manifest inspect --insecure -v {name}"), "");
    let one: serde_json::Value = serde_json::from_str(&raw.out).expect("JSON");
    let (digest, size) = (one["Descriptor"]["digest"].as_str().expect("digest"), &one["Descriptor"]["size"]);
    let kind = one["Descriptor"]["mediaType"].as_str().expect("type");
    let list = if kind.contains("docker") {
        "application/vnd.docker.distribution.manifest.list.v2+json"
    } else {
        "application/vnd.oci.image.index.v1+json"
    };
    let entry = |platform: &str| {
        format!(
            r#"{{"mediaType": "{kind}", "size": {size}, "digest": "{digest}", "annotations": {{"a": "<b>"}}, "platform": {platform}}}"#
        )
    };
    let entries = [
        entry(r#"{"os": "linux", "architecture": "amd64"}"#),
        entry(r#"{"architecture": "arm", "os": "linux", "variant": "v7", "os.version": "5"}"#),
    ];
    let body =
        format!(r#"{{"schemaVersion": 2, "mediaType": "{list}", "manifests": [{}]}}"#, entries.join(", "));
    put("busybox/manifests/many", list, &body);
    let at_digest = place.plain.name(&format!("busybox@{digest}"));
    let lines: Vec<String> = [&name, &format!("{name}:many"), &at_digest, &format!("{name}:none")]
        .iter()
        .flat_map(|n| ["", "-v "].map(|v| format!("manifest inspect --insecure {v}{n}")))
        .collect();
    let lines: Vec<(&str, &str)> = lines.iter().map(|l| (l.as_str(), "")).collect();
    place.compare(&lines);
    place.compare(&[("manifest inspect {secure}/busybox", KNOWN)]);
    place.finish();
}

#[test]
fn privileged_registries_of_tests_are_real() {
    let dir = tempfile::Builder::new().prefix("longshore-test-").tempdir().expect("temporary folder");
    let netns = dir.path().join("netns");
    make_netns(&netns);
    let ask = |registry: &Registry, path: &str, args: &[&str]| {
        let scheme = if registry.ca().exists() { "https" } else { "http" };
        let out = Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(args)
            .arg(format!("{scheme}://{}{path}", registry.address()))
            .output()
            .expect("curl");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let status = |registry: &Registry, args: &[&str]| ask(registry, "/v2/", args);
    let credentials = format!("{USER}:{PASSWORD}");
    let plain = Registry::start(&netns, Door::Plain);
    assert_eq!(status(&plain, &[]), "200");
    assert_eq!(ask(&plain, "/v2/a/b/blobs/uploads/", &["-X", "POST"]), "202");
    assert!(plain.storage().join("docker/registry/v2/repositories/a/b").exists(), "{}", plain.name("a/b"));
    let password = Registry::start(&netns, Door::Password);
    assert_eq!(status(&password, &[]), "401");
    assert_eq!(status(&password, &["-u", &credentials]), "200");
    let secure = Registry::start(&netns, Door::Secure);
    let ca = secure.ca();
    let ca = ca.to_str().expect("utf-8");
    assert_eq!(status(&secure, &[]), "000", "nobody vouches for it");
    assert_eq!(status(&secure, &["--cacert", ca]), "401");
    assert_eq!(status(&secure, &["--cacert", ca, "-u", &credentials]), "200");
    assert!(secure.log().contains("401"), "{}", secure.log());
    drop((plain, password, secure));
    let unmounted = Command::new("umount").arg(&netns).status().expect("umount");
    assert!(unmounted.success());
}
