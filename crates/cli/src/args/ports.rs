//! `--publish` and `--expose`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use crate::flags::values::uint;

type Result<T> = std::result::Result<T, String>;

/// From this many on, ports in a row are asked for as one.
const MANY: usize = 64;

/// Bindings by container port, or ports in a row.
pub(super) type Bindings = BTreeMap<String, Vec<Value>>;

/// `80`, `80/udp`, `8000-8002`.
pub(super) fn exposed(values: &[String]) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for text in values {
        if text.contains(':') {
            return Err(format!("invalid port format for --expose: {text}"));
        }
        let (ports, proto) = split_proto(text);
        let ports =
            range(ports).map_err(|e| format!("invalid range format for --expose: {text}, error: {e}"))?;
        match ports.len() < MANY {
            true => out.extend(ports.map(|port| (format!("{port}/{proto}"), json!({})))),
            false => drop(out.insert(format!("{}-{}/{proto}", ports.start(), ports.end()), json!({}))),
        }
    }
    Ok(out)
}

/// A request that has rows of ports as one, with each port by itself, as Docker's daemon wants them; `None`: it has none.
pub(crate) fn one_by_one(body: &Value) -> Option<Value> {
    let row = |key: &str| {
        let (ports, proto) = split_proto(key);
        let ports = range(ports).ok().filter(|ports| ports.len() >= MANY)?;
        Some((ports, proto.to_owned()))
    };
    let mut found = false;
    let mut out = body.clone();
    for path in ["/ExposedPorts", "/HostConfig/PortBindings"] {
        let Some(map) = out.pointer_mut(path).and_then(Value::as_object_mut) else { continue };
        let rows: Vec<String> = map.keys().filter(|key| row(key).is_some()).cloned().collect();
        for key in rows {
            let (Some((ports, proto)), Some(value)) = (row(&key), map.remove(&key)) else { continue };
            found = true;
            for (n, port) in ports.enumerate() {
                let one = nth(&value, n);
                match map.entry(format!("{port}/{proto}")).or_insert_with(|| json!(null)) {
                    Value::Array(all) => all.extend(one.as_array().cloned().unwrap_or_default()),
                    slot => *slot = one,
                }
            }
        }
    }
    found.then_some(out)
}

/// Of the bindings of a row, those of its `n`th port.
fn nth(bindings: &Value, n: usize) -> Value {
    let Some(all) = bindings.as_array() else { return bindings.clone() };
    let one = |binding: &Value| {
        let hosts = binding["HostPort"].as_str().and_then(|text| range(text).ok());
        let host = hosts.and_then(|mut hosts| hosts.nth(n)).map(|port| port.to_string());
        json!({"HostIp": binding["HostIp"], "HostPort": host.unwrap_or_default()})
    };
    all.iter().map(one).collect()
}

fn split_proto(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((ports, proto)) if !proto.is_empty() => (ports, proto),
        Some((ports, _)) => (ports, "tcp"),
        None => (text, "tcp"),
    }
}

pub(super) fn range(text: &str) -> Result<RangeInclusive<u16>> {
    if text.is_empty() {
        return Err("empty string specified for ports".into());
    }
    let port = |t: &str| uint(t, u16::MAX.into()).map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (port(from)?, port(to)?);
    if from > to { Err(format!("invalid range specified for port: {text}")) } else { Ok(from..=to) }
}

/// `[[ip:]hostPort:]containerPort[/proto]`, or `published=8080,target=80`.
pub(super) fn published(values: &[String]) -> Result<Bindings> {
    let mut out = Bindings::new();
    for text in values {
        if text.contains('=') {
            publish(&short(text)?, &mut out)?;
        } else {
            publish(text, &mut out)?;
        }
    }
    Ok(out)
}

