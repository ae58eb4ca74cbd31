//! The event bus: a bounded memory, and a bounded queue per listener.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream;
use longshore_oci::Kind;
use tokio::sync::mpsc;

use crate::filters;
use crate::model::{Event, EventsRequest, Filters, UnixNanos};
use crate::stream::EventStream;
use crate::time::now;
use crate::{Error, Result};

/// Events remembered for `since`.
const REMEMBERED: usize = 512;
/// Events that may wait for one listener; a slower one is cut off.
const QUEUE: usize = 1024;
/// Listeners at a time.
const MAX_LISTENERS: usize = 4096;

const KNOWN: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Names and values that an event carries.
pub(crate) type Attributes = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(crate) struct EventBus {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ring: VecDeque<Event>,
    last: UnixNanos,
    listeners: Vec<mpsc::Sender<Event>>,
}

impl EventBus {
    /// Tells everybody. Never waits.
    pub(crate) fn publish(
        &self,
        kind: &str,
        action: impl Into<String>,
        actor: impl Into<String>,
        attributes: Attributes,
    ) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Times rise strictly, so that a listener can go on from the last one it saw.
        let time = now().max(state.last + 1);
        state.last = time;
        let event =
            Event { kind: kind.to_owned(), action: action.into(), actor: actor.into(), attributes, time };
        if state.ring.len() == REMEMBERED {
            state.ring.pop_front();
        }
        state.ring.push_back(event.clone());
        // A full queue ends its listener: its stream tells why.
        state.listeners.retain(|l| l.try_send(event.clone()).is_ok());
    }

    /// How many listen now.
    pub(crate) fn listeners(&self) -> usize {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.listeners.retain(|l| !l.is_closed());
        state.listeners.len()
    }

    /// Remembered events, then those to come.
    ///
    /// # Errors
    /// For unknown filters and too many listeners.
    pub(crate) fn subscribe(&self, request: EventsRequest) -> Result<EventStream> {
        filters::check_known(&request.filters, &KNOWN)?;
        let (tx, rx) = mpsc::channel(QUEUE);
        let past: VecDeque<Event> = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.listeners.retain(|l| !l.is_closed());
            if state.listeners.len() >= MAX_LISTENERS {
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("more than {MAX_LISTENERS} listeners for events"),
                ));
            }
            state.listeners.push(tx);
            match request.since {
                Some(since) => state.ring.iter().filter(|e| e.time >= since).cloned().collect(),
                None => VecDeque::new(),
            }
        };
        Ok(Box::pin(stream::unfold(Some(Reader { past, rx, request }), Reader::next)))
    }
}

struct Reader {
    past: VecDeque<Event>,
    rx: mpsc::Receiver<Event>,
    request: EventsRequest,
}

impl Reader {
    async fn next(this: Option<Self>) -> Option<(Result<Event>, Option<Self>)> {
        let mut this = this?;
        loop {
            let event = match this.past.pop_front() {
                Some(e) => e,
                None => match this.live().await {
                    Live::Event(e) => e,
                    Live::Over => return None,
                    Live::CutOff => {
                        let e = Error::new(Kind::Unavailable, "events came faster than they were read");
                        return Some((Err(e), None));
                    }
                },
            };
            if this.request.until.is_some_and(|until| event.time > until) {
                return None;
            }
            if wanted(&this.request.filters, &event) {
                return Some((Ok(event), Some(this)));
            }
        }
    }

    async fn live(&mut self) -> Live {
        let received = match self.request.until {
            None => self.rx.recv().await,
            Some(until) => {
                let left = u64::try_from(until.saturating_sub(now())).unwrap_or(0);
                tokio::select! {
                    biased;
                    e = self.rx.recv() => e,
                    () = tokio::time::sleep(Duration::from_nanos(left)) => return Live::Over,
                }
            }
        };
        received.map_or(Live::CutOff, Live::Event)
    }
}

enum Live {
    Event(Event),
    Over,
    CutOff,
}

