//! A registry for tests, in this process: the OCI distribution specification 1.1 in memory, with passwords, a token
//! server and TLS. It keeps a record of all that it was asked, and it lies where it is told to.
//!
//! ```no_run
//! use longshore_testkit::registry::{Image, Layer, Lie, Registry, Rule};
//!
//! let registry = Registry::start();
//! let image = Image::new().layer(Layer::tar(&[("etc/motd", b"hello")]).gzip());
//! let pushed = image.put(&registry, "zoo/lion", "latest");
//! registry.lie(Rule::blobs(Lie::CutAfter(100)).path(pushed.layers[0]).times(1));
//! // Now pull registry.reference("zoo/lion", "latest"), and look at registry.requests().
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use longshore_oci::Digest;

mod auth;
mod blob;
mod hostile;
mod http;
mod image;
mod lies;
mod repos;
mod routes;
mod serve;
#[cfg(test)]
mod tests;
mod tls;

pub use auth::REFRESH_TOKEN;
pub use blob::{Blob, BlobReader};
pub use hostile::Hostile;
pub use image::{Image, Layer, Pushed, noise, put_index};
pub use lies::{Lie, Rule};
pub use repos::Document;
pub use tls::Flaw;

use auth::{Account, Auth, Tokens};
use http::Request;
use repos::Repos;

/// A request that a registry got, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// `GET`, …
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// All headers, as they came.
    pub headers: Vec<(String, String)>,
    /// The status of the answer; 0 while there is none.
    pub status: u16,
    /// Bytes of the request's body that were read.
    pub received: u64,
    /// Bytes of the answer's body that were sent.
    pub sent: u64,
}

impl Recorded {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        http::find(&self.headers, name)
    }

    /// Whether it carries what only the right one may see: a password, a token, a cookie.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        ["authorization", "proxy-authorization", "cookie"].iter().any(|name| self.header(name).is_some())
    }
}

/// How a registry is to be.
#[derive(Debug, Default)]
#[must_use]
pub struct Builder<'a> {
    tls: bool,
    flaw: Option<Flaw>,
    address: Option<Ipv4Addr>,
    netns: Option<BorrowedFd<'a>>,
    basic: Option<Account>,
    token: Option<(Account, bool)>,
    token_from: Option<(String, Tokens)>,
}

impl<'a> Builder<'a> {
    /// With TLS: see [`Registry::ca`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// With TLS, and something wrong with its certificate.
    pub fn flawed(mut self, flaw: Flaw) -> Self {
        (self.tls, self.flaw) = (true, Some(flaw));
        self
    }

    /// On this address of the loopback network, instead of 127.0.0.1.
    pub fn on(mut self, address: Ipv4Addr) -> Self {
        self.address = Some(address);
        self
    }

    /// In this network namespace.
    pub fn in_netns(mut self, netns: BorrowedFd<'a>) -> Self {
        self.netns = Some(netns);
        self
    }

    /// With one user and a password (Basic).
    pub fn basic(mut self, user: &str, password: &str) -> Self {
        self.basic = Some(Account { user: user.into(), password: password.into() });
        self
    }

    /// With one user, and tokens of the registry's own token server; `anonymous`: anybody may pull.
    pub fn token(mut self, user: &str, password: &str, anonymous: bool) -> Self {
        self.token = Some((Account { user: user.into(), password: password.into() }, anonymous));
        self
    }

    /// With tokens that another one's token server gives.
    ///
    /// # Panics
    /// When the other gives no tokens.
    pub fn token_from(mut self, other: &Registry) -> Self {
        let tokens = other.shared.tokens.clone().expect("the other registry has a token server");
        self.token_from = Some((format!("{}/token", other.origin()), tokens));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When no port or thread can be had.
    #[must_use]
    pub fn start(self) -> Registry {
        let address = IpAddr::V4(self.address.unwrap_or(Ipv4Addr::LOCALHOST));
        let listen = || TcpListener::bind(SocketAddr::new(address, 0)).expect("a port");
        let listener = match self.netns {
            None => listen(),
            Some(netns) => longshore_sys::netns::with_netns(netns, listen).expect("network namespace"),
        };
        let address = listener.local_addr().expect("the port");
        let (config, ca) = if self.tls {
            let made = tls::make(address.ip(), self.flaw);
            (Some(made.config), Some(made.ca))
        } else {
            (None, None)
        };
        let origin = format!("{}://{address}", if self.tls { "https" } else { "http" });
        let tokens = self.token.map(|(account, anonymous)| Tokens::new(account, anonymous));
        let auth = match (self.basic, self.token_from, &tokens) {
            (Some(account), ..) => Auth::Basic(account),
            (_, Some((realm, tokens)), _) => Auth::Token { realm, tokens },
            (_, _, Some(tokens)) => Auth::Token { realm: format!("{origin}/token"), tokens: tokens.clone() },
            _ => Auth::Open,
        };
        let shared = Arc::new(Shared {
            auth,
            tokens,
            tls: config,
            repos: Mutex::default(),
            rules: Mutex::default(),
            requests: Mutex::default(),
            life: Mutex::default(),
            changed: Condvar::new(),
        });
        let acceptor = std::thread::Builder::new().name("registry".into()).spawn({
            let (shared, listener) = (Arc::clone(&shared), listener.try_clone().expect("descriptor"));
            move || accept(&shared, &listener)
        });
        Registry { shared, listener, address, origin, ca, acceptor: Some(acceptor.expect("thread")) }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    while let Ok((tcp, _)) = listener.accept() {
        let Ok(copy) = tcp.try_clone() else { continue };
        let id = {
            let mut life = shared.life();
            if life.stopped {
                return;
            }
            life.next += 1;
            let id = life.next;
            life.connections.insert(id, copy);
            id
        };
        let thread = std::thread::Builder::new().name("registry-conn".into()).spawn({
            let shared = Arc::clone(shared);
            move || {
                serve::connection(&shared, tcp);
                shared.life().connections.remove(&id);
                shared.changed.notify_all();
            }
        });
        if thread.is_err() {
            shared.life().connections.remove(&id);
        }
    }
}

/// A registry; it ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
    origin: String,
    ca: Option<String>,
    acceptor: Option<JoinHandle<()>>,
}

impl Registry {
    /// One that is open to anybody, without TLS, on 127.0.0.1.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// One that is to be described.
    pub fn builder<'a>() -> Builder<'a> {
        Builder::default()
    }

