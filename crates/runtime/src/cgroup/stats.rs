//! What a container has used.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Cgroup, Version, fsio};
use crate::error::Result;

/// Usage of a control group; what the machine does not count is zero or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads now.
    pub pids: u64,
    /// How many there may be.
    pub pids_limit: Option<u64>,
    /// Bytes read and written per device.
    pub io_bytes: Vec<BlockIoEntry>,
    /// Operations per device.
    pub io_operations: Vec<BlockIoEntry>,
}

/// Processor time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// All of it.
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// Outside the kernel.
    pub user: u64,
    /// Per processor (v1 only).
    pub per_cpu: Vec<u64>,
    /// Periods of the quota.
    pub periods: u64,
    /// Periods in which it was used up.
    pub throttled_periods: u64,
    /// How long processes had to wait for that reason.
    pub throttled: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// In use, with page cache.
    pub usage: u64,
    /// The most that was in use.
    pub max_usage: Option<u64>,
    /// How much may be used; `None` is no limit.
    pub limit: Option<u64>,
    /// How often the limit was hit (v1), or processes were killed for it (v2).
    pub fail_count: u64,
    /// All of `memory.stat`.
    pub detail: BTreeMap<String, u64>,
}

/// A counter of a block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockIoEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `read`, `write` and so on.
    pub operation: String,
    /// Count.
    pub value: u64,
}

impl Cgroup {
    /// What the container has used until now.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        if self.version() == Version::V2 { self.stats_v2() } else { self.stats_v1() }
    }

    pub(super) fn file(&self, controller: &str, name: &str) -> Result<String> {
        let Some(dir) = self.dir(controller) else { return Ok(String::new()) };
        Ok(fsio::optional(&dir.join(name))?.unwrap_or_default())
    }

    fn stats_v1(&self) -> Result<Stats> {
        let stat = self.file("cpu", "cpu.stat")?;
        let ticks = self.file("cpuacct", "cpuacct.stat")?;
        let per_cpu = self.file("cpuacct", "cpuacct.usage_percpu")?;
        let get = |text: &str, key| fsio::field(text, key).unwrap_or(0);
        let memory_stat = self.file("memory", "memory.stat")?;
        Ok(Stats {
            cpu: Cpu {
                total: number(&self.file("cpuacct", "cpuacct.usage")?).unwrap_or(0),
                kernel: get(&ticks, "system").saturating_mul(TICK),
                user: get(&ticks, "user").saturating_mul(TICK),
                per_cpu: per_cpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
                periods: get(&stat, "nr_periods"),
                throttled_periods: get(&stat, "nr_throttled"),
                throttled: get(&stat, "throttled_time"),
            },
            memory: Memory {
                usage: number(&self.file("memory", "memory.usage_in_bytes")?).unwrap_or(0),
                max_usage: number(&self.file("memory", "memory.max_usage_in_bytes")?),
                limit: number(&self.file("memory", "memory.limit_in_bytes")?).filter(|n| *n < UNLIMITED),
                fail_count: number(&self.file("memory", "memory.failcnt")?).unwrap_or(0),
                detail: pairs(&memory_stat),
            },
            pids: number(&self.file("pids", "pids.current")?).unwrap_or(0),
            pids_limit: number(&self.file("pids", "pids.max")?),
            io_bytes: v1_io(&self.file("blkio", "blkio.throttle.io_service_bytes_recursive")?),
            io_operations: v1_io(&self.file("blkio", "blkio.throttle.io_serviced_recursive")?),
        })
    }

    fn stats_v2(&self) -> Result<Stats> {
        let stat = self.file("cpu", "cpu.stat")?;
        let micros = |key| fsio::field(&stat, key).unwrap_or(0).saturating_mul(1000);
        let io = self.file("io", "io.stat")?;
        Ok(Stats {
            cpu: Cpu {
                total: micros("usage_usec"),
                kernel: micros("system_usec"),
                user: micros("user_usec"),
                per_cpu: Vec::new(),
                periods: fsio::field(&stat, "nr_periods").unwrap_or(0),
                throttled_periods: fsio::field(&stat, "nr_throttled").unwrap_or(0),
                throttled: micros("throttled_usec"),
            },
            memory: Memory {
                usage: number(&self.file("memory", "memory.current")?).unwrap_or(0),
                max_usage: number(&self.file("memory", "memory.peak")?),
                limit: number(&self.file("memory", "memory.max")?),
                fail_count: self.oom_kill_count()?,
                detail: pairs(&self.file("memory", "memory.stat")?),
            },
            pids: number(&self.file("pids", "pids.current")?).unwrap_or(0),
            pids_limit: number(&self.file("pids", "pids.max")?),
            io_bytes: v2_io(&io, &[("rbytes", "read"), ("wbytes", "write")]),
            io_operations: v2_io(&io, &[("rios", "read"), ("wios", "write")]),
        })
    }

    /// Whether the group is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        Path::is_dir(&self.primary())
    }
}

/// Nanoseconds of a clock tick; the kernel's interface has 100 per second everywhere.
const TICK: u64 = 10_000_000;

/// v1 says "no limit" with a number close to the largest.
const UNLIMITED: u64 = 0x7fff_ffff_0000_0000;

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Lines as `8:0 Read 4096`.
fn v1_io(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = device(fields.next()?)?;
        let operation = fields.next()?.to_ascii_lowercase();
        Some(BlockIoEntry { major, minor, operation, value: fields.next()?.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// Lines as `8:0 rbytes=1 wbytes=2 rios=3 wios=4`.
fn v2_io(text: &str, keys: &[(&str, &str)]) -> Vec<BlockIoEntry> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(device) else { continue };
        for (key, value) in fields.filter_map(|f| f.split_once('=')) {
            let name = keys.iter().find(|(k, _)| *k == key).map(|(_, name)| *name);
            if let (Some(name), Ok(value)) = (name, value.parse()) {
                found.push(BlockIoEntry { major, minor, operation: name.to_owned(), value });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_counters_of_both_interfaces_are_read() {
        let v1 = v1_io("8:0 Read 4096\n8:0 Write 1\nTotal 4097\n");
        assert_eq!((v1.len(), v1[0].operation.as_str(), v1[0].value), (2, "read", 4096));
        let v2 = v2_io(
            "8:16 rbytes=5 wbytes=6 rios=7 wios=8 dbytes=0\nbad\n",
            &[("rios", "read"), ("wios", "write")],
        );
        let short: Vec<_> = v2.iter().map(|e| (e.minor, e.operation.as_str(), e.value)).collect();
        assert_eq!(short, [(16, "read", 7), (16, "write", 8)]);
    }
}
