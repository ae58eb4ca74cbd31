//! A bridge network: opened once, containers attached and detached.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::netlink::{self, ContainerLinks, HostLinks};
use crate::nft::Nft;
use crate::plan::rules::Element;
use crate::plan::{self, EndpointPlan, Side};
use crate::{BridgeConfig, Endpoint, Firewall, netns, procfs};

/// What an attach made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The name of the host's side of the pair.
    pub host_interface: String,
}

/// A bridge on the host with its rules. It keeps nothing on disk: names are derived from the configuration and the
/// endpoint's id, and what exists is read from the kernel.
///
/// It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Network {
    config: BridgeConfig,
    bridge: u32,
    /// What one port of the bridge sends to another passes netfilter.
    bridged_filtered: bool,
    links: Mutex<HostLinks>,
    firewall: Arc<Firewall>,
}

impl Network {
    /// Makes the bridge and its rules, or takes over those that exist; containers attached to them stay so, and
    /// their ports stay published.
    ///
    /// # Errors
    /// If the configuration is wrong, an interface of that name is no bridge, or the kernel refuses.
    pub fn open(config: BridgeConfig, firewall: &Arc<Firewall>) -> Result<Self> {
        let bridge_plan = plan::bridge(&config, crate::random_mac()?)?;
        let mut links = HostLinks::open()?;
        let existed = links.existing_bridge(&config.bridge)?.is_some();
        // The rules first: nothing is ever reachable without them.
        firewall.add_network(&config)?;
        let opened = (|| {
            let bridge = links.ensure_bridge(&bridge_plan)?;
            procfs::set("ipv4/ip_forward", "1")?;
            match config.subnet(true) {
                Some(_) => procfs::forward_ipv6()?,
                // It needs no address of a family that the network has not.
                None => procfs::set_lenient(&format!("ipv6/conf/{}/disable_ipv6", config.bridge), "1"),
            }
            let bridged_filtered = procfs::read("bridge/bridge-nf-call-iptables")?;
            Ok((bridge, bridged_filtered.as_deref() == Some("1")))
        })();
        let (bridge, bridged_filtered) = opened.inspect_err(|_| {
            if !existed {
                let _ = firewall.remove_network(&config.bridge);
                let _ = links.delete_bridge(&config.bridge);
            }
        })?;
        let firewall = Arc::clone(firewall);
        Ok(Network { config, bridge, bridged_filtered, links: Mutex::new(links), firewall })
    }

