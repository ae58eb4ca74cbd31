//! What builds fetch from Git repositories.

use std::fs;
use std::process::Stdio;

use crate::build::{build, context, nothing_at_work};
use crate::git_server::{Repositories, TIME};
use crate::harness::{Client, Daemon, Done, wait_until};
use crate::web_server::{Page, Web};

const HOST: &str = "git://127.0.0.1";

fn one(d: &Daemon, name: &str, dockerfile: &str, more: &[&str]) -> Done {
    let dir = context(d, name, dockerfile, &[]);
    build(d, &dir, &[&["-t", name], more].concat())
}

fn in_image(d: &Daemon, image: &str, script: &str) -> String {
    d.docker(["run", "--rm", image, "sh", "-c", script]).ok()
}

fn add(line: &str) -> String {
    format!("FROM busybox\nADD {line} /r\n")
}

#[test]
fn privileged_add_takes_a_repositorys_files() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    let first = r.commit(&[("a", "1"), ("run", "#!/bin/sh\n"), ("sub/b", "b1"), ("sub/deep/c", "c")]);
    r.git(&["tag", "-a", "v1", "-m", "one"]);
    r.git(&["branch", "feature/one"]);
    r.commit(&[("a", "2"), ("link", "-> a")]);
    let files = "cd /r && find . | sort | xargs stat -c '%n %u:%g %a %Y' && cat a";
    one(&d, "x", &add(&format!("{HOST}/x.git")), &[]).ok();
    let want = format!(
        ". 0:0 755 {TIME}\n./a 0:0 644 {TIME}\n./link 0:0 777 {TIME}\n./run 0:0 755 {TIME}\n./sub 0:0 755 {TIME}\n\
         ./sub/b 0:0 644 {TIME}\n./sub/deep 0:0 755 {TIME}\n./sub/deep/c 0:0 644 {TIME}\n2"
    );
    // The directory that it goes to has the time of the image.
    let got = in_image(&d, "x", files);
    assert_eq!(got.lines().skip(1).collect::<Vec<_>>(), want.lines().skip(1).collect::<Vec<_>>());
    for at in [
        "#v1",
        "#refs/tags/v1",
        "#feature/one",
        "?ref=v1",
        "?tag=v1",
        "?branch=feature/one",
        &format!("#{first}"),
    ] {
        one(&d, "x", &add(&format!("{HOST}/x.git{at}")), &[]).ok();
        assert_eq!(in_image(&d, "x", "cat /r/a; ls -a /r"), "1.\n..\na\nrun\nsub", "{at}");
    }
    for at in ["#main:sub", "#v1:/sub/../sub/", "?ref=main&subdir=sub"] {
        one(&d, "x", &add(&format!("{HOST}/x.git{at}")), &[]).ok();
        assert_eq!(in_image(&d, "x", "cat /r/b; ls /r"), "b1b\ndeep", "{at}");
    }
    let chosen = format!("--chown=7:8 --chmod=700 --exclude=sub {HOST}/x.git");
    one(&d, "x", &add(&chosen), &[]).ok();
    assert_eq!(in_image(&d, "x", "stat -c '%u:%g %a' /r/a; ls /r"), "7:8 700\na\nlink\nrun");
    for (at, want) in [
        ("#none", "repository does not contain ref none"),
        ("#main:none", "\"none\" is no directory of"),
        ("#main:a", "\"a\" is no directory of"),
        ("#1111111111111111111111111111111111111111", "there is no commit 1111"),
        ("#-x", "invalid Git reference"),
        ("?depth=3", "unexpected query"),
    ] {
        let failed = one(&d, "x", &add(&format!("{HOST}/x.git{at}")), &[]).fails(1);
        assert!(failed.contains(want), "{at}: {failed}");
    }
    // The longer kind of ids.
    let long = repos.make_with("long.git", &["--object-format=sha256"]);
    let commit = long.commit(&[("a", "long")]);
    for at in ["", &format!("#{commit}")] {
        one(&d, "x", &add(&format!("{HOST}/long.git{at}")), &[]).ok();
        assert_eq!((in_image(&d, "x", "cat /r/a").as_str(), commit.len()), ("long", 64));
    }
    let failed = one(&d, "x", &add(&format!("{HOST}/none.git")), &[]).fails(1);
    assert!(failed.contains("failed to fetch git://127.0.0.1/none.git: "), "{failed}");
    nothing_at_work(&d);
    drop(repos);
    d.finish();
}

