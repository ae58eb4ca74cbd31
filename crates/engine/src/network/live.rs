//! Containers that run and their networks: connected and disconnected meanwhile, and taken up again by a daemon that
//! starts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use longshore_net::{DefaultRoute, Endpoint};
use longshore_oci::Kind;
use longshore_sys::netns;

use super::publish::published;
use super::wire::{EndpointOptions, Held, INTERFACE, Link, addresses, known, tell_names};
use super::{Record as Network, Relays, is_custom};
use crate::container::Container;
use crate::container::files::{self, Net};
use crate::model::EndpointSettings;
use crate::record::Record;
use crate::{Engine, Error, Result, names as ids};

impl Engine {
    /// Takes up again what a container that still runs has: addresses, ports, names.
    pub(crate) fn adopt_networks(&self, c: &Container, record: &Record) {
        let warn = |what: &str, e: &Error| tracing::warn!(container = c.id, "{what}: {e}");
        let links = self.links_of(record);
        for link in &links {
            for ip in &link.endpoint.addresses {
                if let Err(err) = link.bridge.reserve(*ip) {
                    warn(&format!("its address {ip}"), &err);
                }
            }
            tell_names(record, link);
        }
        let own: Vec<IpAddr> = published(&links).into_iter().flatten().map(|(_, ip)| ip).collect();
        let reservation = own.first().map(|ip| self.inner.networks.reserve_again(&record.ports, *ip));
        let reservation = match reservation {
            Some(Ok(reservation)) => Some(reservation),
            Some(Err(err)) => {
                warn("its ports", &err);
                None
            }
            None => None,
        };
        let mut relays = Relays::default();
        if let Some(reservation) = &reservation {
            let followed = relays.follow(
                &self.inner.networks.runtime,
                reservation,
                &own,
                self.publishes_locally(record),
            );
            followed.unwrap_or_else(|err| warn("its ports", &err));
        }
        let names = if record.networks.keys().any(|name| is_custom(name)) && !record.sandbox.is_empty() {
            let (zones, outside) = known(&links);
            let fd = netns::open(&self.inner.paths.netns(&record.sandbox)).map_err(Error::from);
            let started = fd.and_then(|fd| self.name_server(record, &fd, zones, outside));
            started.inspect_err(|err| warn("its name server", err)).ok()
        } else {
            None
        };
        c.write().held = Held { relays, reservation, names };
    }

    /// The connections of containers that run, on each bridge.
    pub(crate) fn connections(&self) -> Vec<(Arc<longshore_net::Network>, Vec<Endpoint>)> {
        let bridges = self.inner.networks.bridges().into_iter();
        let mut found: Vec<_> =
            bridges.filter_map(|bridge| Some((bridge.network()?.clone(), Vec::new()))).collect();
        for c in self.all().iter().filter(|c| c.task().is_some()) {
            for link in self.links_of(&c.record()) {
                let slot = found.iter_mut().find(|(known, _)| {
                    link.bridge.network().is_some_and(|network| Arc::ptr_eq(known, network))
                });
                slot.into_iter().for_each(|(_, all)| all.push(link.endpoint.clone()));
            }
        }
        found
    }