/// Whether a listener with these filters wants the event.
fn wanted(f: &Filters, event: &Event) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let same = |kind: &str, v: &str, named: &str| {
        event.kind == kind
            // The beginning is enough, as it is for Docker.
            && (event.actor.starts_with(v)
                || attribute(named).is_some_and(|n| n.starts_with(v.strip_prefix('/').unwrap_or(v))))
    };
    let action = event.action.as_str();
    // `exec_create` stands for `exec_create: sh -c ...`.
    let short = action.split(':').next().unwrap_or(action);
    filters::any(f, "event", |v| v == action || v == short)
        && filters::any(f, "type", |v| v == event.kind)
        && filters::any(f, "scope", |v| v == "local")
        && filters::any(f, "container", |v| same("container", v, "name"))
        && filters::any(f, "volume", |v| same("volume", v, "name"))
        && filters::any(f, "network", |v| same("network", v, "name"))
        && filters::any(f, "daemon", |v| same("daemon", v, "name"))
        && filters::any(f, "image", |v| image(event, v))
        && ["plugin", "service", "node", "secret", "config"].iter().all(|n| filters::values(f, n).is_none())
        && filters::labels(f, "label", Some(&event.attributes))
}

/// An image's own events and those of containers made from it; a name without tag stands for all tags.
fn image(event: &Event, v: &str) -> bool {
    let key = match event.kind.as_str() {
        "image" => "name",
        "container" => "image",
        _ => return false,
    };
    let bare = |text: &str| match text.rsplit_once(':') {
        Some((n, tag)) if !tag.contains('/') => n.to_owned(),
        _ => text.to_owned(),
    };
    let name = event.attributes.get(key).map(String::as_str);
    (event.kind == "image" && (event.actor == v || bare(&event.actor) == v))
        || name.is_some_and(|n| n == v || bare(n) == v)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn attrs(pairs: &[(&str, &str)]) -> Attributes {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[tokio::test]
    async fn remembers_and_follows() {
        let bus = EventBus::default();
        bus.publish("container", "create", "c1", attrs(&[("image", "busybox:1")]));
        let request = EventsRequest {
            since: Some(0),
            until: None,
            filters: Filters::from([("image".to_owned(), vec!["busybox".to_owned()])]),
        };
        let mut s = bus.subscribe(request).expect("subscribe");
        bus.publish("container", "start", "c2", attrs(&[("image", "other")]));
        bus.publish("container", "start", "c1", attrs(&[("image", "busybox:1")]));
        let mut got = Vec::new();
        for _ in 0..2 {
            got.push(s.next().await.expect("open").expect("event").action);
        }
        assert_eq!(got, ["create", "start"]);
    }

    #[tokio::test]
    async fn until_in_the_past_ends_after_the_remembered() {
        let bus = EventBus::default();
        bus.publish("volume", "create", "v", Attributes::new());
        let until = now() + 1;
        let s = bus.subscribe(EventsRequest { since: Some(0), until: Some(until), ..Default::default() });
        assert_eq!(s.expect("subscribe").count().await, 1);
    }

    #[tokio::test]
    async fn atk_61_a_slow_reader_is_cut_off() {
        let bus = EventBus::default();
        let s = bus.subscribe(EventsRequest::default()).expect("subscribe");
        for _ in 0..QUEUE + 5 {
            bus.publish("volume", "create", "v", Attributes::new());
        }
        assert_eq!(bus.listeners(), 0);
        let got: Vec<_> = s.collect().await;
        assert_eq!(got.len(), QUEUE + 1);
        assert!(got.last().is_some_and(Result::is_err));
    }

    #[test]
    fn unknown_filters_are_refused() {
        let filters = Filters::from([("x".to_owned(), vec!["y".to_owned()])]);
        assert!(EventBus::default().subscribe(EventsRequest { filters, ..Default::default() }).is_err());
    }

    #[test]
    fn exec_actions_match_without_their_command() {
        let e = Event {
            kind: "container".into(),
            action: "exec_create: sh".into(),
            actor: "c".into(),
            attributes: Attributes::new(),
            time: 1,
        };
        assert!(wanted(&Filters::from([("event".into(), vec!["exec_create".into()])]), &e));
        assert!(!wanted(&Filters::from([("event".into(), vec!["exec_die".into()])]), &e));
    }
}
