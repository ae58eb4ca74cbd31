//! One request of a registry: how the server is reached, who we are, redirects, and tries again.

use std::fmt::Display;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};

use crate::address;
use crate::answer::{Answer, Failure, drain};
use crate::challenge::{Challenge, parse_challenges};
use crate::client::Inner;
use crate::endpoint::{Asks, Endpoint, Way};
use crate::headers::text;
use crate::retry::Retry;
use crate::token::{Scopes, Wanted, basic};
use crate::transport::{
    Addresses, ConnectError, Outgoing, Payload, Peer, Profile, Progress, SendError, Trust, secret,
};
use crate::url::{Origin, Url};
use crate::{Credentials, Error, Limits, Result};

/// A request of a registry.
pub(crate) struct Call<'a> {
    pub(crate) target: Target,
    pub(crate) outgoing: Outgoing,
    pub(crate) scopes: &'a Scopes,
    pub(crate) credentials: &'a Credentials,
    /// What is attempted, for people.
    pub(crate) action: &'a (dyn Display + Sync),
    /// Tries, the first included.
    pub(crate) attempts: u32,
    /// A server that asks who we are is not answered.
    pub(crate) unanswered: bool,
    pub(crate) progress: Option<Progress<'a>>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// At the server, below `/`.
    Path(String),
    /// Where an answer of the server said.
    At(Url),
}

/// The server that credentials and certificates are for.
pub(crate) struct Home {
    pub(crate) origin: Origin,
    pub(crate) profile: Profile,
    /// The addresses that others may have, where it sends to.
    pub(crate) elsewhere: Addresses,
    /// All of them prove who they are: what is said of insecure registries is not said of them.
    pub(crate) strict: bool,
}

/// A request and what proves who we are.
pub(crate) struct Outbound {
    pub(crate) outgoing: Outgoing,
    pub(crate) authorization: Option<HeaderValue>,
    /// Its body goes to no other origin.
    pub(crate) stays: bool,
}

impl Inner {
    /// Sends `call` to `at`, again where that may help. Every status but those is an answer.
    pub(crate) async fn call(&self, at: &Endpoint, call: Call<'_>) -> Result<Answer> {
        let mut retry = Retry::new(&self.config.limits, call.attempts);
        loop {
            let result = self.once(at, &call).await;
            let (passing, asked) = match &result {
                Ok(answer) => (answer.is_passing(), answer.retry_after()),
                // Where nobody ever answered and nobody listens, the name is wrong more often than the moment.
                Err(failure) => (failure.is_passing() && (at.is_known() || !failure.is_deserted()), None),
            };
            if passing && retry.again(asked).await {
                tracing::debug!(host = at.name, attempt = retry.made, "{} again", call.action);
                continue;
            }
            return match result {
                Ok(answer) => Ok(Answer { attempts: retry.made, ..answer }),
                Err(failure) => Err(failure.into_error(self, &at.name, call.action, retry.made)),
            };
        }
    }

