//! Between a process in a container and this terminal.

use std::io::{self, Write};

use longshore_api::stream::{Decoder, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{Client, Hijacked, escape, query};
use crate::error::{Context, Failure, Result};
use crate::tty;

/// How a taken-over connection is used.
pub(crate) struct Session {
    /// One raw stream; otherwise frames.
    pub(crate) tty: bool,
    /// Standard input is passed on.
    pub(crate) stdin: bool,
    /// Output is shown.
    pub(crate) output: bool,
}

/// Passes bytes both ways until the other side has nothing more to say.
pub(crate) async fn run(hijacked: Hijacked, session: &Session) -> Result<()> {
    let (mut from, mut to) = tokio::io::split(hijacked.stream);
    let stdin = session.stdin;
    let input = tokio::spawn(async move {
        if stdin {
            let mut stdin = tokio::io::stdin();
            let mut buf = vec![0u8; 32 << 10];
            while let Ok(n) = stdin.read(&mut buf).await {
                if n == 0 || to.write_all(&buf[..n]).await.is_err() {
                    break;
                }
            }
            // The half-close: output goes on.
            let _ = to.shutdown().await;
        }
        // Dropping this side would close the connection for good.
        std::future::pending::<()>().await;
    });
    let done = output(&mut from, session).await;
    input.abort();
    done
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
        if !session.output {
            continue;
        }
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
}

impl Resize {
    /// Tells the daemon the size of this terminal; failures do not matter.
    pub(crate) async fn now(&self, client: &Client) {
        let Some((rows, columns)) = tty::size() else { return };
        let path = match self {
            Self::Container(id) => format!("/containers/{}/resize", escape(id)),
            Self::Exec(id) => format!("/exec/{}/resize", escape(id)),
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

/// Passes the signals that this program gets on to a container.
pub(crate) fn proxy_signals(client: &Client, container: &str) -> Vec<tokio::task::JoinHandle<()>> {
    let kinds = [
        ("HUP", SignalKind::hangup()),
        ("INT", SignalKind::interrupt()),
        ("QUIT", SignalKind::quit()),
        ("TERM", SignalKind::terminate()),
        ("USR1", SignalKind::user_defined1()),
        ("USR2", SignalKind::user_defined2()),
    ];
    kinds
        .into_iter()
        .map(|(name, kind)| {
            let (client, container) = (client.clone(), container.to_owned());
            tokio::spawn(async move {
                let Ok(mut signals) = signal(kind) else { return };
                while signals.recv().await.is_some() {
                    let path =
                        query(&format!("/containers/{}/kill", escape(&container)), &[("signal", name)]);
                    let _ = client.post(&path).await;
                }
            })
        })
        .collect()
}
