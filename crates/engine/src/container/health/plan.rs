//! What a health check is to do, and what follows from its results. Pure.

use std::time::Duration;

use longshore_oci::image::{HealthConfig, RunConfig};

use crate::model::{Health, HealthResult, HealthStatus, UnixNanos};
use crate::{Error, Result};

/// Between the end of one check and the start of the next, and before the first.
const INTERVAL: Duration = Duration::from_secs(30);
/// For one check.
const TIMEOUT: Duration = Duration::from_secs(30);
/// As the interval, while the container is given time to start.
const START_INTERVAL: Duration = Duration::from_secs(5);
/// Failures in a row that make a container unhealthy.
const RETRIES: u32 = 3;
/// Results that are remembered.
const REMEMBERED: usize = 5;
/// Shorter times cannot be asked for.
const SHORTEST: Duration = Duration::from_millis(1);

/// What a container's configuration says of its health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Empty where the configuration names a kind of test but no command.
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    pub(crate) retries: u32,
}

impl Plan {
    /// `None` without a check: there is none, it was switched off, or it is of an unknown kind.
    pub(crate) fn of(run: &RunConfig) -> Option<Self> {
        let config = run.healthcheck.as_ref()?;
        let (kind, words) = config.test.as_ref()?.split_first()?;
        let shell = run.shell.clone().filter(|s| !s.is_empty());
        let mut command = match kind.as_str() {
            "CMD" => Vec::new(),
            "CMD-SHELL" => shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]),
            _ => return None,
        };
        match words {
            [] => command.clear(),
            words => command.extend_from_slice(words),
        }
        Some(Self {
            command,
            interval: time(config.interval, INTERVAL),
            timeout: time(config.timeout, TIMEOUT),
            start_period: time(config.start_period, Duration::ZERO),
            start_interval: time(config.start_interval, START_INTERVAL),
            retries: u32::try_from(config.retries).ok().filter(|n| *n > 0).unwrap_or(RETRIES),
        })
    }

    /// How long to wait before the next check of a container that has run for `ran`.
    pub(crate) fn pause(&self, status: HealthStatus, ran: Duration) -> Duration {
        if status == HealthStatus::Starting && ran < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }

    /// Takes a result into account; `started` is when the container did. The new status, if it is another one.
    pub(crate) fn judge(
        &self,
        health: &mut Health,
        result: HealthResult,
        started: UnixNanos,
    ) -> Option<HealthStatus> {
        let before = health.status;
        if result.exit_code == 0 {
            health.failing_streak = 0;
            health.status = HealthStatus::Healthy;
        } else if before != HealthStatus::Starting || since(started, result.start) >= self.start_period {
            health.failing_streak = health.failing_streak.saturating_add(1);
            if health.failing_streak >= self.retries {
                health.status = HealthStatus::Unhealthy;
            }
        }
        let too_many = (health.log.len() + 1).saturating_sub(REMEMBERED);
        health.log.drain(..too_many);
        health.log.push(result);
        (health.status != before).then_some(health.status)
    }
}

