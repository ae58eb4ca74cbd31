//! Just enough of D-Bus to ask systemd or firewalld for something: one call, one answer, over a Unix socket.
//!
//! The client crates bring an executor, code generation and several hundred thousand lines for what
//! is here two kinds of messages with strings and numbers in them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::{Context, Error, Result};

/// The most that an answer may have.
const MAX_MESSAGE: usize = 1 << 20;
/// The longest line while a connection is set up.
const MAX_LINE: usize = 1024;

/// Of a call: nobody is started to answer it.
const NO_AUTO_START: u8 = 2;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Fields of a header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    /// The name of a program on the bus.
    pub destination: &'a str,
    /// Its object.
    pub path: &'a str,
    /// What it understands.
    pub interface: &'a str,
    /// The method's own name.
    pub member: &'a str,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The values, as they were sent.
    Values(Vec<u8>),
    /// Name of the error, and its text.
    Refused(String, String),
}

/// A value of a property.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Value<'a> {
    Text(&'a str),
    Flag(bool),
    Number(u64),
    Numbers(&'a [u32]),
}

/// A connection that has been set up.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    serial: u32,
}

impl Connection<UnixStream> {
    /// Connects to a socket; no answer may take longer than `patience`.
    ///
    /// # Errors
    /// When nobody is there, or does not want us.
    pub fn open(path: &Path, patience: Duration) -> Result<Self> {
        let about = || format!("connect to {}", path.display());
        let stream = UnixStream::connect(path).context(about)?;
        stream.set_read_timeout(Some(patience)).context(about)?;
        stream.set_write_timeout(Some(patience)).context(about)?;
        Self::new(stream)
    }
}

impl<S: Read + Write> Connection<S> {
    /// Sets up a connection: the other side takes who we are from the socket.
    ///
    /// # Errors
    /// When it does not want us.
    pub fn new(mut stream: S) -> Result<Self> {
        let to = || "talk to D-Bus";
        // Nobody claims an id: in a user namespace ours is not the one that the other side knows.
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\n").context(to)?;
        for expected in ["DATA", "OK "] {
            let line = line(&mut stream)?;
            if !line.starts_with(expected) {
                return Err(Error::new(format!("log in to D-Bus: it said {line:?}"), Errno::ACCESS));
            }
        }
        stream.write_all(b"BEGIN\r\n").context(to)?;
        Ok(Self { stream, serial: 0 })
    }

