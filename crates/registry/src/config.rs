use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::proxy::ProxyConfig;
use crate::url::Url;
use crate::{Credentials, Error, Result};

/// How registries are reached; the daemon's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Asked before the registry itself, in this order, when something is pulled.
    pub mirrors: Vec<Mirror>,
    /// Registries whose certificate is not verified and that may speak plain HTTP. Hosts with loopback addresses
    /// alone always may, as with Docker.
    pub insecure: Vec<InsecureRule>,
    /// Folders that hold `<host[:port]>/{*.crt, x.cert with x.key}`: certificate authorities beyond the system's,
    /// and client certificates. Read when a host is first used.
    pub certs_dirs: Vec<PathBuf>,
    /// Pairs of a registry's host and its token server's, where that lies on another domain and gets the registry's
    /// credentials all the same.
    pub token_servers: Vec<(String, String)>,
    /// Where the name servers stand: `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Proxies.
    pub proxy: ProxyConfig,
    /// `User-Agent`.
    pub user_agent: String,
    /// Times, sizes and counts.
    pub limits: Limits,
}

impl Default for Config {
    /// No mirrors, Docker's and our own folder of certificates, the proxies of this process's environment.
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certs_dirs: vec!["/etc/docker/certs.d".into(), "/etc/longshore/certs.d".into()],
            token_servers: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            proxy: ProxyConfig::from_env(),
            user_agent: concat!("longshore/", env!("CARGO_PKG_VERSION")).into(),
            limits: Limits::default(),
        }
    }
}

/// A server that holds copies of a registry's repositories.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The registry it mirrors, as in references: `docker.io`, `quay.io`.
    pub registry: String,
    /// Where it is: `https://mirror.example[:port][/prefix]`; a prefix comes before the repository's name. `http`
    /// means plain HTTP.
    pub url: String,
    /// For the mirror; a registry's own are never sent to it.
    pub credentials: Credentials,
}

impl Mirror {
    /// A mirror of `registry` at `url`, used anonymously.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `url` is no address of a mirror, in Docker's words.
    pub fn new(registry: &str, url: &str) -> Result<Self> {
        let mirror = Self { registry: registry.into(), url: url.into(), credentials: Credentials::Anonymous };
        mirror.base()?;
        Ok(mirror)
    }

    /// Its address, checked.
    pub(crate) fn base(&self) -> Result<Url> {
        let wrong = |why: &str| Error::Invalid(format!("invalid mirror: {why}"));
        // The address may hold a password by mistake, so it is shown only when it has no user.
        if self.url.split_once("://").is_some_and(|(_, rest)| rest.contains('@')) {
            return Err(wrong("username/password not allowed in URI"));
        }
        let url = Url::parse(&self.url).map_err(|e| {
            wrong(&format!("{:?} is not a valid URI: {e}", crate::error::printable(&self.url)))
        })?;
        if self.url.contains(['?', '#']) {
            return Err(wrong(&format!("query or fragment at end of the URI {:?}", self.url)));
        }
        Ok(url)
    }
}

/// Registries that need not be trusted to be spoken with: Docker's `insecure-registries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsecureRule {
    /// `host`, at any port.
    Host(String),
    /// `host:port`.
    HostPort(String, u16),
    /// Hosts that have only addresses of this network: base address and prefix length.
    Network(IpAddr, u8),
}

impl FromStr for InsecureRule {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = |why: &str| Error::Invalid(format!("insecure registry {s:?} is not valid: {why}"));
        if s.contains("://") {
            return Err(wrong("insecure registry should not contain '://'"));
        }
        if let Some((base, prefix)) = s.split_once('/') {
            let base: IpAddr =
                base.parse().map_err(|_| wrong("want host[:port] or a network like 10.0.0.0/8"))?;
            let max = if base.is_ipv4() { 32 } else { 128 };
            let prefix =
                prefix.parse().ok().filter(|p| *p <= max).ok_or_else(|| wrong("no such prefix length"))?;
            return Ok(Self::Network(base, prefix));
        }
        let (host, port) = crate::url::split_host_port(s).ok_or_else(|| wrong("want host[:port]"))?;
        Ok(match port {
            Some(port) => Self::HostPort(host, port),
            None => Self::Host(host),
        })
    }
}

/// As it is written.
impl std::fmt::Display for InsecureRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::HostPort(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::HostPort(host, port) => write!(f, "{host}:{port}"),
            Self::Network(base, prefix) => write!(f, "{base}/{prefix}"),
        }
    }
}