/// From one time to another; nothing where the clock was set back.
pub(crate) fn since(from: UnixNanos, to: UnixNanos) -> Duration {
    Duration::from_nanos(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

/// What an image says was never checked: too short a time would keep the machine busy.
fn time(nanos: i64, default: Duration) -> Duration {
    match u64::try_from(nanos) {
        Ok(0) | Err(_) => default,
        Ok(n) => Duration::from_nanos(n).max(SHORTEST),
    }
}

/// Checks what a client asks for; 0 stands for the image's or the default.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check(h: &HealthConfig) -> Result<()> {
    let long_enough = |name: &str, nanos: i64| {
        let asked = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        match nanos == 0 || asked >= SHORTEST {
            true => Ok(()),
            false => Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms"))),
        }
    };
    long_enough("Interval", h.interval)?;
    long_enough("Timeout", h.timeout)?;
    if h.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    long_enough("StartPeriod", h.start_period)?;
    long_enough("StartInterval", h.start_interval)
}

/// What a container does not say itself it takes from its image, field by field.
pub(crate) fn inherit(own: &mut Option<HealthConfig>, image: Option<&HealthConfig>) {
    let Some(image) = image else { return };
    let Some(own) = own else {
        *own = Some(image.clone());
        return;
    };
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test.clone_from(&image.test);
    }
    for (mine, theirs) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *mine == 0 {
            *mine = theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn test(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|w| (*w).to_owned()).collect())
    }

    fn plan(words: &[&str], shell: &[&str], change: impl FnOnce(&mut HealthConfig)) -> Option<Plan> {
        let mut config = HealthConfig { test: test(words), ..HealthConfig::default() };
        change(&mut config);
        let shell = Some(shell).filter(|s| !s.is_empty()).and_then(test);
        Plan::of(&RunConfig { healthcheck: Some(config), shell, ..RunConfig::default() })
    }

    #[test]
    fn commands() {
        let command =
            |words: &[&str], shell: &[&str]| plan(words, shell, |_| {}).map(|p| p.command.join("|"));
        assert_eq!(command(&["CMD", "a", "b c"], &[]).as_deref(), Some("a|b c"));
        assert_eq!(command(&["CMD-SHELL", "a b"], &[]).as_deref(), Some("/bin/sh|-c|a b"));
        assert_eq!(command(&["CMD-SHELL", "a b"], &["bash", "-ec"]).as_deref(), Some("bash|-ec|a b"));
        assert_eq!(command(&["CMD", "a"], &["bash", "-ec"]).as_deref(), Some("a"));
        for none in [&["CMD"][..], &["CMD-SHELL"]] {
            assert_eq!(command(none, &[]).as_deref(), Some(""), "{none:?}");
        }
        for off in [&["NONE"][..], &["NONE", "x"], &["BAD", "x"], &["cmd", "x"], &[]] {
            assert_eq!(command(off, &[]), None, "{off:?}");
        }
        assert_eq!(Plan::of(&RunConfig::default()), None);
    }

    #[test]
    fn times_and_their_defaults() {
        let p = plan(&["CMD", "a"], &[], |_| {}).expect("a check");
        let seconds = [p.interval, p.timeout, p.start_period, p.start_interval].map(|d| d.as_secs());
        assert_eq!((seconds, p.retries), ([30, 30, 0, 5], 3));
        let p = plan(&["CMD", "a"], &[], |h| {
            (h.interval, h.timeout, h.start_period, h.start_interval) = (SECOND, 2 * SECOND, 3 * SECOND, 4);
            h.retries = 9;
        });
        let p = p.expect("a check");
        assert_eq!((p.interval.as_secs(), p.timeout.as_secs(), p.start_period.as_secs()), (1, 2, 3));
        assert_eq!((p.start_interval, p.retries), (SHORTEST, 9));
        let p = plan(&["CMD", "a"], &[], |h| (h.interval, h.retries) = (-1, -1)).expect("a check");
        assert_eq!((p.interval, p.retries), (INTERVAL, RETRIES));
    }

    #[test]
    fn it_is_checked_more_often_while_it_starts() {
        let p = plan(&["CMD", "a"], &[], |h| (h.start_period, h.start_interval) = (10 * SECOND, SECOND));
        let pause =
            |status, ran| p.as_ref().expect("a check").pause(status, Duration::from_secs(ran)).as_secs();
        assert_eq!(pause(HealthStatus::Starting, 0), 1);
        assert_eq!(pause(HealthStatus::Starting, 9), 1);
        assert_eq!(pause(HealthStatus::Starting, 10), 30);
        assert_eq!(pause(HealthStatus::Healthy, 0), 30);
        assert_eq!(pause(HealthStatus::Unhealthy, 0), 30);
    }

    /// Plays results (the second in which a check starts, its exit code) of a container that started at 100 s; after each,
    /// the status, the streak, and whether the status is news.
    fn play(p: &Plan, health: &mut Health, results: &[(i64, i32)]) -> Vec<String> {
        let play = |(second, exit_code): &(i64, i32)| {
            let start = (100 + second) * SECOND;
            let result = HealthResult { start, end: start, exit_code: *exit_code, output: String::new() };
            let new = p.judge(health, result, 100 * SECOND);
            assert!(new.is_none_or(|s| s == health.status));
            let news = if new.is_some() { "!" } else { "" };
            format!("{} {}{news}", health.status.word(), health.failing_streak)
        };
        results.iter().map(play).collect()
    }

    #[test]
    fn what_follows_from_results() {
        let p = plan(&["CMD", "a"], &[], |h| h.retries = 2).expect("a check");
        let mut health = Health::default();
        assert_eq!(
            play(&p, &mut health, &[(0, 1), (1, 0), (2, 0), (3, 1), (4, -1), (5, 3), (6, 0), (7, 1)]),
            [
                "starting 1",
                "healthy 0!",
                "healthy 0",
                "healthy 1",
                "unhealthy 2!",
                "unhealthy 3",
                "healthy 0!",
                "healthy 1"
            ]
        );
        let codes: Vec<i32> = health.log.iter().map(|r| r.exit_code).collect();
        assert_eq!(codes, [1, -1, 3, 0, 1]);
    }

    #[test]
    fn failures_while_it_starts_do_not_count() {
        let p =
            plan(&["CMD", "a"], &[], |h| (h.retries, h.start_period) = (1, 10 * SECOND)).expect("a check");
        let early = [(0, 1), (9, 1)];
        assert_eq!(play(&p, &mut Health::default(), &early), ["starting 0", "starting 0"]);
        assert_eq!(play(&p, &mut Health::default(), &[(9, 1), (10, 1)]), ["starting 0", "unhealthy 1!"]);
        // Once it was healthy, they do.
        assert_eq!(play(&p, &mut Health::default(), &[(1, 0), (2, 1)]), ["healthy 0!", "unhealthy 1!"]);
        // The clock may be set back.
        assert_eq!(play(&p, &mut Health::default(), &[(-50, 1)]), ["starting 0"]);
    }

    #[test]
    fn a_container_inherits_what_it_does_not_say() {
        let image = HealthConfig {
            test: test(&["CMD", "a"]),
            interval: 1,
            timeout: 2,
            start_period: 3,
            start_interval: 4,
            retries: 5,
        };
        let merged = |own: Option<HealthConfig>, image: Option<&HealthConfig>| {
            let mut own = own;
            inherit(&mut own, image);
            own
        };
        assert_eq!(merged(None, Some(&image)), Some(image.clone()));
        assert_eq!(merged(None, None), None);
        let own = HealthConfig { interval: 9, retries: 8, ..HealthConfig::default() };
        assert_eq!(merged(Some(own.clone()), None), Some(own.clone()));
        let both = HealthConfig { interval: 9, retries: 8, ..image.clone() };
        assert_eq!(merged(Some(own.clone()), Some(&image)), Some(both.clone()));
        let empty = HealthConfig { test: Some(Vec::new()), ..own.clone() };
        assert_eq!(merged(Some(empty), Some(&image)), Some(both));
        let none = HealthConfig { test: test(&["NONE"]), ..HealthConfig::default() };
        let off = merged(Some(none), Some(&image)).expect("something");
        assert_eq!((off.test, off.interval), (test(&["NONE"]), 1));
    }

    #[test]
    fn dockers_words_for_times() {
        let says = |change: fn(&mut HealthConfig)| {
            let mut h = HealthConfig::default();
            change(&mut h);
            check(&h).map_or_else(|e| e.to_string(), |()| "ok".to_owned())
        };
        assert_eq!(says(|h| h.interval = 1), "Interval in Healthcheck cannot be less than 1ms");
        assert_eq!(says(|h| h.timeout = -SECOND), "Timeout in Healthcheck cannot be less than 1ms");
        assert_eq!(says(|h| h.retries = -1), "Retries in Healthcheck cannot be negative");
        assert_eq!(says(|h| h.start_period = 999_999), "StartPeriod in Healthcheck cannot be less than 1ms");
        assert_eq!(says(|h| h.start_interval = 1), "StartInterval in Healthcheck cannot be less than 1ms");
        assert_eq!(says(|h| h.interval = 1_000_000), "ok");
        assert_eq!(says(|_| {}), "ok");
    }
}
