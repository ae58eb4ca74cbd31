//! Limits that this machine's kernel cannot set are left out with a warning, in Docker's words.

use longshore_runtime::cgroup::{Hierarchy, Support};

use crate::model::Resources;
use crate::{Error, Result};

/// Takes out what cannot be had here; says so in `warnings`.
///
/// # Errors
/// For a share of CPUs, which Docker does not drop in silence either, and CPUs that are not there.
pub(super) fn settle(r: &mut Resources, here: Support, warnings: &mut Vec<String>) -> Result<()> {
    let mut drop = |wanted: bool, possible: bool, what: &str| {
        let out = wanted && !possible;
        if out {
            warnings.push(what.to_owned());
        }
        out
    };
    if drop(r.memory > 0, here.memory, MEMORY) {
        (r.memory, r.memory_swap) = (0, -1);
    }
    if drop(r.memory > 0 && r.memory_swap != -1, here.swap, SWAP) {
        r.memory_swap = -1;
    }
    if drop(r.memory_swappiness.is_some_and(|s| s != -1), here.swappiness, SWAPPINESS) {
        r.memory_swappiness = None;
    }
    if drop(r.memory_reservation > 0, here.memory_reservation, RESERVATION) {
        r.memory_reservation = 0;
    }
    if drop(r.oom_kill_disable == Some(true), here.oom_kill_disable, OOM) {
        r.oom_kill_disable = None;
    }
    if drop(r.pids_limit.is_some_and(|n| n > 0), here.pids, PIDS) {
        r.pids_limit = None;
    }
    if r.nano_cpus > 0 && !here.cpu_quota {
        return Err(Error::invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ));
    }
    if drop(r.cpu_shares > 0, here.cpu_shares, SHARES) {
        r.cpu_shares = 0;
    }
    if drop(r.cpu_period != 0 || r.cpu_quota != 0, here.cpu_quota, QUOTA) {
        (r.cpu_period, r.cpu_quota) = (0, 0);
    }
    if drop(!(r.cpuset_cpus.is_empty() && r.cpuset_mems.is_empty()), here.cpuset, CPUSET) {
        r.cpuset_cpus.clear();
        r.cpuset_mems.clear();
    }
    let hierarchy = Hierarchy::get()?;
    for (asked, kind, what) in [(&r.cpuset_cpus, "cpus", "CPUs"), (&r.cpuset_mems, "mems", "memory nodes")] {
        available(asked, &hierarchy.cpuset(kind), what)?;
    }
    if drop(r.blkio_weight > 0, here.blkio_weight, WEIGHT) {
        r.blkio_weight = 0;
    }
    if drop(some(&r.blkio_weight_device), here.blkio_weight_device, WEIGHT_DEVICE) {
        r.blkio_weight_device = None;
    }
    for (list, what) in [
        (
            &mut r.blkio_device_read_bps,
            "BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read",
        ),
        (
            &mut r.blkio_device_write_bps,
            "BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write",
        ),
        (
            &mut r.blkio_device_read_iops,
            "IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read",
        ),
        (
            &mut r.blkio_device_write_iops,
            "IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write",
        ),
    ] {
        if drop(
            some(list),
            here.blkio_throttle,
            &format!("Your kernel does not support {what} limit discarded."),
        ) {
            *list = None;
        }
    }
    Ok(())
}

