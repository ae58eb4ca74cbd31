//! The daemon of an ordinary user. The user exists for the daemon alone: in its mount namespace the files of users say so,
//! and nothing of the machine's is changed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Client, Daemon, in_netns, wait_until};
use crate::network::get;

const USER: u32 = 54_321;
const FIRST: u32 = 700_000;
/// The daemon's "host" has this address; a route outside leads by it.
const HOST: &str = "192.0.2.50";

/// What the machine is to the user.
#[derive(Clone, Copy)]
struct Machine {
    subordinate_ids: bool,
    tun: bool,
}

const WHOLE: Machine = Machine { subordinate_ids: true, tun: true };

/// Takes the test's folder, the mode of /dev/net/tun and the daemon's command line. The program may lie where only root
/// can look.
const SCRIPT: &str = r#"set -e
dir=$1 tun=$2 program=$3; shift 3
mount --make-rprivate /
for file in passwd group subuid subgid; do
  [ -e /etc/$file ] || : > /etc/$file
  mount --bind "$dir/etc/$file" /etc/$file
done
mkdir -p /dev/net
mount -t tmpfs -o mode=755 tmpfs /dev/net
mknod -m "$tun" /dev/net/tun c 10 200
: > "$dir/etc/longshore"
mount --bind "$program" "$dir/etc/longshore"
cd /
exec setpriv --reuid 54321 --regid 54321 --clear-groups \
  env -i HOME="$dir" XDG_RUNTIME_DIR="$dir" PATH=/usr/sbin:/usr/bin:/sbin:/bin "$dir/etc/longshore" "$@""#;

/// The programs that make the user and become it; their files.
fn become_user(dir: &Path, machine: Machine) -> Vec<String> {
    let etc = dir.join("etc");
    fs::create_dir(&etc).expect("folder");
    let ranges = if machine.subordinate_ids { format!("ann:{FIRST}:65536\n") } else { String::new() };
    let put = |name: &str, text: &str| fs::write(etc.join(name), text).expect("write");
    put("passwd", &format!("root:x:0:0::/root:/bin/sh\nann:x:{USER}:{USER}::/:/bin/sh\n"));
    put("group", &format!("root:x:0:\nann:x:{USER}:\n"));
    put("subuid", &ranges);
    put("subgid", &ranges);
    chown(dir, Some(USER), Some(USER)).expect("chown");
    let tun = if machine.tun { "666" } else { "600" };
    let words = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", &dir.display().to_string(), tun];
    words.map(str::to_owned).to_vec()
}

/// Gives the host's side of the daemon a way out.
fn uplink(dir: &Path) {
    let commands = format!(
        "ip link set lo up; ip link add up0 type veth peer name up1; ip link set up1 up; ip link set up0 up; \
         ip addr add {HOST}/24 dev up0; ip addr add 172.17.9.1/24 dev up0; ip route add default via 192.0.2.1"
    );
    in_netns(&dir.join("netns"), &format!("set -e; {commands}")).ok();
}

fn start(machine: Machine) -> Daemon {
    Daemon::start_within(|dir| {
        uplink(dir);
        become_user(dir, machine)
    })
}

/// A server of the host, which answers once with `text`; its port.
fn serve(daemon: &Daemon, text: &'static str) -> u16 {
    let netns = fs::File::open(daemon.netns()).expect("network namespace");
    let bind = || TcpListener::bind((HOST, 0));
    let listener = longshore_sys::netns::with_netns(netns.as_fd(), bind).expect("enter").expect("listen");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("accept");
        peer.read_exact(&mut [0; 6]).expect("read");
        peer.write_all(text.as_bytes()).expect("write");
    });
    port
}

/// What a container does to get the answer of such a server. Its input stays open: early versions of pasta lose the answer
/// to who has ended before.
fn ask(port: u16) -> String {
    format!("mkfifo /in; exec 3<> /in; echo hello >&3; nc -w 20 {HOST} {port} <&3")
}

