//! Many ports in a row, which clients name one by one, are kept as one entry: `20000-20999/tcp`. So a container with all
//! ports there are costs no more than one with a few.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use longshore_oci::image::{JsonSet, RunConfig};

use super::ports::{parse, parse_range};
use crate::model::{HostConfig, PortBinding};

/// From this many on, ports in a row are one entry, and have no sockets of their own on the host.
pub(crate) const MANY: usize = 64;

/// A configuration's ports: where they lead.
pub(crate) type Bindings = BTreeMap<String, Option<Vec<PortBinding>>>;

/// Puts what is in a row together.
pub(crate) fn compact(host: &mut HostConfig, run: &mut RunConfig) {
    if let Some(bindings) = &mut host.port_bindings {
        compact_bindings(bindings);
    }
    if let Some(exposed) = &mut run.exposed_ports {
        compact_exposed(exposed);
    }
}

/// Names the ports one by one again.
pub(crate) fn expand(host: &mut HostConfig, run: &mut RunConfig) {
    if let Some(bindings) = &mut host.port_bindings {
        expand_bindings(bindings);
    }
    if let Some(exposed) = &mut run.exposed_ports {
        expand_exposed(exposed);
    }
}

/// The host's ports of a binding of several ports, if each of these leads to its own.
pub(crate) fn pairwise(
    container: &RangeInclusive<u16>,
    binding: &PortBinding,
) -> Option<RangeInclusive<u16>> {
    let host = parse_range(&binding.host_port)?;
    (container.len() > 1 && host.len() == container.len()).then_some(host)
}

pub(crate) fn compact_bindings(bindings: &mut Bindings) {
    // By protocol, host address, and how far the numbers are apart.
    let mut rows: BTreeMap<(String, String, i32), Vec<u16>> = BTreeMap::new();
    for (key, list) in &*bindings {
        let (Ok((range, proto)), Some([one])) = (parse(key), list.as_deref()) else { continue };
        let (Some(host), [port]) = (parse_range(&one.host_port), [*range.start()]) else { continue };
        if range.len() == 1 && host.len() == 1 {
            let apart = i32::from(*host.start()) - i32::from(port);
            rows.entry((proto, one.host_ip.clone(), apart)).or_default().push(port);
        }
    }
    for ((proto, host_ip, apart), ports) in rows {
        for (first, last) in in_a_row(ports) {
            for port in first..=last {
                bindings.remove(&format!("{port}/{proto}"));
            }
            let host = |port: u16| i32::from(port) + apart;
            let host_port = format!("{}-{}", host(first), host(last));
            let binding = PortBinding { host_ip: host_ip.clone(), host_port };
            bindings.insert(format!("{first}-{last}/{proto}"), Some(vec![binding]));
        }
    }
}

fn compact_exposed(exposed: &mut JsonSet) {
    let mut rows: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for key in exposed.keys() {
        if let Ok((range, proto)) = parse(key)
            && range.len() == 1
        {
            rows.entry(proto).or_default().push(*range.start());
        }
    }
    for (proto, ports) in rows {
        for (first, last) in in_a_row(ports) {
            for port in first..=last {
                exposed.remove(&format!("{port}/{proto}"));
            }
            exposed.insert(format!("{first}-{last}/{proto}"), Default::default());
        }
    }
}

/// First and last of what follows each other, where it is many.
fn in_a_row(mut ports: Vec<u16>) -> Vec<(u16, u16)> {
    ports.sort_unstable();
    let follows = |a: &u16, b: &u16| a.checked_add(1) == Some(*b);
    let rows = ports.chunk_by(follows).filter(|row| row.len() >= MANY);
    rows.filter_map(|row| Some((*row.first()?, *row.last()?))).collect()
}

pub(crate) fn expand_bindings(bindings: &mut Bindings) {
    let rows: Vec<String> = bindings.keys().filter(|key| key.contains('-')).cloned().collect();
    for key in rows {
        let (Ok((range, proto)), Some(Some([binding]))) =
            (parse(&key), bindings.get(&key).map(|list| list.as_deref()))
        else {
            continue;
        };
        let Some(host) = pairwise(&range, binding) else { continue };
        let host_ip = binding.host_ip.clone();
        bindings.remove(&key);
        for (port, host_port) in range.zip(host) {
            let binding = PortBinding { host_ip: host_ip.clone(), host_port: host_port.to_string() };
            let all = bindings.entry(format!("{port}/{proto}")).or_default();
            all.get_or_insert_default().push(binding);
        }
    }
}

pub(crate) fn expand_exposed(exposed: &mut JsonSet) {
    let rows: Vec<String> = exposed.keys().filter(|key| key.contains('-')).cloned().collect();
    for key in rows {
        let Ok((range, proto)) = parse(&key) else { continue };
        if range.len() >= MANY {
            exposed.remove(&key);
            exposed.extend(range.map(|port| (format!("{port}/{proto}"), Default::default())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(host_ip: &str, host_port: impl ToString) -> Option<Vec<PortBinding>> {
        Some(vec![PortBinding { host_ip: host_ip.to_owned(), host_port: host_port.to_string() }])
    }

    #[test]
    fn a_row_is_one_entry_and_comes_back() {
        let mut bindings: Bindings = BTreeMap::new();
        for port in 9950..10100_u16 {
            bindings.insert(format!("{port}/tcp"), binding("", port + 10000));
        }
        bindings.insert("80/tcp".into(), binding("", 8080));
        bindings.insert("81/tcp".into(), binding("", ""));
        bindings.insert("82/udp".into(), binding("127.0.0.1", "8000-8010"));
        let mut run = RunConfig {
            exposed_ports: Some(bindings.keys().map(|k| (k.clone(), Default::default())).collect()),
            ..RunConfig::default()
        };
        let mut host = HostConfig { port_bindings: Some(bindings.clone()), ..HostConfig::default() };
        let before = run.clone();
        compact(&mut host, &mut run);
        let short = host.port_bindings.clone().expect("bindings");
        assert_eq!(short.len(), 4);
        assert_eq!(short.get("9950-10099/tcp"), Some(&binding("", "19950-20099")));
        assert_eq!(run.exposed_ports.as_ref().map(BTreeMap::len), Some(4));
        expand(&mut host, &mut run);
        assert_eq!(host.port_bindings, Some(bindings));
        assert_eq!(run, before);
    }

    #[test]
    fn few_ports_stay_as_they_are() {
        let all = (1..10).map(|port| (format!("{port}/tcp"), binding("", port)));
        let mut bindings: Bindings = all.collect();
        let before = bindings.clone();
        compact_bindings(&mut bindings);
        assert_eq!(bindings, before);
        // What an API client wrote as a range of host ports to choose from is none of pairs.
        assert_eq!(
            pairwise(&(80..=80), &PortBinding { host_ip: "".into(), host_port: "80-90".into() }),
            None
        );
    }
}
