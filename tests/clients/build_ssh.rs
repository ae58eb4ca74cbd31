//! Keys and agents of SSH for builds: repositories are reached with them, commands may ask them, nothing keeps them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::build::nothing_at_work;
use crate::build_cli::{done, folder, ours};
use crate::cli::run;
use crate::git_server::Repositories;
use crate::harness::{Daemon, Done, in_netns, wait_until};
use crate::working::working;

/// A server that lets one key in, in a test's network namespace and with a home of its own.
struct SshServer(Child);

impl SshServer {
    fn start(d: &Daemon, key: &Path) -> Self {
        let home = d.dir().join("home");
        fs::create_dir_all(home.join(".ssh")).expect("folder");
        fs::copy(key.with_extension("pub"), home.join(".ssh/authorized_keys")).expect("key");
        let host = d.dir().join("host-key");
        let made = Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&host).output();
        assert!(made.expect("dropbearkey (package dropbear-bin)").status.success());
        let script = "chmod 700 \"$1\" \"$1/.ssh\"; mount --bind \"$1\" ~root && exec dropbear -F -s -p 127.0.0.1:2222 -r \"$2\"";
        let server = Command::new("nsenter")
            .arg(format!("--net={}", d.netns().display()))
            .args(["unshare", "-m", "sh", "-c", script, "sh"])
            .args([&home, &host])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Self(server.expect("dropbear (package dropbear-bin)"));
        wait_until("dropbear listens", || {
            in_netns(&d.netns(), "ss -Hltn 'sport = 2222' | grep -q .").code == 0
        });
        server
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A key without a passphrase.
fn key(d: &Daemon, name: &str) -> std::path::PathBuf {
    let path = d.dir().join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.expect("ssh-keygen (package openssh-client)").success());
    path
}

/// Builds, where temporary files go into a folder of the test's own.
fn build(d: &Daemon, line: &str) -> Done {
    let dir = d.dir().join("temporary");
    fs::create_dir_all(&dir).expect("folder");
    let mut command = ours(d, &format!("build {line}"));
    command.env("TMPDIR", &dir);
    let done = done(run(command, &[]));
    assert_eq!(fs::read_dir(&dir).expect("folder").count(), 0, "{line}: an agent is left");
    done
}

#[test]
fn privileged_repositories_are_reached_with_the_keys_of_a_build() {
    let d = Daemon::start();
    d.load("busybox");
    let (mine, other) = (key(&d, "mine"), key(&d, "other"));
    let repos = Repositories::start(&d);
    repos.make("x.git").commit(&[("a", "a"), ("Dockerfile", "FROM busybox\nCOPY a /c/\n")]);
    let server = SshServer::start(&d, &mine);
    let url = format!("ssh://root@127.0.0.1:2222{}", repos.dir().join("x.git").display());
    let add = folder(&d, "add", &[("Dockerfile", &format!("FROM busybox\nADD {url} /c/\nRUN cat /c/a\n"))]);
    let (key, bad) = (mine.display(), other.display());
    // As the context, for ADD, and as a context with a name; several keys in one agent.
    build(&d, &format!("-q -t x --ssh default={key} {url}")).ok();
    build(&d, &format!("-q --ssh default={bad},{key} {add}")).ok();
    let named = folder(&d, "named", &[("Dockerfile", "FROM busybox\nCOPY --from=lib a /n\n")]);
    build(&d, &format!("-q --ssh default={key} --build-context lib={url} {named}")).ok();
    for (line, want) in [
        (format!("--no-cache {add}"), "the build has no SSH key: give it one with --ssh default=KEY"),
        (format!("--no-cache --ssh default={bad} {add}"), "the keys of --ssh default do not open it"),
        (format!("--ssh default={key}.none {add}"), "no such file or directory"),
        (
            format!("--ssh default={} {add}", d.dir().display()),
            "neither the socket of an agent nor the file of a key",
        ),
        (format!("--ssh default={add}/Dockerfile {add}"), "ssh-add cannot add"),
        (format!("--ssh default={},{key} {add}", d.socket().display()), "give one socket, or keys"),
    ] {
        let failed = build(&d, &line);
        assert!(failed.code != 0 && failed.stderr.contains(want), "{line}: {}", failed.stderr);
    }
    drop(server);
    drop(repos);
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_commands_may_ask_for_the_keys_of_files() {
    let d = Daemon::start();
    d.load("nginx");
    let key = key(&d, "mine");
    let public = fs::read(key.with_extension("pub")).expect("key");
    let text = String::from_utf8(public).expect("text");
    let blob = text.split_whitespace().nth(1).expect("key").to_owned();
    // What ssh-add -L asks, of an image without it: the list of keys, whose answer has the public one.
    let file = "FROM nginx\nRUN --mount=type=ssh,required perl -MIO::Socket::UNIX -MMIME::Base64 -e \
         '$s = IO::Socket::UNIX->new($ENV{SSH_AUTH_SOCK}) or die; print $s pack(q(NC), 1, 11); $s->flush; read $s, $n, 4; \
         read $s, $m, unpack(q(N), $n); print q(keys ), encode_base64(substr($m, 9, unpack(q(N), substr($m, 5, 4))), q()), \"\\n\"'\n";
    let dir = folder(&d, "context", &[("Dockerfile", file)]);
    let built = build(&d, &format!("--progress plain --ssh default={} {dir}", key.display()));
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stderr.contains(&format!("keys {blob}")), "{}", built.stderr);
    // So may commands in working containers.
    let name = working(&d, "from nginx").ok();
    let ask = format!("run --ssh default={} --mount type=ssh {name} -- sh -c", key.display());
    let script = "test -S $SSH_AUTH_SOCK·&&·stat·-c·%a·$SSH_AUTH_SOCK";
    assert_eq!(working(&d, &format!("{ask} {}", script.replace(' ', "·"))).ok(), "600");
    working(&d, &format!("rm {name}")).ok();
    d.finish();
}
