//! Ctrl-C, and SIGTERM. Until somebody listens they end the program by themselves, and they must do so afterwards too:
//! a program that once listened to a signal has no default action for it any more.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Context, Result};

static STARTED: AtomicBool = AtomicBool::new(false);
static LISTENING: AtomicUsize = AtomicUsize::new(0);
/// The status for the signal that came last.
static CAME: LazyLock<watch::Sender<i32>> = LazyLock::new(|| watch::Sender::new(0));

/// Listens until it is dropped: a signal is told, and does not end the program.
#[derive(Debug)]
pub(crate) struct Interrupt(watch::Receiver<i32>);

impl Interrupt {
    /// Begins to listen; needs tokio.
    pub(crate) fn listen() -> Result<Self> {
        if !STARTED.load(Ordering::SeqCst) {
            let of = |kind: SignalKind| signal(kind).context(|| "listen to signals".into());
            tokio::spawn(handle(of(SignalKind::interrupt())?, of(SignalKind::terminate())?));
            STARTED.store(true, Ordering::SeqCst);
        }
        LISTENING.fetch_add(1, Ordering::SeqCst);
        Ok(Self(CAME.subscribe()))
    }

    /// Waits for a signal; gives the status with which a program ends that it ended.
    pub(crate) async fn came(&mut self) -> i32 {
        // The sender lives as long as the program.
        let _ = self.0.changed().await;
        *self.0.borrow_and_update()
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        LISTENING.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn handle(mut interrupt: Signal, mut terminate: Signal) {
    loop {
        let status = tokio::select! {
            Some(()) = interrupt.recv() => 130,
            Some(()) = terminate.recv() => 143,
            else => return,
        };
        if LISTENING.load(Ordering::SeqCst) == 0 {
            std::process::exit(status);
        }
        CAME.send_replace(status);
    }
}
