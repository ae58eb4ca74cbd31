//! Names to addresses, by `/etc/hosts` and the servers of `/etc/resolv.conf`.
//!
//! Not the C library's: a static binary's would load the machine's own modules.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::ConnectError;

const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// More addresses of one name than this are not tried.
const MAX_ADDRESSES: usize = 16;
/// Names whose addresses are remembered for as long as their servers say.
const CACHED: u64 = 64;

/// Device, inode, size and time of each file, where it is there.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; 2];

/// Resolves names; made anew when the machine's files change, as they do on machines that move.
#[derive(Default)]
pub(crate) struct Resolver {
    current: Mutex<Option<(Stamp, TokioResolver)>>,
}

impl Resolver {
    /// All addresses of `host`, which may be one itself; at least one.
    pub(crate) async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let failed = |why: &str, passing| ConnectError::new(format!("lookup {host}: {why}"), passing);
        let resolver = self.resolver().map_err(|e| failed(&e, true))?;
        let found = resolver.lookup_ip(host).await.map_err(|e| {
            let none = e.is_nx_domain() || e.is_no_records_found();
            if none { failed("no such host", false) } else { failed(&e.to_string(), true) }
        })?;
        let addresses: Vec<IpAddr> = found.iter().take(MAX_ADDRESSES).collect();
        if addresses.is_empty() { Err(failed("no such host", false)) } else { Ok(addresses) }
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let now = stamp();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, resolver)) = current.as_ref().filter(|(of, _)| *of == now) {
            debug_assert_eq!(*of, now);
            return Ok(resolver.clone());
        }
        let provider = TokioRuntimeProvider::default;
        // Without a file, or servers in it, the machine's own is asked, as the C library does.
        let mut builder = TokioResolver::builder(provider()).unwrap_or_else(|_| {
            let own = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            TokioResolver::builder_with_config(ResolverConfig::from_name_servers(vec![own]), provider())
        });
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.cache_size = CACHED;
        let resolver = builder.build().map_err(|e| e.to_string())?;
        *current = Some((now, resolver.clone()));
        Ok(resolver)
    }
}

fn stamp() -> Stamp {
    FILES.map(|path| {
        let m = fs::metadata(path).ok()?;
        Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
    })
}
