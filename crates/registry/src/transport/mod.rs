//! Requests over connections that are made and kept by profile: what a server must prove, what we show it, and
//! which addresses it may have.

mod body;
mod connect;
mod dns;
mod tls;
mod tunnel;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use self::body::Body;
pub(crate) use self::body::{FileError, Payload};
pub(crate) use self::connect::{ConnectError, Peer};
use self::connect::{Connector, io_words};
use crate::error::printable;
use crate::proxy::ProxyConfig;
use crate::url::{Origin, Url};
use crate::{Config, InsecureRule, Limits};

/// Connections that wait for a next request: how long, and how many to one server.
const IDLE: Duration = Duration::from_secs(15);
const IDLE_COUNT: usize = 8;
/// Header lines of an answer.
const MAX_HEADERS: usize = 128;
/// Bytes of an answer's head, and of a body's pieces.
const BUFFER: usize = 256 << 10;

/// Which addresses a server may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Addresses {
    /// Somebody who may say so named it.
    Any,
    /// In a network of insecure registries: so that no other answer of the name's server gets what is sent to them.
    Insecure,
    /// A registry named it.
    NotLinkLocal,
    /// A registry on the internet named it.
    Public,
}

/// How a connection is made; connections are shared within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Profile {
    /// The server's certificate must be good.
    pub(crate) verify: bool,
    /// Our certificate for it is shown when it asks.
    pub(crate) client_cert: bool,
    pub(crate) addresses: Addresses,
}

/// Whether a server must prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    Verified,
    /// A rule says it need not, as long as it has such an address.
    Insecure(Addresses),
}

/// What all connectors share.
pub(crate) struct Shared {
    limits: Limits,
    proxy: ProxyConfig,
    insecure: Vec<InsecureRule>,
    resolver: dns::Resolver,
    tls: tls::Tls,
}

impl Shared {
    fn in_insecure_network(&self, ip: IpAddr) -> bool {
        self.insecure.iter().any(|rule| rule.covers(ip))
    }
}

/// Sends requests.
pub(crate) struct Transport {
    shared: Arc<Shared>,
    user_agent: HeaderValue,
    pools: Mutex<HashMap<Profile, Pool<Connector, Body>>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// For the head of the answer, once all is sent.
    pub(crate) wait: Duration,
}

/// Told how many bytes of a body were taken.
pub(crate) type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    Connect(ConnectError),
    /// The connection broke, or what came is no HTTP.
    Broken(String),
    /// Nothing came, or nothing was taken, for too long.
    Late(String),
    /// The file to send could not be read.
    File(String),
}

