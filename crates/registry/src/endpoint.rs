//! One server that has repositories, a registry or a mirror of it, and what was learnt of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::transport::{Addresses, Profile, Trust};
use crate::url::{Origin, Url, split_host_port};
use crate::{Error, Limits, Mirror, Result};

/// Where Docker Hub's repositories are.
const HUB_HOST: &str = "registry-1.docker.io";
/// So long a mirror that failed is not asked again.
const MIRROR_REST: Duration = Duration::from_secs(30);

/// One server.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// For people: host, and port if one was named.
    pub(crate) name: String,
    pub(crate) host: String,
    /// As it was named; otherwise the scheme's own.
    port: Option<u16>,
    /// A mirror's scheme is given; a registry's is found out.
    scheme: Option<bool>,
    /// Before a repository's name: empty, or a path that ends in `/`.
    pub(crate) prefix: String,
    pub(crate) is_mirror: bool,
    learnt: Mutex<Learnt>,
    /// One token is asked for at a time, so that many requests at once ask for one.
    pub(crate) tokens: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Learnt {
    /// It answered, once at least.
    known: bool,
    way: Option<Way>,
    challenge: Option<Asks>,
    /// Its address is one of the internet.
    public: bool,
    rests_until: Option<Instant>,
}

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) tls: bool,
    pub(crate) verify: bool,
    pub(crate) addresses: Addresses,
}

/// What a server wants to know of its users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Basic,
    Bearer { realm: Url, service: String },
}

impl Endpoint {
    /// The registry of that name in references.
    pub(crate) fn registry(name: &str) -> Result<Self> {
        let host = if name == "docker.io" { HUB_HOST } else { name };
        let (host, port) = split_host_port(host).ok_or_else(|| {
            Error::Invalid(format!("{:?} is no registry's name", crate::error::printable(name)))
        })?;
        Ok(Self::new(name.to_owned(), host, port))
    }

    /// That of Docker Hub's older interface, which has the search.
    pub(crate) fn search(name: &str) -> Result<Self> {
        Self::registry(if name == "docker.io" { "index.docker.io" } else { name })
    }

    pub(crate) fn mirror(mirror: &Mirror) -> Result<Self> {
        let url = mirror.base()?;
        let prefix = url.path().trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let Origin { tls, host, port } = url.origin.clone();
        let new = Self::new(url.origin.authority(), host, Some(port));
        Ok(Self { scheme: Some(tls), prefix, is_mirror: true, ..new })
    }

    fn new(name: String, host: String, port: Option<u16>) -> Self {
        Self {
            name,
            host,
            port,
            scheme: None,
            prefix: String::new(),
            is_mirror: false,
            learnt: Mutex::default(),
            tokens: tokio::sync::Mutex::default(),
        }
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port that decides whether a rule names it.
    pub(crate) fn tls_port(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    pub(crate) fn origin(&self, tls: bool) -> Origin {
        Origin { tls, host: self.host.clone(), port: self.port.unwrap_or(if tls { 443 } else { 80 }) }
    }

    /// The ways to try, the best first: the one that worked, or what `trust` allows.
    pub(crate) fn ways(&self, trust: Trust) -> Vec<Way> {
        let (verify, addresses) = match trust {
            Trust::Verified => (true, Addresses::Any),
            Trust::Insecure(addresses) => (false, addresses),
        };
        let way = |tls| Way { tls, verify, addresses };
        match (self.scheme, verify) {
            (Some(tls), _) => vec![way(tls)],
            (None, true) => vec![way(true)],
            (None, false) => vec![way(true), way(false)],
        }
    }

    pub(crate) fn way(&self) -> Option<Way> {
        self.learnt().way
    }

    pub(crate) fn reached(&self, way: Way, public: bool) {
        let mut learnt = self.learnt();
        learnt.way = Some(way);
        learnt.known = true;
        learnt.public = public;
    }

    /// Whether it ever answered.
    pub(crate) fn is_known(&self) -> bool {
        self.learnt().known
    }

    /// It is found out anew how it is reached.
    pub(crate) fn lost(&self) {
        self.learnt().way = None;
    }

    pub(crate) fn is_public(&self) -> bool {
        self.learnt().public
    }

    pub(crate) fn asks(&self) -> Option<Asks> {
        self.learnt().challenge.clone()
    }

    pub(crate) fn set_asks(&self, asks: Asks) {
        self.learnt().challenge = Some(asks);
    }

    /// How often a request is tried: where there is another server to ask, not as often.
    pub(crate) fn attempts(&self, limits: &Limits) -> u32 {
        if self.is_mirror { limits.attempts.min(2) } else { limits.attempts }
    }

    /// A mirror that failed, or lied, is left alone for a while.
    pub(crate) fn rest(&self) {
        if self.is_mirror {
            self.learnt().rests_until = Some(Instant::now() + MIRROR_REST);
        }
    }

    pub(crate) fn rests(&self) -> bool {
        self.learnt().rests_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Way {
    pub(crate) fn profile(self) -> Profile {
        Profile { verify: self.verify, client_cert: true, addresses: self.addresses }
    }

    /// Whether the server proves who it is.
    pub(crate) fn is_verified(self) -> bool {
        self.tls && self.verify
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ways() {
        let hub = Endpoint::registry("docker.io").unwrap();
        assert_eq!(
            (hub.name.as_str(), hub.origin(true).to_string()),
            ("docker.io", "https://registry-1.docker.io".into())
        );
        assert_eq!(hub.ways(Trust::Verified).len(), 1);
        let local = Endpoint::registry("localhost:5000").unwrap();
        let ways = local.ways(Trust::Insecure(Addresses::Insecure));
        assert_eq!(
            ways.iter().map(|w| local.origin(w.tls).to_string()).collect::<Vec<_>>(),
            ["https://localhost:5000", "http://localhost:5000"]
        );
        let mirror =
            Endpoint::mirror(&Mirror::new("docker.io", "http://m.example:81/hub/").unwrap()).unwrap();
        assert_eq!((mirror.prefix.as_str(), mirror.ways(Trust::Verified).len()), ("hub/", 1));
        assert!(!mirror.ways(Trust::Verified)[0].tls);
    }

    #[test]
    fn a_mirror_that_failed_rests_and_a_registry_does_not() {
        let mirror = Endpoint::mirror(&Mirror::new("docker.io", "https://m.example").unwrap()).unwrap();
        assert!(!mirror.rests());
        mirror.rest();
        assert!(mirror.rests());
        let registry = Endpoint::registry("r.example").unwrap();
        registry.rest();
        assert!(!registry.rests());
    }
}
