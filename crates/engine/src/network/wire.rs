//! Containers and their networks: connected at their start, and while they run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use longshore_net::dns::{DnsOptions, upstreams};
use longshore_net::{DefaultRoute, Endpoint, InterfaceSysctl, PortMap, PortReservation};
use longshore_sys::netns;

use super::{Bridge, NameServer, Record as Network, Relays, is_custom};
use crate::container::Container;
use crate::container::files::{Net, host_conf};
use crate::container::spec::may_configure_network;
use crate::engine::make_dir;
use crate::model::EndpointSettings;
use crate::record::Record;
use crate::{Engine, Error, Result, names as ids};

/// How interfaces in containers are called.
pub(super) const INTERFACE: &str = "eth";

/// How a container is connected.
pub(crate) struct Wiring {
    pub(crate) netns: Option<OwnedFd>,
    links: Vec<Link>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) files: Net,
}

/// What a run holds of its networks; dropped, it is given back.
#[derive(Default)]
pub(crate) struct Held {
    /// Before the sockets that it listens on.
    pub(super) relays: Relays,
    pub(super) reservation: Option<PortReservation>,
    pub(crate) names: Option<NameServer>,
}

/// A connection to one network.
pub(super) struct Link {
    pub(super) network: Arc<Network>,
    pub(super) bridge: Arc<Bridge>,
    pub(super) endpoint: Endpoint,
}

impl Held {
    /// The ports that the daemon listens on.
    pub(super) fn listeners(&self) -> Vec<PortMap> {
        self.relays.ports()
    }
}

impl Wiring {
    fn new() -> Self {
        Self { netns: None, links: Vec::new(), gateway: None, files: Net::Own }
    }

    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.links.iter().flat_map(|link| link.endpoint.addresses.iter().copied()).collect()
    }
}

/// Networks in the order of their interfaces: the one that the container was made for first.
fn in_order(record: &Record) -> Vec<String> {
    let first = record.host.network_mode.as_str();
    let (mut own, others): (Vec<String>, Vec<String>) =
        record.networks.keys().cloned().partition(|name| name == first);
    own.extend(others);
    own
}

/// The link that a family's default route leads over, and the container's address there.
pub(super) fn leading(links: &[Link], ipv6: bool) -> Option<(&Link, IpAddr)> {
    let leads = |link: &&Link| match ipv6 {
        true => link.endpoint.default_route.ipv6,
        false => link.endpoint.default_route.ipv4,
    };
    let link = links.iter().find(leads)?;
    link.endpoint.addresses.iter().find(|ip| ip.is_ipv6() == ipv6).map(|ip| (link, *ip))
}

/// Over which of the networks the default route of a family leads: the one with the highest priority, of these the first by
/// name. Internal ones have none.
fn default_network<'a>(
    record: &Record,
    candidates: impl Iterator<Item = &'a Arc<Network>>,
    ipv6: bool,
) -> Option<&'a str> {
    let priority = |network: &Network| record.networks.get(&network.name).map_or(0, |e| e.gw_priority);
    let usable = candidates.filter(|network| network.has(ipv6) && !network.internal);
    usable.min_by_key(|n| (std::cmp::Reverse(priority(n)), n.name.as_str())).map(|n| n.name.as_str())
}

impl Engine {
    /// The network namespace, the addresses and the ports, as the record asks; stored in the record.
    pub(crate) fn connect(&self, c: &Container, record: &mut Record) -> Result<Wiring> {
        let networking = |e: Error| e.context("failed to set up container networking");
        let mut wiring = Wiring::new();
        if let Some(id) = record.host.network_mode.strip_prefix("container:") {
            self.join(id, &mut wiring)?;
            return Ok(wiring);
        }
        let mut found = Vec::new();
        for name in in_order(record) {
            found.push(self.inner.networks.find(&name).map_err(networking)?);
        }
        let Some(first) = found.first() else {
            return Err(networking(Error::internal("the container has no network")));
        };
        record.sandbox = ids::new_id()?;
        if first.driver == "host" {
            wiring.files = Net::Host;
        } else {
            let fd = netns::create()?;
            let pin = self.inner.paths.netns(&record.sandbox);
            if let Some(dir) = pin.parent() {
                make_dir(dir, 0o700)?;
            }
            netns::pin(&fd, &pin)?;
            wiring.netns = Some(fd);
        }
        if found.iter().any(|network| network.is_custom()) {
            wiring.files = Net::Named;
        }
        let route = DefaultRouteOf::new(record, &found);
        let alone = found.len() == 1;
        for (n, network) in found.into_iter().enumerate() {
            let mut settings = record.networks.get(&network.name).cloned().unwrap_or_default();
            if alone && settings.asked_mac.is_empty() {
                // Records of earlier versions have it there only.
                settings.asked_mac.clone_from(&record.config.mac_address);
            }
            settings.network_id.clone_from(&network.id);
            settings.endpoint_id = ids::new_id()?;
            // Known to the container from here on, so that a failure frees it.
            note(c, record, &network.name, &settings);
            if network.is_made() {
                let planned = self.plan_link(c, record, &network, &mut settings, route.of(&network.name), n);
                wiring.links.push(planned.map_err(networking)?);
            }
            record.networks.insert(network.name.clone(), settings);
        }
        let mut held = Held::default();
        let published = self.publish(c, record, &mut wiring.links, &mut held);
        c.write().held = held;
        published.map_err(networking)?;
        let gateway = |(link, ip): (&Link, IpAddr)| link.bridge.subnet(ip.is_ipv6()).map(|s| s.gateway);
        wiring.gateway =
            [false, true].into_iter().filter_map(|ipv6| leading(&wiring.links, ipv6)).find_map(gateway);
        Ok(wiring)
    }