#[test]
fn privileged_a_repository_may_be_kept() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    let first = r.commit(&[("a", "1")]);
    r.git(&["tag", "-a", "v1", "-m", "one"]);
    let last = r.commit(&[("a", "2")]);
    for (line, commit, more) in [
        (format!("--keep-git-dir {HOST}/x.git"), &last, "refs/heads/main"),
        (format!("{HOST}/x.git?keep-git-dir=1#v1"), &first, "refs/tags/v1"),
        (format!("--keep-git-dir=true {HOST}/x.git#{first}"), &first, ""),
    ] {
        let to = format!("FROM busybox AS get\nADD {line} /r\nFROM busybox\nCOPY --from=get /r /r\n");
        one(&d, "x", &to, &[]).ok();
        // The image has no git: its files are looked at from outside.
        let out = d.dir().join("out");
        let _ = fs::remove_dir_all(&out);
        let id = d.docker(["create", "x"]).ok();
        d.docker(["cp", &format!("{id}:/r"), out.to_str().expect("utf-8")]).ok();
        d.docker(["rm", &id]).ok();
        let git = |args: &[&str]| {
            let mut git = std::process::Command::new("git");
            git.args(["-c", "safe.directory=*", "-C"]).arg(&out).args(args);
            String::from_utf8_lossy(&git.output().expect("git").stdout).trim().to_owned()
        };
        assert_eq!(git(&["rev-parse", "HEAD"]), *commit, "{line}");
        assert_eq!(git(&["status", "--porcelain"]), "", "{line}");
        assert_eq!(git(&["config", "remote.origin.url"]), format!("{HOST}/x.git"), "{line}");
        assert_eq!(git(&["for-each-ref", "--format=%(refname)"]), more, "{line}");
        let config = fs::read_to_string(out.join(".git/config")).expect("config");
        assert!(!config.contains(d.dir().to_str().expect("utf-8")), "{config}");
    }
    // Only the root has a repository.
    r.commit(&[("sub/b", "b")]);
    one(&d, "x", &add(&format!("--keep-git-dir=true {HOST}/x.git#:sub")), &[]).ok();
    assert_eq!(in_image(&d, "x", "ls -a /r"), ".\n..\nb");
    nothing_at_work(&d);
    drop(repos);
    d.finish();
}

#[test]
fn privileged_the_same_commit_is_not_fetched_again() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    r.commit(&[("a", "1"), ("sub/b", "b")]);
    let file = add(&format!("{HOST}/x.git"));
    let cached = |told: &str| told.matches("Using cache").count();
    assert_eq!(cached(&one(&d, "x", &file, &[]).ok()), 0);
    assert_eq!(cached(&one(&d, "x", &file, &[]).ok()), 1);
    let layers = |name: &str| d.inspect("{{json .RootFS.Layers}}", name);
    let before = layers("x");
    // Made anew it is the same, whenever that is.
    assert_eq!(cached(&one(&d, "y", &file, &["--no-cache"]).ok()), 0);
    assert_eq!(layers("y"), before);
    // Another name of the same commit is the same; another directory of it is not.
    r.git(&["tag", "v1"]);
    assert_eq!(cached(&one(&d, "x", &add(&format!("{HOST}/x.git#v1")), &[]).ok()), 1);
    assert_eq!(cached(&one(&d, "x", &add(&format!("{HOST}/x.git#v1:sub")), &[]).ok()), 0);
    r.commit(&[("a", "2")]);
    assert_eq!(cached(&one(&d, "x", &file, &[]).ok()), 0);
    assert_eq!(in_image(&d, "x", "cat /r/a"), "2");
    nothing_at_work(&d);
    drop(repos);
    d.finish();
}

