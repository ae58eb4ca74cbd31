//! Contexts that the daemon fetches: repositories, archives, lone Dockerfiles. And archives that are packed otherwise.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use crate::build::{build, context, nothing_at_work};
use crate::build_cli::{folder, piped};
use crate::git_server::Repositories;
use crate::harness::{Client, Daemon, Done, in_netns, wait_until};
use crate::web_server::{Page, Web};

const HOST: &str = "git://127.0.0.1";
const DOCKERFILE: &str = "FROM busybox\nCOPY . /c\n";

fn ours(d: &Daemon, args: &[&str]) -> Done {
    d.run(Client::Longshore, ["build", "-t", "x"].iter().chain(args))
}

fn files(d: &Daemon, image: &str) -> String {
    d.docker(["run", "--rm", image, "sh", "-c", "cd /c; echo $(find . -type f | sort)"]).ok()
}

/// A line of a shell in which the real command line finds the daemon.
fn with_daemon(d: &Daemon, line: &str) -> String {
    let (socket, config) = (d.socket(), d.dir().display());
    format!("export DOCKER_HOST=unix://{} DOCKER_CONFIG={config} DOCKER_BUILDKIT=0; {line}", socket.display())
}

/// What the classic door says to a remote context.
fn classic(d: &Daemon, query: &str) -> String {
    d.raw(&format!(
        "POST /v1.43/build?t=x&{query} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    ))
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).expect("tar");
    }
    tar.into_inner().expect("tar")
}

/// An archive in every form that is read, with the end of its name.
fn packed(tar: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).expect("gzip");
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(tar).expect("bzip2");
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).expect("xz");
    xz.write_all(tar).expect("xz");
    vec![
        ("tar", tar.to_vec()),
        ("tar.gz", gzip.finish().expect("gzip")),
        ("tar.bz2", bzip2.finish().expect("bzip2")),
        ("tar.xz", xz.finish().expect("xz")),
        ("tar.zst", zstd::encode_all(tar, 1).expect("zstd")),
    ]
}

