//! `update`: its options, and the ports that a container is to publish.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::kinds::{BYTES, DECIMAL, SWAP, UINT16};
use super::ports::{one_by_one, published, range};
use crate::flags::{Flag, INT, LIST, STRING, flag, options};

options! {
    /// `update`.
    UpdateArgs {
        publish: Vec<String> = flag(
            "publish", LIST,
            "Publish another port (\"+8080:80\"), or one no more (\"-8080\", the host's); Longshore's daemon only",
        ).short('p'),
        restart: String = flag("restart", STRING, "Restart policy to apply when a container exits"),
        ; containers: Vec<String>
    }
}

const LIMITS: &str = "is not implemented yet";

/// Options of `update` that are limits.
pub(crate) const UPDATE_LIMITS: &[Flag] = &[
    flag(
        "blkio-weight",
        UINT16,
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    )
    .refused(LIMITS),
    flag("cpu-period", INT, "Limit CPU CFS (Completely Fair Scheduler) period").refused(LIMITS),
    flag("cpu-quota", INT, "Limit CPU CFS (Completely Fair Scheduler) quota").refused(LIMITS),
    flag("cpu-rt-period", INT, "Limit the CPU real-time period in microseconds").refused(LIMITS),
    flag("cpu-rt-runtime", INT, "Limit the CPU real-time runtime in microseconds").refused(LIMITS),
    flag("cpu-shares", INT, "CPU shares (relative weight)").short('c').refused(LIMITS),
    flag("cpus", DECIMAL, "Number of CPUs").refused(LIMITS),
    flag("cpuset-cpus", STRING, "CPUs in which to allow execution (0-3, 0,1)").refused(LIMITS),
    flag("cpuset-mems", STRING, "MEMs in which to allow execution (0-3, 0,1)").refused(LIMITS),
    flag("memory", BYTES, "Memory limit").short('m').refused(LIMITS),
    flag("memory-reservation", BYTES, "Memory soft limit").refused(LIMITS),
    flag("memory-swap", SWAP, "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
        .refused(LIMITS),
    flag("pids-limit", INT, "Tune container pids limit (set -1 for unlimited)").refused(LIMITS),
];

/// The bindings of a container after a change. `bindings` are what it asks for, `shown` what it has while it runs.
///
/// # Errors
/// For a change that is none, and a port that it does not publish.
pub(crate) fn changed(bindings: &Value, shown: &Value, changes: &[String]) -> Result<Value, String> {
    let mut all: Map<String, Value> = bindings.as_object().cloned().unwrap_or_default();
    // What goes first makes room for what comes.
    for text in changes.iter().filter_map(|change| change.strip_prefix('-')) {
        withdraw(&mut all, shown, text)?;
    }
    let come: Vec<String> = changes
        .iter()
        .filter(|change| !change.starts_with('-'))
        .map(|change| change.strip_prefix('+').unwrap_or(change).to_owned())
        .collect();
    for (key, new) in published(&come)? {
        let list = all.entry(key).or_insert_with(|| json!([]));
        match list.as_array_mut() {
            Some(list) => list.extend(new.into_iter().filter(|new| !list.contains(new)).collect::<Vec<_>>()),
            None => *list = Value::Array(new),
        }
    }
    // As the daemon shows them: what it says afterwards is compared.
    let mut all = json!({"HostConfig": {"PortBindings": all}});
    if let Some(each) = one_by_one(&all) {
        all = each;
    }
    Ok(all["HostConfig"]["PortBindings"].take())
}

/// Takes the bindings of ports of the host away: `[ip:]port[-port][/protocol]`.
fn withdraw(all: &mut Map<String, Value>, shown: &Value, text: &str) -> Result<(), String> {
    let (place, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (ip, port) =
        place.rsplit_once(':').map_or(("", place), |(ip, port)| (ip.trim_matches(['[', ']']), port));
    let address_is_wrong = !ip.is_empty() && ip.parse::<IpAddr>().is_err();
    let wrong = || format!("invalid port {text:?}: want [address:]port[-port][/protocol], of the host");
    let ports = range(port).map_err(|_| wrong())?;
    if address_is_wrong {
        return Err(wrong());
    }
    let mut found = false;
    for (key, list) in all.iter_mut().filter(|(key, _)| key.rsplit('/').next() == Some(protocol)) {
        let Some(list) = list.as_array_mut() else { continue };
        let has = |value: &Value| {
            value["HostPort"].as_str().and_then(|text| text.parse().ok()).is_some_and(|n| ports.contains(&n))
        };
        let chosen = shown[key.as_str()].as_array().is_some_and(|shown| shown.iter().any(has));
        list.retain(|binding| {
            // The daemon has chosen the port: of no number, or of a range.
            let asked = binding["HostPort"].as_str().unwrap_or_default();
            let open = asked.is_empty() || asked == "0" || asked.contains('-');
            let goes = (ip.is_empty() || binding["HostIp"] == ip) && (has(binding) || (open && chosen));
            found |= goes;
            !goes
        });
    }
    all.retain(|_, list| list.as_array().is_none_or(|list| !list.is_empty()));
    if found { Ok(()) } else { Err(format!("port {text} of the host is not published by it")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_and_go() {
        let bindings = json!({
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8081"}],
            "53/udp": [{"HostIp": "", "HostPort": "8080"}],
            "90/tcp": [{"HostIp": "", "HostPort": ""}],
        });
        let shown = json!({"90/tcp": [{"HostIp": "0.0.0.0", "HostPort": "40000"}]});
        let change = |changes: &[&str]| {
            let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
            changed(&bindings, &shown, &changes)
        };
        let after = change(&["+9000:70", "-8080", "-40000"]).expect("changes");
        assert_eq!(
            after,
            json!({
                "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8081"}],
                "53/udp": [{"HostIp": "", "HostPort": "8080"}],
                "70/tcp": [{"HostIp": "", "HostPort": "9000"}],
            })
        );
        let moved = change(&["-127.0.0.1:8081", "-8080/udp", "+8081:53/udp", "8080:80"]).expect("changes");
        assert_eq!(moved["80/tcp"], json!([{"HostIp": "", "HostPort": "8080"}]), "once is enough");
        assert_eq!(moved["53/udp"], json!([{"HostIp": "", "HostPort": "8081"}]));
        for (wrong, want) in [
            ("-8085", "port 8085 of the host is not published by it"),
            ("-127.0.0.1:8080", "port 127.0.0.1:8080 of the host is not published by it"),
            ("-x", "invalid port \"x\": want [address:]port[-port][/protocol], of the host"),
        ] {
            assert_eq!(change(&[wrong]).expect_err("it is wrong"), want);
        }
        assert!(change(&["+a:b"]).is_err());
    }
}