    /// Where its rules are.
    pub fn firewall(&self) -> &Arc<Firewall> {
        &self.firewall
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &BridgeConfig {
        &self.config
    }

    /// Connects a container's network namespace: interface, address, default route, loopback, published ports. When
    /// it returns, packets pass (on kernels before 6.8 the first may still be lost, if no other container is there).
    ///
    /// # Errors
    /// If the endpoint's settings are wrong or the kernel refuses; nothing of it is left then.
    pub fn attach(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<Attachment> {
        let plan = plan::endpoint(&self.config, endpoint, self.bridged_filtered)?;
        if !endpoint.ports.is_empty() {
            let from_outside = endpoint.ports.iter().any(|port| !port.host_ip.is_loopback());
            self.firewall.check_way(&self.config.bridge, from_outside)?;
        }
        self.create_pair(&plan, netns)?;
        let finished = netns::within(netns, || {
            let mut links = furnish(&plan.side)?;
            self.firewall.set(vec![(plan.host_if.clone(), plan.elements.clone())])?;
            lock(&self.links).settle(&plan.host_if, &self.config.bridge)?;
            links.announce(&plan.side)
        });
        if let Err(error) = finished {
            if let Err(undo) = self.detach(&endpoint.id) {
                tracing::warn!(endpoint = endpoint.id, %undo, "could not undo a failed attach");
            }
            return Err(error);
        }
        Ok(Attachment { host_interface: plan.host_if })
    }

    fn create_pair(&self, plan: &EndpointPlan, netns: BorrowedFd<'_>) -> Result<()> {
        let mut links = lock(&self.links);
        match links.create_veth(plan, self.bridge, netns) {
            Err(error) if error.is_errno(Errno::EXIST) => {
                // A leftover of the same endpoint's earlier life, if it is a port of this bridge.
                let stale =
                    links.link(&plan.host_if)?.is_some_and(|l| l.is_veth && l.master == Some(self.bridge));
                if !stale {
                    return Err(error);
                }
                links.delete(&plan.host_if)?;
                links.create_veth(plan, self.bridge, netns)
            }
            other => other,
        }
    }

    /// Disconnects an endpoint: its published ports and its interface. What is gone already is fine.
    ///
    /// # Errors
    /// If the kernel refuses; everything that could be removed has been.
    pub fn detach(&self, endpoint_id: &str) -> Result<()> {
        let name = plan::host_interface(endpoint_id);
        let ports = self.firewall.set(vec![(name.clone(), Vec::new())]);
        let link = lock(&self.links).delete(&name);
        ports.and(link)
    }

    /// Disconnects an endpoint whose container has ended, at once: its ports are withdrawn and its bridge port disabled,
    /// so that its address may be given to another. The interfaces themselves go with the container's network
    /// namespace, when the caller lets go of it; deleting them here, as [`Network::detach`] does, takes the kernel tens
    /// of milliseconds. Until then their names are taken: an endpoint id is not to be used again.
    ///
    /// # Errors
    /// If the kernel refuses; everything that could be done has been.
    pub fn release(&self, endpoint_id: &str) -> Result<()> {
        let name = plan::host_interface(endpoint_id);
        let ports = self.firewall.set(vec![(name.clone(), Vec::new())]);
        let link = lock(&self.links).silence(&name);
        ports.and(link)
    }

    /// Removes the interfaces of endpoints other than `live`; returns how many.
    ///
    /// # Errors
    /// If the kernel refuses; everything that could be removed has been.
    pub fn sweep(&self, live: &[Endpoint]) -> Result<usize> {
        let live: BTreeSet<String> = live.iter().map(|e| plan::host_interface(&e.id)).collect();
        self.delete_ports(|name| !live.contains(name))
    }

    /// Deletes the bridge's veth ports for which `unwanted` says so.
    fn delete_ports(&self, unwanted: impl Fn(&str) -> bool) -> Result<usize> {
        let mut links = lock(&self.links);
        let (mut removed, mut failure) = (0, None);
        for port in links.ports_of(self.bridge)? {
            // Only interfaces that we named; an administrator may have added others.
            if plan::is_host_interface(&port.name) && unwanted(&port.name) {
                match links.delete(&port.name) {
                    Ok(()) => removed += 1,
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        failure.map_or(Ok(removed), Err)
    }

    /// Whether something is connected to the bridge that is no container's.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn has_foreign_ports(&self) -> Result<bool> {
        let ports = lock(&self.links).ports_of(self.bridge)?;
        Ok(ports.iter().any(|port| !plan::is_host_interface(&port.name)))
    }

    /// Removes the network: containers' interfaces, the bridge, the ruleset.
    ///
    /// # Errors
    /// The first refusal of the kernel; everything that could be removed has been.
    pub fn remove(&self) -> Result<()> {
        let ports = self.delete_ports(|_| true).map(drop);
        let bridge = lock(&self.links).delete_bridge(&self.config.bridge);
        let rules = self.firewall.remove_network(&self.config.bridge);
        ports.and(bridge).and(rules)
    }
}

/// Sets a container's interface up, with its addresses, routes and settings, by a thread in its network namespace.
pub(crate) fn furnish(side: &Side) -> Result<ContainerLinks> {
    // An interface that is down has no IPv6 address yet: so it never gets one that nobody gave it.
    let ipv6 = side.addresses.iter().any(|address| address.addr().is_ipv6());
    for (path, value) in [
        ("ipv6/conf/IF/disable_ipv6", if ipv6 { "0" } else { "1" }),
        ("ipv6/conf/IF/accept_ra", "0"),
        ("ipv6/conf/IF/ndisc_notify", "1"),
        ("ipv4/conf/IF/arp_notify", "1"),
    ] {
        procfs::set_lenient(&path.replace("IF", &side.ifname), value);
    }
    let links = ContainerLinks::set_up(side)?;
    for (path, value) in &side.sysctls {
        procfs::set(path, value)?;
    }
    Ok(links)
}

impl Firewall {
    /// The rules become those of the networks that are open and of these endpoints, and nothing else: for those that were
    /// connected before this was opened, and against what was left by those that are no more.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn settle_endpoints(&self, live: &[(Arc<Network>, Vec<Endpoint>)]) -> Result<()> {
        let endpoints = live.iter().flat_map(|(network, all)| all.iter().map(move |one| (&**network, one)));
        self.settle(elements(endpoints)?.into_iter().collect())
    }

    /// Publishes the ports of connected endpoints, in place of those that they had, in one transaction.
    ///
    /// # Errors
    /// If the kernel refuses; then they have those that they had.
    pub fn set_ports<'a>(
        &self,
        endpoints: impl IntoIterator<Item = (&'a Network, &'a Endpoint)>,
    ) -> Result<()> {
        self.set(elements(endpoints)?)
    }
}

/// What endpoints have in the sets of the tables, by the host's side of each.
fn elements<'a>(
    endpoints: impl IntoIterator<Item = (&'a Network, &'a Endpoint)>,
) -> Result<Vec<(String, Vec<Element>)>> {
    let of_one = |(network, endpoint): (&Network, &Endpoint)| {
        let plan = plan::endpoint(&network.config, endpoint, network.bridged_filtered)?;
        Ok((plan.host_if, plan.elements))
    };
    endpoints.into_iter().map(of_one).collect()
}

/// Sets the loopback interface of a network namespace up: all that `--network none` has.
///
/// # Errors
/// If the namespace cannot be entered or the kernel refuses.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<()> {
    netns::within(netns, netlink::set_loopback_up)
}

