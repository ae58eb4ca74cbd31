//! Browsers must not drive the daemon.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{HOST, ORIGIN};
use longshore_oci::Kind;

use crate::errors::ApiError;

/// Refuses what a web page sent. Only browsers send `Origin`, and no page is trusted. Over TCP a
/// page of a name that was rebound to this machine calls it by that name, so there the host has
/// to be an address, `localhost`, or one of `names`.
pub(crate) fn check(headers: &HeaderMap, over_tcp: bool, names: &[String]) -> Result<(), ApiError> {
    if headers.contains_key(ORIGIN) {
        return Err(ApiError::of(Kind::Denied, "requests from web pages are refused"));
    }
    if !over_tcp {
        return Ok(());
    }
    let host = headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let name = without_port(host);
    let known = name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok()
        || names.iter().any(|n| n.eq_ignore_ascii_case(name));
    match known {
        true => Ok(()),
        false => {
            Err(ApiError::of(Kind::Denied, format!("the host name {name:?} is not one of this daemon's")))
        }
    }
}

/// `[::1]:2375`, `10.0.0.1:2375` or `name` without what does not belong to the name.
fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pairs: &[(&'static str, &str)], tcp: bool) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        check(&headers, tcp, &["builder.example".to_owned()]).is_ok()
    }

    #[test]
    fn atk_39_web_pages_and_rebound_names_are_refused() {
        assert!(!allowed(&[("origin", "http://evil.example")], false));
        assert!(!allowed(&[("origin", "null"), ("host", "localhost")], true));
        assert!(allowed(&[("host", "anything")], false) && allowed(&[], false));
        for good in ["localhost:2375", "127.0.0.1", "[::1]:2375", "10.0.0.7:1", "Builder.example:2375"] {
            assert!(allowed(&[("host", good)], true), "{good}");
        }
        for bad in ["evil.example", "localhost.evil.example:2375", "", "127.0.0.1.evil.example"] {
            assert!(!allowed(&[("host", bad)], true), "{bad}");
        }
    }
}
