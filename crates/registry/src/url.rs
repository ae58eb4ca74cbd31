//! Addresses as registries give them: absolute or relative, http or https, without a user.

use std::fmt;

use hyper::Uri;

/// Where a server is: who may see a credential is decided on all three.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) tls: bool,
    /// Lower case; an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// `http` or `https`, an origin, a path and a query. Shown without its query, which may be a signature.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) origin: Origin,
    /// Path and query; begins with `/`.
    target: String,
}

/// Longer addresses are refused.
const MAX_LEN: usize = 16 << 10;

impl Origin {
    /// `host:port`, an IPv6 address in brackets; without the port where it is the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { self.bracketed() } else { self.host_port() }
    }

    /// `host:port`.
    pub(crate) fn host_port(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// An address at this origin; `target` begins with `/`.
    pub(crate) fn at(&self, target: impl Into<String>) -> Url {
        Url { origin: self.clone(), target: target.into() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

impl Url {
    /// An absolute address; the error is a reason for people.
    pub(crate) fn parse(s: &str) -> Result<Self, String> {
        if s.len() > MAX_LEN {
            return Err("the address is too long".into());
        }
        let uri: Uri = s.parse().map_err(|e: hyper::http::uri::InvalidUri| e.to_string())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(other) => return Err(format!("unsupported scheme {other:?}")),
            None => return Err("want http:// or https://".into()),
        };
        let authority = uri.authority().ok_or("no host")?;
        if authority.as_str().contains('@') {
            return Err("a user in an address is not allowed".into());
        }
        let (host, port) = split_host_port(authority.as_str()).ok_or("no valid host")?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", |p| p.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { origin: Origin { tls, host, port }, target })
    }

    /// What `reference` means in an answer from this address (RFC 3986, 5.2, without removal of dots).
    pub(crate) fn join(&self, reference: &str) -> Result<Self, String> {
        let reference = reference.trim();
        let path = self.path();
        let absolute = match reference.split_once(':') {
            Some((scheme, _)) => {
                !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
            }
            None => false,
        };
        if absolute {
            return Self::parse(reference);
        }
        let origin = &self.origin;
        if reference.starts_with("//") {
            return Self::parse(&format!("{}:{reference}", origin.scheme()));
        }
        let target = match reference.as_bytes().first() {
            None => return Err("the address is empty".into()),
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{path}{reference}"),
            Some(_) => format!("{}{reference}", &path[..=path.rfind('/').unwrap_or(0)]),
        };
        Self::parse(&format!("{origin}{target}"))
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("/")
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, q)| q)
    }

    /// With one more parameter in its query.
    pub(crate) fn with_query(&self, name: &str, value: &str) -> Self {
        let joint = match self.query() {
            None => "?",
            Some("") => "",
            Some(_) => "&",
        };
        let target = format!("{}{joint}{name}={}", self.target, encode(value));
        Self { origin: self.origin.clone(), target }
    }

    /// For a request line.
    pub(crate) fn uri(&self) -> Result<Uri, String> {
        format!("{}{}", self.origin, self.target)
            .parse()
            .map_err(|e: hyper::http::uri::InvalidUri| e.to_string())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Percent-encodes all but what RFC 3986 leaves unreserved.
pub(crate) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for b in value.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; the host comes in lower case and without brackets.
pub(crate) fn split_host_port(s: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = s.strip_prefix('[') {
        let (v6, rest) = rest.split_once(']')?;
        v6.parse::<std::net::Ipv6Addr>().ok()?;
        match rest {
            "" => (v6, None),
            rest => (v6, Some(rest.strip_prefix(':')?)),
        }
    } else {
        match s.split_once(':') {
            Some((h, p)) => (h, Some(p)),
            None => (s, None),
        }
    };
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b) || (s.starts_with('[') && b == b':');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(known) {
        return None;
    }
    // Such a host would name another folder where certificates are looked for by it.
    if host.starts_with('.') || host.contains("..") {
        return None;
    }
    let port = match port {
        None | Some("") => None,
        Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => Some(p.parse().ok().filter(|p| *p != 0)?),
        Some(_) => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_joined() {
        let base = Url::parse("https://R.example:5000/v2/a/blobs/uploads/?x=1").unwrap();
        assert_eq!(base.origin, Origin { tls: true, host: "r.example".into(), port: 5000 });
        let join = |r: &str| base.join(r).map(|u| u.uri().unwrap().to_string());
        assert_eq!(join("/v2/b?_state=s%2B").unwrap(), "https://r.example:5000/v2/b?_state=s%2B");
        assert_eq!(join("uuid?digest=d").unwrap(), "https://r.example:5000/v2/a/blobs/uploads/uuid?digest=d");
        assert_eq!(join("?last=b").unwrap(), "https://r.example:5000/v2/a/blobs/uploads/?last=b");
        assert_eq!(join("//cdn.example/b").unwrap(), "https://cdn.example/b");
        assert_eq!(join("http://o.example").unwrap(), "http://o.example/");
        for bad in ["", "ftp://x/y", "https://me:pw@x/", "javascript:alert(1)", "https://", "https://a b/"] {
            assert!(join(bad).is_err(), "{bad}");
        }
        assert_eq!(
            base.with_query("digest", "sha256:ab").uri().unwrap().query(),
            Some("x=1&digest=sha256%3Aab")
        );
    }

    #[test]
    fn an_address_is_shown_without_its_signature() {
        let url = Url::parse("https://cdn.example/b?X-Signature=secret").unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://cdn.example/b https://cdn.example/b");
    }

    #[test]
    fn hosts_and_ports() {
        let split = |s: &str| split_host_port(s);
        assert_eq!(split("A.b:80"), Some(("a.b".into(), Some(80))));
        assert_eq!(split("[::1]:5000"), Some(("::1".into(), Some(5000))));
        assert_eq!(split("[::1]"), Some(("::1".into(), None)));
        for bad in
            ["", ":80", "a:b", "a:0", "a:70000", "::1", "[x]", "[::1]5", "a/b", "a@b", ".", "..", "a..b"]
        {
            assert_eq!(split(bad), None, "{bad}");
        }
        let origin = Origin { tls: true, host: "::1".into(), port: 443 };
        assert_eq!(origin.to_string(), "https://[::1]");
        assert_eq!(origin.host_port(), "[::1]:443");
    }
}