    /// Joins the network of another container.
    fn join(&self, id: &str, wiring: &mut Wiring) -> Result<()> {
        let other = self.find(id)?;
        let data = other.read();
        let task = data.task.as_ref().filter(|_| data.record.is_running()).ok_or_else(|| {
            let status = data.record.state.status.word();
            Error::conflict(format!(
                "cannot join network namespace of a non running container: container {} is {status}",
                data.record.name
            ))
        })?;
        let fd = netns::of(task.pid(), task.start_time());
        wiring.netns = Some(fd.map_err(|e| Error::from(e).context("failed to set up container networking"))?);
        wiring.gateway = data.record.networks.values().find_map(|e| e.gateway.parse().ok());
        if data.record.host.network_mode == "host" {
            wiring.files = Net::Host;
        } else if data.record.networks.keys().any(|name| is_custom(name)) {
            // Its name server is in that namespace.
            wiring.files = Net::Named;
        }
        Ok(())
    }

    /// Takes addresses on a network.
    pub(super) fn plan_link(
        &self,
        c: &Container,
        record: &Record,
        network: &Arc<Network>,
        settings: &mut EndpointSettings,
        default_route: DefaultRoute,
        n: usize,
    ) -> Result<Link> {
        let bridge = self.inner.networks.bridge_of(network)?;
        let asked = [&settings.ipam_ipv4, &settings.ipam_ipv6].into_iter().filter_map(|ip| ip.parse().ok());
        let addresses = bridge.allocate(&asked.collect::<Vec<_>>())?;
        settings.ip_address.clear();
        settings.global_ipv6_address.clear();
        for ip in &addresses {
            let subnet = bridge.subnet(ip.is_ipv6());
            let prefix = subnet.map_or(0, |s| u32::from(s.net.prefix_len()));
            // An internal network leads nowhere.
            let gateway = subnet.filter(|_| !network.internal).map(|s| s.gateway.to_string());
            let gateway = gateway.unwrap_or_default();
            match ip {
                IpAddr::V4(ip) => {
                    settings.ip_address = ip.to_string();
                    (settings.ip_prefix_len, settings.gateway) = (prefix, gateway);
                }
                IpAddr::V6(ip) => {
                    settings.global_ipv6_address = ip.to_string();
                    (settings.global_ipv6_prefix_len, settings.ipv6_gateway) = (prefix, gateway);
                }
            }
        }
        note(c, record, &network.name, settings);
        let mac = match (settings.asked_mac.as_str(), addresses.first()) {
            ("", Some(ip)) => longshore_net::mac_for(*ip),
            ("", None) => longshore_net::random_mac()?,
            (text, _) => longshore_net::parse_mac(text)?,
        };
        // Shown while it runs; one of ipvlan has the host's.
        settings.mac_address =
            if network.driver == "ipvlan" { String::new() } else { longshore_net::format_mac(mac) };
        let options = EndpointOptions::read(settings)?;
        let endpoint = Endpoint {
            id: settings.endpoint_id.clone(),
            addresses,
            default_route,
            mac,
            ifname: options.ifname.unwrap_or_else(|| format!("{INTERFACE}{n}")),
            sysctls: options.sysctls,
            ports: Vec::new(),
            guarded: !may_configure_network(&record.host),
        };
        Ok(Link { network: network.clone(), bridge, endpoint })
    }

