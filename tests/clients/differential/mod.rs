//! The same requests to Docker's daemon and to ours: status, headers and the form of every answer must be the same.
//!
//! What Docker answered lies in `tests/clients/golden`. With `DOCKER_PEER_HOST=unix:///...` in the environment the
//! comparison is with the daemon there instead (a daemon for tests: it is emptied), and with `RECORD_GOLDEN=1` besides,
//! what it answers is written down.

mod accepted;
pub(crate) mod http;
mod normal;
mod script;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use self::accepted::{ACCEPTED, Accepted};
use self::script::Side;
use crate::harness::Daemon;

/// There is one peer, and every script wants it for itself.
static PEER: Mutex<()> = Mutex::new(());

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// What Docker answers.
fn reference(name: &str, script: &str) -> Vec<Value> {
    let golden = folder().join(format!("golden/{name}.json"));
    let Ok(peer) = std::env::var("DOCKER_PEER_HOST") else {
        let text =
            std::fs::read_to_string(&golden).expect("a recording; see the head of differential/mod.rs");
        return unpack(serde_json::from_str(&text).expect("JSON"));
    };
    let _one = PEER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let socket = peer.strip_prefix("unix://").expect("DOCKER_PEER_HOST begins with unix://");
    let answers = side(Path::new(socket), script).play(script);
    if std::env::var_os("RECORD_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&pack(&answers)).expect("JSON");
        std::fs::write(&golden, text + "\n").expect("write the recording");
    }
    answers
}

fn side(socket: &Path, script: &str) -> Side {
    if script.contains("{registry}") { Side::with_registry(socket) } else { Side::new(socket) }
}

/// Stands for an answer that was given before; with it stands its place.
const AS: &str = "as answer";

/// Recordings name an answer that was given before instead of repeating it.
fn pack(all: &[Value]) -> Vec<Value> {
    let packed = all.iter().enumerate().map(|(i, v)| {
        let before = all[..i].iter().position(|b| b["answer"] == v["answer"]);
        match before.filter(|_| v["answer"].to_string().len() > 300) {
            Some(at) => serde_json::json!({ "request": v["request"], AS: at }),
            None => v.clone(),
        }
    });
    packed.collect()
}

fn unpack(mut all: Vec<Value>) -> Vec<Value> {
    for i in 0..all.len() {
        if let Some(at) = all[i].get(AS).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()) {
            all[i]["answer"] = all[at]["answer"].clone();
        }
    }
    all
}

fn compare(name: &str) {
    let script = std::fs::read_to_string(folder().join(format!("differential/{name}.http"))).expect("script");
    let theirs = reference(name, &script);
    let d = Daemon::start();
    let ours = side(&d.socket(), &script).play(&script);
    let mut found = Vec::new();
    let mut used = vec![false; ACCEPTED.len()];
    assert_eq!(theirs.len(), ours.len(), "the recording is of another script");
    for (a, b) in theirs.iter().zip(&ours) {
        let request = a["request"].as_str().expect("request");
        assert_eq!(a["request"], b["request"], "the recording is of another script");
        let mut differences = Vec::new();
        differ(&a["answer"], &b["answer"], "", &mut differences);
        for (at, what) in differences {
            let plain = at.trim_start_matches('+');
            let meant = |d: &Accepted| d.covers(name, request, &at) || d.covers(name, request, plain);
            match ACCEPTED.iter().position(meant) {
                Some(i) => used[i] = true,
                None => found.push(format!("{request}\n    {at}: {what}")),
            }
        }
    }
    assert!(found.is_empty(), "{} differences from Docker:\n{}", found.len(), found.join("\n"));
    for (d, used) in ACCEPTED.iter().zip(used) {
        assert!(used || d.script != name, "accepted, and no difference any more: {d:?}");
    }
    d.finish();
}

/// Where two documents differ, and how.
fn differ(a: &Value, b: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for (key, left) in x {
                match y.get(key) {
                    Some(right) => differ(left, right, &format!("{at}/{key}"), found),
                    None => {
                        found.push((format!("{at}/{key}"), format!("Docker has {left}, we have nothing")))
                    }
                }
            }
            for (key, right) in y.iter().filter(|(k, _)| !x.contains_key(*k)) {
                found.push((format!("+{at}/{key}"), format!("Docker has nothing, we have {right}")));
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (left, right)) in x.iter().zip(y).enumerate() {
                differ(left, right, &format!("{at}/{i}"), found);
            }
        }
        _ if a == b => {}
        _ => found.push((at.to_owned(), format!("Docker has {a}, we have {b}"))),
    }
}

macro_rules! scripts {
    ($($test:ident $name:literal;)*) => {$(
        #[test]
        fn $test() {
            compare($name);
        }
    )*};
}

scripts! {
    privileged_system_as_docker "system";
    privileged_errors_as_docker "errors";
    privileged_create_as_docker "create";
    privileged_containers_as_docker "containers";
    privileged_execs_as_docker "execs";
    privileged_files_as_docker "files";
    privileged_logs_as_docker "logs";
    privileged_images_as_docker "images";
    privileged_builds_as_docker "builds";
    privileged_volumes_and_networks_as_docker "volumes";
    privileged_made_networks_as_docker "networks";
    privileged_events_as_docker "events";
    privileged_health_as_docker "health";
    privileged_registries_as_docker "registry";
}
