//! Published ports: taken on the host, and led to a container by rules of the firewall or by the daemon itself.

use std::net::IpAddr;

use longshore_net::{Endpoint, GatewayMode, PortMap, PortRequest};
use longshore_oci::Kind;

use super::wire::{Held, Link, leading};
use crate::container::{Container, ports};
use crate::model::PublishMode;
use crate::record::Record;
use crate::{Engine, Error, Result};

impl Engine {
    /// Takes the ports that are to be published, unless they are held already; they lead over the networks with the
    /// default routes, and without such a network there are none.
    pub(super) fn publish(
        &self,
        c: &Container,
        record: &mut Record,
        links: &mut [Link],
        held: &mut Held,
    ) -> Result<()> {
        if record.host.publish_mode == PublishMode::Nat && self.inner.options.host_sockets.is_apart() {
            let why = "a daemon without root cannot change the host's firewall: use the publish mode local";
            return Err(Error::new(Kind::Unavailable, why));
        }
        let [v4, v6] = published(links);
        let reach = ports::Reach {
            container_ips: [v4, v6].map(|leading| leading.map(|(_, ip)| ip)),
            host_ip: v4.and_then(|(link, _)| link.bridge.host_ip),
            ipv6: longshore_net::has_ipv6(),
            local: self.publishes_locally(record),
        };
        let mut wanted = ports::requests(
            record.host.port_bindings.as_ref(),
            record.config.run.exposed_ports.as_ref(),
            record.host.publish_all_ports,
            &reach,
        )?;
        let routed = without_host(&mut wanted, [v4, v6]);
        let mut reservation = match held.reservation.take() {
            Some(reservation) => reservation,
            None => self.inner.networks.ports.reserve(&[])?,
        };
        let runtime = &self.inner.networks.runtime;
        held.relays.end_ports(runtime, |port| !wanted.iter().any(|request| request.asks_for(port)));
        let changed = self.inner.networks.ports.change(&mut reservation, &wanted);
        let addresses: Vec<IpAddr> = [v4, v6].into_iter().flatten().map(|(_, ip)| ip).collect();
        let followed = held.relays.follow(runtime, &reservation, &addresses, reach.local);
        record.ports = reservation.ports();
        record.ports.extend(routed);
        held.reservation = Some(reservation);
        changed?;
        followed?;
        note_ports(c, record);
        for link in links {
            link.endpoint.ports = self.ports_of(record, &link.endpoint);
        }
        Ok(())
    }

    /// Whether a container's ports are sockets of the host's that are listened on.
    pub(super) fn publishes_locally(&self, record: &Record) -> bool {
        match record.host.publish_mode {
            PublishMode::Local => true,
            PublishMode::Nat => false,
            PublishMode::Unset => self.inner.options.host_sockets.is_apart(),
        }
    }

    /// The ports that rules of the firewall lead to an endpoint.
    pub(super) fn ports_of(&self, record: &Record, endpoint: &Endpoint) -> Vec<PortMap> {
        let local = self.publishes_locally(record);
        let leads = |port: &&PortMap| match port.host_ip {
            _ if local && port.host_port != 0 => false,
            IpAddr::V4(_) => endpoint.default_route.ipv4 && endpoint.addresses.iter().any(IpAddr::is_ipv4),
            IpAddr::V6(_) => endpoint.default_route.ipv6 && endpoint.addresses.iter().any(IpAddr::is_ipv6),
        };
        record.ports.iter().filter(leads).copied().collect()
    }
}

/// What ports of IPv4 and of IPv6 lead to. Where containers are on the network of the host's interface, they are reached there, by
/// their own addresses.
pub(super) fn published(links: &[Link]) -> [Option<(&Link, IpAddr)>; 2] {
    [false, true].map(|ipv6| leading(links, ipv6).filter(|(link, _)| link.bridge.network().is_some()))
}

/// Where one routes to a container, its ports are open at its own address, and take none of the host's: they are taken out of
/// the requests.
fn without_host(requests: &mut Vec<PortRequest>, leading: [Option<(&Link, IpAddr)>; 2]) -> Vec<PortMap> {
    let mode = |ipv6: bool| {
        let [v4, v6] = leading;
        let own = if ipv6 { v6.or(v4) } else { v4 };
        let (link, ip) = own?;
        Some((link.bridge.config()?.mode(ip.is_ipv6()), ip.is_ipv6() == ipv6))
    };
    let mut open = Vec::new();
    for request in requests.iter_mut() {
        request.host_ips.retain(|host_ip| match mode(host_ip.is_ipv6()) {
            Some((GatewayMode::Routed, of_family)) => {
                if of_family {
                    open.push(PortMap {
                        transport: request.transport,
                        host_ip: *host_ip,
                        host_port: 0,
                        container_port: request.container_port,
                        count: request.count,
                    });
                }
                false
            }
            _ => true,
        });
    }
    requests.retain(|request| !request.host_ips.is_empty());
    open
}

fn note_ports(c: &Container, record: &Record) {
    c.write().record.ports.clone_from(&record.ports);
}
