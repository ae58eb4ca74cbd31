//! Images made step by step: `longshore working`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use longshore_oci::Digest;
use serde_json::Value;

use crate::cli::words;
use crate::git_server::Repositories;
use crate::harness::{Client, Daemon, Done};
use crate::ledger::agreed;
use crate::registry_server::{Door, Registry};
use crate::web_server::{Page, Web};

/// `longshore working` with these words; a dot in the middle stands for a space.
pub(crate) fn working(d: &Daemon, line: &str) -> Done {
    d.run(Client::Longshore, std::iter::once("working".to_owned()).chain(words(line)))
}

/// The same, begun and not waited for. Ctrl-C ends it, also where these tests were started with that ignored.
pub(crate) fn begun(d: &Daemon, line: &str) -> Child {
    let ours = d.command(Client::Longshore);
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(ours.get_program()).args(ours.get_args());
    command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.arg("working").args(words(line)).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command line")
}

/// A shell script in a working container; what it wrote.
pub(crate) fn sh(d: &Daemon, name: &str, script: &str) -> String {
    d.run(Client::Longshore, ["working", "run", name, "--", "sh", "-c", script]).ok()
}

fn json(d: &Daemon, format: &str, object: &str) -> Value {
    serde_json::from_str(&d.inspect(format, object)).expect("JSON")
}

pub(crate) fn status(d: &Daemon, name: &str) -> String {
    let all: Vec<Value> = serde_json::from_str(&working(d, "ls --json").ok()).expect("JSON");
    let found = all.iter().find(|w| w["containername"] == name).expect("the working container");
    found["status"].as_str().expect("text").to_owned()
}

pub(crate) fn folder(d: &Daemon, name: &str, files: &[(&str, &str)]) -> String {
    let dir = d.dir().join(name);
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("file");
    }
    dir.display().to_string()
}

/// The static program of which images can be made out of nothing.
fn busybox() -> String {
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    found.expect("busybox (package busybox-static)").to_owned()
}

/// No process of this machine has this word in its command line.
pub(crate) fn nothing_runs(word: &str) -> bool {
    let all = fs::read_dir("/proc").expect("proc").flatten();
    let lines = all.filter_map(|e| fs::read(e.path().join("cmdline")).ok());
    !lines.into_iter().any(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim_end() == word)
}

pub(crate) fn clean(d: Daemon) {
    working(&d, "rm -a").ok();
    d.finish();
}

