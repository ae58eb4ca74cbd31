//! Which upstreams have failed lately.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long one that has failed is asked last.
const PENANCE: Duration = Duration::from_secs(10);

/// Failures of upstreams. Those that are over are forgotten when the next one is noted.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failed: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Health {
    /// The upstreams in the order in which they are asked: as they were, those that have failed lately last.
    pub(crate) fn order(&self, mut upstreams: Vec<SocketAddr>, now: Instant) -> Vec<SocketAddr> {
        let failed = self.failed();
        upstreams.sort_by_key(|upstream| failed.get(upstream).is_some_and(|when| is_recent(*when, now)));
        upstreams
    }

    /// Notes that an upstream was late or could not be reached.
    pub(crate) fn note_failure(&self, upstream: SocketAddr, now: Instant) {
        let mut failed = self.failed();
        failed.retain(|_, when| is_recent(*when, now));
        failed.insert(upstream, now);
    }

    /// Notes that an upstream has answered.
    pub(crate) fn note_answer(&self, upstream: SocketAddr) {
        self.failed().remove(&upstream);
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_recent(when: Instant, now: Instant) -> bool {
    now.saturating_duration_since(when) < PENANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_has_failed_is_last_for_a_while() {
        let health = Health::default();
        let [a, b, c] = [1, 2, 3].map(|n| SocketAddr::from(([10, 0, 0, n], 53)));
        let all = vec![a, b, c];
        let start = Instant::now();
        assert_eq!(health.order(all.clone(), start), [a, b, c]);
        health.note_failure(a, start);
        assert_eq!(health.order(all.clone(), start + PENANCE / 2), [b, c, a]);
        health.note_failure(c, start + PENANCE / 2);
        assert_eq!(health.order(all.clone(), start + PENANCE / 2), [b, a, c]);
        assert_eq!(health.order(all.clone(), start + PENANCE), [a, b, c]);
        assert_eq!(health.order(vec![c, b, a], start + PENANCE), [b, a, c]);
        health.note_answer(c);
        assert_eq!(health.order(vec![c, b, a], start + PENANCE), [c, b, a]);
    }

    #[test]
    fn old_failures_are_forgotten() {
        let health = Health::default();
        let start = Instant::now();
        for n in 0..100 {
            let now = start + PENANCE * u32::from(n);
            health.note_failure(SocketAddr::from(([10, 0, 0, n], 53)), now);
        }
        assert_eq!(health.failed().len(), 1);
    }
}
