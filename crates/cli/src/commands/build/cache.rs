//! Directories that the daemon may use: what it is told of them, of caches of elsewhere, and of images in layouts.

use std::path::PathBuf;

use bytes::Bytes;
use longshore_api::build::{BuildCacheFrom, BuildCachePlace, BuildCacheTo, BuildDirectory, BuildHead};
use longshore_build::layout::{Place, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::App;
use super::send::Chunks;
use crate::args::build::BuildArgs;
use crate::args::build_cache::{self, From, To};
use crate::args::given::AdditionalFrom;
use crate::client::Payload;
use crate::error::{Failure, Result};
use crate::streams::ChannelReader;

/// A directory that the daemon may use until this is dropped.
pub(super) struct Offer(Vec<AbortHandle>);

impl Drop for Offer {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Tells in `head` where the cache comes from and goes to, and which contexts are images in directories.
///
/// # Errors
/// When a directory cannot be offered.
pub(super) async fn offer(app: &App<'_>, args: &BuildArgs, head: &mut BuildHead) -> Result<Vec<Offer>> {
    let mut offers = Vec::new();
    for from in args.cache_from() {
        head.cache_from.push(match from {
            From::Registry(reference) => BuildCacheFrom::Registry { reference },
            From::Image(reference) => BuildCacheFrom::Image { reference },
            From::Local { dir, tag, digest } => {
                let (id, offer) = open(app, &dir, false).await?;
                offers.push(offer);
                BuildCacheFrom::Local(BuildDirectory { id, name: dir, tag, digest })
            }
        });
    }
    for To { place, max, mounts, ignore_error } in args.cache_to() {
        let to = match place {
            build_cache::Place::Registry(reference) => BuildCachePlace::Registry { reference },
            build_cache::Place::Inline => BuildCachePlace::Inline,
            build_cache::Place::Local { dir, tag } => {
                let (id, offer) = open(app, &dir, true).await?;
                offers.push(offer);
                BuildCachePlace::Local(BuildDirectory { id, name: dir, tag, digest: None })
            }
        };
        head.cache_to.push(BuildCacheTo { to, max, mounts, ignore_error });
    }
    for (context, from) in args.additional() {
        let AdditionalFrom::Layout { dir, tag, digest } = from else { continue };
        let (id, offer) = open(app, &dir, false).await?;
        offers.push(offer);
        head.named_layouts.insert(context, BuildDirectory { id, name: dir, tag, digest });
    }
    Ok(offers)
}

/// Offers a directory; gives what the daemon calls it.
async fn open(app: &App<'_>, dir: &str, writable: bool) -> Result<(String, Offer)> {
    let failed = |why: String| Failure::new(format!("offer the directory {dir} to the daemon: {why}"));
    let hijacked = app.client.hijack("/longshore/build/directory", Payload::Empty).await?;
    let (mut from, mut to) = tokio::io::split(hijacked.stream);
    let (questions, asked) = mpsc::channel::<Bytes>(4);
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = from.read(&mut buffer).await {
            let piece = Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
            if n == 0 || questions.send(piece).await.is_err() {
                break;
            }
        }
    });
    let (mut out, mut answers) = Chunks::new(Default::default());
    let writing = tokio::spawn(async move {
        while let Some(Ok(piece)) = answers.recv().await {
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    });
    let (tell, told) = oneshot::channel();
    let place = Place { dir: PathBuf::from(dir), writable };
    std::thread::spawn(move || {
        let mut tell = Some(tell);
        let hello = |id| {
            // Whoever does not wait for it has gone.
            let _ = tell.take().map(|tell| tell.send(id));
        };
        // The daemon says what it could not do, and a connection that is gone is noticed by the build.
        let _ = serve(&place, &mut ChannelReader::new(asked), &mut out, hello);
    });
    let offer = Offer(vec![reading.abort_handle(), writing.abort_handle()]);
    let id = told.await.map_err(|_| failed("it closed the connection".into()))?;
    Ok((id, offer))
}