#[test]
fn privileged_an_image_is_made_step_by_step() {
    let d = Daemon::start();
    d.load("debian");
    let name = working(&d, "from debian").ok();
    assert_eq!(name, "debian-working-container");
    assert_eq!(working(&d, "from debian").ok(), "debian-working-container-1");
    assert_eq!(working(&d, "rm debian-working-container-1").ok().len(), 64);

    // Output as it is, and the command's own exit code.
    let done = d.run(
        Client::Longshore,
        ["working", "run", &name, "--", "sh", "-c", "echo hello > /greeting; echo out; echo err >&2; exit 3"],
    );
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (3, "out\n", "err\n"));
    assert!(working(&d, &format!("run {name} /nosuch")).fails(127).contains("no such file or directory"));
    working(&d, &format!("run {name} /etc")).fails(126);
    assert!(working(&d, "run nosuch true").fails(125).contains("No such working container: nosuch"));
    working(&d, &format!("run --network nosuch {name} true")).fails(125);
    let seen = format!("run -e A=x·y -w /var --user 1:2 {name} -- sh -c echo·$A·$(pwd)·$(id·-u):$(id·-g)");
    assert_eq!(working(&d, &seen).ok(), "x y /var 1:2");

    // Files, with the rules of COPY and ADD.
    let dir = folder(
        &d,
        "files",
        &[("one", "1"), ("two/three", "3"), ("two/four.log", "4"), (".dockerignore", "**/*.log")],
    );
    let tar = Command::new("tar").args(["-C", &dir, "-cf", &format!("{dir}/all.tar"), "two"]).status();
    assert!(tar.expect("tar").success());
    let digest = working(&d, &format!("copy --chown 5:6 --chmod 640 {name} {dir}/one /into/")).ok();
    assert_eq!(digest.len(), 64);
    working(&d, &format!("copy {name} {dir}/two /two")).ok();
    working(&d, &format!("copy --contextdir {dir} {name} two /ignored")).ok();
    working(&d, &format!("copy --exclude *.log {name} {dir}/t*o /excluded")).ok();
    working(&d, &format!("add --add-history {name} {dir}/all.tar /unpacked")).ok();
    working(&d, &format!("copy {name} {dir}/all.tar /packed/")).ok();
    let listed =
        sh(&d, &name, "stat -c '%n %u:%g %a' /into/one; ls /two /ignored /excluded /unpacked/two /packed");
    assert_eq!(
        listed,
        "/into/one 5:6 640\n/excluded:\nthree\n\n/ignored:\nthree\n\n/packed:\nall.tar\n\n/two:\nfour.log\nthree\n\n\
         /unpacked/two:\nfour.log\nthree"
    );
    for (line, want) in [
        (format!("copy {name} {dir}/nosuch /x"), "not found"),
        (format!("copy {name} {dir}/*.no /x"), "no file matches"),
        (format!("copy --chmod 99 {name} {dir}/one /x"), "invalid --chmod"),
        (format!("copy --from {name} {name} /x /y"), "no source for itself"),
        (format!("copy --from nosuch/image --pull never {name} /x /y"), "No such image: nosuch/image"),
        (format!("copy {name}"), "requires at least 2 arguments"),
    ] {
        assert!(working(&d, &line).fails(1).contains(want), "{line}");
    }

    // Configuration.
    let line = format!(
        "config --cmd cat·/greeting --env A=1 --env B=$A:2 --env DEBIAN- --label l=1 --port 80,53/udp --volume /v \
         --author me --comment done --created-by steps --stop-signal INT --user 0 --workingdir /two {name}"
    );
    working(&d, &line).ok();
    for (line, want) in [
        (format!("config --annotation a {name}"), "want name=value"),
        (format!("config --stop-signal BAD {name}"), "BAD"),
        (format!("config --nosuch {name}"), "unknown flag: --nosuch"),
        (format!("commit --timestamp 1 --source-date-epoch 2 {name}"), "give one"),
    ] {
        let done = working(&d, &line);
        assert!(done.code != 0 && done.stderr.contains(want), "{line}: {done:?}");
    }

    // An image; the container goes on.
    let iid = format!("{dir}.iid");
    let id = working(&d, &format!("commit --iidfile {iid} {name} made:one")).ok();
    assert_eq!(fs::read_to_string(&iid).expect("file"), id);
    assert_eq!(d.inspect("{{.Id}}", "made:one"), id);
    let config = json(&d, "{{json .Config}}", "made:one");
    assert_eq!(config["Cmd"], serde_json::json!(["cat", "/greeting"]));
    assert_eq!(config["Env"][1], "A=1");
    assert_eq!(config["Env"][2], "B=1:2");
    assert_eq!((&config["WorkingDir"], &config["StopSignal"]), (&"/two".into(), &"INT".into()));
    assert_eq!(config["ExposedPorts"], serde_json::json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!(config["Labels"]["l"], "1");
    assert_eq!(d.inspect("{{.Author}} {{.Comment}}", "made:one"), "me done");
    let layers = |image: &str| json(&d, "{{json .RootFS.Layers}}", image).as_array().expect("layers").len();
    assert_eq!(layers("made:one"), layers("debian") + 1);
    let history =
        d.docker(["history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", "made:one"]).ok();
    let history: Vec<&str> = history.lines().collect();
    assert!(history[0].starts_with("steps ") && !history[0].ends_with(" 0B"), "{history:?}");
    assert!(
        history[1].starts_with("/bin/sh -c #(nop) ADD file:") && history[1].ends_with(" 0B"),
        "{history:?}"
    );
    for client in [Client::Docker, Client::Longshore] {
        assert_eq!(d.run(client, ["run", "--rm", "made:one"]).ok(), "hello");
    }
    // Nothing of how commands are run is in it.
    let files = d.run(Client::Longshore, ["image", "diff", "debian", "made:one"]).ok();
    for not in ["/.dockerenv", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/proc", "/dev"] {
        assert!(!files.lines().any(|line| line.ends_with(not)), "{not}: {files}");
    }

    // The same again, whenever that is; and all in one layer.
    let twice = [1, 2].map(|_| working(&d, &format!("commit --timestamp 86400 {name} made:then")).ok());
    assert_eq!(twice[0], twice[1]);
    assert_eq!(
        d.docker(["run", "--rm", "made:then", "stat", "-c", "%Y", "/greeting", "/two/three"]).ok(),
        "86400\n86400"
    );
    working(&d, &format!("commit --squash {name} made:flat")).ok();
    assert_eq!(layers("made:flat"), 1);
    assert_eq!(d.docker(["run", "--rm", "made:flat"]).ok(), "hello");
    assert_eq!(d.run(Client::Longshore, ["image", "diff", "made:one", "made:flat"]).ok(), "");
    assert_eq!(d.docker(["history", "-q", "made:flat"]).ok().lines().count(), 2);

    sh(&d, &name, "echo more > /more");
    let env = [("SOURCE_DATE_EPOCH", "86400")];
    let mut command = d.command(Client::Longshore);
    command.args(["working", "commit", "-q", "--rm", &name, "made:two"]).envs(env);
    let out = command.output().expect("the command line");
    assert!(out.status.success() && out.stdout.starts_with(b"sha256:") && out.stderr.is_empty(), "{out:?}");
    assert_eq!(d.inspect("{{.Created}}", "made:two"), "1970-01-02T00:00:00Z");
    assert_eq!(layers("made:two"), layers("made:one"));
    assert_eq!(d.docker(["run", "--rm", "made:two", "cat", "/more", "/greeting"]).ok(), "more\nhello");
    assert_eq!(working(&d, "ls -q").ok(), "");
    clean(d);
}

