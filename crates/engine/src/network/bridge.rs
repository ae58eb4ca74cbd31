//! A network that is open: its interface, its rules, its addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_net::{
    BridgeConfig, Endpoint, Firewall, GatewayMode, Ipam, Network, ParentNetwork, Subnet, same_family,
};
use longshore_oci::Kind;

use super::names::Zone;
use super::{Record, parent};
use crate::{EngineOptions, Error, Result};

const MTU: u32 = 1500;
const DEFAULT_ROOT: &str = "/var/lib/longshore";
/// What stands before the names of options.
const PREFIX: &str = "com.docker.network.";

/// What a network is made of.
enum Medium {
    Bridge(Arc<Network>),
    Parent(ParentNetwork),
}

/// A network that is open: a bridge, or what is below an interface of the host's.
pub(crate) struct Bridge {
    medium: Medium,
    /// What containers on it are called.
    pub(crate) zone: Arc<Zone>,
    /// Whether somebody made it: then addresses may be asked for, and names are known.
    pub(crate) custom: bool,
    /// The host's address of ports that name none.
    pub(crate) host_ip: Option<IpAddr>,
    pools: Mutex<Vec<Ipam>>,
}

/// What options say, or the defaults.
pub(crate) struct Settings {
    pub(crate) bridge: String,
    pub(crate) icc: bool,
    pub(crate) masquerade: bool,
    pub(crate) mtu: u32,
    pub(crate) host_ip: Option<IpAddr>,
    /// Of IPv4 and of IPv6.
    pub(crate) modes: [GatewayMode; 2],
}

impl Settings {
    /// Reads the options of a network.
    ///
    /// # Errors
    /// For one that is wrong, or not there yet.
    pub(crate) fn read(record: &Record, options: &EngineOptions) -> Result<Self> {
        let short = record.id.get(..12).unwrap_or(&record.id);
        let bridge = if record.is_custom() { format!("br-{short}") } else { bridge_name(options) };
        let mtu = options.mtu.unwrap_or(MTU);
        let modes = [GatewayMode::Nat; 2];
        let mut all = Self { bridge, icc: true, masquerade: true, mtu, host_ip: None, modes };
        for (key, value) in &record.options {
            let wrong =
                |what: &str| Error::invalid(format!("invalid value {value:?} of option {key}: want {what}"));
            let truth = || match value.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(wrong("true or false")),
            };
            match key.strip_prefix(PREFIX).unwrap_or(key) {
                "bridge.name" => all.bridge.clone_from(value),
                "bridge.enable_icc" => all.icc = truth()?,
                "bridge.enable_ip_masquerade" => all.masquerade = truth()?,
                "driver.mtu" => all.mtu = value.parse().map_err(|_| wrong("a number"))?,
                "bridge.host_binding_ipv4" => {
                    let ip: Ipv4Addr = value.parse().map_err(|_| wrong("an IPv4 address"))?;
                    all.host_ip = Some(IpAddr::V4(ip)).filter(|ip| !ip.is_unspecified());
                }
                "bridge.gateway_mode_ipv4" => all.modes[0] = gateway_mode(value, record.internal)?,
                "bridge.gateway_mode_ipv6" => all.modes[1] = gateway_mode(value, record.internal)?,
                _ => return Err(Error::unimplemented(format!("network option {key}={value}"))),
            }
        }
        Ok(all)
    }
}

/// # Errors
/// In Docker's words.
fn gateway_mode(text: &str, internal: bool) -> Result<GatewayMode> {
    let mode = text.parse()?;
    if mode == GatewayMode::Isolated && !internal {
        return Err(Error::invalid("gateway mode 'isolated' can only be used for an internal network"));
    }
    Ok(mode)
}

/// The nftables table of an engine, so that several live side by side.
pub(super) fn table_name(options: &EngineOptions) -> String {
    match options.data_root == Path::new(DEFAULT_ROOT) {
        true => "longshore".to_owned(),
        false => format!("longshore-{}", root_hash(&options.data_root)),
    }
}

