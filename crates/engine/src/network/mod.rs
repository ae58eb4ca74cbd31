//! Networks: records, bridges with their addresses, ports of the host. `manage` makes and removes them (`bridge` is one that is
//! open, `parent` the options of those below an interface of the host's), `wire` connects containers at their start, `live` while
//! they run, `publish` takes their ports, `relay` serves what no rule of the firewall can, `names` answers their questions for
//! names, `reach` tells who can reach what.

mod bridge;
mod live;
mod manage;
mod names;
mod parent;
mod publish;
mod reach;
mod relay;
mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use longshore_net::{Firewall, IpNet, Ownership, PortAllocator, PortMap, PortRequest, PortReservation};
use longshore_oci::Kind;
use longshore_store::Store;
use longshore_store::meta::{Batch, Table};
use longshore_sys::host_sockets::HostSockets;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub(crate) use self::bridge::root_hash;
use self::bridge::{Bridge, table_name};
use self::names::NameServer;
use self::relay::Relays;
pub(crate) use self::wire::{Held, names_of};
use crate::model::UnixNanos;
use crate::time::now;
use crate::{EngineOptions, Error, Result, names as ids};

const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    pub(crate) subnet: IpNet,
    #[serde(default)]
    pub(crate) range: Option<IpNet>,
    pub(crate) gateway: IpAddr,
    /// Addresses that others have, by name.
    #[serde(default)]
    pub(crate) others: BTreeMap<String, IpAddr>,
    /// Somebody asked for it.
    #[serde(default)]
    pub(crate) asked: bool,
    /// Somebody asked for the gateway.
    #[serde(default)]
    pub(crate) gateway_asked: bool,
}

impl Pool {
    fn new(subnet: IpNet, gateway: IpAddr, asked: bool) -> Self {
        Self { subnet, range: None, gateway, others: BTreeMap::new(), asked, gateway_asked: asked }
    }

    /// A part of one of the pools that neither the host uses nor we.
    fn free(pools: &[IpNet], ours: &[IpNet], host: &HostSockets) -> Result<Self> {
        let mut taken = host_networks(host)?;
        taken.extend(ours);
        let subnet = longshore_net::pick_subnet(pools, &taken)?;
        Ok(Self::new(subnet, longshore_net::first_address(&subnet)?, false))
    }
}

/// What the host uses, and the daemon's own network where that is another.
fn host_networks(host: &HostSockets) -> Result<Vec<IpNet>> {
    let mut taken = longshore_net::host_networks()?;
    if host.is_apart() {
        taken.extend(host.within(longshore_net::host_networks)??);
    }
    Ok(taken)
}

/// A network as stored, by id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) created: UnixNanos,
    #[serde(default)]
    pub(crate) pools: Vec<Pool>,
    #[serde(default)]
    pub(crate) internal: bool,
    #[serde(default)]
    pub(crate) attachable: bool,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// What earlier versions said of the default bridge.
    #[serde(default, skip_serializing)]
    subnet: Option<IpNet>,
    #[serde(default, skip_serializing)]
    gateway: Option<IpAddr>,
}

impl Record {
    pub(crate) fn new(name: &str, driver: &str) -> Result<Self> {
        Ok(Self {
            id: ids::new_id()?,
            name: name.into(),
            driver: driver.into(),
            created: now(),
            pools: Vec::new(),
            internal: false,
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            subnet: None,
            gateway: None,
        })
    }

    /// Whether somebody made it.
    pub(crate) fn is_custom(&self) -> bool {
        is_custom(&self.name)
    }

    /// Whether interfaces are made for it, of its own and of its containers.
    pub(crate) fn is_made(&self) -> bool {
        self.driver == "bridge" || parent::DRIVERS.contains(&self.driver.as_str())
    }

    /// Whether it has addresses of a family.
    pub(crate) fn has(&self, ipv6: bool) -> bool {
        self.pools.iter().any(|pool| pool.gateway.is_ipv6() == ipv6)
    }
}

/// Whether a network of this name is one that somebody made.
pub(crate) fn is_custom(name: &str) -> bool {
    PREDEFINED.iter().all(|(predefined, _)| *predefined != name)
}

type Opened = std::result::Result<Arc<Bridge>, String>;

pub(crate) struct Networks {
    /// By name.
    records: RwLock<BTreeMap<String, Arc<Record>>>,
    /// By the network's id.
    bridges: RwLock<BTreeMap<String, Opened>>,
    pub(crate) ports: PortAllocator,
    /// The rules of all networks.
    pub(crate) firewall: Arc<Firewall>,
    /// Held while a network is made or removed.
    changing: Mutex<()>,
    /// Where name servers and relays run.
    pub(crate) runtime: Handle,
}

