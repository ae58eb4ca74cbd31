//! One query to one upstream. The id and the port are random, and what does not answer it is ignored (RFC 5452).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Header, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::consume_budget;

use crate::request::Request;
use crate::{MAX_MESSAGE, Protocol, frame};

/// An upstream's answer, with the id under which it was asked.
#[derive(Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    /// Whether it says SERVFAIL or REFUSED: another may know more.
    pub(crate) refused: bool,
}

/// What an answer must match.
struct Asked<'a> {
    id: u16,
    request: &'a Request,
}

/// Asks an upstream what the client asked, and waits until it answers or cannot be reached. An answer over UDP may be
/// truncated: it is the client that may come again over TCP.
pub(crate) async fn ask(
    upstream: SocketAddr,
    protocol: Protocol,
    query: &[u8],
    request: &Request,
) -> io::Result<Reply> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|e| io::Error::other(e.to_string()))?;
    let asked = Asked { id: u16::from_be_bytes(id), request };
    let mut query = query.to_vec();
    set_id(&mut query, asked.id);
    match protocol {
        Protocol::Udp => over_udp(upstream, &query, &asked).await,
        Protocol::Tcp => over_tcp(upstream, &query, &asked).await,
    }
}

/// Puts another id into a message.
fn set_id(message: &mut [u8], id: u16) {
    for (to, from) in message.iter_mut().zip(id.to_be_bytes()) {
        *to = from;
    }
}

/// The socket is new, so the system gives it a random port; it is connected, so it hears the upstream alone.
async fn over_udp(upstream: SocketAddr, query: &[u8], asked: &Asked<'_>) -> io::Result<Reply> {
    let any = match upstream {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    loop {
        // Memory only for what has come: many queries may wait.
        socket.readable().await?;
        let mut bytes = Vec::with_capacity(MAX_MESSAGE.into());
        match socket.try_recv_buf(&mut bytes) {
            Ok(_) => {
                if let Some(reply) = asked.check(bytes) {
                    return Ok(reply);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        // A flood of wrong answers must not keep others, nor the timeout, from their turn.
        consume_budget().await;
    }
}

async fn over_tcp(upstream: SocketAddr, query: &[u8], asked: &Asked<'_>) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(upstream).await?;
    frame::write(&mut stream, query).await?;
    loop {
        let bytes = frame::read(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if let Some(reply) = asked.check(bytes) {
            return Ok(reply);
        }
    }
}

impl Asked<'_> {
    fn check(&self, bytes: Vec<u8>) -> Option<Reply> {
        Reply::read(bytes, self.id, self.request)
    }
}

impl Reply {
    /// Takes a message if it is the answer to a query that was asked under `id`. Letter case may differ: that is for
    /// the client to check.
    #[must_use]
    pub fn read(mut bytes: Vec<u8>, id: u16, request: &Request) -> Option<Self> {
        let mut decoder = BinDecoder::new(&bytes);
        let Header { metadata, counts } = Header::read(&mut decoder).ok()?;
        if metadata.id != id
            || metadata.message_type != MessageType::Response
            || metadata.op_code != OpCode::Query
        {
            return None;
        }
        match counts.queries {
            1 if Query::read(&mut decoder).ok()? == request.question => {}
            // Servers that could not read the query do not repeat it.
            0 if metadata.response_code != ResponseCode::NoError => {}
            _ => return None,
        }
        let refused = matches!(metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused);
        bytes.shrink_to_fit();
        Some(Self { bytes, refused })
    }

    /// The answer as the client waits for it: under its own id.
    #[must_use]
    pub fn for_client(mut self, request: &Request) -> Vec<u8> {
        set_id(&mut self.bytes, request.id());
        self.bytes
    }
}
