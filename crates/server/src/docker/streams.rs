//! Containers' output: attach and logs.

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::Request;
use hyper::body::Incoming;
use longshore_api::stream::{Stream, encode};
use longshore_api::time::parse_moment;
use longshore_engine::AttachSession;
use longshore_engine::model::{AttachRequest, LogsRequest, OutputChunk, OutputStream, UnixNanos};

use super::hijack::{self, Session, Takeover};
use super::keys::DetachKeys;
use super::{Answer, Call, now_nanos, reply};
use crate::errors::ApiError;

/// The engine's session as the wire carries it: an error of the output is the last thing in it.
pub(super) fn session(s: AttachSession) -> Session {
    let output = s.output.map(|piece| match piece {
        Ok(chunk) => chunk,
        Err(e) => OutputChunk { stream: OutputStream::Stderr, data: Bytes::from(format!("{e}\r\n")) },
    });
    Session { tty: s.tty, output: output.boxed(), input: s.input }
}

/// The connection to take over.
pub(super) fn takeover(request: &mut Request<Incoming>) -> Result<Takeover, ApiError> {
    Takeover::from_request(request)
        .ok_or_else(|| ApiError::invalid("this listener does not let requests take their connection over"))
}

/// `POST /containers/{name}/attach`.
pub(super) async fn attach(call: &Call, name: &str, mut request: Request<Incoming>) -> Answer {
    let given = call.query.given("detachKeys");
    let keys = DetachKeys::parse(given.unwrap_or_default()).map_err(ApiError::invalid)?;
    let wanted = AttachRequest {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        logs: call.query.flag("logs"),
        stream: call.query.flag("stream"),
        detach_keys: given.map(str::to_owned),
    };
    let takeover = takeover(&mut request)?;
    let attached = call.engine().attach(name, wanted).await?;
    takeover.start(call.version, session(attached), Some(keys))
}

/// `GET /containers/{name}/logs`.
pub(super) async fn logs(call: &Call, name: &str) -> Answer {
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let wanted = LogsRequest {
        stdout,
        stderr,
        follow: query.flag("follow"),
        since: moment(call, "since")?,
        until: moment(call, "until")?,
        timestamps: query.flag("timestamps"),
        // Whatever is no number means all, as `all` does.
        tail: query.given("tail").and_then(|t| t.parse().ok()),
        details: query.flag("details"),
    };
    let log = call.engine().logs(name, wanted).await?;
    let tty = log.tty;
    let pieces = log.output.map(move |piece| match piece {
        Ok(chunk) => hijack::frame(tty, chunk),
        Err(e) => {
            let text = format!("Error grabbing logs: {e}\n");
            let mut framed = Vec::new();
            encode(Stream::System, text.as_bytes(), &mut framed);
            if tty { Bytes::from(text) } else { Bytes::from(framed) }
        }
    });
    let kind = match tty || call.version.below(42) {
        true => reply::RAW_STREAM,
        false => reply::MULTIPLEXED,
    };
    Ok(reply::stream(kind, pieces.map(Ok::<_, std::convert::Infallible>)))
}

/// `since` or `until`; 0 and nothing are the same.
pub(super) fn moment(call: &Call, name: &str) -> Result<Option<UnixNanos>, ApiError> {
    let Some(text) = call.query.given(name) else { return Ok(None) };
    match parse_moment(text, now_nanos()) {
        Some(0) => Ok(None),
        Some(nanos) => Ok(Some(nanos)),
        None => Err(ApiError::invalid(format!("invalid value for {name:?}: {text:?} is not a time"))),
    }
}
