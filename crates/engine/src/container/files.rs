//! The files of its own that a container gets: hostname, hosts, resolv.conf.

use std::net::IpAddr;
use std::path::Path;

use longshore_net::dns::{self, DnsOptions, Hosts};
use rustix::fs::Mode;

use crate::engine::{Paths, make_dir};
use crate::record::Record;
use crate::{Error, Result};

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
        Net::Own | Net::Named => Hosts {
            addresses: addresses.to_vec(),
            hostname: record.config.hostname.clone(),
            domainname: record.config.domainname.clone(),
            extra: extra(record, gateway)?,
        }
        .render(),
    };
    put(&dir.join("hosts"), hosts.as_bytes())?;
    let options = DnsOptions {
        servers: record.host.dns.iter().flatten().filter_map(|s| s.parse().ok()).collect(),
        search: record.host.dns_search.clone().unwrap_or_default(),
        options: record.host.dns_options.clone().unwrap_or_default(),
    };
    let conf = match net {
        Net::Host => dns::host_resolv_conf(&host_text("/etc/resolv.conf"), &options),
        Net::Own => dns::resolv_conf(&host_conf(), &options),
        Net::Named => dns::named_resolv_conf(&host_conf(), &options),
    };
    put(&dir.join("resolv.conf"), conf.as_bytes())
}

/// The host's settings of names, as they mean something elsewhere.
pub(crate) fn host_conf() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
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
