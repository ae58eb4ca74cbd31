//! Requests that make a container or an exec.

use std::collections::BTreeMap;

use longshore_api::container as api;
use longshore_api::{ContainerConfig, ContainerCreateBody, ExecCreate, HostConfig};
use longshore_engine::model;
use longshore_oci::image::{HealthConfig, RunConfig};
use serde_json::Value;

use crate::errors::ApiError;

/// A create request. The body has a configuration.
pub(crate) fn create_container(
    name: Option<&str>,
    platform: Option<&str>,
    body: ContainerCreateBody,
) -> Result<model::CreateContainer, ApiError> {
    let Some(config) = body.config else {
        return Err(ApiError::invalid("config cannot be empty in order to create a container"));
    };
    let networks = body.networking_config.unwrap_or_default().endpoints_config;
    Ok(model::CreateContainer {
        name: name.map(|n| n.strip_prefix('/').filter(|bare| !bare.is_empty()).unwrap_or(n).to_owned()),
        platform: platform.map(str::to_owned),
        config: container_config(config),
        host: host_config(body.host_config.unwrap_or_default())?,
        networks: networks
            .into_iter()
            .map(|(n, e)| Ok((n, endpoint(e)?)))
            .collect::<Result<_, ApiError>>()?,
    })
}

/// The part of a configuration that an image has too.
pub(crate) fn run_config(c: &ContainerConfig) -> RunConfig {
    RunConfig {
        user: c.user.clone(),
        exposed_ports: c.exposed_ports.clone(),
        env: c.env.clone(),
        entrypoint: c.entrypoint.clone().map(|s| s.0),
        cmd: c.cmd.clone().map(|s| s.0),
        volumes: c.volumes.clone(),
        working_dir: c.working_dir.clone(),
        labels: c.labels.clone(),
        stop_signal: Some(c.stop_signal.clone()).filter(|s| !s.is_empty()),
        healthcheck: c.healthcheck.as_ref().map(health),
        on_build: c.on_build.clone(),
        shell: c.shell.clone().map(|s| s.0),
        args_escaped: c.args_escaped,
    }
}

fn health(h: &api::HealthConfig) -> HealthConfig {
    HealthConfig {
        test: h.test.clone(),
        interval: h.interval,
        timeout: h.timeout,
        start_period: h.start_period,
        start_interval: h.start_interval,
        retries: h.retries,
    }
}

fn container_config(c: ContainerConfig) -> model::ContainerConfig {
    model::ContainerConfig {
        run: run_config(&c),
        image: c.image,
        hostname: c.hostname,
        domainname: c.domainname,
        tty: c.tty,
        open_stdin: c.open_stdin,
        stdin_once: c.stdin_once,
        attach_stdin: c.attach_stdin,
        attach_stdout: c.attach_stdout,
        attach_stderr: c.attach_stderr,
        network_disabled: c.network_disabled,
        stop_timeout: c.stop_timeout,
        mac_address: c.mac_address,
    }
}

fn host_config(h: HostConfig) -> Result<model::HostConfig, ApiError> {
    if h.cpu_count != 0 || h.cpu_percent != 0 || h.io_maximum_iops != 0 || h.io_maximum_bandwidth != 0 {
        return Err(ApiError::invalid(
            "CpuCount, CpuPercent, IOMaximumIOps and IOMaximumBandwidth are options of Windows",
        ));
    }
    let resources = resources(&h);
    Ok(model::HostConfig {
        binds: h.binds,
        mounts: h.mounts.map(|m| m.into_iter().map(mount).collect::<Result<_, _>>()).transpose()?,
        tmpfs: h.tmpfs,
        volume_driver: h.volume_driver,
        volumes_from: h.volumes_from,
        container_id_file: h.container_id_file,
        log: model::LogConfig {
            driver: h.log_config.driver,
            options: h.log_config.config.unwrap_or_default(),
        },
        network_mode: h.network_mode,
        port_bindings: h.port_bindings.map(port_bindings),
        publish_all_ports: h.publish_all_ports,
        publish_mode: h.publish_mode.parse()?,
        restart: model::RestartPolicy {
            name: h.restart_policy.name,
            max_retries: h.restart_policy.maximum_retry_count,
        },
        auto_remove: h.auto_remove,
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
        readonly_rootfs: h.readonly_rootfs,
        security_opt: h.security_opt,
        storage_opt: h.storage_opt,
        uts_mode: h.uts_mode,
        userns_mode: h.userns_mode,
        shm_size: h.shm_size,
        sysctls: h.sysctls,
        runtime: h.runtime,
        isolation: h.isolation,
        resources,
        masked_paths: h.masked_paths,
        readonly_paths: h.readonly_paths,
        init: h.init,
    })
}

/// What is to be different of a container.
///
/// # Errors
/// For limits, by name.
pub(crate) fn update(body: api::ContainerUpdate) -> Result<model::UpdateContainer, ApiError> {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    };
    if let Some((name, _)) = body.others.iter().find(|(_, value)| !empty(value)) {
        return Err(ApiError::unimplemented(&format!("changing {name} of a container")));
    }
    let policy = body.restart_policy;
    Ok(model::UpdateContainer {
        ports: body.port_bindings.map(port_bindings),
        restart: (!policy.name.is_empty())
            .then_some(model::RestartPolicy { name: policy.name, max_retries: policy.maximum_retry_count }),
    })
}

