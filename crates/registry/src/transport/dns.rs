//! Names to addresses, by `/etc/hosts` and the servers of `/etc/resolv.conf`.
//!
//! Not the C library's: a static binary's would load the machine's own modules.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;

use super::ConnectError;

/// More addresses of one name than this are not tried.
const MAX_ADDRESSES: usize = 16;
/// Names whose addresses are remembered for as long as their servers say.
const CACHED: u64 = 64;
/// Bytes of a file that are read.
const MAX_FILE: usize = 4 << 20;

/// Device, inode, size and time of a file, where it is there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Resolves names; made anew when the machine's file changes, as it does on machines that move.
pub(crate) struct Resolver {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    current: Mutex<Option<(Stamp, TokioResolver)>>,
}

impl Resolver {
    pub(crate) fn new(resolv_conf: PathBuf) -> Self {
        Self::with(resolv_conf, "/etc/hosts".into())
    }

    fn with(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        Self { resolv_conf, hosts, current: Mutex::default() }
    }

    /// All addresses of `host`, which may be one itself; at least one. What `/etc/hosts` says of a name is all there
    /// is of it.
    pub(crate) async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let mut found = in_hosts(&read(&self.hosts), host);
        if found.is_empty() && (host == "localhost" || host.ends_with(".localhost")) {
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if !found.is_empty() {
            return Ok(found);
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
        let now = stamp(&self.resolv_conf);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, resolver)) = current.as_ref().filter(|(of, _)| *of == now) {
            return Ok(resolver.clone());
        }
        // Without a file, or servers in it, the machine's own is asked, as the C library does.
        let (config, mut options) = parse_resolv_conf(read(&self.resolv_conf)).unwrap_or_else(|_| {
            let own = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            (ResolverConfig::from_name_servers(vec![own]), ResolverOpts::default())
        });
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.cache_size = CACHED;
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|e| e.to_string())?;
        *current = Some((now, resolver.clone()));
        Ok(resolver)
    }
}

/// The addresses of `host` in the text of a hosts file.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(ip)
    };
    text.lines().filter_map(of_line).take(MAX_ADDRESSES).collect()
}

/// The beginning of a file as text; nothing where it is not there.
fn read(path: &Path) -> String {
    let mut bytes = fs::read(path).unwrap_or_default();
    bytes.truncate(MAX_FILE);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn stamp(path: &Path) -> Stamp {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_hosts_file() {
        let text = "# r.test\n127.0.1.1 a b # r.test\n10.0.0.1\tR.test x\n::1 r.test\nnonsense r.test\n";
        let ips = |host| in_hosts(text, host).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ips("r.test"), ["10.0.0.1", "::1"]);
        assert_eq!(ips("b"), ["127.0.1.1"]);
        assert!(ips("r").is_empty());
    }

    /// Answers questions for IPv4 addresses with one that ends in the length of the name's first part; names that
    /// begin with `no` are not there.
    fn serve(socket: &UdpSocket) {
        let mut query = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut query) {
            let name_end = 12 + query[12..n].iter().position(|b| *b == 0).unwrap();
            let question = &query[12..name_end + 5];
            let wants_v4 = question[question.len() - 3] == 1;
            let is_there = !query[13..].to_ascii_lowercase().starts_with(b"no");
            let answers = u8::from(wants_v4 && is_there);
            let mut reply = vec![query[0], query[1], 0x81, if is_there { 0x80 } else { 0x83 }];
            reply.extend([0, 1, 0, answers, 0, 0, 0, 0]);
            reply.extend_from_slice(question);
            if answers == 1 {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, query[12]]);
            }
            socket.send_to(&reply, from).unwrap();
        }
    }

    /// In a network of its own, where port 53 is free.
    #[test]
    fn privileged_names_are_looked_up_in_files_that_may_change() {
        let dir = tempfile::tempdir().unwrap();
        let (conf, hosts) = (dir.path().join("resolv.conf"), dir.path().join("hosts"));
        fs::write(&hosts, "192.0.2.1 known.test\n").unwrap();
        fs::write(&conf, "nameserver 127.0.0.53\nsearch corp.test\noptions timeout:1 attempts:1\n").unwrap();
        let run = || {
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
            std::thread::spawn(move || serve(&socket));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let resolver = Resolver::with(conf.clone(), hosts);
                let ips = async |host: &str| resolver.lookup(host).await.map_err(|e| e.text);
                assert_eq!(ips("192.0.2.9").await.unwrap(), ["192.0.2.9".parse::<IpAddr>().unwrap()]);
                assert_eq!(ips("known.test").await.unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
                assert_eq!(ips("x.localhost").await.unwrap().len(), 2);
                // Nobody answers at the first address.
                assert!(ips("reg.test").await.unwrap_err().starts_with("lookup reg.test: "));
                fs::write(&conf, "nameserver 127.0.0.1\nsearch corp.test\n").unwrap();
                assert_eq!(ips("reg.test").await.unwrap(), ["10.0.0.3".parse::<IpAddr>().unwrap()]);
                assert_eq!(ips("nothing.test").await.unwrap_err(), "lookup nothing.test: no such host");
                assert_eq!(ips("four").await.unwrap(), ["10.0.0.4".parse::<IpAddr>().unwrap()]);
                // Without a file the machine's own server is asked.
                fs::remove_file(&conf).unwrap();
                assert_eq!(ips("again.test").await.unwrap(), ["10.0.0.5".parse::<IpAddr>().unwrap()]);
            });
        };
        longshore_sys::netns::with_netns(longshore_sys::netns::create().unwrap().as_fd(), run).unwrap();
    }
}
