use std::time::{Duration, Instant};

use crate::Limits;

/// Counts the tries of one request, and waits between them: twice as long each time, with jitter, within limits.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    backoff: Duration,
    longest: Duration,
    total: Duration,
    /// At most this many.
    attempts: u32,
    /// Tries begun.
    pub(crate) made: u32,
    started: Instant,
}

impl Retry {
    /// The first of `attempts` tries begins.
    pub(crate) fn new(limits: &Limits, attempts: u32) -> Self {
        let Limits { backoff, backoff_max, retry_total, .. } = *limits;
        Self { backoff, longest: backoff_max, total: retry_total, attempts, made: 1, started: Instant::now() }
    }

    /// Waits for the next try; `false` when there is none. `asked` is the server's wish.
    pub(crate) async fn again(&mut self, asked: Option<Duration>) -> bool {
        let wait = match asked {
            Some(asked) if asked > self.longest => return false,
            Some(asked) => asked.max(self.wait() / 2),
            None => self.wait(),
        };
        if self.made >= self.attempts || self.started.elapsed() + wait > self.total {
            return false;
        }
        self.made += 1;
        tokio::time::sleep(wait).await;
        true
    }

    /// What was done counts as progress: the tries begin anew, the time does not.
    pub(crate) fn progressed(&mut self) {
        self.made = 1;
        self.started = Instant::now();
    }

    /// Between half of and all of `backoff * 2^(made - 1)`, at most the longest.
    fn wait(&self) -> Duration {
        let doubled = 1 << self.made.saturating_sub(1).min(16);
        let full = self.backoff.saturating_mul(doubled).min(self.longest);
        let jitter = getrandom::u32().unwrap_or(0) % 512;
        full / 2 + full * jitter / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_limit() {
        let limits = Limits {
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            ..Limits::default()
        };
        for (made, full) in [(1, 100), (2, 200), (3, 400), (5, 1000), (100, 1000)] {
            let wait = Retry { made, ..Retry::new(&limits, 5) }.wait().as_millis();
            assert!((full / 2..=full).contains(&wait), "{made}: {wait}");
        }
    }
}
