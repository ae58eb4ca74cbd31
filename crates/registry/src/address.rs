//! Which addresses may be connected to, decided on the address itself and not on a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the first `prefix` bits of `ip` and `base` are the same.
pub(crate) fn in_network(ip: IpAddr, base: IpAddr, prefix: u8) -> bool {
    let (ip, base, bits) = match (plain(ip), base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let prefix = u32::from(prefix).min(bits);
    let shift = bits - prefix;
    prefix == 0 || (ip >> shift) == (base >> shift)
}

/// An IPv4 address that is written as an IPv6 one (`::ffff:10.0.0.1`) is that IPv4 address.
pub(crate) fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The address that packets to `ip` come to in the end: an IPv4 one within it, mapped, compatible, or behind NAT64 or
/// 6to4.
fn reached(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let bits = v6.to_bits();
    #[allow(clippy::cast_possible_truncation)]
    let low = Ipv4Addr::from_bits(bits as u32);
    #[allow(clippy::cast_possible_truncation)]
    let sixtofour = Ipv4Addr::from_bits((bits >> 80) as u32);
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => IpAddr::V4(low),
        [0, 0, 0, 0, 0, 0, hi, _] if hi != 0 => IpAddr::V4(low),
        [0x2002, ..] => IpAddr::V4(sixtofour),
        _ => ip,
    }
}

/// Link-local addresses, where clouds answer with a machine's own credentials, and what is no host at all.
pub(crate) fn is_forbidden(ip: IpAddr) -> bool {
    match reached(ip) {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || is_metadata(v4)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast() || v6 == METADATA_V6
        }
    }
}

/// Amazon's, on IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Those of Alibaba and Azure, which do not lie in the link-local network.
fn is_metadata(v4: Ipv4Addr) -> bool {
    matches!(v4.octets(), [100, 100, 100, 200] | [168, 63, 129, 16])
}

/// Whether `ip` is an address of the internet at large: not loopback, private, shared or reserved.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match reached(ip) {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (18..20).contains(&b);
            !(v4.is_loopback()
                || v4.is_private()
                || is_forbidden(ip)
                || shared
                || benchmark
                || a == 0
                || a >= 240)
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || is_forbidden(ip)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_29_addresses_are_judged_however_they_are_written() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        for bad in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            assert!(is_forbidden(ip(bad)), "{bad}");
            assert!(!is_public(ip(bad)), "{bad}");
        }
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_forbidden(ip(private)), "{private}");
            assert!(!is_public(ip(private)), "{private}");
        }
        for public in ["8.8.8.8", "2606:4700::1111", "172.32.0.1"] {
            assert!(is_public(ip(public)), "{public}");
        }
    }

    #[test]
    fn networks() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        assert!(in_network(ip("127.8.9.1"), ip("127.0.0.0"), 8));
        assert!(in_network(ip("::ffff:127.0.0.1"), ip("127.0.0.0"), 8));
        assert!(!in_network(ip("128.0.0.1"), ip("127.0.0.0"), 8));
        assert!(in_network(ip("1.2.3.4"), ip("9.9.9.9"), 0));
        assert!(in_network(ip("fd00::5"), ip("fd00::"), 64));
        assert!(!in_network(ip("::1"), ip("127.0.0.0"), 8));
    }
}
