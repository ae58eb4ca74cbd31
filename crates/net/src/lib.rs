//! Container networks: a bridge on the host, a veth pair per container, NAT and published ports.
//!
//! `plan` decides, as data; [`Network`] carries it out through netlink (`netlink`, `nft`), without external programs.
//! [`Ipam`] and [`pick_subnet`] manage addresses, [`PortAllocator`] the host's ports, and [`dns`] writes a container's
//! `resolv.conf` and `hosts`.
//!
//! Netlink is spoken on blocking sockets, and no function here is async: an attach is a few requests that the kernel
//! answers in microseconds. Call it from a blocking thread.
//!
//! All networks of an engine share one table of nftables ([`Firewall`]), named by it, so that two engines live side by
//! side. Published ports are elements of maps in that table, a range of them one element, each marked with its endpoint. Every change is one
//! transaction.
//!
//! Known limits: of other firewalls only what is in nf_tables is seen, not the legacy iptables of old kernels.

#![forbid(unsafe_code)]

mod addr;
pub mod dns;
mod error;
mod firewall;
mod ipam;
mod listeners;
mod netlink;
mod netns;
mod network;
mod nft;
mod parent;
mod plan;
mod ports;
mod procfs;
mod sysctl;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use addr::{format_mac, mac_for, overlap, parse_mac, random_mac, same_family};
pub use error::{Error, Result};
pub use firewall::{Firewall, Ownership};
pub use ipam::{Ipam, default_pools, first_address, host_networks, pick_subnet, unique_local_pools};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use network::{
    Attachment, Network, free_interface, interfaces, loopback_up, name_server, set_default_routes,
};
pub use nft::Gate;
pub use parent::{IpvlanFlag, IpvlanMode, MacvlanMode, ParentConfig, ParentKind, ParentNetwork};
pub use plan::reach::{Rule, RuleKind};
pub use ports::{PortAllocator, PortRequest, PortReservation};
pub use procfs::has_ipv6;
pub use sysctl::InterfaceSysctl;

/// A subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The containers' addresses.
    pub net: IpNet,
    /// The bridge's own address in it, which containers use as their gateway.
    pub gateway: IpAddr,
}

/// The settings of a bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeConfig {
    /// The bridge's interface name.
    pub bridge: String,
    /// At least one, and one of each family at most.
    pub subnets: Vec<Subnet>,
    /// The largest packet, of the bridge and of every container's interface.
    pub mtu: u32,
    /// Whether containers appear to the outside under the host's address.
    pub masquerade: bool,
    /// Whether containers of this network may talk to each other.
    pub icc: bool,
    /// Nothing but the host leads in or out.
    pub internal: bool,
    /// How containers are reached by IPv4, and by IPv6.
    pub modes: [GatewayMode; 2],
}

/// How what is outside and the containers of a network reach each other, as Docker's `gateway_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Under the host's address; only published ports lead in.
    #[default]
    Nat,
    /// As [`GatewayMode::Nat`], and who has a route to a container reaches all its ports.
    NatUnprotected,
    /// By the containers' own addresses, to which others need a route; only published ports are open.
    Routed,
    /// Of internal networks: not even the host is on it.
    Isolated,
}

impl GatewayMode {
    /// Only the network's own bridge leads to its containers.
    const fn is_nat(self) -> bool {
        matches!(self, GatewayMode::Nat | GatewayMode::Isolated)
    }

    /// Addresses are translated.
    const fn translates(self) -> bool {
        !matches!(self, GatewayMode::Routed)
    }
}

impl FromStr for GatewayMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "nat" => Ok(GatewayMode::Nat),
            "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
            "routed" => Ok(GatewayMode::Routed),
            "isolated" => Ok(GatewayMode::Isolated),
            _ => Err(Error::Invalid(format!("unknown gateway mode {text}"))),
        }
    }
}

impl BridgeConfig {
    /// The subnet of a family.
    pub fn subnet(&self, ipv6: bool) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.gateway.is_ipv6() == ipv6)
    }

    /// How containers are reached by a family.
    pub fn mode(&self, ipv6: bool) -> GatewayMode {
        self.modes[usize::from(ipv6)]
    }
}

/// One container's connection to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Names the endpoint for ever; the host's interface is named after a hash of it.
    pub id: String,
    /// The container's addresses: one of each family at most.
    pub addresses: Vec<IpAddr>,
    /// The container's default routes, of these families, lead over it.
    pub default_route: DefaultRoute,
    /// The hardware address of the container's interface.
    pub mac: [u8; 6],
    /// The name of the interface in the container.
    pub ifname: String,
    /// What is set for it.
    pub sysctls: Vec<InterfaceSysctl>,
    /// Published ports. Where one routes to containers, the host's port is 0.
    pub ports: Vec<PortMap>,
    /// What it sends under another's address, or as a router, goes nowhere. It is for containers that may not configure
    /// their network themselves.
    #[serde(default)]
    pub guarded: bool,
}

/// Whether an endpoint has its container's default routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DefaultRoute {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl DefaultRoute {
    /// Of both families.
    pub const BOTH: Self = Self { ipv4: true, ipv6: true };
}

/// A published port, or several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMap {
    /// The transport protocol.
    pub transport: Transport,
    /// The host's address; unspecified (0.0.0.0, ::) for all of that family. It leads to the container's address of the
    /// same family.
    pub host_ip: IpAddr,
    /// The host's port, or the first.
    pub host_port: u16,
    /// The port in the container, or the first.
    pub container_port: u16,
    /// How many; the next leads to the next.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u16,
}

const fn one() -> u16 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
const fn is_one(count: &u16) -> bool {
    *count == 1
}

impl PortMap {
    /// The host's last port.
    pub fn last(&self) -> u16 {
        self.host_port.saturating_add(self.count.saturating_sub(1))
    }

    /// Its ports one by one.
    pub fn each(&self) -> impl Iterator<Item = PortMap> + use<> {
        let all = *self;
        (0..all.count).map(move |n| PortMap {
            host_port: if all.host_port == 0 { 0 } else { all.host_port.saturating_add(n) },
            container_port: all.container_port.saturating_add(n),
            count: 1,
            ..all
        })
    }
}

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Sctp => 132,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Transport::Tcp),
            17 => Some(Transport::Udp),
            132 => Some(Transport::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        })
    }
}

impl FromStr for Transport {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Transport::Tcp),
            "udp" => Ok(Transport::Udp),
            "sctp" => Ok(Transport::Sctp),
            _ => Err(Error::Invalid(format!("invalid proto: {text}"))),
        }
    }
}
