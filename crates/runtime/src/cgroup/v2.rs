//! Limits as writes to v2 control files. Pure, as [`super::v1`].

use super::{Write, or_max};
use crate::error::{Error, Result};
use crate::spec::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

/// Plans the writes for `resources`, device rules apart.
pub(super) fn plan(resources: &LinuxResources) -> Result<Vec<Write>> {
    let mut w = Vec::new();
    if let Some(memory) = resources.memory() {
        plan_memory(memory, &mut w)?;
    }
    if let Some(cpu) = resources.cpu() {
        plan_cpu(cpu, &mut w)?;
    }
    if let Some(pids) = resources.pids() {
        w.push(Write::new("pids", "pids.max", or_max(pids.limit())));
    }
    if let Some(block_io) = resources.block_io() {
        plan_block_io(block_io, &mut w)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = super::hugepage_size(limit.page_size())?;
        w.push(Write::new("hugetlb", format!("hugetlb.{size}.max"), limit.limit()));
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        w.push(super::rdma(device, limits)?);
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some_and(|id| id != 0)
            || network.priorities().as_ref().is_some_and(|p| !p.is_empty()))
    {
        return unsupported("network class and priorities");
    }
    for (file, value) in resources.unified().iter().flatten() {
        w.push(plan_unified(file, value)?);
    }
    Ok(w)
}

fn unsupported<T>(what: &str) -> Result<T> {
    Err(Error::Unsupported(format!("{what} on a cgroup v2 host")))
}

