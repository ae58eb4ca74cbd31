//! Answers without what differs from run to run: ids, times, sizes, addresses become names of themselves, so that
//! their form is still compared.

use longshore_api::PathStat;
use serde_json::{Map, Value, json};

use super::http::Answer;

/// The headers that clients look at.
const HEADERS: &[&str] = &[
    "Api-Version",
    "Builder-Version",
    "Cache-Control",
    "Connection",
    "Content-Type",
    "Docker-Experimental",
    "Ostype",
    "Pragma",
    "Server",
    "Swarm",
    "Upgrade",
    "X-Content-Type-Options",
];

/// What an answer looks like, apart from the run it comes from. `root` is the daemon's data root.
pub(crate) fn answer(answer: &Answer, root: &str) -> Value {
    let mut headers = Map::new();
    for name in HEADERS {
        let Some(value) = answer.header(name) else { continue };
        let value = match *name {
            "Server" => server(value),
            // What every request here asks for.
            "Connection" if value == "close" => continue,
            _ => value.to_owned(),
        };
        headers.insert((*name).to_owned(), value.into());
    }
    if let Some(stat) = answer.header(PathStat::HEADER) {
        let stat = PathStat::from_header(stat).expect("path stat");
        let mut stat = serde_json::to_value(stat).expect("JSON");
        // A directory's is up to the file system. Go's mode has its kind in the highest bit.
        if stat["mode"].as_u64().is_some_and(|mode| mode >> 31 == 1) {
            stat["size"] = "<of the file system>".into();
        }
        headers.insert(PathStat::HEADER.to_owned(), value("", stat, root));
    }
    json!({ "status": answer.status, "headers": headers, "body": body(answer, root) })
}

/// `Docker/28.5.2 (linux)`: a name, a version, the system.
fn server(text: &str) -> String {
    match text.split_once('/').and_then(|(name, rest)| Some((name, rest.split_once(' ')?))) {
        Some((name, (version, system))) if !name.is_empty() && !version.is_empty() => {
            format!("<name>/<version> {system}")
        }
        _ => text.to_owned(),
    }
}

fn body(answer: &Answer, root: &str) -> Value {
    let kind = answer.header("content-type").unwrap_or_default();
    let bytes = &answer.body;
    match kind {
        _ if bytes.is_empty() => Value::Null,
        "application/json" => json_body(bytes, root),
        _ if bytes.get(257..262) == Some(b"ustar") => tar_body(bytes),
        "application/vnd.docker.multiplexed-stream" => frames(bytes),
        // Frames come under this name, too.
        "application/vnd.docker.raw-stream" if bytes.len() > 8 && bytes[0] < 4 && bytes[1..4] == [0; 3] => {
            frames(bytes)
        }
        _ => value("", String::from_utf8_lossy(bytes).into_owned().into(), root),
    }
}

/// One document, or several lines of them.
fn json_body(bytes: &[u8], root: &str) -> Value {
    let documents: Result<Vec<Value>, _> =
        serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().collect();
    match documents {
        Ok(mut all) if all.len() == 1 => value("", all.remove(0), root),
        Ok(all) => {
            let kept = all.into_iter().filter(|v| !UNDER_WAY.iter().any(|s| v["status"] == *s));
            let mut lines: Vec<Value> = kept.map(|v| value("", v, root)).collect();
            settle_order(&mut lines);
            json!({ "lines": lines })
        }
        Err(e) => json!(format!("no JSON: {e}: {}", String::from_utf8_lossy(bytes))),
    }
}

/// Frames of one stream after another, joined.
fn frames(mut bytes: &[u8]) -> Value {
    let mut all: Vec<(u8, Vec<u8>)> = Vec::new();
    while bytes.len() >= 8 {
        let size = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        let (stream, data) = (bytes[0], &bytes[8..8 + size]);
        match all.last_mut().filter(|(s, _)| *s == stream) {
            Some((_, joined)) => joined.extend_from_slice(data),
            None => all.push((stream, data.to_vec())),
        }
        bytes = &bytes[8 + size..];
    }
    // The order between the two streams is a matter of chance.
    all.sort_by_key(|(s, _)| *s);
    let shown = all.into_iter().map(|(s, d)| json!([s, string(&String::from_utf8_lossy(&d))]));
    json!({ "frames": shown.collect::<Vec<_>>() })
}