#[test]
fn privileged_a_commit_may_be_demanded() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    let first = r.commit(&[("a", "1")]);
    r.git(&["tag", "-a", "v1", "-m", "one"]);
    let tag = r.git(&["rev-parse", "v1"]);
    let check = |checksum: &str, at: &str| {
        one(&d, "x", &add(&format!("--checksum={checksum} {HOST}/x.git{at}")), &["--no-cache"])
    };
    for checksum in [first.as_str(), &first[..7], &tag, &tag[..10], &first.to_uppercase()] {
        check(checksum, "#v1").ok();
        assert_eq!(in_image(&d, "x", "cat /r/a"), "1");
    }
    check(&first, "").ok();
    let second = r.commit(&[("a", "2")]);
    for at in ["", "#main", &format!("#{second}")] {
        let failed = check(&first, at).fails(1);
        assert!(failed.contains(&format!("expected checksum to match {first}, got {second}")), "{failed}");
    }
    // By its id alone, whatever the branch is by now; as BuildKit, of a server that gives such.
    r.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let by_id = format!("{HOST}/x.git?fetch-by-commit=1&ref=main&checksum={first}");
    one(&d, "x", &add(&by_id), &["--no-cache"]).ok();
    assert_eq!(in_image(&d, "x", "cat /r/a"), "1");
    // What is here already nobody is asked for.
    drop(repos);
    let told = one(&d, "x", &add(&format!("--checksum={first} {HOST}/x.git#v1")), &[]).ok();
    assert_eq!(told.matches("Using cache").count(), 1, "{told}");
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_submodules_come_along() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let (r, inner, innermost) = (repos.make("x.git"), repos.make("y.git"), repos.make("z.git"));
    innermost.commit(&[("deep", "deep")]);
    let add_module = |to: &crate::git_server::Repository, from: &str, url: &str, path: &str| {
        let from = repos.dir().join(from);
        to.git(&["submodule", "-q", "add", from.to_str().expect("utf-8"), path]);
        to.git(&["config", "-f", ".gitmodules", &format!("submodule.{path}.url"), url]);
        to.commit(&[])
    };
    inner.commit(&[("in", "in")]);
    add_module(&inner, "z.git", &format!("{HOST}/z.git"), "m");
    r.commit(&[("a", "a")]);
    add_module(&r, "y.git", "../y.git", "mod");
    // Of a commit that no branch has any more.
    let old = inner.git(&["rev-parse", "HEAD"]);
    inner.commit(&[("in", "newer")]);
    let list = "cd /r; find . -type f | sort; cat mod/in mod/m/deep";
    one(&d, "x", &add(&format!("{HOST}/x.git")), &[]).ok();
    assert_eq!(
        in_image(&d, "x", list),
        "./.gitmodules\n./a\n./mod/.gitmodules\n./mod/in\n./mod/m/deep\nindeep",
        "{old}"
    );
    one(&d, "x", &add(&format!("{HOST}/x.git#:mod")), &[]).ok();
    assert_eq!(in_image(&d, "x", "cat /r/m/deep"), "deep");
    one(&d, "x", &add(&format!("{HOST}/x.git?submodules=false")), &[]).ok();
    assert_eq!(in_image(&d, "x", "find /r | sort"), "/r\n/r/.gitmodules\n/r/a\n/r/mod");
    nothing_at_work(&d);
    drop(repos);
    d.finish();
}

