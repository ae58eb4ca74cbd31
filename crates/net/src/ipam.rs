//! Addresses: one pool per subnet, and the choice of a subnet that the host does not use.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::overlap;
use crate::error::{Error, Result};

/// The addresses of a subnet that are in use. It keeps nothing: whoever opens it reserves what is taken.
#[derive(Clone, Debug)]
pub struct Ipam {
    subnet: IpNet,
    /// Where addresses come from that nobody asks for; of the subnet.
    range: IpNet,
    /// Never given away, nor taken back.
    kept: BTreeSet<u128>,
    used: BTreeSet<u128>,
}

impl Ipam {
    /// A pool of `subnet`, in which only `kept` (the gateway, addresses of others) are taken. What nobody asks for comes out
    /// of `range`, where there is one.
    ///
    /// # Errors
    /// If one of `kept`, or the range, is not in the subnet.
    pub fn new(subnet: IpNet, range: Option<IpNet>, kept: &[IpAddr]) -> Result<Self> {
        let subnet = subnet.trunc();
        let range = range.map_or(subnet, |range| range.trunc());
        if !subnet.contains(&range) {
            return Err(Error::Invalid(format!("ip-range {range} is not in subnet {subnet}")));
        }
        let mut pool = Ipam { subnet, range, kept: BTreeSet::new(), used: BTreeSet::new() };
        for address in kept {
            pool.reserve(*address)?;
        }
        pool.kept.clone_from(&pool.used);
        Ok(pool)
    }

    /// The pool's subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// Takes the lowest free address.
    ///
    /// # Errors
    /// If every address is taken.
    pub fn allocate(&mut self) -> Result<IpAddr> {
        let exhausted = || Error::AddressesExhausted(self.subnet);
        let (first, last) = bounds(&self.subnet).ok_or_else(exhausted)?;
        // Of a part of a subnet all addresses may be used that are any in the whole.
        let (first, last) = (first.max(bits(self.range.network())), last.min(bits(self.range.broadcast())));
        let mut candidate = first;
        for taken in self.used.range(first..) {
            if *taken != candidate {
                break;
            }
            candidate = candidate.saturating_add(1);
        }
        if candidate > last {
            return Err(exhausted());
        }
        self.used.insert(candidate);
        Ok(self.address(candidate))
    }

    /// Takes this address.
    ///
    /// # Errors
    /// If it is taken, or not one of the subnet's host addresses.
    pub fn reserve(&mut self, address: IpAddr) -> Result<()> {
        let number = bits(address);
        let inside = bounds(&self.subnet).is_some_and(|(first, last)| (first..=last).contains(&number));
        if !inside || !self.subnet.contains(&address) {
            return Err(Error::AddressOutside { address, subnet: self.subnet });
        }
        if self.used.insert(number) { Ok(()) } else { Err(Error::AddressInUse(address)) }
    }

