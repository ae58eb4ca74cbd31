use std::io;
use std::net::IpAddr;

use longshore_oci::Kind;

/// What can go wrong with networks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("{action}: {source}{}", detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Netlink {
        /// What was attempted, naming the object.
        action: String,
        /// The kernel's error.
        source: io::Error,
        /// The kernel's own words, where it has any.
        detail: Option<String>,
    },
    /// A system call other than a netlink request failed.
    #[error("{action}: {source}")]
    System {
        /// What was attempted, naming the object.
        action: String,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error("malformed netlink answer to {action}: {reason}")]
    Malformed {
        /// What was asked.
        action: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A setting of a network or endpoint is wrong.
    #[error("{0}")]
    Invalid(String),
    /// An object of that name exists and is something else.
    #[error("{0}")]
    Conflict(String),
    /// Not built yet.
    #[error("{0}")]
    Unimplemented(String),
    /// The address is taken.
    #[error("address {0} is already in use")]
    AddressInUse(IpAddr),
    /// The address lies outside the pool, or is its gateway, network or broadcast address.
    #[error("address {address} cannot be used in subnet {subnet}")]
    AddressOutside {
        /// The address.
        address: IpAddr,
        /// The pool's subnet.
        subnet: crate::IpNet,
    },
    /// The pool is used up.
    #[error("no available addresses in subnet {0}: remove containers or use a larger subnet")]
    AddressesExhausted(crate::IpNet),
    /// Every default pool overlaps a network of the host.
    #[error("all predefined address pools overlap networks of this host: give a subnet explicitly")]
    PoolsExhausted,
    /// One of our own containers has the port.
    #[error("Bind for {host} failed: port is already allocated")]
    PortAllocated {
        /// Host address and port.
        host: String,
    },
    /// A program of the host has the port, or the address is not local.
    #[error("failed to bind host port for {binding}: {}", crate::ports::bind_words(source))]
    PortBind {
        /// `host-ip:host-port:container-ip:container-port/proto`.
        binding: String,
        /// The system's error.
        source: io::Error,
    },
    /// No port of the range is free.
    #[error("all ports of {range} are allocated on {host_ips}")]
    PortsExhausted {
        /// The host's addresses.
        host_ips: String,
        /// The range, as `first-last/proto`.
        range: String,
    },
    /// Another table drops what is forwarded, and an exception could not be made there.
    #[error(
        "chain {chain} of table {family} {table} drops forwarded packets, and an exception for {bridge} could not be \
         added: {reason}"
    )]
    ForeignChain {
        /// The family of the table.
        family: &'static str,
        /// The table.
        table: String,
        /// Its chain.
        chain: String,
        /// Our bridge.
        bridge: String,
        /// Why it could not be added.
        reason: String,
        /// firewalld keeps the table to itself, and can be asked.
        of_firewalld: bool,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The error in the vocabulary that all parts share.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Netlink { source, .. } | Error::System { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Kind::Denied,
                io::ErrorKind::AlreadyExists => Kind::Conflict,
                _ => Kind::Internal,
            },
            Error::Malformed { .. } | Error::ForeignChain { .. } => Kind::Internal,
            Error::Invalid(_) | Error::AddressOutside { .. } => Kind::Invalid,
            Error::Conflict(_) | Error::AddressInUse(_) => Kind::Conflict,
            Error::Unimplemented(_) => Kind::Unimplemented,
            Error::AddressesExhausted(_)
            | Error::PoolsExhausted
            | Error::PortAllocated { .. }
            | Error::PortBind { .. }
            | Error::PortsExhausted { .. } => Kind::Unavailable,
        }
    }

    pub(crate) fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::System { action: action.into(), source: source.into() }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Error::Netlink { source, .. } | Error::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    pub(crate) fn is_errno(&self, errno: rustix::io::Errno) -> bool {
        self.errno() == Some(errno.raw_os_error())
    }
}