#[test]
fn privileged_atk_47_a_repository_leads_nowhere_else() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    let secret = d.dir().join("secret");
    fs::create_dir(&secret).expect("folder");
    fs::write(secret.join("key"), "hunter2").expect("file");
    let up = "../".repeat(20);
    let here = secret.to_str().expect("utf-8");
    let outside = here.trim_start_matches('/');
    r.commit(&[
        ("real/f", "f"),
        ("inside", "-> real"),
        ("absolute", &format!("-> {here}")),
        ("relative", &format!("-> {up}{outside}")),
        ("dots", "-> .."),
        ("loop", "-> loop"),
    ]);
    one(&d, "x", &add(&format!("{HOST}/x.git#:inside")), &[]).ok();
    assert_eq!(in_image(&d, "x", "ls /r"), "f");
    for subdir in ["absolute", "relative", "loop", "dots/secret", ".git"] {
        let failed = one(&d, "x", &add(&format!("{HOST}/x.git#:{subdir}")), &[]).fails(1);
        assert!(failed.contains("is no directory of"), "{subdir}: {failed}");
    }
    // At most the root itself.
    one(&d, "x", &add(&format!("{HOST}/x.git#:dots/../../..")), &[]).ok();
    // Submodules by protocols that run something or read this machine's files.
    let marker = d.dir().join("ran");
    let evil = format!("ext::sh -c touch% {}", marker.display());
    for (n, url) in
        [evil.as_str(), &format!("file://{}", r.dir().display()), r.dir().to_str().expect("utf-8")]
            .iter()
            .enumerate()
    {
        let bad = repos.make(&format!("bad{n}.git"));
        bad.commit(&[(
            ".gitmodules",
            &format!("[submodule \"m\"]\n\tpath = m\n\turl = {url}\n\tupdate = checkout\n"),
        )]);
        let commit = r.git(&["rev-parse", "HEAD"]);
        bad.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},m")]);
        bad.git(&["commit", "-q", "-m", "m"]);
        let failed = one(&d, "x", &add(&format!("{HOST}/bad{n}.git")), &[]).fails(1);
        assert!(failed.contains("not allowed"), "{url}: {failed}");
    }
    assert!(!marker.exists());
    // Filters and hooks that a repository brings along are not its to choose.
    let filters = repos.make("filters.git");
    filters.commit(&[
        (".gitattributes", "* filter=evil\n"),
        ("a", "a"),
        (".githooks/post-checkout", "#!/bin/sh\n"),
    ]);
    one(&d, "x", &add(&format!("{HOST}/filters.git")), &[]).ok();
    assert_eq!(in_image(&d, "x", "cat /r/a"), "a");
    // Nor is this machine reached by a Dockerfile's own words.
    for (source, want) in [
        (format!("file://{}", r.dir().display()), "file:// is not fetched"),
        (format!("{HOST}/x.git#--upload-pack=touch"), "invalid Git reference"),
        ("ssh://-oProxyCommand=x/y".to_owned(), "begins with a dash"),
        ("ssh://127.0.0.1:1/x".to_owned(), "Connection refused"),
        ("git@127.0.0.1:x".to_owned(), "Connection refused"),
    ] {
        let failed = one(&d, "x", &add(&source), &[]).fails(1);
        assert!(failed.contains(want), "{source}: {failed}");
    }
    nothing_at_work(&d);
    drop(repos);
    d.finish();
}

#[test]
fn privileged_a_server_of_plain_files_will_do() {
    let d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    let first = r.commit(&[("a", "1")]);
    r.git(&["branch", "old"]);
    r.commit(&[("a", "2")]);
    r.git(&["update-server-info"]);
    let web = Web::start(&d.netns());
    web.serve("/x.git/", &r.dir().join(".git"), Some("Basic bWU6aHVudGVyMg=="));
    let url = format!("http://me:hunter2@{}/x.git", web.address());
    for (at, want) in [("", "2"), ("#old", "1"), (&format!("#{first}"), "1")] {
        one(&d, "x", &add(&format!("{url}{at}")), &[]).ok();
        assert_eq!(in_image(&d, "x", "cat /r/a"), want, "{at}");
    }
    // A secret that names the server says the same.
    let dir = context(&d, "s", &add(&format!("http://{}/x.git", web.address())), &[]);
    fs::write(d.dir().join("header"), "Basic bWU6aHVudGVyMg==\n").expect("file");
    let secret = format!("id=GIT_AUTH_HEADER.{},src={}", web.address(), d.dir().join("header").display());
    let dir = dir.to_str().expect("utf-8");
    d.run(Client::Longshore, ["build", "-t", "x", "--no-cache", "--secret", &secret, dir]).ok();
    let args = ["build", "--secret", &secret, "-f", "none", &web.url("/x.git")];
    let failed = d.run(Client::Longshore, args).fails(1);
    assert!(failed.contains("Cannot locate specified Dockerfile: none"), "{failed}");
    web.log();
    // What is here already takes one look.
    let told = one(&d, "x", &add(&url), &[]).ok();
    assert_eq!(told.matches("Using cache").count(), 1, "{told}");
    let log = web.log();
    assert!(log.iter().all(|l| l.contains("/info/refs") || l.contains("/HEAD")), "{log:?}");
    let failed = one(&d, "x", &add(&format!("http://{}/x.git", web.address())), &["--no-cache"]).fails(1);
    assert!(failed.contains("could not read Username"), "{failed}");
    let failed = one(&d, "x", &add(&format!("http://me:wrong@{}/x.git", web.address())), &[]).fails(1);
    assert!(failed.contains("failed to fetch http://127.0.0.1:") && !failed.contains("wrong"), "{failed}");
    assert!(!d.log().contains("hunter2"), "{}", d.log());
    web.stop(&d.netns());
    nothing_at_work(&d);
    drop(repos);
    d.finish();
}

