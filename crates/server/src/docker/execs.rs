//! Execs: further processes in a running container.

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use longshore_api::{ExecCreate, ExecStart, IdResponse};
use longshore_engine::model::{OutputChunk, OutputStream};
use longshore_oci::Kind;

use super::hijack::Session;
use super::keys::DetachKeys;
use super::translate::{container, create};
use super::{Answer, Call, body, containers, reply, shape, streams};
use crate::errors::ApiError;

/// `POST /containers/{name}/exec`.
pub(super) async fn create(call: &Call, name: &str, request: Request<Incoming>) -> Answer {
    let (parts, incoming) = request.into_parts();
    let read = body::read_json::<ExecCreate>(&parts.headers, incoming, call.config()).await?;
    let mut exec = read.unwrap_or_default();
    shape::exec_create(call.version, &mut exec);
    if exec.cmd.as_ref().is_none_or(|c| c.0.is_empty()) {
        return Err(ApiError::invalid("No exec command specified"));
    }
    DetachKeys::parse(&exec.detach_keys)
        .map_err(|_| ApiError::invalid(format!("Invalid escape keys ({}) provided", exec.detach_keys)))?;
    let id = call.engine().create_exec(name, create::create_exec(exec)).await?;
    Ok(reply::json_status(StatusCode::CREATED, &IdResponse { id }))
}

/// `GET /exec/{id}/json`.
pub(super) async fn inspect(call: &Call, id: &str) -> Answer {
    let found = call.engine().inspect_exec(id).await?;
    let keys = found.request.detach_keys.as_deref().and_then(|k| DetachKeys::parse(k).ok());
    let mut shown = container::exec(found);
    if let Some(keys) = keys {
        shown.set_detach_keys(keys.bytes());
    }
    Ok(reply::json(&shown))
}

/// `POST /exec/{id}/resize`.
pub(super) async fn resize(call: &Call, id: &str) -> Answer {
    let (rows, columns) = containers::size(call)?;
    call.engine().resize_exec(id, rows, columns).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `POST /exec/{id}/start`.
pub(super) async fn start(call: &Call, id: &str, mut request: Request<Incoming>) -> Answer {
    // The connection first: reading the body uses the request up.
    let takeover = streams::takeover(&mut request)?;
    let (parts, incoming) = request.into_parts();
    let read = body::read_json::<ExecStart>(&parts.headers, incoming, call.config()).await?;
    let mut wanted = read.unwrap_or_default();
    shape::exec_start(call.version, &mut wanted);
    let exec = call.engine().inspect_exec(id).await?;
    let size = match wanted.console_size {
        Some(_) if !exec.request.tty => {
            return Err(ApiError::invalid("console size is only supported when TTY is enabled"));
        }
        Some(size) => Some(size),
        None => exec.request.console_size,
    };
    let size = size.map(|(rows, columns)| (clamp(rows), clamp(columns)));
    if wanted.detach {
        call.engine().start_exec(id, true, size).await?;
        return Ok(reply::empty(StatusCode::OK));
    }
    let keys = DetachKeys::parse(exec.request.detach_keys.as_deref().unwrap_or_default())
        .map_err(ApiError::invalid)?;
    let ran = exec.running || exec.exit_code.is_some();
    let session = match call.engine().start_exec(id, false, size).await {
        Ok(Some(attached)) => streams::session(attached),
        Ok(None) => return Ok(reply::empty(StatusCode::OK)),
        // A container that cannot run anything now; everything else is told in the stream, where
        // the client looks for it.
        Err(e) if e.kind() == Kind::Conflict && !(ran && e.to_string().starts_with("exec command")) => {
            return Err(e.into());
        }
        Err(e) => failed(exec.request.tty, &e.to_string()),
    };
    takeover.start(call.version, session, Some(keys))
}

fn clamp(n: u32) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// A session that only says what went wrong.
fn failed(tty: bool, message: &str) -> Session {
    let chunk = OutputChunk { stream: OutputStream::Stdout, data: Bytes::from(format!("{message}\r\n")) };
    Session { tty, output: futures_util::stream::iter([chunk]).boxed(), input: None }
}
