//! Networks whose containers are on the network of one of the host's interfaces: macvlan and ipvlan. The host translates
//! and filters nothing there, and does not reach the containers by that interface.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::netlink::HostLinks;
use crate::network::furnish;
use crate::{Endpoint, Subnet, netns, plan};

/// The settings of such a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentConfig {
    /// The host's interface: `eth0`, or `eth0.100`, which is made if it is not there.
    pub parent: String,
    /// How its containers share it.
    pub kind: ParentKind,
    /// At least one, and one of each family at most; the gateway is a router there.
    pub subnets: Vec<Subnet>,
    /// The largest packet; `None`: as the parent's.
    pub mtu: Option<u32>,
    /// No way to what is elsewhere.
    pub internal: bool,
}

/// How containers share an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParentKind {
    /// Each has a hardware address of its own.
    Macvlan(MacvlanMode),
    /// All have the interface's.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

impl ParentKind {
    /// The driver's name.
    pub const fn driver(self) -> &'static str {
        match self {
            ParentKind::Macvlan(_) => "macvlan",
            ParentKind::Ipvlan(..) => "ipvlan",
        }
    }
}

/// What containers with addresses of their own may say to each other (ip-link(8)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum MacvlanMode {
    #[default]
    Bridge,
    Private,
    Vepa,
    Passthru,
}

/// On which layer packets are told apart (ip-link(8)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum IpvlanMode {
    #[default]
    L2,
    L3,
    L3s,
}

/// What containers may say to each other (ip-link(8)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum IpvlanFlag {
    #[default]
    Bridge,
    Private,
    Vepa,
}

impl FromStr for MacvlanMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "" | "bridge" => MacvlanMode::Bridge,
            "private" => MacvlanMode::Private,
            "vepa" => MacvlanMode::Vepa,
            "passthru" => MacvlanMode::Passthru,
            _ => {
                let default = "'bridge' mode is the macvlan driver default";
                return Err(Error::Invalid(format!(
                    "requested macvlan mode '{text}' is not valid, {default}"
                )));
            }
        })
    }
}

impl FromStr for IpvlanMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "" | "l2" => IpvlanMode::L2,
            "l3" => IpvlanMode::L3,
            "l3s" => IpvlanMode::L3s,
            _ => {
                let default = "'l2' mode is the ipvlan driver default";
                return Err(Error::Invalid(format!(
                    "requested ipvlan mode '{text}' is not valid, {default}"
                )));
            }
        })
    }
}

impl FromStr for IpvlanFlag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "" | "bridge" => IpvlanFlag::Bridge,
            "private" => IpvlanFlag::Private,
            "vepa" => IpvlanFlag::Vepa,
            _ => {
                let default = "'bridge' is the ipvlan driver default";
                return Err(Error::Invalid(format!(
                    "requested ipvlan flag '{text}' is not valid, {default}"
                )));
            }
        })
    }
}

/// A network below an interface of the host's. It keeps nothing but its settings; containers' interfaces go with their network
/// namespaces.
///
/// It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct ParentNetwork {
    config: ParentConfig,
    links: Mutex<HostLinks>,
}

impl ParentNetwork {
    /// Looks for the interface, and makes the VLAN that its name speaks of if there is none.
    ///
    /// # Errors
    /// If the configuration is wrong, there is no such interface, or the kernel refuses.
    pub fn open(config: ParentConfig) -> Result<Self> {
        plan::check_parent(&config)?;
        let mut links = HostLinks::open()?;
        match vlan(&config.parent) {
            Some((of, id)) if links.link(of)?.is_some() => drop(links.ensure_vlan(&config.parent, of, id)?),
            _ if links.link(&config.parent)?.is_some() => {}
            _ => {
                return Err(Error::Invalid(format!(
                    "the parent interface {} is not there: `ip link` lists those of the host",
                    config.parent
                )));
            }
        }
        Ok(Self { config, links: Mutex::new(links) })
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &ParentConfig {
        &self.config
    }

    /// Connects a container's network namespace: interface, addresses, default routes, loopback.
    ///
    /// # Errors
    /// If the endpoint's settings are wrong, the kernel has no such interfaces or refuses; nothing of it is left then.
    pub fn attach(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<()> {
        let side = plan::parent_side(&self.config, endpoint)?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let name = plan::host_interface(&endpoint.id);
        links.create_child(&name, &side, &self.config, netns).map_err(|error| {
            match error.is_errno(Errno::OPNOTSUPP) {
                true => Error::Unimplemented(format!(
                    "the network driver {}: this kernel has no such interfaces ({error})",
                    self.config.kind.driver()
                )),
                false => error,
            }
        })?;
        drop(links);
        let named = netns::within(netns, || HostLinks::open()?.rename(&name, &side.ifname));
        let made = if named.is_ok() { &side.ifname } else { &name };
        let finished = named.and_then(|()| netns::within(netns, || furnish(&side)?.announce(&side)));
        if finished.is_err()
            && let Err(undo) = netns::within(netns, || HostLinks::open()?.delete(made))
        {
            tracing::warn!(endpoint = endpoint.id, %undo, "could not undo a failed attach");
        }
        finished
    }

    /// Takes the interface with this address from a container that goes on; one that is gone already is fine.
    ///
    /// # Errors
    /// If the namespace cannot be entered or the kernel refuses.
    pub fn detach(&self, netns: BorrowedFd<'_>, address: IpAddr) -> Result<()> {
        netns::within(netns, || HostLinks::open()?.delete_with(address))
    }

    /// Removes what [`ParentNetwork::open`] made.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove(&self) -> Result<()> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.delete_ours(&self.config.parent)
    }
}

/// `eth0.100`: the VLAN 100 of eth0.
fn vlan(name: &str) -> Option<(&str, u16)> {
    let (of, id) = name.rsplit_once('.')?;
    let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
    (!of.is_empty()).then_some((of, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_modes() {
        assert_eq!("passthru".parse::<MacvlanMode>().unwrap(), MacvlanMode::Passthru);
        assert_eq!("".parse::<IpvlanMode>().unwrap(), IpvlanMode::L2);
        assert_eq!(
            "x".parse::<MacvlanMode>().unwrap_err().to_string(),
            "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default"
        );
        assert!("l4".parse::<IpvlanMode>().is_err() && "open".parse::<IpvlanFlag>().is_err());
        assert_eq!(vlan("eth0.100"), Some(("eth0", 100)));
        for other in ["eth0", "eth0.", "eth0.4095", "eth0.0", ".5", "eth0.x"] {
            assert_eq!(vlan(other), None, "{other}");
        }
    }
}
