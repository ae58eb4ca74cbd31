//! Tokens of registries: asked for at their token server, and kept until they expire.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;

use crate::answer::read_body;
use crate::call::{Home, Outbound};
use crate::client::Inner;
use crate::endpoint::{Endpoint, Way};
use crate::retry::Retry;
use crate::transport::{Addresses, Outgoing, Payload, Profile, Trust, secret};
use crate::url::{Url, encode};
use crate::{Credentials, Error, Result, realm};

/// Tokens that are kept.
const MAX_KEPT: usize = 256;
/// A token that says nothing of it is good for this long, and none for less (Docker's token specification).
const LEAST: u64 = 60;
/// None is kept longer than a day.
const MOST: u64 = 24 * 3600;
/// How we are called at token servers.
const CLIENT_ID: &str = "longshore";

/// What may be done: `repository:library/busybox:pull`; sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    pub(crate) fn new(scopes: impl IntoIterator<Item = String>) -> Self {
        let mut all: Vec<String> = scopes.into_iter().filter(|s| !s.is_empty()).collect();
        all.sort();
        all.dedup();
        Self(all)
    }

    /// With those of a challenge, which are separated by spaces.
    pub(crate) fn and(&self, more: &str) -> Self {
        /// More than any request needs.
        const MAX: usize = 16;
        Self::new(self.0.iter().cloned().chain(more.split(' ').map(str::to_owned)).take(MAX))
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    realm: String,
    service: String,
    scopes: Scopes,
    credentials: Credentials,
}

/// The tokens that are good.
#[derive(Default)]
pub(crate) struct Tokens {
    kept: Mutex<HashMap<Key, (HeaderValue, Instant)>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

/// Whom to ask for a token, and for which.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) realm: &'a Url,
    pub(crate) service: &'a str,
    pub(crate) scopes: &'a Scopes,
    pub(crate) credentials: &'a Credentials,
    /// A login, which wants a refresh token.
    pub(crate) offline: bool,
}

/// What a token server gave.
pub(crate) struct Granted {
    /// `Authorization`.
    pub(crate) authorization: HeaderValue,
    pub(crate) refresh: Option<String>,
    lifetime: Duration,
}

impl Wanted<'_> {
    fn key(&self) -> Key {
        Key {
            // With the query: two realms may differ in nothing else.
            realm: self.realm.uri().map(|u| u.to_string()).unwrap_or_default(),
            service: self.service.to_owned(),
            scopes: self.scopes.clone(),
            credentials: self.credentials.clone(),
        }
    }
}

impl Tokens {
    pub(crate) fn find(&self, wanted: &Wanted<'_>) -> Option<HeaderValue> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&wanted.key()).filter(|(_, until)| Instant::now() < *until).map(|(token, _)| token.clone())
    }

    /// The server did not take it.
    pub(crate) fn forget(&self, token: &HeaderValue) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (own, _)| own != token);
    }

    /// The token that is kept as `token` serves `wanted` too.
    pub(crate) fn also(&self, wanted: &Wanted<'_>, token: &HeaderValue) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = kept.values().find(|(own, _)| own == token).cloned() {
            kept.insert(wanted.key(), own);
        }
    }

    fn keep(&self, wanted: &Wanted<'_>, granted: &Granted) {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (_, until)| now < *until);
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(wanted.key(), (granted.authorization.clone(), now + granted.lifetime));
    }
}

/// `Authorization` with a name and a password.
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret(&format!("Basic {pair}"))
}

impl Inner {
    /// A token for `wanted`: one that is kept, or a new one. Refuses realms by the rules of [`realm::check`].
    pub(crate) async fn token(&self, at: &Endpoint, way: Way, wanted: &Wanted<'_>) -> Result<Granted> {
        let home = at.origin(way.tls);
        let named = &self.config.token_servers;
        realm::check(wanted.realm, &home, !way.is_verified(), wanted.credentials, named)?;
        let profile = self.realm_profile(at, way, wanted.realm).await;
        let (start, outbound) = self.token_request(wanted)?;
        let home = Home {
            origin: wanted.realm.origin.clone(),
            profile,
            elsewhere: if at.is_public() { Addresses::Public } else { Addresses::NotLinkLocal },
            strict: false,
        };
        let action = "get a token";
        let mut retry = Retry::new(&self.config.limits, self.config.limits.attempts);
        let answer = loop {
            let result = self.follow(&home, &outbound, start.clone(), None).await;
            let (passing, asked) = match &result {
                Ok(answer) => (answer.is_passing(), answer.retry_after()),
                Err(failure) => (failure.is_passing(), None),
            };
            if passing && retry.again(asked).await {
                continue;
            }
            let mut answer =
                result.map_err(|f| f.into_error(self, &home.origin.host_port(), &action, retry.made))?;
            answer.attempts = retry.made;
            break answer;
        };
        if !answer.response.status().is_success() {
            return Err(answer.refused(self, &action).await);
        }
        let host = home.origin.host_port();
        let body = read_body(answer.response.into_body(), &self.config.limits, self.config.limits.body).await;
        let body = body.map_err(|e| e.into_error(&host, &action))?;
        let granted = parse(&body).map_err(|why| Error::Corrupt(format!("{action} at {host}: {why}")))?;
        self.tokens.keep(wanted, &granted);
        Ok(granted)
    }

