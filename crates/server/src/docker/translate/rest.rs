//! Volumes and networks as clients see them.

use longshore_api::network as api;
use longshore_api::time::{rfc3339, rfc3339_nano};
use longshore_api::{NetworkInspect, VolumeInfo};
use longshore_engine::model;

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
    let pools = n.ipam.into_iter().map(|(subnet, gateway)| api::IpamPool {
        subnet,
        gateway,
        ..api::IpamPool::default()
    });
    let pools: Vec<_> = pools.collect();
    let containers = if members { n.containers } else { Default::default() };
    NetworkInspect {
        name: n.name,
        id: n.id,
        created: rfc3339_nano(n.created),
        scope: "local".to_owned(),
        driver: n.driver,
        enable_ipv4: true,
        enable_ipv6: false,
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

fn member(m: model::NetworkMember) -> api::NetworkMember {
    api::NetworkMember {
        name: m.name,
        endpoint_id: m.endpoint_id,
        mac_address: m.mac_address,
        ipv4_address: m.ipv4_address,
        ipv6_address: m.ipv6_address,
    }
}
