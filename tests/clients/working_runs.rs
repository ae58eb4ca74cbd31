//! Commands in working containers: their mounts, their terminal, and who ends them.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::cli::{typed, words};
use crate::harness::{Client, Daemon, signal, wait_until};
use crate::working::{begun, clean, folder, nothing_runs, sh, status, working};

#[test]
fn privileged_commands_have_the_mounts_of_builds() {
    let d = Daemon::start();
    d.load("busybox");
    let name = working(&d, "from busybox").ok();
    let other = working(&d, "from busybox").ok();
    sh(&d, &other, "echo theirs > /theirs");
    let dir = folder(&d, "host", &[("file", "of the host")]);
    let secret = format!("{dir}/file");
    let run = |flags: &str, script: &str| {
        let mut args = vec!["working".to_owned(), "run".into()];
        args.extend(words(flags));
        args.extend([name.clone(), "--".into(), "sh".into(), "-c".into(), script.into()]);
        d.run(Client::Longshore, args)
    };
    let seen = run(
        &format!(
            "--mount type=cache,target=/cache --mount type=tmpfs,target=/tmpfs -v {dir}:/bound:ro \
             --mount type=bind,from={other},source=/theirs,target=/other \
             --mount type=bind,from=busybox,source=/bin,target=/image \
             --secret id=s,src={secret} --mount type=secret,id=s"
        ),
        "echo kept > /cache/x; echo gone > /tmpfs/x; cat /bound/file; echo; cat /other; ls /image | grep -c ^sh$; \
         cat /run/secrets/s; touch /bound/x 2>/dev/null || echo read-only",
    );
    assert_eq!(seen.ok(), "of the host\ntheirs\n1\nof the hostread-only");
    let again = run("--mount type=cache,target=/cache", "cat /cache/x; ls / | tr '\\n' ' '").ok();
    assert!(again.starts_with("kept\n") && again.contains("cache "), "{again}");
    let written = run(&format!("--mount type=bind,src={dir},dst=/w,rw"), "echo out > /w/out").ok();
    assert_eq!(
        (written.as_str(), fs::read_to_string(format!("{dir}/out")).expect("file").as_str()),
        ("", "out\n")
    );
    let _socket = std::os::unix::net::UnixListener::bind(format!("{dir}/socket")).expect("socket");
    assert_eq!(run(&format!("-v {dir}/socket:/run/s"), "test -S /run/s && echo socket").ok(), "socket");
    for (flags, want) in [
        ("-v relative:/x", "absolute"),
        ("--mount type=bind,src=x,dst=/y", "absolute source"),
        ("--mount type=ssh,required", "ssh agent default: not found"),
        ("--mount type=secret,id=nosuch,required", "not found"),
        ("-v /nosuch-at-all:/x", "not found"),
        ("--cap-add NOSUCH", "NOSUCH"),
    ] {
        let done = run(flags, "true");
        assert!(done.code == 125 && done.stderr.contains(want), "{flags}: {done:?}");
    }
    let caps = |flags: &str| run(flags, "grep CapEff /proc/self/status").ok().replace("CapEff:\t", "");
    assert_eq!(caps("--cap-drop ALL"), "0000000000000000");
    assert_eq!(caps("--cap-drop ALL --cap-add NET_ADMIN"), "0000000000001000");
    // No mount leaves its place behind, nor the secret what it was.
    working(&d, &format!("commit {name} mounted")).ok();
    assert_eq!(d.run(Client::Longshore, ["image", "diff", "busybox", "mounted"]).ok(), "");
    // Networks, hosts, names.
    assert_eq!(run("--network none", "ls /sys/class/net").ok(), "lo");
    assert!(run("--add-host there:9.8.7.6 --hostname own", "cat /etc/hosts; hostname").ok().ends_with("own"));
    working(&d, &format!("config --hostname set {name}")).ok();
    assert_eq!(
        run("", "hostname; readlink /etc/mtab; ls /.dockerenv").ok(),
        "set\n/proc/mounts\n/.dockerenv"
    );
    working(&d, &format!("copy --from {other} {name} /theirs /got")).ok();
    working(&d, &format!("copy --from busybox {name} /bin/busybox /got/")).fails(1);
    working(&d, &format!("copy --from busybox {name} /bin/busybox /got-too")).ok();
    assert_eq!(run("", "cat /got; cmp /bin/busybox /got-too && echo same").ok(), "theirs\nsame");
    clean(d);
}

