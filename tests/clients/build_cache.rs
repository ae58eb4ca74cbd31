//! The build cache in directories, in registries and within images: what one daemon did, another need not do.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::{run, words};
use crate::harness::{Client, Daemon, Done};
use crate::registry_server::{Door, Registry};

/// A stage that is only read, and an image of two steps: each writes what nobody can guess.
const TWO_STAGES: &str = "FROM busybox AS tools\nRUN head -c 12 /dev/urandom | base64 > /random\nCOPY kept /kept\n\
     FROM busybox\nCOPY --from=tools /random /kept /\nRUN head -c 12 /dev/urandom | base64 > /other && true\n\
     RUN true\nENV a=b\n";

fn context(d: &Daemon, dockerfile: &str) -> String {
    let dir = d.dir().join("context");
    fs::create_dir_all(&dir).expect("folder");
    fs::write(dir.join("Dockerfile"), dockerfile).expect("file");
    fs::write(dir.join("kept"), "kept").expect("file");
    dir.display().to_string()
}

fn build(d: &Daemon, line: &str) -> Done {
    ours(d, &format!("build --progress plain {line}"))
}

fn ours(d: &Daemon, line: &str) -> Done {
    let mut command = d.command(Client::Longshore);
    command.args(words(line)).env_remove("BUILDKIT_PROGRESS");
    let (code, stdout, stderr) = run(command, &[]);
    Done { code, stdout, stderr }
}

/// Builds, and gives what was shown.
fn shown(d: &Daemon, line: &str) -> String {
    let done = build(d, line);
    assert_eq!(done.code, 0, "{line}: {}", done.stderr);
    done.stderr
}

fn id(d: &Daemon, image: &str) -> String {
    d.inspect("{{.Id}}", image)
}

fn cached(shown: &str) -> usize {
    shown.matches(" CACHED\n").count()
}

/// A fresh daemon with the base image.
fn fresh() -> Daemon {
    let d = Daemon::start();
    d.load("busybox");
    d
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("folder").map(|entry| entry.expect("entry").path());
    let both = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(both).collect()
}

#[test]
fn privileged_a_cache_travels_in_a_directory() {
    let (a, b) = (fresh(), fresh());
    let cache = a.dir().join("cache");
    let dir = cache.display();
    let context = context(&a, TWO_STAGES);
    let first = shown(&a, &format!("-t made --cache-to type=local,dest={dir},mode=max {context}"));
    assert!(first.contains(&format!("exporting cache to client directory {dir}\n")), "{first}");
    assert!(first.contains("wrote cache image manifest sha256:"), "{first}");
    assert_eq!(cached(&first), 0, "{first}");
    // The same again gives the same bytes, although all of it comes from the cache.
    let index = fs::read(cache.join("index.json")).expect("index");
    let count = files(&cache).len();
    shown(&a, &format!("--cache-to type=local,dest={dir},mode=max {context}"));
    assert_eq!(fs::read(cache.join("index.json")).expect("index"), index);
    assert_eq!(files(&cache).len(), count, "nothing new");
    // Another daemon carries nothing out.
    let second = shown(&b, &format!("-t made --cache-from type=local,src={dir} {context}"));
    assert!(second.contains(&format!("importing cache manifest from {dir}\n")), "{second}");
    assert_eq!(cached(&second), 5, "{second}");
    assert_eq!(id(&b, "made"), id(&a, "made"));
    let random = |d: &Daemon| d.docker(["run", "--rm", "made", "cat", "/random", "/other", "/kept"]).ok();
    assert_eq!(random(&b), random(&a));
    // What only is read did not come; what came is the daemon's own by now.
    let listed = ours(&b, "builder du --verbose").ok();
    assert!(listed.contains("RUN true") && !listed.contains("/random\n"), "{listed}");
    let third = shown(&b, &format!("--cache-from type=local,src={dir} {context}"));
    assert_eq!(cached(&third), 5, "{third}");
    // It goes on to another place all the same, and to the byte.
    let other = a.dir().join("other");
    shown(
        &b,
        &format!(
            "--cache-from type=local,src={dir} --cache-to type=local,dest={},mode=max {context}",
            other.display()
        ),
    );
    assert_eq!(fs::read(other.join("index.json")).expect("index"), index);
    assert_eq!(files(&other).len(), count);
    assert!(!ours(&b, "builder du --verbose").ok().contains("/random\n"));
    // Unless it is not there after all.
    for layer in layers(&cache) {
        let _ = fs::rename(&layer, layer.with_extension("aside"));
    }
    fs::remove_dir_all(&other).expect("the other");
    let less = shown(
        &b,
        &format!(
            "--cache-from type=local,src={dir} --cache-to type=local,dest={},mode=max {context}",
            other.display()
        ),
    );
    assert!(less.contains("again, without what other caches have"), "{less}");
    assert!(layers(&other).len() < files(&cache.join("blobs")).len() - 2, "{less}");
    for layer in files(&cache).iter().filter(|f| f.extension().is_some_and(|e| e == "aside")) {
        fs::rename(layer, layer.with_extension("")).expect("rename");
    }
    // It comes when it is wanted.
    let tools = shown(&b, &format!("-t tools --target tools --cache-from type=local,src={dir} {context}"));
    assert_eq!(cached(&tools), 2, "{tools}");
    let of = |image: &str| b.docker(["run", "--rm", image, "cat", "/random"]).ok();
    assert_eq!(of("tools"), of("made"));
    fs::remove_dir_all(&cache).expect("the cache");
    let own = shown(&b, &format!("--cache-from type=local,src={dir} {context}"));
    assert_eq!(cached(&own), 5, "{own}");
    assert!(own.contains("it has no index.json: no cache was put there yet"), "{own}");
    a.finish();
    b.finish();
}

