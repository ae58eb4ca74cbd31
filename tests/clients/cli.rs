//! Our command line beside the real one: the same words to both, against the same daemon, must give the same output,
//! errors and status. Where ours differs on purpose, the reason stands beside it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::harness::{Client, Daemon, wait_until, wait_until_with};

/// Lines that only read, for a daemon with the containers `up` (running), `ended`, `made` and the volume `data`.
const READING: &[&str] = &[
    // Words and options.
    "foo",
    "image foo",
    "container foo",
    "--foo",
    "-z ps",
    "help foo",
    "ps --foo",
    "ps -z",
    "ps a",
    "ps -n x",
    "ps -n",
    "ps --filter",
    "ps --filter x",
    "ps --filter foo=x",
    "ps --help --nonsense",
    "ps --host x",
    "ps -D",
    "ps help",
    "rm",
    "rename a",
    "run",
    "exec a",
    "cp a",
    "port",
    "container rm",
    "images --no-trunc=maybe",
    "logs --tail",
    "-c default -H unix:///a ps",
    "-H unix:///nope ps",
    "-H unix:///nope run busybox",
    "-l foo ps",
    "stop --time 3 a",
    "stop -t x a",
    "ps --help",
    "run --help",
    "exec --help",
    "image ls --help",
    "cp --help",
    "container list --help",
    "events --help",
    "volume create --help",
    "network ls --help",
    "network connect --help",
    "network disconnect --help",
    "network rm --help",
    "image rm --help",
    "pull --help",
    "image push --help",
    "login --help",
    "logout --help",
    "search --help",
    "pull",
    "pull a b",
    "push",
    "search",
    "manifest foo",
    "manifest inspect",
    // Lists.
    "ps -q",
    "ps -aq",
    "ps -a --no-trunc -f name=made",
    "ps -f status=exited -q",
    "ps -a -f exited=3 -q",
    "ps -n 1 -q",
    "ps -lq",
    "ps -q --format {{.Names}}",
    "ps --format raw -f name=made -a",
    "ps --format {{.Foo}}",
    "ps --format {{",
    "ps -a --format {{.Names}}|{{.Image}}|{{.Command}}|{{.Labels}}|{{.State}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}",
    r#"ps -a --format table·{{.Names}}\t{{.Label·"a"}}\t{{upper·.Image}}\t{{.Ports}}"#,
    r#"ps --format {{json·.Ports}}{{split·.Names·"p"}}{{join·(split·.Names·"p")·"-"}}{{truncate·.Image·3}}{{pad·.Names·1·2}}|"#,
    "images",
    "images -q",
    "images --digests",
    "images --no-trunc",
    "images --format json",
    "images busybox",
    "images nosuch",
    "images --format raw",
    "images -q --format {{.Repository}}",
    "images -f reference=bus*",
    "images -f foo=bar",
    "images --format table·{{.Repository}}\\t{{.VirtualSize}}",
    "history busybox",
    "history -q --no-trunc busybox",
    "history --format json busybox",
    "history -H=false busybox",
    "history --platform foo busybox",
    "volume ls",
    "volume ls -q",
    "volume ls --format json",
    "volume ls -f dangling=true -q",
    "volume ls --format {{.Foo}}",
    "network ls",
    "network ls --no-trunc",
    "network ls --format json",
    "network ls -q -f driver=host",
    "container ls -q",
    // Objects.
    "inspect up",
    "inspect busybox",
    "inspect data",
    "network inspect bridge",
    "inspect nosuch",
    "inspect up nosuch",
    "inspect -f {{.Name}} up nosuch ended",
    "inspect -f {{ up",
    "inspect -f {{foo}} up",
    "inspect -f {{.Foo}} up busybox",
    "inspect --format json up",
    "inspect --type image up",
    "image inspect nosuch",
    "container inspect busybox",
    "inspect -f {{.Config.Labels.none}}|{{.State.Health}}|{{.HostConfig.Init}}|{{.Config.Entrypoint}}|{{.HostConfig.Tmpfs}} up",
    "inspect -f {{.NetworkSettings.Ports}}{{.HostConfig.RestartPolicy}}{{json·.Mounts}} made",
    r#"inspect -f {{range·$k,·$v·:=·.Config.Labels}}{{$k}}={{$v}};{{end}}{{if·eq·.State.Status·"running"}}y{{else}}n{{end}} up"#,
    r#"inspect -f {{index·.Config.Labels·"a"}}{{index·.Config.Labels·"x"}}{{println·.Name}}{{.ID}}\t{{with·.State}}{{.Pid}}{{end}} up"#,
    // Containers.
    "logs up",
    "logs ended",
    "logs -n 1 up",
    "logs --since x up",
    "logs nosuch",
    "top made",
    "top up -o pid,args",
    "port up",
    "port up 80",
    "port up 81",
    "port up foo",
    "diff up",
    "diff nosuch",
    "wait ended nosuch",
    "attach made",
    "start -a up up",
    "rename up",
    "kill -s FOO up",
    "kill made",
    "pause made",
    "unpause up",
    "stop nosuch",
    "rm up",
    "rm -f nosuch",
    "exec up nosuch",
    "exec up sh -c exit·7",
    "exec made ls",
    "exec -it up ls",
    "exec -w /nope up ls",
    "exec -e A=1 -e B up env",
    "exec --env-file /nope up ls",
    "exec --detach-keys foo up ls",
    "start nosuch nosuch2",
    // Images, volumes, files.
    "save nosuch",
    "save busybox -o /nope/x",
    "save -o /tmp busybox",
    "export up -o /nope/x",
    "load -i /nope",
    "load --platform foo -i /etc/hostname",
    "import /nope",
    "import http://127.0.0.1:1/x",
    "tag busybox Foo",
    "tag nosuch a",
    "rmi nosuch",
    "rmi -f nosuch",
    "rmi busybox",
    "commit up Foo",
    "commit up a:b:c",
    "commit nosuch",
    "network rm --force nosuch",
    "network create",
    "network create bridge",
    "network create --driver nosuch x",
    "network create --subnet 10.0.0.0/24 --gateway 10.0.1.1 x",
    "network create --subnet 10.0.0.0/24 --ip-range 10.0.1.0/25 x",
    "network create --subnet 10.0.0.0/8 --subnet 10.0.1.0/24 x",
    "network create --gateway 10.0.1.1 x",
    "network connect bridge",
    "network connect bridge nosuch",
    "network connect nosuch ended",
    "network disconnect nosuch ended",
    "network prune -f --filter foo=x",
    "network inspect nosuch",
    "update nosuch",
    "update --restart no nosuch",
    "update --restart foo ended",
    "volume inspect nosuch",
    "volume rm nosuch",
    "volume rm data",
    "volume create a/b",
    "cp up:/nope /tmp",
    "cp up:/etc /nope/x",
    "cp a b",
    "cp a:b c:d",
    // Registries, as far as nobody is asked.
    "pull FOO",
    "pull -q FOO",
    "pull a@sha256:12",
    "pull -a a:b",
    "pull --disable-content-trust=maybe x",
    "push FOO",
    "push -a a:b",
    "push --platform foo a",
    "-H unix:///nope pull busybox",
    "-H unix:///nope push busybox",
    "-H unix:///nope pull FOO",
    "-H unix:///nope search busybox",
    "-H unix:///nope logout x",
    "login 127.0.0.1:1",
    "login -u a 127.0.0.1:1",
    "login",
    "login -u a --password-stdin -p x",
    "login --password-stdin 127.0.0.1:1",
    "login -u= -p x",
    "login -u x -p=",
    "logout",
    "logout nosuch",
    "logout https://127.0.0.1:1/v1/",
    "search --limit x a",
    "search --filter foo a",
    "manifest inspect FOO",
    // Events and versions.
    "events --since 1 --until 2",
    "events --until x",
    "events --format {{",
    "events --since 1h --until 0s -f type=volume",
    "events --since 1h --until 0s -f container=ended --format json",
    "version -f {{.Server.APIVersion}}{{.Server.Os}}",
    "events --since 1h --until 0s -f container=ended --format {{json·.}}{{.Status}}{{.Time}}",
    "version -f {{.Foo}}",
    "info -f {{.ContainersRunning}}{{.Driver}}{{.SecurityOptions}}{{json·.Plugins}}",
    "info -f {{.Foo}}",
    "info -f {{",
];

