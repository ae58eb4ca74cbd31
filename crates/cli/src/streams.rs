//! Between a process in a container and this terminal.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use longshore_api::stream::{Decoder, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::{Client, Hijacked, escape, query};
use crate::error::{Context, Failure, Result};
use crate::interrupt::Interrupt;
use crate::keys::Keys;
use crate::tty;

/// How a taken-over connection is used.
pub(crate) struct Session {
    /// One raw stream; otherwise frames.
    pub(crate) tty: bool,
    /// Standard input is passed on.
    pub(crate) stdin: bool,
    /// Keys that leave, looked for on a terminal.
    pub(crate) keys: Keys,
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The other side had nothing more to say.
    Closed,
    /// The user left.
    Detached,
}

/// How `attach` and `exec` end when the user leaves; `run` and `start` end well.
pub(crate) fn left_behind() -> Failure {
    Failure::new("read escape sequence")
}

/// Passes bytes both ways until the other side has nothing more to say, or the user leaves.
pub(crate) async fn run(hijacked: Hijacked, session: &Session) -> Result<End> {
    let (mut from, to) = tokio::io::split(hijacked.stream);
    let raw = (session.tty && session.stdin).then(tty::Raw::start).flatten();
    let input = tokio::spawn(input(to, session.stdin, session.tty.then(|| session.keys.clone())));
    let end = tokio::select! {
        done = output(&mut from, session) => done.map(|()| End::Closed),
        () = left(&input) => Ok(End::Detached),
    };
    input.abort();
    drop(raw);
    end
}

/// Passes standard input on; ends only when the user leaves.
async fn input(mut to: impl tokio::io::AsyncWrite + Unpin, stdin: bool, mut keys: Option<Keys>) {
    let mut buf = vec![0u8; 32 << 10];
    let mut from = tokio::io::stdin();
    loop {
        let n = if stdin { from.read(&mut buf).await.unwrap_or(0) } else { 0 };
        if n == 0 {
            break;
        }
        let (typed, leaves) = match &mut keys {
            Some(keys) => keys.filter(&buf[..n]),
            None => (buf[..n].to_vec(), false),
        };
        if to.write_all(&typed).await.is_err() {
            break;
        }
        if leaves {
            return;
        }
    }
    if stdin {
        // The half-close: output goes on.
        let _ = to.shutdown().await;
    }
    // Dropping this side would close the connection for good.
    std::future::pending::<()>().await;
}

/// Resolves when the input's task has ended by itself.
async fn left(input: &tokio::task::JoinHandle<()>) {
    while !input.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn output(from: &mut (impl tokio::io::AsyncRead + Unpin), session: &Session) -> Result<()> {
    let mut decoder = Decoder::new();
    let mut buf = vec![0u8; 64 << 10];
    loop {
        let n = match from.read(&mut buf).await {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(Failure::new(format!("read output: {e}"))),
        };
        if session.tty {
            show(Stream::Stdout, &buf[..n])?;
        } else {
            demultiplex(&mut decoder, &buf[..n])?;
        }
    }
}

/// Shows what frames carry.
pub(crate) fn demultiplex(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<()> {
    while let Some((stream, data)) = decoder.next(&mut bytes).context(|| "the daemon's output".into())? {
        if stream == Stream::System {
            return Err(Failure::new(format!(
                "Error response from daemon: {}",
                String::from_utf8_lossy(data)
            )));
        }
        show(stream, data)?;
    }
    Ok(())
}

/// Bytes of a channel, for a thread that may wait.
pub(crate) struct ChannelReader {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl ChannelReader {
    pub(crate) fn new(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { pieces, current: Bytes::new() }
    }
}

impl io::Read for ChannelReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.current.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// Writes output where it belongs. A closed pipe ends the program as it would end `cat`.
pub(crate) fn show(stream: Stream, data: &[u8]) -> Result<()> {
    let done = match stream {
        Stream::Stderr => {
            let mut err = io::stderr().lock();
            err.write_all(data).and_then(|()| err.flush())
        }
        _ => {
            let mut out = io::stdout().lock();
            out.write_all(data).and_then(|()| out.flush())
        }
    };
    done.map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Failure::exit(141),
        _ => Failure::new(format!("write output: {e}")),
    })
}

/// Which resize route a terminal's size goes to.
#[derive(Clone, Debug)]
pub(crate) enum Resize {
    Container(String),
    Exec(String),
    /// A command in a working container.
    Working(String),
}

impl Resize {
    /// Tells the daemon the size of this terminal; failures do not matter.
    pub(crate) async fn now(&self, client: &Client) {
        if let Some(size) = tty::size() {
            self.to(client, size).await;
        }
    }

    /// Another size for a moment: the program on the other side draws its screen again.
    pub(crate) async fn redraw(&self, client: &Client) {
        if let Some((rows, columns)) = tty::size() {
            self.to(client, (rows.saturating_add(1), columns.saturating_add(1))).await;
            self.to(client, (rows, columns)).await;
        }
    }

    async fn to(&self, client: &Client, (rows, columns): (u16, u16)) {
        let path = match self {
            Self::Container(id) => format!("/containers/{}/resize", escape(id)),
            Self::Exec(id) => format!("/exec/{}/resize", escape(id)),
            Self::Working(id) => format!("/longshore/working/run/{}/resize", escape(id)),
        };
        let (h, w) = (rows.to_string(), columns.to_string());
        let _ = client.post(&query(&path, &[("h", &h), ("w", &w)])).await;
    }

    /// The same at every change, until dropped.
    pub(crate) fn follow(self, client: &Client) -> tokio::task::JoinHandle<()> {
        let client = client.clone();
        tokio::spawn(async move {
            let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
            while changes.recv().await.is_some() {
                self.now(&client).await;
            }
        })
    }
}

/// Signals that are passed on besides those with names in tokio; their numbers are those of every Linux machine that
/// this program is built for.
const OTHER_SIGNALS: &[(&str, i32)] = &[
    ("ABRT", 6),
    ("CONT", 18),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("PWR", 30),
];

/// Passes the signals that this program gets on to a container. The third INT or TERM ends the program all the same.
pub(crate) fn proxy_signals(client: &Client, container: &str) -> Vec<tokio::task::JoinHandle<()>> {
    let ends = Arc::new(AtomicUsize::new(0));
    let kinds = [
        ("HUP", SignalKind::hangup()),
        ("INT", SignalKind::interrupt()),
        ("QUIT", SignalKind::quit()),
        ("TERM", SignalKind::terminate()),
        ("USR1", SignalKind::user_defined1()),
        ("USR2", SignalKind::user_defined2()),
        ("ALRM", SignalKind::alarm()),
        ("IO", SignalKind::io()),
    ];
    let others = OTHER_SIGNALS.iter().map(|(name, number)| (*name, SignalKind::from_raw(*number)));
    kinds
        .into_iter()
        .chain(others)
        .map(|(name, kind)| {
            let (client, container, ends) = (client.clone(), container.to_owned(), ends.clone());
            tokio::spawn(async move {
                // Those that would end this program do not while they are passed on.
                let _listening = Interrupt::listen();
                let Ok(mut signals) = signal(kind) else { return };
                while signals.recv().await.is_some() {
                    if ["INT", "TERM"].contains(&name) && ends.fetch_add(1, Ordering::Relaxed) == 2 {
                        eprintln!("\ngot 3 SIGTERM/SIGINTs, forcefully exiting");
                        std::process::exit(1);
                    }
                    let path =
                        query(&format!("/containers/{}/kill", escape(&container)), &[("signal", name)]);
                    let _ = client.post(&path).await;
                }
            })
        })
        .collect()
}
