//! One request of a registry: how the server is reached, who we are, redirects, and tries again.

use std::fmt::Display;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, Response, StatusCode};

use crate::address;
use crate::challenge::{Challenge, parse_challenges};
use crate::client::Inner;
use crate::endpoint::{Asks, Endpoint, Way};
use crate::error::parse_errors;
use crate::headers::{retry_after, text};
use crate::retry::Retry;
use crate::token::{Scopes, Wanted, basic};
use crate::transport::{
    Addresses, ConnectError, Outgoing, Payload, Peer, Profile, Progress, SendError, Trust, broken_words,
    secret,
};
use crate::url::{Origin, Url};
use crate::{Credentials, Error, Limits, Refusal, Result};

/// Bytes of an answer's body that are read for its errors, or to keep the connection.
const MAX_REFUSAL: u64 = 64 << 10;
/// For the rest of an answer that nobody wants.
const DRAIN: Duration = Duration::from_secs(2);

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

/// An answer, whatever its status.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// Where it came from in the end.
    pub(crate) url: Url,
    pub(crate) attempts: u32,
    /// It came from another origin than the server's, where its credentials are worth nothing.
    strange: bool,
}

/// Why there is no answer.
pub(crate) enum Failure {
    Send(SendError, Origin),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Final(e)
    }
}

/// The server that credentials and certificates are for.
pub(crate) struct Home {
    pub(crate) origin: Origin,
    pub(crate) profile: Profile,
    /// The addresses that others may have, where it sends to.
    pub(crate) elsewhere: Addresses,
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
                Err(failure) => (failure.is_passing(), None),
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
                Err(Failure::Send(SendError::Connect(e), o)) if !e.forbidden && o.host == at.host => {
                    at.lost();
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
        let home = Home { origin, profile: way.profile(), elsewhere: Addresses::NotLinkLocal };
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
    matches!((status.as_u16(), reads), (301 | 302 | 303, true) | (307 | 308, _))
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

/// Statuses that may be others later.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=599)
}

impl Answer {
    pub(crate) fn is_passing(&self) -> bool {
        is_passing(self.response.status())
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.is_passing().then(|| retry_after(self.response.headers())).flatten()
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The error that this answer is, with what its body says.
    pub(crate) async fn refused(self, client: &Inner, action: &(dyn Display + Sync)) -> Error {
        let (status, retry_after) = (self.status(), self.retry_after());
        let host = self.url.origin.authority();
        let limits = &client.config.limits;
        let body =
            tokio::time::timeout(limits.idle, read_body(self.response.into_body(), limits, MAX_REFUSAL))
                .await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        Error::Refused(Box::new(Refusal {
            host,
            action: action.to_string(),
            status,
            errors: parse_errors(&body),
            attempts: self.attempts,
            retry_after,
        }))
    }

    /// Itself if its status is one of `expected`, else the error that it is.
    pub(crate) async fn expect(
        self,
        client: &Inner,
        action: &(dyn Display + Sync),
        expected: &[StatusCode],
    ) -> Result<Self> {
        if expected.contains(&self.response.status()) {
            Ok(self)
        } else {
            Err(self.refused(client, action).await)
        }
    }
}

impl Failure {
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Send(SendError::Connect(e), _) => e.passing,
            Self::Send(SendError::Broken(_) | SendError::Late(_), _) => true,
            Self::Send(SendError::File(_), _) | Self::Final(_) => false,
        }
    }

    /// For people; `host` is the server that was asked first.
    pub(crate) fn into_error(
        self,
        client: &Inner,
        host: &str,
        action: &(dyn Display + Sync),
        attempts: u32,
    ) -> Error {
        let (e, at) = match self {
            Self::Final(e) => return e,
            Self::Send(e, at) => (e, at),
        };
        let (host, action) = (host.to_owned(), action.to_string());
        let place = at.authority();
        let via = if host == place || host == at.host || host == "docker.io" {
            String::new()
        } else {
            format!("{}: ", at.host_port())
        };
        match e {
            SendError::File(text) => Error::Internal(text),
            SendError::Connect(e) if e.forbidden => Error::Forbidden(format!("{action} at {host}: {e}")),
            SendError::Connect(e) => {
                let reason = format!("{via}{}{}", e.text, remedy(client, &e, &at));
                if e.late {
                    Error::TimedOut { host, action, attempts, reason }
                } else {
                    Error::Unreachable { host, action, attempts, reason }
                }
            }
            SendError::Broken(reason) => {
                Error::Unreachable { host, action, attempts, reason: format!("{via}{reason}") }
            }
            SendError::Late(reason) => {
                Error::TimedOut { host, action, attempts, reason: format!("{via}{reason}") }
            }
        }
    }
}