/// Options of `run` that must be refused, by us or by the daemon, without a container.
const REFUSED: &[&str] = &[
    "-a foo busybox",
    "-p x busybox",
    "-p x:80 busybox",
    "-p 80/foo busybox",
    "-p 80-81:90-92 busybox",
    "-e =x busybox",
    "--add-host foo busybox",
    "--dns foo busybox",
    "--device foo busybox",
    "--link a:b:c busybox",
    "--ulimit x busybox",
    "--ulimit nofile=2:1 busybox",
    "--cpus x busybox",
    "--cpus 1.0000000001 busybox",
    "--blkio-weight 99999 busybox",
    "--device-read-bps /dev/a:x busybox",
    "--health-interval 5 busybox",
    "--mount x busybox",
    "--mount type=bind busybox",
    "--mount type=bind,x=y busybox",
    "--network name=a,foo=b busybox",
    "--gpus x=y busybox",
    "--gpus all busybox",
    "--sysctl x busybox",
    "--label-file /nope busybox",
    "--env-file /nope busybox",
    "--expose x busybox",
    "--restart x:y busybox",
    "--restart foo busybox",
    "--rm --restart always busybox",
    "-v /a:/b:/c:/d busybox",
    "--pid foo busybox",
    "--uts foo busybox",
    "--cgroupns foo busybox",
    "--ipc foo busybox",
    "--memory x busybox",
    "--memory 5xx busybox",
    "--memory-swappiness 200 busybox",
    "--log-driver none --log-opt a=b busybox",
    "--log-driver foo busybox",
    "--security-opt x busybox",
    "--security-opt seccomp=/nope busybox",
    "--pull x busybox",
    "--mac-address x busybox",
    "-d -a stdin busybox",
    "--health-cmd x --no-healthcheck busybox",
    "--runtime foo busybox",
    "--platform foo busybox",
    "--network-alias x busybox",
    "--cidfile /tmp busybox",
    "--cidfile /nope/x busybox",
    "Foo",
    "--name x/y busybox",
    "nosuch",
    "-q nosuch",
    "--pull never nosuch",
    "--pull always busybox",
    "--pull= nosuch",
    "-it busybox true",
    "--volumes-from nosuch busybox",
    "--network nosuch busybox",
    "--use-api-socket=x busybox",
    "--rm=maybe busybox",
];

