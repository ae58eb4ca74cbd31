//! What the store takes, what it gives back, and whether it is whole: `system df`, the prunes, `system check`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_store::layer::Compressor;
use serde_json::Value;

use crate::harness::{Client, Daemon, Done, wait_until};

/// What `du` says of one file system, in bytes of blocks.
pub(crate) fn du(path: &Path) -> u64 {
    let out = Command::new("du").args(["-sx", "--block-size=1"]).arg(path).output().expect("du");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("utf-8");
    text.split_whitespace().next().expect("a number").parse().expect("a number")
}

/// An answer of the API.
pub(crate) fn api(d: &Daemon, method: &str, path: &str) -> Value {
    let answer = d.raw(&format!("{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.contains(" 200 "), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

/// The ledger, once it agrees with `du`: what was just written may still be on its way to the disk.
pub(crate) fn agreed(d: &Daemon) -> Value {
    let mut ledger = Value::Null;
    wait_until("system df is what du says", || {
        assert!(Command::new("sync").arg("-f").arg(d.data_root()).status().expect("sync").success());
        let before = du(&d.data_root());
        ledger = api(d, "GET", "/system/df")["Longshore"].take();
        ledger["Total"] == before && before == du(&d.data_root())
    });
    let rows = ledger["Ledger"].as_array().expect("rows");
    let sum: u64 = rows.iter().map(|r| r["Bytes"].as_u64().expect("bytes")).sum();
    assert_eq!(ledger["Total"], sum);
    ledger
}

fn named<'a>(ledger: &'a Value, kind: &str) -> Vec<&'a str> {
    let rows = ledger["Ledger"].as_array().expect("rows").iter();
    rows.filter(|r| r["Kind"] == kind).map(|r| r["Name"].as_str().expect("name")).collect()
}

fn accounts(d: &Daemon) {
    d.load("busybox");
    d.docker([
        "run",
        "-d",
        "--name",
        "up",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "echo logged; head -c 300000 /dev/zero > /data/file; head -c 50000 /dev/zero > /own; touch /done; exec sleep 1000",
    ])
    .ok();
    d.docker(["run", "--name", "ended", "-v", "/anonymous", "busybox", "true"]).ok();
    wait_until("all is written", || d.docker(["exec", "up", "test", "-e", "/done"]).code == 0);
    d.docker(["commit", "up", "made"]).ok();
    fs::write(d.data_root().join("note"), "not ours").expect("write");
    let ledger = agreed(d);
    assert_eq!(ledger["DataRoot"], d.data_root().to_string_lossy().as_ref());
    for (kind, count) in [
        ("layer", 2),
        ("document", 2),
        ("writable-layer", 2),
        ("log", 2),
        ("container-files", 2),
        ("volume", 2),
    ] {
        assert_eq!(named(&ledger, kind).len(), count, "{kind}: {ledger:#}");
    }
    assert_eq!(named(&ledger, "leftover"), ["note"]);
    let of = |name: &str| {
        let rows = ledger["Ledger"].as_array().expect("rows").iter();
        rows.filter(|r| r["Of"] == name).map(|r| r["Kind"].as_str().expect("kind")).collect::<Vec<_>>()
    };
    assert_eq!(of("up"), ["writable-layer", "container-files", "log"]);
    // A layer that two images have is called after one of them.
    let made = of("made:latest");
    assert!(made.contains(&"layer") && made.contains(&"document"), "{made:?}");

    // Docker's rows are the same in both; ours come below them.
    for line in [
        "system df --format json",
        "system df --format raw",
        "system df -v --format json",
        "system df -v --format raw",
        "system df --format table·{{.Type}}\\t{{.Reclaimable}}",
        "system df -v --format {{range·.Volumes}}{{.Name}}={{.Links}}·{{end}}",
        "system df --format {{",
    ] {
        let words = || line.split(' ').map(|w| w.replace('·', " "));
        let both = || {
            let all = |done: Done| (done.code, done.stdout, done.stderr);
            (all(d.docker(words())), all(d.run(Client::Longshore, words())))
        };
        let (mut theirs, mut ours) = both();
        // Ages change with time, at any moment.
        for _ in 0..5 {
            if ours != theirs {
                (theirs, ours) = both();
            }
        }
        assert_eq!(ours, theirs, "{line}");
    }
    for line in [["system", "df"].as_slice(), &["system", "df", "-v"]] {
        let mut rest = String::new();
        wait_until("docker's tables come first", || {
            let (theirs, ours) = (d.docker(line).ok(), d.run(Client::Longshore, line).ok());
            ours.strip_prefix(&theirs).map(|r| rest = r.to_owned()).is_some()
        });
        assert!(
            rest.starts_with(&format!("\n\nOn the disk, below {}:\n", d.data_root().display())),
            "{rest}"
        );
        let kinds = ["ayer", "ocument", "og", "olume", "etadata", "eftover", "otal"];
        assert!(kinds.iter().all(|k| rest.contains(k)), "{rest}");
    }
    d.docker(["rm", "-f", "up", "ended"]).ok();
    agreed(d);
}

#[test]
fn privileged_the_ledger_adds_up_on_overlay2() {
    let d = Daemon::start();
    accounts(&d);
    d.finish();
}

#[test]
fn privileged_the_ledger_adds_up_on_vfs() {
    let d = Daemon::start_with(&["--storage-driver", "vfs"]);
    accounts(&d);
    d.finish();
}

/// What `du` says without the database, which grows and shrinks as it likes, once it is settled.
fn settled(d: &Daemon) -> u64 {
    assert!(Command::new("sync").arg("-f").arg(d.data_root()).status().expect("sync").success());
    du(&d.data_root()) - fs::metadata(d.data_root().join("longshore.db")).map_or(0, |m| m.blocks() * 512)
}

/// Bytes that a prune says it reclaimed, which must be what the disk has more of.
fn reclaims(d: &Daemon, path: &str) -> u64 {
    let before = settled(d);
    let said = api(d, "POST", path)["SpaceReclaimed"].as_u64().expect("a number");
    assert_eq!(before - settled(d), said, "{path}");
    said
}

fn prunes(d: &Daemon) {
    d.load("busybox");
    fs::write(d.dir().join("file"), vec![7; 500_000]).expect("write");
    let tar = d.dir().join("root.tar");
    let made =
        Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(d.dir()).arg("file").status().expect("tar");
    assert!(made.success());
    d.docker(["import", tar.to_str().expect("utf-8"), "imported"]).ok();
    d.docker(["run", "--name", "one", "-v", "/anonymous", "-v", "named:/named", "busybox", "sh", "-c",
        "echo said; head -c 400000 /dev/zero > /own; head -c 70000 /dev/zero > /anonymous/x; echo x > /named/y"]).ok();
    d.docker(["commit", "one", "made"]).ok();
    d.docker(["run", "-d", "--name", "up", "made", "sleep", "1000"]).ok();
    assert!(reclaims(d, "/containers/prune") > 400_000);
    assert_eq!(d.docker(["ps", "-aq"]).ok().lines().count(), 1);
    assert!(reclaims(d, "/volumes/prune") > 70_000);
    assert_eq!(d.docker(["volume", "ls", "-q", "--filter", "dangling=true"]).ok(), "named");
    assert!(reclaims(d, "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D") > 0);
    assert_eq!(reclaims(d, "/images/prune"), 0, "none dangles");
    d.docker(["commit", "up", "made"]).ok();
    assert_eq!(reclaims(d, "/images/prune"), 0, "the one without a name is used");
    assert!(reclaims(d, "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D") > 500_000);
    d.docker(["rm", "-f", "up"]).ok();
    assert!(reclaims(d, "/images/prune") > 1_000_000);
    assert_eq!(d.docker(["images", "-aq"]).ok(), "");
    // The layers that a container kept alive go with it.
    d.load("busybox");
    d.docker(["create", "--name", "last", "busybox"]).ok();
    d.docker(["rmi", "-f", "busybox"]).ok();
    assert!(reclaims(d, "/containers/prune") > 1_000_000);
    assert_eq!(reclaims(d, "/build/prune"), 0);
}

#[test]
fn privileged_prunes_free_what_they_say_on_overlay2() {
    let d = Daemon::start();
    prunes(&d);
    d.finish();
}

#[test]
fn privileged_prunes_free_what_they_say_on_vfs() {
    let d = Daemon::start_with(&["--storage-driver", "vfs"]);
    prunes(&d);
    d.finish();
}

/// Words, questions and answers of both command lines, against the same daemon in the same state.
#[test]
fn privileged_prunes_have_dockers_words() {
    let d = Daemon::start();
    let filled = || {
        d.load("busybox");
        d.docker(["create", "--name", "one", "-v", "/anonymous", "busybox"]).ok();
        d.docker(["tag", "busybox", "other:1"]).ok();
    };
    filled();
    let run = |client: Client, words: &str, input: &str| {
        let mut child = d.command(client);
        child.args(words.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Errors name the program.
        child.arg0("docker");
        let mut child = child.spawn().expect("a command line");
        let mut stdin = child.stdin.take().expect("stdin");
        // It may ask nothing, and be gone.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let out = child.wait_with_output().expect("its end");
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    for (words, input) in [
        ("system prune", "n\n"),
        ("system prune", ""),
        ("system prune -a --volumes --filter label=x", "no\n"),
        ("system prune --filter label=x --filter label!=y --filter until=3h", "\n"),
        ("system prune --volumes --filter until=1h", ""),
        ("system prune -f --filter foo=x", ""),
        ("system prune --filter foo", ""),
        ("system prune x", ""),
        ("network prune", "n\n"),
        ("network prune -f", ""),
        ("network prune -f --filter foo=x", ""),
        ("network prune --help", ""),
        ("image prune -a --filter until=1h", ""),
        ("image prune -f --filter until=1h --filter until=2h", ""),
        ("container prune", "x"),
        ("container prune -f --filter until=nonsense", ""),
        ("container prune -f --filter label=foo", ""),
        ("volume prune", ""),
        ("volume prune --all --filter all=1", ""),
    ] {
        assert_eq!(run(Client::Longshore, words, input), run(Client::Docker, words, input), "{words}");
    }
    // What is removed is the same, twice; ids of containers and volumes differ.
    let blank = |(code, out, err): (Option<i32>, String, String)| {
        let words: Vec<String> = out
            .split_inclusive('\n')
            .map(|l| if l.trim().len() == 64 { "<id>\n".to_owned() } else { l.to_owned() })
            .collect();
        (code, words.concat(), err)
    };
    for (words, input) in [
        ("container prune", "y\n"),
        ("container prune --force", ""),
        ("image prune -af", ""),
        ("system prune -af", ""),
        ("system prune -a --volumes", "y\n"),
    ] {
        let theirs = blank(run(Client::Docker, words, input));
        d.docker(["volume", "prune", "-f"]).ok();
        filled_again(&d, &filled);
        let ours = blank(run(Client::Longshore, words, input));
        d.docker(["volume", "prune", "-f"]).ok();
        filled_again(&d, &filled);
        assert_eq!(ours, theirs, "{words}");
        assert!(theirs.1.contains("Total reclaimed space: "), "{theirs:?}");
    }
    d.finish();
}

/// Empties a daemon and fills it again.
fn filled_again(d: &Daemon, fill: &dyn Fn()) {
    d.docker(["system", "prune", "-af", "--volumes"]).ok();
    fill();
}

/// An image's archive whose layer is compressed as `how` does; loads under the image's own name.
fn compressed_archive(d: &Daemon, image: &str, how: &Compressor) -> PathBuf {
    let dir = d.dir().join("archive");
    fs::create_dir_all(&dir).expect("folder");
    let tar = |args: &[&str]| {
        let done = Command::new("tar").args(args).current_dir(&dir).status().expect("tar");
        assert!(done.success(), "{args:?}");
    };
    let saved = dir.join("saved.tar");
    let saved = saved.to_str().expect("utf-8");
    d.docker(["save", "-o", saved, image]).ok();
    tar(&["-xf", saved]);
    let manifest: Value =
        serde_json::from_slice(&fs::read(dir.join("manifest.json")).expect("manifest")).expect("JSON");
    let config = manifest[0]["Config"].as_str().expect("configuration");
    fs::copy(dir.join(config), dir.join("config.json")).expect("configuration");
    let layer = fs::read(dir.join(manifest[0]["Layers"][0].as_str().expect("one layer"))).expect("layer");
    let write =
        |out: &mut dyn Write| out.write_all(&layer).map_err(|e| longshore_store::Error::io("write", e));
    fs::write(dir.join("layer.gz"), how.compress(Vec::new(), write).expect("compress")).expect("write");
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": manifest[0]["RepoTags"], "Layers": ["layer.gz"]}]);
    fs::write(dir.join("manifest.json"), manifest.to_string()).expect("write");
    tar(&["-cf", "../compressed.tar", "config.json", "layer.gz", "manifest.json"]);
    d.dir().join("compressed.tar")
}

#[test]
fn privileged_compressed_layers_are_dropped_and_nobody_misses_them() {
    let d = Daemon::start();
    d.load("busybox");
    let archive = compressed_archive(&d, "busybox", &Compressor::gzip(9));
    d.docker(["rmi", "busybox"]).ok();
    d.docker(["load", "-q", "-i", archive.to_str().expect("utf-8")]).ok();
    let save = |name: &str| {
        let file = d.dir().join(name);
        d.docker(["save", "-o", file.to_str().expect("utf-8"), "busybox"]).ok();
        fs::read(file).expect("archive")
    };
    let before = save("before.tar");
    assert_eq!(named(&agreed(&d), "compressed-layer").len(), 1);
    let on_disk = settled(&d);
    // Asked for by name, and told of.
    let asked = d.run(Client::Longshore, ["system", "prune", "--compressed"]).ok();
    assert!(asked.contains("  - compressed forms of layers that can be made or fetched again\n"), "{asked}");
    let done = d.run(Client::Longshore, ["system", "prune", "--compressed", "-f"]).ok();
    assert!(done.contains("Dropped compressed layers:\ndropped: sha256:"), "{done}");
    assert!(done.lines().last().is_some_and(|l| !l.ends_with(" 0B")), "{done}");
    assert!(on_disk - settled(&d) > 500_000);
    assert_eq!(named(&agreed(&d), "compressed-layer").len(), 0);
    assert!(save("after.tar") == before);
    assert_eq!(d.docker(["run", "--rm", "busybox", "echo", "there"]).ok(), "there");
    assert_eq!(api(&d, "POST", "/v1.51/longshore/compressed/prune")["SpaceReclaimed"], 0);
    d.finish();
}

/// Imports an image of so many kilobytes.
fn import(d: &Daemon, name: &str, kilobytes: usize) {
    let file = d.dir().join("content");
    fs::write(&file, name.repeat(kilobytes * 1024 / name.len())).expect("write");
    let tar = d.dir().join("root.tar");
    let made =
        Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(d.dir()).arg("content").status().expect("tar");
    assert!(made.success());
    d.docker(["import", tar.to_str().expect("utf-8"), name]).ok();
}

#[test]
fn privileged_a_plan_says_why_and_is_carried_out() {
    let d = Daemon::start();
    d.load("busybox");
    for name in ["old", "kept", "dangling", "new"] {
        import(&d, name, 2000);
    }
    let dangling = d.inspect("{{.Id}}", "dangling");
    d.docker(["tag", "old", "dangling"]).ok();
    d.docker(["rmi", "dangling"]).ok();
    d.docker(["create", "--name", "box", "kept", "x"]).ok();
    // Used last, though it was not made last.
    d.docker(["create", "--name", "user", "old", "x"]).ok();
    d.docker(["rm", "user"]).ok();
    let left = d.data_root().join("content/ingest").join("a".repeat(64));
    fs::write(&left, vec![1; 100_000]).expect("write");

    let said = d.run(Client::Longshore, ["system", "gc", "--dry-run"]).fails(1);
    assert!(said.contains("no disk budget is set"), "{said}");
    settled(&d);
    let limit = du(&d.data_root()) - 2_000_000;
    let gc = |more: &[&str]| {
        let limit = format!("--limit={limit}");
        let mut args = vec!["system", "gc", "--keep-last-used=0s", &limit];
        args.extend(more);
        d.run(Client::Longshore, args)
    };
    // What has a name stays, unless the policy says otherwise.
    let plan = gc(&["--dry-run"]).ok();
    let line = |what: &str| {
        plan.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("{what}: {plan}")).to_owned()
    };
    assert!(line("leftover").starts_with("drop"), "{plan}");
    assert!(line(&dangling[7..19]).contains("without a name, last used"), "{plan}");
    assert!(line("kept:latest").contains("container box uses it"), "{plan}");
    assert!(
        line("new:latest").starts_with("keep") && line("new:latest").ends_with("it has a name"),
        "{plan}"
    );
    assert!(plan.contains("Would free"), "{plan}");
    assert!(left.exists(), "a dry run removes nothing");

    let json = gc(&["--dry-run", "--keep-tagged=false", "--format", "{{.Action}} {{.Called}}"]).ok();
    let dropped: Vec<&str> = json.lines().filter_map(|l| l.strip_prefix("drop ")).collect();
    assert_eq!(dropped.len(), 2, "{json}");
    let before = settled(&d);
    let done = gc(&["--keep-tagged=false"]).ok();
    assert!(done.contains("Freed") && !left.exists(), "{done}");
    assert!(before - settled(&d) > 2_000_000 && du(&d.data_root()) <= limit + 1_000_000);
    assert_eq!(d.docker(["images", "-q", "--no-trunc"]).ok().lines().filter(|l| **l == dangling).count(), 0);

    // Down to what is used: the one that was used last goes last.
    let all = api(&d, "POST", "/longshore/gc?limit=1&keep-last-used=0s&keep-tagged=0");
    let gone: Vec<&str> = all["Decisions"]
        .as_array()
        .expect("decisions")
        .iter()
        .filter(|x| x["Action"] == "drop")
        .map(|x| x["Called"].as_str().expect("name"))
        .collect();
    assert_eq!(gone, ["busybox:latest", "new:latest", "old:latest"]);
    assert_eq!(d.docker(["images", "--format", "{{.Repository}}"]).ok(), "kept");
    let answer = d.raw("POST /longshore/gc?keep-tagged=1 HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(answer.contains(" 400 ") && answer.contains("no limit"), "{answer}");
    d.finish();
}

#[test]
fn privileged_a_budget_is_kept_by_itself() {
    let d = Daemon::start_with(&["--disk-budget=6MB", "--disk-budget-keep-last-used=0s"]);
    for n in 0..4 {
        // Each takes the name from the one before it.
        import(&d, "same", 2000 + n);
    }
    wait_until("what lost its name is collected", || {
        d.docker(["images", "-aq"]).ok().lines().count() <= 2
            && d.log().contains("collected for the disk budget")
    });
    assert!(du(&d.data_root()) < 6_500_000);
    assert_eq!(d.docker(["images", "--format", "{{.Repository}}"]).ok().lines().next(), Some("same"));
    // Only names are left: that is told, and nothing of them goes.
    for name in ["one", "two", "three"] {
        import(&d, name, 2000);
    }
    wait_until("it is told that no more may go", || d.log().contains("no more may go"));
    for name in ["same", "one", "two", "three"] {
        d.inspect("{{.Id}}", name);
    }
    d.finish();
}

/// The only layer of an image: its directories in the driver's folder and beside.
fn layer_of(d: &Daemon, image: &str) -> (PathBuf, PathBuf) {
    let upper = PathBuf::from(d.inspect("{{.GraphDriver.Data.UpperDir}}", image));
    let id = upper.parent().and_then(Path::file_name).expect("a cache id").to_owned();
    (upper, d.data_root().join("layers").join(id))
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("write");
}

/// `system check` finds damage of this kind and says these words; `--repair` mends it, and then all is well.
#[track_caller]
fn mended(d: &Daemon, kind: &str, words: &[&str]) {
    let check = |more: &[&str]| d.run(Client::Longshore, ["system", "check"].iter().chain(more));
    let found = check(&[]);
    assert_eq!(found.code, 1, "{}{}", found.stdout, found.stderr);
    let line = found.stdout.lines().find(|l| l.starts_with(kind));
    let line = line.unwrap_or_else(|| panic!("{kind}: {}", found.stdout));
    assert!(words.iter().all(|w| line.contains(w)) && line.contains("--repair would"), "{words:?}: {line}");
    let repaired = check(&["--repair"]);
    assert_eq!(repaired.code, 0, "{}{}", repaired.stdout, repaired.stderr);
    assert!(repaired.stdout.contains("repaired: done: "), "{}", repaired.stdout);
    let after = check(&[]);
    assert!(after.stdout.contains("nothing is damaged"), "{}", after.stdout);
}

#[test]
fn privileged_atk_27_damage_is_named_and_mended() {
    let d = Daemon::start();
    d.load("busybox");
    let archive = compressed_archive(&d, "busybox", &Compressor::gzip(6));
    d.docker(["rmi", "busybox"]).ok();
    d.docker(["load", "-q", "-i", archive.to_str().expect("utf-8")]).ok();
    d.docker(["create", "--name", "box", "busybox", "echo", "well"]).ok();
    let clean = d.run(Client::Longshore, ["system", "check"]);
    assert_eq!(clean.code, 0, "{}{}", clean.stdout, clean.stderr);
    assert!(clean.stdout.starts_with("Checked 1 image, 1 layer, 2 blobs, 1 container ("), "{}", clean.stdout);
    assert!(clean.stderr.ends_with(")\n") && clean.stderr.contains("checked 100% ("), "{}", clean.stderr);

    let (tree, beside) = layer_of(&d, "busybox");
    let chain = d.inspect("{{index .RootFS.Layers 0}}", "busybox");
    let short = &chain["sha256:".len()..][..12];
    // A file with other bytes, one that is gone, one that was added.
    let file = tree.join("etc/passwd");
    flip(&file);
    mended(&d, "layer", &[short, "etc/passwd was altered", "unpack it again from its compressed form"]);
    fs::remove_file(&file).expect("remove");
    mended(&d, "layer", &[short, "etc/passwd is gone"]);
    fs::write(tree.join("etc/added"), "x").expect("write");
    mended(&d, "layer", &["etc/added: is not of the layer"]);
    flip(&beside.join("recipe"));
    mended(&d, "layer", &[short]);
    let index = fs::read(beside.join("index")).expect("index");
    fs::write(beside.join("index"), &index[..index.len() / 2]).expect("write");
    mended(&d, "index", &["not complete", "make it again from the layer"]);
    fs::write(tree.with_file_name("link"), "nonsense").expect("write");
    mended(&d, "snapshot", &["short name"]);
    let upper = PathBuf::from(d.inspect("{{.GraphDriver.Data.UpperDir}}", "box"));
    fs::write(upper.with_file_name("lower"), "l/nowhere").expect("write");
    mended(&d, "snapshot", &["container", "(lower)"]);
    let blobs = d.data_root().join("content/blobs/sha256");
    let largest =
        fs::read_dir(&blobs).expect("blobs").flatten().max_by_key(|e| e.metadata().expect("stat").len());
    flip(&largest.expect("a blob").path());
    mended(&d, "blob", &["its bytes have the digest", "forget it"]);
    assert_eq!(d.docker(["start", "-a", "box"]).ok(), "well");

    // Now nothing can give the layer again.
    flip(&file);
    let lost = d.run(Client::Longshore, ["system", "check", "--repair", "--format", "json"]);
    assert_eq!(lost.code, 1, "{}", lost.stdout);
    let report: Value = serde_json::from_str(&lost.stdout).expect("JSON");
    assert_eq!(
        (&report["Damaged"], &report["Findings"][0]["Outcome"]),
        (&1.into(), &"failed".into()),
        "{report}"
    );
    let quick = d.run(Client::Longshore, ["system", "check", "--quick"]);
    assert!(quick.code == 0 && quick.stdout.contains("(0B read)"), "{}", quick.stdout);
    // The same file from the archive: loading it again does not touch what is there, removing it first does.
    d.docker(["rm", "box"]).ok();
    d.docker(["rmi", "busybox"]).ok();
    d.docker(["load", "-q", "-i", archive.to_str().expect("utf-8")]).ok();
    assert_eq!(d.run(Client::Longshore, ["system", "check"]).code, 0);
    // Leftovers are told of, are no damage, and go.
    let left = d.data_root().join("layers").join("ab".repeat(32));
    fs::create_dir(&left).expect("folder");
    let told = d.run(Client::Longshore, ["system", "check"]);
    assert!(told.code == 0 && told.stdout.contains("--repair would remove it"), "{}", told.stdout);
    assert_eq!(d.run(Client::Longshore, ["system", "check", "--repair"]).code, 0);
    assert!(!left.exists());
    d.finish();
}

/// A layer that a container runs on is not changed below it.
#[test]
fn privileged_a_repair_leaves_what_runs_alone() {
    let d = Daemon::start();
    d.load("busybox");
    let archive = compressed_archive(&d, "busybox", &Compressor::gzip(6));
    d.docker(["rmi", "busybox"]).ok();
    d.docker(["load", "-q", "-i", archive.to_str().expect("utf-8")]).ok();
    d.docker(["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    flip(&layer_of(&d, "busybox").0.join("etc/group"));
    let refused = d.run(Client::Longshore, ["system", "check", "--repair"]);
    assert!(
        refused.code == 1 && refused.stdout.contains("runs on it: stop the container"),
        "{}",
        refused.stdout
    );
    d.docker(["rm", "-f", "up"]).ok();
    assert_eq!(d.run(Client::Longshore, ["system", "check", "--repair"]).code, 0);
    d.finish();
}

/// The store, opened and left on another boot, as after a power cut.
fn cut_power(d: &mut Daemon) {
    d.kill9();
    let options = longshore_store::StoreOptions::default();
    drop(longshore_store::Store::open_on_boot(&d.data_root(), &options, "another boot").expect("the store"));
}

#[test]
fn privileged_after_a_power_cut_a_damaged_layer_is_not_run() {
    let mut d = Daemon::start();
    d.load("busybox");
    let archive = compressed_archive(&d, "busybox", &Compressor::gzip(6));
    d.docker(["rmi", "busybox"]).ok();
    d.docker(["load", "-q", "-i", archive.to_str().expect("utf-8")]).ok();
    d.docker(["create", "--name", "before", "busybox", "echo", "before"]).ok();
    let verified = |d: &Daemon| d.log().matches("verifying a layer after an unclean stop").count();
    // The daemon alone was killed: nothing is verified.
    d.kill9();
    d.launch();
    assert_eq!(d.docker(["start", "-a", "before"]).ok(), "before");
    assert_eq!(verified(&d), 0);
    cut_power(&mut d);
    d.launch();
    assert_eq!(d.docker(["start", "-a", "before"]).ok(), "before");
    assert_eq!(d.docker(["run", "--rm", "busybox", "echo", "after"]).ok(), "after");
    assert_eq!(verified(&d), 1, "once");

    flip(&layer_of(&d, "busybox").0.join("etc/passwd"));
    cut_power(&mut d);
    d.launch();
    for args in [vec!["run", "--rm", "busybox", "true"], vec!["start", "before"]] {
        let said = d.docker(args).stderr;
        for word in [
            "layer sha256:",
            "of image busybox:latest is damaged",
            "etc/passwd",
            "longshore system check --repair",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    assert_eq!(d.run(Client::Longshore, ["system", "check", "--repair"]).code, 0);
    assert_eq!(d.docker(["start", "-a", "before"]).ok(), "before");
    assert_eq!(d.docker(["run", "--rm", "busybox", "echo", "again"]).ok(), "again");
    // A clean stop, and the machine is started again.
    d.terminate();
    let options = longshore_store::StoreOptions::default();
    let store =
        longshore_store::Store::open_on_boot(&d.data_root(), &options, "a third boot").expect("the store");
    assert_eq!(store.unverified_layers(), 0);
    store.close().expect("close");
    drop(store);
    d.launch();
    d.finish();
}
