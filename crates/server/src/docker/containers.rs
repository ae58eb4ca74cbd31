//! Containers: their life and what is known of them.

use std::collections::{BTreeSet, HashMap};

use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use longshore_api::container::{ContainerCreated, ContainerUpdate, ContainerUpdated, WaitError};
use longshore_api::{Change, ContainerCreateBody, ContainersPruned, Top, WaitResponse};
use longshore_engine::model::{self, ListContainers, RemoveOptions, WaitCondition};

use super::route::ContainerOp;
use super::translate::{container, create};
use super::{Answer, Call, archive, body, execs, now_nanos, reply, shape, streams};
use crate::errors::ApiError;

/// `GET /containers/json`.
pub(super) async fn list(call: &Call) -> Answer {
    let limit = call.query.number::<i64>("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let request = ListContainers {
        all: call.query.flag("all"),
        limit,
        size: call.query.flag("size"),
        filters: call.query.filters()?,
    };
    let found = call.engine().list(request).await?;
    let now = now_nanos();
    let mut names = ImageNames::default();
    let mut lines = Vec::with_capacity(found.len());
    for one in found {
        let image = names.shown(call, &one).await;
        let mut line = container::summary(one, image, now);
        shape::container_summary(call.version, &mut line);
        lines.push(line);
    }
    Ok(reply::json(&lines))
}

/// What lists call containers' images: as asked for, as long as that still names the image.
#[derive(Default)]
pub(super) struct ImageNames(HashMap<String, BTreeSet<longshore_oci::Digest>>);

impl ImageNames {
    pub(super) async fn shown(&mut self, call: &Call, c: &model::ContainerSummary) -> String {
        let asked = &c.config.image;
        if !self.0.contains_key(asked) {
            let ids = call.engine().images_of(asked).await.unwrap_or_default();
            self.0.insert(asked.clone(), ids);
        }
        match self.0.get(asked) {
            Some(ids) if ids.contains(&c.image_id) => asked.clone(),
            _ => c.image_id.to_string(),
        }
    }
}

/// `POST /containers/create`.
pub(super) async fn create(call: &Call, request: Request<Incoming>) -> Answer {
    use hyper::body::Body as _;
    body::check_json_type(request.headers(), request.body().size_hint().exact() == Some(0))?;
    let bytes = body::read_all(request.into_body(), call.config()).await?;
    let mut body = ContainerCreateBody::from_slice(&bytes)?;
    shape::create_body(call.version, &mut body);
    let no_kernel_memory =
        body.host_config.as_ref().is_some_and(|h| h.kernel_memory != 0 || h.kernel_memory_tcp != 0);
    let request = create::create_container(call.query.given("name"), call.query.given("platform"), body)?;
    let mut made = call.engine().create(request).await?;
    if no_kernel_memory {
        made.warnings.push("Limits of kernel memory are not supported by the kernel: discarded.".to_owned());
    }
    Ok(reply::json_status(StatusCode::CREATED, &ContainerCreated { id: made.id, warnings: made.warnings }))
}

/// `POST /containers/prune`.
pub(super) async fn prune(call: &Call) -> Answer {
    let done = call.engine().prune_containers(&call.query.filters()?).await?;
    Ok(reply::json(&ContainersPruned {
        containers_deleted: Some(done.deleted).filter(|l| !l.is_empty()),
        space_reclaimed: done.reclaimed,
    }))
}

