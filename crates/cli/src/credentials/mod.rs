//! Credentials of registries: those of `config.json`, and those that other programs keep.
//!
//! Keys, encodings and what counts as none are docker's, so that both command lines work with the same files. What is
//! read is hostile in one respect only: it may be damaged, or of no end; sizes and times are limited.

pub mod file;
pub mod helper;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value};

/// The key of Docker Hub's credentials.
pub const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What is known of a user at a registry. Everything may be empty; if all is, the user is nobody in particular.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password, or an access token that stands for it.
    pub password: String,
    /// Of old; kept where it is found.
    pub email: String,
    /// The registry, as the file or the user names it.
    pub server: String,
    /// A token that the registry's token server trades for others; it stands in the password's place.
    pub identity_token: String,
    /// A token that the registry itself takes.
    pub registry_token: String,
}

impl Credentials {
    /// The members of the API's `AuthConfig` that are not empty.
    #[must_use]
    pub fn json(&self) -> Value {
        let members = [
            ("username", &self.username),
            ("password", &self.password),
            ("email", &self.email),
            ("serveraddress", &self.server),
            ("identitytoken", &self.identity_token),
            ("registrytoken", &self.registry_token),
        ];
        let given = members.into_iter().filter(|(_, v)| !v.is_empty());
        Value::Object(given.map(|(k, v)| (k.to_owned(), Value::from(v.as_str()))).collect::<Map<_, _>>())
    }

    /// The value of the header `X-Registry-Auth`: the members in JSON, in URL-safe base64.
    #[must_use]
    pub fn header(&self) -> String {
        URL_SAFE.encode(self.json().to_string())
    }
}

/// The value of the header `X-Registry-Config`: the members of all users by the names of their registries, in URL-safe
/// base64.
#[must_use]
pub fn header_of_all(all: &[(String, Credentials)]) -> String {
    let members = all.iter().map(|(name, user)| (name.clone(), user.json()));
    URL_SAFE.encode(Value::Object(members.collect::<Map<_, _>>()).to_string())
}

/// Says what there is; secrets are never shown.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret = |v: &str| if v.is_empty() { "none" } else { "secret" };
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &secret(&self.password))
            .field("server", &self.server)
            .field("identity_token", &secret(&self.identity_token))
            .field("registry_token", &secret(&self.registry_token))
            .finish_non_exhaustive()
    }
}

/// The key of a registry's credentials, by the registry's name in references.
#[must_use]
pub fn key(registry: &str) -> &str {
    if ["docker.io", "index.docker.io"].contains(&registry) { HUB_KEY } else { registry }
}

/// `host[:port]` of what may be a URL: `https://host/v1/` and `host` are one registry.
#[must_use]
pub fn hostname(text: &str) -> String {
    if let Some((_, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if let Some(name) = host_and_port(host) {
            return name;
        }
    }
    text.split('/').next().unwrap_or_default().to_owned()
}

/// A host as Go's URLs give it back: the brackets of an IPv6 address are there only before a port.
fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = if port.is_empty() { "" } else { port.strip_prefix(':')? };
    if host.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(match (port, host.contains(':')) {
        ("", _) => host.to_owned(),
        (port, true) => format!("[{host}]:{port}"),
        (port, false) => format!("{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_have_one_name() {
        for (text, want) in [
            ("host", "host"),
            ("host:5000/a", "host:5000"),
            ("https://host/v1/", "host"),
            ("http://host:5000", "host:5000"),
            ("https://user:pw@host:1/", "host:1"),
            ("https://[::1]:5000/v2/", "[::1]:5000"),
            ("https://[::1]/", "::1"),
            ("https:///x", "https:"),
            ("https://host:x/", "https:"),
            (HUB_KEY, "index.docker.io"),
        ] {
            assert_eq!(hostname(text), want, "{text}");
        }
        assert_eq!((key("docker.io"), key("index.docker.io"), key("x:1")), (HUB_KEY, HUB_KEY, "x:1"));
    }

    #[test]
    fn the_header_says_what_is_known_and_logs_do_not() {
        assert_eq!(Credentials::default().header(), "e30=");
        let some = Credentials {
            username: "a".into(),
            password: "p?>".into(),
            server: "h".into(),
            ..Credentials::default()
        };
        assert_eq!(
            String::from_utf8(URL_SAFE.decode(some.header()).unwrap()).unwrap(),
            r#"{"username":"a","password":"p?>","serveraddress":"h"}"#
        );
        assert!(!format!("{some:?}").contains("p?>"));
    }
}
