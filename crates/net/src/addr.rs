//! Networks of both families, and hardware addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::{Error, Result};

/// Whether two networks share an address.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Whether two addresses are of the same family.
pub fn same_family(a: &IpAddr, b: &IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// A random hardware address: unicast, locally administered.
///
/// # Errors
/// If the system has no random bytes to give.
pub fn random_mac() -> Result<[u8; 6]> {
    let mut mac = [0u8; 6];
    random_bytes(&mut mac)?;
    mac[0] = (mac[0] | 0x02) & 0xfe;
    Ok(mac)
}

/// The hardware address for a container with this address: `02:42` and the address, or the end of it. As it is the same
/// for whoever gets the address next, what neighbours remember stays right.
pub fn mac_for(ip: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [a, b, c, d]
        }
    };
    [0x02, 0x42, a, b, c, d]
}

pub(crate) fn random_bytes(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|e| Error::system("read random bytes", std::io::Error::other(e.to_string())))
}

/// The hardware address in its usual notation.
pub fn format_mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Reads a hardware address in its usual notation; only unicast ones can be an interface's.
///
/// # Errors
/// If it is not six pairs of hex digits, or a multicast address.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let invalid = || Error::Invalid(format!("invalid MAC address: {text}"));
    let mut mac = [0u8; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let two_digits = |p: &&str| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit());
        let part = parts.next().filter(two_digits).ok_or_else(invalid)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
    }
    if parts.next().is_some() || mac[0] & 1 == 1 || mac == [0; 6] { Err(invalid()) } else { Ok(mac) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_within_their_family() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for (a, b, want) in [
            ("172.17.0.0/16", "172.17.128.0/20", true),
            ("172.17.0.0/16", "172.18.0.0/16", false),
            ("fd00::/48", "fd00:0:0:7::/64", true),
            ("fd00::/64", "fd00:0:0:7::/64", false),
            ("0.0.0.0/0", "::/0", false),
        ] {
            assert_eq!((overlap(&net(a), &net(b)), overlap(&net(b), &net(a))), (want, want), "{a} {b}");
        }
    }

    #[test]
    fn hardware_addresses() {
        let mac = random_mac().unwrap();
        assert_eq!(mac[0] & 3, 2);
        assert_eq!(parse_mac(&format_mac(mac)).unwrap(), mac);
        for bad in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "01:00:5e:00:00:01",
            "0:1:2:3:4:5",
            "02:42:ac:11:00:+2",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }
}
