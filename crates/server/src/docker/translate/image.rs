//! Images as clients see them.

use longshore_api::container::{GraphDriver, HealthConfig};
use longshore_api::image as api;
use longshore_api::time::{rfc3339_nano, tidy_rfc3339};
use longshore_api::{HistoryItem, ImageDelete, ImageInspect, ImageSummary, JsonMessage};
use longshore_engine::model;
use longshore_oci::Reference;
use longshore_oci::image::RunConfig;

use super::container::signed;

/// In the order of the full names, as Docker lists them.
fn familiar(references: &[Reference]) -> Vec<String> {
    let mut references: Vec<&Reference> = references.iter().collect();
    references.sort_by_cached_key(|r| r.to_string());
    references.into_iter().map(Reference::familiar).collect()
}

/// `GET /images/{name}/json`.
pub(crate) fn inspect(v: model::ImageView) -> ImageInspect {
    let doc = v.document;
    let last_comment = || doc.history.last().and_then(|h| h.comment.clone());
    ImageInspect {
        id: v.id.to_string(),
        repo_tags: familiar(&v.tags),
        repo_digests: familiar(&v.digests),
        parent: v.parent.map(|p| p.to_string()).unwrap_or_default(),
        comment: doc.comment.clone().filter(|c| !c.is_empty()).or_else(last_comment).unwrap_or_default(),
        created: doc.created.as_deref().map(tidy_rfc3339).unwrap_or_default(),
        container: doc.container.unwrap_or_default(),
        container_config: None,
        docker_version: doc.docker_version.unwrap_or_default(),
        author: doc.author.unwrap_or_default(),
        config: Some(config(doc.config.unwrap_or_default())),
        architecture: doc.architecture,
        variant: doc.variant.unwrap_or_default(),
        os: doc.os,
        os_version: doc.os_version.unwrap_or_default(),
        size: signed(v.size),
        virtual_size: 0,
        graph_driver: GraphDriver { data: Some(v.graph), name: v.driver },
        root_fs: api::RootFs {
            kind: "layers".to_owned(),
            layers: doc.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
        },
        metadata: api::ImageMetadata { last_tag_time: rfc3339_nano(v.last_tagged) },
    }
}

fn config(c: RunConfig) -> api::ImageConfig {
    api::ImageConfig {
        container_only: None,
        args_escaped: c.args_escaped,
        cmd: c.cmd,
        entrypoint: c.entrypoint,
        env: c.env,
        exposed_ports: c.exposed_ports,
        healthcheck: c.healthcheck.map(|h| HealthConfig {
            test: h.test,
            interval: h.interval,
            timeout: h.timeout,
            start_period: h.start_period,
            start_interval: h.start_interval,
            retries: h.retries,
        }),
        labels: c.labels,
        on_build: c.on_build,
        shell: c.shell,
        stop_signal: c.stop_signal.unwrap_or_default(),
        user: c.user,
        volumes: c.volumes,
        working_dir: c.working_dir,
    }
}

/// A line of `GET /images/json`.
pub(crate) fn summary(v: &model::ImageView) -> ImageSummary {
    ImageSummary {
        containers: v.containers,
        created: v.created.div_euclid(1_000_000_000),
        id: v.id.to_string(),
        labels: v.document.config.as_ref().and_then(|c| c.labels.clone()),
        parent_id: v.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        repo_digests: Some(familiar(&v.digests)),
        repo_tags: Some(familiar(&v.tags)),
        shared_size: v.shared_size,
        size: signed(v.size),
        virtual_size: 0,
    }
}

/// A line of `GET /images/{name}/history`.
pub(crate) fn history(h: model::HistoryEntry) -> HistoryItem {
    HistoryItem {
        comment: h.comment,
        created: h.created.div_euclid(1_000_000_000),
        created_by: h.created_by,
        id: h.id.map_or_else(|| "<missing>".to_owned(), |id| id.to_string()),
        size: signed(h.size),
        tags: Some(familiar(&h.tags)).filter(|t| !t.is_empty()),
    }
}

/// A line of the answer to a removal.
pub(crate) fn deleted(d: model::ImageDeleted) -> ImageDelete {
    match d {
        model::ImageDeleted::Untagged(name) => ImageDelete { untagged: Some(name), deleted: None },
        model::ImageDeleted::Deleted(id) => ImageDelete { untagged: None, deleted: Some(id.to_string()) },
    }
}

/// A line of a progress stream.
pub(crate) fn progress(e: model::ProgressEvent) -> JsonMessage {
    if let Some(error) = e.error {
        return JsonMessage::failed(&error);
    }
    let detail = api::ProgressDetail { current: e.current.unwrap_or(0), total: e.total.unwrap_or(0) };
    let titled = e.title || e.id.is_none();
    let has_detail = e.current.is_some() || e.total.is_some() || (e.status.is_some() && !titled);
    let aux =
        e.pushed.map(|p| serde_json::json!({"Tag": p.tag, "Digest": p.digest.to_string(), "Size": p.size}));
    JsonMessage {
        stream: e.stream,
        status: e.status,
        progress: Some(bar(detail.current, detail.total)).filter(|b| !b.is_empty()),
        progress_detail: (has_detail || aux.is_some()).then_some(detail),
        aux,
        id: e.id,
        ..JsonMessage::default()
    }
}

