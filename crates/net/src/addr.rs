//! IPv4 networks and hardware addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// An address with its prefix length: a subnet, or an interface's address within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Net {
    addr: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Net {
    /// `addr/prefix`; none if the prefix is longer than 32. Host bits are kept.
    pub const fn new(addr: Ipv4Addr, prefix: u8) -> Option<Self> {
        if prefix > 32 { None } else { Some(Ipv4Net { addr, prefix }) }
    }

    /// The address as given, with its host bits.
    pub const fn addr(self) -> Ipv4Addr {
        self.addr
    }

    /// The prefix length.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The netmask as an address.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask())
    }

    /// The lowest address: all host bits clear.
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.addr.to_bits() & self.mask())
    }

    /// The highest address: all host bits set.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.addr.to_bits() | !self.mask())
    }

    /// The same network with its host bits clear.
    #[must_use]
    pub fn trunc(self) -> Self {
        Ipv4Net { addr: self.network(), prefix: self.prefix }
    }

    /// Whether `ip` lies in this network.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        ip.to_bits() & self.mask() == self.addr.to_bits() & self.mask()
    }

    /// Whether the two networks share an address.
    pub fn overlaps(self, other: Ipv4Net) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl FromStr for Ipv4Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("invalid CIDR address: {text}"));
        let (addr, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let addr = addr.parse().map_err(|_| invalid())?;
        let digits = prefix.len() <= 2 && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or_else(invalid)?;
        Ipv4Net::new(addr, prefix).ok_or_else(invalid)
    }
}

impl Serialize for Ipv4Net {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ipv4Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
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

/// The hardware address for a container with this address: `02:42` and the address. As it is the same for whoever
/// gets the address next, what neighbours remember stays right.
pub fn mac_for(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
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

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn networks() {
        let n = net("172.17.5.1/16");
        assert_eq!(n.network(), Ipv4Addr::new(172, 17, 0, 0));
        assert_eq!(n.broadcast(), Ipv4Addr::new(172, 17, 255, 255));
        assert_eq!(n.trunc().to_string(), "172.17.0.0/16");
        assert!(n.overlaps(net("172.17.128.0/20")));
        assert!(net("172.17.128.0/20").overlaps(n));
        assert!(!n.overlaps(net("172.18.0.0/16")));
        assert!(net("0.0.0.0/0").contains(Ipv4Addr::BROADCAST));
        assert_eq!(net("1.2.3.4/32").network(), net("1.2.3.4/32").broadcast());
        for bad in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3/8", "1.2.3.4/+8", "1.2.3.4/", "::/0", "1.2.3.4/008"] {
            assert!(bad.parse::<Ipv4Net>().is_err(), "{bad}");
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