impl InsecureRule {
    /// Whether `ip` lies in the rule's network; never for a rule with a name.
    pub(crate) fn covers(&self, ip: IpAddr) -> bool {
        match self {
            Self::Network(base, prefix) => crate::address::in_network(ip, *base, *prefix),
            _ => false,
        }
    }

    /// Whether the rule names `host` at `port`; never for a network.
    pub(crate) fn names(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Host(h) => h.eq_ignore_ascii_case(host),
            Self::HostPort(h, p) => h.eq_ignore_ascii_case(host) && *p == port,
            Self::Network(..) => false,
        }
    }
}

/// How long, how much and how often.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Name resolution, connection and TLS together, for one attempt.
    pub connect: Duration,
    /// From the end of a request to the head of its answer.
    pub header: Duration,
    /// The same where a registry stores or checks an upload before it answers.
    pub commit: Duration,
    /// Without one byte of a body, in either direction.
    pub idle: Duration,
    /// A body that brings less than `min_rate` while this long was waited for it is a broken connection.
    pub rate_window: Duration,
    /// Bytes a second.
    pub min_rate: u64,
    /// All of a manifest, token, list or other document.
    pub document: Duration,
    /// Tries of one request, the first included; and of one blob without progress between them.
    pub attempts: u32,
    /// Wait before the second try; doubled each time, with jitter.
    pub backoff: Duration,
    /// The longest wait between two tries, `Retry-After` included.
    pub backoff_max: Duration,
    /// After this long no further try is begun.
    pub retry_total: Duration,
    /// Redirects in a row.
    pub redirects: u32,
    /// Bytes of a manifest or an index.
    pub manifest: u64,
    /// Bytes of any other document.
    pub body: u64,
    /// Tags of one repository, and entries of one list of referrers.
    pub entries: usize,
    /// Pages of one list.
    pub pages: usize,
    /// A blob longer than this is uploaded in pieces of this many bytes.
    pub upload_chunk: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            header: Duration::from_secs(60),
            commit: Duration::from_secs(600),
            idle: Duration::from_secs(60),
            rate_window: Duration::from_secs(30),
            min_rate: 1024,
            document: Duration::from_secs(120),
            attempts: 5,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(60),
            retry_total: Duration::from_secs(300),
            redirects: 5,
            manifest: 4 << 20,
            body: 4 << 20,
            entries: 100_000,
            pages: 1000,
            upload_chunk: 64 << 20,
        }
    }
}

impl Limits {
    /// Bytes between two failures that count as progress.
    pub(crate) fn least(&self) -> u64 {
        self.min_rate.saturating_mul(self.rate_window.as_secs().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_rules() {
        let rule = |s: &str| s.parse::<InsecureRule>();
        assert_eq!(rule("reg.lan").unwrap(), InsecureRule::Host("reg.lan".into()));
        assert_eq!(rule("reg.lan:5000").unwrap(), InsecureRule::HostPort("reg.lan".into(), 5000));
        assert_eq!(rule("[::1]:5000").unwrap(), InsecureRule::HostPort("::1".into(), 5000));
        let net = rule("10.1.0.0/16").unwrap();
        assert!(net.covers("10.1.2.3".parse().unwrap()));
        assert!(!net.covers("10.2.2.3".parse().unwrap()));
        for text in ["reg.lan", "reg.lan:5000", "[::1]:5000", "10.1.0.0/16"] {
            assert_eq!(rule(text).unwrap().to_string(), text);
        }
        assert!(rule("reg.lan").unwrap().names("REG.lan", 1));
        assert!(!rule("reg.lan:5000").unwrap().names("reg.lan", 5001));
        for bad in ["http://reg.lan", "10.0.0.0/33", "reg.lan/x", "", "a:b:c", "reg.lan:99999"] {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors() {
        assert!(Mirror::new("docker.io", "https://mirror.example/hub").is_ok());
        assert!(Mirror::new("docker.io", "http://127.0.0.1:5000/").is_ok());
        for bad in
            ["mirror.example", "ftp://m.example", "https://m.example?x=1", "https://m.example/#f", "https://"]
        {
            assert!(Mirror::new("docker.io", bad).is_err(), "{bad}");
        }
        let e = Mirror::new("docker.io", "https://me:hunter2@m.example").unwrap_err().to_string();
        assert_eq!(e, "invalid mirror: username/password not allowed in URI");
    }
}
