//! One connection: resolve, judge the addresses, connect, pass a proxy, TLS.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{AlertDescription, Error as TlsError, InvalidMessage, pki_types::ServerName};

use super::{Addresses, Profile, Shared, tunnel};
use crate::address;
use crate::error::printable;
use crate::proxy::Proxy;
use crate::url::{Origin, Url};

/// How long the first address may take before the next is tried beside it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct ConnectError {
    /// The whole reason.
    pub(crate) text: String,
    /// Whether a later try may succeed.
    pub(crate) passing: bool,
    /// A rule of ours forbids the address.
    pub(crate) forbidden: bool,
    /// The server does not speak TLS.
    pub(crate) plain: bool,
    /// It took too long.
    pub(crate) late: bool,
    /// Nobody listens there.
    pub(crate) deserted: bool,
}

impl ConnectError {
    pub(crate) fn new(text: String, passing: bool) -> Self {
        Self { text, passing, forbidden: false, plain: false, late: false, deserted: false }
    }

    fn forbidden(text: String) -> Self {
        Self { forbidden: true, ..Self::new(text, false) }
    }

    pub(super) fn late(text: String) -> Self {
        Self { late: true, ..Self::new(text, true) }
    }

    /// The one within `e`, at any depth.
    pub(crate) fn within<'a>(e: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(e);
        while let Some(e) = next {
            if let Some(own) = e.downcast_ref() {
                return Some(own);
            }
            next = e.source();
        }
        None
    }
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection for hyper.
pub(crate) struct Conn {
    io: TokioIo<Box<dyn Io>>,
    /// The server's address; none behind a proxy.
    peer: Option<IpAddr>,
    /// A proxy reads the requests.
    to_proxy: bool,
}

/// In an answer's extensions: the address it came from, unless through a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) Option<IpAddr>);

impl Connection for Conn {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.to_proxy).extra(Peer(self.peer))
    }
}

impl Read for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Makes the connections of one profile.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(super) shared: Arc<Shared>,
    pub(super) profile: Profile,
}

impl tower_service::Service<Uri> for Connector {
    type Response = Conn;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Conn, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let url = Url::parse(&uri.to_string()).map_err(|e| ConnectError::new(e, false))?;
            let limit = own.shared.limits.connect;
            let late = || ConnectError::late(format!("no connection within {} s", limit.as_secs_f32()));
            tokio::time::timeout(limit, own.connect(&url.origin)).await.map_err(|_| late())?
        })
    }
}

impl Connector {
    async fn connect(&self, to: &Origin) -> Result<Conn, ConnectError> {
        let proxy = self.shared.proxy.choose(to).map_err(|e| ConnectError::new(e.to_string(), false))?;
        let Some(proxy) = proxy else {
            let addresses = self.addresses(to).await?;
            let (stream, peer) = dial(addresses, to).await?;
            let io = if to.tls { self.tls(to, Box::new(stream)).await? } else { Box::new(stream) };
            return Ok(Conn { io: TokioIo::new(io), peer: Some(peer), to_proxy: false });
        };
        // The proxy resolves the name; what is no name can be judged here.
        if let Ok(ip) = to.host.parse() {
            self.judge(to, ip)?;
        }
        let io = self.to_proxy(&proxy).await?;
        if !to.tls {
            return Ok(Conn { io: TokioIo::new(io), peer: None, to_proxy: true });
        }
        let io = tunnel::open(io, &proxy, to).await?;
        let io = self.tls(to, io).await?;
        Ok(Conn { io: TokioIo::new(io), peer: None, to_proxy: false })
    }

    async fn to_proxy(&self, proxy: &Proxy) -> Result<Box<dyn Io>, ConnectError> {
        let to = &proxy.origin;
        let in_proxy = |e: ConnectError| ConnectError { text: format!("proxy {}: {e}", to.host_port()), ..e };
        let addresses = self.shared.resolver.lookup(&to.host).await.map_err(in_proxy)?;
        let (stream, _) = dial(addresses, to).await.map_err(in_proxy)?;
        if !to.tls {
            return Ok(Box::new(stream));
        }
        let plain = Profile { verify: true, client_cert: true, addresses: Addresses::Any };
        let own = Self { shared: self.shared.clone(), profile: plain };
        own.tls(to, Box::new(stream)).await.map_err(in_proxy)
    }

    /// The addresses of `to` that the profile allows; an error when one of them is not.
    async fn addresses(&self, to: &Origin) -> Result<Vec<IpAddr>, ConnectError> {
        let all = self.shared.resolver.lookup(&to.host).await?;
        all.iter().try_for_each(|ip| self.judge(to, *ip))?;
        Ok(all)
    }

