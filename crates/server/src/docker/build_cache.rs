//! Caches of builds that come from elsewhere and go there, as requests name them; and directories of clients for them.

use futures_util::StreamExt as _;
use hyper::Request;
use hyper::body::Incoming;
use longshore_api::build::{BuildCacheFrom, BuildCachePlace, BuildCacheTo, BuildDirectory};
use longshore_engine::model::{CacheDirectory, CacheFrom, CachePlace, CacheTo, OutputChunk, OutputStream};
use longshore_oci::Reference;
use tokio::sync::mpsc;

use super::hijack::Session;
use super::{Answer, Call, streams};
use crate::errors::ApiError;

/// `POST /longshore/build/directory`.
pub(super) async fn directory(call: &Call, mut request: Request<Incoming>) -> Answer {
    let takeover = streams::takeover(&mut request)?;
    let (input, mut pieces) = mpsc::channel(8);
    let answers = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx).map(|piece| piece.map(Ok)));
    let questions = call.engine().open_layout(Box::pin(answers)).await?;
    let output = questions
        .take_while(|piece| std::future::ready(piece.is_ok()))
        .filter_map(|piece| std::future::ready(piece.ok()))
        .map(|data| OutputChunk { stream: OutputStream::Stdout, data });
    takeover.start(call.version, Session { tty: true, output: output.boxed(), input: Some(input) }, None)
}

/// The images of the parameter `cachefrom`. Docker matches the histories of those that are here; of these, those are asked
/// that have a cache in them, and as there the others are of no use.
pub(super) fn images(names: &[String]) -> Result<Vec<CacheFrom>, ApiError> {
    names.iter().filter(|n| !n.is_empty()).map(|name| reference(name).map(CacheFrom::Here)).collect()
}

pub(super) fn from(wanted: Vec<BuildCacheFrom>) -> Result<Vec<CacheFrom>, ApiError> {
    let one = |from| {
        Ok(match from {
            BuildCacheFrom::Registry { reference: name } => CacheFrom::Registry(reference(&name)?),
            BuildCacheFrom::Image { reference: name } => CacheFrom::Image(reference(&name)?),
            BuildCacheFrom::Local(directory) => CacheFrom::Directory(place(directory)?),
        })
    };
    wanted.into_iter().map(one).collect()
}

pub(super) fn to(wanted: Vec<BuildCacheTo>) -> Result<Vec<CacheTo>, ApiError> {
    let one = |to: BuildCacheTo| {
        let place = match to.to {
            BuildCachePlace::Registry { reference: name } => CachePlace::Registry(
                reference(&name)?
                    .for_a_tag()
                    .map_err(|e| ApiError::invalid(format!("cache {name:?}: {e}")))?,
            ),
            BuildCachePlace::Local(directory) => CachePlace::Directory(place(directory)?),
            BuildCachePlace::Inline => CachePlace::Inline,
        };
        Ok(CacheTo { to: place, max: to.max, mounts: to.mounts, ignore_error: to.ignore_error })
    };
    wanted.into_iter().map(one).collect()
}

fn reference(name: &str) -> Result<Reference, ApiError> {
    let read: Reference = name.parse().map_err(|e| ApiError::invalid(format!("cache {name:?}: {e}")))?;
    Ok(read.or_latest())
}

pub(super) fn place(directory: BuildDirectory) -> Result<CacheDirectory, ApiError> {
    let digest = directory.digest.map(|digest| digest.parse());
    let digest = digest.transpose().map_err(|e| ApiError::invalid(format!("the cache's digest: {e}")))?;
    let tag = if directory.tag.is_empty() { "latest".to_owned() } else { directory.tag };
    Ok(CacheDirectory { id: directory.id, name: directory.name, tag, digest })
}
