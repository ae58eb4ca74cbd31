//! Networks as clients see them: listed, made, removed; containers connected and disconnected.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use longshore_net::{IpNet, overlap};
use longshore_oci::Kind;
use longshore_store::meta::{Batch, Table};

use super::bridge::Settings;
use super::live::check_endpoint;
use super::{Bridge, PREDEFINED, Pool, Record, parent};
use crate::model::{
    CreateNetwork, EndpointSettings, Filters, NetworkMember, NetworkPool, NetworkView, NewPool,
};
use crate::{Engine, Error, Result, filters};

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
        let dangling = filters::flag(f, "dangling")?;
        let kind = |r: &Record| if r.is_custom() { "custom" } else { "builtin" };
        let wanted = |r: &&Arc<Record>| {
            filters::any(f, "driver", |v| v == r.driver)
                && filters::any(f, "id", |v| r.id.contains(v))
                && filters::any(f, "name", |v| r.name.contains(v))
                && filters::any(f, "scope", |v| v == "local")
                && filters::any(f, "type", |v| v == kind(r))
                && filters::labels(f, "label", Some(&r.labels))
        };
        let records = self.inner.networks.records();
        let views = records.iter().filter(wanted).map(|r| (r.is_custom(), self.network_view(r)));
        // The predefined ones never dangle.
        let dangles = |custom: bool, view: &NetworkView| custom && view.containers.is_empty();
        let fits =
            |(custom, view): &(bool, NetworkView)| dangling.is_none_or(|d| d == dangles(*custom, view));
        Ok(views.filter(fits).map(|(_, view)| view).collect())
    }

    /// One network with its running containers.
    ///
    /// # Errors
    /// When there is none.
    pub async fn network(&self, name: &str) -> Result<NetworkView> {
        Ok(self.network_view(&*self.inner.networks.find(name)?))
    }

    /// Makes a network; gives its id.
    ///
    /// # Errors
    /// In Docker's words: for a name that is taken, subnets that overlap, options that are wrong.
    pub async fn create_network(&self, request: CreateNetwork) -> Result<String> {
        let engine = self.clone();
        self.to_the_end(async move { engine.blocking(move |e| e.create_network_blocking(request)).await })
            .await
    }

    fn create_network_blocking(&self, request: CreateNetwork) -> Result<String> {
        let networks = &self.inner.networks;
        check_name(&request.name)?;
        let driver = if request.driver.is_empty() { "bridge" } else { request.driver.as_str() };
        match driver {
            "bridge" => {}
            driver if parent::DRIVERS.contains(&driver) => {}
            "host" | "null" => {
                let text = format!("only one instance of \"{driver}\" network is allowed");
                return Err(Error::new(Kind::Denied, text));
            }
            "overlay" => return Err(Error::unimplemented(format!("the network driver {driver}"))),
            other => return Err(Error::not_found(format!("plugin {other:?} not found"))),
        }
        let _alone = networks.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if networks.records().iter().any(|r| r.name == request.name) {
            return Err(Error::conflict(format!("network with name {} already exists", request.name)));
        }
        let mut record = Record::new(&request.name, driver)?;
        (record.internal, record.attachable) = (request.internal, request.attachable);
        (record.options, record.labels) = (request.options.clone(), request.labels.clone());
        self.check_interface(&record)?;
        record.pools = self.pools(&request)?;
        let bridge = Arc::new(Bridge::open(&record, &self.inner.options, &networks.firewall)?);
        let stored = self.inner.store.meta().commit(Batch::new().put(Table::Networks, &record.id, &record));
        if let Err(e) = stored {
            if let Err(undo) = bridge.remove() {
                tracing::warn!("removing a network that could not be stored: {undo}");
            }
            return Err(e.into());
        }
        let id = record.id.clone();
        networks.put(record, bridge);
        self.event("network", "create", &id, &[("name", request.name.as_str()), ("type", driver)]);
        Ok(id)
    }

    /// Refuses a network whose interface another network or the host has.
    fn check_interface(&self, record: &Record) -> Result<()> {
        let networks = &self.inner.networks;
        if record.driver != "bridge" {
            let parent = parent::config(record, Vec::new())?.parent;
            let taken = networks.bridges().iter().any(|other| other.parent() == Some(parent.as_str()));
            return match taken {
                true => Err(Error::new(
                    Kind::Denied,
                    format!("network {} is already using parent interface {parent}", self.child_of(&parent)),
                )),
                false => Ok(()),
            };
        }
        let name = Settings::read(record, &self.inner.options)?.bridge;
        if networks.bridges().iter().any(|b| b.config().is_some_and(|c| c.bridge == name)) {
            return Err(Error::new(
                Kind::Denied,
                format!("conflicts with another network: both have bridge {name}"),
            ));
        }
        // What somebody else has made is not taken over, to be removed with the network later.
        if longshore_net::interfaces()?.contains(&name) {
            let text =
                format!("interface {name} exists already: choose another com.docker.network.bridge.name");
            return Err(Error::new(Kind::Denied, text));
        }
        Ok(())
    }

    /// The name of the network that is below an interface.
    fn child_of(&self, parent: &str) -> String {
        let records = self.inner.networks.records();
        let of = |r: &&Arc<Record>| r.options.get("parent").is_some_and(|own| own == parent);
        records.iter().find(of).map(|record| record.name.clone()).unwrap_or_default()
    }

    /// The subnets of a network that is to be made.
    fn pools(&self, request: &CreateNetwork) -> Result<Vec<Pool>> {
        let records = self.inner.networks.records();
        let ours: Vec<IpNet> = records.iter().flat_map(|r| r.pools.iter().map(|pool| pool.subnet)).collect();
        let mut pools = Vec::new();
        for (ipv6, wanted) in [(false, request.ipv4), (true, request.ipv6)] {
            let mut asked = request.pools.iter().filter(|pool| pool.is_ipv6() == Some(ipv6));
            match (asked.next(), asked.next()) {
                (_, Some(_)) => {
                    return Err(Error::invalid("bridge driver doesn't support multiple subnets of a family"));
                }
                (Some(_), None) if !wanted => {
                    let family = if ipv6 { "IPv6" } else { "IPv4" };
                    return Err(Error::invalid(format!(
                        "a subnet of {family} is given, and {family} is not enabled"
                    )));
                }
                (Some(pool), None) => pools.push(pool_of(pool, &ours)?),
                (None, None) if wanted => pools.push(self.free_pool(ipv6, &ours)?),
                (None, None) => {}
            }
        }
        if request.pools.iter().any(|pool| pool.is_ipv6().is_none()) {
            return Err(Error::invalid("invalid IPAM configuration: a gateway or range needs its subnet"));
        }
        if pools.is_empty() {
            return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
        }
        Ok(pools)
    }

    fn free_pool(&self, ipv6: bool, ours: &[IpNet]) -> Result<Pool> {
        let all = match ipv6 {
            true => longshore_net::unique_local_pools(self.inner.system_id.as_bytes()),
            false => longshore_net::default_pools(),
        };
        Pool::free(&all, ours, &self.inner.options.host_sockets)
    }

    /// Removes a network that no running container is on.
    ///
    /// # Errors
    /// `NotFound`; `Denied` for a predefined one, and for one that is in use.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        let engine = self.clone();
        self.to_the_end(async move { engine.blocking(move |e| e.remove_network_blocking(&name)).await }).await
    }

    fn remove_network_blocking(&self, name: &str) -> Result<()> {
        let networks = &self.inner.networks;
        let _alone = networks.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = networks.find(name)?;
        if !record.is_custom() {
            let what = format!("{} is a pre-defined network and cannot be removed", record.name);
            return Err(Error::new(Kind::Denied, what));
        }
        if let Some(member) = self.members(&record.id, |_| true).into_values().next() {
            return Err(Error::new(
                Kind::Denied,
                format!(
                    "error while removing network: network {} has active endpoints (name:{:?} id:{:?})",
                    record.name,
                    member.name,
                    member.endpoint_id.get(..12).unwrap_or(&member.endpoint_id)
                ),
            ));
        }
        if let Ok(bridge) = networks.bridge_of(&record) {
            bridge.remove()?;
        }
        self.inner.store.meta().commit(Batch::new().delete(Table::Networks, &record.id))?;
        networks.forget(&record);
        let pairs = [("name", record.name.as_str()), ("type", record.driver.as_str())];
        self.event("network", "destroy", &record.id, &pairs);
        Ok(())
    }

    /// Removes networks that no running container is on; gives their names. Filters: label, label!, until.
    ///
    /// # Errors
    /// For filters that are wrong.
    pub async fn prune_networks(&self, f: &Filters) -> Result<Vec<String>> {
        filters::check_known(f, &["label", "label!", "until"])?;
        let until = filters::until(f)?;
        let f = f.clone();
        let engine = self.clone();
        self.to_the_end(async move {
            engine
                .blocking(move |e| {
                    let mut removed = Vec::new();
                    for record in e.inner.networks.records() {
                        let wanted = record.is_custom()
                            && until.is_none_or(|until| record.created < until)
                            && filters::labels(&f, "label", Some(&record.labels))
                            && filters::not_labels(&f, Some(&record.labels));
                        if wanted && e.remove_network_blocking(&record.id).is_ok() {
                            removed.push(record.name.clone());
                        }
                    }
                    e.event("network", "prune", "", &[("reclaimed", "0")]);
                    Ok(removed)
                })
                .await
        })
        .await
    }

    /// Connects a container to a network.
    ///
    /// # Errors
    /// When it is connected already, or cannot be.
    pub async fn connect_network(
        &self,
        network: &str,
        container: &str,
        asked: EndpointSettings,
    ) -> Result<()> {
        let record = self.inner.networks.find(network)?;
        self.change(self.find(container)?, move |e, c| e.connect_to(c, &record, asked)).await
    }

    /// Disconnects a container from a network.
    ///
    /// # Errors
    /// When it is not connected to it.
    pub async fn disconnect_network(&self, network: &str, container: &str) -> Result<()> {
        let record = self.inner.networks.find(network)?;
        self.change(self.find(container)?, move |e, c| e.disconnect_from(c, &record)).await
    }

    /// Looks whether a container may have such endpoints.
    ///
    /// # Errors
    /// When one cannot be; that a network is not there is told at the start.
    pub(crate) fn check_endpoints(&self, asked: &BTreeMap<String, EndpointSettings>) -> Result<()> {
        for (name, settings) in asked {
            let network = self.inner.networks.find(name).ok();
            check_endpoint(name, network.as_deref(), settings)
                .map_err(|e| e.context(format!("invalid config for network {name}")))?;
        }
        Ok(())
    }

    /// The containers on a network, also those that are being started.
    fn members(
        &self,
        network: &str,
        wanted: impl Fn(&crate::record::Record) -> bool,
    ) -> BTreeMap<String, NetworkMember> {
        let mut members = BTreeMap::new();
        for c in self.all() {
            let data = c.read();
            if !wanted(&data.record) {
                continue;
            }
            let connected = |e: &&EndpointSettings| e.network_id == network && !e.endpoint_id.is_empty();
            for e in data.record.networks.values().filter(connected) {
                let address = |ip: &str, prefix: u32| match ip {
                    "" => String::new(),
                    ip => format!("{ip}/{prefix}"),
                };
                let member = NetworkMember {
                    name: data.record.name.clone(),
                    endpoint_id: e.endpoint_id.clone(),
                    mac_address: e.mac_address.clone(),
                    ipv4_address: address(&e.ip_address, e.ip_prefix_len),
                    ipv6_address: address(&e.global_ipv6_address, e.global_ipv6_prefix_len),
                };
                members.insert(c.id.clone(), member);
            }
        }
        members
    }

    fn network_view(&self, r: &Record) -> NetworkView {
        let mut options = r.options.clone();
        if let (true, Ok(bridge)) = (r.name == "bridge", self.inner.networks.bridge()) {
            for (key, value) in bridge.config().into_iter().flat_map(|c| {
                [
                    ("bridge.default_bridge", "true".to_owned()),
                    ("bridge.enable_icc", c.icc.to_string()),
                    ("bridge.enable_ip_masquerade", c.masquerade.to_string()),
                    ("bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
                    ("bridge.name", c.bridge.clone()),
                    ("driver.mtu", c.mtu.to_string()),
                ]
            }) {
                options.insert(format!("com.docker.network.{key}"), value);
            }
        }
        let pool = |pool: &Pool| NetworkPool {
            subnet: pool.subnet.to_string(),
            range: pool.range.map(|range| range.to_string()).unwrap_or_default(),
            gateway: match pool.gateway_asked || !(pool.asked || r.internal) {
                true => pool.gateway.to_string(),
                false => String::new(),
            },
            others: pool.others.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect(),
        };
        NetworkView {
            id: r.id.clone(),
            name: r.name.clone(),
            driver: r.driver.clone(),
            created: r.created,
            ipv4: r.pools.is_empty() || r.has(false),
            ipv6: r.has(true),
            internal: r.internal,
            attachable: r.attachable,
            ipam: r.pools.iter().map(pool).collect(),
            options,
            labels: r.labels.clone(),
            containers: self.members(&r.id, crate::record::Record::is_running),
        }
    }
}

