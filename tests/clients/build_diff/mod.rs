//! The same Dockerfile and files built by BuildKit, by Docker's classic builder, by Buildah and by us: the image's
//! configuration and every file in it must be the same as BuildKit's.
//!
//! What the others gave lies in `golden`. With `DOCKER_PEER_HOST=unix:///...` in the environment (a daemon for tests), and
//! with `PEER_BUILDX="docker buildx"` and `PEER_BUILDAH=buildah` the commands that build there, they are asked again;
//! with `RECORD_GOLDEN=1` besides, what they give is written down; with `RECORD_GOLDEN=new` only of cases without a recording. `PEER_SHARE` is a folder that all of them see.
//! `BUILD_DIFF=text` takes only the cases with that text in their names.

mod accepted;
mod answer;
mod cases;
mod context;
mod peers;
mod real;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use self::accepted::ACCEPTED;
use self::answer::{Answer, Base};
use self::cases::Case;
use self::peers::{Kind, Peer};
use crate::differential::http::{Request, send};
use crate::harness::{Daemon, fixture};

/// Builds of ours that run at the same time.
const PARALLEL: usize = 4;

/// What is recorded of a case: BuildKit's answer, and in what the others differ from it.
type Recording = BTreeMap<String, Answer>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/build_diff")
}

fn wanted(case: &Case) -> bool {
    std::env::var("BUILD_DIFF").map_or(true, |text| case.name.contains(&text))
}

/// Topics and their cases.
fn topics() -> BTreeMap<String, Vec<Case>> {
    let files = std::fs::read_dir(folder().join("cases")).expect("cases");
    let one = |file: std::fs::DirEntry| {
        let name = file.path().file_stem().expect("a name").to_string_lossy().into_owned();
        (name, cases::parse(&std::fs::read_to_string(file.path()).expect("cases")))
    };
    files.flatten().map(one).collect()
}

/// What the others give.
fn reference(
    topic: &str,
    cases: &[Case],
    base: &Base,
    peers: &[(Kind, Option<Peer>)],
) -> BTreeMap<String, Recording> {
    let golden = folder().join(format!("golden/{topic}.json"));
    let text = std::fs::read_to_string(&golden).unwrap_or_else(|_| "{}".into());
    let mut all: BTreeMap<String, Recording> = serde_json::from_str(&text).expect("a recording");
    all.retain(|name, _| cases.iter().any(|case| case.name == *name));
    let new = std::env::var("RECORD_GOLDEN").is_ok_and(|what| what == "new");
    let asked = |case: &&Case| wanted(case) && !(new && all.contains_key(&case.name));
    let cases: Vec<&Case> = cases.iter().filter(asked).collect();
    let answers: Vec<(Kind, Vec<(Answer, String)>)> = std::thread::scope(|scope| {
        let ask = |peer: &'_ Peer| cases.iter().map(|case| peer.build(case, base)).collect();
        let known = peers.iter().filter_map(|(kind, peer)| Some((*kind, peer.as_ref()?)));
        let asked: Vec<_> = known.map(|(kind, peer)| (kind, scope.spawn(move || ask(peer)))).collect();
        asked.into_iter().map(|(kind, thread)| (kind, thread.join().expect("answers"))).collect()
    });
    for (n, case) in cases.iter().enumerate() {
        let recording = all.entry(case.name.clone()).or_default();
        for (kind, answers) in &answers {
            take(case, *kind, &answers[n], recording);
        }
    }
    if std::env::var_os("RECORD_GOLDEN").is_some() {
        std::fs::write(&golden, render(&all)).expect("write the recording");
    }
    all
}

/// Writes down an answer.
fn take(case: &Case, kind: Kind, (answer, said): &(Answer, String), recording: &mut Recording) {
    let fails = answer.contains_key("fails");
    if kind == case.like && fails != case.fails {
        let does = if fails { "fails" } else { "does not fail" };
        eprintln!("{}: {} {does}, other than the case says:\n{said}", case.name, kind.name());
    } else if fails && !case.fails {
        let last: Vec<&str> = said.lines().rev().filter(|line| line.contains("rror")).take(2).collect();
        eprintln!("{}: {} fails: {last:?}", case.name, kind.name());
    }
    if kind != Kind::BuildKit {
        return note(recording, kind, answer);
    }
    // In what the others differ was told of the recording before.
    let others = [Kind::Classic, Kind::Buildah].map(|kind| (kind, whole(recording, kind)));
    recording.insert(kind.name().into(), answer.clone());
    for (kind, answer) in others.into_iter().filter_map(|(kind, answer)| Some((kind, answer?))) {
        note(recording, kind, &answer);
    }
}

/// Writes down in what an answer differs from BuildKit's; `null` for what only BuildKit has.
fn note(recording: &mut Recording, kind: Kind, answer: &Answer) {
    let reference = recording.get(Kind::BuildKit.name()).cloned().unwrap_or_default();
    let mut found = Answer::new();
    if answer.contains_key("fails") {
        found = answer.clone();
    } else {
        found.extend(
            answer.iter().filter(|(k, v)| reference.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())),
        );
        found.extend(reference.keys().filter(|k| !answer.contains_key(*k)).map(|k| (k.clone(), Value::Null)));
    }
    recording.insert(kind.name().into(), found);
}

/// The whole answer of one that is recorded by its differences.
fn whole(recording: &Recording, kind: Kind) -> Option<Answer> {
    let differences = recording.get(kind.name())?;
    if kind == Kind::BuildKit {
        return Some(differences.clone());
    }
    if differences.get("fails") == Some(&Value::Bool(true)) {
        return Some(differences.clone());
    }
    let mut answer = recording.get(Kind::BuildKit.name())?.clone();
    answer.extend(differences.clone());
    answer.retain(|_, value| !value.is_null());
    Some(answer)
}

