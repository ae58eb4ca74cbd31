//! What it costs that an image survives a power cut: layers unpacked with and without waiting for the disk.
//!
//! `durable ARCHIVE DIR [RUNS]` compresses the layers of an archive (docker save's, plain layers), and receives them as
//! from a registry into stores below DIR, RUNS times in pairs. Prints the medians in milliseconds: durable, left in memory,
//! and left in memory until the system was told to write it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use longshore_oci::Digest;
use longshore_oci::image::{Descriptor, media};
use longshore_store::archive::{Reception, Remote, Source};
use longshore_store::layer::ParallelGzip;
use longshore_store::{Store, StoreOptions};

fn main() {
    // `cargo bench` adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [archive, dir, rest @ ..] = args.as_slice() else {
        eprintln!("usage: durable ARCHIVE DIR [RUNS]");
        std::process::exit(2);
    };
    let runs: usize = rest.first().map_or(5, |n| n.parse().unwrap());
    let (remote, blobs) = image(archive);
    let mut times: [Vec<f64>; 3] = Default::default();
    // The first pair warms up.
    for run in 0..=runs {
        for sync in [true, false] {
            // Nothing is removed before the end: for minutes ext4 looks at each deleted file again for every new one.
            let taken = once(&Path::new(dir).join(format!("{run}-{sync}")), sync, &remote, &blobs);
            if run > 0 && sync {
                times[0].push(taken[0]);
            } else if run > 0 {
                times[1].push(taken[0]);
                times[2].push(taken[1]);
            }
        }
    }
    for run in 0..=runs {
        for sync in [true, false] {
            std::fs::remove_dir_all(Path::new(dir).join(format!("{run}-{sync}"))).unwrap();
        }
    }
    let [durable, lazy, written] = times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        t[t.len() / 2]
    });
    println!("{durable:.0} {lazy:.0} {written:.0}");
}

fn once(dir: &Path, sync: bool, remote: &Remote, blobs: &[(Descriptor, Vec<u8>)]) -> [f64; 2] {
    std::fs::create_dir_all(dir).unwrap();
    let store = Store::open(dir, &StoreOptions { driver: None, sync }).unwrap();
    // What earlier runs wrote is not to be waited for here.
    rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
    let start = Instant::now();
    let sources = blobs
        .iter()
        .map(|(d, bytes)| (d.clone(), Source::Stream(Box::new(std::io::Cursor::new(bytes.clone())))))
        .collect();
    let reception = Reception::new(&store, "bench").unwrap();
    reception.finish(remote, sources, &|_| {}).unwrap();
    let received = start.elapsed();
    rustix::fs::syncfs(File::open(dir).unwrap()).unwrap();
    [received, start.elapsed()].map(|time| time.as_secs_f64() * 1000.0)
}

/// The first image of an archive, as a registry would have it.
fn image(archive: &str) -> (Remote, Vec<(Descriptor, Vec<u8>)>) {
    let mut members: HashMap<String, Vec<u8>> = HashMap::new();
    let mut tar = tar::Archive::new(File::open(archive).unwrap());
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.insert(entry.path().unwrap().to_string_lossy().into_owned(), bytes);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let config = members[manifest[0]["Config"].as_str().unwrap()].clone();
    let blobs: Vec<(Descriptor, Vec<u8>)> = manifest[0]["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| {
            let mut bytes = Vec::new();
            let mut gzip = ParallelGzip::new(&mut bytes, 5).unwrap();
            gzip.write_all(&members[name.as_str().unwrap()]).unwrap();
            gzip.finish().unwrap();
            let descriptor = Descriptor {
                media_type: media::OCI_LAYER_GZIP.into(),
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
                urls: Vec::new(),
                annotations: Default::default(),
                platform: None,
                artifact_type: None,
            };
            (descriptor, bytes)
        })
        .collect();
    let layers = blobs.iter().map(|(d, _)| d.clone()).collect();
    // Nobody reads this one.
    let manifest = b"{}".to_vec();
    let names = vec!["bench:latest".parse().unwrap()];
    let source = "bench/bench".to_owned();
    (Remote { config, manifest, media_type: media::OCI_MANIFEST.into(), layers, names, source }, blobs)
}
