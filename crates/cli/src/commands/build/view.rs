//! Shows a build while it goes on, on standard error.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use longshore_api::build::BuildLine;
use longshore_api::stream::Stream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior};

use super::FRAME;
use super::send::Sent;
use crate::args::build::Progress;
use crate::error::{Context, Failure, Result};
use crate::format::build::{Build, Change, Plain, Raw, Tty};
use crate::format::progress::{Size, Style};
use crate::interrupt::Interrupt;
use crate::streams::show;
use crate::tty;

/// The size of a terminal that does not tell it.
const UNTOLD: Size = Size { rows: 24, columns: 80 };

enum Display {
    Quiet,
    Plain(Plain),
    Tty(Tty),
    Raw(Raw),
}

/// A build and how it is shown.
pub(super) struct View {
    pub(super) build: Build,
    display: Display,
    start: Instant,
    interrupt: Interrupt,
    resized: Signal,
    frames: Interval,
}

impl View {
    pub(super) fn new(progress: Progress, interrupt: Interrupt) -> Result<Self> {
        let display = match progress {
            Progress::Quiet => Display::Quiet,
            Progress::Tty => Display::Tty(Tty::new(size(), Style::detect())),
            Progress::Raw => Display::Raw(Raw::new(jiff::Timestamp::now())),
            Progress::Auto | Progress::Plain => Display::Plain(Plain::default()),
        };
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let resized = signal(SignalKind::window_change()).context(|| "listen to signals".into())?;
        Ok(Self { build: Build::default(), display, start: Instant::now(), interrupt, resized, frames })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for `work`, showing what goes on meanwhile, the sending of a context too. The user may end it.
    pub(super) async fn watch<T>(&mut self, work: impl Future<Output = T>, sent: Option<&Sent>) -> Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                status = self.interrupt.came() => return Err(Failure::exit(status)),
                Some(()) = self.resized.recv() => self.resize()?,
                _ = self.frames.tick() => {
                    if let Some(sent) = sent {
                        self.sending(sent, false)?;
                    }
                    self.frame()?;
                }
                done = &mut work => return Ok(done),
            }
        }
    }

    /// So much of the context was sent.
    pub(super) fn sending(&mut self, sent: &Sent, done: bool) -> Result<()> {
        let changes = self.build.sending(sent.load(Ordering::Relaxed), done, self.now());
        self.changed(&changes)
    }

    /// Takes a line of the daemon's answer.
    pub(super) fn take(&mut self, line: BuildLine) -> Result<()> {
        let changes = self.build.take(line, self.now());
        self.changed(&changes)
    }

    fn changed(&mut self, changes: &[Change]) -> Result<()> {
        let now = self.now();
        let text = match &mut self.display {
            Display::Plain(plain) => plain.take(&self.build, changes, now),
            Display::Raw(raw) => raw.take(&self.build, changes, now),
            // Drawn with the next frame.
            Display::Quiet | Display::Tty(_) => return Ok(()),
        };
        self.tell(&text)
    }

    fn frame(&mut self) -> Result<()> {
        let now = self.now();
        let text = match &mut self.display {
            Display::Plain(plain) => plain.tick(&self.build, now),
            Display::Tty(tty) => tty.frame(&self.build, now),
            Display::Quiet | Display::Raw(_) => return Ok(()),
        };
        self.tell(&text)
    }

    fn resize(&mut self) -> Result<()> {
        let now = self.now();
        match &mut self.display {
            Display::Tty(tty) => {
                let text = tty.resize(size(), &self.build, now);
                self.tell(&text)
            }
            _ => Ok(()),
        }
    }

    /// Nothing more comes: what comes next on a terminal comes below.
    pub(super) fn close(&mut self) -> Result<()> {
        let now = self.now();
        let changes = self.build.close(now);
        self.changed(&changes)?;
        if let Display::Tty(tty) = &mut self.display {
            let text = tty.close(&self.build, now);
            return self.tell(&text);
        }
        Ok(())
    }

    /// Text for people.
    pub(super) fn tell(&self, text: &str) -> Result<()> {
        if text.is_empty() { Ok(()) } else { show(Stream::Stderr, text.as_bytes()) }
    }
}

fn size() -> Size {
    let size = tty::size_of(Stream::Stderr);
    size.map_or(UNTOLD, |(rows, columns)| Size { rows: rows.into(), columns: columns.into() })
}
