//! A build as it happens, for our own command line.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longshore_api::build::{BuildDone, BuildExport, BuildLine, BuildRow, BuildTask};
use longshore_engine::BuildAsk;
use longshore_engine::model::{self, BuildEvent};

use super::build_order::Text;
use super::translate::image;

/// Puts events into lines.
#[derive(Default)]
pub(super) struct Lines {
    /// Output by row and stream: its pieces may be cut in the middle of a character.
    texts: BTreeMap<(usize, bool), Text>,
}

impl Lines {
    pub(super) fn push(&mut self, event: BuildEvent) -> Vec<BuildLine> {
        let mut out = Vec::new();
        if let BuildEvent::Done { row, .. } | BuildEvent::Failed { row: Some(row), .. } = &event {
            self.end(*row, &mut out);
        }
        out.extend(self.line(event));
        out
    }

    fn end(&mut self, row: usize, out: &mut Vec<BuildLine>) {
        for stderr in [false, true] {
            let rest = self.texts.remove(&(row, stderr)).map(|mut text| text.end());
            out.extend(rest.filter(|r| !r.is_empty()).map(|text| BuildLine::Output { row, stderr, text }));
        }
    }

    fn line(&mut self, event: BuildEvent) -> Option<BuildLine> {
        Some(match event {
            BuildEvent::Ask { context, ask: BuildAsk::Tree(sources) } => {
                let sources = sources.into_iter().map(|source| STANDARD.encode(source)).collect();
                BuildLine::Tree { context, sources }
            }
            BuildEvent::Ask { context, ask: BuildAsk::Files(places) } => {
                let places = places.into_iter().map(|places| (places.start, places.end)).collect();
                BuildLine::Files { context, places }
            }
            BuildEvent::Pull(e) => BuildLine::Pull { progress: image::progress(e) },
            BuildEvent::Plan(rows) => BuildLine::Plan {
                rows: rows
                    .into_iter()
                    .map(|r| BuildRow { text: r.text, stage: r.stage, platform: r.platform, line: r.line })
                    .collect(),
            },
            BuildEvent::Started(row) => BuildLine::Started { row },
            BuildEvent::Running { row, container } => BuildLine::Running { row, container },
            BuildEvent::Output { row, stderr, bytes } => {
                let text = self.texts.entry((row, stderr)).or_default().push(&bytes);
                if text.is_empty() {
                    return None;
                }
                BuildLine::Output { row, stderr, text }
            }
            BuildEvent::Explained { row, why } => BuildLine::Explained { row, why },
            BuildEvent::Done { row, done, image, size, took } => BuildLine::Done {
                row,
                how: match done {
                    model::BuildDone::Noted => BuildDone::Noted,
                    model::BuildDone::Made => BuildDone::Made,
                    model::BuildDone::Cached => BuildDone::Cached,
                    model::BuildDone::Shared => BuildDone::Shared,
                },
                image: image.to_string(),
                size,
                took: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            },
            BuildEvent::Warning(text) => BuildLine::Warning { text },
            BuildEvent::Lint { rule, message, line } => {
                BuildLine::Warning { text: format!("{rule}: {message} (line {line})") }
            }
            BuildEvent::Task { name, said } => {
                let (state, text) = match said {
                    model::BuildTask::Begun => (BuildTask::Running, String::new()),
                    model::BuildTask::Note(text) => (BuildTask::Running, text),
                    model::BuildTask::Done => (BuildTask::Done, String::new()),
                    model::BuildTask::Failed(text) => (BuildTask::Failed, text),
                };
                BuildLine::Task { name, state, text }
            }
            BuildEvent::Checked(count) => BuildLine::Checked { count },
            BuildEvent::Export { what, bytes } => {
                BuildLine::Export { what: export(what), data: STANDARD.encode(bytes) }
            }
            BuildEvent::Exported { what, id } => {
                BuildLine::Exported { what: export(what), id: id.map(|id| id.to_string()) }
            }
            BuildEvent::Left(id) => BuildLine::Left { id: id.to_string() },
            BuildEvent::Built(id) => BuildLine::Built { id: id.to_string() },
            BuildEvent::Tagged(name) => BuildLine::Tagged { name: name.familiar() },
            BuildEvent::Failed { message, code, row } => BuildLine::Failed { message, code, row },
        })
    }
}

fn export(what: model::BuildExport) -> BuildExport {
    match what {
        model::BuildExport::Tree => BuildExport::Tree,
        model::BuildExport::Archive => BuildExport::Archive,
    }
}
