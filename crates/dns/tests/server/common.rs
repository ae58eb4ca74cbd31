//! A server with names, clients, and upstreams: all with sockets on loopback.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use longshore_dns::{Names, Options, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longer than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The names of a container.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) names: HashMap<String, Vec<IpAddr>>,
    pub(crate) addresses: HashMap<IpAddr, String>,
    pub(crate) own: Vec<IpAddr>,
    pub(crate) upstreams: Vec<SocketAddr>,
}

impl Book {
    /// A few names, and these upstreams.
    pub(crate) fn new(upstreams: &[&Upstream]) -> Self {
        let names = [
            ("web", vec!["172.18.0.2", "172.18.0.3", "172.18.0.4", "fd00::2"]),
            ("db.example", vec!["172.18.0.5"]),
            ("idle", vec![]),
        ];
        let names = names.map(|(name, ips)| (name.to_owned(), ips.into_iter().map(ip).collect()));
        let addresses = [(ip("172.18.0.2"), "web.mynet".to_owned()), (ip("fd00::2"), "web.mynet".to_owned())];
        Self {
            names: names.into(),
            addresses: addresses.into(),
            own: ["172.18.0.2", "172.18.0.77", "fd00::2", "fd00::77"].map(ip).into(),
            upstreams: upstreams.iter().map(|u| u.address).collect(),
        }
    }
}

impl Names for Book {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.names.get(name).cloned()
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.addresses.get(&address).cloned()
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    fn upstreams(&self) -> Vec<SocketAddr> {
        self.upstreams.clone()
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server that is asked over loopback.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

/// A UDP socket and a TCP listener on one port.
pub(crate) fn sockets() -> (std::net::UdpSocket, std::net::TcpListener, SocketAddr) {
    loop {
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        if let Ok(tcp) = std::net::TcpListener::bind(address) {
            return (udp, tcp, address);
        }
    }
}

pub(crate) fn serve(book: Book) -> Served {
    serve_with(book, Options::default())
}

pub(crate) fn serve_with(book: Book, options: Options) -> Served {
    let (udp, tcp, address) = sockets();
    let server = Server::start(udp, tcp, Arc::new(book), options).unwrap();
    Served { server, address }
}

/// Upstreams that are silent are given up soon.
pub(crate) fn impatient() -> Options {
    Options {
        upstream_timeout: Duration::from_secs(1),
        total_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}

impl Served {
    /// Asks over UDP from a new socket.
    pub(crate) async fn udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = self.client().await;
        socket.send(query).await.unwrap();
        receive(&socket).await
    }

    /// Asks over a new TCP connection.
    pub(crate) async fn tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        send_framed(&mut stream, query).await;
        read_framed(&mut stream).await.unwrap()
    }

    pub(crate) async fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket
    }

    /// Asks over UDP for a name and a type.
    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let query = query(name, kind);
        let answer = Message::from_vec(&self.udp(&bytes(&query)).await).unwrap();
        assert_eq!(answer.id, query.id);
        assert_eq!(answer.message_type, MessageType::Response);
        assert_eq!(answer.queries, query.queries);
        answer
    }
}

/// Waits until something is so.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, wait).await.expect("it becomes so");
}

pub(crate) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65535];
    let length = timeout(LONG, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    buffer.truncate(length);
    buffer
}

pub(crate) async fn send_framed(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await.unwrap();
}

/// `None`: the connection was closed.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let read = async {
        let length = stream.read_u16().await.ok()?;
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await.ok()?;
        Some(message)
    };
    timeout(LONG, read).await.expect("an answer or the end")
}

/// A query with a fixed id and RD set.
pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// A query with EDNS.
pub(crate) fn query_edns(name: &str, kind: RecordType, payload: u16) -> Message {
    let mut message = query(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

pub(crate) fn query_class(name: &str, kind: RecordType, class: DNSClass) -> Message {
    let mut message = query(name, kind);
    message.queries[0].set_query_class(class);
    message
}

pub(crate) fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// The addresses of an answer, in its order.
pub(crate) fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// What an upstream is asked, and by whom.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: SocketAddr,
    pub(crate) tcp: bool,
}

impl Asked {
    pub(crate) fn message(&self) -> Message {
        Message::from_vec(&self.bytes).unwrap()
    }
}

/// A name server that answers each query with the messages that a function gives.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    count: AtomicUsize,
    all: Mutex<Vec<Asked>>,
}

impl Upstream {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp, address) = sockets();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let udp = UdpSocket::from_std(udp).unwrap();
        let tcp = TcpListener::from_std(tcp).unwrap();
        let (answer, seen) = (Arc::new(answer), Arc::new(Seen::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(upstream_udp(udp, answer.clone(), seen.clone()));
        tasks.spawn(upstream_tcp(tcp, answer, seen.clone()));
        Self { address, seen, _tasks: tasks }
    }

    /// One that gives a name the address 192.0.2.`last`.
    pub(crate) fn giving(last: u8) -> Self {
        Self::start(move |asked| vec![bytes(&give(asked, last))])
    }

    /// One that answers with a code.
    pub(crate) fn saying(code: ResponseCode) -> Self {
        Self::start(move |asked| {
            let mut message = reply(asked);
            message.metadata.response_code = code;
            vec![bytes(&message)]
        })
    }

    /// One that never answers.
    pub(crate) fn silent() -> Self {
        Self::start(|_| Vec::new())
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.count.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<Asked> {
        self.seen.all.lock().unwrap().clone()
    }
}

impl Seen {
    fn note(&self, asked: &Asked) {
        self.all.lock().unwrap().push(asked.clone());
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

/// An answer without records.
pub(crate) fn reply(asked: &Asked) -> Message {
    let mut message = asked.message().into_response();
    message.metadata.recursion_available = true;
    message
}

/// An answer with the address 192.0.2.`last`.
pub(crate) fn give(asked: &Asked, last: u8) -> Message {
    let mut message = reply(asked);
    let name = message.queries[0].name.clone();
    message.add_answer(Record::from_rdata(name, 42, RData::A(A::new(192, 0, 2, last))));
    message
}

type Answer = Arc<dyn Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync>;

async fn upstream_udp(socket: UdpSocket, answer: Answer, seen: Arc<Seen>) {
    let mut buffer = vec![0; 65535];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let asked = Asked { bytes: buffer[..length].to_vec(), from, tcp: false };
        seen.note(&asked);
        for message in answer(&asked) {
            let _ = socket.send_to(&message, from).await;
        }
    }
}

async fn upstream_tcp(listener: TcpListener, answer: Answer, seen: Arc<Seen>) {
    loop {
        let (mut stream, from) = listener.accept().await.unwrap();
        let Some(bytes) = read_framed(&mut stream).await else { continue };
        let asked = Asked { bytes, from, tcp: true };
        seen.note(&asked);
        for message in answer(&asked) {
            send_framed(&mut stream, &message).await;
        }
        // Until the other side is content.
        let _ = stream.read_u8().await;
    }
}