impl Transport {
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let user_agent =
            HeaderValue::from_str(&config.user_agent).map_err(|_| "the user agent is not valid")?;
        let mut insecure = config.insecure.clone();
        insecure.push(InsecureRule::Network(Ipv4Addr::new(127, 0, 0, 0).into(), 8));
        insecure.push(InsecureRule::Network(Ipv6Addr::LOCALHOST.into(), 128));
        let shared = Shared {
            limits: config.limits.clone(),
            proxy: config.proxy.clone(),
            insecure,
            resolver: dns::Resolver::new(config.resolv_conf.clone()),
            tls: tls::Tls::new(config.certs_dirs.clone()),
        };
        Ok(Self { shared: Arc::new(shared), user_agent, pools: Mutex::default() })
    }

    /// Whether the server at `host` and `port` must prove itself. A rule with a network holds for a name only while
    /// all its addresses lie in it, and for no name behind a proxy, where names often cannot be looked up.
    pub(crate) async fn trust(&self, host: &str, port: u16) -> Trust {
        if self.shared.insecure.iter().any(|rule| rule.names(host, port)) {
            return Trust::Insecure(Addresses::Any);
        }
        let origin = Origin { tls: true, host: host.to_owned(), port };
        if host.parse::<IpAddr>().is_err()
            && matches!(self.shared.proxy.choose(&origin), Ok(Some(_)) | Err(_))
        {
            return Trust::Verified;
        }
        match self.shared.resolver.lookup(host).await {
            Ok(all) if all.iter().all(|ip| self.shared.in_insecure_network(*ip)) => {
                Trust::Insecure(Addresses::Insecure)
            }
            // A name that is not found is reported by the connection.
            _ => Trust::Verified,
        }
    }

    /// Sends `out` to `url` and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        url: &Url,
        profile: Profile,
        out: &Outgoing,
        progress: Option<Progress<'_>>,
    ) -> Result<Response<Incoming>, SendError> {
        let sent = Arc::new(AtomicU64::new(0));
        let mut request = Request::new(out.payload.body(sent.clone()));
        *request.method_mut() = out.method.clone();
        *request.uri_mut() = url.uri().map_err(SendError::Broken)?;
        *request.headers_mut() = out.headers.clone();
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        if let Some(authorization) = self.proxy_authorization(url)? {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        let answer = self.pool(profile).request(request);
        let limits = &self.shared.limits;
        let result = if out.payload.len() == 0 {
            let limit = limits.connect + out.wait;
            tokio::time::timeout(limit, answer).await.map_err(|_| no_answer(out.wait))?
        } else {
            self.watched(answer, out, &sent, progress).await?
        };
        result.map_err(|e| failure(&e))
    }

    /// Waits for `answer` as long as the body is taken at all, and then as long as `out` says.
    async fn watched<F: Future>(
        &self,
        answer: F,
        out: &Outgoing,
        sent: &AtomicU64,
        progress: Option<Progress<'_>>,
    ) -> Result<F::Output, SendError> {
        let limits = &self.shared.limits;
        let tick =
            (limits.idle.min(out.wait) / 4).clamp(Duration::from_millis(5), Duration::from_millis(200));
        let mut answer = std::pin::pin!(answer);
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let result = tokio::time::timeout(tick, answer.as_mut()).await;
            let now = sent.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
                if let Some(progress) = progress {
                    progress(now);
                }
            }
            if let Ok(answer) = result {
                return Ok(answer);
            }
            let limit = match now {
                0 => limits.connect + limits.idle,
                n if n < out.payload.len() => limits.idle,
                _ => out.wait,
            };
            if since.elapsed() > limit {
                return Err(if now < out.payload.len() {
                    SendError::Late(format!("the server took no byte for {} s", limit.as_secs_f32()))
                } else {
                    no_answer(limit)
                });
            }
        }
    }

    /// For requests that a proxy reads itself.
    fn proxy_authorization(&self, url: &Url) -> Result<Option<HeaderValue>, SendError> {
        if url.origin.tls {
            return Ok(None);
        }
        let proxy = self.shared.proxy.choose(&url.origin);
        let proxy = proxy.map_err(|e| SendError::Connect(ConnectError::new(e.to_string(), false)))?;
        Ok(proxy.and_then(|p| p.authorization).and_then(|a| secret(&a)))
    }

    fn pool(&self, profile: Profile) -> Pool<Connector, Body> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            Pool::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_COUNT)
                .http1_max_headers(MAX_HEADERS)
                .http1_max_buf_size(BUFFER)
                .build(Connector { shared: self.shared.clone(), profile })
        };
        pools.entry(profile).or_insert_with(make).clone()
    }
}

/// A header that is not shown.
pub(crate) fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn no_answer(limit: Duration) -> SendError {
    SendError::Late(format!("no answer within {} s", limit.as_secs_f32()))
}

fn failure(e: &hyper_util::client::legacy::Error) -> SendError {
    if let Some(connect) = ConnectError::within(e) {
        return SendError::Connect(connect.clone());
    }
    if let Some(file) = FileError::within(e) {
        return SendError::File(file.to_string());
    }
    SendError::Broken(broken_words(e))
}

/// The innermost reason, which says most.
pub(crate) fn broken_words(e: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = e;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        Some(io) => io_words(io),
        None => match innermost.downcast_ref::<hyper::Error>() {
            Some(h) if h.is_incomplete_message() => "the connection was closed too early".into(),
            _ => printable(&innermost.to_string()),
        },
    }
}
