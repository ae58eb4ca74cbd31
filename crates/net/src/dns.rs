//! A container's `resolv.conf` and `hosts`: pure functions from text to text.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where systemd-resolved tells its upstream servers, for hosts whose own resolv.conf names only its stub.
pub const RESOLVED_PATH: &str = "/run/systemd/resolve/resolv.conf";

const FALLBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];
/// More lines than this in a host's file are not read.
const MAX_LINES: usize = 1000;

/// What a container was asked to have; empty lists mean what the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsOptions {
    /// `--dns`.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`; a single `.` means none.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
}

/// What matters of a resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ResolvConf {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

/// Whether the host's resolv.conf names systemd-resolved's stub alone, so that [`RESOLVED_PATH`] is to be read
/// in its place.
pub fn names_only_resolved_stub(host: &str) -> bool {
    let servers = parse(host).servers;
    !servers.is_empty() && servers.iter().all(|s| s == "127.0.0.53")
}

/// The resolv.conf of a container on a network of its own, from the host's. The host's loopback is not the
/// container's, so servers there are left out; if none is left, public ones are named.
pub fn resolv_conf(host: &str, options: &DnsOptions) -> String {
    let mut conf = parse(host);
    conf.servers.retain(|server| address_of(server).is_some_and(|ip| !ip.is_loopback()));
    if conf.servers.is_empty() {
        conf.servers = FALLBACK.iter().map(ToString::to_string).collect();
    }
    render(conf, options)
}

/// The resolv.conf of a container with a name server of its own, which is told the [`upstreams`] elsewhere.
pub fn named_resolv_conf(host: &str, options: &DnsOptions) -> String {
    let mut conf = parse(host);
    conf.servers = vec![crate::plan::NAME_SERVER.to_string()];
    let own = if options.options.is_empty() { &conf.options } else { &options.options };
    let mut all = own.clone();
    // Names of containers have no dots, and are asked for as they are.
    if !all.iter().any(|option| option.starts_with("ndots:")) {
        all.push("ndots:0".to_owned());
    }
    render(conf, &DnsOptions { servers: Vec::new(), search: options.search.clone(), options: all })
}

/// Whom a name server on the host asks for a container: what was asked for, else the host's servers, those on its loopback
/// too.
pub fn upstreams(host: &str, options: &DnsOptions) -> Vec<IpAddr> {
    if !options.servers.is_empty() {
        return options.servers.clone();
    }
    let servers: Vec<IpAddr> = parse(host).servers.iter().filter_map(|server| address_of(server)).collect();
    if servers.is_empty() { FALLBACK.to_vec() } else { servers }
}

/// The resolv.conf of a container that shares the host's network: the host's own unless options change it.
pub fn host_resolv_conf(host: &str, options: &DnsOptions) -> String {
    if *options == DnsOptions::default() { host.to_owned() } else { render(parse(host), options) }
}

fn render(mut conf: ResolvConf, options: &DnsOptions) -> String {
    if !options.servers.is_empty() {
        conf.servers = options.servers.iter().map(ToString::to_string).collect();
    }
    if !options.search.is_empty() {
        conf.search = options.search.iter().filter(|domain| *domain != ".").cloned().collect();
    }
    if !options.options.is_empty() {
        conf.options.clone_from(&options.options);
    }
    let mut text = String::new();
    for server in &conf.servers {
        let _ = writeln!(text, "nameserver {}", one_line(server));
    }
    for (word, values) in [("search", &conf.search), ("options", &conf.options)] {
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", one_line(&values.join(" ")));
        }
    }
    text
}

fn parse(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines().take(MAX_LINES) {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => conf.servers.extend(words.next()),
            // The last one counts, and `domain` is an older word for a search list of one.
            Some("search") => conf.search = words.collect(),
            Some("domain") => conf.search = words.take(1).collect(),
            Some("options") => conf.options.extend(words),
            _ => {}
        }
    }
    conf
}

/// The address of a nameserver line; an IPv6 one may name its interface.
fn address_of(server: &str) -> Option<IpAddr> {
    match server.split_once('%') {
        // An interface of the host means nothing in a container.
        Some(_) => None,
        None => server.parse().ok(),
    }
}

/// The hosts file of a container: loopback, its own names, then what was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The container's address on each of its networks.
    pub addresses: Vec<IpAddr>,
    /// Its host name, with the domain if there is one, and the short name.
    pub hostname: String,
    /// The domain, or empty.
    pub domainname: String,
    /// `--add-host`.
    pub extra: Vec<(String, IpAddr)>,
}

