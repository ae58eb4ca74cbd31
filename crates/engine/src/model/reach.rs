use std::net::IpAddr;

/// A way into a container that runs: where it is reached, by whom, and what lets them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayIn {
    /// The container's id.
    pub container: String,
    /// Its name.
    pub name: String,
    /// Which of its ports; `None`: any.
    pub ports: Option<WayPorts>,
    /// The address that is asked, of the host or of the container; `None`: every one of the host's.
    pub address: Option<IpAddr>,
    /// The first and the last port there; 0 where `ports` is `None`.
    pub at: (u16, u16),
    /// Each of these.
    pub who: Vec<Who>,
    /// What lets them in.
    pub through: Through,
    /// What others' firewalls make of it: each of these has to let it pass, too.
    pub gates: Vec<Gate>,
}

/// Ports of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct WayPorts {
    /// `tcp`, `udp` or `sctp`.
    pub transport: String,
    pub first: u16,
    pub last: u16,
}

/// Who comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever reaches an address of the host's.
    Everybody,
    /// Whoever reaches this one.
    Address(IpAddr),
    /// Programs of the host.
    Host,
    /// The other containers of the network of this name.
    Network(String),
    /// Whoever has a route to this subnet.
    Route(String),
    /// Whoever is in the daemon's network namespace, which is not the host's.
    Daemon,
}

/// What lets somebody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Through {
    /// A part of the engine's table in nftables.
    Rule {
        /// `map`, `set` or `chain`.
        kind: &'static str,
        /// Of the part.
        name: String,
        /// The table, whose family is `inet`.
        table: String,
    },
    /// A socket that the daemon listens on.
    Listener,
    /// The bridge that the container is connected to.
    Bridge(String),
    /// The interface of the host's that the container is on the network of (macvlan, ipvlan).
    Parent(String),
    /// The container has the network of the host, or of the daemon where that is another.
    HostNetwork,
}

/// A chain of another program's table, which drops what it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Gate {
    pub family: &'static str,
    pub table: String,
    pub chain: String,
    /// The engine has put its exception there.
    pub open: bool,
}
