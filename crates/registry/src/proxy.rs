use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;

use crate::address;
use crate::url::{Origin, split_host_port};
use crate::{Error, Result};

/// Through which proxy what is reached: the rules of Go's `httpproxy`, which Docker follows. `Debug` shows no
/// password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// For `http` addresses: `http://[user:password@]host:port`, or `host:port`.
    pub http: Option<String>,
    /// For `https` addresses.
    pub https: Option<String>,
    /// What is reached without: names (with all below them), `.names` (only those below), addresses, networks,
    /// each with an optional port, separated by commas; `*` is all. Loopback never goes through a proxy.
    pub no_proxy: String,
}

/// A proxy to connect to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// TLS to the proxy itself, its host and port.
    pub(crate) origin: Origin,
    /// `Proxy-Authorization`.
    pub(crate) authorization: Option<String>,
}

impl ProxyConfig {
    /// From `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or the same in lower case.
    #[must_use]
    pub fn from_env() -> Self {
        let var = |name: &str| {
            [name.to_owned(), name.to_lowercase()]
                .iter()
                .find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty()))
        };
        Self {
            http: var("HTTP_PROXY"),
            https: var("HTTPS_PROXY"),
            no_proxy: var("NO_PROXY").unwrap_or_default(),
        }
    }

    /// The proxy through which `to` is reached, if any.
    pub(crate) fn choose(&self, to: &Origin) -> Result<Option<Proxy>> {
        let text = if to.tls { &self.https } else { &self.http };
        match text {
            Some(text) if self.applies(to) => parse(text).map(Some),
            _ => Ok(None),
        }
    }

    fn applies(&self, to: &Origin) -> bool {
        let ip: Option<IpAddr> = to.host.parse().ok();
        if to.host == "localhost" || ip.is_some_and(|ip| address::plain(ip).is_loopback()) {
            return false;
        }
        !self.no_proxy.split(',').any(|entry| exempts(&entry.trim().to_ascii_lowercase(), to, ip))
    }
}

/// Whether one entry of `NO_PROXY` exempts `to`.
fn exempts(entry: &str, to: &Origin, ip: Option<IpAddr>) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((base, prefix)) = entry.split_once('/') {
        let Some(((base, prefix), ip)) = base.parse().ok().zip(prefix.parse().ok()).zip(ip) else {
            return false;
        };
        return address::in_network(ip, base, prefix);
    }
    if let (Ok(own), Some(ip)) = (entry.parse::<IpAddr>(), ip) {
        return own == ip;
    }
    let (name, port) = match entry.strip_prefix('[') {
        Some(_) => match split_host_port(entry) {
            Some((host, port)) => (host, port),
            None => return false,
        },
        None => match entry.split_once(':') {
            Some((name, port)) => match port.parse() {
                Ok(port) => (name.to_owned(), Some(port)),
                Err(_) => return false,
            },
            None => (entry.to_owned(), None),
        },
    };
    if port.is_some_and(|p| p != to.port) {
        return false;
    }
    if let Ok(own) = name.parse::<IpAddr>() {
        return Some(own) == ip;
    }
    let name = name.strip_prefix('*').filter(|n| n.starts_with('.')).unwrap_or(&name);
    match name.strip_prefix('.') {
        _ if name.is_empty() => false,
        Some(_) => to.host.ends_with(name),
        None => to.host == name || to.host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

/// Never shows `text`, which may hold a password.
fn parse(text: &str) -> Result<Proxy> {
    let wrong = |why: &str| Error::Invalid(format!("the proxy's address is not valid: {why}"));
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let tls = match scheme {
        "http" => false,
        "https" => true,
        "socks5" | "socks5h" => {
            return Err(Error::Unsupported("SOCKS proxies are not supported: name an HTTP proxy".into()));
        }
        _ => return Err(wrong("want http://host:port")),
    };
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, host) = match rest.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, rest),
    };
    let (host, port) = split_host_port(host).ok_or_else(|| wrong("want http://host:port"))?;
    let authorization = user.map(basic_authorization);
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    Ok(Proxy { origin: Origin { tls, host, port }, authorization })
}

/// The header's value that proves `user[:password]`, as an address has it.
#[must_use]
pub fn basic_authorization(user: &str) -> String {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut pair = decode(name);
    pair.push(b':');
    pair.extend(decode(password));
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// Percent-decoding; what is no escape stays as it is.
pub(crate) fn decode(s: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(s.len());
    let mut rest = s.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (first, tail) {
            (b'%', [a, b, more @ ..]) if hex(*a).is_some() && hex(*b).is_some() => {
                out.push(hex(*a).unwrap_or(0) << 4 | hex(*b).unwrap_or(0));
                rest = more;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

impl fmt::Debug for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host =
            |p: &Option<String>| p.as_ref().map(|p| p.rsplit('@').next().unwrap_or_default().to_owned());
        f.debug_struct("ProxyConfig")
            .field("http", &host(&self.http))
            .field("https", &host(&self.https))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(no_proxy: &str, to: &str) -> bool {
        let config = ProxyConfig {
            http: Some("http://p.example:3128".into()),
            https: Some("p.example:3128".into()),
            no_proxy: no_proxy.into(),
        };
        let to = crate::url::Url::parse(to).unwrap().origin;
        config.choose(&to).unwrap().is_some()
    }

    #[test]
    fn no_proxy_means_what_it_means_to_go() {
        // The cases of golang.org/x/net/http/httpproxy's own test.
        let list = "foo.com, .barbaz.net, *.any.org, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, \
                    2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64";
        for (host, through) in [
            ("localhost", false),
            ("127.0.0.1", false),
            ("127.0.0.2", false),
            ("[::1]", false),
            ("[::2]", true),
            ("192.168.1.1", false),
            ("192.168.1.2", true),
            ("192.168.1.3", false),
            ("192.168.1.4", true),
            ("10.0.0.2", false),
            ("[2001:db8::52:0:1]", false),
            ("[2001:db8::52:0:2]", true),
            ("[2001:db8::52:0:3]", false),
            ("[2002:db8:a::123]", false),
            ("[fe80::424b:c8be:1643:a1b6]", true),
            ("barbaz.net", true),
            ("www.barbaz.net", false),
            ("foobarbaz.net", true),
            ("foofoobar.com", true),
            ("foo.com", false),
            ("www.foo.com", false),
            ("x.any.org", false),
            ("any.org", true),
        ] {
            assert_eq!(chosen(list, &format!("http://{host}/")), through, "{host}");
        }
        assert!(!chosen("*", "https://a.example/"));
        assert!(!chosen("a.example:8443", "https://a.example:8443/"));
        assert!(chosen("a.example:8443", "https://a.example/"));
        assert!(chosen("", "https://a.example/"));
        assert!(chosen(",,:80,/,[", "https://a.example/"));
    }

    #[test]
    fn a_proxys_password_is_sent_and_never_shown() {
        let config =
            ProxyConfig { http: Some("http://me:p%40ss@p.example".into()), ..ProxyConfig::default() };
        let to = Origin { tls: false, host: "r.example".into(), port: 80 };
        let proxy = config.choose(&to).unwrap().unwrap();
        assert_eq!(proxy.origin.host_port(), "p.example:80");
        assert_eq!(proxy.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert!(!format!("{config:?} {proxy:?}").contains("ss@"));
        let bad = ProxyConfig { http: Some("gopher://me:hunter2@p".into()), ..ProxyConfig::default() };
        assert!(!bad.choose(&to).unwrap_err().to_string().contains("hunter2"));
    }
}
