//! Networks: `bridge`, `host` and `none`; addresses and published ports of the default bridge.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use longshore_net::{
    BridgeConfig, Ipam, Ipv4Net, Network, PortAllocator, PortMap, PortRequest, PortReservation,
};
use longshore_oci::Kind;
use longshore_store::Store;
use longshore_store::meta::{Batch, Table};
use serde::{Deserialize, Serialize};

use crate::model::{Filters, NetworkMember, NetworkView, UnixNanos};
use crate::time::now;
use crate::{Engine, EngineOptions, Error, Result, filters, names};

const MTU: u32 = 1500;
const DEFAULT_ROOT: &str = "/var/lib/longshore";
const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// A network as stored, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) created: UnixNanos,
    /// Of the bridge: subnet and gateway.
    #[serde(default)]
    subnet: Option<Ipv4Net>,
    #[serde(default)]
    gateway: Option<Ipv4Addr>,
}

pub(crate) struct Networks {
    records: BTreeMap<String, Record>,
    bridge: std::result::Result<Bridge, String>,
    pub(crate) ports: PortAllocator,
}

/// The default bridge network.
pub(crate) struct Bridge {
    pub(crate) network: Arc<Network>,
    ipam: Mutex<Ipam>,
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

impl Networks {
    /// Reads or makes the records, and opens the bridge. A bridge that cannot be opened does not
    /// keep the engine from starting: containers that need it are told why.
    ///
    /// # Errors
    /// When the database fails or a setting is wrong.
    pub(crate) fn open(store: &Store, options: &EngineOptions) -> Result<Self> {
        let mut records: BTreeMap<String, Record> = store
            .meta()
            .list::<Record>(Table::Networks)?
            .into_iter()
            .map(|(_, r)| (r.name.clone(), r))
            .collect();
        for (name, driver) in PREDEFINED {
            if !records.contains_key(name) {
                let record = Record {
                    id: names::new_id()?,
                    name: name.into(),
                    driver: driver.into(),
                    created: now(),
                    subnet: None,
                    gateway: None,
                };
                store.meta().commit(Batch::new().put(Table::Networks, &record.id, &record))?;
                records.insert(name.into(), record);
            }
        }
        let bridge = match (options.bridge.as_deref(), records.get_mut("bridge")) {
            (Some("none"), _) | (_, None) => Err("the default bridge is disabled".to_owned()),
            (_, Some(record)) => Self::open_bridge(store, options, record).map_err(|e| {
                tracing::warn!("the default bridge network is not available: {e}");
                e.to_string()
            }),
        };
        Ok(Self { records, bridge, ports: PortAllocator::new() })
    }

    fn open_bridge(store: &Store, options: &EngineOptions, record: &mut Record) -> Result<Bridge> {
        let (subnet, gateway) = match (&options.bip, record.subnet, record.gateway) {
            (Some(text), ..) => {
                let net: Ipv4Net = text.parse().map_err(|_| {
                    Error::invalid(format!("invalid bridge address {text:?}: want address/prefix"))
                })?;
                (net.trunc(), net.addr())
            }
            (None, Some(subnet), Some(gateway)) => (subnet, gateway),
            _ => {
                let subnet = longshore_net::pick_subnet(
                    &longshore_net::default_pools(),
                    &longshore_net::host_networks()?,
                )?;
                (subnet, Ipv4Addr::from_bits(subnet.network().to_bits() + 1))
            }
        };
        let bridge = bridge_name(options);
        let config = BridgeConfig {
            table: BridgeConfig::table_for(&bridge),
            bridge,
            subnet,
            gateway,
            mtu: options.mtu.unwrap_or(MTU),
            masquerade: true,
            icc: true,
        };
        let ipam = Ipam::new(subnet, gateway)?;
        let network = Network::open(config)?;
        if (record.subnet, record.gateway) != (Some(subnet), Some(gateway)) {
            (record.subnet, record.gateway) = (Some(subnet), Some(gateway));
            store.meta().commit(Batch::new().put(Table::Networks, &record.id, record))?;
        }
        let network = Arc::new(network);
        if let Err(error) = network.keep_rules() {
            tracing::warn!(%error, "a reload of the host's firewall will take our rules along");
        }
        Ok(Bridge { network, ipam: Mutex::new(ipam) })
    }

    /// The default bridge.
    ///
    /// # Errors
    /// `Unavailable` with the reason when there is none.
    pub(crate) fn bridge(&self) -> Result<&Bridge> {
        self.bridge
            .as_ref()
            .map_err(|why| Error::new(Kind::Unavailable, format!("network bridge is not available: {why}")))
    }

    /// By name, id or unique beginning of an id.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) fn find(&self, text: &str) -> Result<&Record> {
        let missing = || Error::not_found(format!("network {text} not found"));
        let text = if text == "default" { "bridge" } else { text };
        if let Some(r) = self.records.get(text) {
            return Ok(r);
        }
        let id = names::by_prefix(text, self.records.values().map(|r| r.id.as_str()))?.ok_or_else(missing)?;
        self.records.values().find(|r| r.id == id).ok_or_else(missing)
    }

