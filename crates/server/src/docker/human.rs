//! Texts of `ps`.

use longshore_engine::model::{Health, HealthStatus, State, Status, UnixNanos};

/// How long, as `ps` says it.
pub(crate) fn duration(nanos: i64) -> String {
    let seconds = nanos.max(0) / 1_000_000_000;
    let minutes = seconds / 60;
    let rounded_hours = (seconds + 1800) / 3600;
    match (seconds, minutes, rounded_hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (s, ..) if s < 60 => format!("{s} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, m, _) if m < 60 => format!("{m} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., h) if h < 48 => format!("{h} hours"),
        (.., h) if h < 24 * 7 * 2 => format!("{} days", h / 24),
        (.., h) if h < 24 * 30 * 2 => format!("{} weeks", h / 24 / 7),
        (.., h) if h < 24 * 365 * 2 => format!("{} months", h / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// `Up 5 minutes`, `Exited (0) 2 hours ago`, ...
pub(crate) fn status(state: &State, now: UnixNanos) -> String {
    let up = duration(now.saturating_sub(state.started));
    let ago = duration(now.saturating_sub(state.finished));
    match state.status {
        Status::Running => match &state.health {
            None => format!("Up {up}"),
            Some(h) => format!("Up {up} ({})", health(h)),
        },
        Status::Paused => format!("Up {up} (Paused)"),
        Status::Restarting => format!("Restarting ({}) {ago} ago", state.exit_code),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited if state.finished == 0 => String::new(),
        Status::Exited => format!("Exited ({}) {ago} ago", state.exit_code),
    }
}

/// The others are clear on their own.
fn health(h: &Health) -> &'static str {
    match h.status {
        HealthStatus::Starting => "health: starting",
        status => status.word(),
    }
}

/// The command line; words with spaces stand in quotes.
pub(crate) fn command(path: &str, args: &[String]) -> String {
    let mut line = path.to_owned();
    for arg in args {
        line.push(' ');
        match arg.contains(' ') {
            true => line.push_str(&format!("'{arg}'")),
            false => line.push_str(arg),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_as_people_expect() {
        let of = |s: i64| duration(s * 1_000_000_000);
        assert_eq!(duration(999_999_999), "Less than a second");
        assert_eq!(
            (of(1), of(59), of(60)),
            ("1 second".into(), "59 seconds".into(), "About a minute".into())
        );
        assert_eq!(
            (of(120), of(3599), of(3600)),
            ("2 minutes".into(), "59 minutes".into(), "About an hour".into())
        );
        assert_eq!((of(5400), of(2 * 86400)), ("2 hours".into(), "2 days".into()));
        assert_eq!(
            (of(15 * 86400), of(70 * 86400), of(800 * 86400)),
            ("2 weeks".into(), "2 months".into(), "2 years".into())
        );
        assert_eq!(of(-5), "Less than a second");
    }

    #[test]
    fn states_read_as_ps_shows_them() {
        let state =
            |status| State { status, exit_code: 3, started: 1, finished: 1_000_000_001, ..State::default() };
        let now = 31_000_000_001;
        assert_eq!(status(&state(Status::Running), now), "Up 31 seconds");
        assert_eq!(status(&state(Status::Paused), now), "Up 31 seconds (Paused)");
        assert_eq!(status(&state(Status::Exited), now), "Exited (3) 30 seconds ago");
        assert_eq!(status(&state(Status::Restarting), now), "Restarting (3) 30 seconds ago");
        assert_eq!(status(&State::default(), now), "Created");
        let with = |now_is, h| {
            let health = Some(Health { status: h, ..Health::default() });
            status(&State { health, ..state(now_is) }, now)
        };
        assert_eq!(with(Status::Running, HealthStatus::Starting), "Up 31 seconds (health: starting)");
        assert_eq!(with(Status::Running, HealthStatus::Unhealthy), "Up 31 seconds (unhealthy)");
        assert_eq!(with(Status::Paused, HealthStatus::Unhealthy), "Up 31 seconds (Paused)");
        assert_eq!(with(Status::Exited, HealthStatus::Unhealthy), "Exited (3) 30 seconds ago");
    }

    #[test]
    fn commands_are_quoted() {
        assert_eq!(command("nginx", &["-g".into(), "daemon off;".into()]), "nginx -g 'daemon off;'");
        assert_eq!(command("sleep", &["9".into()]), "sleep 9");
    }
}
