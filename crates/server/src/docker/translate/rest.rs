//! Volumes and networks as clients see them.

use longshore_api::network as api;
use longshore_api::time::{rfc3339, rfc3339_nano};
use longshore_api::{NetworkCreate, NetworkInspect, VolumeInfo};
use longshore_engine::model;

use crate::errors::ApiError;

/// A volume.
pub(crate) fn volume(v: model::Volume) -> VolumeInfo {
    VolumeInfo {
        created_at: rfc3339(v.created),
        driver: v.driver,
        labels: v.labels,
        mountpoint: v.mountpoint,
        name: v.name,
        options: v.options,
        scope: "local".to_owned(),
    }
}

/// A network. Lists show no members.
pub(crate) fn network(n: model::NetworkView, members: bool) -> NetworkInspect {
    let pools = n.ipam.into_iter().map(|pool| api::IpamPool {
        subnet: pool.subnet,
        ip_range: pool.range,
        gateway: pool.gateway,
        auxiliary_addresses: pool.others,
    });
    let pools: Vec<_> = pools.collect();
    let containers = if members { n.containers } else { Default::default() };
    NetworkInspect {
        name: n.name,
        id: n.id,
        created: rfc3339_nano(n.created),
        scope: "local".to_owned(),
        driver: n.driver,
        enable_ipv4: n.ipv4,
        enable_ipv6: n.ipv6,
        internal: n.internal,
        attachable: n.attachable,
        ipam: api::Ipam {
            driver: "default".to_owned(),
            options: None,
            config: Some(pools).filter(|p| !p.is_empty()),
        },
        containers: containers.into_iter().map(|(id, m)| (id, member(m))).collect(),
        options: n.options,
        labels: n.labels,
        ..NetworkInspect::default()
    }
}

/// A network that is to be made.
///
/// # Errors
/// For kinds of networks that are not there.
pub(crate) fn create_network(n: NetworkCreate) -> Result<model::CreateNetwork, ApiError> {
    if n.config_only || n.config_from.is_some_and(|from| !from.network.is_empty()) {
        return Err(ApiError::unimplemented("networks that are configurations of others"));
    }
    let ipam = n.ipam.unwrap_or_default();
    if !["", "default"].contains(&ipam.driver.as_str()) {
        return Err(ApiError::unimplemented(&format!("the address driver {} of networks", ipam.driver)));
    }
    if ipam.options.is_some_and(|options| !options.is_empty()) {
        return Err(ApiError::unimplemented("options of the address driver of networks"));
    }
    let pool = |pool: api::IpamPool| model::NewPool {
        subnet: pool.subnet,
        range: pool.ip_range,
        gateway: pool.gateway,
        others: pool.auxiliary_addresses,
    };
    Ok(model::CreateNetwork {
        name: n.name,
        driver: n.driver,
        ipv4: n.enable_ipv4.unwrap_or(true),
        ipv6: n.enable_ipv6.unwrap_or(false),
        internal: n.internal,
        attachable: n.attachable,
        pools: ipam.config.into_iter().flatten().map(pool).collect(),
        options: n.options.unwrap_or_default(),
        labels: n.labels.unwrap_or_default(),
    })
}

fn member(m: model::NetworkMember) -> api::NetworkMember {
    api::NetworkMember {
        name: m.name,
        endpoint_id: m.endpoint_id,
        mac_address: m.mac_address,
        ipv4_address: m.ipv4_address,
        ipv6_address: m.ipv6_address,
    }
}
