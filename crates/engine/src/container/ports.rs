//! Port specifications: `80`, `80/tcp`, `8000-8010/udp`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use longshore_net::{PortRequest, Transport};
use longshore_oci::image::JsonSet;

use super::port_ranges::{Bindings, MANY, pairwise};
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

pub(crate) fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u16>().ok()).flatten();
    let (lo, hi) = text.split_once('-').unwrap_or((text, text));
    let (lo, hi) = (number(lo)?, number(hi)?);
    (lo <= hi).then_some(lo..=hi)
}

/// Whether a port, as `80/tcp`, is one of a specification.
pub(crate) fn is_in(key: &str, (range, proto): &(RangeInclusive<u16>, String)) -> bool {
    let (port, of) = key.split_once('/').unwrap_or((key, "tcp"));
    of == proto && port.parse().is_ok_and(|port| range.contains(&port))
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
    /// The container's addresses, of IPv4 and of IPv6; without one nothing is published.
    pub(crate) container_ips: [Option<IpAddr>; 2],
    /// The host's address of ports that name none; `None`: all of them.
    pub(crate) host_ip: Option<IpAddr>,
    /// The host has IPv6.
    pub(crate) ipv6: bool,
    /// Every port has a socket of the host's, which the engine listens on.
    pub(crate) local: bool,
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

    /// Whether rules lead what comes to an address to the container, or else a socket of the host's must.
    fn by_rules(&self, host_ip: &IpAddr) -> bool {
        !self.local && self.container_ips[usize::from(host_ip.is_ipv6())].is_some()
    }
}

/// What is to be published: for each binding (or each exposed port with `all`) one request.
///
/// # Errors
/// For what cannot be published.
pub(crate) fn requests(
    bindings: Option<&Bindings>,
    exposed: Option<&JsonSet>,
    all: bool,
    reach: &Reach,
) -> Result<Vec<PortRequest>> {
    let mut out: Vec<PortRequest> = Vec::new();
    let [v4, v6] = reach.container_ips;
    let Some(container_ip) = v4.or(v6) else { return Ok(out) };
    let empty = BTreeMap::new();
    let bindings = bindings.unwrap_or(&empty);
    for (key, list) in bindings {
        let (range, proto) = parse(key)?;
        for binding in list.iter().flatten() {
            match pairwise(&range, binding) {
                Some(host) => row(&mut out, &proto, &range, &host, binding, container_ip, reach)?,
                None => {
                    for port in range.clone() {
                        out.push(request(&proto, port, binding, container_ip, reach)?);
                    }
                }
            }
        }
    }
    if all {
        for key in exposed.into_iter().flat_map(BTreeMap::keys) {
            // An exposed port that is no port was accepted at create, as Docker does; it publishes nothing.
            let Ok((range, proto)) = parse(key) else { continue };
            for port in range {
                let wanted = request(&proto, port, &PortBinding::default(), container_ip, reach)?;
                let same = |r: &PortRequest| {
                    r.transport == wanted.transport
                        && (r.container_port..=r.container_port.saturating_add(r.count - 1)).contains(&port)
                };
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

/// Several ports, each leading to its own: as one where rules can do it.
fn row(
    out: &mut Vec<PortRequest>,
    proto: &str,
    range: &RangeInclusive<u16>,
    host: &RangeInclusive<u16>,
    binding: &PortBinding,
    container_ip: IpAddr,
    reach: &Reach,
) -> Result<()> {
    let one = |port: u16, host_port: u16| {
        let binding = PortBinding { host_ip: binding.host_ip.clone(), host_port: host_port.to_string() };
        request(proto, port, &binding, container_ip, reach)
    };
    let mut whole = one(*range.start(), *host.start())?;
    let named = !binding.host_ip.is_empty() || reach.host_ip.is_some();
    if range.len() >= MANY && !named {
        // Of a family that no rule leads on, so many ports would need as many sockets: there it has none.
        whole.host_ips.retain(|ip| reach.by_rules(ip));
    }
    if range.len() >= MANY && !whole.host_ips.is_empty() && whole.host_ips.iter().all(|ip| reach.by_rules(ip))
    {
        whole.count = u16::try_from(range.len()).unwrap_or(u16::MAX);
        out.push(whole);
        return Ok(());
    }
    for (port, host_port) in range.clone().zip(host.clone()) {
        out.push(one(port, host_port)?);
    }
    Ok(())
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
    Ok(PortRequest { transport, host_ips, host_ports, container_ip, container_port: port, count: 1 })
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
        let container_ips = [Some(Ipv4Addr::LOCALHOST.into()), None];
        let reach = Reach { container_ips, host_ip: None, ipv6: false, local: false };
        let got = requests(Some(&bindings), Some(&exposed), true, &reach).expect("requests");
        let keys: Vec<_> =
            got.iter().map(|r| (r.container_port, r.transport, r.host_ports.clone())).collect();
        assert_eq!(keys, [(80, Transport::Tcp, Some(8080..=8080)), (81, Transport::Udp, None)]);
        let nowhere = Reach { container_ips: [None; 2], ..reach };
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
        let container_ips = [Some(Ipv4Addr::LOCALHOST.into()), None];
        let both = Reach { container_ips, host_ip: None, ipv6: true, local: false };
        assert_eq!(of("", both), "0.0.0.0 ::");
        assert_eq!(of("", Reach { ipv6: false, ..both }), "0.0.0.0");
        assert_eq!(of("", Reach { host_ip: Some(Ipv4Addr::LOCALHOST.into()), ..both }), "127.0.0.1");
        assert_eq!((of("::1", both), of("10.0.0.1", both)), ("::1".into(), "10.0.0.1".into()));
    }

    #[test]
    fn many_in_a_row_are_one_request_where_rules_lead_them() {
        let of = |host_ip: &str, count: u16, reach: Reach| {
            let binding =
                PortBinding { host_ip: host_ip.to_owned(), host_port: format!("2000-{}", 1999 + count) };
            let bindings = BTreeMap::from([(format!("1000-{}/udp", 999 + count), Some(vec![binding]))]);
            let got = requests(Some(&bindings), None, false, &reach).expect("requests");
            let ips: Vec<_> = got[0].host_ips.iter().map(ToString::to_string).collect();
            (got.len(), got[0].count, ips.join(" "))
        };
        let v4 = Some(Ipv4Addr::LOCALHOST.into());
        let v6 = Some(Ipv6Addr::LOCALHOST.into());
        let reach = Reach { container_ips: [v4, v6], host_ip: None, ipv6: true, local: false };
        assert_eq!(of("", 100, reach), (1, 100, "0.0.0.0 ::".to_owned()));
        assert_eq!(of("", 10, reach), (10, 1, "0.0.0.0 ::".to_owned()));
        let only4 = Reach { container_ips: [v4, None], ..reach };
        assert_eq!(of("", 100, only4), (1, 100, "0.0.0.0".to_owned()));
        assert_eq!(of("::", 100, only4), (100, 1, "::".to_owned()));
        assert_eq!(of("", 100, Reach { local: true, ..reach }), (100, 1, "0.0.0.0 ::".to_owned()));
    }
}
