//! Dockerfiles as people write them (`tests/fixtures/dockerfiles`), built on the fixture images by the real `docker`: once,
//! again, and again without the cache; and by docker-py and our own command line, which find the same images.

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

/// Builds all folders with docker-py; the images' ids, or what was said, in the same order.
fn by_docker_py(d: &Daemon, folders: &[PathBuf]) -> Vec<String> {
    const ALL: &str = "import docker, sys\n\
        client = docker.DockerClient(base_url=sys.argv[1])\n\
        for folder in sys.argv[2:]:\n    \
            try: print(client.images.build(path=folder)[0].id)\n    \
            except Exception as e: print(repr(e))\n";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", ALL]).arg(format!("unix://{}", d.socket().display())).args(folders);
    let out = command.output().expect("python3");
    assert!(out.status.success(), "docker-py: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn privileged_real_dockerfiles_build_and_build_again() {
    let d = Daemon::start();
    ["busybox", "debian", "nginx", "mariadb"].iter().for_each(|name| d.load(name));
    let (mut wrong, mut timeless, mut built) = (Vec::new(), Vec::new(), Vec::new());
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
        let mut command = d.command(Client::Longshore);
        let out = command.args(["build", "-q"]).arg(&dir).output().expect("our command line");
        let ours = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        if ours != first {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            wrong.push(format!("{name}: first {first}, by our own command line {ours} {said}"));
        }
        built.push((name.clone(), dir.clone(), first.clone()));
        match build(&d, &dir, &["--no-cache"]) {
            Ok(id) if id == first => timeless.push(name),
            Ok(_) => {}
            Err(said) => wrong.push(format!("{name}: without the cache: {said}")),
        }
    }
    let dirs: Vec<PathBuf> = built.iter().map(|(_, dir, _)| dir.clone()).collect();
    let by_python = by_docker_py(&d, &dirs);
    assert_eq!(by_python.len(), dirs.len(), "{by_python:?}");
    let known: Vec<String> = dirs.iter().map(|dir| build(&d, dir, &[]).unwrap_or_else(|e| e)).collect();
    for (((name, ..), id), python) in built.iter().zip(known).zip(by_python) {
        if id != python {
            wrong.push(format!("{name}: {id}, by docker-py {python}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(timeless, TIMELESS);
    d.finish();
}
