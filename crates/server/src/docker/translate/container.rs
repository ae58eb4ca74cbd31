//! Containers as clients see them.

use std::collections::BTreeMap;

use longshore_api::container as api;
use longshore_api::time::rfc3339_nano;
use longshore_api::{ContainerConfig, ContainerInspect, ContainerSummary, ExecInspect, HostConfig};
use longshore_engine::model;
use longshore_oci::image::{HealthConfig, RunConfig};

use crate::docker::human;

/// `GET /containers/{id}/json`.
pub(crate) fn inspect(v: model::ContainerView) -> ContainerInspect {
    let settings = network_settings(&v);
    ContainerInspect {
        created: rfc3339_nano(v.created),
        path: v.path,
        args: v.args,
        state: state(&v.state),
        image: v.image_id.to_string(),
        resolv_conf_path: v.resolv_conf_path,
        hostname_path: v.hostname_path,
        hosts_path: v.hosts_path,
        log_path: v.log_path,
        name: format!("/{}", v.name),
        restart_count: v.restart_count,
        driver: v.driver.clone(),
        platform: "linux".to_owned(),
        mount_label: v.mount_label,
        process_label: v.process_label,
        app_armor_profile: v.apparmor_profile,
        exec_ids: Some(v.exec_ids).filter(|ids| !ids.is_empty()),
        host_config: host_config(v.host),
        graph_driver: api::GraphDriver { data: Some(v.graph), name: v.driver },
        size_rw: v.sizes.map(|(rw, _)| signed(rw)),
        size_root_fs: v.sizes.map(|(_, all)| signed(all)),
        mounts: v.mounts.iter().map(mount_point).collect(),
        config: container_config(v.config),
        network_settings: settings,
        id: v.id,
    }
}

/// Sizes are signed on the wire.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn state(s: &model::State) -> api::ContainerState {
    use model::Status;
    api::ContainerState {
        status: s.status.word().to_owned(),
        running: matches!(s.status, Status::Running | Status::Paused | Status::Restarting),
        paused: s.status == Status::Paused,
        restarting: s.status == Status::Restarting,
        oom_killed: s.oom_killed,
        dead: s.status == Status::Dead,
        pid: s.pid,
        exit_code: s.exit_code,
        error: s.error.clone(),
        started_at: rfc3339_nano(s.started),
        finished_at: rfc3339_nano(s.finished),
        health: s.health.as_ref().map(health_state),
    }
}

fn health_state(h: &model::Health) -> api::Health {
    let results = h.log.iter().map(|r| api::HealthResult {
        start: rfc3339_nano(r.start),
        end: rfc3339_nano(r.end),
        exit_code: r.exit_code,
        output: r.output.clone(),
    });
    api::Health {
        status: h.status.word().to_owned(),
        failing_streak: h.failing_streak,
        log: Some(results.collect()),
    }
}

fn mount_point(m: &model::MountPoint) -> api::MountPoint {
    api::MountPoint {
        kind: m.kind.clone(),
        name: m.name.clone(),
        source: m.source.to_string_lossy().into_owned(),
        destination: m.destination.clone(),
        driver: m.driver.clone(),
        mode: m.mode.clone(),
        rw: m.rw,
        propagation: m.propagation.clone(),
    }
}

fn health(h: HealthConfig) -> api::HealthConfig {
    api::HealthConfig {
        test: h.test,
        interval: h.interval,
        timeout: h.timeout,
        start_period: h.start_period,
        start_interval: h.start_interval,
        retries: h.retries,
    }
}

fn container_config(c: model::ContainerConfig) -> ContainerConfig {
    let RunConfig {
        user,
        exposed_ports,
        env,
        entrypoint,
        cmd,
        volumes,
        working_dir,
        labels,
        stop_signal,
        healthcheck,
        on_build,
        shell,
        args_escaped,
    } = c.run;
    ContainerConfig {
        hostname: c.hostname,
        domainname: c.domainname,
        user,
        attach_stdin: c.attach_stdin,
        attach_stdout: c.attach_stdout,
        attach_stderr: c.attach_stderr,
        exposed_ports,
        tty: c.tty,
        open_stdin: c.open_stdin,
        stdin_once: c.stdin_once,
        env,
        cmd: cmd.map(Into::into),
        healthcheck: healthcheck.map(health),
        args_escaped,
        image: c.image,
        volumes,
        working_dir,
        entrypoint: entrypoint.map(Into::into),
        network_disabled: c.network_disabled,
        mac_address: c.mac_address,
        on_build,
        labels: Some(labels.unwrap_or_default()),
        stop_signal: stop_signal.unwrap_or_default(),
        stop_timeout: c.stop_timeout,
        shell: shell.map(Into::into),
    }
}

