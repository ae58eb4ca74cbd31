//! The files of its own that a container gets: hostname, hosts, resolv.conf.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use longshore_net::dns::{self, DnsOptions, Hosts};
use rustix::fs::Mode;

use super::links::Linked;
use crate::engine::{Paths, make_dir};
use crate::record::Record;
use crate::{Error, Result};

/// A file of more bytes is not changed while its container runs.
const MAX_CHANGED: u64 = 1 << 20;

/// How a container's network affects its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    /// The host's network: the host's files.
    Host,
    /// None, or its own bridge network.
    Own,
    /// Networks whose containers have names: a server of its own tells them.
    Named,
}

/// Writes the three files.
///
/// # Errors
/// When the system refuses.
pub(crate) fn write(
    paths: &Paths,
    record: &Record,
    net: Net,
    addresses: &[IpAddr],
    gateway: Option<IpAddr>,
    linked: &[Linked],
) -> Result<()> {
    let dir = paths.container(&record.id);
    // It was not synced when the container was made: a power cut may have taken it.
    make_dir(&dir, 0o710)?;
    put(&dir.join("hostname"), format!("{}\n", record.config.hostname).as_bytes())?;
    let host_text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hosts = match net {
        Net::Host if record.host.extra_hosts.iter().flatten().next().is_none() => host_text("/etc/hosts"),
        Net::Host => {
            let mut text = host_text("/etc/hosts");
            for (name, ip) in extra(record, gateway)? {
                text.push_str(&format!("{ip}\t{name}\n"));
            }
            text
        }
        Net::Own | Net::Named => {
            let mut extra = extra(record, gateway)?;
            extra.extend(linked.iter().map(|linked| (linked.names.clone(), linked.address)));
            Hosts { extra, ..own_hosts(record, addresses.iter()) }.render()
        }
    };
    put(&dir.join("hosts"), hosts.as_bytes())?;
    put(&dir.join("resolv.conf"), resolv_conf(paths, record, net).as_bytes())
}

/// The files of a container that runs follow a change of its networks: `hosts` loses and gains the lines of its own
/// addresses, `resolv.conf` is exchanged unless somebody has changed it. Both are mounted, so they are written in place.
///
/// # Errors
/// When the system refuses.
pub(crate) fn follow(
    paths: &Paths,
    record: &Record,
    net: Net,
    before: &BTreeSet<IpAddr>,
    now: &BTreeSet<IpAddr>,
) -> Result<()> {
    let dir = paths.container(&record.id);
    let gone: BTreeSet<String> = own_hosts(record, before.difference(now)).own_lines().collect();
    let come = own_hosts(record, now.difference(before));
    change(&dir.join("hosts"), |text| {
        let kept = text.split_inclusive('\n').filter(|line| !gone.contains(*line)).map(str::to_owned);
        Some(kept.chain(come.own_lines()).collect())
    })?;
    let other = if net == Net::Named { Net::Own } else { Net::Named };
    change(&dir.join("resolv.conf"), |text| {
        (text == resolv_conf(paths, record, other)).then(|| resolv_conf(paths, record, net))
    })
}

/// The line of `names` in a running container's `hosts` has this address from now on.
///
/// # Errors
/// When the system refuses.
pub(crate) fn readdress(paths: &Paths, record: &Record, names: &str, address: IpAddr) -> Result<()> {
    change(&paths.container(&record.id).join("hosts"), |text| {
        let line = |line: &str| match line.split_once('\t') {
            Some((_, of)) if of.trim_end() == names => format!("{address}\t{names}\n"),
            _ => line.to_owned(),
        };
        Some(text.split_inclusive('\n').map(line).collect())
    })
}

/// Changes a small file that a container may have changed, too.
fn change(path: &Path, new: impl FnOnce(&str) -> Option<String>) -> Result<()> {
    let failed = |e| Error::io(format!("change {}", path.display()), e);
    let mut text = String::new();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let read = (&file).take(MAX_CHANGED).read_to_string(&mut text);
    // What is no text any more, or has become large, is the container's own affair.
    if read.is_err() || u64::try_from(text.len()).is_ok_and(|len| len == MAX_CHANGED) {
        return Ok(());
    }
    let Some(new) = new(&text).filter(|new| *new != text) else { return Ok(()) };
    file.write_all_at(new.as_bytes(), 0).and_then(|()| file.set_len(new.len() as u64)).map_err(failed)
}

fn own_hosts<'a>(record: &Record, addresses: impl Iterator<Item = &'a IpAddr>) -> Hosts {
    Hosts {
        addresses: addresses.copied().collect(),
        hostname: record.config.hostname.clone(),
        domainname: record.config.domainname.clone(),
        extra: Vec::new(),
    }
}

fn resolv_conf(paths: &Paths, record: &Record, net: Net) -> String {
    let options = DnsOptions {
        servers: record.host.dns.iter().flatten().filter_map(|s| s.parse().ok()).collect(),
        search: record.host.dns_search.clone().unwrap_or_default(),
        options: record.host.dns_options.clone().unwrap_or_default(),
    };
    let host = || host_conf(paths);
    match (net, &paths.resolv_conf) {
        (Net::Host, None) => {
            let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            dns::host_resolv_conf(&own, &options)
        }
        (Net::Host, Some(_)) => dns::host_resolv_conf(&host(), &options),
        (Net::Own, _) => dns::resolv_conf(&host(), &options),
        (Net::Named, _) => dns::named_resolv_conf(&host(), &options),
    }
}

/// The host's settings of names, as they mean something elsewhere.
pub(crate) fn host_conf(paths: &Paths) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    if let Some(path) = &paths.resolv_conf {
        return std::fs::read_to_string(path).unwrap_or_default();
    }
    let own = read("/etc/resolv.conf");
    if dns::names_only_resolved_stub(&own) { read(dns::RESOLVED_PATH) } else { own }
}

/// `--add-host`; `host-gateway` is the bridge's address.
fn extra(record: &Record, gateway: Option<IpAddr>) -> Result<Vec<(String, IpAddr)>> {
    let mut out = Vec::new();
    for entry in record.host.extra_hosts.iter().flatten() {
        let Some((name, ip)) = entry.split_once(':') else { continue };
        let ip = match ip {
            "host-gateway" => gateway.ok_or_else(|| {
                Error::internal(
                    "unable to derive the IP value for host-gateway: the container has no bridge network",
                )
            })?,
            text => text
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| Error::invalid(format!("bad format for add-host: {entry:?}")))?,
        };
        out.push((name.to_owned(), ip));
    }
    Ok(out)
}

/// Written whole, then renamed. Not synced: each start writes it anew.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    longshore_sys::atomic::write_atomic_path(path, bytes, Mode::from_raw_mode(0o644), false)?;
    Ok(())
}