/// Steps of one stage, the first of which reads a secret; the second is what a cache may lie about.
const SECRET: &str = "FROM busybox\nRUN --mount=type=secret,id=key cp /run/secrets/key /tmp/x; rm /tmp/x; date > /a\n\
     RUN cat /a > /b && head -c 12 /dev/urandom | base64 >> /b\n";
const CANARY: &str = "canary-9f8e7d6c5b4a";

fn with_secret(d: &Daemon, line: &str) -> String {
    let key = d.dir().join("key");
    fs::write(&key, CANARY).expect("file");
    shown(d, &format!("--secret id=key,src={} {line}", key.display()))
}

/// The blobs of layers.
fn layers(cache: &Path) -> Vec<PathBuf> {
    let blobs = files(&cache.join("blobs"));
    blobs.into_iter().filter(|b| fs::read(b).expect("blob").starts_with(b"\x1f\x8b")).collect()
}

/// Replaces a cache's document, and with it its manifest and the index.
fn rewrite(cache: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    rewrite_both(cache, |_, document| change(document));
}

fn rewrite_both(cache: &Path, change: impl FnOnce(&mut serde_json::Value, &mut serde_json::Value)) {
    let blob = |digest: &serde_json::Value| {
        cache
            .join("blobs/sha256")
            .join(digest.as_str().expect("digest").strip_prefix("sha256:").expect("sha256"))
    };
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("file")).expect("JSON")
    };
    let put = |value: &serde_json::Value| {
        let bytes = serde_json::to_vec(value).expect("JSON");
        let digest = serde_json::json!(longshore_oci::Digest::of(&bytes));
        fs::write(blob(&digest), &bytes).expect("blob");
        (digest, serde_json::json!(bytes.len()))
    };
    let mut index = read(&cache.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut document = read(&blob(&manifest["config"]["digest"]));
    change(&mut manifest, &mut document);
    (manifest["config"]["digest"], manifest["config"]["size"]) = put(&document);
    (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = put(&manifest);
    fs::write(cache.join("index.json"), serde_json::to_vec(&index).expect("JSON")).expect("index");
}

#[test]
fn privileged_a_cache_that_is_wrong_is_not_used() {
    let a = fresh();
    let cache = a.dir().join("cache");
    let context = context(&a, SECRET);
    let to = format!("--cache-to type=local,dest={},mode=max {context}", cache.display());
    let from = format!("--cache-from type=local,src={} -t made {context}", cache.display());
    with_secret(&a, &to);
    // No secret is in it, packed or not.
    for file in files(&cache) {
        let bytes = fs::read(&file).expect("file");
        let plain = std::process::Command::new("zcat").arg("-f").arg(&file).output().expect("zcat").stdout;
        for bytes in [bytes, plain] {
            assert!(!bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()), "{}", file.display());
        }
    }
    let attempt = |want: &str, hits: usize| {
        let b = fresh();
        let out = with_secret(&b, &from);
        assert!(out.contains(want), "{want}: {out}");
        let done = out.matches(" DONE ").count() - out.matches("exporting to image").count();
        assert!(hits == 2 || (done >= 3 && out.contains("[3/3] RUN cat")), "{out}");
        assert!(hits == 0 || cached(&out) == hits, "{out}");
        let script = "cat /a && test -s /b && echo whole";
        let ran = b.docker(["run", "--rm", "made", "sh", "-c", script]).ok();
        assert_eq!(ran.lines().last(), Some("whole"));
        b.finish();
    };
    let good = a.dir().join("good");
    let renew = || {
        let _ = fs::remove_dir_all(&cache);
        let copied = std::process::Command::new("cp").arg("-a").arg(&good).arg(&cache).status();
        assert!(copied.expect("cp").success());
    };
    fs::rename(&cache, &good).expect("rename");
    renew();
    attempt("importing cache manifest from", 2);
    let warning = format!("the cache {} is not used", cache.display());
    // A layer of other bytes: what it was for is carried out.
    for layer in layers(&cache) {
        let mut bytes = fs::read(&layer).expect("blob");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(layer, bytes).expect("blob");
    }
    attempt(&format!("{warning} any further: "), 0);
    // One that is gone.
    renew();
    layers(&cache).iter().for_each(|layer| fs::remove_file(layer).expect("blob"));
    attempt(&format!("{warning} any further: "), 0);
    // Lies: layers in each other's place, and what is none at all.
    renew();
    rewrite(&cache, |d| {
        let layers = d["layers"].as_array_mut().expect("layers");
        layers.reverse();
    });
    attempt(&format!("{warning} any further: "), 0);
    renew();
    rewrite(&cache, |d| d["steps"][0]["diff_id"] = serde_json::json!(longshore_oci::Digest::of(b"none")));
    attempt(&format!("{warning}: it has no layer"), 0);
    renew();
    rewrite(&cache, |d| d["version"] = serde_json::json!(9));
    attempt(&format!("{warning}: its document is of version 9"), 0);
    renew();
    rewrite(&cache, |d| d["steps"][0]["keys"] = serde_json::json!(["../../etc/passwd"]));
    attempt(&format!("{warning}: its document is not understood"), 0);
    renew();
    rewrite_both(&cache, |m, _| m["layers"][0]["mediaType"] = serde_json::json!("text/html"));
    attempt(&format!("{warning}: unsupported media type"), 0);
    renew();
    rewrite_both(&cache, |m, _| m["layers"][0]["size"] = serde_json::json!(1u64 << 60));
    attempt(&format!("{warning} any further: "), 0);
    renew();
    fs::write(cache.join("index.json"), "{").expect("index");
    attempt(&format!("{warning}: its index.json is not understood"), 0);
    a.finish();
}

