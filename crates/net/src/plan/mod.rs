//! What a network is to look like, as data: links, addresses, routes and the ruleset. Nothing here touches the
//! system, so every decision can be read and tested without privilege.
//!
//! `rules` has the words, `tables` the rulesets, `reach` says which of them lets somebody in, `print` writes one down in `nft`'s own notation, which is what
//! `nft list table` shows once it is installed.

mod print;
pub(crate) mod reach;
pub(crate) mod rules;
mod tables;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;

use self::rules::{Chain, Element, Set};
pub(crate) use self::tables::{
    NAME_SERVER, base, chain_name, exceptions, guests, name_server, network as network_rules,
};
use crate::addr::same_family;
use crate::error::{Error, Result};
use crate::{
    BridgeConfig, Endpoint, GatewayMode, InterfaceSysctl, IpvlanMode, ParentConfig, ParentKind, PortMap,
    Subnet,
};

/// The longest name the kernel gives an interface.
const INTERFACE_NAME_MAX: usize = 15;

/// The bridge itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgePlan {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
}

/// One container's connection to a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointPlan {
    pub(crate) side: Side,
    pub(crate) host_if: String,
    pub(crate) hairpin: bool,
    /// What other ports of the bridge send does not reach it, nor they what it sends.
    pub(crate) isolated: bool,
    /// What it adds to the sets of the tables.
    pub(crate) elements: Vec<Element>,
}

/// The container's side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) ifname: String,
    /// Files below /proc/sys/net, and what is written into them.
    pub(crate) sysctls: Vec<(String, String)>,
    /// None where the kernel gives it another's.
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) mtu: Option<u32>,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) routes: Vec<Route>,
}

/// How a container reaches what is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Via(IpAddr),
    /// By the interface alone: everybody is its neighbour.
    Link {
        ipv6: bool,
    },
}

/// What a network adds to the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) chains: Vec<Chain>,
    pub(crate) elements: Vec<Element>,
}

/// A table with its sets and chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) table: String,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) elements: Vec<Element>,
}

/// The name of the host's side of an endpoint: `veth` and ten hex digits of a hash of its id.
pub(crate) fn host_interface(endpoint_id: &str) -> String {
    // FNV-1a: stable between releases, and nobody gains by a collision: an attach fails if the name is taken.
    let hash = endpoint_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("veth{:010x}", hash >> 24)
}

/// Whether an interface's name is of the form that [`host_interface`] gives.
pub(crate) fn is_host_interface(name: &str) -> bool {
    name.strip_prefix("veth")
        .is_some_and(|hash| hash.len() == 10 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Refuses a configuration that cannot work, before anything is touched.
pub(crate) fn check_config(config: &BridgeConfig) -> Result<()> {
    check_interface_name(&config.bridge)?;
    check_subnets(&config.subnets)?;
    // The least that a link of IPv4 (RFC 791), and of IPv6 (RFC 8200, 5) may have.
    let least = if config.subnet(true).is_some() { 1280 } else { 68 };
    if !(least..=65535).contains(&config.mtu) {
        return Err(Error::Invalid(format!("invalid MTU {}: choose one from {least} to 65535", config.mtu)));
    }
    Ok(())
}

fn check_subnets(subnets: &[Subnet]) -> Result<()> {
    let families: Vec<bool> = subnets.iter().map(|subnet| subnet.gateway.is_ipv6()).collect();
    if !matches!(families.as_slice(), [_] | [true, false] | [false, true]) {
        return Err(Error::Invalid("a network needs a subnet, and one of each family at most".to_owned()));
    }
    for subnet in subnets {
        crate::first_address(&subnet.net)?;
        check_host_address(&subnet.net, subnet.gateway, "gateway")?;
    }
    Ok(())
}

/// Refuses a configuration that cannot work, before anything is touched.
pub(crate) fn check_parent(config: &ParentConfig) -> Result<()> {
    check_interface_name(&config.parent)?;
    check_subnets(&config.subnets)
}

fn check_host_address(net: &IpNet, ip: IpAddr, what: &str) -> Result<()> {
    let edge = ip == net.network() || (ip.is_ipv4() && ip == net.broadcast());
    if net.contains(&ip) && !edge {
        return Ok(());
    }
    Err(Error::Invalid(format!("{what} {ip} is not an address of subnet {net}")))
}

/// An address with the prefix length of its subnet.
fn within(subnets: &[Subnet], ip: IpAddr, what: &str) -> Result<IpNet> {
    let subnet = subnets.iter().find(|subnet| same_family(&subnet.gateway, &ip));
    let subnet =
        subnet.ok_or_else(|| Error::Invalid(format!("{what} {ip}: the network has no such family")))?;
    check_host_address(&subnet.net, ip, what)?;
    IpNet::new(ip, subnet.net.prefix_len()).map_err(|e| Error::Invalid(format!("{what} {ip}: {e}")))
}

fn check_interface_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > INTERFACE_NAME_MAX
        || name == "."
        || name == ".."
        || !name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'"' | b'%' | b'*'));
    if bad { Err(Error::Invalid(format!("invalid interface name {name:?}"))) } else { Ok(()) }
}