/// What a person can do about it.
fn remedy(client: &Inner, e: &ConnectError, at: &Origin) -> String {
    let place = at.authority();
    if e.plain {
        return format!("; to use {place} without TLS, add it to insecure-registries");
    }
    match client.config.certs_dirs.first() {
        Some(dir) if e.text.contains("unknown authority") => {
            format!("; put the authority's certificate into {}/{place}/ca.crt", dir.display())
        }
        _ => String::new(),
    }
}

/// Why a body is not there as a whole.
#[derive(Debug)]
pub(crate) enum BodyError {
    TooLong(u64),
    Broken(String),
    Late(Duration),
}

impl BodyError {
    pub(crate) fn into_error(self, host: &str, action: &(dyn Display + Sync)) -> Error {
        let (host, action) = (host.to_owned(), action.to_string());
        match self {
            Self::TooLong(limit) => {
                Error::TooLarge(format!("{action} at {host}: the answer is longer than {limit} bytes"))
            }
            Self::Broken(reason) => Error::Unreachable { host, action, attempts: 1, reason },
            Self::Late(limit) => {
                let reason = format!("the answer was not complete within {} s", limit.as_secs_f32());
                Error::TimedOut { host, action, attempts: 1, reason }
            }
        }
    }
}

/// A document as a whole: at most `limit` bytes, within the time for one.
pub(crate) async fn read_body(body: Incoming, limits: &Limits, limit: u64) -> Result<Bytes, BodyError> {
    let read = async {
        let mut body = body;
        let mut out = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| BodyError::Broken(broken_words(&e)))?;
            let Ok(data) = frame.into_data() else { continue };
            if (out.len() + data.len()) as u64 > limit {
                return Err(BodyError::TooLong(limit));
            }
            out.extend_from_slice(&data);
        }
        Ok(out.freeze())
    };
    tokio::time::timeout(limits.document, read).await.unwrap_or(Err(BodyError::Late(limits.document)))
}

/// Reads what is left of an answer if that is little, so that its connection can be used again.
pub(crate) async fn drain(mut body: Incoming) {
    let read = async {
        let mut left = MAX_REFUSAL;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, |d| d.len() as u64));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN, read).await;
}

/// A document that is read as a whole.
pub(crate) struct Get<'a> {
    pub(crate) target: Target,
    /// `Accept`; empty for none.
    pub(crate) accept: &'a [&'static str],
    pub(crate) scopes: &'a Scopes,
    pub(crate) credentials: &'a Credentials,
    pub(crate) action: &'a (dyn Display + Sync),
    /// Bytes.
    pub(crate) limit: u64,
    pub(crate) attempts: u32,
}

/// A document that came.
pub(crate) struct Got {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Inner {
    /// Gets a document; again where its body broke off.
    pub(crate) async fn document(&self, at: &Endpoint, get: Get<'_>) -> Result<Got> {
        let limits = &self.config.limits;
        let mut outgoing = bare(Method::GET, limits);
        for accept in get.accept {
            outgoing.headers.append(ACCEPT, HeaderValue::from_static(accept));
        }
        let mut retry = Retry::new(limits, get.attempts);
        loop {
            let call = Call {
                target: get.target.clone(),
                outgoing: outgoing.clone(),
                scopes: get.scopes,
                credentials: get.credentials,
                action: get.action,
                attempts: get.attempts,
                unanswered: false,
                progress: None,
            };
            let answer = self.call(at, call).await?.expect(self, get.action, &[StatusCode::OK]).await?;
            let (url, host) = (answer.url.clone(), answer.url.origin.authority());
            let (parts, body) = answer.response.into_parts();
            match read_body(body, limits, get.limit).await {
                Ok(bytes) => return Ok(Got { url, headers: parts.headers, bytes }),
                Err(BodyError::Broken(_)) if retry.again(None).await => {}
                Err(BodyError::Broken(reason)) => {
                    let (action, attempts) = (get.action.to_string(), retry.made);
                    return Err(Error::Unreachable { host, action, attempts, reason });
                }
                Err(other) => return Err(other.into_error(&host, get.action)),
            }
        }
    }
}

/// A request without a body.
pub(crate) fn bare(method: Method, limits: &Limits) -> Outgoing {
    Outgoing { method, headers: HeaderMap::new(), payload: Payload::Empty, wait: limits.header }
}