#[test]
fn an_ordinary_user_runs_containers() {
    let daemon = start(WHOLE);
    daemon.load("busybox");
    let info =
        daemon.docker(["info", "--format", "{{json .SecurityOptions}} {{.Driver}} {{.CgroupDriver}}"]).ok();
    assert!(info.contains("name=rootless") && info.ends_with("overlay2 none"), "{info}");
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("status");
    assert!(status.contains(&format!("Uid:\t{USER}\t{USER}")), "{status}");

    let id = daemon.docker(["run", "--rm", "busybox", "id", "-u"]).ok();
    assert_eq!(id, "0");
    // Root inside is the user outside, everybody else is one of the user's subordinates.
    let shared = daemon.dir().join("shared");
    fs::create_dir(&shared).expect("folder");
    chown(&shared, Some(USER), Some(USER)).expect("chown");
    let volume = format!("{}:/v", shared.display());
    let script = "touch /v/root /v/other; chown 5:6 /v/other; echo x > /dev/null";
    daemon.docker(["run", "--rm", "-v", &volume, "busybox", "sh", "-c", script]).ok();
    let owner = |name: &str| {
        let meta = fs::metadata(shared.join(name)).expect("file");
        (meta.uid(), meta.gid())
    };
    assert_eq!(owner("root"), (USER, USER));
    assert_eq!(owner("other"), (FIRST + 4, FIRST + 5));

    // The host's own namespaces, which no file system can be mounted for here.
    daemon.docker(["run", "--rm", "--pid", "host", "--ipc", "host", "busybox", "ls", "/proc/1"]).ok();
    daemon
        .docker(["run", "--rm", "--network", "host", "--privileged", "busybox", "ls", "/sys/class/net"])
        .ok();
    assert_eq!(daemon.docker(["run", "--rm", "-u", "7:8", "busybox", "id", "-u"]).ok(), "7");

    // Limits and pauses need cgroups, which this user may not make.
    let refused = daemon.docker(["create", "-m", "64m", "busybox"]).fails(1);
    assert!(
        refused.contains("a limit of memory cannot be set: this daemon may make no cgroups"),
        "{refused}"
    );
    daemon
        .docker(["run", "-d", "--name", "web", "busybox", "sh", "-c", "echo up; sleep 1000 & sleep 1000"])
        .ok();
    assert_eq!(daemon.docker(["exec", "web", "id", "-g"]).ok(), "0");
    assert_eq!(daemon.docker(["logs", "web"]).ok(), "up");
    assert_eq!(daemon.docker(["top", "web", "-o", "pid,comm"]).ok().lines().count(), 3);
    let refused = daemon.docker(["pause", "web"]).fails(1);
    assert!(refused.contains("without a freezer cgroup controller"), "{refused}");
    daemon.docker(["stop", "-t", "0", "web"]).ok();
    daemon.finish();
}

#[test]
fn an_ordinary_user_builds_and_commits() {
    let daemon = start(WHOLE);
    daemon.load("busybox");
    let context = daemon.dir().join("context");
    fs::create_dir(&context).expect("folder");
    let text = "FROM busybox\nRUN mkdir /d && touch /d/old && chown 3:4 /d/old\nRUN rm -r /d && mkdir /d && touch /d/new\n\
                COPY Dockerfile /copy\n";
    fs::write(context.join("Dockerfile"), text).expect("write");
    let folder = context.to_str().expect("utf-8");
    for client in [Client::Longshore, Client::Docker] {
        daemon.run(client, ["build", "-q", "-t", "built", folder]).ok();
    }
    // A directory that was made anew hides what is below it.
    assert_eq!(daemon.docker(["run", "--rm", "built", "ls", "/d", "/copy"]).ok(), "/copy\n\n/d:\nnew");
    daemon
        .docker(["run", "--name", "changed", "built", "sh", "-c", "rm /d/new; echo y > /e; chown 9:9 /e"])
        .ok();
    assert_eq!(daemon.docker(["diff", "changed"]).ok(), "C /d\nD /d/new\nA /e");
    daemon.docker(["commit", "changed", "kept"]).ok();
    assert_eq!(daemon.docker(["run", "--rm", "kept", "stat", "-c", "%u:%g", "/e"]).ok(), "9:9");
    let archive = daemon.dir().join("kept.tar");
    let file = archive.to_str().expect("utf-8");
    daemon.docker(["save", "-o", file, "kept"]).ok();
    daemon.docker(["rm", "changed"]).ok();
    daemon.docker(["rmi", "kept"]).ok();
    daemon.docker(["load", "-q", "-i", file]).ok();
    assert_eq!(daemon.docker(["run", "--rm", "kept", "cat", "/e"]).ok(), "y");
    daemon.finish();
}

#[test]
fn containers_of_an_ordinary_user_reach_each_other_and_the_outside_and_outlive_the_daemon() {
    let mut daemon = start(WHOLE);
    daemon.load("busybox");
    // The host's own address, by sockets of the host.
    let asked = ask(serve(&daemon, "outside"));
    assert_eq!(daemon.docker(["run", "--rm", "busybox", "sh", "-c", &asked]).ok(), "outside");
    daemon.docker(["network", "create", "mine"]).ok();
    let script = "echo page > /page; exec httpd -f -h /";
    daemon.docker(["run", "-d", "--name", "web", "--network", "mine", "busybox", "sh", "-c", script]).ok();
    let page = "printf 'GET /page HTTP/1.0\\r\\n\\r\\n' | nc -w 20 web 80 | tail -n 1";
    let fetch = |daemon: &Daemon| {
        daemon.docker(["run", "--rm", "--network", "mine", "busybox", "sh", "-c", page]).ok()
    };
    assert_eq!(fetch(&daemon), "page");
    let namespaces = |daemon: &Daemon| {
        let of = |name: &str| fs::read_link(format!("/proc/{}/ns/{name}", daemon.pid())).expect("namespace");
        ["user", "mnt", "net"].map(of)
    };
    let before = namespaces(&daemon);
    daemon.kill9();
    daemon.launch();
    // The next daemon is where the container is.
    assert_eq!(namespaces(&daemon), before);
    assert_eq!(daemon.docker(["exec", "web", "cat", "/page"]).ok(), "page");
    assert_eq!(fetch(&daemon), "page");
    let asked = ask(serve(&daemon, "again"));
    assert_eq!(daemon.docker(["exec", "web", "sh", "-c", &asked]).ok(), "again");
    daemon.docker(["rm", "-f", "web"]).ok();
    daemon.docker(["network", "rm", "mine"]).ok();
    // Without a container nobody needs them any more, and the next daemon makes its own.
    daemon.terminate();
    assert!(!daemon.dir().join("run/network").exists());
    daemon.launch();
    daemon.finish();
}

