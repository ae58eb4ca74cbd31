//! The daemon is killed at many moments of bringing an image in: the image is there and whole, or not at all, nothing
//! of it is left behind, and the next attempt succeeds. `LONGSHORE_LONG=1` kills a hundred times, else a few.

use std::process::Stdio;
use std::time::Instant;

use longshore_testkit::registry::{Image, Layer, noise};

use crate::harness::{Client, Daemon};
use crate::powercut::check::{names, whole};

/// Layers of many small files and a larger one, some compressed.
pub(crate) fn image_of(layers: u64, seed: u64) -> Image {
    (0..layers).fold(Image::new(), |image, n| {
        let seed = seed + n * 1000;
        let mut files: Vec<(String, Vec<u8>)> =
            (0..100).map(|i| (format!("l{n}/f{i}"), noise(seed + i, 3000))).collect();
        files.push((format!("l{n}/big"), noise(seed + 999, 1 << 20)));
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
        let layer = Layer::tar(&files);
        image.layer(match n % 3 {
            0 => layer.gzip(),
            1 => layer.zstd(),
            _ => layer,
        })
    })
}

fn kills() -> u32 {
    if std::env::var_os("LONGSHORE_LONG").is_some() { 100 } else { 10 }
}

/// With no image, nothing of one is on disk.
#[track_caller]
pub(crate) fn assert_nothing_is_left(d: &Daemon, what: &str) {
    assert_eq!(d.docker(["images", "-aq"]).ok(), "", "{what}");
    for dir in ["overlay2", "overlay2/l", "layers", "content/ingest", "content/blobs/sha256"] {
        assert_eq!(names(d, dir), Vec::<String>::new(), "{what}: {dir}");
    }
}

/// Runs `args`, which brings an image with the id `id` in, and kills the daemon at moments that spread over all of it.
pub(crate) fn kill_at_all_moments(d: &mut Daemon, args: &[&str], id: &str) {
    let begun = Instant::now();
    d.docker(args).ok();
    let span = begun.elapsed();
    d.docker(["rmi", id]).ok();
    assert_nothing_is_left(d, "removed");
    let (kills, mut died) = (kills(), 0);
    for i in 0..kills {
        let mut client = d.command(Client::Docker);
        client.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = client.spawn().expect("docker");
        std::thread::sleep(span * i / kills);
        d.kill9();
        let acknowledged = client.wait().expect("docker").success();
        died += u32::from(!acknowledged);
        d.launch();
        let what = format!("kill {i} of {kills}, {:?} of {span:?}", span * i / kills);
        let checked = d.run(Client::Longshore, ["system", "check"]);
        assert_eq!(checked.code, 0, "{what}: {}{}", checked.stdout, checked.stderr);
        let there = d.docker(["images", "-aq", "--no-trunc"]).ok();
        assert!(there.is_empty() && !acknowledged || there == id, "{what}: {there:?}");
        if there.is_empty() {
            assert_nothing_is_left(d, &what);
        } else {
            whole(d, id).unwrap_or_else(|e| panic!("{what}: {e}"));
            d.docker(["rmi", id]).ok();
            assert_nothing_is_left(d, &what);
        }
    }
    assert!(died > kills / 3, "it died only {died} times in the middle of it");
    d.docker(args).ok();
    whole(d, id).expect("whole");
}

#[test]
fn privileged_atk_55_loads_killed_at_any_moment() {
    let mut d = Daemon::start();
    let image = image_of(6, 1);
    let file = d.dir().join("image.tar");
    std::fs::write(&file, image.archive(&["killed:1"])).expect("archive");
    let id = longshore_oci::Digest::of(&image.config_bytes()).to_string();
    kill_at_all_moments(&mut d, &["load", "-q", "-i", file.to_str().expect("utf-8")], &id);
    d.finish();
}

/// A new volume that was being filled from its image when the daemon died is filled at the next start.
#[test]
fn privileged_atk_55_a_volume_that_is_half_filled_is_filled() {
    let mut d = Daemon::start();
    d.load("busybox");
    let make = "mkdir /vol; for i in $(seq 2000); do echo $i > /vol/$i; done";
    d.docker(["run", "--network", "none", "--name", "maker", "busybox", "sh", "-c", make]).ok();
    d.docker(["commit", "maker", "full"]).ok();
    d.docker(["rm", "maker"]).ok();
    let run = |volume: &str| {
        let volume = format!("{volume}:/vol");
        let args = [
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            &volume,
            "full",
            "sh",
            "-c",
            "cat /vol/* | sort -n | md5sum",
        ];
        args.map(str::to_owned)
    };
    let begun = Instant::now();
    let whole = d.docker(run("whole")).ok();
    let span = begun.elapsed();
    let kills = kills() / 2;
    for i in 0..kills {
        let volume = format!("volume{i}");
        let mut client = d.command(Client::Docker);
        client.args(run(&volume)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = client.spawn().expect("docker");
        std::thread::sleep(span * i / kills);
        d.kill9();
        client.wait().expect("docker");
        d.launch();
        assert_eq!(d.docker(run(&volume)).ok(), whole, "kill {i} of {kills}, {span:?}");
        let beside = std::fs::read_dir(d.data_root().join("volumes").join(&volume)).expect("volume").count();
        assert_eq!(beside, 1, "kill {i}");
    }
    d.finish();
}

/// A build leaves nothing of its work, whenever the daemon dies, and the next one goes on from what was done.
#[test]
fn privileged_atk_55_builds_killed_at_any_moment() {
    let mut d = Daemon::start();
    d.load("busybox");
    let dir = d.dir().join("context");
    std::fs::create_dir_all(dir.join("files")).expect("folder");
    for n in 0..300 {
        std::fs::write(dir.join(format!("files/{n}")), noise(n, 3000)).expect("file");
    }
    let dockerfile = "FROM busybox AS one\nCOPY files /a\nRUN cp -r /a /b\nFROM busybox\nCOPY --from=one /b /b\n\
                      COPY --link files /c\nRUN --mount=type=cache,target=/k echo x >> /k/x; cat /b/* /c/* | md5sum > /sum\n";
    std::fs::write(dir.join("Dockerfile"), dockerfile).expect("file");
    let dir = dir.to_str().expect("utf-8").to_owned();
    let args = ["build", "-q", "-t", "killed", &dir];
    let begun = Instant::now();
    d.run(Client::Longshore, args).ok();
    let span = begun.elapsed();
    let sum = d.docker(["run", "--rm", "--network", "none", "killed", "cat", "/sum"]).ok();
    let (kills, mut died) = (kills(), 0);
    for i in 0..kills {
        d.docker(["rmi", "killed"]).ok();
        d.run(Client::Longshore, ["builder", "prune", "-af"]).ok();
        let mut client = d.command(Client::Longshore);
        client.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut client = client.spawn().expect("longshore");
        std::thread::sleep(span * i / kills);
        d.kill9();
        died += u32::from(!client.wait().expect("longshore").success());
        d.launch();
        let what = format!("kill {i} of {kills}, {:?} of {span:?}", span * i / kills);
        crate::build::nothing_at_work(&d);
        d.run(Client::Longshore, args).ok();
        assert_eq!(
            d.docker(["run", "--rm", "--network", "none", "killed", "cat", "/sum"]).ok(),
            sum,
            "{what}"
        );
    }
    assert!(died > kills / 3, "it died only {died} times in the middle of it");
    d.finish();
}
