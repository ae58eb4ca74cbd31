//! What builds fetch from web servers.

use std::process::Stdio;

use longshore_oci::Digest;

use crate::build::{build, context, nothing_at_work};
use crate::harness::{Client, Daemon, Done, wait_until};
use crate::web_server::{Page, Web};

/// `Fri, 09 Sep 2011 01:46:40 GMT`
const TIME: i64 = 1_315_532_800;
const MODIFIED: &str = "Last-Modified: Fri, 09 Sep 2011 01:46:40 GMT";

/// Builds a Dockerfile without a context of note.
fn one(d: &Daemon, name: &str, dockerfile: &str, more: &[&str]) -> Done {
    let dir = context(d, name, dockerfile, &[("own", "own")]);
    build(d, &dir, &[&["-t", name], more].concat())
}

fn in_image(d: &Daemon, image: &str, script: &str) -> String {
    d.docker(["run", "--rm", image, "sh", "-c", script]).ok()
}

#[test]
fn privileged_add_downloads_files() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    web.put("/dir/a%20b.txt?x=1", Page::new("hello").head(MODIFIED));
    web.put("/", Page::new("named").head("Content-Disposition: attachment; filename=\"../n.txt\""));
    web.put("/once", Page::status("302 Found").head(format!("Location: {}", web.url("/dir/target"))));
    web.put("/dir/target", Page::new("target"));
    let (a, root, once) = (web.url("/dir/a%20b.txt?x=1"), web.url("/"), web.url("/once"));
    let file = format!(
        "FROM busybox\nARG HOST\nADD --chown=7:8 --chmod=640 http://$HOST/dir/a%20b.txt?x=1 /chosen/\n\
         ADD own {once} {root} <<EOF /mixed/\nheredoc\nEOF\nADD {a} /file\nADD --link {a} /linked/to\n"
    );
    one(&d, "x", &file, &["--build-arg", &format!("HOST={}", web.address())]).ok();
    let look =
        in_image(&d, "x", "stat -c '%n %u:%g %a %Y %s' /chosen/* /file /linked/* /mixed/*; cat /mixed/*");
    let want = format!(
        "/chosen/a b.txt 7:8 640 {TIME} 5\n/file 0:0 600 {TIME} 5\n/linked/to 0:0 600 {TIME} 5\n\
         /mixed/EOF 0:0 644 "
    );
    assert!(look.starts_with(&want), "{look}");
    assert!(look.contains("/mixed/n.txt 0:0 600 0 5\n"), "{look}");
    assert!(look.contains("/mixed/once 0:0 600 0 6\n"), "{look}");
    assert!(look.ends_with("\nheredoc\nnamedtargetown"), "{look}");
    // In one build an address is asked once.
    let log = web.log();
    assert_eq!(log.iter().filter(|l| l.contains("/dir/a%20b.txt")).count(), 1, "{log:?}");
    web.stop(&d.netns());
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_what_was_downloaded_is_asked_for_again_only_when_it_changed() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    web.put("/f", Page::new("one").head("ETag: \"1\""));
    web.put("/plain", Page::new("plain"));
    let file = format!("FROM busybox\nADD {} {} /\nRUN date +%N > /now\n", web.url("/f"), web.url("/plain"));
    let id = |name: &str| d.inspect("{{json .RootFS.Layers}}", name);
    one(&d, "x:1", &file, &[]).ok();
    assert_eq!(web.log(), ["GET /f -> 200", "GET /plain -> 200"]);
    // A server that says what it has is asked whether that is the same; from another all comes again, and is compared.
    one(&d, "x:2", &file, &[]).ok();
    assert_eq!(web.log(), ["GET /f -> 304", "GET /plain -> 200"]);
    assert_eq!(id("x:1"), id("x:2"));
    // A time says as much, if it was long enough ago when it was told.
    let date = "Date: Fri, 09 Sep 2011 01:46:50 GMT";
    let later = date.replace("01:46:50", "01:56:50");
    for (date, second) in [(date, "200"), (later.as_str(), "304")] {
        web.put("/timed", Page::new("timed").head(MODIFIED).head(date));
        let file = format!("FROM busybox\nADD {} /\n", web.url("/timed"));
        one(&d, "t", &file, &["--no-cache"]).ok();
        one(&d, "t", &file, &[]).ok();
        assert_eq!(web.log(), ["GET /timed -> 200".to_owned(), format!("GET /timed -> {second}")], "{date}");
    }
    // Where it is, and how old, does not matter.
    web.put("/other/f", Page::new("one").head(MODIFIED));
    one(&d, "x:3", &file.replace("/f ", "/other/f "), &[]).ok();
    assert_eq!(id("x:1"), id("x:3"));
    web.log();
    // The step is gone, and the server says that the file is the same: then it has to send it once more.
    d.docker(["image", "rm", "-f", "x:1", "x:2", "x:3"]).ok();
    d.docker(["builder", "prune", "-af"]).ok();
    one(&d, "x:4", &file, &[]).ok();
    assert_eq!(web.log(), ["GET /f -> 304", "GET /plain -> 200", "GET /f -> 200"]);
    one(&d, "x:5", &file, &["--no-cache"]).ok();
    assert_eq!(web.log(), ["GET /f -> 200", "GET /plain -> 200"]);
    web.put("/f", Page::new("two").head("ETag: \"2\""));
    one(&d, "x:6", &file, &[]).ok();
    assert_eq!(web.log(), ["GET /f -> 200", "GET /plain -> 200"]);
    assert_eq!(in_image(&d, "x:6", "cat /f /plain"), "twoplain");
    web.stop(&d.netns());
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_with_a_checksum_nobody_is_asked_twice() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    web.put("/f", Page::new("one"));
    let (right, wrong) = (Digest::of(b"one"), Digest::of(b"two"));
    let file = |sum: &Digest| format!("FROM busybox\nADD --checksum={sum} {} /d/\n", web.url("/f"));
    one(&d, "x:1", &file(&right), &[]).ok();
    assert_eq!(web.log().len(), 1);
    one(&d, "x:2", &file(&right), &[]).ok();
    assert_eq!(web.log(), Vec::<String>::new());
    let failed = one(&d, "x:3", &file(&wrong), &[]).fails(1);
    let want = format!("digest mismatch for {}: {right} (expected: {wrong})", web.url("/f"));
    assert!(failed.contains(&want), "{failed}");
    // The same without the checksum is another request, and the same step.
    one(&d, "x:4", &format!("FROM busybox\nADD {} /d/\n", web.url("/f")), &[]).ok();
    assert_eq!(d.inspect("{{json .RootFS.Layers}}", "x:4"), d.inspect("{{json .RootFS.Layers}}", "x:1"));
    web.stop(&d.netns());
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_archives_of_elsewhere_are_unpacked_when_asked_for() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    tar.append_data(&mut header, "in/it", &b"it"[..]).expect("tar");
    let archive = tar.into_inner().and_then(flate2::write::GzEncoder::finish).expect("tar");
    web.put("/a.tar.gz", Page::new(archive));
    let url = web.url("/a.tar.gz");
    one(&d, "x", &format!("FROM busybox\nADD {url} /one/\nADD --unpack=true {url} /two/\n"), &[]).ok();
    assert_eq!(in_image(&d, "x", "find /one /two -type f; cat /two/in/it"), "/one/a.tar.gz\n/two/in/it\nit");
    web.stop(&d.netns());
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_what_cannot_be_downloaded_says_why() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    web.put("/loop", Page::status("302 Found").head("Location: /loop"));
    web.put("/meta", Page::status("302 Found").head("Location: http://169.254.169.254/latest"));
    web.put("/broken", Page { breaks_after: Some(10), ..Page::new("x".repeat(1000)) });
    web.put("/huge", Page::default().head(format!("Content-Length: {}", 1u64 << 40)));
    web.put("/secret", Page::status("401 Unauthorized"));
    let fails = |url: &str, want: &str| {
        let failed = one(&d, "x", &format!("FROM busybox\nADD {url} /\n"), &[]).fails(1);
        assert!(failed.contains(want), "{url}: {failed}");
        assert!(!failed.contains("hunter2"), "{failed}");
    };
    let at = web.address();
    fails(
        &web.url("/none?token=hunter2"),
        &format!("get http://{at}/none at {at}: unexpected status 404 Not Found"),
    );
    fails(&web.url("/loop"), "redirected more than 5 times");
    fails(&web.url("/meta"), "169.254.169.254, where nobody may be sent to");
    fails(&web.url("/broken"), "end of file before message length reached (tried 5 times)");
    fails(&web.url("/huge"), "the file has more than");
    fails(&format!("http://me:hunter2@{at}/secret"), "unexpected status 401 Unauthorized");
    assert!(web.log().contains(&"GET /secret as Basic bWU6aHVudGVyMg== -> 401".to_owned()));
    fails("http://127.0.0.1:1/x", "connection refused");
    fails(&format!("https://{at}/x"), &format!("get https://{at}/x at {at}: "));
    assert!(!d.log().contains("hunter2"), "{}", d.log());
    web.stop(&d.netns());
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_a_password_stays_with_its_server() {
    let d = Daemon::start();
    d.load("busybox");
    let (web, other) = (Web::start(&d.netns()), Web::start(&d.netns()));
    web.put("/same", Page::status("302 Found").head("Location: /away"));
    web.put("/away", Page::status("302 Found").head(format!("Location: {}", other.url("/f"))));
    other.put("/f", Page::new("f"));
    one(&d, "x", &format!("FROM busybox\nADD http://me:pw@{}/same /\n", web.address()), &[]).ok();
    let who = "as Basic bWU6cHc= -> 302";
    assert_eq!(web.log(), [format!("GET /same {who}"), format!("GET /away {who}")]);
    assert_eq!(other.log(), ["GET /f -> 200"]);
    // It is in no history but as it was written.
    let history = d.docker(["history", "--no-trunc", "x"]).ok();
    assert!(history.contains("ADD http://me:pw@"), "{history}");
    for web in [web, other] {
        web.stop(&d.netns());
    }
    nothing_at_work(&d);
    d.finish();
}

#[test]
fn privileged_a_download_ends_with_its_build() {
    let d = Daemon::start();
    d.load("busybox");
    let web = Web::start(&d.netns());
    web.put("/f", Page { stands_still: true, ..Page::new("never") });
    let dir = context(&d, "c", &format!("FROM busybox\nADD {} /\n", web.url("/f")), &[]);
    let mut command = d.command(Client::Docker);
    command.arg("build").arg(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("docker");
    wait_until("the download began", || !web.log().is_empty());
    child.kill().expect("kill");
    child.wait().expect("wait");
    nothing_at_work(&d);
    web.stop(&d.netns());
    d.finish();
}