#[test]
fn privileged_what_cannot_be_is_refused() {
    let d = fresh();
    let context = context(&d, "FROM busybox\nRUN true\n");
    for (line, want) in [
        ("--cache-to type=gha", "type=gha is not implemented yet"),
        ("--cache-from type=s3,bucket=b", "type=s3 is not implemented yet"),
        ("--cache-to type=inline,mode=max", "mode=max"),
        (
            "--cache-to type=local,dest=/proc/none,mode=max",
            "failed to export the cache to client directory /proc/none: make",
        ),
    ] {
        let error = build(&d, &format!("{line} {context}"));
        assert_ne!(error.code, 0, "{line}");
        assert!(error.stderr.contains(want), "{line}: {}", error.stderr);
    }
    let ignored =
        shown(&d, &format!("-t i --cache-to type=local,dest=/proc/none,ignore-error=true {context}"));
    assert!(ignored.contains("failed to export the cache"), "{ignored}");
    assert!(id(&d, "i").starts_with("sha256:"));
    d.finish();
}

/// Forgets everything that was built, so that the daemon is as a fresh one.
fn forget(d: &Daemon, images: &[&str]) {
    d.docker(["rmi"].iter().chain(images)).ok();
    d.docker(["builder", "prune", "-af"]).ok();
}