    fn judge(&self, to: &Origin, ip: IpAddr) -> Result<(), ConnectError> {
        let why = match self.profile.addresses {
            Addresses::Any => return Ok(()),
            Addresses::Insecure if self.shared.in_insecure_network(ip) => return Ok(()),
            Addresses::Insecure => "which is not in the network of insecure-registries that its name was in",
            Addresses::NotLinkLocal | Addresses::Public if address::is_forbidden(ip) => {
                "where nobody may be sent to"
            }
            Addresses::Public if !address::is_public(ip) => {
                "which is private, and the registry that names it is public"
            }
            Addresses::NotLinkLocal | Addresses::Public => return Ok(()),
        };
        Err(ConnectError::forbidden(format!("{} is at {ip}, {why}", to.host)))
    }

    async fn tls(&self, to: &Origin, io: Box<dyn Io>) -> Result<Box<dyn Io>, ConnectError> {
        let (shared, profile, origin) = (self.shared.clone(), self.profile, to.clone());
        let build = move || shared.tls.config(&origin, profile.verify, profile.client_cert);
        let config = tokio::task::spawn_blocking(build)
            .await
            .map_err(|e| ConnectError::new(format!("TLS: {e}"), true))??;
        let name = ServerName::try_from(to.host.clone())
            .map_err(|_| ConnectError::new(format!("{:?} is no name for TLS", to.host), false))?;
        match TlsConnector::from(config).connect(name, io).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(e) => Err(tls_failure(&e)),
        }
    }
}

fn tls_failure(e: &io::Error) -> ConnectError {
    let Some(tls) = e.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        // A server that expects a request in plain text may also just hang up on the first bytes of TLS.
        return ConnectError::new(format!("TLS handshake: {}", io_words(e)), true);
    };
    match tls {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => ConnectError {
            plain: true,
            ..ConnectError::new("server gave HTTP response to HTTPS client".into(), false)
        },
        TlsError::InvalidCertificate(why) => ConnectError::new(
            format!("failed to verify certificate: {}", printable(&certificate_words(why))),
            false,
        ),
        TlsError::AlertReceived(
            AlertDescription::HandshakeFailure | AlertDescription::CertificateRequired,
        ) => ConnectError::new(
            format!("TLS handshake: {tls}; the server may want a client certificate"),
            false,
        ),
        other => ConnectError::new(format!("TLS handshake: {}", printable(&other.to_string())), false),
    }
}

/// In the words of Go, which people search for.
fn certificate_words(e: &tokio_rustls::rustls::CertificateError) -> String {
    use tokio_rustls::rustls::CertificateError as C;
    match e {
        C::UnknownIssuer => "certificate signed by unknown authority".into(),
        C::Expired | C::ExpiredContext { .. } => "certificate has expired".into(),
        C::NotValidYet | C::NotValidYetContext { .. } => "certificate is not yet valid".into(),
        other => TlsError::InvalidCertificate(other.clone()).to_string(),
    }
}

/// What the system said, in lower case and without Rust's "(os error 2)".
pub(super) fn io_words(e: &io::Error) -> String {
    let text = e.to_string();
    let text = printable(text.split(" (os error").next().unwrap_or_default());
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// Connects to the first of `addresses` that answers; each further one is tried when the one before failed, or
/// was given a little time.
async fn dial(addresses: Vec<IpAddr>, to: &Origin) -> Result<(TcpStream, IpAddr), ConnectError> {
    let mut waiting = interleave(addresses).into_iter();
    let mut tries = FuturesUnordered::new();
    let mut last = ConnectError::new("no address".into(), false);
    loop {
        match waiting.next() {
            Some(ip) => {
                tries.push(async move { (TcpStream::connect(SocketAddr::new(ip, to.port)).await, ip) })
            }
            None if tries.is_empty() => return Err(last),
            None => {}
        }
        let next = if waiting.len() == 0 {
            tries.next().await
        } else {
            tokio::time::timeout(NEXT_ADDRESS, tries.next()).await.unwrap_or(None)
        };
        match next {
            Some((Ok(stream), ip)) => {
                let _ = stream.set_nodelay(true);
                return Ok((stream, address::plain(ip)));
            }
            Some((Err(e), ip)) => {
                let at = SocketAddr::new(ip, to.port);
                let text = format!("dial tcp {at}: connect: {}", io_words(&e));
                let deserted = e.kind() == io::ErrorKind::ConnectionRefused;
                last = ConnectError { deserted, ..ConnectError::new(text, true) };
            }
            None => {}
        }
    }
}

/// The families take turns, so that one that leads nowhere costs one wait.
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut a, mut b): (Vec<_>, Vec<_>) =
        addresses.into_iter().rev().partition(|ip| ip.is_ipv6() == first_v6);
    let mut out = Vec::with_capacity(a.len() + b.len());
    while !(a.is_empty() && b.is_empty()) {
        out.extend(a.pop());
        out.extend(b.pop());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let ips = |list: &[&str]| list.iter().map(|s| s.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mixed = interleave(ips(&["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"]));
        assert_eq!(mixed, ips(&["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]));
        assert_eq!(interleave(ips(&["1.1.1.1"])), ips(&["1.1.1.1"]));
    }
}