    /// Connects a container to another network; one that does not run will be when it starts.
    ///
    /// # Errors
    /// When it is connected already, or cannot be.
    pub(crate) fn connect_to(
        &self,
        c: &Arc<Container>,
        network: &Arc<Network>,
        asked: EndpointSettings,
    ) -> Result<()> {
        let mut record = c.record();
        let running = c.task().is_some();
        if record.host.network_mode.starts_with("container:") {
            return Err(Error::new(
                Kind::Denied,
                "container sharing network namespace with another container or host cannot be connected to any other network",
            ));
        }
        let of_host = record.networks.keys().any(|name| name == "host");
        if (of_host || network.driver == "host") && running {
            return Err(Error::invalid(
                "cannot connect container to host network - container must be created in host network mode",
            ));
        }
        if running && record.networks.contains_key(&network.name) {
            return Err(Error::new(
                Kind::Denied,
                format!("endpoint with name {} already exists in network {}", record.name, network.name),
            ));
        }
        check_endpoint(&network.name, Some(network), &asked)?;
        if !running {
            let asked_mac = asked.mac_address.clone();
            record.networks.insert(network.name.clone(), EndpointSettings { asked_mac, ..asked });
            if network.driver != "null" {
                // What has no network is given one by this.
                record.networks.remove("none");
            }
            return self.keep_networks(c, record);
        }
        if network.driver == "null" || record.networks.contains_key("none") {
            return Err(Error::invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ));
        }
        let mut settings = asked;
        settings.asked_mac.clone_from(&settings.mac_address);
        settings.network_id.clone_from(&network.id);
        settings.endpoint_id = ids::new_id()?;
        let before = record.clone();
        let done = self.connect_now(c, &mut record, network, &mut settings);
        match done
            .and_then(|()| self.keep_networks(c, record))
            .and_then(|()| self.follow_networks(c, &before))
        {
            Ok(()) => {
                self.network_event(c, "connect", &network.name, &network.id);
                Ok(())
            }
            Err(e) => {
                let failed = c.record();
                self.release(c, &network.name, &settings, true);
                let undone = self.keep_networks(c, before).and_then(|()| self.follow_networks(c, &failed));
                if let Err(undo) = undone {
                    tracing::warn!(container = c.id, "undoing a failed connection: {undo}");
                }
                Err(e)
            }
        }
    }

    fn connect_now(
        &self,
        c: &Container,
        record: &mut Record,
        network: &Arc<Network>,
        settings: &mut EndpointSettings,
    ) -> Result<()> {
        let fd = netns::open(&self.inner.paths.netns(&record.sandbox))?;
        let no_route = DefaultRoute { ipv4: false, ipv6: false };
        let mut link = self.plan_link(c, record, network, settings, no_route, 0)?;
        record.networks.insert(network.name.clone(), settings.clone());
        if EndpointOptions::read(settings)?.ifname.is_none() {
            link.endpoint.ifname = longshore_net::free_interface(fd.as_fd(), INTERFACE)?;
        }
        link.bridge.attach(fd.as_fd(), &link.endpoint)?;
        tell_names(record, &link);
        Ok(())
    }

    /// Disconnects a container from a network.
    ///
    /// # Errors
    /// When it is not connected to it.
    pub(crate) fn disconnect_from(&self, c: &Arc<Container>, network: &Network) -> Result<()> {
        let mut record = c.record();
        let running = c.task().is_some();
        if network.driver == "host" {
            return Err(Error::new(
                Kind::Denied,
                "cannot disconnect container from host network - container was created in host network mode",
            ));
        }
        let before = record.clone();
        let Some(settings) = record.networks.remove(&network.name) else {
            return Err(Error::internal(format!(
                "container {} is not connected to network {}",
                record.id, network.name
            )));
        };
        self.keep_networks(c, record)?;
        if running && !settings.endpoint_id.is_empty() {
            self.release(c, &network.name, &settings, true);
            self.follow_networks(c, &before)?;
        }
        Ok(())
    }

    /// Brings routes, ports, name server and files of a running container up to what its networks are now.
    fn follow_networks(&self, c: &Container, before: &Record) -> Result<()> {
        let mut record = c.record();
        let mut links = self.links_of(&record);
        let netns = netns::open(&self.inner.paths.netns(&record.sandbox))?;
        let (old, new) = (self.default_routes(before), self.default_routes(&record));
        let mut gateways = Vec::new();
        for (old, new, ipv6) in [(old.ipv4, new.ipv4, false), (old.ipv6, new.ipv6, true)] {
            let moved = links.iter().find(|link| old != new && new.as_ref() == Some(&link.network.name));
            gateways.extend(moved.and_then(|link| link.bridge.subnet(ipv6)).map(|subnet| subnet.gateway));
        }
        longshore_net::set_default_routes(netns.as_fd(), &gateways)?;
        self.move_ports(c, &mut record, &mut links)?;
        if record.ports != before.ports {
            self.store_record(&record)?;
        }
        let (zones, outside) = known(&links);
        let named = record.networks.keys().any(|name| is_custom(name));
        let server = c.write().held.names.take();
        let server = match (server, named) {
            (_, false) => None,
            (Some(server), true) => {
                server.set(zones, outside);
                Some(server)
            }
            (None, true) => Some(self.name_server(&record, &netns, zones, outside)?),
        };
        c.write().held.names = server;
        let net = if named { Net::Named } else { Net::Own };
        let addresses =
            |record: &Record| -> BTreeSet<IpAddr> { record.networks.values().flat_map(addresses).collect() };
        files::follow(&self.inner.paths, &record, net, &addresses(before), &addresses(&record))
    }

    /// A container that runs publishes the ports that its record asks for now.
    ///
    /// # Errors
    /// When one is in use; then it has those that it had.
    pub(crate) fn change_ports(&self, c: &Container, record: &mut Record) -> Result<()> {
        let mut links = self.links_of(record);
        self.move_ports(c, record, &mut links)
    }

    /// Published ports lead over other networks than before, or there are others.
    fn move_ports(&self, c: &Container, record: &mut Record, links: &mut [Link]) -> Result<()> {
        let bound = record.host.port_bindings.iter().flatten().next().is_some();
        if !bound && !record.host.publish_all_ports && record.ports.is_empty() {
            return Ok(());
        }
        let mut held = std::mem::take(&mut c.write().held);
        let published = self.publish(c, record, links, &mut held);
        c.write().held = held;
        published?;
        let endpoints = links.iter().filter_map(|link| Some((&**link.bridge.network()?, &link.endpoint)));
        Ok(self.inner.networks.firewall.set_ports(endpoints)?)
    }

    /// A container that runs is known by another name.
    pub(crate) fn tell_names_again(&self, c: &Container) {
        let record = c.record();
        self.links_of(&record).iter().for_each(|link| tell_names(&record, link));
    }

    fn keep_networks(&self, c: &Container, record: Record) -> Result<()> {
        self.store_record(&record)?;
        c.write().record.networks = record.networks;
        Ok(())
    }
}

