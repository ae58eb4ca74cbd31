//! Whether a token server belongs to the registry that names it.

use std::net::IpAddr;

use crate::url::{Origin, Url};
use crate::{Credentials, Error, Result};

/// Token servers of well-known registries that have another domain: (end of the registry's host, server's host).
const KNOWN: [(&str, &str); 3] =
    [("docker.io", "auth.docker.io"), ("docker.com", "auth.docker.io"), ("scw.cloud", "api.scaleway.com")];

/// Domains under which everybody can have a name: two of them have nothing to do with one another. Second-level names
/// of countries are told by their form.
const SHARED: [&str; 22] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "appspot.com",
    "azurecr.cn",
    "azurecr.io",
    "azurecr.us",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudflare.net",
    "cloudfront.net",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "jfrog.io",
    "netlify.app",
    "ngrok.io",
    "pages.dev",
    "pkg.dev",
    "run.app",
    "vercel.app",
    "workers.dev",
];

/// Checks that credentials may go to `realm`, which the registry at `home` named. `unverified`: the registry is
/// reached without proof of who it is, so that its token server need not have TLS. `named`: pairs of a registry's host
/// and its token server's, from the configuration.
///
/// # Errors
/// [`Error::Forbidden`].
pub(crate) fn check(
    realm: &Url,
    home: &Origin,
    unverified: bool,
    credentials: &Credentials,
    named: &[(String, String)],
) -> Result<()> {
    if !realm.origin.tls && !unverified {
        return Err(Error::Forbidden(format!(
            "{}: the token server {} has no TLS, so nothing is asked of it",
            home.authority(),
            realm.origin
        )));
    }
    let (registry, server) = (&home.host, &realm.origin.host);
    let named = named.iter().any(|(r, s)| r.eq_ignore_ascii_case(registry) && s.eq_ignore_ascii_case(server));
    if credentials.is_anonymous() || named || may_have_credentials(registry, server) {
        return Ok(());
    }
    Err(Error::Forbidden(format!(
        "{}: the registry sends to the token server {} on another domain, and credentials are not sent there; if \
         it is the registry's own, name it under token-servers in the daemon's configuration",
        home.authority(),
        realm.origin
    )))
}

/// Whether the server `realm` belongs to the registry `registry`: the same host, one of the two below the other, both
/// below one domain that somebody owns, or known.
fn may_have_credentials(registry: &str, realm: &str) -> bool {
    if registry == realm {
        return true;
    }
    if [registry, realm].iter().any(|h| h.parse::<IpAddr>().is_ok() || !h.contains('.')) {
        return false;
    }
    if KNOWN.iter().any(|(end, server)| *server == realm && (registry == *end || is_below(registry, end))) {
        return true;
    }
    let parent = registry.split_once('.').map_or("", |(_, parent)| parent);
    let owned = |domain: &str| is_owned(domain).then(|| domain.to_owned());
    [owned(registry), owned(parent)].into_iter().flatten().any(|d| realm == d || is_below(realm, &d))
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
}

/// Whether everything below `domain` is one owner's, as far as can be told.
fn is_owned(domain: &str) -> bool {
    const SECOND: [&str; 14] =
        ["co", "com", "net", "org", "gov", "edu", "ac", "or", "ne", "go", "gob", "mil", "info", "biz"];
    let labels: Vec<&str> = domain.split('.').collect();
    match labels.as_slice() {
        [] | [_] => false,
        [second, top] if top.len() == 2 && SECOND.contains(second) => false,
        _ => !SHARED.iter().any(|s| domain == *s || (s.starts_with("amazonaws") && is_below(domain, s))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atk_29_credentials_go_to_the_registrys_own_token_server_only() {
        for (registry, realm) in [
            ("registry-1.docker.io", "auth.docker.io"),
            ("registry.hub.docker.com", "auth.docker.io"),
            ("ghcr.io", "ghcr.io"),
            ("quay.io", "quay.io"),
            ("gcr.io", "gcr.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("registry.example.com", "auth.example.com"),
            ("example.com", "auth.example.com"),
            ("registry.eu.example.co.uk", "auth.eu.example.co.uk"),
            ("registry.example.co.uk", "auth.example.co.uk"),
            ("registry.cn-hangzhou.aliyuncs.com", "dockerauth.cn-hangzhou.aliyuncs.com"),
            ("rg.fr-par.scw.cloud", "api.scaleway.com"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert!(may_have_credentials(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("registry.example.com", "evil.com"),
            ("registry.example.com", "example.com.evil.com"),
            ("registry.example.com", "evilexample.com"),
            ("example.com", "other.com"),
            ("example.co.uk", "evil.co.uk"),
            ("mine.azurecr.io", "theirs.azurecr.io"),
            ("mine.jfrog.io", "theirs.jfrog.io"),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "2.dkr.ecr.eu-west-1.amazonaws.com"),
            ("registry.example.com", "169.254.169.254"),
            ("127.0.0.1", "127.0.0.2"),
            ("10.0.0.1", "1.0.0.1"),
            ("localhost", "auth"),
            ("registry", "auth.registry"),
            ("evil.example", "auth.docker.io"),
            ("evildocker.io", "auth.docker.io"),
        ] {
            assert!(!may_have_credentials(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn atk_29_a_token_server_has_tls() {
        let home = Origin { tls: true, host: "r.example.com".into(), port: 443 };
        let me = Credentials::Basic { username: "me".into(), password: "hunter2".into() };
        let realm = |s: &str| Url::parse(s).unwrap();
        let check = |s: &str, unverified, c| check(&realm(s), &home, unverified, c, &[]);
        assert!(check("https://auth.example.com/t", false, &me).is_ok());
        assert!(check("http://auth.example.com/t", false, &Credentials::Anonymous).is_err());
        assert!(check("http://r.example.com/t", true, &me).is_ok());
        let e = check("https://evil.com/t?x=1", false, &me).unwrap_err().to_string();
        assert!(
            e.contains("r.example.com") && e.contains("https://evil.com") && !e.contains("hunter2"),
            "{e}"
        );
        assert!(check("https://evil.com/t", false, &Credentials::Anonymous).is_ok());
    }

    #[test]
    fn a_token_server_can_be_named() {
        let home = Origin { tls: true, host: "r.example.com".into(), port: 443 };
        let me = Credentials::Basic { username: "me".into(), password: "x".into() };
        let named = [("R.example.com".to_owned(), "login.example.net".to_owned())];
        let realm = |s: &str| Url::parse(s).unwrap();
        assert!(check(&realm("https://login.example.net/t"), &home, false, &me, &named).is_ok());
        assert!(check(&realm("https://evil.example.net/t"), &home, false, &me, &named).is_err());
    }
}
