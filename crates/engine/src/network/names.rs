//! What containers on networks that somebody made are called there, and the servers that tell them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError, RwLock};

use longshore_dns::{Names, Options, Server};
use longshore_net::IpNet;
use tokio::runtime::Handle;

use crate::{Error, Result};

/// The port of name servers.
const PORT: u16 = 53;

/// The containers of a network and their names.
pub(crate) struct Zone {
    network: String,
    nets: Vec<IpNet>,
    members: RwLock<BTreeMap<String, Member>>,
}

/// A container on a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    /// Its own first; lower case.
    pub(crate) names: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Zone {
    pub(crate) fn new(network: &str, nets: Vec<IpNet>) -> Self {
        Self { network: network.to_lowercase(), nets, members: RwLock::default() }
    }

    /// Makes a container known, or known by other names than before.
    pub(crate) fn put(&self, endpoint: &str, names: &[String], addresses: &[IpAddr]) {
        let names = names.iter().map(|name| name.to_lowercase()).collect();
        let member = Member { names, addresses: addresses.to_vec() };
        self.members.write().unwrap_or_else(PoisonError::into_inner).insert(endpoint.to_owned(), member);
    }

    pub(crate) fn remove(&self, endpoint: &str) {
        self.members.write().unwrap_or_else(PoisonError::into_inner).remove(endpoint);
    }

    /// The addresses of all containers of that name; `None`: there is none.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let of_name = |name: &str| {
            let mut found = members.values().filter(|m| m.names.iter().any(|n| n == name)).peekable();
            found.peek()?;
            Some(found.flat_map(|m| m.addresses.iter().copied()).collect::<Vec<_>>())
        };
        // A name may have the network's behind it.
        let bare = || of_name(name.strip_suffix(&self.network)?.strip_suffix('.')?);
        of_name(name).or_else(bare)
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let member = members.values().find(|m| m.addresses.contains(&address))?;
        Some(format!("{}.{}", member.names.first()?, self.network))
    }
}

/// What one container knows.
struct View {
    zones: RwLock<Vec<Arc<Zone>>>,
    /// Names of other containers that this one alone knows (`--link`), and what they stand for.
    links: BTreeMap<String, String>,
    upstreams: Vec<SocketAddr>,
    /// Something that it is connected to leads outside.
    outside: std::sync::atomic::AtomicBool,
}

impl View {
    fn zones(&self) -> Vec<Arc<Zone>> {
        self.zones.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Names for View {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = self.links.get(name).map_or(name, String::as_str);
        let found: Vec<_> = self.zones().iter().filter_map(|zone| zone.addresses(name)).collect();
        (!found.is_empty()).then(|| found.into_iter().flatten().collect())
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.zones().iter().find_map(|zone| zone.name_of(address))
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.zones().iter().any(|zone| zone.nets.iter().any(|net| net.contains(&address)))
    }

    fn upstreams(&self) -> Vec<SocketAddr> {
        match self.outside.load(std::sync::atomic::Ordering::Relaxed) {
            true => self.upstreams.clone(),
            // Whoever is on internal networks only would tell others through names (CVE-2024-29018).
            false => Vec::new(),
        }
    }
}

/// The name server of a container; dropped, it ends.
pub(crate) struct NameServer {
    view: Arc<View>,
    _server: Server,
}

impl NameServer {
    /// Starts one in a container's network namespace, whose loopback is up.
    ///
    /// # Errors
    /// When the namespace has no room for it.
    pub(crate) fn start(
        runtime: &Handle,
        netns: BorrowedFd<'_>,
        zones: Vec<Arc<Zone>>,
        links: BTreeMap<String, String>,
        upstreams: &[IpAddr],
        outside: bool,
    ) -> Result<Self> {
        let (udp, tcp) = longshore_net::name_server(netns)?;
        let upstreams = upstreams.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect();
        let outside = outside.into();
        let view = Arc::new(View { zones: RwLock::new(zones), links, upstreams, outside });
        let _within = runtime.enter();
        let server = Server::start(udp, tcp, view.clone(), Options::default());
        let server = server.map_err(|e| Error::io("start a name server", e))?;
        Ok(Self { view, _server: server })
    }

    /// It answers for these networks from now on.
    pub(crate) fn set(&self, zones: Vec<Arc<Zone>>, outside: bool) {
        *self.view.zones.write().unwrap_or_else(PoisonError::into_inner) = zones;
        self.view.outside.store(outside, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_a_network() {
        let zone = Zone::new("Net1", vec!["10.0.0.0/24".parse().expect("net")]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        zone.put("e1", &["Web".into(), "www".into()], &[ip("10.0.0.2"), ip("fd00::2")]);
        zone.put("e2", &["web2".into(), "www".into()], &[ip("10.0.0.3")]);
        assert_eq!(zone.addresses("web"), Some(vec![ip("10.0.0.2"), ip("fd00::2")]));
        assert_eq!(zone.addresses("www.net1").map(|all| all.len()), Some(3));
        assert_eq!(zone.addresses("other"), None);
        assert_eq!(zone.name_of(ip("fd00::2")).as_deref(), Some("web.net1"));
        zone.remove("e1");
        assert_eq!((zone.addresses("web"), zone.name_of(ip("10.0.0.2"))), (None, None));
    }
}