    /// What a bus wants to hear first; a program's own socket does not.
    ///
    /// # Errors
    /// When the connection breaks, or the bus refuses.
    pub fn hello(&mut self) -> Result<()> {
        let name = "org.freedesktop.DBus";
        let hello =
            Method { destination: name, path: "/org/freedesktop/DBus", interface: name, member: "Hello" };
        match self.call(hello, "", &Writer::default())? {
            Answer::Values(_) => Ok(()),
            Answer::Refused(name, text) => {
                Err(Error::new(format!("log in to D-Bus: {text} ({name})"), Errno::ACCESS))
            }
        }
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no D-Bus.
    pub fn call(&mut self, method: Method<'_>, signature: &str, body: &Writer) -> Result<Answer> {
        self.serial += 1;
        let about = || format!("call {} over D-Bus", method.member);
        let message = encode(method, signature, &body.0, self.serial);
        self.stream.write_all(&message).context(about)?;
        loop {
            let mut fixed = [0; 16];
            self.stream.read_exact(&mut fixed).context(about)?;
            let [endian, kind, _, _, ..] = fixed;
            let number = |at: usize| {
                u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize
            };
            let (body_len, fields_len) = (number(4), number(12));
            if endian != b'l' || body_len > MAX_MESSAGE || fields_len > MAX_MESSAGE {
                return Err(malformed());
            }
            let mut fields = vec![0; fields_len.next_multiple_of(8)];
            self.stream.read_exact(&mut fields).context(about)?;
            fields.truncate(fields_len);
            let mut body = vec![0; body_len];
            self.stream.read_exact(&mut body).context(about)?;
            let header = Header::parse(&fields)?;
            if header.reply_to != Some(self.serial) {
                // A signal, or the bus introducing itself.
                continue;
            }
            return match kind {
                METHOD_RETURN => Ok(Answer::Values(body)),
                ERROR => {
                    let text =
                        if header.signature.starts_with('s') { Reader::new(&body).text()? } else { "" };
                    Ok(Answer::Refused(header.error, text.to_owned()))
                }
                _ => Err(malformed()),
            };
        }
    }
}

fn malformed() -> Error {
    Error::new("read from D-Bus: malformed message", Errno::BADMSG)
}

fn line(stream: &mut impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context(|| "log in to D-Bus")?;
        bytes.push(byte[0]);
        if bytes.len() > MAX_LINE {
            return Err(malformed());
        }
    }
    bytes.truncate(bytes.len() - 2);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn encode(method: Method<'_>, signature: &str, body: &[u8], serial: u32) -> Vec<u8> {
    let mut w = Writer(vec![b'l', METHOD_CALL, NO_AUTO_START, 1]);
    w.number(length(body));
    w.number(serial);
    w.array(8, |w| {
        let texts = [
            (PATH, "o", method.path),
            (INTERFACE, "s", method.interface),
            (MEMBER, "s", method.member),
            (DESTINATION, "s", method.destination),
        ];
        for (field, kind, text) in texts {
            w.align(8);
            w.0.push(field);
            w.signature(kind);
            w.text(text);
        }
        if !signature.is_empty() {
            w.align(8);
            w.0.push(SIGNATURE);
            w.signature("g");
            w.signature(signature);
        }
    });
    w.align(8);
    w.0.extend(body);
    w.0
}

fn length(bytes: &[u8]) -> u32 {
    // What we send is a few hundred bytes.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Values to be sent. The body of a message begins where everything is aligned, so that alignment
/// can be counted from the beginning of either.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, n: u32) {
        self.align(4);
        self.0.extend(n.to_le_bytes());
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.number(length(text.as_bytes()));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// Items that begin at multiples of `align`.
    fn array(&mut self, align: usize, items: impl FnOnce(&mut Self)) {
        self.number(0);
        let count_at = self.0.len() - 4;
        self.align(align);
        let start = self.0.len();
        items(self);
        let bytes = length(&self.0[start..]).to_le_bytes();
        self.0[count_at..count_at + 4].copy_from_slice(&bytes);
    }

    /// Names with values: `a(sv)`.
    pub fn properties(&mut self, list: &[(&str, Value<'_>)]) {
        self.array(8, |w| {
            for (name, value) in list {
                w.align(8);
                w.text(name);
                w.variant(*value);
            }
        });
    }

    fn variant(&mut self, value: Value<'_>) {
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.number(u32::from(flag));
            }
            Value::Number(n) => {
                self.signature("t");
                self.align(8);
                self.0.extend(n.to_le_bytes());
            }
            Value::Numbers(list) => {
                self.signature("au");
                self.array(4, |w| list.iter().for_each(|n| w.number(*n)));
            }
        }
    }
}

/// Values that were received; hostile or not, nothing is read beyond them.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Those of an answer.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| malformed())?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn terminated(&mut self, count: usize) -> Result<&'a str> {
        let text = self.take(count)?;
        match self.byte()? {
            0 => std::str::from_utf8(text).map_err(|_| malformed()),
            _ => Err(malformed()),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&mut self) -> Result<&'a str> {
        let count = usize::try_from(self.number()?).map_err(|_| malformed())?;
        self.terminated(count)
    }

    fn signature(&mut self) -> Result<&'a str> {
        let count = usize::from(self.byte()?);
        self.terminated(count)
    }

    /// A variant that has to hold a text.
    ///
    /// # Errors
    /// When it does not.
    pub fn text_variant(&mut self) -> Result<&'a str> {
        if self.signature()? == "s" { self.text() } else { Err(malformed()) }
    }
}

/// What is of interest in a header.
#[derive(Debug, Default)]
struct Header {
    reply_to: Option<u32>,
    error: String,
    signature: String,
}

