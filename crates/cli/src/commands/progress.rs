//! Shows what goes on while the daemon moves images, until it is done.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use longshore_api::stream::Stream;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::client::Lines;
use crate::error::{Context, Failure, Result};
use crate::format::progress::{Live, Message, Size, Style};
use crate::interrupt::Interrupt;
use crate::streams::show;
use crate::tty;

/// How often lines that change are drawn.
const FRAME: Duration = Duration::from_millis(60);
/// Most results for programs that are kept of one stream.
const MAX_RESULTS: usize = 64;
/// The size of a terminal that does not tell it.
const UNTOLD: Size = Size { rows: 24, columns: 80 };

/// Shows a progress stream to its end, on standard output or standard error; an error in it is the command's. With
/// `quiet` only that counts. Gives the results for programs that were in it.
pub(super) async fn show_progress(answer: Response<Incoming>, to: Stream, quiet: bool) -> Result<Vec<Value>> {
    let mut screen = Screen::new(to, quiet);
    let followed = follow(answer, &mut screen).await;
    let closed = screen.close();
    followed?;
    closed.map(|()| screen.results)
}

/// Where progress is shown.
struct Screen {
    to: Stream,
    quiet: bool,
    live: Option<Live>,
    results: Vec<Value>,
}

impl Screen {
    fn new(to: Stream, quiet: bool) -> Self {
        let terminal = match to {
            Stream::Stderr => tty::stderr_is_terminal(),
            _ => tty::stdout_is_terminal(),
        };
        // A terminal that cannot move its cursor is one that only goes on.
        let moves = std::env::var("TERM").is_ok_and(|t| !["", "dumb"].contains(&t.as_str()));
        let live = (terminal && moves && !quiet).then(|| Live::new(size(to), Style::detect()));
        Self { to, quiet, live, results: Vec::new() }
    }

    fn take(&mut self, line: &Value) -> Result<()> {
        let message = Message::new(line);
        if let Some(e) = message.error {
            return Err(Failure::new(e));
        }
        if let Some(result) = message.aux {
            if self.results.len() < MAX_RESULTS {
                self.results.push(result);
            }
            return Ok(());
        }
        let text = match &mut self.live {
            _ if self.quiet => return Ok(()),
            Some(live) => live.take(&message),
            None => message.plain(),
        };
        show(self.to, text.as_bytes())
    }

    fn is_changed(&self) -> bool {
        self.live.as_ref().is_some_and(Live::is_changed)
    }

    /// Draws what changes.
    fn frame(&mut self) -> Result<()> {
        self.live.as_mut().map_or(Ok(()), |live| show(self.to, live.frame().as_bytes()))
    }

    fn resize(&mut self) -> Result<()> {
        let size = size(self.to);
        self.live.as_mut().map_or(Ok(()), |live| show(self.to, live.resize(size).as_bytes()))
    }

    /// What comes next on the terminal comes below.
    fn close(&mut self) -> Result<()> {
        self.live.as_mut().map_or(Ok(()), |live| show(self.to, live.close().as_bytes()))
    }
}

fn size(of: Stream) -> Size {
    tty::size_of(of).map_or(UNTOLD, |(rows, columns)| Size { rows: rows.into(), columns: columns.into() })
}

/// Reads a stream to its end. The user may end it before: the daemon sees that the connection is gone, and stops.
async fn follow(answer: Response<Incoming>, screen: &mut Screen) -> Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let mut resized = signal(SignalKind::window_change()).context(|| "listen to signals".into())?;
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut body = answer.into_body();
    let mut lines = Lines::default();
    loop {
        tokio::select! {
            biased;
            status = interrupt.came() => return Err(Failure::exit(status)),
            Some(()) = resized.recv() => screen.resize()?,
            _ = frames.tick(), if screen.is_changed() => screen.frame()?,
            frame = body.frame() => {
                let Some(frame) = frame else { return lines.end(|line| screen.take(&line)) };
                let frame = frame.context(|| "read the daemon's answer".into())?;
                if let Some(data) = frame.data_ref() {
                    lines.push(data, |line| screen.take(&line))?;
                }
            }
        }
    }
}