    /// One try, over the way that worked before, or over each that the server may be reached by.
    async fn once(&self, at: &Endpoint, call: &Call<'_>) -> Result<Answer, Failure> {
        let ways = match at.way() {
            Some(way) => vec![way],
            None => at.ways(self.transport.trust(&at.host, at.tls_port()).await),
        };
        let mut before: Option<ConnectError> = None;
        for (i, way) in ways.iter().enumerate() {
            match self.exchange(at, *way, call).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Send(SendError::Connect(e), o)) if o.host == at.host => {
                    at.lost();
                    if e.forbidden {
                        return Err(Failure::Send(SendError::Connect(e), o));
                    }
                    if i + 1 == ways.len() {
                        let text = match before {
                            Some(first) if !first.plain && first.text != e.text => {
                                format!("https: {first}; http: {e}")
                            }
                            _ => e.text.clone(),
                        };
                        return Err(Failure::Send(SendError::Connect(ConnectError { text, ..e }), o));
                    }
                    before = Some(e);
                }
                Err(other) => return Err(other),
            }
        }
        Err(Error::Internal(format!("no way to {}", at.name)).into())
    }

    /// One request and its answer; two when the server asks who we are.
    async fn exchange(&self, at: &Endpoint, way: Way, call: &Call<'_>) -> Result<Answer, Failure> {
        let origin = at.origin(way.tls);
        let start = match &call.target {
            Target::Path(path) => origin.at(path.as_str()),
            Target::At(url) => url.clone(),
        };
        let home = Home { origin, profile: way.profile(), elsewhere: Addresses::NotLinkLocal, strict: false };
        let authorization = self.authorization(at, way, call).await?;
        let mut outbound = Outbound { outgoing: call.outgoing.clone(), authorization, stays: false };
        let answer = self.follow(&home, &outbound, start.clone(), call.progress).await?;
        if !answer.strange {
            let peer = answer.response.extensions().get::<Peer>().and_then(|p| p.0);
            at.reached(way, peer.is_some_and(address::is_public));
        }
        if answer.response.status() != StatusCode::UNAUTHORIZED || answer.strange || call.unanswered {
            return Ok(answer);
        }
        if let Some(used) = &outbound.authorization {
            self.tokens.forget(used);
        }
        let challenges = challenges(answer.response.headers());
        let Some(authorization) = self.answer_to(at, way, &challenges, call).await? else {
            return Ok(answer);
        };
        if outbound.authorization.as_ref() == Some(&authorization) {
            return Ok(answer);
        }
        drain(answer.response.into_body()).await;
        outbound.authorization = Some(authorization);
        self.follow(&home, &outbound, start, call.progress).await
    }

    /// What the server is known to want before it asks, so that it need not.
    async fn authorization(&self, at: &Endpoint, way: Way, call: &Call<'_>) -> Result<Option<HeaderValue>> {
        if call.unanswered {
            return Ok(None);
        }
        if let Credentials::RegistryToken(token) = call.credentials {
            let header = secret(&format!("Bearer {token}"));
            return header
                .map(Some)
                .ok_or_else(|| Error::Invalid("the registry token has impossible characters".into()));
        }
        match at.asks() {
            None => Ok(None),
            Some(Asks::Basic) => Ok(basic_of(call.credentials)),
            Some(Asks::Bearer { realm, service }) => {
                let wanted = wanted(&realm, &service, call.scopes, call.credentials);
                self.kept_or_new(at, way, &wanted).await.map(Some)
            }
        }
    }

    /// What answers one of `challenges`; `None` where nothing that we have does.
    async fn answer_to(
        &self,
        at: &Endpoint,
        way: Way,
        challenges: &[Challenge],
        call: &Call<'_>,
    ) -> Result<Option<HeaderValue>> {
        if matches!(call.credentials, Credentials::RegistryToken(_)) {
            return Ok(None);
        }
        let bearer = challenges.iter().find(|c| c.scheme == "bearer" && c.get("realm").is_some());
        if let Some(challenge) = bearer {
            let realm = challenge.get("realm").unwrap_or_default();
            let realm = Url::parse(realm).map_err(|e| {
                Error::Corrupt(format!("{}: the token server's address is not valid: {e}", at.name))
            })?;
            let service = challenge.get("service").unwrap_or_default().to_owned();
            let scopes = call.scopes.and(challenge.get("scope").unwrap_or_default());
            let granted =
                self.kept_or_new(at, way, &wanted(&realm, &service, &scopes, call.credentials)).await?;
            // What the server wants beyond what we know of is in it too, so the next request need not be refused.
            self.tokens.also(&wanted(&realm, &service, call.scopes, call.credentials), &granted);
            at.set_asks(Asks::Bearer { realm, service });
            return Ok(Some(granted));
        }
        if challenges.iter().any(|c| c.scheme == "basic") {
            at.set_asks(Asks::Basic);
            return Ok(basic_of(call.credentials));
        }
        Ok(None)
    }

    /// A token; only one request at a time asks for one, and the others find it kept.
    async fn kept_or_new(&self, at: &Endpoint, way: Way, wanted: &Wanted<'_>) -> Result<HeaderValue> {
        if let Some(kept) = self.tokens.find(wanted) {
            return Ok(kept);
        }
        let _one = at.tokens.lock().await;
        match self.tokens.find(wanted) {
            Some(kept) => Ok(kept),
            None => Ok(self.token(at, way, wanted).await?.authorization),
        }
    }

    /// Sends a request and goes where the answers send it. What proves who we are is for the home's origin alone, and
    /// not even for that once another was asked.
    pub(crate) async fn follow(
        &self,
        home: &Home,
        outbound: &Outbound,
        start: Url,
        progress: Option<Progress<'_>>,
    ) -> Result<Answer, Failure> {
        let mut url = start;
        let mut strange = url.origin != home.origin;
        let mut hops = 0;
        loop {
            let profile = if strange { self.strange_profile(home, &url).await } else { home.profile };
            let mut outgoing = outbound.outgoing.clone();
            if let Some(authorization) = outbound.authorization.as_ref().filter(|_| !strange) {
                outgoing.headers.insert(AUTHORIZATION, authorization.clone());
            }
            let sent = self.transport.send(&url, profile, &outgoing, progress).await;
            let response = sent.map_err(|e| Failure::Send(e, url.origin.clone()))?;
            if !is_redirect(&outgoing.method, response.status()) {
                return Ok(Answer { response, url, attempts: 1, strange });
            }
            hops += 1;
            if hops > self.config.limits.redirects {
                return Err(Error::Corrupt(format!("{url}: redirected more than {} times", hops - 1)).into());
            }
            let next = location(&url, response.headers())?;
            strange |= next.origin != home.origin;
            if strange && outbound.stays && outgoing.payload.len() > 0 {
                return Err(Error::Forbidden(format!("{url}: redirects a secret to {}", next.origin)).into());
            }
            drain(response.into_body()).await;
            url = next;
        }
    }

    /// How a server is reached that another sent us to.
    async fn strange_profile(&self, home: &Home, url: &Url) -> Profile {
        if home.strict {
            return Profile { verify: true, client_cert: false, addresses: home.elsewhere };
        }
        let trust = self.transport.trust(&url.origin.host, url.origin.port).await;
        let (verify, addresses) = match (trust, home.elsewhere) {
            (Trust::Insecure(Addresses::Insecure), Addresses::NotLinkLocal) => (false, Addresses::Insecure),
            (Trust::Insecure(_), elsewhere) => (false, elsewhere),
            (Trust::Verified, elsewhere) => (true, elsewhere),
        };
        Profile { verify, client_cert: false, addresses }
    }
}

