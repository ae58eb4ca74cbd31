use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::{Method, StatusCode};
use longshore_oci::Reference;
use serde::Deserialize;

use crate::answer::{Answer, Get};
use crate::call::{Call, Target, bare, challenges};
use crate::endpoint::{Asks, Endpoint};
use crate::error::printable;
use crate::token::{Scopes, Tokens, Wanted};
use crate::transport::Transport;
use crate::url::{Url, encode};
use crate::{Config, Credentials, Error, ProxyConfig, Repository, Result};

/// Registries of which is kept what was learnt.
const MAX_ENDPOINTS: usize = 256;

/// The client of all registries: connections, tokens, and what was learnt of each host. Cloning is cheap, and
/// clones share all of it. Nothing is read or opened before the first use.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) transport: Transport,
    pub(crate) tokens: Tokens,
    /// With the registry that each is for.
    pub(crate) mirrors: Vec<(String, Source)>,
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
}

/// A server to ask, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) at: Arc<Endpoint>,
    pub(crate) credentials: Credentials,
}

/// What a login gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// A token to keep in the password's place ([`Credentials::IdentityToken`]), from registries that give one.
    pub identity_token: Option<String>,
}

/// One repository that a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SearchHit {
    /// `busybox`, `library/x`...
    pub name: String,
    /// As the registry has it, without control characters.
    pub description: String,
    /// How many users like it.
    #[serde(rename = "star_count")]
    pub stars: u64,
    /// Kept by the registry's owner.
    #[serde(rename = "is_official")]
    pub official: bool,
    /// Built by the registry from sources; no registry does so any more.
    #[serde(rename = "is_automated")]
    pub automated: bool,
}

impl Client {
    /// A client with `config`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the configuration contradicts itself.
    pub fn new(config: Config) -> Result<Self> {
        let mirror = |m: &crate::Mirror| {
            let at = Arc::new(Endpoint::mirror(m)?);
            Ok((registry_name(&m.registry), Source { at, credentials: m.credentials.clone() }))
        };
        let mirrors = config.mirrors.iter().map(mirror).collect::<Result<_>>()?;
        let transport = Transport::new(&config).map_err(Error::Invalid)?;
        let (tokens, endpoints) = (Tokens::default(), Mutex::default());
        Ok(Self { inner: Arc::new(Inner { config, transport, tokens, mirrors, endpoints }) })
    }

    /// Through which proxies servers are reached.
    #[must_use]
    pub fn proxy(&self) -> &ProxyConfig {
        &self.inner.config.proxy
    }

    /// The repository of `name`; its tag and digest, if any, are kept in [`Repository::name`] and mean nothing
    /// else. Performs no I/O.
    #[must_use]
    pub fn repository(&self, name: &Reference, credentials: Credentials) -> Repository {
        Repository::new(self.clone(), name.clone(), credentials)
    }

    /// Checks `credentials` at `registry` (`docker.io`, `host:port`, or Docker's `https://index.docker.io/v1/`). A
    /// registry that asks nobody takes all.
    ///
    /// # Errors
    /// Kind `Unauthorized` when the registry does not take them.
    pub async fn login(&self, registry: &str, credentials: Credentials) -> Result<Login> {
        let inner = &self.inner;
        let at = inner.registry(&registry_name(registry))?;
        let action = "log in";
        let scopes = Scopes::default();
        let asked = inner.ping(&at, &credentials, &scopes, true, action).await?;
        if asked.response.status() != StatusCode::UNAUTHORIZED {
            asked.expect(inner, &action, &[StatusCode::OK]).await?;
            return Ok(Login { identity_token: None });
        }
        let mut identity_token = None;
        let challenges = challenges(asked.response.headers());
        if let (Some(bearer), Some(way)) = (challenges.iter().find(|c| c.scheme == "bearer"), at.way()) {
            let wrong =
                |e| Error::Corrupt(format!("{}: the token server's address is not valid: {e}", at.name));
            let realm = Url::parse(bearer.get("realm").unwrap_or_default()).map_err(wrong)?;
            let service = bearer.get("service").unwrap_or_default().to_owned();
            if !matches!(credentials, Credentials::RegistryToken(_)) {
                let wanted = Wanted {
                    realm: &realm,
                    service: &service,
                    scopes: &scopes,
                    credentials: &credentials,
                    offline: true,
                };
                identity_token = inner.token(&at, way, &wanted).await?.refresh;
                at.set_asks(Asks::Bearer { realm, service });
            }
        }
        let answer = inner.ping(&at, &credentials, &scopes, false, action).await?;
        answer.expect(inner, &action, &[StatusCode::OK]).await?;
        Ok(Login { identity_token })
    }