#[test]
fn privileged_a_clone_ends_with_its_build() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    web.put("/x.git/info/refs?service=git-upload-pack", Page { stands_still: true, ..Page::default() });
    let dir = context(&d, "c", &add(&web.url("/x.git")), &[]);
    let mut command = d.command(Client::Docker);
    command.arg("build").arg(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("docker");
    wait_until("git asked", || !web.log().is_empty());
    child.kill().expect("kill");
    child.wait().expect("wait");
    // No process of it is left: `finish` looks, and its folder is gone.
    nothing_at_work(&d);
    let url = web.url("/x.git");
    wait_until("git has gone", || {
        let ps = std::process::Command::new("pgrep").args(["-f", &url]).output().expect("pgrep");
        ps.stdout.is_empty()
    });
    web.stop(&d.netns());
    d.finish();
}

#[test]
fn privileged_no_git_outlives_the_daemon() {
    let mut d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    let still = Page { stands_still: true, ..Page::default() };
    web.put("/x.git/info/refs?service=git-upload-pack", still);
    let url = web.url("/x.git");
    let dir = context(&d, "c", &add(&url), &[]);
    let mut command = d.command(Client::Docker);
    command.arg("build").arg(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("docker");
    wait_until("git asked", || !web.log().is_empty());
    d.kill9();
    child.wait().expect("wait");
    let running = || {
        let mut ps = std::process::Command::new("pgrep");
        ps.args(["-f", &format!("ls-remote.*{url}")]);
        !ps.output().expect("pgrep").stdout.is_empty()
    };
    wait_until("git has gone", || !running());
    web.stop(&d.netns());
    d.launch();
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_without_git_it_says_what_to_install() {
    let mut d = Daemon::start();
    d.load("busybox");
    d.terminate();
    d.find_only(&[]);
    d.launch();
    let failed = one(&d, "x", &add(&format!("{HOST}/x.git")), &[]).fails(1);
    assert!(failed.contains("git is not installed on the daemon's machine: install it"), "{failed}");
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_proxies_are_for_files_and_repositories_too() {
    let mut d = Daemon::start();
    d.load("busybox");
    let repos = Repositories::start(&d);
    let r = repos.make("x.git");
    r.commit(&[("a", "through")]);
    r.git(&["update-server-info"]);
    let proxy = Web::start(&d.netns());
    proxy.put("http://files.invalid/f", Page::new("a proxy's"));
    proxy.serve("http://files.invalid/x.git/", &r.dir().join(".git"), None);
    d.terminate();
    d.add_args(&["--http-proxy", &format!("http://me:hunter2@{}", proxy.address())]);
    d.launch();
    let file = "FROM busybox\nADD http://files.invalid/f /f\nADD http://files.invalid/x.git /r\n";
    one(&d, "x", file, &[]).ok();
    assert_eq!(in_image(&d, "x", "cat /f /r/a"), "a proxy'sthrough");
    assert!(!d.log().contains("hunter2"), "{}", d.log());
    proxy.stop(&d.netns());
    drop(repos);
    nothing_at_work(&d);
    d.finish();
}