fn plan_memory(memory: &LinuxMemory, w: &mut Vec<Write>) -> Result<()> {
    let positive = |v: Option<i64>| v.is_some_and(|v| v > 0);
    if positive(memory.kernel()) || positive(memory.kernel_tcp()) {
        return unsupported("a kernel memory limit");
    }
    if memory.swappiness().is_some() {
        return unsupported("swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        return unsupported("turning the out-of-memory killer off");
    }
    let limit = memory.limit().filter(|v| *v != 0);
    let swap = match (memory.swap().filter(|v| *v != 0), limit) {
        // The specification counts memory and swap together, v2 counts swap alone.
        (Some(-1), _) | (None, Some(-1)) => Some(-1),
        (None, _) => None,
        (Some(total), Some(limit)) if limit > 0 && total >= limit => Some(total - limit),
        (Some(_), Some(limit)) if limit > 0 => {
            return Err(Error::Invalid("memory and swap together must not be less than memory".to_owned()));
        }
        (Some(_), _) => return Err(Error::Invalid("a swap limit needs a memory limit".to_owned())),
    };
    match swap {
        Some(-1) => w.push(Write::new("memory", "memory.swap.max", "max").optional()),
        // 0 is a limit here: no swap at all.
        Some(swap) => w.push(Write::new("memory", "memory.swap.max", swap)),
        None => {}
    }
    if let Some(limit) = limit {
        w.push(Write::new("memory", "memory.max", or_max(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|v| *v != 0) {
        w.push(Write::new("memory", "memory.low", or_max(reservation)));
    }
    Ok(())
}

fn plan_cpu(cpu: &LinuxCpu, w: &mut Vec<Write>) -> Result<()> {
    let set = |v: Option<i64>| v.is_some_and(|v| v != 0);
    if set(cpu.realtime_runtime()) || cpu.realtime_period().is_some_and(|v| v != 0) {
        return unsupported("real-time scheduling limits");
    }
    if let Some(shares) = cpu.shares().filter(|v| *v != 0) {
        w.push(Write::new("cpu", "cpu.weight", weight_of_shares(shares)));
    }
    if let Some(idle) = cpu.idle() {
        w.push(Write::new("cpu", "cpu.idle", idle));
    }
    let (quota, period) = (cpu.quota().filter(|v| *v != 0), cpu.period().filter(|v| *v != 0));
    match (quota, period) {
        (None, None) => {}
        (None, Some(period)) => w.push(Write::new("cpu", "cpu.max", period).keeping_quota()),
        (Some(quota), None) => w.push(Write::new("cpu", "cpu.max", or_max(quota))),
        (Some(quota), Some(period)) => {
            w.push(Write::new("cpu", "cpu.max", format!("{} {period}", or_max(quota))));
        }
    }
    if let Some(burst) = cpu.burst() {
        w.push(Write::new("cpu", "cpu.max.burst", burst));
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|s| !s.is_empty()) {
        w.push(Write::new("cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|s| !s.is_empty()) {
        w.push(Write::new("cpuset", "cpuset.mems", mems));
    }
    Ok(())
}

/// Shares are 2 to 262144, weights 1 to 10000; the ends meet.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// blkio weights are 10 to 1000, `io.weight` is 1 to 10000; the ends meet.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

fn plan_block_io(io: &LinuxBlockIo, w: &mut Vec<Write>) -> Result<()> {
    if io.leaf_weight().is_some_and(|v| v != 0) {
        return unsupported("block I/O leaf weight");
    }
    if let Some(weight) = io.weight().filter(|v| *v != 0) {
        // BFQ takes the number as it is, the general file another scale.
        w.push(Write::new("io", "io.bfq.weight", weight).or("io.weight", io_weight(weight)));
    }
    for d in io.weight_device().iter().flatten() {
        if d.leaf_weight().is_some_and(|v| v != 0) {
            return unsupported("block I/O leaf weight");
        }
        if let Some(weight) = d.weight() {
            let device = format!("{}:{}", d.major(), d.minor());
            let general = format!("{device} {}", io_weight(weight));
            w.push(Write::new("io", "io.bfq.weight", format!("{device} {weight}")).or("io.weight", general));
        }
    }
    let throttles = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for d in devices.iter().flatten() {
            // 0 lifts a limit in v1.
            let rate = if d.rate() == 0 { "max".to_owned() } else { d.rate().to_string() };
            w.push(Write::new("io", "io.max", format!("{}:{} {key}={rate}", d.major(), d.minor())));
        }
    }
    Ok(())
}

/// A file of the unified hierarchy by name, as the specification allows it.
fn plan_unified(file: &str, value: &str) -> Result<Write> {
    let bad = || Error::Invalid(format!("{file:?} is no cgroup setting"));
    let (controller, rest) = file.split_once('.').ok_or_else(bad)?;
    let good = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    // Membership and delegation are not limits.
    if !good(controller) || !good(rest) || controller == "cgroup" {
        return Err(bad());
    }
    Ok(Write::new(controller, file, value))
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{lines, resources};
    use super::*;

    #[test]
    fn limits_become_writes() {
        let r = resources(serde_json::json!({
            "memory": {"limit": 100, "swap": 250, "reservation": 50},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100_000, "cpus": "0"},
            "pids": {"limit": 0},
            "blockIO": {"weight": 10, "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 9}]},
            "hugepageLimits": [{"pageSize": "1GB", "limit": 1}],
            "unified": {"memory.high": "77"},
        }));
        assert_eq!(
            lines(&plan(&r).unwrap()),
            [
                "memory.swap.max=150",
                "memory.max=100",
                "memory.low=50",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "cpuset.cpus=0",
                "pids.max=max",
                "io.bfq.weight=10",
                "io.max=8:1 wiops=9",
                "hugetlb.1GB.max=1",
                "memory.high=77",
            ]
        );
    }

    #[test]
    fn scales_meet_at_their_ends() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 39, 10_000]);
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
        assert_eq!(weight_of_shares(u64::MAX), 10_000);
    }

    #[test]
    fn equal_limits_mean_no_swap() {
        let r = resources(serde_json::json!({"memory": {"limit": 100, "swap": 100}}));
        assert_eq!(lines(&plan(&r).unwrap()), ["memory.swap.max=0", "memory.max=100"]);
        let r = resources(serde_json::json!({"memory": {"limit": 100, "swap": -1}, "cpu": {"quota": -1}}));
        assert_eq!(lines(&plan(&r).unwrap()), ["memory.swap.max=max", "memory.max=100", "cpu.max=max"]);
    }

    #[test]
    fn what_v2_cannot_do_is_said() {
        for bad in [
            serde_json::json!({"memory": {"swappiness": 10}}),
            serde_json::json!({"memory": {"disableOOMKiller": true}}),
            serde_json::json!({"memory": {"swap": 10}}),
            serde_json::json!({"memory": {"limit": 20, "swap": 10}}),
            serde_json::json!({"cpu": {"realtimeRuntime": 10}}),
            serde_json::json!({"network": {"classID": 1}}),
            serde_json::json!({"unified": {"cgroup.procs": "1"}}),
            serde_json::json!({"unified": {"memory.x/../../y": "1"}}),
            serde_json::json!({"unified": {"x": "1"}}),
        ] {
            assert!(plan(&resources(bad.clone())).is_err(), "{bad}");
        }
    }
}