/// Everything below `/containers/{name}`.
pub(super) async fn one(call: &Call, name: &str, op: ContainerOp, request: Request<Incoming>) -> Answer {
    use ContainerOp as Op;
    let (engine, query) = (call.engine(), &call.query);
    let done = || Ok(reply::empty(StatusCode::NO_CONTENT));
    match op {
        Op::Inspect => {
            let mut found = container::inspect(engine.inspect(name, query.flag("size")).await?);
            shape::container(call.version, &mut found);
            Ok(reply::json(&found))
        }
        Op::Top => {
            let args = query.given("ps_args").unwrap_or("-ef");
            let found = engine.top(name, args).await?;
            Ok(reply::json(&Top { processes: found.rows, titles: found.titles }))
        }
        Op::Changes => {
            let found = engine.changes(name).await?;
            let lines = found.into_iter().map(|c| Change { path: c.path, kind: change_number(c.kind) });
            Ok(reply::json(&lines.collect::<Vec<_>>()))
        }
        Op::Start => {
            start(call, name, &request).await?;
            done()
        }
        Op::Stop => {
            engine.stop(name, signal(call), query.number("t")?).await?;
            done()
        }
        Op::Restart => {
            engine.restart(name, signal(call), query.number("t")?).await?;
            done()
        }
        Op::Kill => {
            engine.kill(name, query.given("signal").map(str::to_owned)).await?;
            done()
        }
        Op::Pause => {
            engine.pause(name).await?;
            done()
        }
        Op::Unpause => {
            engine.unpause(name).await?;
            done()
        }
        Op::Rename => {
            let Some(new) = query.given("name") else {
                return Err(ApiError::invalid("Neither old nor new names may be empty"));
            };
            engine.rename(name, new.strip_prefix('/').unwrap_or(new)).await?;
            done()
        }
        Op::Update => update(call, name, request).await,
        Op::Remove => {
            let options = RemoveOptions {
                force: query.flag("force"),
                volumes: query.flag("v"),
                link: query.flag("link"),
                measure: false,
            };
            engine.remove(name, options).await?;
            done()
        }
        Op::Resize => {
            let (rows, columns) = size(call)?;
            engine.resize(name, rows, columns).await?;
            Ok(reply::empty(StatusCode::OK))
        }
        Op::Wait => wait(call, name).await,
        Op::Logs => streams::logs(call, name).await,
        Op::Attach => streams::attach(call, name, request).await,
        Op::Export => {
            let bytes = engine.export(name).await?;
            Ok(reply::stream(reply::OCTETS, bytes))
        }
        Op::ArchiveStat => archive::stat(call, name).await,
        Op::ArchiveGet => archive::get(call, name).await,
        Op::ArchivePut => archive::put(call, name, request).await,
        Op::Exec => execs::create(call, name, request).await,
        Op::Missing(what) => {
            engine.inspect(name, false).await?;
            Err(ApiError::unimplemented(what))
        }
    }
}

fn change_number(kind: model::ChangeKind) -> u8 {
    match kind {
        model::ChangeKind::Modified => 0,
        model::ChangeKind::Added => 1,
        model::ChangeKind::Deleted => 2,
    }
}

/// The signal that `stop` and `restart` take since 1.42.
fn signal(call: &Call) -> Option<String> {
    call.query.given("signal").filter(|_| !call.version.below(42)).map(str::to_owned)
}

/// Rows and columns of a terminal.
pub(super) fn size(call: &Call) -> Result<(u16, u16), ApiError> {
    let side = |name: &str, what: &str| {
        let text = call.query.text(name);
        text.parse::<u16>()
            .map_err(|_| ApiError::invalid(format!("invalid resize {what} {text:?}: invalid syntax")))
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

async fn start(call: &Call, name: &str, request: &Request<Incoming>) -> Result<(), ApiError> {
    use hyper::body::Body as _;
    // Some clients send `{}` or `null`; more than that was a configuration once.
    let length = request.body().size_hint();
    if length.exact().is_none_or(|n| n > 7) {
        return Err(ApiError::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if call.query.given("checkpoint").is_some() {
        return Err(ApiError::unimplemented("starting from a checkpoint"));
    }
    Ok(call.engine().start(name).await?)
}

/// `POST /containers/{name}/wait`: the head of the answer goes out before the end comes, so that
/// a client knows that it will not miss it.
async fn wait(call: &Call, name: &str) -> Answer {
    let condition = match call.query.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let end = call.engine().wait(name, condition).await?;
    let line = futures_util::stream::once(async move {
        let (status_code, error) = match end.await {
            Ok(result) => (result.code, result.error),
            Err(e) => (-1, Some(e.to_string())),
        };
        let answer = WaitResponse { status_code, error: error.map(|message| WaitError { message }) };
        serde_json::to_vec(&answer).map(bytes::Bytes::from)
    });
    Ok(reply::stream(reply::JSON, line.boxed()))
}

async fn update(call: &Call, name: &str, request: Request<Incoming>) -> Answer {
    let (parts, incoming) = request.into_parts();
    let wanted = body::read_json::<ContainerUpdate>(&parts.headers, incoming, call.config()).await?;
    call.engine().update(name, create::update(wanted.unwrap_or_default())?).await?;
    Ok(reply::json(&ContainerUpdated::default()))
}
