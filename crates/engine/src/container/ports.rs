//! Port specifications: `80`, `80/tcp`, `8000-8010/udp`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

/// Where published ports lead, and where they are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// The container's address; without one nothing is published.
    pub(crate) container_ip: Option<IpAddr>,
    /// The host's address of ports that name none; `None`: all of them.
    pub(crate) host_ip: Option<IpAddr>,
    /// The host has IPv6.
    pub(crate) ipv6: bool,
}

impl Reach {
    /// The host's addresses of a port that names none.
    fn host_ips(&self) -> Vec<IpAddr> {
        match self.host_ip {
            Some(ip) => vec![ip],
            None if self.ipv6 => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            None => vec![Ipv4Addr::UNSPECIFIED.into()],
        }
    }
}

/// What is to be published: for each binding (or each exposed port with `all`) one request.
///
/// # Errors
/// For what cannot be published.
pub(crate) fn requests(
    bindings: Option<&BTreeMap<String, Option<Vec<PortBinding>>>>,
    exposed: Option<&JsonSet>,
    all: bool,
    reach: &Reach,
) -> Result<Vec<PortRequest>> {
    let mut out: Vec<PortRequest> = Vec::new();
    let Some(container_ip) = reach.container_ip else { return Ok(out) };
    let empty = BTreeMap::new();
    let bindings = bindings.unwrap_or(&empty);
    for (key, list) in bindings {
        let (range, proto) = parse(key)?;
        for port in range {
            for binding in list.iter().flatten() {
                out.push(request(&proto, port, binding, container_ip, reach)?);
            }
        }
    }
    if all {
        for key in exposed.into_iter().flat_map(BTreeMap::keys) {
            // An exposed port that is no port was accepted at create, as Docker does; it publishes nothing.
            let Ok((range, proto)) = parse(key) else { continue };
            for port in range {
                let wanted = request(&proto, port, &PortBinding::default(), container_ip, reach)?;
                let same = |r: &PortRequest| (r.transport, r.container_port) == (wanted.transport, port);
                if !out.iter().any(same) {
                    out.push(wanted);
                }
            }
        }
    }
    if out.len() > MAX_PORTS {
        return Err(Error::invalid(format!("more than {MAX_PORTS} published ports")));
    }
    Ok(out)
}

fn request(
    proto: &str,
    port: u16,
    binding: &PortBinding,
    container_ip: IpAddr,
    reach: &Reach,
) -> Result<PortRequest> {
    let transport: Transport = proto.parse()?;
    let host_ips = match binding.host_ip.as_str() {
        "" => reach.host_ips(),
        text => vec![text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?],
    };
    let host_ports = match binding.host_port.as_str() {
        "" | "0" => None,
        text => Some(
            parse_range(text)
                .ok_or_else(|| Error::invalid(format!("invalid port specification: {text:?}")))?,
        ),
    };
    Ok(PortRequest { transport, host_ips, host_ports, container_ip, container_port: port })
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
        let reach = Reach { container_ip: Some(Ipv4Addr::LOCALHOST.into()), host_ip: None, ipv6: false };
        let got = requests(Some(&bindings), Some(&exposed), true, &reach).expect("requests");
        let keys: Vec<_> =
            got.iter().map(|r| (r.container_port, r.transport, r.host_ports.clone())).collect();
        assert_eq!(keys, [(80, Transport::Tcp, Some(8080..=8080)), (81, Transport::Udp, None)]);
        let nowhere = Reach { container_ip: None, ..reach };
        assert_eq!(requests(Some(&bindings), Some(&exposed), true, &nowhere).expect("requests"), []);
    }

    #[test]
    fn a_port_without_an_address_is_on_all_of_them() {
        let of = |host_ip: &str, reach: Reach| {
            let binding = PortBinding { host_ip: host_ip.to_owned(), host_port: "8080".into() };
            let bindings = BTreeMap::from([("80/tcp".to_owned(), Some(vec![binding]))]);
            let got = requests(Some(&bindings), None, false, &reach).expect("requests");
            let ips = got.iter().flat_map(|r| r.host_ips.iter().map(ToString::to_string));
            ips.collect::<Vec<_>>().join(" ")
        };
        let both = Reach { container_ip: Some(Ipv4Addr::LOCALHOST.into()), host_ip: None, ipv6: true };
        assert_eq!(of("", both), "0.0.0.0 ::");
        assert_eq!(of("", Reach { ipv6: false, ..both }), "0.0.0.0");
        assert_eq!(of("", Reach { host_ip: Some(Ipv4Addr::LOCALHOST.into()), ..both }), "127.0.0.1");
        assert_eq!((of("::1", both), of("10.0.0.1", both)), ("::1".into(), "10.0.0.1".into()));
    }
}
