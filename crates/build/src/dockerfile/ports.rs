//! The words of `EXPOSE`: `80`, `8000-8010/udp`, and what is tolerated: `127.0.0.1:80:80/tcp`.

use std::net::IpAddr;

/// Ports that one instruction may give.
const MAX_PORTS: usize = 200_000;

/// One word of `EXPOSE`, variables expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// First port.
    pub first: u16,
    /// Last port; that of `first` where it is no range.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`, in the case it is written in; `tcp` where none is.
    pub proto: String,
    /// Whether an address or a port of the host stands in it, which `EXPOSE` has no use for.
    pub mapped: bool,
}

/// Why a word of `EXPOSE` is no port; the words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PortError {
    #[error("invalid port: {0:?}: no port specified")]
    Nothing(String),
    #[error("invalid port: {word:?}: invalid proto: {proto}")]
    Proto { word: String, proto: String },
    #[error("invalid IP address: {0}")]
    Address(String),
    #[error("invalid containerPort: {0}")]
    Container(String),
    #[error("invalid hostPort: {0}")]
    Host(String),
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges { container: String, host: String },
    #[error("EXPOSE names more than {MAX_PORTS} ports")]
    TooMany,
}

/// The ports of an `EXPOSE`, `80/tcp` each, in its order.
///
/// # Errors
/// For words that are no ports, and for more of them than anyone has.
pub fn ports<S: AsRef<str>>(words: &[S]) -> Result<Vec<String>, PortError> {
    let mut out = Vec::new();
    for word in words {
        let spec: PortSpec = port_spec(word.as_ref())?;
        if out.len() + usize::from(spec.last - spec.first) >= MAX_PORTS {
            return Err(PortError::TooMany);
        }
        let proto = spec.proto.to_ascii_lowercase();
        out.extend((spec.first..=spec.last).map(|p| format!("{p}/{proto}")));
    }
    Ok(out)
}

/// Reads one word.
///
/// # Errors
/// As [`ports`].
pub fn port_spec(word: &str) -> Result<PortSpec, PortError> {
    let cut = || word.chars().take(100).collect::<String>();
    let mut parts = word.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (port, proto) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(PortError::Nothing(cut()));
    }
    let proto = if proto.is_empty() { "tcp" } else { proto };
    if !["tcp", "udp", "sctp"].iter().any(|p| p.eq_ignore_ascii_case(proto)) {
        return Err(PortError::Proto { word: cut(), proto: proto.chars().take(100).collect() });
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if !address.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(PortError::Address(address.chars().take(100).collect()));
    }
    let short = |s: &str| s.chars().take(100).collect::<String>();
    let (first, last) = range(port).ok_or_else(|| PortError::Container(short(port)))?;
    if !host.is_empty() {
        let (from, to) = range(host).ok_or_else(|| PortError::Host(short(host)))?;
        // A range of the host for one port is a choice among its ports.
        if last - first != to - from && first != last {
            return Err(PortError::Ranges { container: short(port), host: short(host) });
        }
    }
    let mapped = !address.is_empty() || !host.is_empty();
    Ok(PortSpec { first, last, proto: proto.to_owned(), mapped })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |s: &str| s.parse::<u16>().ok();
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_port() {
        let check = |words: &[&str], want: &[&str]| assert_eq!(ports(words).unwrap(), want, "{words:?}");
        check(&["80", "443/TCP", "53/udp", "1/sctp"], &["80/tcp", "443/tcp", "53/udp", "1/sctp"]);
        check(&["8000-8002/udp", "7-7"], &["8000/udp", "8001/udp", "8002/udp", "7/tcp"]);
        check(
            &["127.0.0.1:80:81", "[::1]:1:2", "5:6", "1000-2000:80"],
            &["81/tcp", "2/tcp", "6/tcp", "80/tcp"],
        );
        check(&["80/"], &["80/tcp"]);
    }

    #[test]
    fn what_is_none() {
        let check = |word: &str, want: &str| assert_eq!(port_spec(word).unwrap_err().to_string(), want);
        check("", "invalid port: \"\": no port specified");
        check("/tcp", "invalid port: \"/tcp\": no port specified");
        check("80/http", "invalid port: \"80/http\": invalid proto: http");
        check("70000", "invalid containerPort: 70000");
        check("9-8", "invalid containerPort: 9-8");
        check("-1", "invalid containerPort: -1");
        check("x:1:2", "invalid IP address: x");
        check("x:2", "invalid hostPort: x");
        check("1-2:3-5", "invalid ranges specified for container and host Ports: 3-5 and 1-2");
        let many = vec!["0-65535"; 10_000];
        assert_eq!(ports(&many), Err(PortError::TooMany));
    }
}
