//! A daemon at work: images are pulled, loaded, imported, committed, named and removed; containers and volumes come and go.

use std::collections::VecDeque;
use std::path::Path;

use longshore_oci::Digest;
use longshore_testkit::registry::{Image, Layer, Registry, noise};
use serde_json::{Value, json};

use super::world::{Kind, World};
use crate::differential::http::{Answer, Request, send};

/// A request with a JSON body, or with a tar.
pub(super) fn call(socket: &Path, method: &str, target: &str, content_type: &str, body: &[u8]) -> Answer {
    let (method, target) = (method.to_owned(), target.to_owned());
    let content_type = content_type.to_owned();
    send(socket, &Request { method, target, content_type, body: body.to_vec(), upgrade: false })
}

pub(super) fn get(socket: &Path, target: &str) -> Value {
    let answer = call(socket, "GET", target, "", b"");
    assert_eq!(answer.status, 200, "GET {target}: {}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).expect("JSON")
}

const TAR: &str = "application/x-tar";
const JSON: &str = "application/json";

/// Numbers that look random, the same for the same seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// One below `n`.
    pub(super) fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % n
    }
}

/// A layer of one to six files, a few kilobytes or a megabyte.
fn layer(dice: &mut Dice) -> Layer {
    let files: Vec<(String, Vec<u8>)> = (0..=dice.roll(6))
        .map(|i| {
            let size = [0, 100, 5_000, 70_000, 1_000_000][usize::try_from(dice.roll(5)).expect("small")];
            (format!("f{i}-{}", dice.roll(1 << 30)), noise(dice.roll(1 << 40), size))
        })
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    let layer = Layer::tar(&files);
    match dice.roll(3) {
        0 => layer.gzip(),
        1 => layer.zstd(),
        _ => layer,
    }
}