fn port_bindings(map: api::PortMap) -> BTreeMap<String, Option<Vec<model::PortBinding>>> {
    let binding = |b: api::PortBinding| model::PortBinding { host_ip: b.host_ip, host_port: b.host_port };
    map.into_iter().map(|(port, list)| (port, list.map(|l| l.into_iter().map(binding).collect()))).collect()
}

fn resources(h: &HostConfig) -> model::Resources {
    let throttles = |list: &Option<Vec<api::ThrottleDevice>>| {
        list.as_ref()
            .map(|l| l.iter().map(|d| model::ThrottleDevice { path: d.path.clone(), rate: d.rate }).collect())
    };
    model::Resources {
        cpu_shares: h.cpu_shares,
        memory: h.memory,
        memory_reservation: h.memory_reservation,
        memory_swap: h.memory_swap,
        memory_swappiness: h.memory_swappiness,
        nano_cpus: h.nano_cpus,
        cgroup_parent: h.cgroup_parent.clone(),
        blkio_weight: h.blkio_weight,
        blkio_weight_device: h.blkio_weight_device.as_ref().map(|l| {
            l.iter().map(|d| model::WeightDevice { path: d.path.clone(), weight: d.weight }).collect()
        }),
        blkio_device_read_bps: throttles(&h.blkio_device_read_bps),
        blkio_device_write_bps: throttles(&h.blkio_device_write_bps),
        blkio_device_read_iops: throttles(&h.blkio_device_read_iops),
        blkio_device_write_iops: throttles(&h.blkio_device_write_iops),
        cpu_period: h.cpu_period,
        cpu_quota: h.cpu_quota,
        cpu_realtime_period: h.cpu_realtime_period,
        cpu_realtime_runtime: h.cpu_realtime_runtime,
        cpuset_cpus: h.cpuset_cpus.clone(),
        cpuset_mems: h.cpuset_mems.clone(),
        devices: h.devices.as_ref().map(|l| l.iter().map(device).collect()),
        device_cgroup_rules: h.device_cgroup_rules.clone(),
        device_requests: h.device_requests.clone(),
        oom_kill_disable: h.oom_kill_disable,
        pids_limit: h.pids_limit,
        ulimits: h.ulimits.as_ref().map(|l| {
            l.iter().map(|u| model::Ulimit { name: u.name.clone(), soft: u.soft, hard: u.hard }).collect()
        }),
    }
}

fn device(d: &api::DeviceMapping) -> model::DeviceMapping {
    model::DeviceMapping {
        host: d.path_on_host.clone(),
        container: d.path_in_container.clone(),
        permissions: d.cgroup_permissions.clone(),
    }
}

fn mount(m: api::Mount) -> Result<model::MountSpec, ApiError> {
    for (given, what) in
        [(m.image_options.is_some(), "ImageOptions"), (m.cluster_options.is_some(), "ClusterOptions")]
    {
        if given {
            return Err(ApiError::unimplemented(&format!("{what} of a mount")));
        }
    }
    let (has_bind, has_volume, has_tmpfs) =
        (m.bind_options.is_some(), m.volume_options.is_some(), m.tmpfs_options.is_some());
    let bind = m.bind_options.unwrap_or_default();
    let volume = m.volume_options.unwrap_or_default();
    let tmpfs = m.tmpfs_options.unwrap_or_default();
    let driver = volume.driver_config.unwrap_or_default();
    Ok(model::MountSpec {
        kind: m.kind,
        source: m.source,
        target: m.target,
        read_only: m.read_only,
        consistency: m.consistency,
        bind_propagation: bind.propagation,
        bind_non_recursive: bind.non_recursive,
        bind_create_mountpoint: bind.create_mountpoint,
        bind_read_only_non_recursive: bind.read_only_non_recursive,
        bind_read_only_force_recursive: bind.read_only_force_recursive,
        volume_no_copy: volume.no_copy,
        volume_subpath: volume.subpath,
        volume_labels: volume.labels.unwrap_or_default(),
        volume_driver: driver.name,
        volume_driver_options: driver.options.unwrap_or_default(),
        tmpfs_size: tmpfs.size_bytes,
        tmpfs_mode: tmpfs.mode,
        tmpfs_options: tmpfs.options,
        has_bind,
        has_volume,
        has_tmpfs,
    })
}

/// What a client asks of a network; what only the engine can know is dropped.
pub(crate) fn endpoint(e: api::EndpointSettings) -> Result<model::EndpointSettings, ApiError> {
    let has_ipam = e.ipam_config.is_some();
    let ipam = e.ipam_config.unwrap_or_default();
    if !ipam.link_local_ips.is_empty() {
        return Err(ApiError::unimplemented("LinkLocalIPs of an endpoint"));
    }
    Ok(model::EndpointSettings {
        aliases: e.aliases,
        links: e.links,
        ipam_ipv4: ipam.ipv4_address,
        ipam_ipv6: ipam.ipv6_address,
        has_ipam,
        driver_opts: e.driver_opts,
        gw_priority: e.gw_priority,
        mac_address: e.mac_address,
        ..model::EndpointSettings::default()
    })
}

/// An exec request.
pub(crate) fn create_exec(body: ExecCreate) -> model::CreateExec {
    model::CreateExec {
        user: body.user,
        privileged: body.privileged,
        tty: body.tty,
        console_size: body.console_size,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        detach_keys: Some(body.detach_keys).filter(|k| !k.is_empty()),
        env: body.env.unwrap_or_default(),
        working_dir: body.working_dir,
        cmd: body.cmd.unwrap_or_default().0,
    }
}
