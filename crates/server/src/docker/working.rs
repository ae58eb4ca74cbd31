//! Working containers: routes of our own, below `/longshore/working`.

use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, Request, StatusCode};
use longshore_api::IdResponse;
use longshore_api::working::{COPY, Configured, Copied, CopyHead, Mounted, RunCommand, WorkingChange};
use longshore_engine::BuildRemote;
use longshore_engine::model::{ImageAccess, NewWorking, PullPolicy, WorkingCommit, WorkingCopy, WorkingRun};
use longshore_oci::Platform;

use super::images::repo_tag;
use super::translate::working as translate;
use super::{Answer, Call, body, build, containers, images, registry, reply, streams};
use crate::errors::ApiError;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    List,
    Make,
    Inspect(String),
    Remove(String),
    Rename(String),
    Config(String),
    Copy(String),
    Run(String),
    RunStart(String),
    RunResize(String),
    RunState(String),
    Mount(String),
    Unmount(String),
    Commit(String),
}

/// Finds the operation of a path below `/longshore/`.
pub(super) fn find(method: &Method, rest: &str) -> Option<Op> {
    let (get, post) = (method == Method::GET, method == Method::POST);
    let parts: Vec<&str> = rest.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    match parts.as_slice() {
        ["working"] if get => Some(Op::List),
        ["working"] if post => Some(Op::Make),
        ["working", name] if get => Some(Op::Inspect((*name).to_owned())),
        ["working", name] if method == Method::DELETE => Some(Op::Remove((*name).to_owned())),
        ["working", "run", id] if get => Some(Op::RunState((*id).to_owned())),
        ["working", "run", id, "start"] if post => Some(Op::RunStart((*id).to_owned())),
        ["working", "run", id, "resize"] if post => Some(Op::RunResize((*id).to_owned())),
        ["working", name, verb] if post => {
            let name = (*name).to_owned();
            match *verb {
                "rename" => Some(Op::Rename(name)),
                "config" => Some(Op::Config(name)),
                "copy" => Some(Op::Copy(name)),
                "run" => Some(Op::Run(name)),
                "mount" => Some(Op::Mount(name)),
                "umount" => Some(Op::Unmount(name)),
                "commit" => Some(Op::Commit(name)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Answers it.
pub(super) async fn answer(call: &Call, op: Op, request: Request<Incoming>) -> Answer {
    let engine = call.engine();
    match op {
        Op::List => {
            let all = engine.list_working();
            Ok(reply::json(&all.into_iter().map(translate::working).collect::<Vec<_>>()))
        }
        Op::Make => make(call, request.headers()).await,
        Op::Inspect(name) => Ok(reply::json(&translate::working(engine.inspect_working(&name).await?))),
        Op::Remove(name) => Ok(reply::json(&IdResponse { id: engine.remove_working(&name).await? })),
        Op::Rename(name) => {
            engine.rename_working(&name, call.query.text("name")).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        Op::Config(name) => {
            let change = read::<WorkingChange>(call, request).await?;
            let warnings = engine.configure_working(&name, translate::change(change)).await?;
            Ok(reply::json(&Configured { warnings }))
        }
        Op::Copy(name) => copy(call, &name, request).await,
        Op::Run(name) => run(call, &name, request).await,
        Op::RunStart(id) => start(call, &id, request).await,
        Op::RunResize(id) => {
            let (rows, columns) = containers::size(call)?;
            engine.resize_working_run(&id, rows, columns).await?;
            Ok(reply::empty(StatusCode::OK))
        }
        Op::RunState(id) => Ok(reply::json(&translate::run_state(engine.working_run(&id).await?))),
        Op::Mount(name) => {
            let mount_point = engine.mount_working(&name).await?;
            Ok(reply::json(&Mounted { id: String::new(), mount_point }))
        }
        Op::Unmount(name) => {
            let id = engine.unmount_working(&name).await?.unwrap_or_default();
            Ok(reply::json(&Mounted { id, mount_point: String::new() }))
        }
        Op::Commit(name) => commit(call, &name).await,
    }
}

async fn read<T: serde::de::DeserializeOwned + Default>(
    call: &Call,
    request: Request<Incoming>,
) -> Result<T, ApiError> {
    let (parts, incoming) = request.into_parts();
    Ok(body::read_json::<T>(&parts.headers, incoming, call.config()).await?.unwrap_or_default())
}

async fn make(call: &Call, headers: &HeaderMap) -> Answer {
    let query = &call.query;
    let image = query.given("image").ok_or_else(|| ApiError::invalid("parameter image is missing"))?;
    let request = NewWorking {
        image: image.to_owned(),
        name: query.given("name").map(str::to_owned),
        access: access(headers, query.text("pull"), images::platform(call)?)?,
    };
    let events = call.engine().make_working(request).await?;
    let lines = events.map(|event| Ok::<_, Infallible>(reply::json_line(&translate::line(event))));
    Ok(reply::stream(reply::NDJSON, lines))
}

fn access(headers: &HeaderMap, pull: &str, platform: Option<Platform>) -> Result<ImageAccess, ApiError> {
    let pull = match pull {
        "" | "missing" => PullPolicy::Missing,
        "always" => PullPolicy::Always,
        "never" => PullPolicy::Never,
        other => {
            return Err(ApiError::invalid(format!("invalid pull {other:?}: want missing, always or never")));
        }
    };
    Ok(ImageAccess { pull, platform, credentials: registry::all_credentials(headers)? })
}

async fn copy(call: &Call, name: &str, request: Request<Incoming>) -> Answer {
    let (parts, incoming) = request.into_parts();
    let kind = parts.headers.get(CONTENT_TYPE).map(|v| v.as_bytes());
    if kind != Some(COPY.as_bytes()) {
        return Err(ApiError::invalid(format!("a copy has to be sent as {COPY}")));
    }
    let bytes = body::upload(incoming, call.config().upload_idle);
    let (head, files) = build::read_head::<CopyHead>(bytes).await?;
    let bytes = |text: &String| {
        STANDARD.decode(text).map_err(|_| ApiError::invalid("a path of the copy is not base64"))
    };
    let list = |texts: &[String]| texts.iter().map(bytes).collect::<Result<Vec<_>, _>>();
    let platform = Some(head.platform.as_str()).filter(|p| !p.is_empty());
    let platform = platform.map(str::parse::<Platform>).transpose();
    let platform = platform.map_err(|e| ApiError::invalid(format!("invalid platform: {e}")))?;
    let wanted = WorkingCopy {
        add: head.add,
        remote: remote(&head)?,
        sources: list(&head.sources)?,
        dest: bytes(&head.dest)?,
        exclude: list(&head.exclude)?,
        access: access(&parts.headers, &head.pull, platform)?,
        from: Some(head.from).filter(|f| !f.is_empty()),
        owner: head.chown,
        mode: head.chmod,
        parents: head.parents,
        add_history: head.add_history,
    };
    let digest = call.engine().copy_working(name, wanted, Some(files)).await?;
    Ok(reply::json(&Copied { digest: digest.to_string() }))
}

/// What is fetched, and what it has to be.
fn remote(head: &CopyHead) -> Result<Option<BuildRemote>, ApiError> {
    let wrong = |why: String| ApiError::invalid(format!("invalid source: {why}"));
    if head.remote.is_empty() {
        let given = head.keep_git_dir || !head.checksum.is_empty();
        let without = || wrong("a checksum and keep-git-dir are for what is fetched".into());
        return if given { Err(without()) } else { Ok(None) };
    }
    let mut remote = build::remote(&head.remote)?;
    remote.expect(&head.checksum).and_then(|()| remote.keep_git_dir(head.keep_git_dir)).map_err(wrong)?;
    Ok(Some(remote))
}

async fn run(call: &Call, name: &str, request: Request<Incoming>) -> Answer {
    let access = access(request.headers(), "", None)?;
    let wanted = read::<RunCommand>(call, request).await?;
    let wanted = WorkingRun {
        cmd: wanted.cmd,
        agents: build::agents(wanted.agents)?,
        cap_add: wanted.cap_add,
        cap_drop: wanted.cap_drop,
        env: wanted.env,
        user: wanted.user,
        working_dir: wanted.working_dir,
        hostname: wanted.hostname,
        network: build::network(&wanted.network)?,
        hosts: wanted.hosts,
        binds: wanted.binds,
        mounts: wanted.mounts,
        secrets: build::secrets(wanted.secrets)?,
        tty: wanted.tty,
        stdin: wanted.attach_stdin,
        add_history: wanted.add_history,
        access,
    };
    let id = call.engine().create_working_run(name, wanted).await?;
    Ok(reply::json_status(StatusCode::CREATED, &IdResponse { id }))
}

async fn start(call: &Call, id: &str, mut request: Request<Incoming>) -> Answer {
    let takeover = streams::takeover(&mut request)?;
    let size = match call.query.given("h") {
        Some(_) => Some(containers::size(call)?).map(|(rows, columns)| (columns, rows)),
        None => None,
    };
    let session = call.engine().start_working_run(id, size).await?;
    takeover.start(call.version, streams::session(session), None)
}

async fn commit(call: &Call, name: &str) -> Answer {
    let query = &call.query;
    let request = WorkingCommit {
        reference: repo_tag(query.text("repo"), query.text("tag"))?,
        created: query.number::<i64>("created")?,
        mtime: query.number::<i64>("mtime")?,
        squash: query.flag("squash"),
        remove: query.flag("rm"),
    };
    let id = call.engine().commit_working(name, request).await?;
    Ok(reply::json_status(StatusCode::CREATED, &IdResponse { id: id.to_string() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let at = |line: &str| {
            let (method, path) = line.split_once(' ').unwrap();
            find(&method.parse().unwrap(), path)
        };
        assert_eq!(at("GET working"), Some(Op::List));
        assert_eq!(at("POST working"), Some(Op::Make));
        assert_eq!(at("DELETE working/x"), Some(Op::Remove("x".into())));
        assert_eq!(at("POST working/x/run"), Some(Op::Run("x".into())));
        assert_eq!(at("POST working/run/mount"), Some(Op::Mount("run".into())));
        assert_eq!(at("POST working/run/5/start"), Some(Op::RunStart("5".into())));
        assert_eq!(at("GET working/run/5"), Some(Op::RunState("5".into())));
        for none in [
            "GET working/",
            "PUT working",
            "GET working/x/run",
            "POST working/x",
            "POST working/x/y",
            "GET w",
        ] {
            assert_eq!(at(none), None, "{none}");
        }
    }
}