fn host_config(h: model::HostConfig) -> HostConfig {
    let r = h.resources;
    let throttles = |list: Option<Vec<model::ThrottleDevice>>| {
        list.map(|l| l.into_iter().map(|d| api::ThrottleDevice { path: d.path, rate: d.rate }).collect())
    };
    HostConfig {
        binds: h.binds,
        container_id_file: h.container_id_file,
        log_config: api::LogConfig { driver: h.log.driver, config: Some(h.log.options) },
        network_mode: h.network_mode,
        port_bindings: h.port_bindings.map(port_bindings),
        restart_policy: api::RestartPolicy {
            name: h.restart.name,
            maximum_retry_count: h.restart.max_retries,
        },
        auto_remove: h.auto_remove,
        volume_driver: h.volume_driver,
        volumes_from: h.volumes_from,
        console_size: h.console_size,
        annotations: h.annotations,
        cap_add: h.cap_add,
        cap_drop: h.cap_drop,
        cgroupns_mode: h.cgroupns_mode,
        dns: h.dns,
        dns_options: h.dns_options,
        dns_search: h.dns_search,
        extra_hosts: h.extra_hosts,
        group_add: h.group_add,
        ipc_mode: h.ipc_mode,
        cgroup: h.cgroup,
        links: h.links,
        oom_score_adj: h.oom_score_adj,
        pid_mode: h.pid_mode,
        privileged: h.privileged,
        publish_all_ports: h.publish_all_ports,
        publish_mode: h.publish_mode.word().to_owned(),
        readonly_rootfs: h.readonly_rootfs,
        security_opt: h.security_opt,
        storage_opt: h.storage_opt,
        tmpfs: h.tmpfs,
        uts_mode: h.uts_mode,
        userns_mode: h.userns_mode,
        shm_size: h.shm_size,
        sysctls: h.sysctls,
        runtime: h.runtime,
        isolation: h.isolation,
        cpu_shares: r.cpu_shares,
        memory: r.memory,
        nano_cpus: r.nano_cpus,
        cgroup_parent: r.cgroup_parent,
        blkio_weight: r.blkio_weight,
        blkio_weight_device: r
            .blkio_weight_device
            .map(|l| l.into_iter().map(|d| api::WeightDevice { path: d.path, weight: d.weight }).collect()),
        blkio_device_read_bps: throttles(r.blkio_device_read_bps),
        blkio_device_write_bps: throttles(r.blkio_device_write_bps),
        blkio_device_read_iops: throttles(r.blkio_device_read_iops),
        blkio_device_write_iops: throttles(r.blkio_device_write_iops),
        cpu_period: r.cpu_period,
        cpu_quota: r.cpu_quota,
        cpu_realtime_period: r.cpu_realtime_period,
        cpu_realtime_runtime: r.cpu_realtime_runtime,
        cpuset_cpus: r.cpuset_cpus,
        cpuset_mems: r.cpuset_mems,
        devices: r.devices.map(|l| l.into_iter().map(device).collect()),
        device_cgroup_rules: r.device_cgroup_rules,
        device_requests: r.device_requests,
        memory_reservation: r.memory_reservation,
        memory_swap: r.memory_swap,
        memory_swappiness: r.memory_swappiness,
        oom_kill_disable: Some(r.oom_kill_disable.unwrap_or(false)),
        pids_limit: r.pids_limit,
        ulimits: r.ulimits.map(|l| {
            l.into_iter().map(|u| api::Ulimit { name: u.name, hard: u.hard, soft: u.soft }).collect()
        }),
        mounts: h.mounts.map(|l| l.into_iter().map(mount_spec).collect()),
        masked_paths: h.masked_paths,
        readonly_paths: h.readonly_paths,
        init: h.init,
        ..HostConfig::default()
    }
}

fn device(d: model::DeviceMapping) -> api::DeviceMapping {
    api::DeviceMapping {
        path_on_host: d.host,
        path_in_container: d.container,
        cgroup_permissions: d.permissions,
    }
}