#[test]
fn privileged_nothing_is_a_start_too() {
    let d = Daemon::start();
    let one = working(&d, "from scratch").ok();
    assert_eq!(
        (one.as_str(), working(&d, "from --name bb scratch").ok().as_str()),
        ("working-container", "bb")
    );
    assert!(working(&d, "from --name bb scratch").fails(1).contains("already in use"));
    assert!(working(&d, "from --name ../b scratch").fails(1).contains("Invalid working container name"));
    let tree = working(&d, &format!("mount {one}")).ok();
    assert_eq!(working(&d, "mount").ok(), format!("{one} {tree}"));
    let there = || {
        let names = fs::read_dir(&tree).expect("the tree").map(|e| e.expect("entry").file_name());
        let mut names: Vec<_> = names.map(|n| n.into_string().expect("text")).collect();
        names.sort();
        names
    };
    assert!(there().is_empty());
    working(&d, &format!("copy {one} {} /bin/sh", busybox())).ok();
    // What somebody else writes into the tree, a command sees, and the other way round.
    fs::write(format!("{tree}/note"), "from outside\n").expect("write");
    assert_eq!(sh(&d, &one, "read line < /note; echo $line; echo inside > /made"), "from outside");
    assert_eq!(fs::read_to_string(format!("{tree}/made")).expect("file"), "inside\n");
    // What commands need is gone with them.
    assert_eq!(there(), ["bin", "made", "note"]);
    working(&d, &format!("config --entrypoint [\"/bin/sh\",\"-c\"] --cmd [\"echo·$PATH\"] {one}")).ok();
    working(&d, &format!("commit {one} tiny")).ok();
    assert_eq!(
        d.docker(["run", "--rm", "tiny"]).ok(),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
    // Without any change there is an image, too.
    let id = working(&d, "commit bb empty").ok();
    assert_eq!(
        (d.inspect("{{.Id}}", "empty"), json(&d, "{{json .RootFS}}", "empty")),
        (id, serde_json::json!({"Type": "layers"}))
    );
    assert!(working(&d, "run bb true").fails(127).contains("true"));
    assert_eq!(working(&d, &format!("umount {one}")).ok().len(), 64);
    assert_eq!(working(&d, &format!("umount {one}")).ok(), "");
    assert_eq!(working(&d, "mount").ok(), "");
    // A mounted one is unmounted when it is removed.
    let tree = working(&d, "mount bb").ok();
    working(&d, "rename bb cc").ok();
    assert!(working(&d, &format!("rename cc {one}")).fails(1).contains("already in use"));
    working(&d, "rm cc").ok();
    assert!(!Path::new(&tree).exists());
    assert!(working(&d, "rm").fails(1).contains("--all"));
    clean(d);
}

/// Every name of an image's tree with what it is.
fn tree_of(d: &Daemon, image: &str) -> String {
    let script = "cd /; find . -xdev ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' ! -path './etc/*' \
                  ! -name .dockerenv -exec stat -c '%n %a %u:%g %F %s' {} + | grep -v '^. ' | sort; \
                  find data work -type f -exec cat {} +";
    d.docker(["run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", script]).ok()
}

#[test]
fn privileged_steps_give_what_a_dockerfile_gives() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(&d, "context", &[("a/b", "1"), ("a/c.txt", "2"), ("d.txt", "3")]);
    fs::write(
        format!("{dir}/Dockerfile"),
        "FROM busybox\nENV A=1 B=x\nWORKDIR /work\nRUN echo $A > said && mkdir -m 700 /data && chown 3:4 /data\n\
         COPY --chown=5 a /data/a\nCOPY d.txt *.txt ./\nLABEL k=v\nEXPOSE 80\nVOLUME /vol\nUSER 7\nSTOPSIGNAL TERM\n\
         ENTRYPOINT [\"echo\"]\nCMD [\"a\", \"b c\"]\nHEALTHCHECK --interval=3s CMD [\"true\"]\nONBUILD RUN x\n",
    )
    .expect("Dockerfile");
    d.run(Client::Longshore, ["build", "-q", "-t", "built", &dir]).ok();
    let name = working(&d, "from busybox").ok();
    for line in [
        format!("config --env A=1 --env B=x --workingdir /work {name}"),
        format!("run {name} -- mkdir -p /work"),
        format!("run {name} -- sh -c echo·$A·>·said·&&·mkdir·-m·700·/data·&&·chown·3:4·/data"),
        format!("copy --chown 5 {name} {dir}/a /data/a"),
        format!("copy {name} {dir}/d.txt"),
        format!("config --label k=v --port 80 --volume /vol --user 7 --stop-signal TERM {name}"),
        format!("config --entrypoint [\"echo\"] --cmd [\"a\",\"b·c\"] --onbuild RUN·x {name}"),
        format!("config --healthcheck CMD·true --healthcheck-interval 3s {name}"),
        format!("commit {name} stepped"),
    ] {
        working(&d, &line).ok();
    }
    let config = |image: &str| {
        let mut config = json(&d, "{{json .Config}}", image);
        // A Dockerfile's own mark, which means nothing on Linux.
        config.as_object_mut().expect("object").remove("ArgsEscaped");
        config
    };
    assert_eq!(config("stepped"), config("built"));
    assert_eq!(tree_of(&d, "stepped"), tree_of(&d, "built"));
    clean(d);
}

