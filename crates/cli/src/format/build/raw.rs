//! A build for programs: BuildKit's status messages (`SolveStatus` of its client) as lines of JSON.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use longshore_oci::Digest;
use serde_json::{Value, json};

use super::{Build, Change, State};

/// When the build began.
#[derive(Debug)]
pub(crate) struct Raw {
    start: Timestamp,
}

impl Raw {
    pub(crate) fn new(start: Timestamp) -> Self {
        Self { start }
    }

    /// The lines for what happened.
    pub(crate) fn take(&self, build: &Build, changes: &[Change], now: Duration) -> String {
        changes.iter().map(|change| format!("{}\n", self.change(build, change, now))).collect()
    }

    fn time(&self, at: Duration) -> Value {
        let time = i64::try_from(at.as_nanos()).ok().map(jiff::SignedDuration::from_nanos);
        let time = time.and_then(|at| self.start.checked_add(at).ok()).unwrap_or(self.start);
        json!(time.to_string())
    }

    fn change(&self, build: &Build, change: &Change, now: Duration) -> Value {
        match change {
            Change::Begun(at) | Change::Ended(at) => json!({"vertexes": [self.vertex(build, *at)]}),
            Change::Line { step, stderr, text } => json!({"logs": [{
                "vertex": vertex(build, *step),
                "stream": if *stderr { 2 } else { 1 },
                "data": STANDARD.encode(format!("{text}\n")),
                "timestamp": self.time(now),
            }]}),
            Change::Note(at, text) => {
                let mut status = json!({
                    "id": text.strip_suffix(" done").unwrap_or(text),
                    "vertex": vertex(build, *at),
                    "timestamp": self.time(now),
                    "started": self.time(build.steps().get(*at).map_or(now, |step| step.begun)),
                });
                if text.ends_with(" done") {
                    status["completed"] = self.time(now);
                }
                json!({"statuses": [status]})
            }
            Change::Warning(text) => {
                json!({"warnings": [{"level": 1, "short": STANDARD.encode(text)}]})
            }
        }
    }

    fn vertex(&self, build: &Build, at: usize) -> Value {
        let Some(step) = build.steps().get(at) else { return Value::Null };
        let mut out = json!({
            "digest": vertex(build, at),
            "name": step.name,
            "started": self.time(step.begun),
        });
        if step.state.is_over() {
            out["completed"] = self.time(step.begun + step.took);
        }
        match &step.state {
            State::Cached => out["cached"] = true.into(),
            State::Failed(why) => out["error"] = why.as_str().into(),
            State::Cancelled => out["error"] = "context canceled".into(),
            _ => {}
        }
        out
    }
}

/// A name for a step that has the form of BuildKit's.
fn vertex(build: &Build, at: usize) -> String {
    let name = build.steps().get(at).map_or("", |step| step.name.as_str());
    Digest::of(format!("{at} {name}").as_bytes()).to_string()
}