#[test]
fn without_a_way_outside_there_are_no_bridges_and_everything_else() {
    let daemon = start(Machine { tun: false, ..WHOLE });
    daemon.load("busybox");
    let refused = daemon.docker(["run", "--rm", "busybox", "true"]).fails(125);
    assert!(refused.contains("/dev/net/tun cannot be used"), "{refused}");
    assert!(refused.contains("chmod 666 /dev/net/tun"), "{refused}");
    assert_eq!(daemon.docker(["run", "--rm", "--network", "none", "busybox", "echo", "alone"]).ok(), "alone");
    // The host's network is then the host's.
    let asked = ask(serve(&daemon, "host"));
    let said = daemon.docker(["run", "--rm", "--network", "host", "busybox", "sh", "-c", &asked]).ok();
    assert_eq!(said, "host");
    daemon.finish();
}

#[test]
fn all_that_is_missing_is_said_at_once() {
    let dir = tempfile::tempdir().expect("folder");
    let words = become_user(dir.path(), Machine { subordinate_ids: false, ..WHOLE });
    let (program, args) = words.split_first().expect("words");
    let out = Command::new(program)
        .args(args)
        .args([env!("CARGO_BIN_EXE_longshore"), "daemon"])
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let line =
            format!("{file} gives ann no subordinate ids: as root, usermod {option} 100000-165535 ann");
        assert!(said.contains(&line), "{said}");
    }
}

/// Published ports are the host's, though the daemon's network is another.
#[test]
fn ports_of_an_ordinary_users_containers_are_the_hosts() {
    let mut daemon = start(WHOLE);
    daemon.load("busybox");
    let serve = "mkdir /www; echo web > /www/index.html; exec httpd -f -p 80 -h /www";
    let published = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "9000-9099:9000-9099"];
    let run = ["run", "-d", "--name", "web"].into_iter().chain(published);
    daemon.docker(run.chain(["busybox", "sh", "-c", serve])).ok();
    let here = daemon.netns();
    let outside = here.clone();
    let check = |what: &str| {
        for server in ["127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8081", "192.0.2.50:8080"] {
            wait_until(&format!("{what}: {server}"), || get(&outside, server).as_deref() == Some("web"));
        }
        assert_eq!(get(&outside, "192.0.2.50:8081"), None, "{what}");
    };
    check("at first");
    let shown = daemon.docker(["port", "web", "80"]).ok();
    assert_eq!(shown, "0.0.0.0:8080\n127.0.0.1:8081\n[::]:8080");
    // What the host uses is left to it, though the daemon's network is another.
    let subnet = ["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "bridge"];
    assert_eq!(daemon.docker(subnet).ok(), "172.18.0.0/16");
    // The host's own programs are noticed, and ports that the user may not have.
    let listener =
        longshore_sys::netns::with_netns(fs::File::open(&here).expect("namespace").as_fd(), || {
            TcpListener::bind((HOST, 0))
        });
    let port =
        listener.as_ref().expect("enter").as_ref().expect("listen").local_addr().expect("address").port();
    for (asked, code, words) in [
        (format!("{port}:80"), 125, "address already in use"),
        ("8080:80".to_owned(), 125, "port is already allocated"),
        // docker takes these words for those of a command that cannot be run.
        ("80:80".to_owned(), 126, "permission denied: choose a port from 1024 on"),
    ] {
        let failed = daemon.docker(["run", "--rm", "-p", &asked, "busybox", "true"]).fails(code);
        assert!(failed.contains(words), "{asked}: {failed}");
    }
    let nat = ["run", "--rm", "--publish-mode", "nat", "-p", "8090:80", "busybox", "true"];
    let failed = daemon.run(Client::Longshore, nat).fails(125);
    assert!(failed.contains("use the publish mode local"), "{failed}");
    daemon.run(Client::Longshore, ["update", "-p", "+8082:80", "web"]).ok();
    assert_eq!(get(&here, "127.0.0.1:8082").as_deref(), Some("web"));
    daemon.kill9();
    daemon.launch();
    check("of the next daemon");
    daemon.docker(["rm", "-f", "web"]).ok();
    assert_eq!(get(&here, "127.0.0.1:8080"), None);
    daemon.finish();
}