    /// Repositories of `registry` whose names or descriptions have `term`, at most `limit` of them, by the older
    /// interface that has a search.
    ///
    /// # Errors
    /// When the registry has no search, or refuses.
    pub async fn search(
        &self,
        registry: &str,
        term: &str,
        limit: u32,
        credentials: Credentials,
    ) -> Result<Vec<SearchHit>> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            results: Option<Vec<SearchHit>>,
        }
        let inner = &self.inner;
        let at = Arc::new(Endpoint::search(&registry_name(registry))?);
        if matches!(credentials, Credentials::Basic { .. }) {
            // It answers everybody, and asks nobody who they are, but finds more for those who say.
            at.set_asks(Asks::Basic);
        }
        let action = format!("search for {:?}", printable(term));
        let got = inner
            .document(
                &at,
                Get {
                    target: Target::Path(format!("/v1/search?q={}&n={limit}", encode(term))),
                    accept: &["application/json"],
                    scopes: &Scopes::new(["registry:catalog:search".to_owned()]),
                    credentials: &credentials,
                    action: &action,
                    limit: inner.config.limits.body,
                    attempts: inner.config.limits.attempts,
                },
            )
            .await?;
        let found: Found = serde_json::from_slice(&got.bytes)
            .map_err(|e| Error::Corrupt(format!("{action} at {}: the answer is not valid: {e}", at.name)))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let clean = |hit: SearchHit| SearchHit {
            name: printable(&hit.name),
            description: printable(&hit.description),
            ..hit
        };
        Ok(found.results.unwrap_or_default().into_iter().take(limit).map(clean).collect())
    }
}

impl Inner {
    /// The registry of that name in references.
    pub(crate) fn registry(&self, name: &str) -> Result<Arc<Endpoint>> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = endpoints.get(name) {
            return Ok(at.clone());
        }
        let at = Arc::new(Endpoint::registry(name)?);
        if endpoints.len() >= MAX_ENDPOINTS {
            endpoints.clear();
        }
        endpoints.insert(name.to_owned(), at.clone());
        Ok(at)
    }

    /// Asks a server whether it is a registry.
    async fn ping(
        &self,
        at: &Endpoint,
        credentials: &Credentials,
        scopes: &Scopes,
        unanswered: bool,
        action: &'static str,
    ) -> Result<Answer> {
        let limits = &self.config.limits;
        let call = Call {
            target: Target::Path("/v2/".into()),
            outgoing: bare(Method::GET, limits),
            scopes,
            credentials,
            action: &action,
            attempts: limits.attempts,
            unanswered,
            progress: None,
        };
        self.call(at, call).await
    }
}

/// A registry as users write it: also as an address, as Docker writes that of its own.
fn registry_name(s: &str) -> String {
    let s = s.split_once("://").map_or(s, |(_, rest)| rest);
    let host = s.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_as_users_write_them() {
        assert_eq!(registry_name("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(registry_name(""), "docker.io");
        assert_eq!(registry_name("http://localhost:5000/v2/"), "localhost:5000");
        assert_eq!(registry_name("ghcr.io"), "ghcr.io");
    }
}