impl Networks {
    /// Reads or makes the records, and opens the bridges. One that cannot be opened does not keep the engine from starting:
    /// containers that need it are told why. To be called within the runtime.
    ///
    /// # Errors
    /// When the database fails or a setting is wrong.
    pub(crate) fn open(store: &Store, options: &EngineOptions, runtime: Handle) -> Result<Self> {
        let stored = store.meta().list::<Record>(Table::Networks)?;
        let mut records: BTreeMap<String, Record> =
            stored.into_iter().map(|(_, r)| (r.name.clone(), r)).collect();
        for (name, driver) in PREDEFINED {
            if !records.contains_key(name) {
                let record = Record::new(name, driver)?;
                store.meta().commit(Batch::new().put(Table::Networks, &record.id, &record))?;
                records.insert(name.into(), record);
            }
        }
        let firewall = Firewall::open(&table_name(options), Ownership::Ours)?;
        let mut bridges = BTreeMap::new();
        let all: Vec<IpNet> = records.values().flat_map(|r| r.pools.iter().map(|p| p.subnet)).collect();
        for record in records.values_mut().filter(|r| r.is_made()) {
            let opened = give_way(store, options, record, &all).and_then(|()| match record.is_custom() {
                true => Bridge::open(record, options, &firewall),
                false => open_default(store, options, record, &firewall),
            });
            let opened = opened.map_err(|e| {
                tracing::warn!(network = record.name, "the network is not available: {e}");
                e.to_string()
            });
            bridges.insert(record.id.clone(), opened.map(Arc::new));
        }
        if let Err(error) = firewall.keep() {
            tracing::warn!(%error, "a reload of the host's firewall will take our rules along");
        }
        let records = records.into_iter().map(|(name, record)| (name, Arc::new(record))).collect();
        Ok(Self {
            records: RwLock::new(records),
            bridges: RwLock::new(bridges),
            ports: PortAllocator::new(options.host_sockets.clone()),
            firewall,
            changing: Mutex::new(()),
            runtime,
        })
    }

    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The bridge of a network.
    ///
    /// # Errors
    /// `Unavailable` with the reason when there is none.
    pub(crate) fn bridge_of(&self, record: &Record) -> Result<Arc<Bridge>> {
        let bridges = self.bridges.read().unwrap_or_else(PoisonError::into_inner);
        let unavailable = |why: &str| {
            Error::new(Kind::Unavailable, format!("network {} is not available: {why}", record.name))
        };
        match bridges.get(&record.id) {
            Some(Ok(bridge)) => Ok(bridge.clone()),
            Some(Err(why)) => Err(unavailable(why)),
            None => Err(unavailable("it has no bridge")),
        }
    }

    /// The bridges that are open.
    pub(crate) fn bridges(&self) -> Vec<Arc<Bridge>> {
        let bridges = self.bridges.read().unwrap_or_else(PoisonError::into_inner);
        bridges.values().filter_map(|bridge| bridge.as_ref().ok().cloned()).collect()
    }

    /// The default bridge.
    ///
    /// # Errors
    /// `Unavailable` with the reason when there is none.
    pub(crate) fn bridge(&self) -> Result<Arc<Bridge>> {
        self.bridge_of(&*self.find("bridge")?)
    }

    /// By name, id or unique beginning of an id.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Record>> {
        let missing = || Error::not_found(format!("network {text} not found"));
        let text = if text == "default" { "bridge" } else { text };
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(r) = records.get(text) {
            return Ok(r.clone());
        }
        let id = ids::by_prefix(text, records.values().map(|r| r.id.as_str()))?.ok_or_else(missing)?;
        records.values().find(|r| r.id == id).cloned().ok_or_else(missing)
    }

    /// Takes the ports of a container that still runs.
    ///
    /// # Errors
    /// When one is in use.
    pub(crate) fn reserve_again(&self, ports: &[PortMap], ip: IpAddr) -> Result<PortReservation> {
        // Where one routes to the container, it has none of the host's.
        let of_host = ports.iter().filter(|port| port.host_port != 0);
        let requests: Vec<_> = of_host.map(|port| PortRequest::again(port, ip)).collect();
        Ok(self.ports.reserve(&requests)?)
    }
}

/// A subnet of IPv4 that nobody asked for gives way to what the host uses by now, unless its bridge is there, and containers may
/// be on it.
fn give_way(store: &Store, options: &EngineOptions, record: &mut Record, ours: &[IpNet]) -> Result<()> {
    let chosen = |pool: &&mut Pool| !pool.asked && pool.gateway.is_ipv4();
    if record.driver != "bridge" || !record.pools.iter_mut().any(|pool| chosen(&pool)) {
        return Ok(());
    }
    let bridge = bridge::Settings::read(record, options)?.bridge;
    if longshore_net::interfaces()?.contains(&bridge) {
        return Ok(());
    }
    let host = host_networks(&options.host_sockets)?;
    let name = record.name.clone();
    let mut moved = false;
    for pool in record.pools.iter_mut().filter(chosen) {
        if host.iter().any(|net| longshore_net::overlap(net, &pool.subnet)) {
            let free = Pool::free(&longshore_net::default_pools(), ours, &options.host_sockets)?;
            tracing::warn!(
                network = name,
                "the host uses {} now: it has {} instead",
                pool.subnet,
                free.subnet
            );
            (*pool, moved) = (free, true);
        }
    }
    if moved {
        store.meta().commit(Batch::new().put(Table::Networks, &record.id, record))?;
    }
    Ok(())
}

/// Opens the default bridge, whose subnet is chosen once.
fn open_default(
    store: &Store,
    options: &EngineOptions,
    record: &mut Record,
    firewall: &Arc<Firewall>,
) -> Result<Bridge> {
    if options.bridge.as_deref() == Some("none") {
        return Err(Error::new(Kind::Unavailable, "the default bridge is disabled"));
    }
    let before = record.pools.clone();
    if let (true, Some(subnet), Some(gateway)) = (record.pools.is_empty(), record.subnet, record.gateway) {
        record.pools.push(Pool::new(subnet, gateway, false));
    }
    if let Some(text) = &options.bip {
        let net: IpNet = text
            .parse()
            .map_err(|_| Error::invalid(format!("invalid bridge address {text:?}: want address/prefix")))?;
        let (subnet, gateway) = (net.trunc(), net.addr());
        record.pools = vec![Pool::new(subnet, gateway, true)];
    }
    if record.pools.is_empty() {
        record.pools.push(Pool::free(&longshore_net::default_pools(), &[], &options.host_sockets)?);
    }
    let bridge = Bridge::open(record, options, firewall)?;
    if record.pools != before {
        store.meta().commit(Batch::new().put(Table::Networks, &record.id, record))?;
    }
    Ok(bridge)
}