#[test]
fn privileged_everything_knows_that_they_are_there() {
    for driver in ["overlay2", "vfs"] {
        let d = Daemon::start_with(&["--storage-driver", driver]);
        d.load("busybox");
        let name = working(&d, "from busybox").ok();
        sh(&d, &name, "head -c 3000000 /dev/zero > /zeros");
        let ledger = agreed(&d);
        let row = ledger["Ledger"].as_array().expect("rows").iter().find(|r| r["Of"] == name.as_str());
        let row = row.expect("a row of its own");
        assert!(row["Kind"] == "writable-layer" && row["Bytes"].as_u64() >= Some(3_000_000), "{row}");
        // Its image is needed; by force its name goes and its layers stay.
        for args in [&["rmi", "busybox"][..], &["image", "rm", "busybox"]] {
            let error = d.docker(args).fails(1);
            assert!(error.contains(&format!("working container {name}")), "{error}");
        }
        for args in [
            &["image", "prune", "-af"][..],
            &["container", "prune", "-f"],
            &["system", "prune", "-af"],
            &["builder", "prune", "-af"],
        ] {
            d.docker(args).ok();
        }
        d.run(Client::Longshore, ["system", "gc", "--limit", "1B"]);
        assert_eq!(d.docker(["images", "-q"]).ok().lines().count(), 1);
        d.run(Client::Longshore, ["system", "check"]).ok();
        assert_eq!(d.docker(["ps", "-aq"]).ok(), "");
        assert_eq!(working(&d, "ls -q").ok().len(), 64);
        assert!(working(&d, "ls").ok().contains("busybox:latest"));
        d.docker(["rmi", "-f", "busybox"]).ok();
        assert_eq!(sh(&d, &name, "wc -c < /zeros"), "3000000");
        working(&d, &format!("commit {name} again")).ok();
        assert_eq!(d.docker(["run", "--rm", "again", "wc", "-c", "/zeros"]).ok(), "3000000 /zeros");
        agreed(&d);
        working(&d, &format!("rm {name}")).ok();
        d.docker(["rmi", "again"]).ok();
        let ledger = agreed(&d);
        let kinds: Vec<&str> =
            ledger["Ledger"].as_array().expect("rows").iter().filter_map(|r| r["Kind"].as_str()).collect();
        assert!(kinds.iter().all(|k| *k == "metadata"), "{kinds:?}");
        clean(d);
    }
}