fn binding(b: model::PortBinding) -> api::PortBinding {
    api::PortBinding { host_ip: b.host_ip, host_port: b.host_port }
}

fn port_bindings(map: BTreeMap<String, Option<Vec<model::PortBinding>>>) -> api::PortMap {
    map.into_iter().map(|(port, list)| (port, list.map(|l| l.into_iter().map(binding).collect()))).collect()
}

fn mount_spec(m: model::MountSpec) -> api::Mount {
    let named = |map: BTreeMap<String, String>| Some(map).filter(|m| !m.is_empty());
    let driver = api::VolumeDriverConfig { name: m.volume_driver, options: named(m.volume_driver_options) };
    api::Mount {
        kind: m.kind,
        source: m.source,
        target: m.target,
        read_only: m.read_only,
        consistency: m.consistency,
        bind_options: m.has_bind.then_some(api::BindOptions {
            propagation: m.bind_propagation,
            non_recursive: m.bind_non_recursive,
            create_mountpoint: m.bind_create_mountpoint,
            read_only_non_recursive: m.bind_read_only_non_recursive,
            read_only_force_recursive: m.bind_read_only_force_recursive,
        }),
        volume_options: m.has_volume.then_some(api::VolumeOptions {
            no_copy: m.volume_no_copy,
            labels: named(m.volume_labels),
            subpath: m.volume_subpath,
            driver_config: Some(driver).filter(|d| *d != api::VolumeDriverConfig::default()),
        }),
        tmpfs_options: m.has_tmpfs.then_some(api::TmpfsOptions {
            size_bytes: m.tmpfs_size,
            mode: m.tmpfs_mode,
            options: m.tmpfs_options,
        }),
        ..api::Mount::default()
    }
}

fn network_settings(v: &model::ContainerView) -> api::NetworkSettings {
    let ports = v.ports.iter().map(|(port, list)| {
        let list = list.iter().cloned().map(binding).collect::<Vec<_>>();
        (port.clone(), Some(list).filter(|l| !l.is_empty()))
    });
    let mut settings = api::NetworkSettings {
        sandbox_id: v.sandbox_id.clone(),
        sandbox_key: v.sandbox_key.clone(),
        ports: Some(ports.collect()),
        networks: v.networks.iter().map(|(name, e)| (name.clone(), endpoint(e))).collect(),
        ..api::NetworkSettings::default()
    };
    // Old clients look for the default network's addresses one level up.
    if let Some(bridge) = settings.networks.get("bridge") {
        settings.endpoint_id = bridge.endpoint_id.clone();
        settings.gateway = bridge.gateway.clone();
        settings.global_ipv6_address = bridge.global_ipv6_address.clone();
        settings.global_ipv6_prefix_len = bridge.global_ipv6_prefix_len;
        settings.ip_address = bridge.ip_address.clone();
        settings.ip_prefix_len = bridge.ip_prefix_len;
        settings.ipv6_gateway = bridge.ipv6_gateway.clone();
        settings.mac_address = bridge.mac_address.clone();
    }
    settings
}

fn endpoint(e: &model::EndpointSettings) -> api::EndpointSettings {
    api::EndpointSettings {
        ipam_config: e.has_ipam.then(|| api::EndpointIpam {
            ipv4_address: e.ipam_ipv4.clone(),
            ipv6_address: e.ipam_ipv6.clone(),
            link_local_ips: Vec::new(),
        }),
        links: e.links.clone(),
        aliases: e.aliases.clone(),
        mac_address: e.mac_address.clone(),
        driver_opts: e.driver_opts.clone(),
        gw_priority: e.gw_priority,
        network_id: e.network_id.clone(),
        endpoint_id: e.endpoint_id.clone(),
        gateway: e.gateway.clone(),
        ip_address: e.ip_address.clone(),
        ip_prefix_len: e.ip_prefix_len,
        ipv6_gateway: e.ipv6_gateway.clone(),
        global_ipv6_address: e.global_ipv6_address.clone(),
        global_ipv6_prefix_len: e.global_ipv6_prefix_len,
        dns_names: e.dns_names.clone(),
    }
}