/// The names of the interfaces in the network namespace of the calling thread.
///
/// # Errors
/// If the kernel does not say.
pub fn interfaces() -> Result<Vec<String>> {
    netlink::interfaces()
}

/// The first name of interfaces, `prefix` and a number, that none in a network namespace has.
///
/// # Errors
/// If the namespace cannot be entered or the kernel refuses.
pub fn free_interface(netns: BorrowedFd<'_>, prefix: &str) -> Result<String> {
    let taken = netns::within(netns, netlink::interfaces)?;
    let mut all = (0u32..).map(|n| format!("{prefix}{n}"));
    all.find(|name| !taken.contains(name))
        .ok_or_else(|| Error::Invalid("no name of an interface is free".to_owned()))
}

/// Gives a container other default routes; a family without a gateway keeps what it has.
///
/// # Errors
/// If the namespace cannot be entered or the kernel refuses.
pub fn set_default_routes(netns: BorrowedFd<'_>, gateways: &[IpAddr]) -> Result<()> {
    netns::within(netns, || netlink::set_default_routes(gateways))
}

/// Binds the sockets of a name server in a container's network namespace, whose loopback is up: what is asked of 127.0.0.11,
/// port 53, comes to them, and that port is still the container's own. Called again, for a server that is gone, the new
/// sockets take over.
///
/// # Errors
/// If the namespace cannot be entered or the kernel refuses.
pub fn name_server(netns: BorrowedFd<'_>) -> Result<(UdpSocket, TcpListener)> {
    let failed = |e| Error::system("bind a socket of the name server", e);
    netns::within(netns, || {
        let udp = UdpSocket::bind((plan::NAME_SERVER, 0)).map_err(failed)?;
        let tcp = TcpListener::bind((plan::NAME_SERVER, 0)).map_err(failed)?;
        let port = |address: std::io::Result<std::net::SocketAddr>| address.map(|a| a.port()).map_err(failed);
        let ruleset = plan::name_server(port(udp.local_addr())?, port(tcp.local_addr())?);
        Nft::open(&ruleset.table, false)?.install(&ruleset, false)?;
        Ok((udp, tcp))
    })
}

/// A thread that panicked left no half-made message behind: every request is whole before it is sent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
