//! `create`: checks a request, merges it with its image, and makes record and writable layer.

use std::collections::BTreeMap;
use std::path::Path;

use longshore_oci::image::{ImageDocument, RunConfig};
use longshore_oci::{Digest, Kind, Platform};
use longshore_runtime::cgroup::Hierarchy;
use longshore_runtime::spec_defaults;
use longshore_store::meta::{Batch, Table};

use super::validate::{self, Machine};
use super::{Container, health, mounts, port_ranges};
use crate::engine::{make_dir, remove_dir};
use crate::model::{
    ContainerConfig, CreateContainer, Created, EndpointSettings, HostConfig, MountPoint, State,
};
use crate::record::Record;
use crate::time::now;
use crate::{Engine, Error, Result, names};

/// Search path of a container whose image has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHM_SIZE: i64 = 64 << 20;

impl Engine {
    /// Makes a container.
    ///
    /// # Errors
    /// For what the request asks wrongly, a missing image, a name in use; in Docker's words.
    pub async fn create(&self, request: CreateContainer) -> Result<Created> {
        let engine = self.clone();
        self.to_the_end(async move {
            // While this is held, nobody removes the image.
            let _image = engine.inner.image_use.read().await;
            engine.blocking(move |e| e.create_blocking(request)).await
        })
        .await
    }

