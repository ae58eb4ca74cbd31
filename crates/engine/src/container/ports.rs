//! Port specifications: `80`, `80/tcp`, `8000-8010/udp`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use longshore_net::{PortRequest, Transport};
use longshore_oci::image::JsonSet;

use crate::model::PortBinding;
use crate::{Error, Result};

/// A container exposes at most this many ports.
const MAX_PORTS: usize = 1 << 16;

/// Number range and protocol of a specification.
///
/// # Errors
/// In Docker's words.
pub(crate) fn parse(text: &str) -> Result<(RangeInclusive<u16>, String)> {
    let (range, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let bad = || Error::invalid(format!("invalid port specification: {range:?}"));
    let proto = proto.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&proto.as_str()) {
        return Err(Error::invalid(format!("invalid port specification: {text:?}")));
    }
    Ok((parse_range(range).ok_or_else(bad)?, proto))
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u16>().ok()).flatten();
    let (lo, hi) = text.split_once('-').unwrap_or((text, text));
    let (lo, hi) = (number(lo)?, number(hi)?);
    (lo <= hi).then_some(lo..=hi)
}

/// The `port/protocol` keys that a specification stands for.
///
/// # Errors
/// When it is none.
pub(crate) fn expose_keys(text: &str) -> Result<Vec<String>> {
    let (range, proto) = parse(text)?;
    Ok(range.map(|p| format!("{p}/{proto}")).collect())
}

/// What is to be published: for each binding (or each exposed port with `all`) one request.
///
/// # Errors
/// For what cannot be published.
pub(crate) fn requests(
    bindings: Option<&BTreeMap<String, Option<Vec<PortBinding>>>>,
    exposed: Option<&JsonSet>,
    all: bool,
    container_ip: Ipv4Addr,
) -> Result<Vec<(String, PortRequest)>> {
    let mut out = Vec::new();
    let empty = BTreeMap::new();
    let bindings = bindings.unwrap_or(&empty);
    for (key, list) in bindings {
        let (range, proto) = parse(key)?;
        for port in range {
            let key = format!("{port}/{proto}");
            for binding in list.iter().flatten() {
                out.push((key.clone(), request(&proto, port, binding, container_ip)?));
            }
        }
    }
    if all {
        for key in exposed.into_iter().flat_map(BTreeMap::keys) {
            // An exposed port that is no port was accepted at create, as Docker does; it publishes nothing.
            let Ok((range, proto)) = parse(key) else { continue };
            for port in range {
                let key = format!("{port}/{proto}");
                if !out.iter().any(|(k, _)| *k == key) {
                    out.push((key, request(&proto, port, &PortBinding::default(), container_ip)?));
                }
            }
        }
    }
    if out.len() > MAX_PORTS {
        return Err(Error::invalid(format!("more than {MAX_PORTS} published ports")));
    }
    Ok(out)
}

fn request(proto: &str, port: u16, binding: &PortBinding, container_ip: Ipv4Addr) -> Result<PortRequest> {
    let transport: Transport = proto.parse()?;
    let host_ip = match binding.host_ip.as_str() {
        "" => Ipv4Addr::UNSPECIFIED,
        text => match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => ip,
            Ok(IpAddr::V6(ip)) => {
                return Err(Error::unimplemented(format!("publishing ports on the IPv6 address {ip}")));
            }
            Err(_) => return Err(Error::invalid(format!("invalid IP address: {text}"))),
        },
    };
    let host_ports = match binding.host_port.as_str() {
        "" | "0" => None,
        text => Some(
            parse_range(text)
                .ok_or_else(|| Error::invalid(format!("invalid port specification: {text:?}")))?,
        ),
    };
    Ok(PortRequest { transport, host_ip, host_ports, container_ip, container_port: port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications() {
        assert_eq!(expose_keys("80").expect("port"), ["80/tcp"]);
        assert_eq!(expose_keys("8000-8001/udp").expect("range"), ["8000/udp", "8001/udp"]);
        assert_eq!(parse("abc/tcp").unwrap_err().to_string(), "invalid port specification: \"abc\"");
        for bad in ["", "80/x", "9-8", "99999", "-1", "+80"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn publish_all_adds_what_no_binding_names() {
        let bindings = BTreeMap::from([(
            "80/tcp".to_owned(),
            Some(vec![PortBinding { host_ip: String::new(), host_port: "8080".into() }]),
        )]);
        let exposed =
            ["80/tcp", "81/udp", "99999/tcp"].iter().map(|k| ((*k).to_owned(), Default::default())).collect();
        let ip = Ipv4Addr::LOCALHOST;
        let got = requests(Some(&bindings), Some(&exposed), true, ip).expect("requests");
        let keys: Vec<_> = got.iter().map(|(k, r)| (k.as_str(), r.host_ports.clone())).collect();
        assert_eq!(keys, [("80/tcp", Some(8080..=8080)), ("81/udp", None)]);
    }
}
