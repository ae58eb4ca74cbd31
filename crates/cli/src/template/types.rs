//! What docker's types know and JSON does not: which objects are maps, which fields may be left out, and how the few
//! structures are printed that people print whole.

use serde_json::{Value, json};

/// Fields whose value is a map: any key may be asked for.
const MAPS: &[&str] = &[
    "Annotations",
    "Attributes",
    "Containers",
    "Data",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// Fields whose value is a list.
const LISTS: &[&str] = &[
    "Aliases",
    "Args",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Layers",
    "Links",
    "MaskedPaths",
    "Mounts",
    "OnBuild",
    "ReadonlyPaths",
    "RepoDigests",
    "RepoTags",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Shell",
    "Ulimits",
    "VolumesFrom",
    "Warnings",
];

/// Fields that may be nothing at all.
const POINTERS: &[&str] = &[
    "ClusterVolume",
    "Health",
    "Healthcheck",
    "IPAMConfig",
    "Init",
    "MemorySwappiness",
    "OomKillDisable",
    "PidsLimit",
    "SizeRootFs",
    "SizeRw",
    "Status",
    "StopTimeout",
    "UsageData",
];

/// Texts that are left out when they are empty.
const TEXTS: &[&str] = &[
    "Author",
    "Comment",
    "Container",
    "DockerVersion",
    "Driver",
    "MacAddress",
    "Name",
    "OsVersion",
    "Parent",
    "StopSignal",
    "Variant",
];

/// Flags that are left out when they are off.
const FLAGS: &[&str] = &["ArgsEscaped", "NetworkDisabled"];

/// Structures and the order of their fields.
const STRUCTS: &[&[&str]] = &[
    &["HostIp", "HostPort"],
    &["Name", "MaximumRetryCount"],
    &["Type", "Config"],
    &["Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"],
];

/// Fields whose name in Go is not that in JSON.
const RENAMED: &[(&str, &str)] = &[
    ("CPUCount", "CpuCount"),
    ("CPUPercent", "CpuPercent"),
    ("CPUPeriod", "CpuPeriod"),
    ("CPUQuota", "CpuQuota"),
    ("CPURealtimePeriod", "CpuRealtimePeriod"),
    ("CPURealtimeRuntime", "CpuRealtimeRuntime"),
    ("CPUShares", "CpuShares"),
    ("DNS", "Dns"),
    ("DNSOptions", "DnsOptions"),
    ("DNSSearch", "DnsSearch"),
    ("HostIP", "HostIp"),
    ("ID", "Id"),
    ("NanoCPUs", "NanoCpus"),
];

/// The name in JSON of a field that Go calls so.
pub(super) fn in_json(name: &str) -> Option<&'static str> {
    RENAMED.iter().find(|(go, _)| *go == name).map(|(_, json)| *json)
}

/// Whether an object under this name is a map.
pub(super) fn is_map(name: &str) -> bool {
    MAPS.contains(&name)
}

/// The empty value of a field that the JSON has not, or as null.
pub(super) fn empty(name: &str) -> Option<Value> {
    if MAPS.contains(&name) {
        return Some(json!({}));
    }
    if LISTS.contains(&name) {
        return Some(json!([]));
    }
    if TEXTS.contains(&name) {
        return Some(json!(""));
    }
    if FLAGS.contains(&name) {
        return Some(json!(false));
    }
    POINTERS.contains(&name).then_some(Value::Null)
}

/// The fields of a structure in order, if the object is one.
pub(super) fn fields_of(object: &serde_json::Map<String, Value>) -> Option<&'static [&'static str]> {
    let fits = |fields: &&&[&str]| {
        object.contains_key(fields[0])
            && object.contains_key(fields[fields.len() - 1])
            && object.keys().all(|k| fields.contains(&k.as_str()))
    };
    STRUCTS.iter().find(fits).copied()
}