/// Names and kinds of an archive's members.
fn tar_body(bytes: &[u8]) -> Value {
    let mut members = Vec::new();
    for entry in tar::Archive::new(bytes).entries().expect("tar") {
        let entry = entry.expect("tar entry");
        let header = entry.header();
        let name = string(&entry.path().expect("name").to_string_lossy());
        let kind = char::from(header.entry_type().as_byte());
        members.push(format!("{kind} {:o} {name}", header.mode().expect("mode") & 0o7777));
    }
    members.sort();
    members.dedup();
    json!({ "tar": members })
}

/// Lines of progress that may come any number of times, or never.
const UNDER_WAY: &[&str] =
    &["Downloading", "Verifying Checksum", "Extracting", "Pushing", "Compressing", "Waiting"];

const UNIX_TIMES: &[&str] = &["time", "timeNano", "Created"];
const COUNTS: &[&str] =
    &["Pid", "Size", "SizeRw", "SizeRootFs", "SpaceReclaimed", "LayersSize", "SharedSize", "VirtualSize"];

/// What the machine, not the daemon, decides.
const OF_THE_MACHINE: &[&str] = &[
    "CgroupDriver",
    "CgroupVersion",
    "CgroupnsMode",
    "CPUSet",
    "CPUShares",
    "CpuCfsPeriod",
    "CpuCfsQuota",
    "DriverStatus",
    "IPv4Forwarding",
    "KernelVersion",
    "MemTotal",
    "MemoryLimit",
    "NCPU",
    "NFd",
    "OSVersion",
    "OomKillDisable",
    "OperatingSystem",
    "SecurityOptions",
    "SwapLimit",
];

/// Lists whose order means nothing are sorted: those of texts under these keys, and those of objects with one of them.
const UNORDERED: &[&str] =
    &["RepoTags", "VolumesDeleted", "ContainersDeleted", "Destination", "Mountpoint", "IPAM", "Kind"];

fn value(key: &str, v: Value, root: &str) -> Value {
    match v {
        _ if OF_THE_MACHINE.contains(&key) => kind_of(&v).into(),
        Value::Object(map) => {
            let of_info = map.contains_key("DockerRootDir");
            let of_blob = map.contains_key("mediaType");
            let map = map.into_iter().map(|(k, v)| {
                let inner = match k.as_str() {
                    // Manifests may be written in more than one way.
                    "size" if of_blob => "<n>".into(),
                    "Name" | "Warnings" if of_info => "<of the machine>".into(),
                    _ => value(&k, v, root),
                };
                (string(&k), inner)
            });
            Value::Object(map.collect())
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(|v| value(key, v, root)).collect();
            let free = UNORDERED.contains(&key)
                || list.first().is_some_and(|f| UNORDERED.iter().any(|k| f.get(k).is_some()));
            if free {
                list.sort_by_key(Value::to_string);
            }
            list.into()
        }
        Value::Number(n) if UNIX_TIMES.contains(&key) && n.as_i64() > Some(0) => {
            format!("<time of {} digits>", n.to_string().len()).into()
        }
        Value::Number(n) if COUNTS.contains(&key) && n.as_i64() > Some(0) => "<n>".into(),
        Value::String(s) if key == "SandboxKey" && !s.is_empty() => "<sandbox>".into(),
        Value::String(s) if matches!(key, "Name" | "Names" | "name") && made_up(&s) => "<made up>".into(),
        Value::String(s) if key == "Processes" => numbers(&s).into(),
        // The recording is of a machine without AppArmor.
        Value::String(s) if key == "AppArmorProfile" && s.ends_with("-default") => "".into(),
        Value::String(s) if key == "status" && s.contains(" size: ") => {
            string(s.rsplit_once(' ').map_or("", |(text, _)| text)).into()
        }
        Value::String(s) if key == "Status" => moment(&s).into(),
        // Each daemon has a bridge of its own.
        Value::String(s) if key == "com.docker.network.bridge.name" => {
            format!("<name: {}>", !s.is_empty()).into()
        }
        Value::String(s) => string(&s.replace(root, "<root>")).into(),
        other => other,
    }
}