/// A command line that is known at a registry.
fn known_at(d: &Daemon, registry: &Registry) {
    let known = format!(r#"{{"auths": {{"{}": {{"auth": "YW5uOnMzY3JldDp3b3Jk"}}}}}}"#, registry.address());
    fs::write(d.dir().join("config.json"), known).expect("file");
}

#[test]
fn privileged_a_cache_travels_by_a_registry() {
    let d = fresh();
    let registry = Registry::start(&d.netns(), Door::Password);
    let (cache, made) = (registry.name("team/cache:main"), registry.name("team/made:1"));
    let context = context(&d, TWO_STAGES);
    let to = format!("-t {made} --push --cache-to type=registry,ref={cache},mode=max {context}");
    // Whoever is nobody there is told so, and the image is there all the same.
    let refused = build(&d, &format!("-t {made} --cache-to type=registry,ref={cache} {context}"));
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains(&format!("failed to export the cache to registry {cache}: ")),
        "{}",
        refused.stderr
    );
    known_at(&d, &registry);
    let first = shown(&d, &to);
    assert!(first.contains(&format!("exporting cache to registry {cache}\n")), "{first}");
    assert!(first.contains(" pushed\n"), "{first}");
    let (whole, id) = (first.split("wrote cache image manifest ").nth(1).expect("a manifest"), id(&d, &made));
    // Again: nothing is sent, and the bytes are the same.
    let second = shown(&d, &to);
    assert!(second.contains(" is there already\n") && !second.contains(" pushed\n"), "{second}");
    let digest = |text: &str| text.lines().next().expect("a digest").to_owned();
    assert!(second.contains(&format!("wrote cache image manifest {}\n", digest(whole))), "{second}");
    let random = || d.docker(["run", "--rm", &made, "cat", "/random", "/other"]).ok();
    let before = random();
    forget(&d, &[&made]);
    // An anonymous client gets nothing of it, and builds.
    fs::write(d.dir().join("config.json"), "{}").expect("file");
    let alone = shown(&d, &format!("-t alone --cache-from type=registry,ref={cache} {context}"));
    assert!(alone.contains(&format!("the cache {cache} is not used: ")), "{alone}");
    assert_eq!(cached(&alone), 0, "{alone}");
    forget(&d, &["alone"]);
    known_at(&d, &registry);
    for from in [format!("type=registry,ref={cache}"), cache.clone()] {
        let third =
            shown(&d, &format!("-t {made} --cache-from 127.0.0.1:1/none --cache-from {from} {context}"));
        assert!(third.contains("the cache 127.0.0.1:1/none:latest is not used: "), "{third}");
        assert_eq!((cached(&third), self::id(&d, &made)), (5, id.clone()), "{third}");
        assert_eq!(random(), before);
        forget(&d, &[&made]);
    }
    // What is at the registry is neither fetched nor sent to get another name.
    let second = registry.name("team/second:x");
    let gets = || registry.log().matches("GET /v2/team/cache/blobs").count();
    let before_it = gets();
    let named = shown(
        &d,
        &format!("-t {made} --cache-from {cache} --cache-to type=registry,ref={second},mode=max {context}"),
    );
    assert!(named.contains(" is there, in another repository\n") && !named.contains(" pushed\n"), "{named}");
    assert!(named.contains(&format!("wrote cache image manifest {}\n", digest(whole))), "{named}");
    assert!(!ours(&d, "builder du --verbose").ok().contains("/random\n"));
    assert!(gets() > before_it && gets() - before_it < 6, "the document, and the layers of the image");
    forget(&d, &[&made]);
    // The image's own steps alone: those of the other stage are carried out, and what stands on them.
    shown(&d, &format!("--cache-from {cache} --cache-to type=registry,ref={cache},mode=min {context}"));
    d.docker(["builder", "prune", "-af"]).ok();
    let least = shown(&d, &format!("-t least --cache-from {cache} {context}"));
    assert_eq!(cached(&least), 0, "{least}");
    d.finish();
}

/// One stage.
const ONE_STAGE: &str = "FROM busybox\nRUN head -c 12 /dev/urandom | base64 > /random\nCOPY kept /kept\nRUN cat /random > /copy\n";