impl Header {
    fn parse(fields: &[u8]) -> Result<Self> {
        let mut r = Reader::new(fields);
        let mut header = Self::default();
        while r.at < fields.len() {
            r.align(8);
            let field = r.byte()?;
            match (field, r.signature()?) {
                (REPLY_SERIAL, "u") => header.reply_to = Some(r.number()?),
                (ERROR_NAME, "s") => r.text()?.clone_into(&mut header.error),
                (SIGNATURE, "g") => r.signature()?.clone_into(&mut header.signature),
                (_, "s" | "o") => drop(r.text()?),
                (_, "g") => drop(r.signature()?),
                (_, "u") => drop(r.number()?),
                _ => return Err(malformed()),
            }
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method<'_> = Method { destination: "d.d", path: "/p", interface: "i.i", member: "Member" };

    /// Somebody who lets us in and then answers every call with `answers`.
    fn server(answers: Vec<Vec<u8>>) -> Connection<UnixStream> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut hello = [0; 22];
            theirs.read_exact(&mut hello).unwrap();
            assert_eq!(&hello, b"\0AUTH EXTERNAL\r\nDATA\r\n");
            theirs.write_all(b"DATA\r\nOK 0123\r\n").unwrap();
            let mut begin = [0; 7];
            theirs.read_exact(&mut begin).unwrap();
            for answer in answers {
                theirs.write_all(&answer).unwrap();
            }
            // The caller must not be told by a broken pipe before it has read.
            let _ = theirs.read_to_end(&mut Vec::new());
        });
        Connection::new(ours).unwrap()
    }

    fn answer(kind: u8, reply_to: u32, error: Option<&str>, signature: &str, body: &Writer) -> Vec<u8> {
        let mut w = Writer(vec![b'l', kind, 1, 1]);
        w.number(length(&body.0));
        w.number(77);
        w.array(8, |w| {
            w.align(8);
            w.0.push(REPLY_SERIAL);
            w.signature("u");
            w.number(reply_to);
            for (field, kind, text) in
                [(7, "s", Some(":1.2")), (ERROR_NAME, "s", error), (SIGNATURE, "g", Some(signature))]
            {
                let Some(text) = text.filter(|t| !t.is_empty()) else { continue };
                w.align(8);
                w.0.push(field);
                w.signature(kind);
                if kind == "g" { w.signature(text) } else { w.text(text) }
            }
        });
        w.align(8);
        w.0.extend(&body.0);
        w.0
    }

    fn text(text: &str) -> Writer {
        let mut w = Writer::default();
        w.text(text);
        w
    }

    #[test]
    fn a_call_is_laid_out_as_the_protocol_wants_it() {
        let mut body = Writer::default();
        body.text("x");
        body.properties(&[("F", Value::Flag(true)), ("N", Value::Numbers(&[7]))]);
        body.properties(&[]);
        #[rustfmt::skip]
        assert_eq!(body.0, [
            1, 0, 0, 0, b'x', 0, 0, 0,
            36, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0, b'F', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0,
            1, 0, 0, 0, b'N', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0,
            0, 0, 0, 0,
        ]);
        let message = encode(METHOD, "sa(sv)a(sv)", &body.0, 9);
        assert_eq!(message[..4], [b'l', 1, 2, 1]);
        assert_eq!(message[4..8], length(&body.0).to_le_bytes());
        assert_eq!(message[8..12], [9, 0, 0, 0]);
        assert_eq!(message[16..28], [1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'p', 0, 0]);
        let fields = u32::from_le_bytes(message[12..16].try_into().unwrap()) as usize;
        assert_eq!((16 + fields).next_multiple_of(8) + body.0.len(), message.len());
        assert!(message.ends_with(&body.0));
    }

    #[test]
    fn answers_are_told_from_what_else_comes() {
        let mut bus = server(vec![
            answer(4, 0, None, "s", &text("a signal")),
            answer(METHOD_RETURN, 1, None, "s", &text("/job/1")),
            answer(ERROR, 2, Some("org.x.Exists"), "s", &text("it is there")),
            answer(ERROR, 3, Some("org.x.Silent"), "", &Writer::default()),
        ]);
        let Answer::Values(values) = bus.call(METHOD, "s", &text("one")).unwrap() else { panic!() };
        assert_eq!(Reader::new(&values).text().unwrap(), "/job/1");
        let refused = bus.call(METHOD, "", &Writer::default()).unwrap();
        assert_eq!(refused, Answer::Refused("org.x.Exists".into(), "it is there".into()));
        let refused = bus.call(METHOD, "", &Writer::default()).unwrap();
        assert_eq!(refused, Answer::Refused("org.x.Silent".into(), String::new()));
    }

    #[test]
    fn malformed_answers_are_errors() {
        let good = answer(METHOD_RETURN, 1, None, "s", &text("x"));
        let mut huge = good.clone();
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut big_endian = good.clone();
        big_endian[0] = b'B';
        let mut long_field = good.clone();
        long_field[17] = 200;
        let mut odd_kind = good;
        odd_kind[1] = 9;
        for bad in [huge, big_endian, long_field, odd_kind] {
            assert!(server(vec![bad]).call(METHOD, "", &Writer::default()).is_err());
        }
        for bytes in [&[][..], &[9, 0, 0, 0, 1], &[1, 0, 0, 0, b'x', 1], &[0xff, 0xff, 0xff, 0xff]] {
            assert!(Reader::new(bytes).text().is_err());
        }
        assert!(Reader::new(&[1, b'u', 0, 0, 1, 0, 0, 0]).text_variant().is_err());
    }

    #[test]
    fn who_does_not_want_us_is_quoted() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"REJECTED ANONYMOUS\r\n").unwrap();
        let error = Connection::new(ours).unwrap_err().to_string();
        assert!(error.contains("REJECTED ANONYMOUS"), "{error}");
    }
}
