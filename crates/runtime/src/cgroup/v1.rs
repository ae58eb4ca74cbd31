//! Limits as writes to v1 control files. Pure: what is written where is decided here, the parent
//! module writes it.

use std::fmt::Display;

use super::Write;
use crate::error::{Error, Result};
use crate::spec::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

/// Plans the writes for `resources`, device rules apart.
pub(super) fn plan(resources: &LinuxResources) -> Result<Vec<Write>> {
    let mut w = Vec::new();
    if let Some(memory) = resources.memory() {
        plan_memory(memory, &mut w)?;
    }
    if let Some(cpu) = resources.cpu() {
        plan_cpu(cpu, &mut w);
    }
    if let Some(pids) = resources.pids() {
        w.push(Write::new("pids", "pids.max", super::or_max(pids.limit())));
    }
    if let Some(block_io) = resources.block_io() {
        plan_block_io(block_io, &mut w);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = super::hugepage_size(limit.page_size())?;
        w.push(Write::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), limit.limit()));
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        w.push(super::rdma(device, limits)?);
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            w.push(Write::new("net_cls", "net_cls.classid", class));
        }
        for p in network.priorities().iter().flatten() {
            w.push(Write::new("net_prio", "net_prio.ifpriomap", format!("{} {}", p.name(), p.priority())));
        }
    }
    if let Some(unified) = resources.unified()
        && !unified.is_empty()
    {
        return Err(Error::Unsupported(
            "settings of the unified cgroup hierarchy on a cgroup v1 host".into(),
        ));
    }
    Ok(w)
}

fn plan_memory(memory: &LinuxMemory, w: &mut Vec<Write>) -> Result<()> {
    if memory.kernel().is_some_and(|limit| limit > 0) {
        return Err(Error::Unsupported("a kernel memory limit".to_owned()));
    }
    let mut put = |file: &str, value: Option<&dyn Display>| {
        if let Some(value) = value {
            w.push(Write::new("memory", file, value));
        }
    };
    let limit = memory.limit().filter(|limit| *limit != 0);
    // No limit of memory means none of memory and swap either, or the kernel would refuse.
    let unlimited = (limit == Some(-1)).then_some(-1);
    let swap = memory.swap().filter(|swap| *swap != 0).or(unlimited);
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (swap < limit || limit == -1)
    {
        return Err(Error::Invalid("memory and swap together must not be less than memory".to_owned()));
    }
    put("memory.limit_in_bytes", limit.as_ref().map(|v| v as _));
    // Where swap is not accounted, "no limit" is what there is anyway.
    match swap {
        Some(-1) => w.push(Write::new("memory", "memory.memsw.limit_in_bytes", -1).optional()),
        Some(swap) => w.push(Write::new("memory", "memory.memsw.limit_in_bytes", swap)),
        None => {}
    }
    let mut put = |file: &str, value: Option<&dyn Display>| {
        if let Some(value) = value {
            w.push(Write::new("memory", file, value));
        }
    };
    let reservation = memory.reservation().filter(|v| *v != 0);
    put("memory.soft_limit_in_bytes", reservation.as_ref().map(|v| v as _));
    put("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp().filter(|v| *v != 0).as_ref().map(|v| v as _));
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(Error::Invalid(format!("swappiness {swappiness} is not between 0 and 100")));
        }
        put("memory.swappiness", Some(&swappiness));
    }
    if memory.disable_oom_killer() == Some(true) {
        put("memory.oom_control", Some(&1));
    }
    Ok(())
}

fn plan_cpu(cpu: &LinuxCpu, w: &mut Vec<Write>) {
    let mut put = |file: &str, value: Option<&dyn Display>| {
        if let Some(value) = value {
            w.push(Write::new("cpu", file, value));
        }
    };
    put("cpu.shares", cpu.shares().filter(|v| *v != 0).as_ref().map(|v| v as _));
    put("cpu.rt_period_us", cpu.realtime_period().filter(|v| *v != 0).as_ref().map(|v| v as _));
    put("cpu.rt_runtime_us", cpu.realtime_runtime().filter(|v| *v != 0).as_ref().map(|v| v as _));
    put("cpu.cfs_period_us", cpu.period().filter(|v| *v != 0).as_ref().map(|v| v as _));
    put("cpu.cfs_quota_us", cpu.quota().filter(|v| *v != 0).as_ref().map(|v| v as _));
    put("cpu.cfs_burst_us", cpu.burst().as_ref().map(|v| v as _));
    put("cpu.idle", cpu.idle().as_ref().map(|v| v as _));
    if let Some(cpus) = cpu.cpus().as_ref().filter(|s| !s.is_empty()) {
        w.push(Write::new("cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|s| !s.is_empty()) {
        w.push(Write::new("cpuset", "cpuset.mems", mems));
    }
}

fn plan_block_io(io: &LinuxBlockIo, w: &mut Vec<Write>) {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        w.push(Write::new("blkio", "blkio.weight", weight).or_file("blkio.bfq.weight"));
    }
    if let Some(weight) = io.leaf_weight().filter(|weight| *weight != 0) {
        w.push(Write::new("blkio", "blkio.leaf_weight", weight));
    }
    for d in io.weight_device().iter().flatten() {
        let device = format!("{}:{}", d.major(), d.minor());
        if let Some(weight) = d.weight() {
            let value = format!("{device} {weight}");
            w.push(Write::new("blkio", "blkio.weight_device", value).or_file("blkio.bfq.weight_device"));
        }
        if let Some(weight) = d.leaf_weight() {
            w.push(Write::new("blkio", "blkio.leaf_weight_device", format!("{device} {weight}")));
        }
    }
    let throttles = [
        ("read_bps", io.throttle_read_bps_device()),
        ("write_bps", io.throttle_write_bps_device()),
        ("read_iops", io.throttle_read_iops_device()),
        ("write_iops", io.throttle_write_iops_device()),
    ];
    for (what, devices) in throttles {
        for d in devices.iter().flatten() {
            let value = format!("{}:{} {}", d.major(), d.minor(), d.rate());
            w.push(Write::new("blkio", format!("blkio.throttle.{what}_device"), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{lines, resources};
    use super::*;

    #[test]
    fn limits_become_writes() {
        let r = resources(serde_json::json!({
            "memory": {"limit": 100, "swap": 200, "reservation": 50, "swappiness": 0, "disableOOMKiller": true},
            "cpu": {"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 7},
            "blockIO": {"weight": 300, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
        }));
        assert_eq!(
            lines(&plan(&r).unwrap()),
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=200",
                "memory.soft_limit_in_bytes=50",
                "memory.swappiness=0",
                "memory.oom_control=1",
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=7",
                "blkio.weight=300",
                "blkio.throttle.read_bps_device=8:0 1024",
                "hugetlb.2MB.limit_in_bytes=4096",
            ]
        );
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        let zeros = serde_json::json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0, "cpus": ""}});
        assert!(plan(&resources(zeros)).unwrap().is_empty());
        assert!(plan(&LinuxResources::default()).unwrap().is_empty());
    }

    #[test]
    fn unlimited_is_said_for_swap_too() {
        let r = resources(serde_json::json!({"memory": {"limit": -1}, "pids": {"limit": -1}}));
        assert_eq!(
            lines(&plan(&r).unwrap()),
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1", "pids.max=max"]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            serde_json::json!({"memory": {"limit": 100, "swap": 50}}),
            serde_json::json!({"memory": {"swappiness": 101}}),
            serde_json::json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}),
            serde_json::json!({"unified": {"memory.high": "1"}}),
        ] {
            assert!(plan(&resources(bad)).is_err());
        }
    }
}