/// The bridge's name: the well-known one for the well-known root, else derived from the root, so
/// that daemons live side by side.
fn bridge_name(options: &EngineOptions) -> String {
    match &options.bridge {
        Some(name) => name.clone(),
        None if options.data_root == Path::new(DEFAULT_ROOT) => "longshore0".into(),
        None => format!("ls-{}", root_hash(&options.data_root)),
    }
}

/// Eight digits that stand for a data root.
pub(crate) fn root_hash(root: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    longshore_oci::Digest::of(root.as_os_str().as_bytes()).hex()[..8].to_owned()
}

impl Bridge {
    /// Makes the interface and the rules, or takes those over that are there.
    ///
    /// # Errors
    /// For options and subnets that cannot work; when the kernel refuses.
    pub(crate) fn open(record: &Record, options: &EngineOptions, firewall: &Arc<Firewall>) -> Result<Self> {
        if let Some(why) = &options.no_bridges {
            return Err(Error::new(Kind::Unavailable, why.clone()));
        }
        let mut pools = Vec::new();
        for pool in &record.pools {
            let kept: Vec<IpAddr> = [pool.gateway].into_iter().chain(pool.others.values().copied()).collect();
            pools.push(Ipam::new(pool.subnet, pool.range, &kept)?);
        }
        let subnets = record.pools.iter().map(|p| Subnet { net: p.subnet, gateway: p.gateway }).collect();
        let (medium, host_ip) = match record.driver.as_str() {
            "bridge" => {
                let settings = Settings::read(record, options)?;
                let host_ip = settings.host_ip;
                let config = BridgeConfig {
                    bridge: settings.bridge,
                    subnets,
                    mtu: settings.mtu,
                    masquerade: settings.masquerade,
                    icc: settings.icc,
                    internal: record.internal,
                    modes: settings.modes,
                };
                (Medium::Bridge(Arc::new(Network::open(config, firewall)?)), host_ip)
            }
            _ => (Medium::Parent(ParentNetwork::open(parent::config(record, subnets)?)?), None),
        };
        let nets = record.pools.iter().map(|pool| pool.subnet).collect();
        Ok(Self {
            medium,
            zone: Arc::new(Zone::new(&record.name, nets)),
            custom: record.is_custom(),
            host_ip,
            pools: Mutex::new(pools),
        })
    }

    /// The bridge itself, if it is one.
    pub(crate) fn network(&self) -> Option<&Arc<Network>> {
        match &self.medium {
            Medium::Bridge(network) => Some(network),
            Medium::Parent(_) => None,
        }
    }

    /// What the bridge was opened with, if it is one.
    pub(crate) fn config(&self) -> Option<&BridgeConfig> {
        self.network().map(|network| network.config())
    }

    /// The interface that it is below, if it is no bridge.
    pub(crate) fn parent(&self) -> Option<&str> {
        match &self.medium {
            Medium::Bridge(_) => None,
            Medium::Parent(network) => Some(&network.config().parent),
        }
    }

    /// The subnet of a family.
    pub(crate) fn subnet(&self, ipv6: bool) -> Option<&Subnet> {
        let subnets = match &self.medium {
            Medium::Bridge(network) => &network.config().subnets,
            Medium::Parent(network) => &network.config().subnets,
        };
        subnets.iter().find(|subnet| subnet.gateway.is_ipv6() == ipv6)
    }

    /// Nothing leads out of it.
    pub(crate) fn is_internal(&self) -> bool {
        match &self.medium {
            Medium::Bridge(network) => network.config().internal,
            Medium::Parent(network) => network.config().internal,
        }
    }

    /// Connects a container's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses; nothing of it is left then.
    pub(crate) fn attach(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<()> {
        match &self.medium {
            Medium::Bridge(network) => network.attach(netns, endpoint).map(drop)?,
            Medium::Parent(network) => network.attach(netns, endpoint)?,
        }
        Ok(())
    }

    /// Disconnects an endpoint whose container has ended: its interface goes with its namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn let_go(&self, endpoint: &str) -> Result<()> {
        match &self.medium {
            Medium::Bridge(network) => Ok(network.release(endpoint)?),
            Medium::Parent(_) => Ok(()),
        }
    }

