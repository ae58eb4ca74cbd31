//! Dockerfiles as people write them (`tests/fixtures/dockerfiles`), built on the fixture images by the real `docker`: once,
//! again, and again without the cache.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::harness::{Client, Daemon};

/// Those in which no command leaves a file with the time of day: without the cache, too, the same bytes come out.
const TIMELESS: &[&str] = &["init-wrapper", "nginx-template", "perl-script"];

fn folders() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dockerfiles");
    let mut folders: Vec<_> = std::fs::read_dir(all).expect("fixtures").flatten().map(|e| e.path()).collect();
    folders.sort();
    folders
}

/// Builds a folder; the image's id, or what was said.
fn build(d: &Daemon, dir: &Path, more: &[&str]) -> Result<String, String> {
    let mut command = d.command(Client::Docker);
    command.env("DOCKER_BUILDKIT", "0").args(["build", "-q"]).args(more).arg(dir).stdin(Stdio::null());
    let out = command.output().expect("docker");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if out.status.success() { Ok(text(out.stdout)) } else { Err(text(out.stdout) + &text(out.stderr)) }
}

#[test]
fn privileged_real_dockerfiles_build_and_build_again() {
    let d = Daemon::start();
    ["busybox", "debian", "nginx", "mariadb"].iter().for_each(|name| d.load(name));
    let (mut wrong, mut timeless) = (Vec::new(), Vec::new());
    for dir in folders() {
        let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
        let first = match build(&d, &dir, &[]) {
            Ok(id) => id,
            Err(said) => {
                wrong.push(format!("{name}: {said}"));
                continue;
            }
        };
        match build(&d, &dir, &[]) {
            Ok(id) if id == first => {}
            other => wrong.push(format!("{name}: first {first}, then {other:?}")),
        }
        match build(&d, &dir, &["--no-cache"]) {
            Ok(id) if id == first => timeless.push(name),
            Ok(_) => {}
            Err(said) => wrong.push(format!("{name}: without the cache: {said}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(timeless, TIMELESS);
    d.finish();
}
