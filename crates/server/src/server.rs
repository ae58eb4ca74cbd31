//! Listening: connections and their limits.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use longshore_engine::Engine;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::conn::{Conn, HangUp, Sock};
use crate::docker::{self, hijack::Connection};

/// Limits and names of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The version that answers name.
    pub version: String,
    /// Connections at a time, of all listeners together; further ones wait.
    pub max_connections: usize,
    /// Bytes of a JSON body.
    pub max_json_body: usize,
    /// Until a new connection's first request shows what it is.
    pub header_timeout: Duration,
    /// How long a connection is kept between requests; also until a request's head is complete.
    pub idle_timeout: Duration,
    /// Until a JSON body is complete.
    pub body_timeout: Duration,
    /// The longest pause in an upload.
    pub upload_idle: Duration,
    /// Names by which clients may call this daemon over TCP, beside addresses and `localhost`.
    pub host_names: Vec<String>,
    /// How long requests may go on after the order to shut down.
    pub shutdown_grace: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            max_connections: 4096,
            max_json_body: 4 << 20,
            header_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(5 * 60),
            body_timeout: Duration::from_secs(60),
            upload_idle: Duration::from_secs(15 * 60),
            host_names: Vec::new(),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// Where clients come from.
#[derive(Debug)]
pub enum Listener {
    /// Who may connect is up to the socket's file permissions.
    Unix(UnixListener),
    /// Without TLS: only for addresses that others cannot reach, or behind something that checks.
    Tcp(TcpListener),
}

impl From<UnixListener> for Listener {
    fn from(l: UnixListener) -> Self {
        Self::Unix(l)
    }
}

impl From<TcpListener> for Listener {
    fn from(l: TcpListener) -> Self {
        Self::Tcp(l)
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Sock> {
        Ok(match self {
            Self::Unix(l) => Sock::Unix(l.accept().await?.0),
            Self::Tcp(l) => {
                let sock = l.accept().await?.0;
                sock.set_nodelay(true)?;
                Sock::Tcp(sock)
            }
        })
    }
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) config: ServerConfig,
    pub(crate) server_header: HeaderValue,
}

/// Serves the Docker Engine API. Cheap to clone; clones share their limits, so that one server
/// may have several listeners.
#[derive(Clone, Debug)]
pub struct Server {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
}

impl Server {
    /// A server for this engine.
    #[must_use]
    pub fn new(engine: Engine, config: ServerConfig) -> Self {
        let name = format!("Longshore/{} (linux)", config.version);
        let server_header =
            HeaderValue::try_from(name).unwrap_or_else(|_| HeaderValue::from_static("Longshore (linux)"));
        let slots = Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
        Self { shared: Arc::new(Shared { engine, config, server_header }), slots }
    }

    /// Connections that are open now. A listener that waits for its next one counts as one.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.config.max_connections.saturating_sub(self.slots.available_permits())
    }

    /// Serves a listener until `shutdown` resolves. Then idle connections are closed at once,
    /// requests get the configured grace to finish, and attached clients are cut off.
    pub async fn serve(&self, listener: impl Into<Listener>, shutdown: impl Future<Output = ()>) {
        let listener = listener.into();
        let (closing, closing_seen) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let next = tokio::select! {
                next = self.next(&listener) => next,
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
            };
            let Some((sock, permit)) = next else { break };
            let server = self.clone();
            connections.spawn(server.connection(sock, permit, closing_seen.clone()));
        }
        drop(listener);
        // Sessions and idle connections see this and end.
        closing.send_replace(true);
        let all_done = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shared.config.shutdown_grace, all_done).await.is_err() {
            connections.shutdown().await;
        }
    }

    /// The next connection, when there is room for one.
    async fn next(&self, listener: &Listener) -> Option<(Sock, Arc<OwnedSemaphorePermit>)> {
        let permit = Arc::new(Arc::clone(&self.slots).acquire_owned().await.ok()?);
        loop {
            match listener.accept().await {
                Ok(sock) => return Some((sock, permit)),
                Err(e) => {
                    tracing::warn!("accept a connection: {e}");
                    // Out of descriptors, most likely: others must end before this can work.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self, sock: Sock, permit: Arc<OwnedSemaphorePermit>, closing: watch::Receiver<bool>) {
        let timeout = self.shared.config.header_timeout;
        let mut closed = closing.clone();
        let over_tcp = matches!(sock, Sock::Tcp(_));
        let hang_up = match HangUp::of(&sock) {
            Ok(watched) => watched,
            Err(e) => return tracing::warn!("watch a connection: {e}"),
        };
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(timeout, Conn::accept(sock)) => accepted,
            () = until_closing(&mut closed) => return,
        };
        let Ok(Ok(conn)) = accepted else { return };
        let known = Connection { raw: conn.takes_over_raw(), over_tcp, permit, closing };
        let shared = Arc::clone(&self.shared);
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(known.clone());
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(docker::answer(shared, request).await) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.shared.config.idle_timeout)
            .title_case_headers(true)
            // A client that is done with sending gets its answer all the same, as long as it is there.
            .half_close(hang_up.is_some())
            .serve_connection(conn, service)
            .with_upgrades();
        let mut serving = std::pin::pin!(serving);
        let done = tokio::select! {
            // First: a client may ask and go at once, and what it asked for is done.
            biased;
            done = &mut serving => done,
            () = HangUp::wait(hang_up) => return,
            () = until_closing(&mut closed) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(e) = done {
            tracing::debug!("a connection ended early: {e}");
        }
    }
}

/// Resolves when the server shuts down.
pub(crate) async fn until_closing(closing: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _ = closing.wait_for(|closing| *closing).await;
}
