//! `--network bridge`, `--network name=web,alias=db,ip=10.0.0.2`.

use serde_json::{Map, Value, json};

use super::csv;
use crate::flags::values::int;

/// One network to join.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) ip: String,
    pub(super) ip6: String,
    pub(super) mac: String,
    pub(super) link_local: Vec<String>,
    pub(super) options: Map<String, Value>,
    pub(super) priority: i64,
}

/// Reads the option's value.
pub(super) fn parse(text: &str) -> Result<Network, String> {
    let mut network = Network::default();
    if !is_long(text) {
        text.clone_into(&mut network.name);
        return Ok(network);
    }
    for field in csv::fields(text)? {
        let lower = field.to_lowercase();
        let (key, value) = lower
            .split_once('=')
            .filter(|(k, _)| !k.is_empty())
            .ok_or_else(|| format!("invalid field {field}"))?;
        let value = value.trim();
        match key.trim() {
            "name" => value.clone_into(&mut network.name),
            "alias" => network.aliases.push(value.to_owned()),
            "ip" => value.clone_into(&mut network.ip),
            "ip6" => value.clone_into(&mut network.ip6),
            "mac-address" => value.clone_into(&mut network.mac),
            "link-local-ip" => network.link_local.push(value.to_owned()),
            "driver-opt" => {
                let (k, v) = value
                    .split_once('=')
                    .filter(|(k, _)| !k.is_empty())
                    .ok_or("invalid key value pair in driver options")?;
                network.options.insert(k.trim().to_owned(), json!(v.trim()));
            }
            "gw-priority" => {
                network.priority =
                    int(value).map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?;
            }
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if network.name.is_empty() {
        return Err("network name/id is not specified".into());
    }
    Ok(network)
}

/// Whether a `word=word` is in it.
fn is_long(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('=').any(|(at, _)| text[..at].ends_with(word) && text[at + 1..].starts_with(word))
}

impl Network {
    /// Whether anything but the name was given.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self { name: self.name.clone(), ..Self::default() }
    }

    /// Whether it is one that a user made, which the details are for.
    pub(super) fn is_user_defined(&self) -> bool {
        !["", "default", "bridge", "host", "none"].contains(&self.name.as_str())
            && !self.name.starts_with("container:")
    }

    /// The endpoint of a create request.
    pub(super) fn endpoint(&self, links: &[String]) -> Value {
        let mut out = json!({"Aliases": list(&self.aliases), "Links": list(links), "MacAddress": self.mac});
        if !self.options.is_empty() {
            out["DriverOpts"] = Value::Object(self.options.clone());
        }
        if self.priority != 0 {
            out["GwPriority"] = json!(self.priority);
        }
        if !self.ip.is_empty() || !self.ip6.is_empty() || !self.link_local.is_empty() {
            let mut ipam = json!({"IPv4Address": self.ip, "IPv6Address": self.ip6});
            if !self.link_local.is_empty() {
                ipam["LinkLocalIPs"] = json!(self.link_local);
            }
            out["IPAMConfig"] = ipam;
        }
        out
    }
}

fn list(values: &[String]) -> Value {
    if values.is_empty() { Value::Null } else { json!(values) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_docker_reads_them() {
        assert_eq!(parse("bridge").unwrap().name, "bridge");
        assert!(parse("container:a").unwrap().is_plain());
        let n = parse("name=Web,alias=a,alias=b,ip=10.0.0.2,driver-opt=x=y").unwrap();
        assert_eq!((n.name.as_str(), n.aliases.len(), n.ip.as_str()), ("web", 2, "10.0.0.2"));
        assert_eq!(n.endpoint(&[])["DriverOpts"], json!({"x": "y"}));
        assert_eq!(parse("name=a,foo=b").unwrap_err(), "invalid field key foo");
        assert_eq!(parse("alias=a,ip=1").unwrap_err(), "network name/id is not specified");
    }
}
