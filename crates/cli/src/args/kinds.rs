//! Kinds of values that docker's options take, checked while the command line is read.

use std::net::IpAddr;

use super::{gpus, mount, network, ulimit, units};
use crate::flags::{Kind, values};

pub(super) const ATTACH: Kind = Kind::many("list", check_attach);
pub(super) const ENV: Kind = Kind::many("list", check_env);
pub(super) const LABEL: Kind = Kind::many("list", check_label);
pub(super) const HOST: Kind = Kind::many("list", check_host);
pub(super) const IP: Kind = Kind::many("list", check_ip);
pub(super) const DOMAIN: Kind = Kind::many("list", check_domain);
pub(super) const LINK: Kind = Kind::many("list", check_link);
pub(super) const WEIGHT: Kind = Kind::many("list", |v| weight(v).map(drop));
pub(super) const RATE: Kind = Kind::many("list", |v| rate(v).map(drop));
pub(super) const IOPS: Kind = Kind::many("list", |v| iops(v).map(drop));
pub(super) const SYSCTL: Kind = Kind::many("map", check_sysctl);
pub(super) const RULE: Kind = Kind::many("list", check_rule);
pub(super) const MOUNT: Kind = Kind::many("mount", |v| mount::parse(v).map(drop));
pub(super) const NETWORK: Kind = Kind::many("network", |v| network::parse(v).map(drop));
pub(super) const ULIMIT: Kind = Kind::many("ulimit", |v| ulimit::parse(v).map(drop));
pub(super) const GPUS: Kind = Kind::many("gpu-request", |v| gpus::parse(v).map(drop));
pub(super) const UINT16: Kind = Kind::one("uint16", |v| values::uint(v, u16::MAX.into()).map(drop));
pub(super) const UINT: Kind = Kind::one("uint", |v| values::uint(v, u64::MAX).map(drop));
pub(super) const BYTES: Kind = Kind::one("bytes", |v| units::bytes(v).map(drop));
pub(super) const SWAP: Kind = Kind::one("bytes", |v| units::bytes_or_unlimited(v).map(drop));
pub(super) const DECIMAL: Kind = Kind::one("decimal", |v| units::cpus(v).map(drop));
pub(super) const DURATION: Kind = Kind::one("duration", |v| units::duration(v).map(drop));

/// Why options of Docker's Windows engine cannot be used.
pub(super) const WINDOWS: &str =
    "is only supported on a Docker daemon running on windows, but this engine runs Linux containers";
/// Why options of Docker's experimental mode cannot be used.
pub(super) const EXPERIMENTAL: &str =
    "is only supported on a Docker daemon with experimental features enabled, and not implemented yet";
/// Why options of swarm volumes cannot be used.
pub(super) const SWARM: &str = "is for the cluster volumes of Docker's swarm mode, which is not implemented";

/// The help of `--format` where there are tables.
pub(super) const FORMAT: &str = "Format output using a custom template:\n\
    'table':            Print output in table format with column headers (default)\n\
    'table TEMPLATE':   Print output in table format using the given Go template\n\
    'json':             Print in JSON format\n\
    'TEMPLATE':         Print output using the given Go template.\n\
    Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";
/// The help of `--format` where there are none.
pub(super) const OBJECT_FORMAT: &str = "Format output using a custom template:\n\
    'json':             Print in JSON format\n\
    'TEMPLATE':         Print output using the given Go template.\n\
    Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates";

type Checked = Result<(), String>;

fn check_attach(text: &str) -> Checked {
    if ["stdin", "stdout", "stderr"].contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err("valid streams are STDIN, STDOUT and STDERR".into())
}

fn check_env(text: &str) -> Checked {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid environment variable: {text}"));
    }
    Ok(())
}

fn check_label(text: &str) -> Checked {
    let key = text.split('=').next().unwrap_or_default().trim_start();
    if key.is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    if key.contains(char::is_whitespace) {
        return Err(format!("label '{key}' contains whitespaces"));
    }
    Ok(())
}

fn check_host(text: &str) -> Checked {
    host(text).map(drop)
}

/// `name=address` or `name:address`, as the API takes it.
pub(super) fn host(text: &str) -> Result<String, String> {
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = parts
        .filter(|(name, _)| !name.is_empty() && !name.contains(':'))
        .ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if address != "host-gateway" && address.trim().parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{address}"))
}

fn check_ip(text: &str) -> Checked {
    text.trim()
        .parse::<IpAddr>()
        .map(drop)
        .map_err(|_| format!("IP address is not correctly formatted: {text}"))
}

