//! `ps`: which containers are wanted.

use std::collections::BTreeSet;
use std::sync::Arc;

use longshore_oci::Digest;

use super::Container;
use crate::filters;
use crate::model::{ContainerSummary, Filters, ListContainers, Status};
use crate::record::Record;
use crate::{Engine, Error, Result, container::ports};

const KNOWN: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];

impl Engine {
    /// Containers, newest first.
    ///
    /// # Errors
    /// For filters that are wrong, in Docker's words.
    pub async fn list(&self, request: ListContainers) -> Result<Vec<ContainerSummary>> {
        self.blocking(move |e| {
            let wanted = e.plan_filters(&request.filters)?;
            let mut found: Vec<(Arc<Container>, Record)> =
                e.all().into_iter().map(|c| (c.clone(), c.record())).collect();
            found.sort_by(|(_, a), (_, b)| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
            // A limit, or a filter on the state, is about all containers.
            let all = request.all || request.limit.is_some() || wanted.all;
            let mut out = Vec::new();
            for (c, record) in found {
                if request.limit.is_some_and(|l| l > 0 && out.len() >= l) {
                    break;
                }
                if (all || record.is_active()) && wanted.takes(&record) {
                    // One that is removed meanwhile is left out.
                    out.extend(e.view(&c, request.size).ok());
                }
            }
            Ok(out)
        })
        .await
    }

    /// Looks up what the filters name.
    fn plan_filters(&self, f: &Filters) -> Result<Wanted> {
        filters::check_known(f, &KNOWN)?;
        let bad = |name: &str, v: &str| Error::invalid(format!("invalid filter '{name}={v}'"));
        let mut wanted = Wanted { filters: f.clone(), ..Wanted::default() };
        for v in filters::values(f, "status").unwrap_or_default() {
            let status = Status::from_word(v).ok_or_else(|| {
                bad("status", v).and(&format!(
                    "invalid value for state ({v}): must be one of created, running, paused, restarting, removing, exited, dead"
                ))
            })?;
            wanted.status.push(status);
            wanted.all = true;
        }
        for v in filters::values(f, "exited").unwrap_or_default() {
            wanted.exited.push(v.parse().map_err(|_| bad("exited", v).and("not a number"))?);
            wanted.all = true;
        }
        for v in filters::values(f, "health").unwrap_or_default() {
            if !["starting", "healthy", "unhealthy", "none"].contains(&v.as_str()) {
                return Err(bad("health", v).and(&format!(
                    "invalid value for health ({v}): must be one of none, starting, healthy, unhealthy"
                )));
            }
        }
        if let Some(v) = filters::values(f, "isolation").and_then(|v| v.first()) {
            return Err(bad("isolation", v));
        }
        wanted.is_task = filters::flag(f, "is-task")?;
        for name in ["before", "since"] {
            for v in filters::values(f, name).unwrap_or_default() {
                let created = self.find(v)?.read().record.created;
                let slot = if name == "before" { &mut wanted.before } else { &mut wanted.since };
                *slot = Some(match *slot {
                    Some(old) if name == "before" => created.min(old),
                    Some(old) => created.max(old),
                    None => created,
                });
            }
            if filters::values(f, name).is_some() {
                wanted.all = true;
            }
        }
        if let Some(values) = filters::values(f, "ancestor") {
            wanted.ancestors = Some(self.descendants(values));
        }
        for v in filters::values(f, "network").unwrap_or_default() {
            if let Ok(n) = self.inner.networks.find(v) {
                wanted.networks.insert(n.name.clone());
            }
        }
        for name in ["expose", "publish"] {
            for v in filters::values(f, name).unwrap_or_default() {
                let keys = ports::expose_keys(v).map_err(|_| bad(name, v))?;
                if name == "expose" { wanted.exposed.extend(keys) } else { wanted.published.extend(keys) }
            }
        }
        Ok(wanted)
    }

    /// The named images and all made from them.
    fn descendants(&self, names: &[String]) -> BTreeSet<Digest> {
        let images = self.inner.store.images();
        let roots: Vec<_> = names.iter().filter_map(|n| images.resolve(n).ok()).collect();
        let mut out: BTreeSet<Digest> = roots.iter().map(|r| r.id).collect();
        for candidate in images.list().unwrap_or_default() {
            if roots.iter().any(|r| !r.layers.is_empty() && candidate.layers.starts_with(&r.layers)) {
                out.insert(candidate.id);
            }
        }
        out
    }
}

/// Filters after their names were looked up.
#[derive(Debug, Default)]
struct Wanted {
    filters: Filters,
    all: bool,
    status: Vec<Status>,
    exited: Vec<i32>,
    is_task: Option<bool>,
    before: Option<i64>,
    since: Option<i64>,
    ancestors: Option<BTreeSet<Digest>>,
    networks: BTreeSet<String>,
    exposed: BTreeSet<String>,
    published: BTreeSet<String>,
}

impl Wanted {
    fn takes(&self, r: &Record) -> bool {
        let f = &self.filters;
        let listed = |set: &BTreeSet<String>, name: &str, has: &dyn Fn(&str) -> bool| {
            filters::values(f, name).is_none() || set.iter().any(|v| has(v))
        };
        let ended = matches!(r.state.status, Status::Exited | Status::Dead) && r.has_run;
        let exposed = |wanted: &str| {
            let keys = r.config.run.exposed_ports.iter().flatten().map(|(key, _)| key);
            keys.filter_map(|key| ports::parse(key).ok()).any(|range| ports::is_in(wanted, &range))
        };
        let published = |wanted: &str| {
            r.ports.iter().any(|p| {
                let last = p.container_port.saturating_add(p.count - 1);
                ports::is_in(wanted, &(p.container_port..=last, p.transport.to_string()))
                    || ports::is_in(wanted, &(p.host_port..=p.last(), p.transport.to_string()))
            })
        };
        (self.status.is_empty() || self.status.contains(&r.state.status))
            && (self.exited.is_empty() || (ended && self.exited.contains(&r.state.exit_code)))
            && self.is_task != Some(true)
            && self.before.is_none_or(|t| r.created < t)
            && self.since.is_none_or(|t| r.created > t)
            && self.ancestors.as_ref().is_none_or(|a| a.contains(&r.image))
            && listed(&self.networks, "network", &|n| r.networks.contains_key(n))
            && listed(&self.exposed, "expose", &exposed)
            && listed(&self.published, "publish", &published)
            && filters::any(f, "health", |v| v == r.state.health.as_ref().map_or("none", |h| h.status.word()))
            && filters::any(f, "id", |v| r.id.starts_with(v))
            && filters::any(f, "name", |v| {
                filters::pattern(v, &r.name) || filters::pattern(v, &format!("/{}", r.name))
            })
            && filters::any(f, "volume", |v| {
                r.mounts.iter().any(|m| m.name == v || m.destination == v || m.source.to_string_lossy() == v)
            })
            && filters::labels(f, "label", r.labels())
            && filters::not_labels(f, r.labels())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        assert_eq!(Status::from_word("running"), Some(Status::Running));
        assert_eq!(Status::from_word("foo"), None);
    }
}