    fn create_blocking(&self, request: CreateContainer) -> Result<Created> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        validate::config(&request.config)?;
        validate::host(&request.host, Machine { cpus })?;
        if !request.config.hostname.is_empty() && request.host.uts_mode == "host" {
            return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
        }
        validate::runtime(&self.inner.runtimes, &request.host.runtime)?;
        let (image, document) = self.image_for(&request)?;
        let id = names::new_id()?;
        let mut warnings = Vec::new();
        let record = self.new_record(
            &id,
            request.config,
            request.host,
            request.networks,
            image,
            &document,
            &mut warnings,
        )?;
        let name = match request.name.as_deref().filter(|n| !n.is_empty()) {
            Some(n) => {
                let name = names::check_container_name(n)?;
                self.index(|i| i.reserve(&name, &id))?;
                name
            }
            None => self.index(|i| i.reserve_made_up(&id))?,
        };
        let record = Record { name: name.clone(), ..record };
        match self.make(record) {
            Ok(()) => Ok(Created { id, warnings }),
            Err(e) => {
                self.unmake(&id);
                self.index(|i| i.release(&name, &id));
                Err(e)
            }
        }
    }

    fn image_for(&self, request: &CreateContainer) -> Result<(Digest, ImageDocument)> {
        if request.config.image.is_empty() {
            return Err(Error::invalid("no image specified"));
        }
        let parse = |text: &str| {
            text.parse::<Platform>().map_err(|_| {
                Error::invalid(format!("{text:?}: cannot parse platform specifier: invalid argument"))
            })
        };
        let wanted = request.platform.as_deref().filter(|p| !p.is_empty()).map(parse).transpose()?;
        let images = self.inner.store.images();
        let record = match &wanted {
            Some(platform) => images.resolve_for(&request.config.image, platform)?,
            None => images.resolve(&request.config.image)?,
        };
        let (_, document) = images.document(&record.id)?;
        let mut of = document.platform();
        if of.os.is_empty() {
            of.os = "linux".to_owned();
        }
        if of.os != "linux" {
            return Err(Error::invalid(format!(
                "image operating system {:?} cannot be used on this platform",
                of.os
            )));
        }
        if let Some(wanted) = wanted.filter(|wanted| !of.architecture.is_empty() && !of.runs_on(wanted)) {
            return Err(Error::not_found(format!(
                "image with reference {} was found but its platform ({of}) does not match the specified platform \
                 ({wanted})",
                request.config.image
            )));
        }
        Ok((record.id, document))
    }

    /// The record of a container that is about to be made.
    ///
    /// # Errors
    /// For what is asked wrongly.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new_record(
        &self,
        id: &str,
        mut config: ContainerConfig,
        mut host: HostConfig,
        networks: BTreeMap<String, EndpointSettings>,
        image: Digest,
        document: &ImageDocument,
        warnings: &mut Vec<String>,
    ) -> Result<Record> {
        merge(&mut config.run, document.config.as_ref().unwrap_or(&RunConfig::default()));
        validate::config(&config)?;
        let (path, args) = command(&config.run)?;
        self.fill_host(&mut host)?;
        let here = Hierarchy::get()?;
        if here.is_bare() {
            super::limits::refuse(&host.resources)?;
        }
        super::limits::settle(&mut host.resources, here.support(), warnings)?;
        warn(&host, warnings);
        if !config.hostname.is_empty() && host.uts_mode == "host" {
            return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
        }
        if config.hostname.is_empty() {
            config.hostname = if host.uts_mode == "host" || host.network_mode == "host" {
                rustix::system::uname().nodename().to_string_lossy().into_owned()
            } else {
                id.get(..12).unwrap_or(id).to_owned()
            };
        }
        port_ranges::compact(&mut host, &mut config.run);
        let networks = self.endpoints(&host, &mut config, networks)?;
        let mounts = self.mount_points(&host, &config)?;
        Ok(Record {
            id: id.to_owned(),
            name: String::new(),
            created: now(),
            image,
            path,
            args,
            config,
            host,
            mounts,
            networks,
            state: State::default(),
            restart_count: 0,
            stopped_by_hand: false,
            has_run: false,
            sandbox: String::new(),
            ports: Vec::new(),
            apparmor: String::new(),
            boot: String::new(),
            transient: false,
        })
    }

    /// Defaults, and names of other containers turned into ids.
    fn fill_host(&self, host: &mut HostConfig) -> Result<()> {
        let other = |mode: &mut String| -> Result<()> {
            if let Some(name) = mode.strip_prefix("container:") {
                let c = self.find(name).map_err(|e| e.with_kind(Kind::Invalid))?;
                *mode = format!("container:{}", c.id);
            }
            Ok(())
        };
        other(&mut host.pid_mode)?;
        other(&mut host.ipc_mode)?;
        other(&mut host.network_mode)?;
        let default = |field: &mut String, value: &str| {
            if field.is_empty() {
                *field = value.to_owned();
            }
        };
        if host.network_mode == "default" {
            host.network_mode.clear();
        }
        default(&mut host.network_mode, "bridge");
        self.settle_links(host)?;
        default(&mut host.ipc_mode, "private");
        default(&mut host.runtime, self.inner.runtimes.default_name());
        default(&mut host.log.driver, "json-file");
        default(&mut host.restart.name, "no");
        // A private cgroup namespace always, but for privileged ones on v1, as Docker has it on v2.
        default(&mut host.cgroupns_mode, "private");
        if host.shm_size == 0 {
            host.shm_size = SHM_SIZE;
        }
        let open =
            host.privileged || host.security_opt.iter().flatten().any(|o| o == "systempaths=unconfined");
        let list = |l: Vec<String>| Some(if open { Vec::new() } else { l });
        if host.masked_paths.is_none() {
            host.masked_paths = list(spec_defaults::masked_paths());
        }
        if host.readonly_paths.is_none() {
            host.readonly_paths = list(spec_defaults::readonly_paths());
        }
        let r = &mut host.resources;
        if r.memory > 0 && r.memory_swap == 0 {
            r.memory_swap = r.memory.saturating_mul(2);
        }
        r.memory_swappiness = r.memory_swappiness.filter(|s| *s != -1);
        if r.pids_limit.is_some_and(|p| p <= 0) {
            r.pids_limit = None;
        }
        for name in host.volumes_from.iter().flatten() {
            let (name, _) = mounts::parse_volumes_from(name)?;
            self.find(name).map_err(|e| e.with_kind(Kind::Invalid))?;
        }
        super::spec::check_capabilities(host)
    }

    /// The networks that a container is to be on, by their names: those that it asks for, else the one of its mode.
    fn endpoints(
        &self,
        host: &HostConfig,
        config: &mut ContainerConfig,
        asked: BTreeMap<String, EndpointSettings>,
    ) -> Result<BTreeMap<String, EndpointSettings>> {
        let mode = host.network_mode.as_str();
        if mode.starts_with("container:") {
            return Ok(BTreeMap::new());
        }
        // A network that is not there yet may be when the container starts.
        let known = |name: &str| self.inner.networks.find(name).map_or(name.to_owned(), |n| n.name.clone());
        let first = if config.network_disabled { "none".to_owned() } else { known(mode) };
        let mut all: BTreeMap<String, EndpointSettings> =
            asked.into_iter().map(|(key, settings)| (known(&key), settings)).collect();
        if all.is_empty() {
            all.insert(first.clone(), EndpointSettings::default());
        }
        for alone in ["host", "none"] {
            let among_others = all.len() > 1 && all.contains_key(alone);
            if among_others || (first == alone && !all.contains_key(alone)) {
                return Err(Error::invalid(format!(
                    "conflicting options: a container in network {alone} is in no other network"
                )));
            }
        }
        for (name, settings) in &mut all {
            if settings.mac_address.is_empty() && *name == first {
                settings.mac_address.clone_from(&config.mac_address);
            }
            if config.mac_address.is_empty() && *name == first {
                config.mac_address.clone_from(&settings.mac_address);
            }
            settings.asked_mac.clone_from(&settings.mac_address);
        }
        self.check_endpoints(&all)?;
        Ok(all)
    }

    fn mount_points(&self, host: &HostConfig, config: &ContainerConfig) -> Result<Vec<MountPoint>> {
        let mut from: Vec<MountPoint> = Vec::new();
        for text in host.volumes_from.iter().flatten() {
            let (name, rw) = mounts::parse_volumes_from(text)?;
            for mut m in self.find(name).map_err(|e| e.with_kind(Kind::Invalid))?.record().mounts {
                if m.kind == "tmpfs" {
                    continue;
                }
                m.rw = rw.unwrap_or(true) && m.rw;
                m.copy_up = false;
                from.retain(|o| o.destination != m.destination);
                from.push(m);
            }
        }
        let planned = mounts::plan(host, config.run.volumes.iter().flatten().map(|(k, _)| k), from)?;
        for m in planned.iter().filter(|m| m.kind == "bind" && m.from_mounts) {
            check_bind_source(&m.source)?;
        }
        Ok(planned)
    }

    /// Everything on disk, the record last: it alone makes the container exist.
    fn make(&self, mut record: Record) -> Result<()> {
        let id = record.id.clone();
        for m in record.mounts.iter_mut().filter(|m| m.kind == "volume") {
            let labels = record
                .host
                .mounts
                .iter()
                .flatten()
                .find(|s| !s.volume_labels.is_empty() && mounts::clean(&s.target) == m.destination)
                .map(|s| s.volume_labels.clone());
            m.source = self.volume_for(&m.name, m.anonymous, labels)?;
        }
        make_dir(&self.inner.paths.container(&id), 0o710)?;
        self.inner.store.create_rw(&id, Some(&record.image))?;
        self.store_record(&record)?;
        let container = Container::new(record);
        self.index(|i| i.by_id.insert(id, container.clone()));
        self.container_event(&container, "create", &[]);
        Ok(())
    }

    /// What a failed create left.
    fn unmake(&self, id: &str) {
        crate::notes::remove(&self.inner.paths, id);
        let results = [
            self.inner.store.meta().commit(Batch::new().delete(Table::Containers, id)).map_err(Error::from),
            self.inner.store.remove_rw(id).map_err(Error::from),
            remove_dir(&self.inner.paths.container(id)),
        ];
        for e in results.into_iter().filter_map(Result::err) {
            tracing::warn!(container = id, "could not undo a failed create: {e}");
        }
        self.index(|i| i.by_id.remove(id));
    }
}