/// Refuses every limit, where containers have no cgroups.
///
/// # Errors
/// When there is one; it is named.
pub(super) fn refuse(r: &Resources) -> Result<()> {
    let asked = [
        (r.memory > 0 || r.memory_reservation > 0 || r.memory_swap > 0, "memory"),
        (r.pids_limit.is_some_and(|n| n > 0), "the number of processes"),
        (r.nano_cpus > 0 || r.cpu_shares > 0 || r.cpu_quota > 0 || r.cpu_period > 0, "CPU time"),
        (!(r.cpuset_cpus.is_empty() && r.cpuset_mems.is_empty()), "CPUs and memory nodes"),
        (r.blkio_weight > 0 || some(&r.blkio_weight_device), "block I/O"),
        (some(&r.blkio_device_read_bps) || some(&r.blkio_device_write_bps), "block I/O"),
        (some(&r.blkio_device_read_iops) || some(&r.blkio_device_write_iops), "block I/O"),
    ];
    match asked.into_iter().find(|(asked, _)| *asked) {
        None => Ok(()),
        Some((_, what)) => Err(Error::invalid(format!(
            "a limit of {what} cannot be set: this daemon may make no cgroups. Without root that needs cgroup v2 and a \
             systemd of the user's own (log in, or loginctl enable-linger, and start the daemon again); without limits the \
             container can run"
        ))),
    }
}

/// Refuses numbers that are not among those that exist (where that is known).
fn available(asked: &str, here: &str, what: &str) -> Result<()> {
    if asked.is_empty() || here.is_empty() || numbers(asked).all(|n| numbers(here).any(|h| h == n)) {
        return Ok(());
    }
    Err(Error::invalid(format!("Requested {what} are not available - requested {asked}, available: {here}")))
}

/// `0-3,5`, checked before.
fn numbers(list: &str) -> impl Iterator<Item = u32> + '_ {
    list.split(',').flat_map(|part| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        low.parse::<u32>().unwrap_or(1)..=high.parse::<u32>().unwrap_or(0)
    })
}

fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|l| !l.is_empty())
}

const MEMORY: &str = "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.";
const SWAP: &str = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.";
const SWAPPINESS: &str = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.";
const RESERVATION: &str = "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.";
const OOM: &str = "Your kernel does not support OomKillDisable. OomKillDisable discarded.";
const PIDS: &str = "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.";
const SHARES: &str =
    "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.";
const QUOTA: &str = "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.";
const CPUSET: &str = "Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded.";
const WEIGHT: &str =
    "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";
const WEIGHT_DEVICE: &str = "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WeightDevice;

    #[test]
    fn only_what_is_there_can_be_asked_for() {
        assert!(available("0-1", "0-3", "CPUs").is_ok());
        assert!(available("1,3", "0-1,3", "CPUs").is_ok());
        assert!(available("9", "", "CPUs").is_ok());
        let said = available("0,9", "0-1", "CPUs").unwrap_err().to_string();
        assert_eq!(said, "Requested CPUs are not available - requested 0,9, available: 0-1");
    }

    #[test]
    fn where_there_are_no_cgroups_a_limit_is_refused_by_name() {
        assert!(refuse(&Resources::default()).is_ok());
        let said = refuse(&Resources { memory: 1, ..Resources::default() }).unwrap_err().to_string();
        assert!(said.starts_with("a limit of memory cannot be set"), "{said}");
        assert!(refuse(&Resources { pids_limit: Some(5), ..Resources::default() }).is_err());
    }

    #[test]
    fn what_cannot_be_set_is_dropped_aloud_and_the_rest_stays() {
        let mut r = Resources {
            memory: 64 << 20,
            memory_swap: 100 << 20,
            oom_kill_disable: Some(true),
            blkio_weight: 300,
            blkio_weight_device: Some(vec![WeightDevice { path: "/dev/x".into(), weight: 10 }]),
            ..Resources::default()
        };
        let mut warnings = Vec::new();
        let here = Support { memory: true, blkio_weight: true, ..Support::default() };
        settle(&mut r, here, &mut warnings).unwrap();
        assert_eq!((r.memory, r.memory_swap, r.oom_kill_disable), (64 << 20, -1, None));
        assert_eq!((r.blkio_weight, r.blkio_weight_device), (300, None));
        assert_eq!(warnings, [SWAP, OOM, WEIGHT_DEVICE]);
        let mut r = Resources { nano_cpus: 1, ..Resources::default() };
        assert!(settle(&mut r, here, &mut warnings).is_err());
    }
}
