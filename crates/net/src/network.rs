//! A bridge network: opened once, containers attached and detached.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::netlink::{self, ContainerLinks, HostLinks};
use crate::nft::{Firewall, News};
use crate::plan::{self, Element, EndpointPlan};
use crate::{BridgeConfig, Endpoint, netns, procfs};

/// How many repairs of the ruleset follow each other at once, and the pause between them after that.
const FAST_REPAIRS: u32 = 10;
const SLOW_REPAIR: Duration = Duration::from_secs(1);

/// What an attach made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The name of the host's side of the pair.
    pub host_interface: String,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Interfaces of endpoints that are no more.
    pub links: usize,
    /// Ports that such endpoints had published.
    pub ports: usize,
}

/// A bridge on the host with its ruleset. It keeps nothing on disk: names are derived from the configuration and the
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
    rules: Mutex<Rules>,
}

/// The firewall, and what it is to have.
#[derive(Debug)]
struct Rules {
    firewall: Firewall,
    /// Every port that is published now.
    published: Vec<Element>,
    /// The network was removed: nothing is to be put back.
    removed: bool,
}

impl Rules {
    /// Publishes ports. A table that somebody has removed meanwhile is put back.
    fn publish(&mut self, config: &BridgeConfig, elements: Vec<Element>) -> Result<()> {
        let added = match self.firewall.add(&config.table, &elements) {
            Err(error) if error.is_errno(Errno::NOENT) => {
                self.repair(config)?;
                self.firewall.add(&config.table, &elements)
            }
            other => other,
        };
        added?;
        let known = |new: &Element| !self.published.contains(new);
        let new: Vec<_> = elements.into_iter().filter(known).collect();
        self.published.extend(new);
        Ok(())
    }

    /// Takes ports back; returns how many.
    fn withdraw(&mut self, table: &str, gone: impl Fn(&str) -> bool) -> Result<usize> {
        self.published.retain(|element| !gone(&element.comment));
        self.firewall.remove(table, gone)
    }

    fn withdraw_these(&mut self, table: &str, stale: &[Element]) -> Result<()> {
        self.published.retain(|element| !stale.contains(element));
        self.firewall.take(table, stale)
    }

    /// Puts back what is missing of the table, and the exceptions in others; whether the table had lost something.
    fn repair(&mut self, config: &BridgeConfig) -> Result<bool> {
        if self.removed {
            return Ok(false);
        }
        let ruleset = plan::ruleset(config);
        let lost = !self.firewall.is_whole(&ruleset)?;
        if lost {
            self.firewall.install(&ruleset)?;
            self.firewall.add(&config.table, &self.published)?;
        }
        self.firewall.except(&config.table, &config.bridge)?;
        Ok(lost)
    }
}

impl Network {
    /// Makes the bridge and its table, or takes over those that exist; containers attached to them stay so, and
    /// their ports stay published.
    ///
    /// # Errors
    /// If the configuration is wrong, an interface of that name is no bridge, or the kernel refuses.
    pub fn open(config: BridgeConfig) -> Result<Self> {
        let bridge_plan = plan::bridge(&config, crate::random_mac()?)?;
        let mut links = HostLinks::open()?;
        let existed = links.existing_bridge(&config.bridge)?.is_some();
        // The ruleset first: nothing is ever reachable without it.
        let mut firewall = Firewall::open()?;
        let opened = (|| {
            firewall.install(&plan::ruleset(&config))?;
            firewall.except(&config.table, &config.bridge)?;
            let bridge = links.ensure_bridge(&bridge_plan)?;
            procfs::set("ipv4/ip_forward", "1")?;
            match config.subnet(true) {
                Some(_) => procfs::forward_ipv6()?,
                // It needs no address of a family that the network has not.
                None => procfs::set_lenient(&format!("ipv6/conf/{}/disable_ipv6", config.bridge), "1"),
            }
            let bridged_filtered = procfs::read("bridge/bridge-nf-call-iptables")?;
            let mut published = Vec::new();
            for map in plan::MAPS {
                published.extend(firewall.elements(&config.table, map)?);
            }
            Ok((bridge, bridged_filtered.as_deref() == Some("1"), published))
        })();
        let (bridge, bridged_filtered, published) = opened.inspect_err(|_| {
            if !existed {
                let _ = firewall.unexcept(&config.table);
                let _ = firewall.uninstall(&config.table);
                let _ = links.delete_bridge(&config.bridge);
            }
        })?;
        let rules = Mutex::new(Rules { firewall, published, removed: false });
        Ok(Network { config, bridge, bridged_filtered, links: Mutex::new(links), rules })
    }

    /// Keeps the rules in place from now on, as long as the network is in use: whatever another program takes away (a
    /// reload of the host's firewall starts with that) is put back at once, and a forward chain that drops gets its
    /// exceptions when it appears.
    ///
    /// # Errors
    /// If the kernel does not tell of changes.
    pub fn keep_rules(self: &Arc<Self>) -> Result<()> {
        let mut news = News::open()?;
        let network = Arc::downgrade(self);
        let keep = move || {
            let mut repairs = 0u32;
            loop {
                let heard = news.wait();
                let Some(network) = network.upgrade() else { return };
                match heard {
                    Ok(true) if network.repair_rules() => {
                        repairs += 1;
                        // Against a program that takes them away for ever, there is no hurry.
                        if repairs > FAST_REPAIRS {
                            drop(network);
                            std::thread::sleep(SLOW_REPAIR);
                        }
                    }
                    Ok(_) => repairs = 0,
                    Err(error) => {
                        tracing::warn!(%error, "changes of the host's firewall are not noticed any more");
                        return;
                    }
                }
            }
        };
        let spawned = std::thread::Builder::new().name("firewall".to_owned()).spawn(keep);
        spawned.map_err(|e| Error::system("start a thread", e))?;
        Ok(())
    }

