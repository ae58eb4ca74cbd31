//! The daemon itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue, PRAGMA};
use longshore_api::system::{Actor, Component, IndexInfo, Plugins, RegistryConfig, RuntimeInfo, SwarmInfo};
use longshore_api::time::rfc3339_nano;
use longshore_api::{ApiVersion, DiskUsage, Event, Info, UsageData, Version, VolumeUsage};
use longshore_engine::model::{self, EventsRequest, UsageOf};

use super::containers::ImageNames;
use super::streams::moment;
use super::translate::{container, image, rest, upkeep};
use super::{Answer, Call, now_nanos, reply, shape};
use crate::errors::ApiError;

/// `/_ping`.
pub(super) fn ping() -> Answer {
    let mut answer = reply::text(StatusCode::OK, "OK");
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    Ok(answer)
}

/// `GET /version`.
pub(super) async fn version(call: &Call) -> Answer {
    let machine = call.engine().version().await?;
    let ours = &call.config().version;
    let details = [
        ("ApiVersion", ApiVersion::MAX.to_string()),
        ("MinAPIVersion", ApiVersion::MIN.to_string()),
        ("Arch", machine.architecture.clone()),
        ("Os", machine.os.clone()),
        ("KernelVersion", machine.kernel_version.clone()),
        ("Experimental", "false".to_owned()),
    ];
    let engine = Component {
        name: "Engine".to_owned(),
        version: ours.clone(),
        details: details.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
    };
    Ok(reply::json(&Version {
        platform: longshore_api::system::VersionPlatform { name: format!("Longshore {ours}") },
        components: vec![engine],
        version: ours.clone(),
        api_version: ApiVersion::MAX.to_string(),
        min_api_version: ApiVersion::MIN.to_string(),
        os: machine.os,
        arch: machine.architecture,
        kernel_version: machine.kernel_version,
        ..Version::default()
    }))
}