#[test]
fn privileged_images_come_from_registries() {
    let d = Daemon::start();
    d.load("busybox");
    let registry = Registry::start(&d.netns(), Door::Plain);
    let base = registry.name("base");
    d.docker(["tag", "busybox", &base]).ok();
    d.docker(["push", "-q", &base]).ok();
    d.docker(["rmi", &base]).ok();
    assert!(working(&d, &format!("from --pull never {base}")).fails(1).contains("does not look elsewhere"));
    let other = working(&d, &format!("from --platform linux/arm64 {base}")).fails(1);
    assert!(other.contains("not for linux/arm64"), "{other}");
    d.docker(["rmi", &base]).ok();
    let done = working(&d, &format!("from {base}"));
    assert!(done.stderr.contains("Pulling from base"), "{}", done.stderr);
    assert_eq!(done.ok(), "base-working-container");
    assert_eq!(working(&d, &format!("from -q --pull always --name again {base}")).ok(), "again");
    working(&d, "from nosuch.invalid/x").fails(1);
    // Once it is there, a source of copies too.
    let other = registry.name("other");
    d.docker(["tag", "busybox", &other]).ok();
    d.docker(["push", "-q", &other]).ok();
    d.docker(["rmi", &other]).ok();
    working(&d, &format!("copy --from {other} again /bin/busybox /from-there")).ok();
    assert_eq!(sh(&d, "again", "ls /from-there"), "/from-there");
    let made = registry.name("made:1");
    working(&d, "config -a a=b -a c=d -a c- again").ok();
    working(&d, &format!("commit again {made}")).ok();
    d.docker(["push", "-q", &made]).ok();
    let manifest = d.run(Client::Longshore, ["manifest", "inspect", &made]).ok();
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["annotations"], serde_json::json!({"a": "b"}));
    clean(d);
}

#[test]
fn privileged_what_is_elsewhere_is_added_too() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    web.put("/dir/file", Page::new("of the web"));
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    r.commit(&[("sub/a", "of a repository")]);
    let name = working(&d, "from busybox").ok();
    let add = |line: &str| working(&d, &format!("add {line}"));
    add(&format!("{name} {} /a/", web.url("/dir/file"))).ok();
    add(&format!("--chown 7:8 --chmod 600 --add-history {name} {} /b", web.url("/dir/file"))).ok();
    add(&format!("{name} git://127.0.0.1/x.git#main:sub /c")).ok();
    assert_eq!(
        sh(&d, &name, "cat /a/file /b /c/a; stat -c '%a %u %g' /b /a/file; ls -A /c"),
        "of the webof the webof a repository600 7 8\n600 0 0\na"
    );
    let (good, bad) = (Digest::of(b"of the web"), Digest::of(b"else"));
    add(&format!("--checksum {good} {name} {} /d", web.url("/dir/file"))).ok();
    for (line, want) in [
        (format!("--checksum {bad} {name} {} /e", web.url("/dir/file")), "digest mismatch"),
        (format!("{name} {} /e", web.url("/none")), "unexpected status 404"),
        (format!("{name} {} /etc/hosts /e/", web.url("/dir/file")), "what is fetched is added by itself"),
        (format!("--checksum {bad} {name} /etc/hosts /e"), "are for what is fetched"),
        (format!("{name} ftp://host/x /e"), "ftp:"),
    ] {
        let failed = add(&line);
        assert!(failed.code != 0 && failed.stderr.contains(want), "{line}: {}", failed.stderr);
    }
    assert_eq!(sh(&d, &name, "ls /e 2>&1 || true"), "ls: /e: No such file or directory");
    assert!(working(&d, &format!("copy {name} {} /e", web.url("/dir/file"))).fails(1).contains("use add"));
    web.stop(&d.netns());
    drop(repos);
    clean(d);
}