/// A line of `GET /containers/json`. `image` is the name to show.
pub(crate) fn summary(v: model::ContainerSummary, image: String, now: model::UnixNanos) -> ContainerSummary {
    let networks = v.networks.iter().map(|(name, e)| {
        // Names are for inspect only.
        let shown = api::EndpointSettings {
            links: None,
            aliases: None,
            driver_opts: None,
            dns_names: None,
            ..endpoint(e)
        };
        (name.clone(), shown)
    });
    ContainerSummary {
        names: vec![format!("/{}", v.name)],
        image,
        image_id: v.image_id.to_string(),
        command: human::command(&v.path, &v.args),
        created: v.created.div_euclid(1_000_000_000),
        ports: ports(&v.ports),
        size_rw: v.sizes.map_or(0, |(rw, _)| signed(rw)),
        size_root_fs: v.sizes.map_or(0, |(_, all)| signed(all)),
        state: state(&v.state).status,
        status: human::status(&v.state, now),
        host_config: api::SummaryHostConfig {
            network_mode: v.host.network_mode,
            annotations: v.host.annotations.unwrap_or_default(),
        },
        network_settings: api::SummaryNetworks { networks: networks.collect() },
        mounts: v.mounts.iter().map(mount_point).collect(),
        labels: v.config.run.labels.unwrap_or_default(),
        id: v.id,
    }
}

fn ports(published: &BTreeMap<String, Vec<model::PortBinding>>) -> Vec<api::Port> {
    let mut ports = Vec::new();
    for (name, bindings) in published {
        let (number, kind) = name.split_once('/').unwrap_or((name, "tcp"));
        let Ok(private_port) = number.parse() else { continue };
        let exposed = api::Port { private_port, kind: kind.to_owned(), ..api::Port::default() };
        if bindings.is_empty() {
            ports.push(exposed);
            continue;
        }
        ports.extend(bindings.iter().map(|b| api::Port {
            ip: b.host_ip.clone(),
            public_port: b.host_port.parse().unwrap_or_default(),
            ..exposed.clone()
        }));
    }
    ports
}

/// `GET /exec/{id}/json`.
pub(crate) fn exec(v: model::ExecView) -> ExecInspect {
    let mut words = v.request.cmd.into_iter();
    ExecInspect {
        id: v.id,
        running: v.running,
        exit_code: v.exit_code,
        process_config: longshore_api::exec::ProcessConfig {
            tty: v.request.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: Some(v.request.privileged),
            user: v.request.user,
        },
        open_stdin: v.request.attach_stdin,
        open_stderr: v.request.attach_stderr,
        open_stdout: v.request.attach_stdout,
        can_remove: v.can_remove,
        container_id: v.container_id,
        detach_keys: String::new(),
        pid: v.pid,
    }
}

#[cfg(test)]
mod tests {
    use longshore_api::{ContainerCreateBody, json};
    use serde_json::Value;

    use super::*;
    use crate::docker::translate::create::create_container;

    const GOLDEN: &str = include_str!("../../../../api/tests/fixtures/container-running.json");

    /// What the engine would know of the container in the golden answer. Its configuration goes
    /// through a create request, so that both directions are covered.
    fn view(golden: &ContainerInspect) -> model::ContainerView {
        let body = ContainerCreateBody {
            config: Some(golden.config.clone()),
            host_config: Some(golden.host_config.clone()),
            networking_config: None,
        };
        let sent = serde_json::to_vec(&body).unwrap();
        let body = ContainerCreateBody::from_slice(&sent).unwrap();
        let made = create_container(Some("/web"), None, body).unwrap();
        let mount = |m: &api::MountPoint| model::MountPoint {
            kind: m.kind.clone(),
            name: m.name.clone(),
            source: m.source.clone().into(),
            destination: m.destination.clone(),
            driver: m.driver.clone(),
            mode: m.mode.clone(),
            rw: m.rw,
            propagation: m.propagation.clone(),
            ..model::MountPoint::default()
        };
        let net = &golden.network_settings.networks["net1"];
        let endpoint = model::EndpointSettings {
            aliases: net.aliases.clone(),
            network_id: net.network_id.clone(),
            endpoint_id: net.endpoint_id.clone(),
            gateway: net.gateway.clone(),
            ip_address: net.ip_address.clone(),
            ip_prefix_len: net.ip_prefix_len,
            ipv6_gateway: net.ipv6_gateway.clone(),
            global_ipv6_address: net.global_ipv6_address.clone(),
            global_ipv6_prefix_len: net.global_ipv6_prefix_len,
            mac_address: net.mac_address.clone(),
            dns_names: net.dns_names.clone(),
            ..model::EndpointSettings::default()
        };
        let published = |ip: &str| model::PortBinding { host_ip: ip.into(), host_port: "18080".into() };
        let time = |text: &str| longshore_api::time::parse_rfc3339(text).unwrap();
        model::ContainerView {
            id: golden.id.clone(),
            name: made.name.unwrap(),
            created: time(&golden.created),
            path: golden.path.clone(),
            args: golden.args.clone(),
            state: model::State {
                status: model::Status::Running,
                pid: golden.state.pid,
                started: time(&golden.state.started_at),
                ..model::State::default()
            },
            image_id: golden.image.parse().unwrap(),
            restart_count: 0,
            config: made.config,
            host: made.host,
            mounts: golden.mounts.iter().map(mount).collect(),
            driver: golden.driver.clone(),
            graph: golden.graph_driver.data.clone().unwrap(),
            resolv_conf_path: golden.resolv_conf_path.clone(),
            hostname_path: golden.hostname_path.clone(),
            hosts_path: golden.hosts_path.clone(),
            log_path: golden.log_path.clone(),
            mount_label: String::new(),
            process_label: String::new(),
            apparmor_profile: String::new(),
            exec_ids: Vec::new(),
            sandbox_id: golden.network_settings.sandbox_id.clone(),
            sandbox_key: golden.network_settings.sandbox_key.clone(),
            ports: [("80/tcp".to_owned(), vec![published("0.0.0.0"), published("::")])].into(),
            networks: [("net1".to_owned(), endpoint)].into(),
            sizes: Some((2, 265_320_939)),
        }
    }