/// The long form in the short one.
fn short(text: &str) -> Result<String> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        let pair = field.split_once('=').filter(|(k, _)| !k.is_empty());
        let (key, value) = pair
            .ok_or_else(|| format!("invalid publish opts format (should be name=value but got '{field}')"))?;
        match key {
            "published" => published = value,
            "target" => target = value,
            "protocol" => protocol = value,
            // Docker takes any other name and forgets it.
            _ => return Err(format!("invalid publish option: '{key}'")),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn publish(text: &str, out: &mut Bindings) -> Result<()> {
    let parts: Vec<&str> = text.split(':').collect();
    let (ip, host, container) = match parts.as_slice() {
        [container] => (String::new(), "", *container),
        [host, container] => (String::new(), *host, *container),
        [ip @ .., host, container] => (ip.join(":"), *host, *container),
        [] => (String::new(), "", ""),
    };
    let (container, proto) = split_proto(container);
    let proto = proto.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&proto.as_str()) {
        return Err(format!("invalid proto: {proto}"));
    }
    let bare = ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(&ip);
    if !bare.is_empty() && bare.split('%').next().is_none_or(|i| i.parse::<IpAddr>().is_err()) {
        return Err(format!("invalid IP address: {bare}"));
    }
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let containers = range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let hosts: Vec<String> = if host.is_empty() {
        containers.clone().map(|_| String::new()).collect()
    } else {
        let hosts = range(host).map_err(|_| format!("invalid hostPort: {host}"))?;
        match (containers.len(), hosts.len()) {
            // A free port of the range, which the daemon chooses.
            (1, n) if n > 1 => vec![host.to_owned()],
            (n, m) if n != m => {
                return Err(format!(
                    "invalid ranges specified for container and host Ports: {container} and {host}"
                ));
            }
            _ => hosts.map(|p| p.to_string()).collect(),
        }
    };
    if let (true, Ok(hosts)) = (containers.len() >= MANY && !host.is_empty(), range(host)) {
        let key = format!("{}-{}/{proto}", containers.start(), containers.end());
        let host = format!("{}-{}", hosts.start(), hosts.end());
        out.entry(key).or_default().push(json!({"HostIp": bare, "HostPort": host}));
        return Ok(());
    }
    for (port, host) in containers.zip(hosts) {
        out.entry(format!("{port}/{proto}")).or_default().push(json!({"HostIp": bare, "HostPort": host}));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Bindings> {
        published(&[text.to_owned()])
    }

    #[test]
    fn ports_become_bindings() {
        for (text, port, ip, host) in [
            ("8080:80", "80/tcp", "", "8080"),
            ("127.0.0.1:53:53/udp", "53/udp", "127.0.0.1", "53"),
            ("[::1]::90", "90/tcp", "::1", ""),
            ("8000-8010:80", "80/tcp", "", "8000-8010"),
            ("published=8080,target=80,protocol=UDP", "80/udp", "", "8080"),
        ] {
            assert_eq!(one(text).unwrap()[port], [json!({"HostIp": ip, "HostPort": host})], "{text}");
        }
        let range = one("7000-7001:6000-6001").unwrap();
        assert_eq!(range["6001/tcp"], [json!({"HostIp": "", "HostPort": "7001"})]);
        let exposed = exposed(&["80".into(), "90-91/udp".into()]).unwrap();
        assert_eq!(exposed.keys().collect::<Vec<_>>(), ["80/tcp", "90/udp", "91/udp"]);
    }

    #[test]
    fn a_long_row_is_one_until_somebody_wants_each() {
        let bindings = published(&["127.0.0.1:7000-7099:6000-6099".into(), "80:6001".into()]).unwrap();
        assert_eq!(bindings["6000-6099/tcp"], [json!({"HostIp": "127.0.0.1", "HostPort": "7000-7099"})]);
        let exposed = exposed(&["6000-6099".into()]).unwrap();
        let body = json!({"ExposedPorts": exposed, "HostConfig": {"PortBindings": bindings}});
        let each = one_by_one(&body).unwrap();
        assert_eq!(each["ExposedPorts"].as_object().map(Map::len), Some(100));
        let bindings = &each["HostConfig"]["PortBindings"];
        assert_eq!(bindings["6099/tcp"], json!([{"HostIp": "127.0.0.1", "HostPort": "7099"}]));
        assert_eq!(bindings["6001/tcp"].as_array().map(Vec::len), Some(2));
        assert_eq!(one_by_one(&each), None);
    }

    #[test]
    fn errors_are_dockers() {
        for (text, want) in [
            ("x", "invalid containerPort: x"),
            ("x:80", "invalid hostPort: x"),
            ("80/foo", "invalid proto: foo"),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("80-81:90-92", "invalid ranges specified for container and host Ports: 90-92 and 80-81"),
            ("8080:", "no port specified: 8080:<empty>"),
        ] {
            assert_eq!(one(text).unwrap_err(), want);
        }
        assert_eq!(
            exposed(&["x".into()]).unwrap_err(),
            "invalid range format for --expose: x, error: strconv.ParseUint: parsing \"x\": invalid syntax"
        );
    }
}