    /// Address and port, as they stand at the start of an image's name.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Scheme, address and port.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The certificate of the authority that vouches for it (PEM), if it has TLS.
    #[must_use]
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// An image's name here.
    #[must_use]
    pub fn reference(&self, repo: &str, tag: &str) -> String {
        let between = if tag.contains(':') { '@' } else { ':' };
        format!("{}/{repo}{between}{tag}", self.address)
    }

    /// From now on, lies so. Rules that came first go first; one lie to a request.
    pub fn lie(&self, rule: Rule) {
        lock(&self.shared.rules).push(Arc::new(rule));
    }

    /// From now on, tells the truth.
    pub fn be_honest(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Makes all tokens that were given so far worthless.
    pub fn expire_tokens(&self) {
        if let Auth::Token { tokens, .. } = &self.shared.auth {
            tokens.expire();
        }
    }

    /// All that it was asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.shared.requests).clone()
    }

    /// How many requests with that method had this in their target.
    #[must_use]
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests().iter().filter(|r| r.method == method && r.target.contains(part)).count()
    }

    /// Forgets what it was asked.
    pub fn forget_requests(&self) {
        lock(&self.shared.requests).clear();
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.life().connections.len()
    }

    /// Closes all connections, as a restart would.
    pub fn drop_connections(&self) {
        for tcp in self.shared.life().connections.values() {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }

    /// Keeps a blob.
    pub fn put_blob(&self, repo: &str, blob: impl Into<Blob>) -> Digest {
        self.shared.repos().put_blob(repo, blob.into())
    }

    /// Keeps a blob under a digest that need not be its own.
    pub fn put_blob_as(&self, repo: &str, digest: Digest, blob: impl Into<Blob>) {
        let mut repos = self.shared.repos();
        repos.blobs.insert(digest, blob.into());
        repos.repo(repo).blobs.insert(digest);
    }

    /// Keeps a manifest, whatever it is, under its digest and that tag (or a digest: none).
    pub fn put_manifest(&self, repo: &str, tag: &str, document: Document) -> Digest {
        self.shared.repos().put_manifest(repo, tag, document)
    }

    /// Loses a blob.
    pub fn forget_blob(&self, repo: &str, digest: &Digest) {
        self.shared.repos().repo(repo).blobs.remove(digest);
    }

    /// A blob, if the repository has it.
    #[must_use]
    pub fn blob(&self, repo: &str, digest: &Digest) -> Option<Blob> {
        self.shared.repos().blob(repo, digest).cloned()
    }

    /// A manifest by tag or digest.
    #[must_use]
    pub fn manifest(&self, repo: &str, name: &str) -> Option<(Digest, Document)> {
        self.shared.repos().manifest(repo, name).map(|(digest, document)| (digest, document.clone()))
    }

    /// A repository's tags, sorted.
    #[must_use]
    pub fn tags(&self, repo: &str) -> Vec<String> {
        let repos = self.shared.repos();
        repos.repos.get(repo).map(|r| r.tags.keys().cloned().collect()).unwrap_or_default()
    }

    /// Uploads that were begun and neither ended nor given up.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.shared.repos().uploads.len()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.life().stopped = true;
        self.shared.changed.notify_all();
        // Wakes accept(2).
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.drop_connections();
        let mut life = self.shared.life();
        let end = Instant::now() + Duration::from_secs(10);
        while !life.connections.is_empty() && Instant::now() < end {
            let waited = self.shared.changed.wait_timeout(life, Duration::from_millis(100));
            life = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the threads of a registry share.
struct Shared {
    auth: Auth,
    /// Of its own token server.
    tokens: Option<Tokens>,
    tls: Option<Arc<rustls::ServerConfig>>,
    repos: Mutex<Repos>,
    rules: Mutex<Vec<Arc<Rule>>>,
    requests: Mutex<Vec<Recorded>>,
    life: Mutex<Life>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Life {
    stopped: bool,
    next: u64,
    connections: BTreeMap<u64, TcpStream>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn repos(&self) -> MutexGuard<'_, Repos> {
        lock(&self.repos)
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        lock(&self.life)
    }

    fn stopped(&self) -> bool {
        self.life().stopped
    }

    /// Waits so long, or until the registry ends; whether it does.
    fn pause(&self, how_long: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.life(), how_long, |life| !life.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }

    /// The rule for this request.
    fn rule(&self, request: &Request) -> Option<Arc<Rule>> {
        lock(&self.rules).iter().find(|rule| rule.takes(request)).cloned()
    }

    /// Where the record of a request is.
    fn record(&self, request: &Request) -> usize {
        let mut requests = lock(&self.requests);
        requests.push(Recorded {
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            ..Recorded::default()
        });
        requests.len() - 1
    }

    fn finish(&self, record: usize, f: impl FnOnce(&mut Recorded)) {
        // The records may have been forgotten meanwhile.
        if let Some(record) = lock(&self.requests).get_mut(record) {
            f(record);
        }
    }
}