    /// Makes the interfaces, and tells the container's name to others and theirs to it.
    pub(crate) fn attach_network(&self, record: &Record, wiring: &Wiring) -> Result<Option<NameServer>> {
        let Some(fd) = &wiring.netns else { return Ok(None) };
        for link in &wiring.links {
            link.bridge.attach(fd.as_fd(), &link.endpoint)?;
            tell_names(record, link);
        }
        if wiring.links.is_empty() {
            // Another container's namespace has its loopback up; doing it again changes nothing.
            longshore_net::loopback_up(fd.as_fd())?;
        }
        if !record.networks.keys().any(|name| is_custom(name)) {
            return Ok(None);
        }
        let (zones, outside) = known(&wiring.links);
        self.name_server(record, fd, zones, outside).map(Some)
    }

    pub(super) fn name_server(
        &self,
        record: &Record,
        netns: &OwnedFd,
        zones: Vec<Arc<super::names::Zone>>,
        outside: bool,
    ) -> Result<NameServer> {
        let asked: Vec<IpAddr> = record.host.dns.iter().flatten().filter_map(|s| s.parse().ok()).collect();
        let options = DnsOptions { servers: asked, ..DnsOptions::default() };
        let servers = upstreams(&host_conf(&self.inner.paths), &options);
        NameServer::start(
            &self.inner.networks.runtime,
            netns.as_fd(),
            zones,
            links(record),
            &servers,
            outside,
        )
    }

    /// Frees addresses, interfaces, ports and namespace of a run.
    pub(crate) fn disconnect(&self, c: &Container) {
        let (networks, sandbox, mut held) = {
            let mut data = c.write();
            let has_run = data.record.has_run;
            let networks: Vec<(String, EndpointSettings)> = data
                .record
                .networks
                .iter_mut()
                .filter(|(_, e)| !e.endpoint_id.is_empty())
                .map(|(name, e)| {
                    let old = e.clone();
                    if !has_run {
                        e.network_id.clear();
                    }
                    clear(e);
                    (name.clone(), old)
                })
                .collect();
            data.record.ports.clear();
            (networks, std::mem::take(&mut data.record.sandbox), std::mem::take(&mut data.held))
        };
        held.relays.end_ports(&self.inner.networks.runtime, |_| true);
        drop(held);
        for (name, e) in &networks {
            self.release(c, name, e, false);
        }
        if !sandbox.is_empty()
            && let Err(e) = netns::unpin(&self.inner.paths.netns(&sandbox))
        {
            tracing::debug!(container = c.id, "unpin its network namespace: {e}");
        }
    }

    /// Frees what an endpoint had. `whole`: its interface goes, too, since its namespace stays.
    pub(super) fn release(&self, c: &Container, name: &str, e: &EndpointSettings, whole: bool) {
        let record = self.inner.networks.find(&e.network_id).ok();
        if let Some(bridge) = record.and_then(|record| self.inner.networks.bridge_of(&record).ok()) {
            bridge.zone.remove(&e.endpoint_id);
            let gone = match whole {
                true => {
                    bridge.detach(&self.inner.paths.netns(&c.record().sandbox), &e.endpoint_id, &addresses(e))
                }
                false => bridge.let_go(&e.endpoint_id),
            };
            match gone {
                Ok(()) => addresses(e).into_iter().for_each(|ip| bridge.release(ip)),
                // Its address stays taken: it may still answer there.
                Err(err) => tracing::warn!(container = c.id, "disconnect from {name}: {err}"),
            }
        }
        self.network_event(c, "disconnect", name, &e.network_id);
    }

    pub(crate) fn network_event(&self, c: &Container, action: &str, name: &str, id: &str) {
        if c.read().record.transient {
            return;
        }
        let driver = self.inner.networks.find(name).map(|n| n.driver.clone()).unwrap_or_default();
        let pairs = [("container", c.id.as_str()), ("name", name), ("type", driver.as_str())];
        self.event("network", action, id, &pairs);
    }

    /// The connections of a container that runs.
    pub(super) fn links_of(&self, record: &Record) -> Vec<Link> {
        let routes = self.default_routes(record);
        let mut links = Vec::new();
        for (name, e) in record.networks.iter().filter(|(_, e)| !e.endpoint_id.is_empty()) {
            let Ok(network) = self.inner.networks.find(&e.network_id) else { continue };
            let Ok(bridge) = self.inner.networks.bridge_of(&network) else { continue };
            let mut endpoint = endpoint_of(record, e, routes.of(name));
            endpoint.ports = self.ports_of(record, &endpoint);
            links.push(Link { network, bridge, endpoint });
        }
        links
    }

    pub(super) fn default_routes(&self, record: &Record) -> DefaultRouteOf {
        let networks = record.networks.keys().filter_map(|name| self.inner.networks.find(name).ok());
        DefaultRouteOf::new(record, &networks.collect::<Vec<_>>())
    }
}