#[test]
fn privileged_a_repository_is_a_context() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    let hidden = "*.log\n.dockerignore\n";
    r.commit(&[("Dockerfile", DOCKERFILE), ("a", "a"), ("b.log", "b"), (".dockerignore", hidden)]);
    r.git(&["tag", "v1"]);
    r.commit(&[("sub/Other", DOCKERFILE), ("sub/s", "s"), ("sub/Dockerfile", "FROM busybox\nRUN false\n")]);
    let told = ours(&d, &["--progress", "plain", &format!("{HOST}/x.git#v1")]).ok();
    assert!(!told.contains("transferring"), "{told}");
    assert_eq!(files(&d, "x"), "./Dockerfile ./a");
    let again =
        d.run(Client::Longshore, ["build", "--progress", "plain", &format!("{HOST}/x.git#v1")]).stderr;
    assert!(again.contains("[internal] load git source git://127.0.0.1/x.git\n"), "{again}");
    ours(&d, &["-f", "Other", &format!("{HOST}/x.git#main:sub")]).ok();
    assert_eq!(files(&d, "x"), "./Dockerfile ./Other ./s");
    ours(&d, &["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &format!("{HOST}/x.git?ref=v1")]).ok();
    assert!(files(&d, "x").contains("./.git/HEAD"));
    // Through the classic door; what is on the way is decoded there.
    let answer = classic(&d, &format!("remote={HOST}/x.git%23main:sub&dockerfile=Other"));
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("Successfully tagged x:latest"),
        "{answer}"
    );
    // The real command line clones by itself, and sends the files.
    let real = format!("docker build -t y {HOST}/x.git#v1");
    in_netns(&d.netns(), &with_daemon(&d, &real)).ok();
    assert!(files(&d, "y").ends_with(" ./Dockerfile ./a"));
    for (query, want) in [
        (format!("remote={HOST}/none.git"), "failed to fetch git://127.0.0.1/none.git: "),
        (format!("remote={HOST}/x.git%23none"), "repository does not contain ref none"),
        (format!("remote={HOST}/x.git&dockerfile=none"), "Cannot locate specified Dockerfile: none"),
        ("remote=file:///etc".to_owned(), "file:// is not fetched"),
        ("remote=etc".to_owned(), "want the address of a Git repository"),
        ("remote=client-session".to_owned(), "a context over a build session"),
    ] {
        let answer = classic(&d, &query);
        assert!(answer.contains(want) && !answer.contains("Successfully"), "{query}: {answer}");
    }
    drop(repos);
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_a_file_of_the_web_is_a_context() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    for (end, bytes) in packed(&tar(&[("Dockerfile", DOCKERFILE), ("a", "a"), ("d/Other", DOCKERFILE)])) {
        web.put(&format!("/c.{end}"), Page::new(bytes));
        ours(&d, &["--no-cache", &web.url(&format!("/c.{end}"))]).ok();
        assert_eq!(files(&d, "x"), "./Dockerfile ./a ./d/Other", "{end}");
    }
    ours(&d, &["-f", "d/Other", &web.url("/c.tar.xz")]).ok();
    let real = format!("docker build -t y {}", web.url("/c.tar.gz"));
    in_netns(&d.netns(), &with_daemon(&d, &real)).ok();
    assert_eq!(files(&d, "y"), "./Dockerfile ./a ./d/Other");
    web.put("/lone", Page::new("FROM busybox\nLABEL lone=yes\n"));
    for _ in 0..2 {
        ours(&d, &["-f", "", &web.url("/lone")]).ok();
        assert_eq!(d.inspect("{{.Config.Labels.lone}}", "x"), "yes");
    }
    let answer = classic(&d, &format!("remote={}&dockerfile=Dockerfile", web.url("/lone")));
    assert!(answer.contains("Successfully tagged x:latest"), "{answer}");
    web.put("/broken.tar.gz", Page::new(packed(&tar(&[("Dockerfile", DOCKERFILE)]))[1].1[..60].to_vec()));
    web.put("/copies", Page::new(DOCKERFILE.replace(". /c", "none /c")));
    web.put("/secret", Page::status("401 Unauthorized"));
    let secret = format!("http://me:hunter2@{}/secret", web.address());
    for (args, want) in [
        (vec![web.url("/none")], "unexpected status 404 Not Found"),
        (vec![web.url("/broken.tar.gz")], "dockerfile parse error"),
        (
            vec!["-f".into(), "Other".into(), web.url("/lone")],
            "so it is the Dockerfile, and another is named: Other",
        ),
        (vec![web.url("/copies")], "\"/none\": not found"),
        (vec![secret], "unexpected status 401 Unauthorized"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let failed = ours(&d, &args).fails(1);
        assert!(failed.contains(want), "{args:?}: {failed}");
        assert!(!failed.contains("hunter2"), "{failed}");
    }
    assert!(!d.log().contains("hunter2"), "{}", d.log());
    web.stop(&d.netns());
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_contexts_with_names_may_be_elsewhere() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    r.commit(&[("lib/x", "x"), ("Dockerfile", "FROM busybox\nCOPY lib /c\nCOPY --from=near n /c/\n")]);
    let web = Web::start(&d.netns());
    web.put("/c.tar.gz", Page::new(packed(&tar(&[("t", "t")]))[1].1.clone()));
    let file = "FROM lib AS whole\nFROM busybox\nCOPY --from=lib /lib/x /c/\nCOPY --from=pack t /c/\n\
        COPY --from=whole /lib/x /c/whole\nRUN --mount=from=lib,target=/m cp /m/lib/x /c/mounted\n";
    let near = folder(&d, "near", &[("n", "n"), ("Dockerfile", file)]);
    let (lib, pack) = (format!("lib={HOST}/x.git#main"), format!("pack={}", web.url("/c.tar.gz")));
    let args = ["--progress", "plain", "--build-context", &lib, "--build-context", &pack, &near];
    ours(&d, &args).ok();
    assert_eq!(files(&d, "x"), "./mounted ./t ./whole ./x");
    let again = d.run(Client::Longshore, ["build"].iter().chain(&args));
    assert_eq!(again.stderr.matches(" CACHED\n").count(), 5, "{}", again.stderr);
    // A new commit is noticed.
    r.commit(&[("lib/x", "other")]);
    ours(&d, &args).ok();
    assert_eq!(d.docker(["run", "--rm", "x", "cat", "/c/mounted"]).ok(), "other");
    // The context may be elsewhere, too, and what stands beside it here; so may the Dockerfile.
    let near = format!("near={near}");
    let there = format!("{HOST}/x.git");
    ours(&d, &["--build-context", &near, &there]).ok();
    assert_eq!(files(&d, "x"), "./n ./x");
    let line = format!("-t x --build-context {near} -f - {there}");
    let mine = piped(&d, &line, b"FROM busybox\nCOPY --from=near n /c/\nCOPY lib/x /c/mine\n");
    assert_eq!(mine.code, 0, "{}", mine.stderr);
    assert_eq!(files(&d, "x"), "./mine ./n");
    let none =
        ours(&d, &["--build-context", &format!("lib={HOST}/none.git"), "--build-context", &near, &there]);
    assert_eq!(none.code, 0, "what nothing names is not fetched: {}", none.stderr);
    web.stop(&d.netns());
    drop(repos);
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_contexts_with_names_may_be_images_in_layouts() {
    let d = Daemon::start();
    d.load("busybox");
    let made = folder(&d, "made", &[("Dockerfile", "FROM busybox\nRUN echo made > /made\nENV A=b\n")]);
    ours(&d, &[&made]).ok();
    let layout = d.dir().join("layout");
    std::fs::create_dir(&layout).expect("folder");
    let archive = d.dir().join("x.tar").display().to_string();
    d.docker(["save", "-o", &archive, "x"]).ok();
    let unpacked = std::process::Command::new("tar").args(["-xf", &archive, "-C"]).arg(&layout).status();
    assert!(unpacked.expect("tar").success());
    let id = d.inspect("{{.Id}}", "x");
    let forget = || {
        d.docker(["rmi", "x"]).ok();
        d.docker(["builder", "prune", "-af"]).ok();
    };
    forget();
    let file = "FROM base\nRUN echo $A > /c\nCOPY --from=other /made /from\n";
    let dir = folder(&d, "context", &[("Dockerfile", file)]);
    let at = layout.display();
    let base = format!("base=oci-layout://{at}");
    let other = format!("other=oci-layout://{at}:latest");
    ours(&d, &["--build-context", &base, "--build-context", &other, &dir]).ok();
    assert_eq!(d.docker(["run", "--rm", "x", "cat", "/c", "/from"]).ok(), "b\nmade");
    // It was there for the build only.
    assert!(d.docker(["image", "inspect", &id]).code != 0);
    assert_eq!(d.docker(["images", "-aq"]).ok().lines().count(), 2, "busybox and what was built");
    for (place, want) in [
        (format!("{at}:none"), "its index.json does not name none"),
        (format!("{at}/none"), "it has no index.json"),
        (format!("{at}@sha256:{}", "0".repeat(64)), "its index.json does not name sha256:0000"),
    ] {
        let failed = ours(&d, &["--build-context", &format!("base=oci-layout://{place}"), &dir]).fails(1);
        assert!(failed.contains(want), "{place}: {failed}");
    }
    // Damage is found before anything is made of it.
    forget();
    let largest = |dir: &std::path::Path| {
        let files = fs::read_dir(dir).expect("folder").map(|e| e.expect("entry").path());
        files.max_by_key(|path| fs::metadata(path).expect("stat").len()).expect("a blob")
    };
    let blob = largest(&layout.join("blobs/sha256"));
    let mut bytes = fs::read(&blob).expect("blob");
    *bytes.last_mut().expect("a byte") ^= 1;
    bytes[600] ^= 1;
    fs::write(&blob, bytes).expect("blob");
    d.docker(["rmi", "busybox"]).ok();
    let failed = ours(&d, &["--build-context", &base, "--build-context", &other, &dir]).fails(1);
    assert!(failed.contains("oci-layout "), "{failed}");
    assert_eq!(d.docker(["images", "-aq"]).ok(), "");
    d.finish();
}

#[test]
fn privileged_fetching_a_context_ends_with_its_client() {
    let d = Daemon::start();
    let web = Web::start(&d.netns());
    web.put("/c.tar", Page { stands_still: true, ..Page::new("never") });
    web.put("/x.git/info/refs?service=git-upload-pack", Page { stands_still: true, ..Page::default() });
    for path in ["/c.tar", "/x.git"] {
        let mut command = d.command(Client::Longshore);
        command
            .arg("build")
            .arg(web.url(path))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("longshore");
        wait_until("the daemon asked", || !web.log().is_empty());
        child.kill().expect("kill");
        child.wait().expect("wait");
        nothing_at_work(&d);
    }
    web.stop(&d.netns());
    d.finish();
}

#[test]
fn privileged_archives_may_be_packed_otherwise() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = context(&d, "c", "FROM busybox\nADD in.* /c/\nADD --unpack=false in.tar.xz /whole/\n", &[]);
    for (end, bytes) in packed(&tar(&[("in/it", "it")])) {
        for (other, _) in packed(&[]) {
            let _ = fs::remove_file(dir.join(format!("in.{other}")));
        }
        fs::write(dir.join(format!("in.{end}")), &bytes).expect("file");
        fs::write(dir.join("in.tar.xz"), &bytes).expect("file");
        build(&d, &dir, &["-t", "x"]).ok();
        assert_eq!(files(&d, "x"), "./in/it", "{end}");
        assert_eq!(
            d.docker(["run", "--rm", "x", "wc", "-c", "/whole/in.tar.xz"]).ok(),
            format!("{} /whole/in.tar.xz", bytes.len())
        );
    }
    // What is packed and no tar stays as it is.
    let dir = context(&d, "d", "FROM busybox\nADD text.bz2 /c/\n", &[]);
    fs::write(dir.join("text.bz2"), &packed(b"just text")[2].1).expect("file");
    build(&d, &dir, &["-t", "x"]).ok();
    assert_eq!(files(&d, "x"), "./text.bz2");
    // A context on standard input, by the real command line and ours.
    for (end, bytes) in packed(&tar(&[("Dockerfile", DOCKERFILE), ("a", "a")])) {
        d.docker_with_input(&["build", "-t", "x", "--no-cache", "-"], &bytes).ok();
        assert_eq!(files(&d, "x"), "./Dockerfile ./a", "{end}");
        let mut command = d.command(Client::Longshore);
        command.args(["build", "-t", "y", "--no-cache", "-"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("longshore");
        child.stdin.take().expect("stdin").write_all(&bytes).expect("write");
        assert!(child.wait().expect("wait").success(), "{end}");
        assert_eq!(files(&d, "y"), "./Dockerfile ./a", "{end}");
    }
    // An image in such an archive is loaded and imported, too.
    let (_, layer) = packed(&tar(&[("c/f", "f")])).remove(3);
    d.docker_with_input(&["import", "-", "imported"], &layer).ok();
    let made = context(&d, "e", "FROM busybox\nCOPY --from=imported /c /c\n", &[]);
    build(&d, &made, &["-t", "x"]).ok();
    assert_eq!(files(&d, "x"), "./f");
    nothing_at_work(&d);
    d.finish();
}