    /// Gives an address back; what is kept stays, and one that was not taken is fine.
    pub fn release(&mut self, address: IpAddr) {
        let number = bits(address);
        if self.subnet.contains(&address) && !self.kept.contains(&number) {
            self.used.remove(&number);
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.subnet {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The first and last host address. In IPv6 nothing is a broadcast, and the lowest address is that of all routers (RFC
/// 4291, 2.6.1).
fn bounds(subnet: &IpNet) -> Option<(u128, u128)> {
    let first = bits(subnet.network()).checked_add(1)?;
    let last = match subnet {
        IpNet::V4(_) => bits(subnet.broadcast()).checked_sub(1)?,
        IpNet::V6(_) => bits(subnet.broadcast()),
    };
    (first <= last).then_some((first, last))
}

/// The gateway that a subnet has where nobody names one: its first address.
///
/// # Errors
/// If the subnet has no room for a gateway and a container.
pub fn first_address(subnet: &IpNet) -> Result<IpAddr> {
    match bounds(&subnet.trunc()) {
        Some((first, last)) if first < last => Ipam::new(*subnet, None, &[])?.allocate(),
        _ => Err(Error::Invalid(format!("subnet {subnet} is too small for a network"))),
    }
}

/// The subnets tried for a network that names none: 172.17 to 172.31 as /16, then 192.168 in /20.
pub fn default_pools() -> Vec<IpNet> {
    let large = (17..=31).filter_map(|b| Ipv4Net::new(Ipv4Addr::new(172, b, 0, 0), 16).ok());
    let small = (0..=15).filter_map(|n| Ipv4Net::new(Ipv4Addr::new(192, 168, n * 16, 0), 20).ok());
    large.chain(small).map(IpNet::V4).collect()
}

/// The subnets tried for a network with IPv6 that names none: the first hundred /64 of a site whose number (RFC 4193) is
/// made of `seed`: the same for the same engine, and hardly another's.
pub fn unique_local_pools(seed: &[u8]) -> Vec<IpNet> {
    let digest = longshore_oci::Digest::of(seed);
    let site = u64::from_str_radix(digest.hex().get(..10).unwrap_or_default(), 16).unwrap_or(0);
    let prefix = (0xfd_u128 << 120) | (u128::from(site) << 80);
    let net = |n: u128| Ipv6Net::new(Ipv6Addr::from_bits(prefix | (n << 64)), 64).ok();
    (0..100).filter_map(net).map(IpNet::V6).collect()
}

/// The first pool that overlaps none of `in_use`.
///
/// # Errors
/// If there is none.
pub fn pick_subnet(pools: &[IpNet], in_use: &[IpNet]) -> Result<IpNet> {
    // A default route covers everything and says nothing about what is used.
    let taken = |pool: &IpNet| in_use.iter().any(|n| n.prefix_len() > 0 && overlap(n, pool));
    pools.iter().find(|pool| !taken(pool)).copied().ok_or(Error::PoolsExhausted)
}

/// The networks that this host has addresses in or routes to.
///
/// # Errors
/// If the kernel refuses to list them.
pub fn host_networks() -> Result<Vec<IpNet>> {
    crate::netlink::host_networks()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, gateway: &str) -> Ipam {
        Ipam::new(subnet.parse().unwrap(), None, &[gateway.parse().unwrap()]).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_address_is_taken() {
        let mut pool = pool("172.17.0.0/16", "172.17.0.1");
        assert_eq!(pool.allocate().unwrap(), ip("172.17.0.2"));
        pool.reserve(ip("172.17.0.3")).unwrap();
        assert_eq!(pool.allocate().unwrap(), ip("172.17.0.4"));
        pool.release(ip("172.17.0.2"));
        pool.release(ip("172.17.0.1"));
        assert_eq!(pool.allocate().unwrap(), ip("172.17.0.2"));
        assert!(matches!(pool.reserve(ip("172.17.0.3")), Err(Error::AddressInUse(_))));
        for outside in
            ["172.17.0.0", "172.17.255.255", "172.18.0.1", "0.0.0.0", "255.255.255.255", "::172.17.0.9"]
        {
            assert!(matches!(pool.reserve(ip(outside)), Err(Error::AddressOutside { .. })), "{outside}");
        }
    }

    #[test]
    fn both_families_have_pools() {
        let mut pool = pool("fd00:1::/64", "fd00:1::1");
        assert_eq!(pool.allocate().unwrap(), ip("fd00:1::2"));
        pool.reserve(ip("fd00:1::ffff:ffff:ffff:ffff")).unwrap();
        assert!(pool.reserve(ip("fd00:1::")).is_err());
        assert_eq!(first_address(&"fd00::/64".parse().unwrap()).unwrap(), ip("fd00::1"));
        assert_eq!(first_address(&"10.1.0.0/16".parse().unwrap()).unwrap(), ip("10.1.0.1"));
        for small in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/128"] {
            assert!(first_address(&small.parse().unwrap()).is_err(), "{small}");
        }
        let mine = unique_local_pools(b"engine");
        assert_eq!(mine, unique_local_pools(b"engine"));
        assert_ne!(mine[0], unique_local_pools(b"other")[0]);
        assert!(mine[0].to_string().starts_with("fd") && mine[0].prefix_len() == 64);
    }

    #[test]
    fn a_range_gives_what_nobody_asks_for() {
        let subnet = "10.0.0.0/24".parse().unwrap();
        let mut pool =
            Ipam::new(subnet, Some("10.0.0.128/30".parse().unwrap()), &[ip("10.0.0.129")]).unwrap();
        let got: Vec<_> = (0..3).map(|_| pool.allocate().unwrap().to_string()).collect();
        assert_eq!(got, ["10.0.0.128", "10.0.0.130", "10.0.0.131"]);
        assert!(matches!(pool.allocate(), Err(Error::AddressesExhausted(_))));
        pool.reserve(ip("10.0.0.7")).unwrap();
        assert!(Ipam::new(subnet, Some("10.0.1.0/30".parse().unwrap()), &[]).is_err());
    }

    #[test]
    fn a_pool_ends() {
        let mut small = pool("10.0.0.0/30", "10.0.0.2");
        assert_eq!(small.allocate().unwrap(), ip("10.0.0.1"));
        assert!(matches!(small.allocate(), Err(Error::AddressesExhausted(_))));
        assert!(Ipam::new("10.0.0.0/31".parse().unwrap(), None, &[ip("10.0.0.0")]).is_err());
        assert!(Ipam::new("10.0.0.0/24".parse().unwrap(), None, &[ip("10.0.1.0")]).is_err());
    }

    #[test]
    fn the_first_pool_apart_from_the_host_is_picked() {
        let pools = default_pools();
        assert_eq!(pools.len(), 31);
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect::<Vec<IpNet>>();
        let pick = |list: &[&str]| pick_subnet(&pools, &nets(list)).map(|n| n.to_string());
        assert_eq!(pick(&[]).unwrap(), "172.17.0.0/16");
        assert_eq!(pick(&["0.0.0.0/0", "::/0", "172.17.4.0/24"]).unwrap(), "172.18.0.0/16");
        assert_eq!(pick(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert!(matches!(pick(&["172.16.0.0/12", "192.168.0.0/16"]), Err(Error::PoolsExhausted)));
    }
}