/// `Up 3 seconds`: how long something took is the machine's matter, as long as it is seconds.
fn moment(status: &str) -> String {
    let mut words: Vec<&str> = status.split(' ').collect();
    if let Some(at) = words.iter().position(|w| w.trim_end_matches('s') == "second")
        && at > 0
        && words[at - 1].parse::<u8>().is_ok()
    {
        words.splice(at - 1..=at, ["Less", "than", "a", "second"]);
    }
    words.join(" ")
}

/// Every number is a zero.
fn numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('0') => {}
            true => out.push('0'),
            false => out.push(c),
        }
    }
    out
}

fn kind_of(v: &Value) -> &'static str {
    match v {
        Value::Null => "<machine: null>",
        Value::Bool(_) => "<machine: bool>",
        Value::Number(_) => "<machine: number>",
        Value::String(_) => "<machine: text>",
        Value::Array(_) => "<machine: list>",
        Value::Object(_) => "<machine: object>",
    }
}

/// `/brisk_darwin`: a name that a daemon made up.
fn made_up(name: &str) -> bool {
    let word = |w: &str| w.len() > 2 && w.bytes().all(|b| b.is_ascii_lowercase());
    let bare = name.trim_start_matches('/').trim_end_matches(|c: char| c.is_ascii_digit());
    bare.split_once('_').is_some_and(|(a, b)| word(a) && word(b))
}

/// Docker announces `stop` as soon as the container is down, so before or after its `die`: here it is always after.
fn settle_order(lines: &mut [Value]) {
    for i in 1..lines.len() {
        if lines[i - 1]["Action"] == "stop" && lines[i]["Action"] == "die" {
            lines.swap(i - 1, i);
        }
    }
}

/// Replaces ids, times and addresses inside a text.
fn string(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '+');
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = match is_word(c) {
            true => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            false => c.len_utf8(),
        };
        out.push_str(&word(&rest[..end]));
        rest = &rest[end..];
    }
    out
}

fn hex(s: &str, n: usize) -> bool {
    s.len() == n && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn word(w: &str) -> String {
    if w.strip_prefix("sha256:").is_some_and(|rest| hex(rest, 64)) {
        return "sha256:<digest>".to_owned();
    }
    if let Some((_, tail)) = w.split_at_checked(64).filter(|(id, _)| hex(id, 64)) {
        return format!("<id>{tail}");
    }
    if hex(w, 12) && w.bytes().any(|b| b.is_ascii_digit()) {
        return "<short id>".to_owned();
    }
    if w.len() == 26 && w.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
        return "<link>".to_owned();
    }
    if w.len() == 36 && w.split('-').count() == 5 {
        return "<uuid>".to_owned();
    }
    if let Some(t) = time(w) {
        return t;
    }
    if w.split('.').count() == 4 && (w.starts_with("172.") || w.starts_with("192.168.")) {
        return "<address>".to_owned();
    }
    if w.len() == 17 && w.split(':').count() == 6 && w.split(':').all(|p| hex(p, 2)) {
        return "<mac>".to_owned();
    }
    w.to_owned()
}

/// `2026-11-24T15:30:00.123456789Z`, which says whether it has a fraction; the zero time stays.
fn time(w: &str) -> Option<String> {
    let shape = w.get(..19)?.bytes().enumerate().all(|(i, b)| match i {
        4 | 7 => b == b'-',
        10 => b == b'T',
        13 | 16 => b == b':',
        _ => b.is_ascii_digit(),
    });
    if !shape || w.starts_with("0001-") {
        return None;
    }
    let rest = &w[19..];
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let fraction = if rest.starts_with('.') { ".fraction" } else { "" };
    Some(format!("<time{fraction}{zone}>"))
}