    /// The token server has what the registry has if it is the same host, and must prove itself otherwise.
    async fn realm_profile(&self, at: &Endpoint, way: Way, realm: &Url) -> Profile {
        let same_host = realm.origin.host == at.host;
        if realm.origin == at.origin(way.tls) {
            return way.profile();
        }
        let trust = self.transport.trust(&realm.origin.host, realm.origin.port).await;
        let verify = trust == Trust::Verified && (way.verify || !same_host);
        let addresses = match trust {
            Trust::Insecure(Addresses::Insecure) if !at.is_public() => Addresses::Insecure,
            _ if at.is_public() => Addresses::Public,
            _ => Addresses::NotLinkLocal,
        };
        Profile { verify, client_cert: same_host, addresses }
    }

    /// GET with a name and a password or without, POST with a refresh token.
    fn token_request(&self, wanted: &Wanted<'_>) -> Result<(Url, Outbound)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let (mut url, mut authorization) = (wanted.realm.clone(), None);
        let mut payload = Payload::Empty;
        if let Credentials::IdentityToken(token) = wanted.credentials {
            let scope = wanted.scopes.0.join(" ");
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("service", wanted.service),
                ("scope", &scope),
                ("refresh_token", token),
            ];
            let form: Vec<String> =
                form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            payload = Payload::Bytes(Bytes::from(form.join("&")));
        } else {
            if let Credentials::Basic { username, password } = wanted.credentials {
                authorization = Some(basic(username, password).ok_or_else(|| {
                    Error::Invalid("the name or password has impossible characters".into())
                })?);
                url = url.with_query("account", username).with_query("client_id", CLIENT_ID);
                if wanted.offline {
                    url = url.with_query("offline_token", "true");
                }
            }
            if !wanted.service.is_empty() {
                url = url.with_query("service", wanted.service);
            }
            for scope in &wanted.scopes.0 {
                url = url.with_query("scope", scope);
            }
        }
        let method = if payload.len() == 0 { Method::GET } else { Method::POST };
        let outgoing = Outgoing { method, headers, payload, wait: self.config.limits.header };
        // The body of a POST is a secret, so it goes nowhere else.
        Ok((url, Outbound { outgoing, authorization, stays: true }))
    }
}

fn parse(body: &[u8]) -> Result<Granted, String> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Reply {
        token: Option<String>,
        access_token: Option<String>,
        refresh_token: Option<String>,
        expires_in: Option<serde_json::Number>,
    }
    let reply: Reply = serde_json::from_slice(body).map_err(|_| "the answer is not a token in JSON")?;
    let full = |t: Option<String>| t.filter(|t| !t.is_empty());
    let token = full(reply.token).or(full(reply.access_token)).ok_or("the answer has no token")?;
    let authorization = secret(&format!("Bearer {token}")).ok_or("the token has impossible characters")?;
    let said = reply.expires_in.and_then(|n| n.as_u64()).unwrap_or(LEAST).clamp(LEAST, MOST);
    // A little less than it says: it must still be good when it arrives.
    Ok(Granted {
        authorization,
        refresh: full(reply.refresh_token),
        lifetime: Duration::from_secs(said * 9 / 10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_token_servers() {
        let good =
            parse(br#"{"token":"a","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#).ok().unwrap();
        assert_eq!((good.authorization.to_str().unwrap(), good.lifetime.as_secs()), ("Bearer a", 270));
        let oauth = parse(br#"{"access_token":"b","refresh_token":"r","expires_in":0.5}"#).ok().unwrap();
        assert_eq!(
            (oauth.authorization.to_str().unwrap(), oauth.refresh.as_deref()),
            ("Bearer b", Some("r"))
        );
        assert_eq!(oauth.lifetime.as_secs(), 54);
        for bad in [r#"{"token":""}"#, "{}", "[]", r#"{"token":"a\nb"}"#, ""] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_are_a_set() {
        let a = Scopes::new(["repository:b:pull".into(), "repository:a:pull".into()]);
        let b = Scopes::new(["repository:a:pull".into()]).and("repository:b:pull repository:a:pull ");
        assert_eq!(a, b);
    }
}
