//! A server that answers as a test says, and what tests of the client share.

pub(crate) mod tls;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longshore_oci::image::Descriptor;
use longshore_oci::{Digest, Reference};
use longshore_registry::{Client, Config, Credentials, Limits, ProxyConfig, Repository};

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, or what else stood there.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The subject of the client's certificate, if it showed one.
    pub(crate) certificate: bool,
    /// How many came before this one.
    pub(crate) number: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// `GET /v2/`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

type Writer = Box<dyn FnOnce(&mut dyn Write) + Send>;

/// What the server does with a request.
pub(crate) enum Reply {
    Full(u16, Vec<(String, String)>, Vec<u8>),
    /// Writes bytes itself; then the connection is closed.
    Raw(Writer),
}

pub(crate) fn reply(status: u16) -> Reply {
    Reply::Full(status, Vec::new(), Vec::new())
}

impl Reply {
    #[must_use]
    pub(crate) fn with(self, name: &str, value: impl Into<String>) -> Self {
        match self {
            Self::Full(status, mut headers, body) => {
                headers.push((name.to_owned(), value.into()));
                Self::Full(status, headers, body)
            }
            Self::Raw(_) => panic!("a raw reply has no headers"),
        }
    }

    #[must_use]
    pub(crate) fn body(self, body: impl AsRef<[u8]>) -> Self {
        match self {
            Self::Full(status, headers, _) => Self::Full(status, headers, body.as_ref().to_vec()),
            Self::Raw(_) => panic!("a raw reply has no body"),
        }
    }
}

/// Writes a head and `body`, and says that there are `length` bytes.
pub(crate) fn raw(status: &str, length: u64, body: Vec<u8>) -> Reply {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
    Reply::Raw(Box::new(move |out| {
        let _ = out.write_all(head.as_bytes());
        let _ = out.write_all(&body);
        let _ = out.flush();
    }))
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// Ends with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", None, handler)
    }

    pub(crate) fn on(
        address: &str,
        tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            log: Arc::default(),
            connections: Arc::default(),
            ended: Arc::default(),
        };
        let (log, connections, ended) =
            (server.log.clone(), server.connections.clone(), server.ended.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let (log, handler, tls) = (log.clone(), handler.clone(), tls.clone());
                std::thread::spawn(move || serve(stream, tls, &log, &*handler));
            }
        });
        server
    }

    /// `127.0.0.1:port`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.log().iter().map(Request::line).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The repository `a/b` of this registry.
    pub(crate) fn repository(&self, credentials: Credentials) -> Repository {
        client(quick()).repository(&self.name(), credentials)
    }

    pub(crate) fn name(&self) -> Reference {
        format!("{}/a/b", self.host()).parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
    log: &Mutex<Vec<Request>>,
    handler: &Handler,
) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    let Some(tls) = tls else {
        let reader = BufReader::new(stream.try_clone().unwrap());
        return converse(reader, stream, false, log, handler);
    };
    let connection = tokio_rustls::rustls::ServerConnection::new(tls).unwrap();
    let mut stream = tokio_rustls::rustls::StreamOwned::new(connection, stream);
    // The handshake, so that it is known who the client is.
    if stream.flush().is_err() || stream.conn.complete_io(&mut stream.sock).is_err() {
        return;
    }
    let certificate = stream.conn.peer_certificates().is_some();
    let shared = Arc::new(Mutex::new(stream));
    converse(BufReader::new(Shared(shared.clone())), Shared(shared), certificate, log, handler);
}

/// Both directions of one TLS connection.
struct Shared(
    Arc<Mutex<tokio_rustls::rustls::StreamOwned<tokio_rustls::rustls::ServerConnection, TcpStream>>>,
);

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().read(buf)
    }
}

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().unwrap().flush()
    }
}

fn converse(
    mut reader: BufReader<impl Read>,
    mut out: impl Write,
    certificate: bool,
    log: &Mutex<Vec<Request>>,
    handler: &Handler,
) {
    while let Some(mut request) = read_request(&mut reader, &mut out) {
        request.certificate = certificate;
        {
            let mut log = log.lock().unwrap();
            request.number = log.len();
            log.push(request.clone());
        }
        match handler(&request) {
            Reply::Raw(write) => return write(&mut out),
            Reply::Full(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} X\r\n");
                for (name, value) in &headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
                    head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                }
                head.push_str("\r\n");
                let body = if request.method == "HEAD" { Vec::new() } else { body };
                if out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body)).is_err() {
                    return;
                }
                let _ = out.flush();
            }
        }
    }
}

/// None at the end, and for what is no HTTP (the first bytes of TLS).
fn read_request(reader: &mut BufReader<impl Read>, out: &mut impl Write) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        let first = reader.fill_buf().ok()?.first().copied()?;
        if lines.is_empty() && !first.is_ascii_uppercase() {
            let _ = out.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
            return None;
        }
        reader.read_until(b'\n', &mut line).ok()?;
        let line = String::from_utf8(line).ok()?.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut words = lines.first()?.split(' ');
    let mut request =
        Request { method: words.next()?.to_owned(), target: words.next()?.to_owned(), ..Request::default() };
    for line in &lines[1..] {
        let (name, value) = line.split_once(':')?;
        request.headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    if let Some(length) = request.header("content-length").and_then(|l| l.parse::<usize>().ok()) {
        request.body = vec![0; length];
        reader.read_exact(&mut request.body).ok()?;
    }
    Some(request)
}

/// Limits that let a test end soon.
pub(crate) fn quick() -> Config {
    Config {
        certs_dirs: Vec::new(),
        proxy: ProxyConfig::default(),
        limits: Limits {
            connect: Duration::from_secs(5),
            header: Duration::from_secs(5),
            commit: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            backoff: Duration::from_millis(10),
            backoff_max: Duration::from_secs(2),
            attempts: 3,
            ..Limits::default()
        },
        ..Config::default()
    }
}

pub(crate) fn client(config: Config) -> Client {
    Client::new(config).unwrap()
}

pub(crate) fn me() -> Credentials {
    Credentials::Basic { username: "me".into(), password: "hunter2".into() }
}

/// `Basic` with [`me`].
pub(crate) const ME: &str = "Basic bWU6aHVudGVyMg==";

pub(crate) fn descriptor(bytes: &[u8]) -> Descriptor {
    serde_json::from_value(serde_json::json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": Digest::of(bytes).to_string(),
        "size": bytes.len(),
    }))
    .unwrap()
}

/// A manifest of an image with one layer.
pub(crate) fn manifest() -> Vec<u8> {
    let mut config = descriptor(b"{}");
    config.media_type = longshore_oci::image::media::OCI_CONFIG.into();
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": longshore_oci::image::media::OCI_MANIFEST,
        "config": config,
        "layers": [descriptor(b"layer")],
    }))
    .unwrap()
}

pub(crate) fn manifest_reply(bytes: &[u8]) -> Reply {
    reply(200).with("Content-Type", longshore_oci::image::media::OCI_MANIFEST).body(bytes)
}

/// Bytes that repeat nowhere near.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_u32;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// All of a stream, or its error.
pub(crate) async fn collect(stream: longshore_registry::BlobStream) -> longshore_registry::Result<Vec<u8>> {
    use futures_util::StreamExt as _;
    let mut stream = stream;
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}