#[test]
fn privileged_atk_46_links_of_a_tree_lead_nowhere_else() {
    let d = Daemon::start();
    d.load("busybox");
    let name = working(&d, "from busybox").ok();
    let canary = d.dir().join("canary").display().to_string();
    fs::create_dir(&canary).expect("folder");
    let up = format!("../../../../../../../../..{canary}");
    let tree = working(&d, &format!("mount {name}")).ok();
    fs::create_dir_all(format!("{tree}/etc")).expect("folder");
    for (link, target) in [
        ("etc/resolv.conf", "../run/resolve/stub"),
        ("etc/hosts", &format!("{up}/hosts")),
        ("etc/hostname", &format!("{canary}/hostname")),
        ("out", &canary),
    ] {
        let _ = fs::remove_file(format!("{tree}/{link}"));
        std::os::unix::fs::symlink(target, format!("{tree}/{link}")).expect("link");
    }
    // While a command runs, what its mounts need is where the links lead inside the tree; afterwards it is gone.
    assert_eq!(
        sh(&d, &name, "grep -c localhost /etc/hosts; readlink /etc/resolv.conf"),
        "2\n../run/resolve/stub"
    );
    assert!(!Path::new(&format!("{tree}/run")).exists() && !Path::new(&format!("{tree}{canary}")).exists());
    // Copies stay inside, too, and so does what somebody asks for by a path.
    let dir = folder(&d, "files", &[("file", "1")]);
    working(&d, &format!("copy {name} {dir}/file /out/copied")).ok();
    working(&d, &format!("copy {name} {dir}/file ../../../../up")).ok();
    working(&d, &format!("run -v {dir}/file:/out/bound {name} true")).ok();
    let inside =
        fs::read_dir(format!("{tree}{canary}")).expect("folder").map(|e| e.expect("entry").file_name());
    assert_eq!(inside.collect::<Vec<_>>(), ["copied"]);
    assert!(Path::new(&format!("{tree}/up")).exists());
    assert_eq!(fs::read_dir(&canary).expect("folder").count(), 0, "the host's own");
    // Nor does a source lead out of another tree.
    working(&d, "from --name other busybox").ok();
    working(&d, &format!("copy --from {name} other /out/copied /got")).ok();
    working(&d, &format!("run --mount type=bind,from={name},src=/out,dst=/m other ls /m")).ok();
    working(&d, &format!("copy --from {name} other /../../../../etc/shadow /x")).fails(1);
    clean(d);
}

#[test]
fn privileged_a_command_has_a_terminal_and_input() {
    let d = Daemon::start();
    d.load("busybox");
    let name = working(&d, "from busybox").ok();
    let mut child = d.command(Client::Longshore);
    child.args(["working", "run", "-i", &name, "--", "sh", "-c", "cat; echo end"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command line");
    let big = vec![b'x'; 3 << 20];
    let mut stdin = child.stdin.take().expect("stdin");
    let input = big.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&input).expect("write"));
    let out = child.wait_with_output().expect("output");
    writer.join().expect("writer");
    assert!(out.stdout.starts_with(&big) && out.stdout.ends_with(b"xend\n"), "{}", out.stdout.len());
    // Without -i there is no input.
    assert_eq!(sh(&d, &name, "cat; echo none"), "none");
    let (shown, code) = typed(
        &d,
        Client::Longshore,
        &["working", "run", "-t", &name, "--", "sh"],
        &[("# ", "stty size; tty\n"), ("33 101", "\x10"), ("", "\x11"), ("", "\x03"), ("# ", "exit 4\n")],
    );
    assert_eq!(code, 4, "{shown}");
    clean(d);
}

#[test]
fn privileged_one_thing_at_a_time_and_who_leaves_ends_it() {
    let d = Daemon::start();
    d.load("busybox");
    let name = working(&d, "from busybox").ok();
    // The same again while a command runs: it waits for that, and says so after a while.
    let mut running = begun(&d, &format!("run {name} -- sleep 98765"));
    wait_until("the command runs", || !nothing_runs("sleep 98765"));
    assert_eq!(status(&d, &name), "run: sleep 98765");
    let busy = working(&d, &format!("config --label a=b {name}")).fails(1);
    assert!(busy.contains("is in use (run: sleep 98765)"), "{busy}");
    assert!(working(&d, &format!("rm {name}")).fails(1).contains("is in use"));
    let waiting = begun(&d, &format!("config --label waited=yes {name}"));
    signal(running.id(), "INT");
    running.wait().expect("wait");
    assert!(waiting.wait_with_output().expect("output").status.success());
    assert!(nothing_runs("sleep 98765"));
    assert_eq!(status(&d, &name), "");
    // What it had written until then stays.
    let mut running = begun(&d, &format!("run {name} -- sh -c echo·half·>·/half;·exec·sleep·98764"));
    wait_until("the command runs", || !nothing_runs("sleep 98764"));
    running.kill().expect("kill");
    running.wait().expect("wait");
    assert_eq!(sh(&d, &name, "cat /half"), "half");
    assert!(nothing_runs("sleep 98764"));
    clean(d);
}