fn wanted<'a>(
    realm: &'a Url,
    service: &'a str,
    scopes: &'a Scopes,
    credentials: &'a Credentials,
) -> Wanted<'a> {
    Wanted { realm, service, scopes, credentials, offline: false }
}

fn basic_of(credentials: &Credentials) -> Option<HeaderValue> {
    match credentials {
        Credentials::Basic { username, password } => basic(username, password),
        _ => None,
    }
}

/// All challenges of an answer.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let all = headers.get_all(WWW_AUTHENTICATE).iter().take(8);
    all.filter_map(|v| v.to_str().ok()).flat_map(parse_challenges).collect()
}

/// Redirects of other methods than GET and HEAD keep the method, or are an answer that nobody expects.
fn is_redirect(method: &Method, status: StatusCode) -> bool {
    let reads = *method == Method::GET || *method == Method::HEAD;
    matches!((status.as_u16(), reads), (301..=303, true) | (307 | 308, _))
}

/// Where an answer from `url` sends to; never from https to http.
pub(crate) fn location(url: &Url, headers: &HeaderMap) -> Result<Url> {
    let place = text(headers, LOCATION)
        .ok_or_else(|| Error::Corrupt(format!("{url}: the answer has no Location")))?;
    let next =
        url.join(place).map_err(|e| Error::Corrupt(format!("{url}: the Location is not valid: {e}")))?;
    if url.origin.tls && !next.origin.tls {
        return Err(Error::Forbidden(format!(
            "{url}: the server sends to {}, which has no TLS; if it is behind a proxy, tell it its own address",
            next.origin
        )));
    }
    Ok(next)
}

/// A request without a body.
pub(crate) fn bare(method: Method, limits: &Limits) -> Outgoing {
    Outgoing { method, headers: HeaderMap::new(), payload: Payload::Empty, wait: limits.header }
}