/// `--mount` binds only what is there.
pub(super) fn check_bind_source(source: &Path) -> Result<()> {
    if std::fs::metadata(source).is_ok() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "invalid mount config for type \"bind\": bind source path does not exist: {}",
        source.display()
    )))
}

/// The request's settings over the image's.
pub(crate) fn merge(run: &mut RunConfig, image: &RunConfig) {
    let text = |mine: &mut String, theirs: &str| {
        if mine.is_empty() {
            theirs.clone_into(mine);
        }
    };
    text(&mut run.user, &image.user);
    text(&mut run.working_dir, &image.working_dir);
    if let Some(theirs) = &image.exposed_ports {
        run.exposed_ports.get_or_insert_default().extend(theirs.clone());
    }
    if let Some(theirs) = &image.volumes {
        run.volumes.get_or_insert_default().extend(theirs.clone());
    }
    let env = run.env.get_or_insert_default();
    for e in image.env.iter().flatten() {
        let key = e.split('=').next().unwrap_or(e);
        if !env.iter().any(|mine| mine.split('=').next() == Some(key)) {
            env.push(e.clone());
        }
    }
    if !env.iter().any(|e| e.starts_with("PATH=")) && image.env.is_none() {
        env.push(PATH.to_owned());
    }
    if let Some(theirs) = &image.labels {
        let mine = run.labels.get_or_insert_default();
        for (k, v) in theirs {
            mine.entry(k.clone()).or_insert_with(|| v.clone());
        }
    }
    // A new entry point drops the image's command; `[""]` drops the entry point itself.
    let no_entrypoint = run.entrypoint.as_ref().is_none_or(Vec::is_empty);
    if no_entrypoint {
        if run.cmd.as_ref().is_none_or(Vec::is_empty) {
            run.cmd.clone_from(&image.cmd);
            run.args_escaped = image.args_escaped;
        }
        if run.entrypoint.is_none() {
            run.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if run.entrypoint.as_deref().is_some_and(|e| e == [String::new()]) {
        run.entrypoint = None;
    }
    if run.stop_signal.as_deref().unwrap_or_default().is_empty() {
        run.stop_signal.clone_from(&image.stop_signal);
    }
    health::inherit(&mut run.healthcheck, image.healthcheck.as_ref());
    if run.shell.is_none() {
        run.shell.clone_from(&image.shell);
    }
}

/// Program and arguments.
fn command(run: &RunConfig) -> Result<(String, Vec<String>)> {
    let mut words: Vec<String> =
        run.entrypoint.iter().flatten().chain(run.cmd.iter().flatten()).cloned().collect();
    if words.is_empty() || words == [""] {
        return Err(Error::invalid("no command specified"));
    }
    let path = words.remove(0);
    Ok((path, words))
}

fn warn(host: &HostConfig, warnings: &mut Vec<String>) {
    if host.resources.oom_kill_disable == Some(true) && host.resources.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the \
                       system running out of resources."
                .into(),
        );
    }
    let published = host.port_bindings.iter().flatten().next().is_some() || host.publish_all_ports;
    if host.network_mode == "host" && published {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|s| (*s).to_owned()).collect())
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let image = RunConfig {
            env: words(&["PATH=/bin", "A=image"]),
            entrypoint: words(&["/entry"]),
            cmd: words(&["x"]),
            ..Default::default()
        };
        let mut run = RunConfig { env: words(&["A=1"]), ..Default::default() };
        merge(&mut run, &image);
        assert_eq!(run.env, words(&["A=1", "PATH=/bin"]));
        assert_eq!(command(&run).expect("command"), ("/entry".into(), vec!["x".into()]));
        let mut run = RunConfig { entrypoint: words(&["/mine"]), ..Default::default() };
        merge(&mut run, &image);
        assert_eq!(command(&run).expect("command"), ("/mine".into(), vec![]));
        let mut run = RunConfig { entrypoint: words(&[""]), cmd: words(&["y"]), ..Default::default() };
        merge(&mut run, &image);
        assert_eq!(command(&run).expect("command"), ("y".into(), vec![]));
    }

    #[test]
    fn no_command_is_an_error() {
        let mut run = RunConfig::default();
        merge(&mut run, &RunConfig::default());
        assert_eq!(command(&run).unwrap_err().to_string(), "no command specified");
        assert_eq!(run.env, words(&[PATH]));
    }
}