/// Progress as Docker's daemon draws it for clients that only print: 200 columns wide.
fn bar(current: u64, total: u64) -> String {
    match (current, total) {
        (0, 0) => String::new(),
        (_, 0) => format!("{:>8}", human_size(current)),
        _ => {
            let half = usize::try_from((u128::from(current) * 50 / u128::from(total)).min(50)).unwrap_or(50);
            let numbers = match current > total {
                true => format!("{:>8}", human_size(current)),
                false => format!("{:>8}/{}", human_size(current), human_size(total)),
            };
            format!("[{}>{}] {numbers}", "=".repeat(half), " ".repeat(50 - half))
        }
    }
}

/// Four digits and a decimal unit: `32.77kB`.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    // Go's %.4g.
    let digits = match size {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        s if s < 1000.0 => 1,
        _ => 0,
    };
    let text = format!("{size:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use longshore_oci::image::{History, ImageDocument, RootFs};
    use serde_json::Value;

    use super::*;

    #[test]
    fn inspect_is_what_the_reference_answered() {
        let theirs: Value =
            serde_json::from_str(include_str!("../../../../api/tests/fixtures/image.json")).unwrap();
        let layers = theirs["RootFS"]["Layers"].as_array().unwrap();
        let view = model::ImageView {
            id: theirs["Id"].as_str().unwrap().parse().unwrap(),
            tags: vec!["nginx:latest".parse().unwrap()],
            digests: vec![],
            parent: None,
            document: ImageDocument {
                created: Some("2026-11-23T21:31:17.448503161Z".into()),
                architecture: "amd64".into(),
                os: "linux".into(),
                config: Some(serde_json::from_value(theirs["Config"].clone()).unwrap()),
                rootfs: RootFs {
                    kind: "layers".into(),
                    diff_ids: layers.iter().map(|l| l.as_str().unwrap().parse().unwrap()).collect(),
                },
                history: vec![History {
                    comment: Some("buildkit.dockerfile.v0".into()),
                    ..History::default()
                }],
                ..ImageDocument::default()
            },
            created: 1_795_469_477_448_503_161,
            size: 265_320_937,
            last_tagged: 0,
            driver: "overlay2".into(),
            graph: serde_json::from_value(theirs["GraphDriver"]["Data"].clone()).unwrap(),
            containers: 1,
            shared_size: -1,
        };
        let line = serde_json::to_value(summary(&view)).unwrap();
        assert_eq!(serde_json::to_value(inspect(view)).unwrap(), theirs);
        assert_eq!((&line["Created"], &line["Containers"]), (&1_795_469_477.into(), &1.into()));
        assert_eq!((&line["RepoDigests"], &line["Labels"]), (&serde_json::json!([]), &Value::Null));
    }

    #[test]
    fn progress_lines() {
        let text = |e| serde_json::to_string(&progress(e)).unwrap();
        let failed = model::ProgressEvent { error: Some("unexpected EOF".into()), ..Default::default() };
        assert_eq!(text(failed), r#"{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}"#);
        let layer = model::ProgressEvent {
            status: Some("Loading layer".into()),
            id: Some("e321".into()),
            current: Some(1),
            total: Some(2),
            ..Default::default()
        };
        assert_eq!(
            text(layer),
            r#"{"status":"Loading layer","progressDetail":{"current":1,"total":2},"progress":"[=========================>                         ]       1B/2B","id":"e321"}"#
        );
        assert_eq!(
            bar(32_768, 1_085_508),
            "[=>                                                 ]  32.77kB/1.086MB"
        );
        assert_eq!(
            bar(2_426_880, 1_982_441),
            "[==================================================>]  2.427MB"
        );
        let title = model::ProgressEvent {
            status: Some("Pulling from a/bb".into()),
            id: Some("1".into()),
            title: true,
            ..Default::default()
        };
        assert_eq!(text(title), r#"{"status":"Pulling from a/bb","id":"1"}"#);
        let pushed = model::Pushed { tag: "1".into(), digest: longshore_oci::Digest::of(b""), size: 527 };
        let line = text(model::ProgressEvent { pushed: Some(pushed), ..Default::default() });
        assert!(line.starts_with(r#"{"progressDetail":{},"aux":{"Tag":"1","Digest":"sha256:e3b0"#), "{line}");
        let done = model::ProgressEvent { stream: Some("Loaded image: a:1\n".into()), ..Default::default() };
        assert_eq!(text(done), r#"{"stream":"Loaded image: a:1\n"}"#);
    }
}