    /// Takes the ports or none.
    ///
    /// # Errors
    /// When one is in use.
    pub(crate) fn reserve_ports(&self, requests: &[PortRequest]) -> Result<PortReservation> {
        Ok(self.ports.reserve(requests)?)
    }

    /// Takes the ports of a container that still runs.
    ///
    /// # Errors
    /// When one is in use.
    pub(crate) fn reserve_again(&self, ports: &[PortMap], ip: Ipv4Addr) -> Result<PortReservation> {
        let requests: Vec<PortRequest> = ports
            .iter()
            .map(|p| PortRequest {
                transport: p.transport,
                host_ip: p.host_ip,
                host_ports: Some(p.host_port..=p.host_port),
                container_ip: ip,
                container_port: p.container_port,
            })
            .collect();
        self.reserve_ports(&requests)
    }
}

impl Bridge {
    pub(crate) fn config(&self) -> &BridgeConfig {
        self.network.config()
    }

    /// A free address.
    ///
    /// # Errors
    /// When none is left.
    pub(crate) fn allocate(&self) -> Result<Ipv4Addr> {
        Ok(self.ipam.lock().unwrap_or_else(PoisonError::into_inner).allocate()?)
    }

    /// The address of a container that still runs.
    ///
    /// # Errors
    /// When it is taken.
    pub(crate) fn reserve(&self, ip: Ipv4Addr) -> Result<()> {
        Ok(self.ipam.lock().unwrap_or_else(PoisonError::into_inner).reserve(ip)?)
    }

    pub(crate) fn release(&self, ip: Ipv4Addr) {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner).release(ip);
    }
}

impl Engine {
    /// All networks that match: dangling, driver, id, label, name, scope, type.
    ///
    /// # Errors
    /// For unknown filters.
    pub async fn networks(&self, f: &Filters) -> Result<Vec<NetworkView>> {
        filters::check_known(f, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        if let Some(bad) = filters::values(f, "type")
            .iter()
            .flat_map(|v| v.iter())
            .find(|t| !["custom", "builtin"].contains(&t.as_str()))
        {
            return Err(Error::invalid(format!("invalid filter: 'type'='{bad}'")));
        }
        // The predefined ones never dangle.
        if filters::flag(f, "dangling")? == Some(true) {
            return Ok(Vec::new());
        }
        let wanted = |r: &&Record| {
            filters::any(f, "driver", |v| v == r.driver)
                && filters::any(f, "id", |v| r.id.contains(v))
                && filters::any(f, "name", |v| r.name.contains(v))
                && filters::any(f, "scope", |v| v == "local")
                && filters::any(f, "type", |v| v == "builtin")
                && filters::labels(f, "label", None)
        };
        let records: Vec<Record> = self.inner.networks.records.values().filter(wanted).cloned().collect();
        Ok(records.into_iter().map(|r| self.network_view(r)).collect())
    }

    /// One network with its running containers.
    ///
    /// # Errors
    /// When there is none.
    pub async fn network(&self, name: &str) -> Result<NetworkView> {
        let record = self.inner.networks.find(name)?.clone();
        Ok(self.network_view(record))
    }

    /// Removes a network: there are only those that stay.
    ///
    /// # Errors
    /// Always: `NotFound`, or `Denied` for a predefined one.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        let record = self.inner.networks.find(name)?;
        let what = format!("{} is a pre-defined network and cannot be removed", record.name);
        Err(Error::new(Kind::Denied, what))
    }

    fn network_view(&self, r: Record) -> NetworkView {
        let mut options = BTreeMap::new();
        if let (true, Ok(bridge)) = (r.name == "bridge", self.inner.networks.bridge()) {
            let c = bridge.config();
            for (key, value) in [
                ("bridge.default_bridge", "true".to_owned()),
                ("bridge.enable_icc", c.icc.to_string()),
                ("bridge.enable_ip_masquerade", c.masquerade.to_string()),
                ("bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
                ("bridge.name", c.bridge.clone()),
                ("driver.mtu", c.mtu.to_string()),
            ] {
                options.insert(format!("com.docker.network.{key}"), value);
            }
        }
        let mut containers = BTreeMap::new();
        for c in self.all() {
            let data = c.read();
            if !data.record.is_running() {
                continue;
            }
            for e in
                data.record.networks.values().filter(|e| e.network_id == r.id && !e.endpoint_id.is_empty())
            {
                let address = if e.ip_address.is_empty() {
                    String::new()
                } else {
                    format!("{}/{}", e.ip_address, e.ip_prefix_len)
                };
                let member = NetworkMember {
                    name: data.record.name.clone(),
                    endpoint_id: e.endpoint_id.clone(),
                    mac_address: e.mac_address.clone(),
                    ipv4_address: address,
                    ipv6_address: String::new(),
                };
                containers.insert(c.id.clone(), member);
            }
        }
        let ipam = match (r.subnet, r.gateway) {
            (Some(s), Some(g)) => vec![(s.to_string(), g.to_string())],
            _ => Vec::new(),
        };
        NetworkView {
            id: r.id,
            name: r.name,
            driver: r.driver,
            created: r.created,
            ipam,
            options,
            labels: BTreeMap::new(),
            containers,
        }
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
}
