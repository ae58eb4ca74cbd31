//! `inspect`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use longshore_net::PortMap;
use longshore_store::GraphOf;

use super::{Container, port_ranges};
use crate::model::{ContainerView, PortBinding};
use crate::network::{is_custom, names_of};
use crate::record::Record;
use crate::{Engine, Result};

impl Engine {
    /// Everything about one container; with `size` also the bytes it uses.
    ///
    /// # Errors
    /// When there is none.
    pub async fn inspect(&self, name: &str, size: bool) -> Result<ContainerView> {
        let c = self.find(name)?;
        self.blocking(move |e| e.view(&c, size)).await
    }

    /// A container as seen now; reads the database, so not for an asynchronous thread.
    ///
    /// # Errors
    /// When its layer cannot be read.
    pub(crate) fn view(&self, c: &Arc<Container>, size: bool) -> Result<ContainerView> {
        let (mut record, execs) = {
            let data = c.read();
            (data.record.clone(), data.execs.iter().cloned().collect())
        };
        let running = record.is_running();
        let ports = if running { published(&record) } else { BTreeMap::new() };
        port_ranges::expand(&mut record.host, &mut record.config.run);
        self.show_links(&mut record);
        // A container that is being made or removed may have no layer.
        let graph = self.inner.store.graph_data(GraphOf::Container(&c.id)).unwrap_or_default();
        let sizes = if size { Some(self.sizes(&record)?) } else { None };
        let dir = self.inner.paths.container(&c.id);
        // Shown once the files have been written.
        let shown =
            |path: &Path| if record.has_run { path.to_string_lossy().into_owned() } else { String::new() };
        let log = if record.host.log.driver == "none" {
            String::new()
        } else {
            shown(&self.inner.paths.log(&c.id))
        };
        Ok(ContainerView {
            resolv_conf_path: shown(&dir.join("resolv.conf")),
            hostname_path: shown(&dir.join("hostname")),
            hosts_path: shown(&dir.join("hosts")),
            log_path: log,
            sandbox_key: match record.sandbox.as_str() {
                "" => String::new(),
                _ if record.host.network_mode == "host" => "/proc/1/ns/net".into(),
                s => self.inner.paths.netns(s).to_string_lossy().into_owned(),
            },
            ports,
            networks: networks(&record),
            id: record.id,
            name: record.name,
            created: record.created,
            path: record.path,
            args: record.args,
            state: record.state,
            image_id: record.image,
            restart_count: record.restart_count,
            config: record.config,
            host: record.host,
            // What `--tmpfs` asks for stands in the host configuration alone.
            mounts: record.mounts.into_iter().filter(|m| m.kind != "tmpfs" || m.from_mounts).collect(),
            driver: self.inner.store.driver_choice().name.as_str().to_owned(),
            graph,
            mount_label: String::new(),
            process_label: String::new(),
            apparmor_profile: record.apparmor,
            exec_ids: execs,
            sandbox_id: record.sandbox,
            sizes,
        })
    }

    fn sizes(&self, record: &Record) -> Result<(u64, u64)> {
        let rw = self.inner.store.rw_size(&record.id)?;
        let image = self.inner.store.images().get(&record.image).map_or(0, |i| i.size);
        Ok((rw, rw.saturating_add(image)))
    }
}

/// The networks with the names by which the container is known there.
fn networks(record: &Record) -> BTreeMap<String, crate::model::EndpointSettings> {
    let mut out = record.networks.clone();
    if record.is_running() || record.has_run {
        for (name, e) in out.iter_mut().filter(|(name, _)| is_custom(name)) {
            e.dns_names = Some(names_of(record, name));
        }
    }
    out
}

/// Published ports with their bindings; exposed ones with none.
pub(crate) fn published(record: &Record) -> BTreeMap<String, Vec<PortBinding>> {
    let mut out: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for key in record.config.run.exposed_ports.iter().flatten().map(|(k, _)| k) {
        for port in super::ports::expose_keys(key).unwrap_or_default() {
            out.entry(port).or_default();
        }
    }
    for p in record.ports.iter().flat_map(PortMap::each) {
        // Where one routes to the container, the host has no port for it.
        let host_port = if p.host_port == 0 { String::new() } else { p.host_port.to_string() };
        out.entry(format!("{}/{}", p.container_port, p.transport))
            .or_default()
            .push(PortBinding { host_ip: p.host_ip.to_string(), host_port });
    }
    out
}
