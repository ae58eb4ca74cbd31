//! Addresses: one pool per subnet, and the choice of a subnet that the host does not use.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::addr::Ipv4Net;
use crate::error::{Error, Result};

/// The addresses of a subnet that are in use. It keeps nothing: whoever opens it reserves what is taken.
#[derive(Clone, Debug)]
pub struct Ipam {
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    used: BTreeSet<u32>,
}

impl Ipam {
    /// A pool of `subnet` in which only `gateway` is taken.
    ///
    /// # Errors
    /// If the gateway is not an address of the subnet.
    pub fn new(subnet: Ipv4Net, gateway: Ipv4Addr) -> Result<Self> {
        let subnet = subnet.trunc();
        let mut pool = Ipam { subnet, gateway, used: BTreeSet::new() };
        pool.reserve(gateway)?;
        Ok(pool)
    }

    /// The pool's subnet.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// The gateway's address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Takes the lowest free address.
    ///
    /// # Errors
    /// If every address is taken.
    pub fn allocate(&mut self) -> Result<Ipv4Addr> {
        let (first, last) = self.bounds().ok_or(Error::AddressesExhausted(self.subnet))?;
        let mut candidate = first;
        for taken in &self.used {
            if *taken != candidate {
                break;
            }
            candidate = candidate.saturating_add(1);
        }
        if candidate > last {
            return Err(Error::AddressesExhausted(self.subnet));
        }
        self.used.insert(candidate);
        Ok(Ipv4Addr::from_bits(candidate))
    }

    /// Takes this address.
    ///
    /// # Errors
    /// If it is taken, or not one of the subnet's host addresses.
    pub fn reserve(&mut self, address: Ipv4Addr) -> Result<()> {
        let bits = address.to_bits();
        let inside = self.bounds().is_some_and(|(first, last)| (first..=last).contains(&bits));
        if !inside {
            return Err(Error::AddressOutside { address, subnet: self.subnet });
        }
        if self.used.insert(bits) { Ok(()) } else { Err(Error::AddressInUse(address)) }
    }

    /// Gives an address back; the gateway's stays, and one that was not taken is fine.
    pub fn release(&mut self, address: Ipv4Addr) {
        if address != self.gateway {
            self.used.remove(&address.to_bits());
        }
    }

    /// The first and last host address.
    fn bounds(&self) -> Option<(u32, u32)> {
        let first = self.subnet.network().to_bits().checked_add(1)?;
        let last = self.subnet.broadcast().to_bits().checked_sub(1)?;
        (first <= last).then_some((first, last))
    }
}

/// The subnets tried for a network that names none: 172.17 to 172.31 as /16, then 192.168 in /20.
pub fn default_pools() -> Vec<Ipv4Net> {
    let large = (17..=31).filter_map(|b| Ipv4Net::new(Ipv4Addr::new(172, b, 0, 0), 16));
    let small = (0..=15).filter_map(|n| Ipv4Net::new(Ipv4Addr::new(192, 168, n * 16, 0), 20));
    large.chain(small).collect()
}

/// The first pool that overlaps none of `in_use`.
///
/// # Errors
/// If there is none.
pub fn pick_subnet(pools: &[Ipv4Net], in_use: &[Ipv4Net]) -> Result<Ipv4Net> {
    // A default route covers everything and says nothing about what is used.
    let taken = |pool: &Ipv4Net| in_use.iter().any(|n| n.prefix() > 0 && n.overlaps(*pool));
    pools.iter().find(|pool| !taken(pool)).copied().ok_or(Error::PoolsExhausted)
}

/// The IPv4 networks that this host has addresses in or routes to.
///
/// # Errors
/// If the kernel refuses to list them.
pub fn host_networks() -> Result<Vec<Ipv4Net>> {
    crate::netlink::host_networks()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, gateway: &str) -> Ipam {
        Ipam::new(subnet.parse().unwrap(), gateway.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_lowest_free_address_is_taken() {
        let mut pool = pool("172.17.0.0/16", "172.17.0.1");
        assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(172, 17, 0, 2));
        pool.reserve(Ipv4Addr::new(172, 17, 0, 3)).unwrap();
        assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(172, 17, 0, 4));
        pool.release(Ipv4Addr::new(172, 17, 0, 2));
        pool.release(Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(pool.allocate().unwrap(), Ipv4Addr::new(172, 17, 0, 2));
        assert!(matches!(pool.reserve(Ipv4Addr::new(172, 17, 0, 3)), Err(Error::AddressInUse(_))));
        for outside in ["172.17.0.0", "172.17.255.255", "172.18.0.1", "0.0.0.0", "255.255.255.255"] {
            assert!(
                matches!(pool.reserve(outside.parse().unwrap()), Err(Error::AddressOutside { .. })),
                "{outside}"
            );
        }
    }

    #[test]
    fn a_pool_ends() {
        let mut small = pool("10.0.0.0/30", "10.0.0.2");
        assert_eq!(small.allocate().unwrap(), Ipv4Addr::new(10, 0, 0, 1));
        assert!(matches!(small.allocate(), Err(Error::AddressesExhausted(_))));
        assert!(Ipam::new("10.0.0.0/31".parse().unwrap(), "10.0.0.0".parse().unwrap()).is_err());
        assert!(Ipam::new("10.0.0.0/24".parse().unwrap(), "10.0.1.1".parse().unwrap()).is_err());
    }

    #[test]
    fn the_first_pool_apart_from_the_host_is_picked() {
        let pools = default_pools();
        assert_eq!(pools.len(), 31);
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect::<Vec<Ipv4Net>>();
        let pick = |list: &[&str]| pick_subnet(&pools, &nets(list)).map(|n| n.to_string());
        assert_eq!(pick(&[]).unwrap(), "172.17.0.0/16");
        assert_eq!(pick(&["0.0.0.0/0", "172.17.4.0/24"]).unwrap(), "172.18.0.0/16");
        assert_eq!(pick(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert!(matches!(pick(&["172.16.0.0/12", "192.168.0.0/16"]), Err(Error::PoolsExhausted)));
    }
}