impl Hosts {
    /// The text of the file.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |ip: IpAddr, names: &str| text.push_str(&hosts_line(ip, names));
        line(Ipv4Addr::LOCALHOST.into(), "localhost");
        line(Ipv6Addr::LOCALHOST.into(), "localhost ip6-localhost ip6-loopback");
        for (ip, names) in [
            (0xfe00, "ip6-localnet"),
            (0xff00, "ip6-mcastprefix"),
            (0xff02_0001, "ip6-allnodes"),
            (0xff02_0002, "ip6-allrouters"),
        ] {
            line(special(ip), names);
        }
        for (name, ip) in &self.extra {
            line(*ip, name);
        }
        self.own_lines().for_each(|own| text.push_str(&own));
        text
    }

    /// The lines of the container's own names, one for each address.
    pub fn own_lines(&self) -> impl Iterator<Item = String> {
        let names = match (self.hostname.as_str(), self.domainname.as_str()) {
            ("", _) => String::new(),
            (host, "") => match host.split_once('.') {
                Some((short, _)) if !short.is_empty() => format!("{host} {short}"),
                _ => host.to_owned(),
            },
            (host, domain) => format!("{host}.{domain} {host}"),
        };
        let named = self.addresses.iter().filter(move |_| !self.hostname.is_empty());
        named.map(move |ip| hosts_line(*ip, &names))
    }
}

fn hosts_line(ip: IpAddr, names: &str) -> String {
    format!("{ip}\t{}\n", one_line(names))
}

/// `fe00::0`, `ff02::1` and their like: the first group, and the last.
fn special(groups: u32) -> IpAddr {
    let (first, last) = if groups > 0xffff { (groups >> 16, groups & 0xffff) } else { (groups, 0) };
    let group = |n: u32| u16::try_from(n).unwrap_or_default();
    Ipv6Addr::new(group(first), 0, 0, 0, 0, 0, 0, group(last)).into()
}

/// No value may start a line of its own in a file that a resolver reads.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_servers_without_its_loopback() {
        let host = "# by NetworkManager\nnameserver 127.0.0.53\nnameserver 192.168.1.1 # home\nnameserver ::1\n\
                    nameserver fe80::1%eth0\nnameserver 2001:db8::1\nsearch lan example.org\noptions edns0 trust-ad\n";
        assert_eq!(
            resolv_conf(host, &DnsOptions::default()),
            "nameserver 192.168.1.1\nnameserver 2001:db8::1\nsearch lan example.org\noptions edns0 trust-ad\n"
        );
    }

    #[test]
    fn without_a_server_public_ones_are_named() {
        for host in ["", "nameserver 127.0.0.1\n", "nameserver nonsense\n", "nameserver\n"] {
            assert_eq!(resolv_conf(host, &DnsOptions::default()), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        }
    }

    #[test]
    fn what_is_asked_for_replaces_what_the_host_has() {
        let options = DnsOptions {
            servers: vec!["127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned(), "a\nnameserver 6.6.6.6".to_owned()],
        };
        assert_eq!(
            resolv_conf("nameserver 192.168.1.1\nsearch lan\noptions edns0\n", &options),
            "nameserver 127.0.0.1\nnameserver 10.0.0.1\noptions ndots:2 a nameserver 6.6.6.6\n"
        );
    }

    #[test]
    fn the_resolved_stub() {
        assert!(names_only_resolved_stub("nameserver 127.0.0.53\noptions edns0\n"));
        assert!(!names_only_resolved_stub("nameserver 127.0.0.53\nnameserver 10.0.0.1\n"));
        assert!(!names_only_resolved_stub(""));
    }

    #[test]
    fn the_last_search_list_counts() {
        let text = resolv_conf("nameserver 1.1.1.1\ndomain a\nsearch b c\n", &DnsOptions::default());
        assert_eq!(text, "nameserver 1.1.1.1\nsearch b c\n");
        assert_eq!(host_resolv_conf("# mine\n", &DnsOptions::default()), "# mine\n");
    }

    #[test]
    fn a_hosts_file() {
        let hosts = Hosts {
            addresses: vec!["172.17.0.2".parse().unwrap()],
            hostname: "web".to_owned(),
            domainname: "example.org".to_owned(),
            extra: vec![("db".to_owned(), "10.0.0.5".parse().unwrap())],
        };
        assert_eq!(
            hosts.render(),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
             ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n10.0.0.5\tdb\n\
             172.17.0.2\tweb.example.org web\n"
        );
        let dotted = Hosts {
            hostname: "a.b".to_owned(),
            addresses: vec!["10.0.0.2".parse().unwrap()],
            ..Hosts::default()
        };
        assert!(dotted.render().ends_with("10.0.0.2\ta.b a\n"));
        let forged = Hosts {
            hostname: "x\n6.6.6.6 bank".to_owned(),
            addresses: vec!["10.0.0.2".parse().unwrap()],
            ..Hosts::default()
        };
        assert_eq!(forged.render().lines().count(), 7);
    }
}