impl super::Networks {
    fn put(&self, record: Record, bridge: Arc<Bridge>) {
        let mut bridges = self.bridges.write().unwrap_or_else(PoisonError::into_inner);
        bridges.insert(record.id.clone(), Ok(bridge));
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.insert(record.name.clone(), Arc::new(record));
    }

    fn forget(&self, record: &Record) {
        self.bridges.write().unwrap_or_else(PoisonError::into_inner).remove(&record.id);
        self.records.write().unwrap_or_else(PoisonError::into_inner).remove(&record.name);
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::invalid("invalid name: name is empty"));
    }
    if PREDEFINED.iter().any(|(predefined, _)| *predefined == name) || name == "default" {
        let text = format!("operation is not permitted on predefined {name} network ");
        return Err(Error::new(Kind::Denied, text));
    }
    if name.contains(|c: char| c == '/' || c.is_control()) {
        return Err(Error::invalid(format!(
            "invalid name {name:?}: slashes and control characters cannot be in it"
        )));
    }
    Ok(())
}

/// A subnet that somebody asks for.
fn pool_of(asked: &NewPool, ours: &[IpNet]) -> Result<Pool> {
    let wrong = |why: String| Error::invalid(format!("invalid network config:\n{why}"));
    let net = |what: &str, text: &str| {
        text.parse::<IpNet>()
            .map_err(|_| wrong(format!("invalid {what} {text}: invalid CIDR block notation")))
    };
    let subnet = net("subnet", &asked.subnet)?;
    if subnet != subnet.trunc() {
        return Err(wrong(format!("invalid subnet {subnet}: it should be {}", subnet.trunc())));
    }
    let address = |what: &str, text: &str| match text.parse::<IpAddr>() {
        Ok(ip) if subnet.contains(&ip) => Ok(ip),
        Ok(_) => {
            Err(wrong(format!("invalid {what} {text}: parent subnet {subnet} doesn't contain this address")))
        }
        Err(_) => Err(wrong(format!("invalid {what} {text}: invalid address"))),
    };
    let gateway = match asked.gateway.as_str() {
        "" => longshore_net::first_address(&subnet)?,
        text => address("gateway", text)?,
    };
    let range = match asked.range.as_str() {
        "" => None,
        text => {
            let range = net("ip-range", text)?;
            if !subnet.contains(&range) {
                let why =
                    format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range");
                return Err(wrong(why));
            }
            Some(range)
        }
    };
    let other = |(name, text): (&String, &String)| Ok((name.clone(), address("auxiliary address", text)?));
    let others = asked.others.iter().map(other).collect::<Result<_>>()?;
    if ours.iter().any(|other| overlap(other, &subnet)) {
        return Err(Error::new(
            Kind::Denied,
            "invalid pool request: Pool overlaps with other one on this address space",
        ));
    }
    Ok(Pool { subnet, range, gateway, others, asked: true, gateway_asked: !asked.gateway.is_empty() })
}