pub(crate) fn bridge(config: &BridgeConfig, mac: [u8; 6]) -> Result<BridgePlan> {
    check_config(config)?;
    // An isolated network has no way to the host either.
    let own = config.subnets.iter().filter(|s| config.mode(s.gateway.is_ipv6()) != GatewayMode::Isolated);
    let addresses = own.map(|subnet| within(&config.subnets, subnet.gateway, "gateway"));
    let addresses = addresses.collect::<Result<_>>()?;
    Ok(BridgePlan { name: config.bridge.clone(), addresses, mac, mtu: config.mtu })
}

/// `bridged_filtered`: what one port of the bridge sends to another passes the forward chain, too.
pub(crate) fn endpoint(
    config: &BridgeConfig,
    endpoint: &Endpoint,
    bridged_filtered: bool,
) -> Result<EndpointPlan> {
    let host_if = host_interface(&endpoint.id);
    let mut elements = Vec::new();
    for port in &endpoint.ports {
        elements.extend(published(config, port, endpoint, &host_if)?);
    }
    if endpoint.guarded {
        elements.extend(tables::guest(endpoint, &host_if));
    }
    Ok(EndpointPlan {
        side: side(&config.subnets, config.internal, endpoint, Some(config.mtu))?,
        // The container's own published port then leads back through the port that it came from.
        hairpin: bridged_filtered,
        // Otherwise the chain would never see what containers say to each other.
        isolated: !config.icc && !bridged_filtered,
        elements,
        host_if,
    })
}

/// The container's side: addresses of the subnets, and default routes over their gateways.
fn side(subnets: &[Subnet], internal: bool, endpoint: &Endpoint, mtu: Option<u32>) -> Result<Side> {
    check_interface_name(&endpoint.ifname)?;
    let addresses = endpoint.addresses.iter().map(|ip| within(subnets, *ip, "container address"));
    let addresses: Vec<IpNet> = addresses.collect::<Result<_>>()?;
    if let Some(taken) = endpoint.addresses.iter().find(|ip| subnets.iter().any(|s| s.gateway == **ip)) {
        return Err(Error::AddressInUse(*taken));
    }
    let routed = |gateway: &IpAddr| match gateway {
        IpAddr::V4(_) => endpoint.default_route.ipv4,
        IpAddr::V6(_) => endpoint.default_route.ipv6,
    };
    // Without an address of the family a route says nothing.
    let used = |gateway: &IpAddr| endpoint.addresses.iter().any(|ip| same_family(ip, gateway));
    let gateways = subnets.iter().map(|subnet| subnet.gateway).filter(|_| !internal);
    let gateways = gateways.filter(|gateway| routed(gateway) && used(gateway));
    let of_ours = |s: &InterfaceSysctl| (s.path(&endpoint.ifname), s.value().to_owned());
    Ok(Side {
        ifname: endpoint.ifname.clone(),
        sysctls: endpoint.sysctls.iter().map(of_ours).collect(),
        mac: Some(endpoint.mac),
        mtu,
        addresses,
        routes: gateways.map(Route::Via).collect(),
    })
}

/// The container's side of a connection to a network below an interface of the host's.
pub(crate) fn parent_side(config: &ParentConfig, endpoint: &Endpoint) -> Result<Side> {
    let mut side = side(&config.subnets, config.internal, endpoint, config.mtu)?;
    if let ParentKind::Ipvlan(mode, _) = config.kind {
        // It has its parent's.
        side.mac = None;
        if mode != IpvlanMode::L2 {
            let by_link = |route: &Route| match route {
                Route::Via(ip) => Route::Link { ipv6: ip.is_ipv6() },
                link @ Route::Link { .. } => *link,
            };
            side.routes = side.routes.iter().map(by_link).collect();
        }
    }
    Ok(side)
}

fn published(
    config: &BridgeConfig,
    port: &PortMap,
    endpoint: &Endpoint,
    owner: &str,
) -> Result<Vec<Element>> {
    let ip = tables::address_for(endpoint, &port.host_ip).ok_or_else(|| {
        Error::Invalid(format!("the container has no address to which {} could lead", port.host_ip))
    })?;
    let routed = config.mode(ip.is_ipv6()) == GatewayMode::Routed;
    let beyond = |first: u16| first.checked_add(port.count.saturating_sub(1)).is_none();
    if port.count == 0 || beyond(port.container_port) || (!routed && beyond(port.host_port)) {
        return Err(Error::Invalid(format!("there are no such ports: {port:?}")));
    }
    if port.container_port == 0 || (!routed && port.host_port == 0) {
        return Err(Error::Invalid(format!("port 0 cannot be published: reserve a port first ({port:?})")));
    }
    if routed {
        let last = port.container_port + (port.count - 1);
        return Ok(vec![tables::opened(port.transport, ip, port.container_port, last, owner)]);
    }
    Ok(tables::published(port, ip, owner))
}
