//! As much of HTTP/1.1 as a registry needs, written by hand: a library would not let an answer lie about itself.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::blob::Blob;

/// Bytes that the head of a request may have.
const MAX_HEAD: usize = 256 << 10;
/// Header lines that a request may have.
const MAX_HEADERS: usize = 256;

/// A connection, with TLS or without.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>),
}

impl Stream {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
        }
    }

    /// Says that nothing more comes, as TLS wants it said.
    pub(super) fn close(&mut self) {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.tcp().shutdown(std::net::Shutdown::Write);
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(buf),
            Self::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// The head of a request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query, as they came.
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) keep_alive: bool,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        self.queries(name).into_iter().next()
    }

    /// All parameters of that name.
    pub(super) fn queries(&self, name: &str) -> Vec<String> {
        form(self.target.split_once('?').map_or("", |(_, query)| query), name)
    }
}

/// The values of a field in `a=b&c=d`, decoded.
pub(super) fn form(text: &str, name: &str) -> Vec<String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| decode(key) == name).map(|(_, value)| decode(value)).collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let hex = [bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default()];
                std::str::from_utf8(&hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok()).unwrap_or(b'?')
            }
            b => b,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// A request's bytes on the way in.
pub(super) struct Incoming {
    pub(super) stream: BufReader<Stream>,
}

impl Incoming {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream: BufReader::with_capacity(64 << 10, stream) }
    }

    pub(super) fn out(&mut self) -> &mut Stream {
        self.stream.get_mut()
    }

    /// The next request's head; `None` at the end of the connection.
    pub(super) fn head(&mut self) -> io::Result<Option<Request>> {
        // Somebody who speaks TLS waits for an answer before there is a line.
        if self.stream.fill_buf()?.first().is_some_and(|b| !b.is_ascii_uppercase()) {
            let _ = self.out().write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            return Ok(None);
        }
        let mut raw = Vec::new();
        loop {
            let before = raw.len();
            let mut limited = (&mut self.stream).take((MAX_HEAD - raw.len()) as u64);
            if limited.read_until(b'\n', &mut raw)? == 0 {
                return if raw.is_empty() {
                    Ok(None)
                } else {
                    Err(invalid("the head of a request ends early"))
                };
            }
            if raw[before..] == *b"\r\n" {
                break;
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&raw).map_err(|e| invalid(&e.to_string()))?;
        let headers: Vec<(String, String)> = parsed
            .headers
            .iter()
            .map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned()))
            .collect();
        let close = find(&headers, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        Ok(Some(Request {
            method: parsed.method.unwrap_or_default().to_owned(),
            target: parsed.path.unwrap_or_default().to_owned(),
            keep_alive: parsed.version == Some(1) && !close,
            headers,
        }))
    }

    /// The body of the request with that head.
    pub(super) fn body(&mut self, request: &Request) -> io::Result<Body<'_>> {
        let chunked =
            request.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked"));
        let left = match request.header("content-length") {
            Some(n) => n.trim().parse().map_err(|_| invalid("Content-Length is no number"))?,
            None => 0,
        };
        let expects = request.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue"));
        Ok(Body { from: self, chunked, left, ended: !chunked && left == 0, expects, seen: 0 })
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The body of a request, read as it comes.
pub(super) struct Body<'a> {
    from: &'a mut Incoming,
    chunked: bool,
    /// Of the body, or of the current chunk.
    left: u64,
    ended: bool,
    /// The client waits for `100 Continue`.
    expects: bool,
    pub(super) seen: u64,
}

impl Body<'_> {
    /// Whether all of it was read.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.from.stream).take(4096).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if self.seen > 0 {
            self.line()?;
        }
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default();
        self.left = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk without a size"))?;
        if self.left == 0 {
            while !self.line()?.is_empty() {}
            self.ended = true;
        }
        Ok(())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ended || buf.is_empty() {
            return Ok(0);
        }
        if std::mem::take(&mut self.expects) {
            self.from.out().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if self.chunked && self.left == 0 {
            self.next_chunk()?;
            if self.ended {
                return Ok(0);
            }
        }
        let max = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.from.stream.read(&mut buf[..max])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.left, self.seen) = (self.left - n as u64, self.seen + n as u64);
        self.ended = !self.chunked && self.left == 0;
        Ok(n)
    }
}

/// How an answer tells its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Length {
    /// `Content-Length` as it is.
    #[default]
    Right,
    /// `Content-Length` with this text.
    Says(String),
    /// In chunks.
    Chunked,
    /// In chunks, the second of which has no size.
    BadChunk,
    /// Not at all: the end of the connection is the end of the body.
    UntilClose,
}

/// What becomes of the connection after so many bytes of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is closed.
    Close,
    /// It is reset.
    Reset,
    /// It stays open, and silent.
    Stall,
    /// Zeros, for ever.
    Endless,
}

/// How an answer is delivered.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    /// Sent instead of the whole answer.
    pub(super) raw: Option<Vec<u8>>,
    /// `100 Continue`, for ever, before the answer.
    pub(super) continues: bool,
    pub(super) length: Length,
    /// Between the bytes of the head.
    pub(super) head_pace: Option<std::time::Duration>,
    /// Between the bytes of the body.
    pub(super) body_pace: Option<std::time::Duration>,
    /// What happens after so many bytes of the body.
    pub(super) ending: Option<(u64, Ending)>,
    /// Before anything is sent.
    pub(super) never: Option<Ending>,
    /// Closed after the answer, without a word of it in the head.
    pub(super) close_silently: bool,
    /// Sent behind the answer, as if another had been asked for.
    pub(super) behind: Vec<u8>,
}

/// An answer, and how it is to be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Blob,
    pub(super) delivery: Delivery,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn json(self, value: &serde_json::Value) -> Self {
        self.body("application/json", value.to_string().into_bytes().into())
    }

    pub(super) fn body(mut self, media_type: &str, body: Blob) -> Self {
        self.body = body;
        self.with("Content-Type", media_type)
    }

    /// An error in the words of the distribution specification.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::new(status).json(&serde_json::json!({"errors": [{"code": code, "message": message}]}))
    }

    pub(super) fn set(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        if let Some(value) = value {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Status line and headers, to the empty line.
    pub(super) fn head(&self, keep_alive: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = match &self.delivery.length {
            Length::Right => format!("Content-Length: {}\r\n", self.body.len()),
            Length::Says(text) => format!("Content-Length: {text}\r\n"),
            Length::Chunked | Length::BadChunk => "Transfer-Encoding: chunked\r\n".to_owned(),
            Length::UntilClose => String::new(),
        };
        if self.status != 204 && self.status != 304 && find(&self.headers, "content-length").is_none() {
            head.push_str(&length);
        }
        if !keep_alive && !self.delivery.close_silently {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Whatever",
    }
}
