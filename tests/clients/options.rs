//! The options of `docker run` that say how a process is confined and limited, as Docker has them.

use std::fs;

use crate::harness::{Client, Daemon, wait_until};

/// Arguments of `docker run --rm` and what it must print; `Err`: the exit code and a part of what it
/// must say.
type Case<'a> = (&'a str, &'a str, Result<&'a str, (i32, &'a str)>);

/// Options and command are separated by blanks; the script is one word.
#[track_caller]
fn check(d: &Daemon, cases: &[Case<'_>]) {
    check_with(Client::Docker, d, cases);
}

/// The same with another command line: Docker's older ones do not know every option.
#[track_caller]
fn check_with(client: Client, d: &Daemon, cases: &[Case<'_>]) {
    for (options, script, expected) in cases {
        let mut args = vec!["run", "--rm"];
        args.extend(options.split_whitespace());
        args.extend(["busybox", "sh", "-c", script]);
        let done = d.run(client, args);
        match expected {
            Ok(out) => {
                assert_eq!(done.code, 0, "{options}: {script}: {}{}", done.stdout, done.stderr);
                let lines: Vec<&str> = done.stdout.lines().map(str::trim_end).collect();
                assert_eq!(lines.join("\n"), *out, "{options}: {script}");
            }
            Err((code, part)) => {
                assert_eq!(done.code, *code, "{options}: {script}: {}{}", done.stdout, done.stderr);
                let said = format!("{}{}", done.stdout, done.stderr);
                assert!(said.contains(part), "{options}: {script}: {said}");
            }
        }
    }
}

fn daemon() -> Daemon {
    let d = Daemon::start();
    d.load("busybox");
    d
}

/// Whether limits are v1's files here.
fn v1() -> bool {
    !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
fn privileged_options_of_rights() {
    let d = daemon();
    let profile = d.dir().join("profile.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#,
    )
    .expect("profile");
    let own = format!("--security-opt seccomp={}", profile.display());
    let eff = "sed -n 's/CapEff:.//p' /proc/self/status";
    check(
        &d,
        &[
            ("", eff, Ok("00000000a80425fb")),
            ("--cap-add NET_ADMIN", eff, Ok("00000000a80435fb")),
            ("--cap-add CAP_NET_ADMIN --cap-drop MKNOD", eff, Ok("00000000a00435fb")),
            ("--cap-drop ALL", "grep -c '^Cap.*0000000000000000$' /proc/self/status", Ok("5")),
            ("--cap-drop ALL --cap-add CHOWN", eff, Ok("0000000000000001")),
            ("--cap-add nosuch", eff, Err((125, "unknown capability: \"CAP_NOSUCH\""))),
            // Ordinary users have what they may get by a program's file only.
            ("--cap-add SYS_TIME -u 1000", eff, Ok("0000000000000000")),
            (
                "--privileged",
                "grep Seccomp: /proc/self/status; touch /sys/x 2>&1 | grep -c denied",
                Ok("Seccomp:\t0\n1"),
            ),
            ("--security-opt no-new-privileges", "grep NoNew /proc/self/status", Ok("NoNewPrivs:\t1")),
            ("--security-opt no-new-privileges:false", "grep NoNew /proc/self/status", Ok("NoNewPrivs:\t0")),
            ("", "grep Seccomp: /proc/self/status", Ok("Seccomp:\t2")),
            ("--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status", Ok("Seccomp:\t0")),
            (&own, "mkdir /x", Err((1, "Function not implemented"))),
            ("--security-opt label=disable", "true", Ok("")),
            ("--security-opt label=type:x", "true", Err((125, "label=type:x is not supported"))),
            ("--security-opt nosuch=x", "true", Err((125, "invalid --security-opt"))),
            // The default hides and protects what leads to the host.
            ("", "cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l", Ok("0\n0")),
            ("", "echo 1 > /proc/sys/kernel/domainname", Err((1, "Read-only file system"))),
            ("--security-opt systempaths=unconfined", "grep -c ' /proc/' /proc/mounts; true", Ok("0")),
        ],
    );
    if !std::path::Path::new("/sys/module/apparmor/parameters/enabled").exists() {
        let said = (125, "the kernel has AppArmor not enabled");
        check(
            &d,
            &[
                ("--security-opt apparmor=own", "true", Err(said)),
                ("--security-opt apparmor=unconfined", "true", Ok("")),
            ],
        );
    }
    d.finish();
}

#[test]
fn privileged_options_of_devices() {
    let d = daemon();
    let dir = d.dir().join("nodes");
    fs::create_dir_all(dir.join("sub")).expect("folder");
    for (name, minor) in [("null", 3), ("sub/zero", 5)] {
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, dir.join(name), kind, mode, rustix::fs::makedev(1, minor))
            .expect("mknod");
    }
    let all = format!("--device {}:/dev/nodes", dir.display());
    let empty = format!("--device {}", d.dir().join("run").display());
    check(
        &d,
        &[
            ("--device /dev/null:/dev/own", "echo x > /dev/own; cat /dev/own | wc -c", Ok("0")),
            ("--device /dev/kmsg:/dev/own:w", "cat /dev/own", Err((1, "Operation not permitted"))),
            (
                &all,
                "cd /dev/nodes; ls -R; head -c 2 sub/zero | wc -c",
                Ok(".:\nnull\nsub\n\n./sub:\nzero\n2"),
            ),
            (&empty, "true", Err((125, "not a device node"))),
            (
                "--device /nosuch",
                "true",
                Err((
                    127,
                    "error gathering device information while adding custom device \"/nosuch\": no such file or directory",
                )),
            ),
            ("--device /etc/passwd", "true", Err((125, "not a device node"))),
            ("", "mknod /x b 7 0 && cat /x", Err((1, "Operation not permitted"))),
            ("--privileged", "test -c /dev/kmsg && echo there", Ok("there")),
        ],
    );
    d.finish();
}

#[test]
fn privileged_options_of_namespaces() {
    let d = daemon();
    for (name, ipc) in [("gives", "shareable"), ("keeps", "private")] {
        d.docker(["run", "-d", "--name", name, "--ipc", ipc, "busybox", "sleep", "1000"]).ok();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    check(
        &d,
        &[
            (
                "--init",
                "grep -c longshore /proc/1/cmdline; cat /proc/1/comm; echo $$",
                Ok("1\nlongshore-init\n2"),
            ),
            ("--pid host", "test $$ -gt 50 && echo host", Ok("host")),
            ("--pid container:gives", "ps | grep -c 'sleep 100[0]'", Ok("1")),
            ("--pid container:nosuch", "true", Err((125, "No such container: nosuch"))),
            ("--ipc container:gives", "echo x > /dev/shm/mine", Ok("")),
            ("--ipc container:gives", "cat /dev/shm/mine", Ok("x")),
            ("--ipc container:keeps", "true", Err((125, "failed to join IPC namespace: container "))),
            ("--ipc none", "grep -c /dev/shm /proc/mounts; true", Ok("0")),
            ("--ipc private", "grep -c /dev/shm /proc/mounts", Ok("1")),
            ("--ipc host", "test -d /dev/shm && echo there", Ok("there")),
            ("--uts host", "hostname", Ok(&host)),
            ("--uts host -h x", "true", Err((125, "conflicting options: hostname and the UTS mode"))),
            ("-h h --domainname d.example", "hostname; cat /proc/sys/kernel/domainname", Ok("h\nd.example")),
            ("--cgroupns host", "grep -c longshore- /proc/self/cgroup | sed 's/[0-9]*/n/'", Ok("n")),
            ("--cgroupns private", "cut -d: -f3 /proc/self/cgroup | sort -u", Ok("/")),
            ("--userns host", "cat /proc/self/uid_map | tr -s ' '", Ok(" 0 0 4294967295")),
            (
                "--sysctl net.ipv4.ip_forward=0 --sysctl kernel.msgmax=9000",
                "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
                Ok("0\n9000"),
            ),
            ("--sysctl kernel.panic=1", "true", Err((125, "sysctl 'kernel.panic=1' is not "))),
            (
                "--net host --sysctl net.ipv4.ip_forward=1",
                "true",
                Err((125, "not allowed in host network namespace")),
            ),
            (
                "--ipc host --sysctl kernel.msgmax=1",
                "true",
                Err((125, "is not allowed in the hosts ipc namespace")),
            ),
        ],
    );
    d.finish();
}

#[test]
fn privileged_options_of_limits() {
    let d = daemon();
    check(
        &d,
        &[
            (
                "--ulimit nofile=100:200 --ulimit core=0",
                "ulimit -n; ulimit -Hn; ulimit -c",
                Ok("100\n200\n0"),
            ),
            ("--oom-score-adj 500", "cat /proc/self/oom_score_adj", Ok("500")),
            (
                "--oom-score-adj 5000",
                "true",
                Err((125, "Invalid value 5000, range for oom score adj is [-1000, 1000]")),
            ),
            ("--cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status", Ok("Cpus_allowed_list:\t0")),
            (
                "--cpuset-cpus 4000",
                "true",
                Err((125, "Requested CPUs are not available - requested 4000, available: ")),
            ),
            (
                "--cpuset-mems 900",
                "true",
                Err((125, "Requested memory nodes are not available - requested 900")),
            ),
            ("--cpuset-cpus x", "true", Err((125, "Invalid value x for cpuset cpus: invalid format: x"))),
            ("-m 4m", "true", Err((125, "Minimum memory limit allowed is 6MB"))),
            (
                "-m 64m --memory-swap 10m",
                "true",
                Err((125, "Minimum memoryswap limit should be larger than memory limit")),
            ),
            (
                "-m 64m --memory-reservation 99m",
                "true",
                Err((125, "can not be less than memory reservation limit")),
            ),
            ("--cpus 0.5 --cpu-quota 2000", "true", Err((125, "Nano CPUs and CPU Quota cannot both be set"))),
            ("--cpus 9999", "true", Err((125, "range of CPUs is from 0.01 to"))),
            ("--blkio-weight 5", "true", Err((125, "Range of blkio weight is from 10 to 1000"))),
            ("--device-read-bps /nosuch:1mb", "true", Err((125, "/nosuch"))),
            (
                "--storage-opt size=1G",
                "true",
                Err((125, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option")),
            ),
            ("--shm-size 8m", "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2", Ok("8192")),
        ],
    );
    let all = "-m 64m --memory-swap 100m --memory-reservation 32m --pids-limit 20 --cpu-shares 512 --cpu-period 50000 --cpu-quota 25000";
    let (files, values) = if v1() {
        (
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes \
             memory/memory.soft_limit_in_bytes pids/pids.max cpu/cpu.shares cpu/cpu.cfs_period_us cpu/cpu.cfs_quota_us",
            "67108864\n104857600\n33554432\n20\n512\n50000\n25000",
        )
    } else {
        (
            "cd /sys/fs/cgroup; cat memory.max memory.swap.max memory.low pids.max cpu.weight cpu.max",
            "67108864\n37748736\n33554432\n20\n20\n25000 50000",
        )
    };
    check(&d, &[(all, files, Ok(values))]);
    // What the kernel cannot is left out, and said; never an error, never in silence.
    let weight = d.docker(["run", "--rm", "--blkio-weight", "300", "busybox", "true"]);
    assert_eq!(weight.code, 0, "{}", weight.stderr);
    if v1() && !std::path::Path::new("/sys/fs/cgroup/blkio/blkio.weight").exists() {
        assert!(
            weight.stderr.contains("Block I/O weight or the cgroup is not mounted. Weight discarded."),
            "{}",
            weight.stderr
        );
    }
    d.docker(["run", "--name", "full", "-m", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero"])
        .fails(137);
    assert_eq!(d.inspect("{{.State.OOMKilled}}", "full"), "true");
    d.finish();
}

#[test]
fn privileged_options_of_files() {
    let d = daemon();
    let dir = d.dir().join("bind");
    fs::create_dir(&dir).expect("folder");
    fs::write(dir.join("f"), "x").expect("file");
    let bind = |rest: &str| format!("{}{rest}", dir.display());
    let (ro, z, bad, file) = (bind(":/v:ro"), bind(":/v:z"), bind(":/v:bad"), bind("/f:/etc/motd"));
    let (ro, z, bad, file) =
        (format!("-v {ro}"), format!("-v {z}"), format!("-v {bad}"), format!("-v {file}"));
    let mount = |rest: &str| format!("--mount type=bind,src={},dst=/v{rest}", dir.display());
    let (readonly, recursive) =
        (mount(",readonly"), mount(",readonly,bind-recursive=readonly,bind-propagation=rprivate"));
    d.docker(["create", "--name", "has", "-v", &bind(":/a"), "-v", "named:/b", "busybox"]).ok();
    check(
        &d,
        &[
            (
                "--tmpfs /t",
                "grep ' /t ' /proc/mounts | cut -d' ' -f3,4 | sed s/,inode64//",
                Ok("tmpfs rw,nosuid,nodev,noexec,relatime"),
            ),
            (
                "--tmpfs /t:size=1m,mode=700,exec",
                "grep ' /t ' /proc/mounts | cut -d' ' -f3,4 | sed s/,inode64//",
                Ok("tmpfs rw,nosuid,nodev,relatime,size=1024k,mode=700"),
            ),
            ("--tmpfs /t:bad=1", "true", Err((125, "invalid tmpfs option \"bad\""))),
            ("--tmpfs t", "true", Err((125, "mount path must be absolute"))),
            ("--read-only", "touch /x", Err((1, "Read-only file system"))),
            ("--read-only", "touch /etc/hosts", Err((1, "Read-only file system"))),
            ("--read-only --tmpfs /tmp", "touch /tmp/x /dev/shm/x && echo ok", Ok("ok")),
            (&readonly, "touch /v/x", Err((1, "Read-only file system"))),
            (
                "--mount type=bind,src=/nosuch,dst=/v",
                "true",
                Err((125, "bind source path does not exist: /nosuch")),
            ),
            ("--mount type=nosuch,dst=/v", "true", Err((125, "mount type unknown"))),
            (
                "--mount type=volume,dst=/v,ro",
                "true",
                Err((125, "must not set ReadOnly mode when using anonymous volumes")),
            ),
            ("--mount type=volume,src=other,dst=/v,ro", "touch /v/x", Err((1, "Read-only file system"))),
            (
                "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1700",
                "stat -c %a /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2",
                Ok("1700\n1024"),
            ),
            // What every container has in /etc stays visible on a volume there.
            (
                "--mount type=volume,src=etc,dst=/etc,volume-nocopy",
                "ls /etc",
                Ok("hostname\nhosts\nresolv.conf"),
            ),
            (&ro, "cat /v/f; touch /v/x", Err((1, "Read-only file system"))),
            (&z, "cat /v/f", Ok("x")),
            (&bad, "true", Err((125, "invalid mode: bad"))),
            (&file, "cat /etc/motd", Ok("x")),
            ("-v relative/x:/v", "true", Err((125, "includes invalid characters for a local volume name"))),
            ("--volumes-from has", "ls /a; touch /b/x", Ok("f")),
            ("--volumes-from has:ro", "touch /b/y", Err((1, "Read-only file system"))),
            ("--volumes-from nosuch", "true", Err((125, "No such container: nosuch"))),
            ("--volumes-from has:bad", "true", Err((125, "invalid mode: bad"))),
        ],
    );
    d.docker(["rm", "has"]).ok();
    d.docker(["volume", "rm", "named", "other", "etc"]).ok();
    check_with(Client::Longshore, &d, &[(&recursive, "touch /v/x", Err((1, "Read-only file system")))]);
    d.finish();
}

#[test]
fn privileged_options_of_users_and_ends() {
    let d = daemon();
    check(
        &d,
        &[
            ("-u 1000", "id", Ok("uid=1000 gid=0(root) groups=0(root)")),
            ("-u 1000:5", "id -u; id -g", Ok("1000\n5")),
            ("-u www-data", "id -un", Ok("www-data")),
            (
                "-u nosuch",
                "true",
                Err((125, "unable to find user nosuch: no matching entries in passwd file")),
            ),
            (
                "-u 0:nosuch",
                "true",
                Err((125, "unable to find group nosuch: no matching entries in group file")),
            ),
            ("-u 4294967296", "true", Err((125, "uids and gids must be in range 0-2147483647"))),
            ("-u 1000 --group-add 5 --group-add 77", "id -G", Ok("0 5 77")),
            ("--group-add nosuch", "true", Err((125, "nosuch"))),
            (
                "-w relative",
                "true",
                Err((125, "the working directory 'relative' is invalid, it needs to be an absolute path")),
            ),
            ("--stop-signal NOSUCH", "true", Err((125, "invalid signal: NOSUCH"))),
        ],
    );
    let script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    d.docker([
        "run",
        "-d",
        "--name",
        "stops",
        "--stop-signal",
        "SIGUSR1",
        "--stop-timeout",
        "20",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    wait_until("the trap is set", || d.docker(["logs", "stops"]).ok() == "ready");
    d.docker(["stop", "stops"]).ok();
    assert_eq!(
        d.inspect("{{.State.ExitCode}} {{.Config.StopSignal}} {{.Config.StopTimeout}}", "stops"),
        "9 SIGUSR1 20"
    );
    d.finish();
}