/// One that works, one request after the other.
pub(super) struct Worker<'a> {
    socket: &'a Path,
    registry: &'a Registry,
    world: &'a World,
    dice: Dice,
    name: String,
    next: u64,
    /// What stands, the oldest first.
    images: VecDeque<String>,
    others: VecDeque<(Kind, String)>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        socket: &'a Path,
        registry: &'a Registry,
        world: &'a World,
        number: u64,
        seed: u64,
    ) -> Self {
        Self {
            socket,
            registry,
            world,
            dice: Dice::new(seed.wrapping_add(number * 7919)),
            name: format!("w{number}"),
            next: 0,
            images: VecDeque::new(),
            others: VecDeque::new(),
        }
    }

    /// Works until the world stops.
    pub(super) fn work(mut self) {
        while !self.world.stopped() {
            match self.dice.roll(12) {
                0..3 => self.load(),
                3 => self.import(),
                4 | 5 => self.commit(),
                6 => self.tag(),
                7 => self.container(),
                8 => self.volume(),
                _ => self.pull(),
            }
            while self.images.len() > 5 {
                self.remove_image();
            }
            while self.others.len() > 4 {
                self.remove_other();
            }
        }
    }

    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.name, self.next)
    }

    /// A request that must succeed.
    fn done(&self, method: &str, target: &str, content_type: &str, body: &[u8]) -> Value {
        let answer = call(self.socket, method, target, content_type, body);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!((200..300).contains(&answer.status), "{method} {target}: {} {text}", answer.status);
        assert!(!text.contains("\"errorDetail\""), "{method} {target}: {text}");
        // A stream of values, or one.
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_default()
    }

    fn image(&mut self) -> Image {
        (0..=self.dice.roll(3)).fold(Image::new(), |image, _| image.layer(layer(&mut self.dice)))
    }

    fn pull(&mut self) {
        let repo = self.fresh();
        let pushed = self.image().put(self.registry, &repo, "1");
        let name = self.registry.reference(&repo, "1");
        self.world.asks(Kind::Image, &name);
        let from = self.registry.reference(&repo, "");
        let target = format!("/images/create?fromImage={}&tag=1", from.trim_end_matches(':'));
        self.done("POST", &target, "", b"");
        self.world.has(Kind::Image, &name, Some(&pushed.config.to_string()));
        self.images.push_back(name);
    }

    fn load(&mut self) {
        let name = format!("{}:1", self.fresh());
        let image = self.image();
        let archive = image.archive(&[&name]);
        self.world.asks(Kind::Image, &name);
        self.done("POST", "/images/load?quiet=1", TAR, &archive);
        let id = Digest::of(&image.config_bytes()).to_string();
        self.world.has(Kind::Image, &name, Some(&id));
        self.images.push_back(name);
    }

    fn import(&mut self) {
        let name = self.fresh();
        let mut tree = layer(&mut self.dice);
        tree.blob = tree.blob.to_vec().into();
        let full = format!("{name}:imported");
        self.world.asks(Kind::Image, &full);
        let target = format!("/images/create?fromSrc=-&repo={name}&tag=imported");
        let said = self.done("POST", &target, TAR, &tree.blob.to_vec());
        let id = said["status"].as_str().expect("an id").to_owned();
        self.world.has(Kind::Image, &full, Some(&id));
        self.images.push_back(full);
    }

    /// A container, a change to it, and an image of it.
    fn commit(&mut self) {
        let container = self.fresh();
        self.create(&container);
        let change = Layer::tar(&[("made", &noise(self.dice.roll(1 << 40), 30_000))]).blob.to_vec();
        self.done("PUT", &format!("/containers/{container}/archive?path=/"), TAR, &change);
        let name = format!("{container}:committed");
        self.world.asks(Kind::Image, &name);
        let target = format!("/commit?container={container}&repo={container}&tag=committed");
        let made = self.done("POST", &target, JSON, b"{}");
        self.world.has(Kind::Image, &name, made["Id"].as_str());
        self.images.push_back(name);
    }

    fn tag(&mut self) {
        let Some(old) = self.images.back().cloned() else { return };
        let name = self.fresh();
        let full = format!("{name}:tagged");
        let id = get(self.socket, &format!("/images/{old}/json"))["Id"].as_str().expect("id").to_owned();
        self.world.asks(Kind::Image, &full);
        self.done("POST", &format!("/images/{old}/tag?repo={name}&tag=tagged"), "", b"");
        self.world.has(Kind::Image, &full, Some(&id));
        self.images.push_back(full);
    }

    fn create(&mut self, name: &str) {
        self.world.asks(Kind::Container, name);
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
        let made =
            self.done("POST", &format!("/containers/create?name={name}"), JSON, body.to_string().as_bytes());
        self.world.has(Kind::Container, name, made["Id"].as_str());
        self.others.push_back((Kind::Container, name.to_owned()));
    }

    fn container(&mut self) {
        let name = self.fresh();
        self.create(&name);
    }

    fn volume(&mut self) {
        let name = self.fresh();
        self.world.asks(Kind::Volume, &name);
        self.done("POST", "/volumes/create", JSON, json!({"Name": name}).to_string().as_bytes());
        self.world.has(Kind::Volume, &name, None);
        self.others.push_back((Kind::Volume, name));
    }

    fn remove_image(&mut self) {
        let Some(name) = self.images.pop_front() else { return };
        self.world.removes(Kind::Image, &name);
        self.done("DELETE", &format!("/images/{name}"), "", b"");
        self.world.lacks(Kind::Image, &name);
    }

    fn remove_other(&mut self) {
        let Some((kind, name)) = self.others.pop_front() else { return };
        let target = match kind {
            Kind::Container => format!("/containers/{name}?v=1"),
            _ => format!("/volumes/{name}"),
        };
        self.world.removes(kind, &name);
        self.done("DELETE", &target, "", b"");
        self.world.lacks(kind, &name);
    }
}
