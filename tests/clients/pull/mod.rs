//! Pull and push, by both command lines, against a registry in this process that records and lies, and against real ones.

mod honest;
mod kills;
mod lies;
mod real;

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};

use longshore_testkit::registry::{Builder, Image, Layer, Registry, noise};

use crate::harness::{Client, Daemon, in_netns};
use crate::powercut::check::names;

const BOTH: [Client; 2] = [Client::Docker, Client::Longshore];

/// The network that a daemon lives in.
pub(crate) fn netns(d: &Daemon) -> OwnedFd {
    longshore_sys::netns::open(&d.netns()).expect("network namespace")
}

/// A registry on the daemon's loopback.
pub(crate) fn registry(d: &Daemon) -> Registry {
    registry_with(d, |builder| builder)
}

/// The same, described.
fn registry_with(d: &Daemon, describe: impl FnOnce(Builder<'_>) -> Builder<'_>) -> Registry {
    let netns = netns(d);
    describe(Registry::builder().in_netns(netns.as_fd())).start()
}

/// Gives the daemon's network an address that is not loopback's.
fn address(d: &Daemon) -> Ipv4Addr {
    in_netns(&d.netns(), "ip address add 10.11.12.13/32 dev lo").ok();
    Ipv4Addr::new(10, 11, 12, 13)
}

/// A small image of these layers.
fn image(seeds: &[u64]) -> Image {
    seeds.iter().fold(Image::new(), |image, seed| {
        let name = format!("file{seed}");
        let layer = Layer::tar(&[(&name, &noise(*seed, 20_000))]);
        image.layer(match seed % 3 {
            0 => layer.gzip(),
            1 => layer.zstd(),
            _ => layer,
        })
    })
}

/// All that is on disk of images.
fn on_disk(d: &Daemon) -> Vec<String> {
    let mut all = Vec::new();
    for dir in ["overlay2", "overlay2/l", "layers", "content/ingest", "content/blobs/sha256"] {
        all.extend(names(d, dir).into_iter().map(|name| format!("{dir}/{name}")));
    }
    all.sort_unstable();
    all
}
