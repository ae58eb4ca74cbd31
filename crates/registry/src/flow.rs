//! A long body, piece by piece: it may take as long as it likes, but not stand still.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::Limits;
use crate::transport::broken_words;

/// For the end of a body all of whose bytes are there.
const END: Duration = Duration::from_secs(2);

/// A body that is being read.
pub(crate) struct Flow {
    body: Incoming,
    rate: Rate,
}

/// Why no piece came.
pub(crate) struct Stopped {
    pub(crate) reason: String,
    pub(crate) late: bool,
}

impl Flow {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, rate: Rate::default() }
    }

    /// The next piece; `None` at the body's end.
    pub(crate) async fn piece(&mut self, limits: &Limits) -> Result<Option<Bytes>, Stopped> {
        loop {
            let began = Instant::now();
            let frame = tokio::time::timeout(limits.idle, self.body.frame()).await;
            let late = |reason| Stopped { reason, late: true };
            let frame =
                frame.map_err(|_| late(format!("no byte came for {} s", limits.idle.as_secs_f32())))?;
            match frame {
                None => return Ok(None),
                Some(Err(e)) => return Err(Stopped { reason: broken_words(&e), late: false }),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if self.rate.is_too_slow(began.elapsed(), data.len() as u64, limits) {
                        return Err(late(format!("fewer than {} bytes a second came", limits.min_rate)));
                    }
                    return Ok(Some(data));
                }
            }
        }
    }

    /// Whether there is more than there should be.
    pub(crate) async fn end(&mut self) -> Result<Option<Bytes>, Stopped> {
        match tokio::time::timeout(END, self.body.frame()).await {
            Ok(Some(Ok(frame))) => Ok(frame.into_data().ok()),
            _ => Ok(None),
        }
    }
}

/// How fast bytes come while they are waited for; the time that a consumer takes does not count.
#[derive(Debug, Default)]
struct Rate {
    waited: Duration,
    bytes: u64,
}

impl Rate {
    fn is_too_slow(&mut self, waited: Duration, bytes: u64, limits: &Limits) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < limits.rate_window {
            return false;
        }
        let least =
            limits.min_rate.saturating_mul(u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX)) / 1000;
        let slow = self.bytes < least;
        *self = Self::default();
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_time_spent_waiting() {
        let limits = Limits { rate_window: Duration::from_secs(10), min_rate: 100, ..Limits::default() };
        let mut rate = Rate::default();
        for _ in 0..9 {
            assert!(!rate.is_too_slow(Duration::from_secs(1), 1, &limits));
        }
        assert!(rate.is_too_slow(Duration::from_secs(1), 1, &limits));
        assert!(!rate.is_too_slow(Duration::from_secs(10), 1000, &limits));
        assert!(rate.is_too_slow(Duration::from_secs(20), 1500, &limits));
    }
}
