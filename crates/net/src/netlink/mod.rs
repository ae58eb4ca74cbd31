//! Netlink: one blocking socket for requests with acknowledgements, and the links, addresses and
//! routes made through it.

mod link;
mod socket;

pub(crate) use link::{
    ContainerLinks, HostLinks, host_networks, interfaces, set_default_routes, set_loopback_up,
};
pub(crate) use socket::{Protocol, Request, Socket};
