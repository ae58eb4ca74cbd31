//! The story: look inside a container's storage; a CI server builds and works in what it built.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Client, Daemon, wait_until};

fn walk(client: Client) {
    let d = Daemon::start();
    d.load("nginx");
    d.load("mariadb");
    let run = |args: &[&str]| d.run(client, args.iter().copied()).ok();
    let id = run(&["run", "-d", "--name", "web", "nginx"]);
    run(&["run", "-d", "--name", "web2", "nginx"]);
    run(&["run", "-d", "--name", "db", "mariadb"]);

    // Path, Args and a GraphDriver of real directories.
    let inspect = |format: &str| run(&["inspect", "--format", format, "web"]);
    assert_eq!(inspect("{{.Path}} {{json .Args}}"), r#"/docker-entrypoint.sh ["nginx","-g","daemon off;"]"#);
    assert_eq!(inspect("{{.GraphDriver.Name}}"), "overlay2");
    let data = |key: &str| inspect(&format!("{{{{.GraphDriver.Data.{key}}}}}"));
    let (merged, upper, work) =
        (PathBuf::from(data("MergedDir")), PathBuf::from(data("UpperDir")), PathBuf::from(data("WorkDir")));
    let lowers: Vec<PathBuf> = data("LowerDir").split(':').map(PathBuf::from).collect();
    assert_eq!(lowers.len(), 13, "init and twelve layers");
    assert!(lowers[0].to_string_lossy().ends_with("-init/diff"), "{lowers:?}");
    for dir in lowers.iter().chain([&merged, &upper, &work]) {
        assert!(dir.is_dir(), "{}", dir.display());
    }

    // The layer directory's files.
    let layer = upper.parent().expect("layer");
    let lower = fs::read_to_string(layer.join("lower")).expect("lower");
    let links: Vec<&str> = lower.split(':').collect();
    assert_eq!(links.len(), 13);
    let overlay2 = layer.parent().expect("overlay2");
    for (link, dir) in links.iter().zip(&lowers) {
        assert_eq!((link.len(), &link[..2]), (28, "l/"));
        assert_eq!(&fs::canonicalize(overlay2.join(link)).expect("link"), dir);
    }
    let own = fs::read_to_string(layer.join("link")).expect("link");
    assert_eq!(fs::canonicalize(overlay2.join("l").join(own)).expect("own link"), upper);
    assert!(lowers[1].parent().expect("layer").join("committed").exists());

    // The same tree inside and outside, and only what changed in the upper.
    assert!(merged.join("usr/sbin/nginx").exists());
    run(&["exec", "web", "/bin/bash", "-c", "touch TEST; echo 'Hello World' >> TEST"]);
    assert_eq!(fs::read_to_string(upper.join("TEST")).expect("TEST"), "Hello World\n");
    assert_eq!(fs::read_to_string(merged.join("TEST")).expect("TEST"), "Hello World\n");
    assert!(!upper.join("usr/sbin").exists());
    assert_eq!(d.run(client, ["exec", "web2", "ls", "/TEST"]).code, 2);

    run(&[
        "exec",
        "web",
        "sh",
        "-c",
        "echo x >> /etc/hostname.d 2>/dev/null; rm /etc/issue; chmod 700 /srv; echo >> /srv/www/hello.html",
    ]);
    let diff = run(&["diff", "web"]);
    let lines: Vec<&str> = diff.lines().collect();
    for line in [
        "A /TEST",
        "C /etc",
        "D /etc/issue",
        "A /etc/hostname.d",
        "C /srv",
        "C /srv/www",
        "C /srv/www/hello.html",
    ] {
        assert!(lines.contains(&line), "{line} is missing in\n{diff}");
    }
    assert!(!diff.contains("/usr"), "{diff}");
    assert!(!diff.contains("/dev"), "{diff}");

    // Copy on write ends in one layer of exactly that.
    run(&["exec", "web", "sh", "-c", "rm -rf /etc/nginx/modules-enabled; mkdir /etc/nginx/modules-enabled"]);
    let before: usize =
        run(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", "nginx"]).parse().expect("number");
    run(&["commit", "web", "changed:1"]);
    let after: usize = run(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", "changed:1"])
        .parse()
        .expect("number");
    assert_eq!(after, before + 1);
    assert_eq!(
        run(&[
            "run",
            "--rm",
            "changed:1",
            "sh",
            "-c",
            "cat /TEST; ls /etc/issue 2>&1 || true; ls /etc/nginx/modules-enabled"
        ])
        .lines()
        .next(),
        Some("Hello World")
    );

    wait_until("the database answers", || {
        d.run(client, ["exec", "db", "mariadb", "-e", "select 1+1"]).stdout.contains('2')
    });
    run(&["stop", "-t", "5", "web"]);
    assert!(!Path::new(&merged).join("usr").exists(), "unmounted after stop");
    assert_eq!(id.len(), 64);
    d.finish();
}

#[test]
fn privileged_walkthrough_1_with_docker() {
    walk(Client::Docker);
}

#[test]
fn privileged_walkthrough_1_with_our_own_command_line() {
    walk(Client::Longshore);
}

/// A CI server's pipeline builds an image and works inside it, with the words that its plugin types.
fn pipeline(client: Client) {
    let d = Daemon::start();
    d.load("busybox");
    d.docker(["tag", "busybox", "alpine:latest"]).ok();
    let work = d.dir().join("workspace");
    fs::create_dir(&work).expect("workspace");
    fs::write(work.join("Dockerfile"), "FROM alpine:latest\nCOPY a.txt /a.txt\nCMD [\"cat\", \"/a.txt\"]\n")
        .expect("file");
    fs::write(work.join("a.txt"), "Hello from the pipeline\n").expect("file");
    let dir = work.to_str().expect("a path");
    let name = "simple-jenkins-image";
    let run = |args: &[&str]| {
        let mut command = d.command(client);
        let out =
            command.args(args).env("DOCKER_BUILDKIT", "0").current_dir(&work).output().expect("the client");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    };
    run(&["build", "-t", name, "."]);
    assert_eq!(run(&["inspect", "-f", ".", name]), ".");
    let mount = format!("{dir}:{dir}:rw,z");
    let id =
        run(&["run", "-t", "-d", "-u", "1000:1000", "-w", dir, "-v", &mount, "-e", "A=b c", name, "cat"]);
    assert_eq!(id.len(), 64, "only the id goes to standard output");
    let top = run(&["top", &id, "-eo", "pid,comm"]);
    assert!(top.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("cat")), "{top}");
    assert_eq!(run(&["exec", "--env", "X=y", &id, "sh", "-c", "cat /a.txt; echo $A $X; pwd; id -u"]), {
        format!("Hello from the pipeline\nb c y\n{dir}\n1000")
    });
    run(&["stop", "--time=1", &id]);
    run(&["rm", "-f", "--volumes", &id]);
    assert_eq!(run(&["run", "--rm", name]), "Hello from the pipeline");
    let listed = run(&["image", "ls", name]);
    let columns: Vec<&str> =
        listed.lines().next().unwrap_or_default().split("  ").filter(|c| !c.is_empty()).collect();
    assert_eq!(
        columns.iter().map(|c| c.trim()).collect::<Vec<_>>(),
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    );
    assert!(listed.contains(name), "{listed}");
    d.finish();
}

#[test]
fn privileged_walkthrough_2_5_a_pipeline_with_docker() {
    pipeline(Client::Docker);
}

#[test]
fn privileged_walkthrough_2_5_a_pipeline_with_our_own_command_line() {
    pipeline(Client::Longshore);
}