pub(crate) fn words(line: &str) -> Vec<String> {
    // A dot in the middle stands for a space inside a word.
    line.split_whitespace().map(|w| w.replace('·', " ")).collect()
}

/// Our program under docker's name, so that its texts can be compared.
fn as_docker(d: &Daemon) -> Command {
    let link = d.dir().join("docker");
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_longshore"), &link).expect("symlink");
    }
    let plain = d.command(Client::Longshore);
    let mut command = Command::new(link);
    for (key, value) in plain.get_envs() {
        match value {
            Some(v) => command.env(key, v),
            None => command.env_remove(key),
        };
    }
    command
}

pub(crate) fn run(mut command: Command, line: &[String]) -> (i32, String, String) {
    let out = command.args(line).stdin(Stdio::null()).output().expect("the command line");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

/// Whether the real command line says things as ours does: Docker changed its words with version 28. Told past the
/// test harness, which shows nothing of a test that passes.
fn same_words(d: &Daemon) -> bool {
    let version = d.docker(["version", "--format", "{{.Client.Version}}"]).ok();
    let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
    let same = major.is_some_and(|m| m >= 28);
    if !same {
        let _ = writeln!(std::io::stderr(), "words were not compared: docker {version} is older than 28");
    }
    same
}

/// With an older command line ours is run alone: no line may be too much for it.
fn compare(d: &Daemon, lines: impl Iterator<Item = Vec<String>>) {
    let same = same_words(d);
    let mut differences = String::new();
    for line in lines {
        if !same {
            let ours = run(as_docker(d), &line);
            assert!((0..=127).contains(&ours.0) && ours.0 != 101, "docker {}: {ours:?}", line.join(" "));
            continue;
        }
        let both = || (run(d.command(Client::Docker), &line), run(as_docker(d), &line));
        let (mut theirs, mut ours) = both();
        // Between the two a second may have passed, which the ages in a table show.
        for _ in 0..5 {
            if theirs == ours || !theirs.1.contains("second") {
                break;
            }
            (theirs, ours) = both();
        }
        if theirs != ours {
            differences += &format!("docker {}\n  docker: {theirs:?}\n  ours:   {ours:?}\n", line.join(" "));
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

fn furnished() -> Daemon {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["volume", "create", "data"]).ok();
    d.docker(["create", "--name", "made", "-v", "data:/d", "--restart", "on-failure:3", "busybox", "true"])
        .ok();
    d.docker(["run", "--name", "ended", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]).fails(3);
    let up = ["run", "-d", "--name", "up", "-l", "a=b", "-l", "c=d", "-p", "8080:80", "busybox"];
    d.docker(up.iter().chain(&["sh", "-c", "touch /new; echo one; echo two >&2; exec sleep 1000"])).ok();
    wait_until("it is up", || d.docker(["logs", "up"]).stdout == "one\n");
    d
}

#[test]
fn privileged_the_same_words_give_the_same_answers() {
    let d = furnished();
    compare(&d, READING.iter().map(|l| words(l)));
    let refused = REFUSED.iter().map(|l| words(&format!("run {l}")));
    compare(&d, refused);
    assert_eq!(d.docker(["ps", "-aq"]).ok().lines().filter(|l| !l.is_empty()).count(), 3 + leftovers(&d));
    d.finish();
}

/// Containers that were made and could not be started; docker leaves them too.
fn leftovers(d: &Daemon) -> usize {
    d.docker(["ps", "-aq", "-f", "status=created"]).ok().lines().count().saturating_sub(1)
}

#[test]
fn privileged_what_is_not_there_yet_is_named() {
    let d = Daemon::start();
    for (line, code, want) in [
        ("compose up", 1, "'docker compose' is not implemented yet"),
        ("manifest create a b", 1, "'docker manifest create' is not implemented yet"),
        ("manifest inspect a b", 1, "manifest lists that are kept on this machine are not implemented yet"),
        (
            "manifest inspect --insecure 10.0.0.1:1/a",
            1,
            "--insecure: it is the daemon that talks to 10.0.0.1:1; name it among the daemon's insecure-registries",
        ),
        (
            "pull --disable-content-trust=false busybox",
            1,
            "content trust (--disable-content-trust=false) is not implemented yet",
        ),
        ("push --disable-content-trust=false busybox", 1, "content trust"),
        ("run --disable-content-trust=false busybox", 125, "content trust"),
        ("container stats", 1, "'docker container stats' is not implemented yet"),
        ("network create --config-only x", 125, "--config-only is not implemented yet"),
        ("update --memory 1g x", 125, "--memory is not implemented yet"),
        ("images --tree", 1, "images --tree is not implemented yet"),
        ("run --use-api-socket busybox", 125, "--use-api-socket is not implemented yet"),
        (
            "run --cpu-count 1 busybox",
            125,
            "--cpu-count is only supported on a Docker daemon running on windows",
        ),
        (
            "start --checkpoint x y",
            125,
            "--checkpoint is only supported on a Docker daemon with experimental features",
        ),
        ("volume create --scope single x", 125, "--scope is for the cluster volumes of Docker's swarm mode"),
        ("--tlsverify ps", 125, "--tlsverify is not implemented yet"),
        ("--context other ps", 1, "context \"other\": contexts are not implemented yet"),
        ("inspect --type service x", 1, "inspecting a service is not implemented yet"),
    ] {
        let (status, _, errors) = run(as_docker(&d), &words(line));
        assert_eq!(status, code, "{line}: {errors}");
        assert!(errors.contains(want), "{line}: {errors}");
    }
    d.finish();
}

#[test]
fn privileged_settings_and_shells() {
    let d = furnished();
    let config = d.dir().join("config.json");
    fs::write(
        &config,
        r#"{"psFormat": "{{.Names}}!", "imagesFormat": "{{.Repository}}?", "proxies": {"default": {"noProxy": "x"}}}"#,
    )
    .expect("config.json");
    let lines = ["ps", "ps -q", "ps --format {{.ID}}", "images", "images -q", "run --rm -e A=1 busybox env"];
    compare(&d, lines.iter().map(|l| words(l)).filter(|l| l[0] != "run"));
    let (_, env, _) = run(as_docker(&d), &words("run --rm busybox env"));
    assert!(env.contains("NO_PROXY=x\n") && env.contains("no_proxy=x\n"), "{env}");
    for damaged in [
        "{",
        "",
        "[]",
        r#"{"auths": 5}"#,
        r#"{"auths": {"a": {"auth": "!"}}}"#,
        r#"{"auths": {"a": {"auth": "OnA="}}}"#,
        r#"{"psFormat": "{{.Names}}"} more"#,
    ] {
        fs::write(&config, damaged).expect("config.json");
        compare(&d, ["ps"].iter().map(|l| words(l)));
    }
    fs::write(&config, "{").expect("config.json");
    let (code, ids, warning) = run(as_docker(&d), &words("ps -q"));
    assert!(code == 0 && !ids.is_empty() && warning.starts_with("WARNING: Error"), "{warning}");
    fs::remove_file(&config).expect("config.json");

    // A context of the environment counts only where no host is named.
    let mut command = as_docker(&d);
    command.env_remove("DOCKER_HOST").env("DOCKER_CONTEXT", "other");
    assert!(run(command, &words("ps")).2.contains("context \"other\""));

    let script = |line: &str| {
        let mut bash = Command::new("bash");
        for (key, value) in as_docker(&d).get_envs() {
            value.map(|v| bash.env(key, v));
        }
        let path = format!("{}:{}", d.dir().display(), std::env::var("PATH").expect("PATH"));
        let ask = "source <(docker completion bash); COMP_LINE=$1; COMP_POINT=${#1}; __docker_complete; echo ${COMPREPLY[*]}";
        let out = bash.env("PATH", path).args(["-c", ask, "bash", line]).output().expect("bash");
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    };
    for (line, want) in [
        ("docker container unp", "unpause"),
        ("docker run busybox:l", "latest"),
        ("docker run --network=hos", "host"),
        ("docker stop u", "up"),
        ("docker start -a ", "ended made"),
        ("docker volume rm da", "data"),
        ("docker ps --no-t", "--no-trunc"),
    ] {
        assert_eq!(script(line), want, "{line}");
    }
    d.finish();
}

/// Copies, whose words have `cpx:/W/` for a fresh folder of the container and are run in a fresh folder of this machine.
const COPIES: &[&str] = &[
    "f cpx:/W/new",
    "f cpx:/W/dst/",
    "f cpx:/W/dst/file",
    "f cpx:/W/dang",
    "f cpx:/W/src/a/x",
    "-a f cpx:/W/new",
    "-L dl cpx:/W/new",
    "src cpx:/W/new",
    "src cpx:/W/dst",
    "src/. cpx:/W/dst",
    "./ cpx:/W/dst",
    "src cpx:/W/dst/file",
    "cpx:/W/f new",
    "cpx:/W/f dst",
    "cpx:/W/f nodir/",
    "cpx:/W/f nodir/x",
    "cpx:/W/fl new",
    "-L cpx:/W/fl new",
    "cpx:/W/src dst",
    "cpx:/W/src/. dst",
    "cpx:/W/src dst/file",
    "cpx:/W/f fl",
    "cpx:/W/f dang",
    "nope cpx:/W/x",
];

#[test]
fn privileged_copies_end_up_where_docker_puts_them() {
    const FURNISH: &str = "mkdir -p src/sub dst/ex; echo f > f; chown 55:66 f; chmod 600 f; echo a > src/a; echo b > src/sub/b; \
         ln -s a src/l; ln -s src dl; ln -s f fl; echo old > dst/file; ln -s nowhere dang";
    const LIST: &str =
        "find . | sort | while read p; do echo $p $(stat -c '%F %a %u:%g %s' $p) $(readlink $p); done";
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["run", "-d", "--name", "cpx", "busybox", "sleep", "1000"]).ok();
    let names: Vec<String> =
        (0..COPIES.len()).flat_map(|i| [format!("docker{i}"), format!("ours{i}")]).collect();
    let each = format!("for n in {}; do mkdir /$n; cd /$n; {FURNISH}; done", names.join(" "));
    d.docker(["exec", "cpx", "sh", "-c", &each]).ok();
    let mut differences = String::new();
    for (i, copy) in COPIES.iter().enumerate() {
        let [theirs, ours] = [Client::Docker, Client::Longshore].map(|client| {
            let name = if client == Client::Docker { format!("docker{i}") } else { format!("ours{i}") };
            // Of the same name for both, as it stands in errors.
            let here = d.dir().join("here");
            fs::create_dir(&here).expect("folder");
            let shell = |script: &str| {
                let out = Command::new("sh").current_dir(&here).args(["-c", script]).output().expect("sh");
                String::from_utf8_lossy(&out.stdout).into_owned()
            };
            shell(FURNISH);
            let mut command = if client == Client::Docker { d.command(client) } else { as_docker(&d) };
            command.current_dir(&here);
            let line = copy.replace("/W/", &format!("/{name}/"));
            let (code, out, err) = run(command, &words(&format!("cp {line}")));
            // What goroutines of docker's log about their end is no part of its answer.
            let err: Vec<&str> = err.lines().filter(|l| !l.starts_with("time=")).collect();
            let err = err.join("\n").replace(&name, "W");
            let there = d.docker(["exec", "-w", &format!("/{name}"), "cpx", "sh", "-c", LIST]).ok();
            let result = (code, out, err, shell(LIST), there);
            fs::remove_dir_all(&here).expect("remove");
            result
        });
        if theirs != ours {
            differences += &format!("cp {copy}\n  docker: {theirs:?}\n  ours:   {ours:?}\n");
        }
    }
    assert!(differences.is_empty(), "{differences}");
    d.finish();
}

/// What is done at a terminal: to its controlling end, or to the process.
pub(crate) type Act<'a> = &'a dyn Fn(&mut fs::File, u32);

/// Runs a command line on a terminal; gives what it showed and its status. Each step waits until something new is
/// shown, and then types.
pub(crate) fn typed(d: &Daemon, client: Client, args: &[&str], steps: &[(&str, &str)]) -> (String, i32) {
    let mut command = d.command(client);
    command.args(args).env("TERM", "dumb");
    let typing: Vec<_> = steps
        .iter()
        .map(|(_, keys)| move |terminal: &mut fs::File, _| terminal.write_all(keys.as_bytes()).expect("type"))
        .collect();
    let steps: Vec<(&str, Act<'_>)> = steps.iter().zip(&typing).map(|((s, _), act)| (*s, act as _)).collect();
    on_a_terminal(command, (33, 101), &steps)
}

/// Opens a terminal for a command, and not for this program: a leader of a session without a terminal would take it, and
/// the command would be stopped in its background.
pub(crate) fn other_end(path: &std::path::Path) -> fs::File {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
    let opened = fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    opened.expect("the terminal's other end")
}

/// Runs a command on a terminal of so many rows and columns; gives what it showed and its status. Each step waits until
/// something new is shown, and then acts.
pub(crate) fn on_a_terminal(
    mut command: Command,
    (rows, columns): (u16, u16),
    steps: &[(&str, Act<'_>)],
) -> (String, i32) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&controller).expect("grantpt");
    unlockpt(&controller).expect("unlockpt");
    let name = ptsname(&controller, Vec::new()).expect("ptsname");
    let path = PathBuf::from(name.to_str().expect("utf-8").to_owned());
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&controller, size).expect("size");
    let end = || other_end(&path);
    command.stdin(end()).stdout(end()).stderr(end()).process_group(0);
    let called = format!("{command:?}");
    let mut child = command.spawn().expect("the command line");
    drop(command);
    let mut terminal = fs::File::from(controller);
    let mut reader = terminal.try_clone().expect("clone");
    let screen = Arc::new(Mutex::new(Vec::new()));
    let writes = screen.clone();
    let reading = std::thread::spawn(move || {
        let mut buf = [0u8; 4096];
        while let Ok(n @ 1..) = reader.read(&mut buf) {
            writes.lock().expect("screen").extend_from_slice(&buf[..n]);
        }
    });
    let shown = || String::from_utf8_lossy(&screen.lock().expect("screen")).into_owned();
    let mut seen = 0;
    for (shows, act) in steps {
        let context = || format!("{called} shows {shows:?}; so far {:?}", shown());
        wait_until_with(context, || {
            let at = shown()[seen..].find(shows);
            seen += at.map_or(0, |at| at + shows.len());
            at.is_some()
        });
        act(&mut terminal, child.id());
    }
    wait_until(&format!("{called} ends"), || child.try_wait().expect("wait").is_some());
    let status = child.wait().expect("wait").code().unwrap_or(-1);
    reading.join().expect("reader");
    (shown(), status)
}

#[test]
fn privileged_a_terminal_can_be_left_and_taken_again() {
    let d = Daemon::start();
    d.load("busybox");
    let running = |name: &str| d.inspect("{{.State.Running}}", name);
    let (shown, code) = typed(
        &d,
        Client::Longshore,
        &["run", "-it", "--name", "term", "busybox", "sh"],
        &[("# ", "X=5\n"), ("# ", "\x10"), ("", "\x11")],
    );
    assert_eq!(code, 0, "{shown}");
    assert_eq!(running("term"), "true");
    // Left by other keys, as docker says it; what was typed before is still there.
    for client in [Client::Docker, Client::Longshore] {
        let args = ["attach", "--detach-keys", "ctrl-a,x", "term"];
        let (shown, code) = typed(&d, client, &args, &[("", "echo $X-; stty size\n"), ("33 101", "\x01x")]);
        assert!(shown.contains("5-") && shown.contains("33 101"), "{client:?}: {shown}");
        assert_eq!((code, running("term").as_str()), (1, "true"), "{client:?}: {shown}");
        assert!(shown.contains("read escape sequence"), "{client:?}: {shown}");
    }
    // One job that both speaks and sleeps: the shell itself takes a Ctrl-C between two commands and forgets it.
    let steps = [("# ", "sh -c \"echo g''o; exec sleep 1000\"\n"), ("go", "\x03"), ("# ", "exit 4\n")];
    let (shown, code) = typed(&d, Client::Longshore, &["exec", "-it", "term", "sh"], &steps);
    assert_eq!(code, 4, "{shown}");
    let (shown, code) = typed(&d, Client::Longshore, &["attach", "term"], &[("", "exit 6\n")]);
    assert_eq!((code, running("term").as_str()), (6, "false"), "{shown}");
    // A bar on a terminal only.
    let file = crate::harness::fixture("busybox");
    let args = ["load", "-i", file.to_str().expect("utf-8")];
    let (shown, code) = typed(&d, Client::Longshore, &args, &[]);
    assert!(code == 0 && shown.contains("Loaded image: busybox:latest"), "{shown}");
    d.finish();
}