/// `GET /system/df`.
pub(super) async fn disk_usage(call: &Call) -> Answer {
    let mut of = UsageOf::default();
    let mut build_cache = false;
    let types = call.query.all("type");
    for name in types.iter().map(String::as_str) {
        match name {
            "image" => of.images = true,
            "container" => of.containers = true,
            "volume" => of.volumes = true,
            "build-cache" => build_cache = true,
            other => return Err(ApiError::invalid(format!("unknown object type: {other}"))),
        }
    }
    if types.is_empty() {
        (of, build_cache) = (UsageOf { images: true, containers: true, volumes: true, ledger: true }, true);
    }
    let found = call.engine().disk_usage(of).await?;
    let images = found.images.iter().map(|i| {
        let mut line = image::summary(i);
        shape::image_summary(call.version, &mut line);
        line.containers = i.containers;
        line.repo_digests = line.repo_digests.filter(|l| !l.is_empty());
        line
    });
    let now = now_nanos();
    let mut names = ImageNames::default();
    let mut containers = Vec::new();
    for one in found.containers {
        let name = names.shown(call, &one).await;
        let mut line = container::summary(one, name, now);
        shape::container_summary(call.version, &mut line);
        containers.push(line);
    }
    let volumes = found.volumes.into_iter().map(|v| VolumeUsage {
        volume: rest::volume(v.volume),
        usage_data: UsageData {
            ref_count: i64::try_from(v.users).unwrap_or(i64::MAX),
            size: container::signed(v.size),
        },
    });
    Ok(reply::json(&DiskUsage {
        layers_size: container::signed(found.layers_size),
        images: of.images.then(|| images.collect()),
        containers: of.containers.then_some(containers),
        volumes: of.volumes.then(|| volumes.collect()),
        build_cache: match build_cache {
            true => Some(call.engine().build_cache().await?.into_iter().map(upkeep::build_cache).collect()),
            false => None,
        },
        longshore: found.ledger.map(upkeep::ledger),
    }))
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// `GET /info`.
pub(super) async fn info(call: &Call) -> Answer {
    let mut info = describe(call.engine().info().await?, &call.config().version);
    shape::info(call.version, &mut info);
    Ok(reply::json(&info))
}

/// How registries are reached, as Docker tells it: mirrors end in a slash.
fn registries(mirrors: Vec<String>, insecure: Vec<String>) -> RegistryConfig {
    let mirrors: Vec<String> =
        mirrors.into_iter().map(|m| if m.ends_with('/') { m } else { format!("{m}/") }).collect();
    let (networks, names): (Vec<_>, Vec<_>) = insecure.into_iter().partition(|rule| rule.contains('/'));
    let index = |name: &str, mirrors: &[String], official: bool| IndexInfo {
        mirrors: mirrors.to_vec(),
        name: name.to_owned(),
        official,
        secure: official,
    };
    let mut indexes = BTreeMap::from([("docker.io".to_owned(), index("docker.io", &mirrors, true))]);
    indexes.extend(names.into_iter().map(|name| (name.clone(), index(&name, &[], false))));
    let own = ["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    RegistryConfig {
        index_configs: indexes,
        insecure_registry_cidrs: own.into_iter().chain(networks).collect(),
        mirrors: Some(mirrors).filter(|m| !m.is_empty()),
        ..RegistryConfig::default()
    }
}

fn describe(i: model::SystemInfo, version: &str) -> Info {
    let registries = registries(i.mirrors, i.insecure_registries);
    let runtime = |(name, path): (String, String)| (name, RuntimeInfo { path, status: BTreeMap::new() });
    Info {
        id: i.id,
        containers: count(i.containers),
        containers_running: count(i.running),
        containers_paused: count(i.paused),
        containers_stopped: count(i.stopped),
        images: count(i.images),
        driver: i.driver,
        driver_status: i.driver_status,
        plugins: Plugins {
            volume: i.volume_drivers,
            network: i.network_drivers,
            authorization: None,
            log: i.log_drivers,
        },
        memory_limit: i.memory_limit,
        swap_limit: i.swap_limit,
        cpu_cfs_period: i.cpu_cfs_period,
        cpu_cfs_quota: i.cpu_cfs_quota,
        cpu_shares: i.cpu_shares,
        cpu_set: i.cpuset,
        pids_limit: i.pids_limit,
        ipv4_forwarding: i.ipv4_forwarding,
        debug: i.debug,
        n_fd: count(i.fds),
        oom_kill_disable: i.oom_kill_disable,
        system_time: rfc3339_nano(i.system_time),
        logging_driver: "json-file".to_owned(),
        cgroup_driver: i.cgroup_driver,
        cgroup_version: i.cgroup_version,
        n_events_listener: count(i.event_listeners),
        kernel_version: i.kernel_version,
        operating_system: i.operating_system,
        os_version: i.os_version,
        os_type: "linux".to_owned(),
        architecture: i.architecture,
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: Some(registries),
        ncpu: count(i.cpus),
        mem_total: i.memory,
        docker_root_dir: i.root_dir,
        name: i.hostname,
        server_version: version.to_owned(),
        runtimes: i.runtimes.into_iter().map(runtime).collect(),
        default_runtime: i.default_runtime,
        swarm: SwarmInfo { local_node_state: "inactive".to_owned(), ..SwarmInfo::default() },
        security_options: i.security_options,
        firewall_backend: Some(longshore_api::system::FirewallInfo {
            driver: "nftables".to_owned(),
            info: Vec::new(),
        }),
        warnings: Some(i.warnings).filter(|w| !w.is_empty()),
        // Containers outlive the daemon, always.
        live_restore_enabled: true,
        ..Info::default()
    }
}

/// `GET /events`.
pub(super) async fn events(call: &Call) -> Answer {
    let wanted = EventsRequest {
        since: moment(call, "since")?,
        until: moment(call, "until")?,
        filters: call.query.filters()?,
    };
    let found = call.engine().events(wanted).await?;
    let lines = found.map(|event| {
        let mut line = serde_json::to_vec(&wire_event(event?)).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, longshore_engine::Error>(Bytes::from(line))
    });
    Ok(reply::stream(reply::JSON, lines))
}

/// Containers and images are named a second time at the top, for old clients.
fn wire_event(e: model::Event) -> Event {
    let legacy = matches!(e.kind.as_str(), "container" | "image");
    let from = match e.kind.as_str() {
        "container" => e.attributes.get("image").cloned().unwrap_or_default(),
        _ => String::new(),
    };
    Event {
        status: if legacy { e.action.clone() } else { String::new() },
        id: if legacy { e.actor.clone() } else { String::new() },
        from,
        kind: e.kind,
        action: e.action,
        actor: Actor { id: e.actor, attributes: e.attributes },
        scope: "local".to_owned(),
        time: e.time.div_euclid(1_000_000_000),
        time_nano: e.time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_name_containers_twice() {
        let golden = r#"{"status":"start","id":"2bed","from":"nginx","Type":"container","Action":"start","Actor":{"ID":"2bed","Attributes":{"image":"nginx","l":"1","name":"web"}},"scope":"local","time":1795474418,"timeNano":1795474418821511764}"#;
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let event = model::Event {
            kind: "container".into(),
            action: "start".into(),
            actor: "2bed".into(),
            attributes: [pair("image", "nginx"), pair("l", "1"), pair("name", "web")].into(),
            time: 1_795_474_418_821_511_764,
        };
        let network = model::Event { kind: "network".into(), ..event.clone() };
        let text = serde_json::to_string(&wire_event(event)).unwrap();
        assert_eq!(text, golden);
        let text = serde_json::to_string(&wire_event(network)).unwrap();
        assert!(text.starts_with(r#"{"Type":"network""#), "{text}");
    }
}