fn check_domain(text: &str) -> Checked {
    let name = text.trim();
    if name == "." {
        return Ok(());
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let good = name.strip_suffix('.').unwrap_or(name).split('.').all(label);
    if good && name.len() < 255 && name.bytes().any(|b| b.is_ascii_alphabetic()) {
        return Ok(());
    }
    Err(format!("{name} is not a valid domain"))
}

fn check_link(text: &str) -> Checked {
    match text.split(':').count() {
        _ if text.is_empty() => Err("empty string specified for links".into()),
        1 | 2 => Ok(()),
        _ => Err(format!("bad format for links: {text}")),
    }
}

fn device(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text.split_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

/// A device's weight.
pub(super) fn weight(text: &str) -> Result<(&str, u64), String> {
    let (path, value) = device(text)?;
    let weight = values::uint(value, u16::MAX.into()).ok().filter(|w| *w == 0 || (10..=1000).contains(w));
    weight.map(|w| (path, w)).ok_or_else(|| format!("invalid weight for device: {text}"))
}

/// Bytes per second of a device.
pub(super) fn rate(text: &str) -> Result<(&str, u64), String> {
    let (path, value) = device(text)?;
    let rate = units::bytes(value).ok().and_then(|r| u64::try_from(r).ok());
    rate.map(|r| (path, r)).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })
}

/// Operations per second of a device.
pub(super) fn iops(text: &str) -> Result<(&str, u64), String> {
    let (path, value) = device(text)?;
    value.parse().map(|r| (path, r)).map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )
    })
}

/// Those that belong to a container's namespaces, as the docker command line lists them.
fn check_sysctl(text: &str) -> Checked {
    const NAMES: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let allowed = text
        .split_once('=')
        .is_some_and(|(k, _)| NAMES.contains(&k) || k.starts_with("net.") || k.starts_with("fs.mqueue."));
    if allowed { Ok(()) } else { Err(format!("sysctl '{text}' is not allowed")) }
}

/// `c 1:3 rwm`.
fn check_rule(text: &str) -> Checked {
    let number = |n: &str| n == "*" || (!n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let good = match text.split(' ').collect::<Vec<_>>().as_slice() {
        ["a" | "b" | "c", device, modes] => {
            device.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&modes.len())
                && modes.bytes().all(|b| b"rwm".contains(&b))
        }
        _ => false,
    };
    if good { Ok(()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_as_docker_checks_them() {
        type Case = (Kind, &'static [&'static str], &'static [(&'static str, &'static str)]);
        let cases: &[Case] = &[
            (ATTACH, &["stdin", "STDERR"], &[("foo", "valid streams are STDIN, STDOUT and STDERR")]),
            (
                ENV,
                &["A", "A=", "A=b=c"],
                &[("", "invalid environment variable: "), ("=x", "invalid environment variable: =x")],
            ),
            (
                LABEL,
                &["a", "a=b c"],
                &[("", "invalid label '': empty name"), ("a b=c", "label 'a b' contains whitespaces")],
            ),
            (
                HOST,
                &["h:1.2.3.4", "h=::1", "h:[::1]", "h:host-gateway"],
                &[
                    ("foo", "bad format for add-host: \"foo\""),
                    ("h:x", "invalid IP address in add-host: \"x\""),
                ],
            ),
            (IP, &["1.1.1.1", "::1"], &[("foo", "IP address is not correctly formatted: foo")]),
            (
                DOMAIN,
                &[".", "a.b", "x-y.z."],
                &[("a b", "a b is not a valid domain"), ("-a", "-a is not a valid domain")],
            ),
            (
                LINK,
                &["a", "a:b"],
                &[("a:b:c", "bad format for links: a:b:c"), ("", "empty string specified for links")],
            ),
            (
                WEIGHT,
                &["/dev/sda:100"],
                &[
                    ("x", "bad format: x"),
                    ("sda:1", "bad format for device path: sda:1"),
                    ("/dev/a:5", "invalid weight for device: /dev/a:5"),
                ],
            ),
            (
                SYSCTL,
                &["net.ipv4.x=1", "kernel.sem=1"],
                &[
                    ("x", "sysctl 'x' is not allowed"),
                    ("kernel.hostname=a", "sysctl 'kernel.hostname=a' is not allowed"),
                ],
            ),
            (
                RULE,
                &["c 1:3 rwm", "a *:* r"],
                &[
                    ("x", "invalid device cgroup format 'x'"),
                    ("c 1:3 rx", "invalid device cgroup format 'c 1:3 rx'"),
                ],
            ),
            (
                UINT16,
                &["0", "1000"],
                &[("99999", "strconv.ParseUint: parsing \"99999\": value out of range")],
            ),
        ];
        for (kind, good, bad) in cases {
            for text in *good {
                assert_eq!((kind.check)(text), Ok(()), "{text}");
            }
            for (text, want) in *bad {
                assert_eq!((kind.check)(text).unwrap_err(), *want, "{text}");
            }
        }
    }

    #[test]
    fn hosts_are_sent_as_the_api_takes_them() {
        assert_eq!(host("a=[::1]").unwrap(), "a:::1");
        assert_eq!(host("a:1.2.3.4").unwrap(), "a:1.2.3.4");
    }
}