/// A line for each key.
fn render(all: &BTreeMap<String, Recording>) -> String {
    let mut out = String::from("{");
    let mut first = true;
    for (name, recording) in all {
        out += &format!("{}\n\"{name}\": {{", if first { "" } else { "," });
        first = false;
        let engines: Vec<String> = recording
            .iter()
            .map(|(engine, answer)| {
                let lines: Vec<String> =
                    answer.iter().map(|(k, v)| format!("\n  {}: {v}", Value::from(k.as_str()))).collect();
                format!("\n \"{engine}\": {{{}}}", lines.join(","))
            })
            .collect();
        out += &engines.join(",");
        out += "}";
    }
    out + "\n}\n"
}

/// What we give, and what was said.
fn ours(socket: &Path, case: &Case, base: &Base) -> (Answer, String) {
    let json = |pairs: &BTreeMap<String, String>| encode(&serde_json::to_string(pairs).expect("JSON"));
    let target = format!(
        "/build?q=1&t=diff:{}&target={}&dockerfile={}&buildargs={}&labels={}",
        case.name.to_lowercase(),
        encode(&case.target),
        encode(&case.file),
        json(&case.args),
        json(&case.labels)
    );
    let body = context::tar(&case.context);
    let request = |method: &str, target: String, body| Request {
        method: method.into(),
        target,
        content_type: "application/x-tar".into(),
        body,
        upgrade: false,
    };
    let answer = send(socket, &request("POST", target, body));
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status != 200 || said.contains("\"errorDetail\"") {
        return (answer::failed(), said);
    }
    let archive =
        send(socket, &request("GET", format!("/images/diff:{}/get", case.name.to_lowercase()), Vec::new()));
    assert_eq!(archive.status, 200, "{}: {}", case.name, String::from_utf8_lossy(&archive.body));
    (answer::of_archive(&archive.body, base), said)
}

fn encode(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// All cases, several at a time, in their order.
fn build_all(socket: &Path, cases: &[&Case], base: &Base) -> Vec<(Answer, String)> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.load(Ordering::Relaxed)) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(n).or(Some(case)) else { return };
                    let answer = ours(socket, case, base);
                    done.lock().expect("no panic").insert(n, answer);
                }
            });
        }
    });
    done.into_inner().expect("no panic").into_values().collect()
}

/// Keys in which two answers differ, and how.
fn differ(theirs: &Answer, ours: &Answer) -> Vec<(String, String)> {
    if theirs.contains_key("fails") != ours.contains_key("fails") {
        let fails = if ours.contains_key("fails") { "ours fails" } else { "theirs fails" };
        return vec![("fails".into(), fails.into())];
    }
    let mut keys: Vec<&String> =
        theirs.keys().chain(ours.keys().filter(|k| !theirs.contains_key(*k))).collect();
    keys.sort();
    let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    let same = |theirs: Option<&Value>, ours: Option<&Value>| {
        // Where a directory of theirs has the time of the build, ours may have any.
        let (a, b) = (theirs.and_then(Value::as_str), ours.and_then(Value::as_str));
        theirs == ours
            || a.is_some_and(|a| a.starts_with("d ") && b.is_some_and(|b| b.strip_suffix(" t") == Some(a)))
    };
    let unlike = keys.into_iter().filter(|k| !same(theirs.get(*k), ours.get(*k)));
    unlike
        .map(|k| (k.clone(), format!("{}\n      ours: {}", show(theirs.get(k)), show(ours.get(k)))))
        .collect()
}

#[test]
fn privileged_builds_as_docker() {
    let archive = fixture("busybox");
    let base = Base::read(&std::fs::read(&archive).expect("the fixture"));
    let peers = Kind::ALL.map(|kind| (kind, Peer::from_env(kind)));
    peers.iter().filter_map(|(_, peer)| peer.as_ref()).for_each(|peer| peer.load(&archive));
    let d = Daemon::start();
    d.load("busybox");
    let (mut found, mut used, mut count) = (Vec::new(), vec![false; ACCEPTED.len()], 0);
    for (topic, cases) in topics() {
        let theirs = reference(&topic, &cases, &base, &peers);
        let cases: Vec<&Case> = cases.iter().filter(|case| wanted(case)).collect();
        count += cases.len();
        for (case, (ours, said)) in cases.iter().zip(build_all(&d.socket(), &cases, &base)) {
            let recording = theirs.get(&case.name).and_then(|recording| whole(recording, case.like));
            let recording = recording.unwrap_or_else(|| panic!("{topic}: no recording of {}", case.name));
            let mut lines = Vec::new();
            for (key, what) in differ(&recording, &ours) {
                match ACCEPTED.iter().position(|a| a.covers(&case.name, &key)) {
                    Some(i) => used[i] = true,
                    None => lines.push(format!("    {key}: {what}")),
                }
            }
            if !lines.is_empty() {
                let like: Vec<&str> = [Kind::Classic, Kind::Buildah]
                    .into_iter()
                    .filter(|k| whole(&theirs[&case.name], *k).as_ref() == Some(&ours))
                    .map(Kind::name)
                    .collect();
                let said = if ours.contains_key("fails") { said.trim() } else { "" };
                found.push(format!("{topic}: {} {like:?} {said}\n{}", case.name, lines.join("\n")));
            }
        }
    }
    assert!(
        found.is_empty(),
        "{} of {count} cases differ from BuildKit's:\n{}",
        found.len(),
        found.join("\n")
    );
    for (a, used) in ACCEPTED.iter().zip(used) {
        assert!(
            used || std::env::var_os("BUILD_DIFF").is_some(),
            "accepted, and no difference any more: {a:?}"
        );
    }
    d.finish();
}