/// Refuses what cannot be asked of a network, whether it is known or not.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check_endpoint(name: &str, network: Option<&Network>, asked: &EndpointSettings) -> Result<()> {
    let mac = &asked.mac_address;
    if !mac.is_empty() && longshore_net::parse_mac(mac).is_err() {
        return Err(Error::invalid(format!("invalid MAC address {mac}")));
    }
    EndpointOptions::read(asked)?;
    let wanted: Vec<(&str, &str)> = [("IPv4", asked.ipam_ipv4.as_str()), ("IPv6", asked.ipam_ipv6.as_str())]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .collect();
    let mut wrong = Vec::new();
    if !is_custom(name) {
        if !wanted.is_empty() {
            wrong.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        if asked.aliases.iter().flatten().next().is_some() {
            let why = "network-scoped alias is supported only for containers in user defined networks";
            wrong.push(why.to_owned());
        }
    }
    for (family, text) in &wanted {
        if text.parse::<IpAddr>().map_or(true, |ip| ip.is_ipv6() != (*family == "IPv6")) {
            wrong.push(format!("invalid {family} address: {text}"));
        }
    }
    for (family, text) in network.into_iter().flat_map(|_| &wanted) {
        let ipv6 = *family == "IPv6";
        let mut pools = network.into_iter().flat_map(|n| &n.pools).filter(|p| p.gateway.is_ipv6() == ipv6);
        match pools.next() {
            Some(pool) if !pool.asked => wrong.push(
                "user specified IP address is supported only when connecting to networks with user configured subnets"
                    .to_owned(),
            ),
            Some(pool) if text.parse::<IpAddr>().is_ok_and(|ip| pool.subnet.contains(&ip)) => {}
            _ => wrong.push(format!("no configured subnet or ip-range contain the IP address {text}")),
        }
    }
    match wrong.as_slice() {
        [] if asked.links.iter().flatten().next().is_some() && !is_custom(name) => {
            Err(Error::unimplemented(format!("linking containers (--link) in network {name}")))
        }
        [] => Ok(()),
        [one] => Err(Error::invalid(format!("invalid endpoint settings:\n{one}"))),
        several => Err(Error::invalid(format!("invalid endpoint settings:\n* {}", several.join("\n* ")))),
    }
}