/// Which network has the default route of each family.
pub(super) struct DefaultRouteOf {
    pub(super) ipv4: Option<String>,
    pub(super) ipv6: Option<String>,
}

impl DefaultRouteOf {
    pub(super) fn new(record: &Record, networks: &[Arc<Network>]) -> Self {
        let of = |ipv6| default_network(record, networks.iter(), ipv6).map(str::to_owned);
        Self { ipv4: of(false), ipv6: of(true) }
    }

    pub(super) fn of(&self, network: &str) -> DefaultRoute {
        DefaultRoute {
            ipv4: self.ipv4.as_deref() == Some(network),
            ipv6: self.ipv6.as_deref() == Some(network),
        }
    }
}

/// What driver options ask of an endpoint.
#[derive(Default)]
pub(super) struct EndpointOptions {
    pub(super) ifname: Option<String>,
    pub(super) sysctls: Vec<InterfaceSysctl>,
}

impl EndpointOptions {
    /// # Errors
    /// For those that are wrong, or not there yet.
    pub(super) fn read(settings: &EndpointSettings) -> Result<Self> {
        let mut options = Self::default();
        for (key, value) in settings.driver_opts.iter().flatten() {
            match key.as_str() {
                "com.docker.network.endpoint.ifname" => options.ifname = Some(value.clone()),
                "com.docker.network.endpoint.sysctls" => {
                    let all: longshore_net::Result<Vec<_>> = value.split(',').map(str::parse).collect();
                    options.sysctls = all?;
                }
                _ => return Err(Error::unimplemented(format!("the driver option {key} of an endpoint"))),
            }
        }
        Ok(options)
    }
}

/// The names that a container has on a network, its own first.
pub(crate) fn names_of(record: &Record, network: &str) -> Vec<String> {
    let settings = record.networks.get(network);
    let mut names = vec![record.name.clone()];
    names.extend(settings.into_iter().flat_map(|e| e.aliases.iter().flatten().cloned()));
    names.push(record.short_id().to_owned());
    if !record.config.hostname.is_empty() {
        names.push(record.config.hostname.clone());
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

pub(super) fn tell_names(record: &Record, link: &Link) {
    if link.bridge.custom {
        let names = names_of(record, &link.network.name);
        link.bridge.zone.put(&link.endpoint.id, &names, &link.endpoint.addresses);
    }
}

/// `--link name:alias` on networks that somebody made: another name for this container alone.
fn links(record: &Record) -> BTreeMap<String, String> {
    let all = record.networks.values().flat_map(|e| e.links.iter().flatten());
    all.filter_map(|link| link.split_once(':'))
        .map(|(name, alias)| (alias.to_lowercase(), name.trim_start_matches('/').to_lowercase()))
        .collect()
}

/// For which networks names are known, and whether any of all leads outside.
pub(super) fn known(links: &[Link]) -> (Vec<Arc<super::names::Zone>>, bool) {
    let (mut zones, mut outside) = (Vec::new(), false);
    for link in links {
        outside |= !link.bridge.is_internal();
        if link.bridge.custom {
            zones.push(link.bridge.zone.clone());
        }
    }
    (zones, outside)
}

pub(super) fn addresses(e: &EndpointSettings) -> Vec<IpAddr> {
    [&e.ip_address, &e.global_ipv6_address].into_iter().filter_map(|ip| ip.parse().ok()).collect()
}

pub(super) fn endpoint_of(record: &Record, e: &EndpointSettings, default_route: DefaultRoute) -> Endpoint {
    let addresses = addresses(e);
    let mac = longshore_net::parse_mac(&e.mac_address).unwrap_or_default();
    let ifname = format!("{INTERFACE}{}", record.networks.len());
    let (sysctls, ports) = (Vec::new(), Vec::new());
    let guarded = !may_configure_network(&record.host);
    Endpoint { id: e.endpoint_id.clone(), addresses, default_route, mac, ifname, sysctls, ports, guarded }
}

/// What a run gave an endpoint is not kept; a hardware address that was asked for is.
fn clear(e: &mut EndpointSettings) {
    e.endpoint_id.clear();
    e.gateway.clear();
    e.ip_address.clear();
    e.ip_prefix_len = 0;
    e.ipv6_gateway.clear();
    e.global_ipv6_address.clear();
    e.global_ipv6_prefix_len = 0;
    e.mac_address.clear();
}

/// Puts what was taken into the shared record, where `disconnect` finds it.
fn note(c: &Container, record: &Record, name: &str, settings: &EndpointSettings) {
    let mut data = c.write();
    data.record.sandbox.clone_from(&record.sandbox);
    data.record.networks.insert(name.to_owned(), settings.clone());
}