#[test]
fn privileged_a_cache_travels_within_an_image() {
    let d = fresh();
    let registry = Registry::start(&d.netns(), Door::Plain);
    let image = registry.name("image");
    let context = context(&d, ONE_STAGE);
    let random = || d.docker(["run", "--rm", &image, "cat", "/random", "/copy"]).ok();
    for how in ["--cache-to type=inline", "--build-arg BUILDKIT_INLINE_CACHE=1"] {
        let first = shown(&d, &format!("-t {image} --push {how} {context}"));
        assert!(!first.contains("were not consumed"), "{first}");
        let (before, id) = (random(), id(&d, &image));
        forget(&d, &[&image]);
        let second = shown(&d, &format!("-t {image} {how} --cache-from {image} {context}"));
        assert_eq!((cached(&second), self::id(&d, &image)), (3, id.clone()), "{second}");
        assert_eq!(random(), before);
        // One that is here needs no registry.
        d.docker(["builder", "prune", "-af"]).ok();
        d.docker(["tag", &image, "local"]).ok();
        let third = shown(&d, &format!("-t again {how} --cache-from local {context}"));
        assert_eq!((cached(&third), self::id(&d, "again")), (3, id), "{third}");
        // Docker's own command line, by the classic door: it takes images that are here.
        forget(&d, &["again", "local", &image]);
        d.docker(["pull", "-q", &image]).ok();
        let classic = d.docker(["build", "-t", &image, "--cache-from", &image, &context]).ok();
        assert_eq!(classic.matches("Using cache").count(), 3, "{classic}");
        assert_eq!(random(), before);
        forget(&d, &[&image]);
    }
    // An image without one is of no use, and does no harm.
    let plain = shown(&d, &format!("-t {image} --cache-from busybox {context}"));
    assert!(plain.contains("the cache busybox:latest is not used: "), "{plain}");
    d.finish();
}

#[test]
fn privileged_cache_mounts_go_along() {
    let (a, b) = (fresh(), fresh());
    let cache = a.dir().join("cache");
    let dir = cache.display();
    let run = "RUN --mount=type=cache,id=kept,target=/c";
    let context = context(
        &a,
        &format!(
            "FROM busybox\n{run} mkdir /c/d && echo one > /c/d/.wh.one && ln -s d/.wh.one /c/link && chown -h 7:8 /c/link && mknod /c/dev c 1 3\n\
             RUN --mount=type=cache,id=empty,target=/c true\n"
        ),
    );
    shown(&a, &format!("--cache-to type=local,dest={dir},mounts=true {context}"));
    // The same files, the same bytes.
    let index = fs::read(cache.join("index.json")).expect("index");
    shown(&a, &format!("--cache-to type=local,dest={dir},mounts=true {context}"));
    assert_eq!(fs::read(cache.join("index.json")).expect("index"), index);
    let look = format!(
        "FROM busybox\nARG N\n{run} cat /c/link > /seen; stat -c %u:%g /c/link >> /seen; ls /c >> /seen; rm -rf /c/d\n"
    );
    fs::write(format!("{context}/Dockerfile"), look).expect("file");
    let from = format!("-t seen --cache-from type=local,src={dir} {context}");
    let seen = |d: &Daemon| d.docker(["run", "--rm", "seen", "cat", "/seen"]).ok();
    shown(&b, &from);
    assert_eq!(seen(&b), "one\n7:8\nd\nlink", "no device");
    // One that is there is not touched.
    shown(&b, &format!("--build-arg N=2 {from}"));
    assert_eq!(seen(&b), "7:8\nlink");
    // What is damaged is not used, and the build goes on.
    b.docker(["builder", "prune", "-af"]).ok();
    for layer in layers(&cache) {
        let mut bytes = fs::read(&layer).expect("blob");
        let last = bytes.len() - 5;
        bytes[last] ^= 1;
        fs::write(layer, bytes).expect("blob");
    }
    let damaged = shown(&b, &format!("--build-arg N=3 {from}"));
    assert!(
        damaged.contains(&format!("the cache {dir} is not used any further: cache mount kept: ")),
        "{damaged}"
    );
    assert_eq!(seen(&b), "", "it is empty");
    a.finish();
    b.finish();
}
