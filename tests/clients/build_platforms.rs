//! Images for several platforms: built together, one name, one index wherever they go; and what manifests say besides.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::build_cli::{build, done, folder, ours};
use crate::cli::run;
use crate::harness::{Daemon, Done};
use crate::registry_server::{Door, Registry};

/// A step that is the same for all, one for each platform, and an image without any other file.
const CROSS: &str = "FROM --platform=$BUILDPLATFORM busybox AS same\nRUN head -c 12 /dev/urandom | base64 > /same\n\
     FROM --platform=$BUILDPLATFORM busybox AS cross\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
     FROM scratch\nCOPY --from=same /same /\nCOPY --from=cross /arch /\nCMD [\"/arch\"]\n";
const BOTH: &str = "--platform linux/amd64,linux/arm64";

fn say(d: &Daemon, line: &str) -> Done {
    done(run(ours(d, line), &[]))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn arch(d: &Daemon, image: &str) -> String {
    d.inspect("{{.Architecture}}", image)
}

/// A blob of a layout.
fn blob(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().expect("digest").trim_start_matches("sha256:");
    json(&fs::read_to_string(layout.join("blobs/sha256").join(digest)).expect("blob"))
}

/// What an archive's own index names, in a folder beside it.
fn unpacked(archive: &str) -> (std::path::PathBuf, Value) {
    let dir = Path::new(archive).with_extension("layout");
    fs::create_dir_all(&dir).expect("folder");
    let status = Command::new("tar").args(["-xf", archive, "-C"]).arg(&dir).status().expect("tar");
    assert!(status.success());
    let index = json(&fs::read_to_string(dir.join("index.json")).expect("index.json"));
    (dir, index)
}

#[test]
fn privileged_images_for_several_platforms_have_one_name() {
    let d = Daemon::start();
    d.load("busybox");
    let context = folder(&d, "context", &[("Dockerfile", CROSS)]);
    let shown = build(&d, &format!("--progress plain {BOTH} -t made:1 {context}"));
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    // What is the same for both is done and shown once.
    let count = |text: &str| shown.stderr.lines().filter(|l| l.contains(text) && l.contains("RUN")).count();
    assert_eq!(count("[linux/amd64 same"), 1, "{}", shown.stderr);
    assert_eq!(count("[linux/amd64->arm64 cross"), 1, "{}", shown.stderr);
    assert_eq!(count("[linux/amd64 cross"), 1, "{}", shown.stderr);
    // The name stands for this machine's; the other one is asked for.
    assert_eq!(arch(&d, "made:1"), "amd64");
    let other = say(&d, "image inspect --platform linux/arm64 -f {{.Architecture}} made:1");
    assert_eq!(other.ok().trim(), "arm64");
    assert!(say(&d, "image inspect --platform linux/s390x made:1").fails(1).contains("does not match"));
    let made = say(&d, "create --platform linux/arm64 --name other made:1").ok();
    assert_eq!(d.inspect("{{.Config.Image}}", made.trim()), "made:1");
    assert!(say(&d, "ps -a --format {{.Image}}").ok().contains("made:1"));
    say(&d, &format!("cp other:/arch {context}/arch")).ok();
    assert_eq!(fs::read_to_string(format!("{context}/arch")).expect("file"), "arm64\n");
    fs::remove_file(format!("{context}/arch")).expect("file");
    let rows = |options: &str| say(&d, &format!("images -q {options} made")).ok().lines().count();
    assert_eq!(rows(""), 1);
    assert_eq!(say(&d, "images -aq").ok().lines().count(), 3, "busybox and two");
    say(&d, "image prune -f").ok();
    assert_eq!(say(&d, "images -aq").ok().lines().count(), 3, "neither is dangling");
    // Another name stands for both, too.
    say(&d, "tag made:1 again:1").ok();
    assert!(say(&d, "image inspect --platform linux/arm64 again:1").code == 0);
    // Built again, all of it is there.
    let again = build(&d, &format!("--progress plain {BOTH} -t made:1 {context}")).stderr;
    assert_eq!(again.matches(" CACHED\n").count(), 7, "{again}");
    // Only what is needed stays.
    say(&d, "rmi made:1").ok();
    assert!(say(&d, "image inspect --platform linux/arm64 again:1").code == 0);
    let id = say(&d, "image inspect --platform linux/arm64 -f {{.Id}} again:1").ok();
    say(&d, "rm other").ok();
    let refused = say(&d, &format!("rmi {}", id.trim())).fails(1);
    assert!(refused.contains("image is the one of again:1 for another platform"), "{refused}");
    say(&d, "rmi again:1").ok();
    assert_eq!(say(&d, "images -aq").ok().lines().count(), 1, "both are gone");
    d.finish();
}

#[test]
fn privileged_an_index_goes_to_a_registry_and_comes_back() {
    let d = Daemon::start();
    d.load("busybox");
    let registry = Registry::start(&d.netns(), Door::Plain);
    let name = registry.name("made:1");
    let context = folder(&d, "context", &[("Dockerfile", CROSS)]);
    let annotations = "--annotation a=all --annotation manifest[linux/arm64]:only=arm --annotation index:i=x \
         --annotation manifest-descriptor:d=y";
    let metadata = d.dir().join("metadata.json");
    build(
        &d,
        &format!("{BOTH} {annotations} --push -t {name} --metadata-file {} {context}", metadata.display()),
    )
    .ok();
    let index = json(&say(&d, &format!("manifest inspect {name}")).ok());
    let platforms: Vec<&str> = index["manifests"]
        .as_array()
        .expect("manifests")
        .iter()
        .filter_map(|m| m["platform"]["architecture"].as_str())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"], "{index}");
    // What is in the registry, as it is there.
    let raw = |digest: &str| {
        let hex = digest.trim_start_matches("sha256:");
        let place = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        json(&fs::read_to_string(registry.storage().join(place)).expect("blob"))
    };
    let metadata = json(&fs::read_to_string(metadata).expect("metadata"));
    let digest = metadata["containerimage.digest"].as_str().expect("digest");
    let index = raw(digest);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["annotations"]["i"], "x");
    let manifests: Vec<Value> = index["manifests"].as_array().expect("manifests").clone();
    assert!(manifests.iter().all(|m| m["annotations"]["d"] == "y"), "{index}");
    let [amd, arm] = [0, 1].map(|n: usize| raw(manifests[n]["digest"].as_str().expect("digest")));
    assert_eq!((&amd["annotations"]["a"], &amd["annotations"]["only"]), (&"all".into(), &Value::Null));
    assert_eq!((&arm["annotations"]["a"], &arm["annotations"]["only"]), (&"all".into(), &"arm".into()));
    // Sent again it is the same.
    let pushed = say(&d, &format!("push {name}")).ok();
    assert!(pushed.contains(digest), "{pushed}");
    // One alone.
    say(&d, &format!("tag {name} {}", registry.name("made:arm"))).ok();
    say(&d, &format!("push --platform linux/arm64 {}", registry.name("made:arm"))).ok();
    let one = json(&say(&d, &format!("manifest inspect {}", registry.name("made:arm"))).ok());
    assert_eq!(one["annotations"]["only"], "arm", "{one}");

    // An image on it, on a daemon that has neither: both are fetched, and the name stays this machine's.
    for image in [name.clone(), registry.name("made:arm")] {
        say(&d, &format!("rmi {image}")).ok();
    }
    let on = folder(&d, "on", &[("Dockerfile", &format!("FROM {name}\nCOPY x /\n")), ("x", "x")]);
    build(&d, &format!("--platform linux/arm64,linux/amd64 -t on:1 {on}")).ok();
    assert_eq!((arch(&d, &name).as_str(), arch(&d, "on:1").as_str()), ("amd64", "amd64"));
    let lines = registry.log().lines().count();
    build(&d, &format!("{BOTH} -t on:1 {on}")).ok();
    assert_eq!(registry.log().lines().count(), lines, "both are known");
    // What was fetched for a platform only is not sent.
    let other = registry.name("other:1");
    say(&d, &format!("tag {name} {other}")).ok();
    say(&d, &format!("push {other}")).ok();
    let sent = json(&say(&d, &format!("manifest inspect {other}")).ok());
    assert!(sent["config"].is_object(), "{sent}");
    d.finish();
}

#[test]
fn privileged_outputs_have_all_platforms() {
    let d = Daemon::start();
    d.load("busybox");
    let context = folder(&d, "context", &[("Dockerfile", CROSS)]);
    let (out, oci) = (d.dir().join("out"), d.dir().join("made.tar").display().to_string());
    let line = format!(
        "{BOTH} -o {} -o type=oci,dest={oci},name=made:1,annotation-index-descriptor.x=y,annotation-index.i=j {context}",
        out.display()
    );
    build(&d, &line).ok();
    for arch in ["amd64", "arm64"] {
        let file = out.join(format!("linux_{arch}/arch"));
        assert_eq!(fs::read_to_string(file).expect("file"), format!("{arch}\n"));
    }
    let (layout, named) = unpacked(&oci);
    let named = &named["manifests"][0];
    assert_eq!((&named["annotations"]["x"], named["platform"].is_null()), (&"y".into(), true), "{named}");
    let index = blob(&layout, named);
    let archs = |index: &Value| {
        let manifests = index["manifests"].as_array().expect("manifests").clone();
        manifests.iter().map(|m| m["platform"]["architecture"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(archs(&index), ["amd64", "arm64"]);
    // It comes back as it was, and goes again.
    say(&d, &format!("load -i {oci}")).ok();
    assert!(say(&d, "image inspect --platform linux/arm64 made:1").code == 0);
    let saved = d.dir().join("saved.tar").display().to_string();
    say(&d, &format!("save -o {saved} made:1")).ok();
    assert_eq!(fs::read(&saved).expect("archive"), fs::read(&oci).expect("archive"));
    // Docker's own form of it has this machine's.
    let docker = json(&fs::read_to_string(layout.join("manifest.json")).expect("manifest.json"));
    assert_eq!(docker[0]["RepoTags"][0], "made:1");
    assert_eq!(docker.as_array().expect("images").len(), 1);
    d.finish();
}

#[test]
fn privileged_one_image_may_have_annotations() {
    let d = Daemon::start();
    let context = folder(&d, "context", &[("Dockerfile", "FROM scratch\nCOPY x /\n"), ("x", "x")]);
    build(&d, &format!("-t plain {context}")).ok();
    build(&d, &format!("-t noted --annotation a=b {context}")).ok();
    // The same image, and one name says more of it.
    assert_eq!(d.inspect("{{.Id}}", "plain"), d.inspect("{{.Id}}", "noted"));
    let registry = Registry::start(&d.netns(), Door::Plain);
    let manifest = |image: &str| {
        let name = registry.name(image);
        say(&d, &format!("tag {image} {name}")).ok();
        say(&d, &format!("push {name}")).ok();
        json(&say(&d, &format!("manifest inspect {name}")).ok())
    };
    assert_eq!(manifest("noted")["annotations"]["a"], "b");
    assert!(manifest("plain")["annotations"].is_null());
    // Built anew without, the name says nothing more.
    build(&d, &format!("-t noted {context}")).ok();
    assert!(manifest("noted")["annotations"].is_null());
    d.finish();
}

/// The head of a program for a machine that there is not.
fn alien() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0, 0xfe, 0xfe, 1, 0, 0, 0]);
    elf.resize(64, 0);
    elf
}

#[test]
fn privileged_a_command_of_another_machine_needs_an_emulator() {
    let d = Daemon::start();
    let file = "FROM scratch\nCOPY --chmod=755 sh /bin/sh\nRUN true\n";
    let context = folder(&d, "context", &[("Dockerfile", file)]);
    fs::write(format!("{context}/sh"), alien()).expect("file");
    let refused = build(&d, &format!("--platform linux/s390x {context}")).fails(1);
    assert!(refused.contains("exec format error: the stage is for linux/s390x"), "{refused}");
    assert!(refused.contains("install qemu-user-static"), "{refused}");
    // For this machine the remedy would be another one.
    let refused = build(&d, &context).fails(1);
    assert!(refused.trim_end().ends_with("exec format error"), "{refused}");
    d.finish();
}

#[test]
fn privileged_what_cannot_be_asked_of_platforms_is_told() {
    let d = Daemon::start();
    let context = folder(&d, "context", &[("Dockerfile", "FROM scratch\nCOPY x /\n"), ("x", "x")]);
    for (line, want) in [
        ("--annotation index:a=b", "index annotations are not supported for a single platform"),
        ("--annotation manifest[linux/s390x]:a=b", "nothing is built for linux/s390x"),
        ("--platform linux/amd64,linux/amd64", "platform linux/amd64 is asked for twice"),
        ("--platform linux/amd64,what/is/this/now", "invalid platform"),
    ] {
        let failed = build(&d, &format!("{line} {context}"));
        assert!(failed.code != 0 && failed.stderr.contains(want), "{line}: {}", failed.stderr);
    }
    d.finish();
}