    /// Whether something was missing.
    fn repair_rules(&self) -> bool {
        match lock(&self.rules).repair(&self.config) {
            Ok(true) => {
                tracing::info!(table = self.config.table, "put back rules that had been removed");
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(%error, "could not put the network's rules back");
                true
            }
        }
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &BridgeConfig {
        &self.config
    }

    /// Puts the ruleset back where something of it is missing, and the ports of `endpoints`: for those that were
    /// connected before this was opened.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn restore_rules(&self, endpoints: &[Endpoint]) -> Result<()> {
        let mut elements = Vec::new();
        for endpoint in endpoints {
            elements.extend(plan::endpoint(&self.config, endpoint, self.bridged_filtered)?.elements);
        }
        let mut rules = lock(&self.rules);
        rules.repair(&self.config)?;
        rules.publish(&self.config, elements)
    }

    /// Connects a container's network namespace: interface, address, default route, loopback, published ports. When
    /// it returns, packets pass (on kernels before 6.8 the first may still be lost, if no other container is there).
    ///
    /// # Errors
    /// If the endpoint's settings are wrong or the kernel refuses; nothing of it is left then.
    pub fn attach(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<Attachment> {
        let plan = plan::endpoint(&self.config, endpoint, self.bridged_filtered)?;
        self.create_pair(&plan, netns)?;
        let finished = netns::within(netns, || {
            // An interface that is down has no IPv6 address yet: so it never gets one that nobody gave it.
            let ipv6 = plan.addresses.iter().any(|address| address.addr().is_ipv6());
            procfs::set_lenient(
                &format!("ipv6/conf/{}/disable_ipv6", plan.ifname),
                if ipv6 { "0" } else { "1" },
            );
            procfs::set_lenient(&format!("ipv6/conf/{}/accept_ra", plan.ifname), "0");
            procfs::set_lenient(&format!("ipv6/conf/{}/ndisc_notify", plan.ifname), "1");
            procfs::set_lenient(&format!("ipv4/conf/{}/arp_notify", plan.ifname), "1");
            let mut side = ContainerLinks::set_up(&plan)?;
            for (path, value) in &plan.sysctls {
                procfs::set(path, value)?;
            }
            lock(&self.rules).publish(&self.config, plan.elements.clone())?;
            lock(&self.links).settle(&plan.host_if, &self.config.bridge)?;
            side.announce(&plan)
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

    /// Publishes the ports of a connected endpoint, in place of those that it had.
    ///
    /// # Errors
    /// If the kernel refuses; then the endpoint may have none.
    pub fn set_ports(&self, endpoint: &Endpoint) -> Result<()> {
        let plan = plan::endpoint(&self.config, endpoint, self.bridged_filtered)?;
        let mut rules = lock(&self.rules);
        let kept = |old: &Element| plan.elements.contains(old);
        let stale: Vec<Element> =
            rules.published.iter().filter(|e| e.comment == plan.host_if && !kept(e)).cloned().collect();
        let new = plan.elements.iter().filter(|e| !rules.published.contains(e)).cloned().collect();
        rules.withdraw_these(&self.config.table, &stale)?;
        rules.publish(&self.config, new)
    }

    /// Disconnects an endpoint: its published ports and its interface. What is gone already is fine.
    ///
    /// # Errors
    /// If the kernel refuses; everything that could be removed has been.
    pub fn detach(&self, endpoint_id: &str) -> Result<()> {
        let name = plan::host_interface(endpoint_id);
        let ports = lock(&self.rules).withdraw(&self.config.table, |owner| owner == name);
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
        let ports = lock(&self.rules).withdraw(&self.config.table, |owner| owner == name);
        let link = lock(&self.links).silence(&name);
        ports.and(link)
    }

    /// Removes what belongs to endpoints other than `live`.
    ///
    /// # Errors
    /// If the kernel refuses; everything that could be removed has been.
    pub fn sweep<S: AsRef<str>>(&self, live: &[S]) -> Result<Swept> {
        let live: BTreeSet<String> = live.iter().map(|id| plan::host_interface(id.as_ref())).collect();
        let ports = lock(&self.rules).withdraw(&self.config.table, |owner| !live.contains(owner));
        let links = self.delete_ports(|name| !live.contains(name));
        Ok(Swept { ports: ports?, links: links? })
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
        let mut rules = lock(&self.rules);
        rules.removed = true;
        let exceptions = rules.firewall.unexcept(&self.config.table);
        let table = rules.firewall.uninstall(&self.config.table);
        ports.and(bridge).and(exceptions).and(table)
    }
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
        Firewall::open()?.install(&ruleset)?;
        Ok((udp, tcp))
    })
}

/// A thread that panicked left no half-made message behind: every request is whole before it is sent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
