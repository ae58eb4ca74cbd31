//! `system check`: the store's check, with what the engine knows of records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream;
use longshore_store::check::{CheckEvent as Event, CheckOptions, Finding, Outcome, Report};
use longshore_store::meta::Table;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::model::{CheckEvent, CheckFinding, CheckReport, CheckRequest, Volume};
use crate::stream::BoxStream;
use crate::{Engine, network, record, working};

const QUEUE: usize = 32;

impl Engine {
    /// Checks the store, and mends it if that is asked for. A check whose stream is dropped ends with the object that it
    /// is at; a repair goes on.
    pub fn check(&self, request: CheckRequest) -> BoxStream<CheckEvent> {
        let (tx, rx) = mpsc::channel(QUEUE);
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let last = match engine.check_blocking(request, &tx) {
                Ok(report) => CheckEvent::Done(report_of(&report)),
                Err(e) => CheckEvent::Failed(e.to_string()),
            };
            let _ = tx.blocking_send(last);
        });
        Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) }))
    }

    fn check_blocking(
        &self,
        request: CheckRequest,
        tx: &mpsc::Sender<CheckEvent>,
    ) -> Result<Report, longshore_store::Error> {
        let gone = Arc::new(AtomicBool::new(false));
        let tell = |event: Event<'_>| {
            let event = match event {
                Event::Reading { object, done, total } => {
                    CheckEvent::Reading { object: object.to_owned(), done, total }
                }
                Event::Found(finding) => CheckEvent::Found(finding_of(finding)),
                Event::Repaired(finding) => CheckEvent::Repaired(finding_of(finding)),
            };
            gone.fetch_or(tx.blocking_send(event).is_err(), Ordering::Relaxed);
        };
        let alone = |f: &mut dyn FnMut()| {
            let _alone = self.inner.image_use.blocking_write();
            f();
        };
        let fetcher = self.inner.registry.fetcher();
        let options = CheckOptions {
            quick: request.quick,
            repair: request.repair,
            fetch: Some(&fetcher),
            decode: Some(&decode),
            alone: Some(&alone),
            stop: Some(&*gone).filter(|_| !request.repair),
        };
        self.inner.store.check(&options, &tell)
    }
}

/// What keeps a record from being understood.
fn decode(table: Table, key: &str, value: &Value) -> Result<(), String> {
    fn as_a<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
        T::deserialize(value).map(drop).map_err(|e| format!("its record is not understood: {e}"))
    }
    match table {
        Table::Containers => {
            as_a::<record::Record>(value)?;
            match value["id"] == key {
                true => Ok(()),
                false => Err(format!("its record is of {}", value["id"])),
            }
        }
        Table::Working => working::decode(value),
        Table::Networks => as_a::<network::Record>(value),
        Table::Volumes => as_a::<Volume>(value),
        _ => Ok(()),
    }
}

fn finding_of(f: &Finding) -> CheckFinding {
    let (outcome, detail) = match &f.outcome {
        Outcome::Found => ("found", String::new()),
        Outcome::Repaired(done) => ("repaired", done.clone()),
        Outcome::Failed(why) => ("failed", why.clone()),
    };
    CheckFinding {
        kind: f.kind.as_str(),
        object: f.object.clone(),
        what: f.what.clone(),
        remedy: f.remedy.clone().unwrap_or_default(),
        outcome,
        detail,
        damage: f.is_damage(),
    }
}

fn report_of(r: &Report) -> CheckReport {
    CheckReport {
        findings: r.findings.iter().map(finding_of).collect(),
        damaged: r.damaged(),
        images: r.checked.images,
        layers: r.checked.layers,
        blobs: r.checked.blobs,
        containers: r.checked.containers,
        bytes: r.checked.bytes,
    }
}
