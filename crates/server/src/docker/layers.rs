//! Seeing into layers: routes of our own, below `/longshore`.

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::Method;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use longshore_api::layers::{FileStat, path_in, path_out};
use longshore_engine::BatchStream;
use longshore_engine::model::DiffOptions;
use serde::Serialize;

use super::translate::layers as out;
use super::{Answer, Call, reply};
use crate::errors::ApiError;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Layers(String),
    WhichImage(String),
    WhichContainer(String),
    Files(String),
    File(String),
    FileStat(String),
    Diff,
}

/// Finds the operation of a path below `/longshore/`; names may hold slashes.
pub(super) fn find(method: &Method, rest: &str) -> Option<Op> {
    let (get, head) = (method == Method::GET, method == Method::HEAD);
    if rest == "images/diff" && get {
        return Some(Op::Diff);
    }
    let (family, rest) = rest.split_once('/')?;
    let (name, verb) = rest.rsplit_once('/').filter(|(name, _)| !name.is_empty())?;
    let name = name.to_owned();
    match (family, verb) {
        ("images", "layers") if get => Some(Op::Layers(name)),
        ("images", "which") if get => Some(Op::WhichImage(name)),
        ("images", "files") if get => Some(Op::Files(name)),
        ("images", "file") if get => Some(Op::File(name)),
        ("images", "file") if head => Some(Op::FileStat(name)),
        ("containers", "which") if get => Some(Op::WhichContainer(name)),
        _ => None,
    }
}

/// Answers it.
pub(super) async fn answer(call: &Call, op: Op) -> Answer {
    let engine = call.engine();
    match op {
        Op::Layers(name) => Ok(reply::json(&out::layers(engine.image_layers(&name).await?))),
        Op::WhichImage(name) => {
            let found = engine.which_image(&name, wanted(call)?, call.query.flag_or("resolve", true)).await?;
            Ok(reply::json(&out::which(found)))
        }
        Op::WhichContainer(name) => {
            let found = engine.which_container(&name, wanted(call)?, call.query.flag_or("resolve", true));
            Ok(reply::json(&out::which(found.await?)))
        }
        Op::Files(name) => {
            let layer = call.query.number("layer")?.ok_or_else(|| missing("layer"))?;
            let rows = engine.layer_files(&name, layer, given(call, "dir", "dir64")?).await?;
            Ok(lines(rows, out::layer_file))
        }
        Op::File(name) => file(call, &name, call.query.number("limit")?, true).await,
        Op::FileStat(name) => file(call, &name, Some(0), false).await,
        Op::Diff => {
            let image = |name: &str| call.query.given(name).ok_or_else(|| missing(name));
            let options = DiffOptions { content: call.query.flag("content") };
            let rows = engine.diff_images(image("from")?, image("to")?, options).await?;
            Ok(lines(rows, out::diff_line))
        }
    }
}

async fn file(call: &Call, name: &str, limit: Option<u64>, whole: bool) -> Answer {
    let (top, offset) = (call.query.number("layer")?, call.query.number("offset")?.unwrap_or(0));
    let (about, bytes) = call.engine().image_file(name, wanted(call)?, top, offset, limit).await?;
    let len = if whole { about.len } else { about.info.size };
    let (path, path_bytes) = path_out(&about.path);
    let stat = FileStat { path, path_bytes, layer: about.layer as u64, file: out::info(about.info) };
    let stat = HeaderValue::try_from(stat.to_header())
        .map_err(|e| ApiError::of(longshore_oci::Kind::Internal, format!("encode the file's stat: {e}")))?;
    let mut answer = if whole {
        reply::stream(reply::OCTETS, bytes)
    } else {
        let mut answer = reply::empty(hyper::StatusCode::OK);
        answer.headers_mut().insert(hyper::header::CONTENT_TYPE, reply::OCTETS);
        answer
    };
    answer.headers_mut().insert(FileStat::HEADER, stat);
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
    Ok(answer)
}

/// The path that is asked about.
fn wanted(call: &Call) -> Result<Vec<u8>, ApiError> {
    given(call, "path", "path64")?.ok_or_else(|| missing("path"))
}

/// A path as text, or its bytes in base64.
fn given(call: &Call, text: &str, bytes: &str) -> Result<Option<Vec<u8>>, ApiError> {
    let (plain, encoded) = (call.query.given(text), call.query.given(bytes));
    if plain.is_none() && encoded.is_none() {
        return Ok(None);
    }
    let path = path_in(plain.unwrap_or_default(), encoded);
    path.map(Some).ok_or_else(|| ApiError::invalid(format!("parameter {bytes} is not base64")))
}

fn missing(name: &str) -> ApiError {
    ApiError::invalid(format!("parameter {name} is missing"))
}

/// Rows as lines of JSON.
fn lines<T: Send + 'static, L: Serialize + 'static>(rows: BatchStream<T>, line: fn(T) -> L) -> reply::Reply {
    let pieces = rows.map(move |batch| {
        batch.map(|rows| {
            let mut text = Vec::with_capacity(rows.len() * 160);
            for row in rows {
                if serde_json::to_writer(&mut text, &line(row)).is_ok() {
                    text.push(b'\n');
                }
            }
            Bytes::from(text)
        })
    });
    reply::stream(reply::NDJSON, pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_slashes() {
        let at = |line: &str| {
            let (method, path) = line.split_once(' ').unwrap();
            find(&method.parse().unwrap(), path)
        };
        assert_eq!(at("GET images/a/b:1/layers"), Some(Op::Layers("a/b:1".into())));
        assert_eq!(at("GET images/diff/layers"), Some(Op::Layers("diff".into())));
        assert_eq!(at("GET images/localhost:5000/x/file"), Some(Op::File("localhost:5000/x".into())));
        assert_eq!(at("HEAD images/x/file"), Some(Op::FileStat("x".into())));
        assert_eq!(at("GET containers/web/which"), Some(Op::WhichContainer("web".into())));
        assert_eq!(at("GET images/diff"), Some(Op::Diff));
        for none in
            ["GET images/x", "POST images/x/layers", "GET containers/x/layers", "GET images//which", "GET x"]
        {
            assert_eq!(at(none), None, "{none}");
        }
    }
}