    #[test]
    fn inspect_is_what_the_reference_answered() {
        let golden: ContainerInspect = json::from_slice(GOLDEN.as_bytes()).unwrap();
        let ours = serde_json::to_value(inspect(view(&golden))).unwrap();
        let theirs: Value = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn list_is_what_the_reference_answered() {
        let golden: ContainerInspect = json::from_slice(GOLDEN.as_bytes()).unwrap();
        let lines: Value =
            serde_json::from_str(include_str!("../../../../api/tests/fixtures/containers-size.json"))
                .unwrap();
        let view = view(&golden);
        let now = view.state.started + 1_500_000_000;
        let ours = summary(view, "nginx".to_owned(), now);
        assert_eq!(serde_json::to_value(ours).unwrap(), lines[0]);
    }

    #[test]
    fn mounts_and_limits_survive_both_ways() {
        let text = r#"{"Mounts":[{"Type":"volume","Source":"v","Target":"/x","VolumeOptions":{"NoCopy":true,
            "DriverConfig":{"Name":"local","Options":{"o":"p"}}}},{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":5,"Mode":448}},
            {"Type":"bind","Source":"/s","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}],
            "Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],"BlkioWeightDevice":[{"Path":"/dev/a","Weight":9}],
            "Devices":[{"PathOnHost":"/dev/a","PathInContainer":"/dev/b","CgroupPermissions":"rw"}],"Init":true,
            "BlkioDeviceReadIOps":[{"Path":"/dev/a","Rate":7}],"DeviceRequests":[{"Count":-1}],"PidsLimit":5}"#;
        let host: HostConfig = json::from_slice(text.as_bytes()).unwrap();
        let body = ContainerCreateBody {
            config: Some(ContainerConfig { image: "x".into(), ..ContainerConfig::default() }),
            host_config: Some(host.clone()),
            networking_config: None,
        };
        let back = host_config(create_container(None, None, body).unwrap().host);
        assert_eq!(
            (&back.mounts, &back.ulimits, &back.devices),
            (&host.mounts, &host.ulimits, &host.devices)
        );
        assert_eq!(back.blkio_device_read_iops, host.blkio_device_read_iops);
        assert_eq!(back.blkio_weight_device, host.blkio_weight_device);
        assert_eq!(
            (back.init, back.pids_limit, back.device_requests),
            (Some(true), Some(5), host.device_requests)
        );
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, part) in [
            (r#"{"CpuCount":2}"#, "CpuCount"),
            (r#"{"Mounts":[{"Type":"image","ImageOptions":{}}]}"#, "ImageOptions"),
        ] {
            let body = ContainerCreateBody {
                config: Some(ContainerConfig::default()),
                host_config: Some(json::from_slice(text.as_bytes()).unwrap()),
                networking_config: None,
            };
            let refused = create_container(None, None, body).unwrap_err();
            assert!(refused.message.contains(part), "{refused}");
        }
    }
}