    /// Disconnects an endpoint of a container that goes on, in the network namespace at `netns`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn detach(&self, netns: &Path, endpoint: &str, addresses: &[IpAddr]) -> Result<()> {
        match (&self.medium, addresses.first()) {
            (Medium::Bridge(network), _) => network.detach(endpoint)?,
            (Medium::Parent(network), Some(ip)) => {
                network.detach(longshore_sys::netns::open(netns)?.as_fd(), *ip)?;
            }
            (Medium::Parent(_), None) => {}
        }
        Ok(())
    }

    /// Removes what was made on the host.
    ///
    /// # Errors
    /// When the kernel refuses; what could be removed is.
    pub(crate) fn remove(&self) -> Result<()> {
        match &self.medium {
            Medium::Bridge(network) => network.remove()?,
            Medium::Parent(network) => network.remove()?,
        }
        Ok(())
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Ipam>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An address of each family: what was asked for, or a free one.
    ///
    /// # Errors
    /// When one is taken, or none is left; then nothing is taken.
    pub(crate) fn allocate(&self, asked: &[IpAddr]) -> Result<Vec<IpAddr>> {
        let mut pools = self.pools();
        let mut taken: Vec<IpAddr> = Vec::new();
        for n in 0..pools.len() {
            let Some(pool) = pools.get_mut(n) else { continue };
            let wanted = asked.iter().find(|ip| same_family(ip, &pool.subnet().addr()));
            let got = match wanted {
                Some(ip) => pool.reserve(*ip).map(|()| *ip),
                None => pool.allocate(),
            };
            match got {
                Ok(ip) => taken.push(ip),
                Err(e) => {
                    taken.iter().for_each(|ip| pools.iter_mut().for_each(|pool| pool.release(*ip)));
                    return Err(e.into());
                }
            }
        }
        Ok(taken)
    }

    /// The address of a container that still runs.
    ///
    /// # Errors
    /// When it is taken, or of no subnet.
    pub(crate) fn reserve(&self, ip: IpAddr) -> Result<()> {
        let mut pools = self.pools();
        let pool = pools.iter_mut().find(|pool| same_family(&pool.subnet().addr(), &ip));
        let pool = pool.ok_or_else(|| Error::internal(format!("{ip} is of no subnet of the network")))?;
        Ok(pool.reserve(ip)?)
    }

    pub(crate) fn release(&self, ip: IpAddr) {
        self.pools().iter_mut().for_each(|pool| pool.release(ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_with_other_roots_have_other_bridges() {
        let with = |root: &str| bridge_name(&EngineOptions { data_root: root.into(), ..Default::default() });
        assert_eq!(with("/var/lib/longshore"), "longshore0");
        assert_ne!(with("/a"), with("/b"));
        assert!(with("/a").len() <= 15);
    }

    #[test]
    fn options_are_read_or_refused() {
        let read = |key: &str, value: &str| {
            let mut record = Record::new("mine", "bridge").expect("record");
            record.options.insert(key.to_owned(), value.to_owned());
            Settings::read(&record, &EngineOptions::default())
        };
        assert_eq!(read("com.docker.network.driver.mtu", "1400").expect("mtu").mtu, 1400);
        assert!(!read("com.docker.network.bridge.enable_icc", "false").expect("icc").icc);
        let modes = read("com.docker.network.bridge.gateway_mode_ipv6", "routed").expect("mode").modes;
        assert_eq!(modes, [GatewayMode::Nat, GatewayMode::Routed]);
        assert_eq!(read("com.docker.network.bridge.name", "mine0").expect("name").bridge, "mine0");
        for (key, value) in [
            ("com.docker.network.driver.mtu", "x"),
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "open"),
            // Of internal networks only.
            ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
            ("nosuch", "1"),
        ] {
            assert!(read(key, value).is_err(), "{key}");
        }
    }
}
