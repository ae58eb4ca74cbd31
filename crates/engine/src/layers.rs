//! Seeing into layers: the store's answers, with the steps that made the layers.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use futures_util::{StreamExt as _, stream};
use longshore_oci::image::{History, ImageDocument};
use longshore_oci::{Digest, Kind};
use longshore_store::inspect::Layer;
use tokio::sync::mpsc;

use crate::model::{
    DiffOptions, DiffRow, ImageFile, LayerFile, LayerName, LayerView, LayersView, MountPoint, WhichView,
};
use crate::stream::{BatchStream, ByteStream};
use crate::time::parse_rfc3339;
use crate::{Engine, Error, Result, pipe, steps};

/// Batches that may wait.
const QUEUE: usize = 4;
/// Rows of a batch.
const BATCH: usize = 512;
/// Bytes that are read from a file at once.
const CHUNK: usize = 64 << 10;

/// What is mounted in every container, whatever its layers have there.
const ENGINES_MOUNTS: [&str; 6] =
    ["/proc", "/sys", "/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

impl Engine {
    /// The layers of an image, what each does and what is wasted.
    ///
    /// # Errors
    /// When there is no such image, or an index is damaged.
    pub async fn image_layers(&self, name: &str) -> Result<LayersView> {
        let name = name.to_owned();
        self.blocking(move |e| {
            let store = &e.inner.store;
            let id = store.images().resolve(&name)?.id;
            let tally = store.tally(&id)?;
            let layers: Vec<Layer> = tally.layers.iter().map(|l| l.layer.clone()).collect();
            let names = e.layer_names(&id, &layers)?;
            let layers = tally.layers.into_iter().zip(names).map(|(l, name)| {
                let directory = store.driver().apply_dir(&l.layer.record.cache_id);
                let blob = l.layer.record.blob;
                LayerView {
                    name,
                    size: l.bytes,
                    wasted: l.wasted,
                    added: l.added,
                    changed: l.changed,
                    deleted: l.deleted,
                    directories: l.directories,
                    directory: directory.display().to_string(),
                    compressed: blob.map(|b| (b.digest, b.size, b.media_type)),
                }
            });
            Ok(LayersView { id, layers: layers.collect() })
        })
        .await
    }

    fn layer_names(&self, image: &Digest, layers: &[Layer]) -> Result<Vec<LayerName>> {
        let (_, document) = self.inner.store.images().document(image)?;
        Ok(named(&document, layers))
    }

    /// Which layers of an image wrote a path; with `follow`, links are followed inside the image.
    ///
    /// # Errors
    /// When there is no such image, or no layer has the path.
    pub async fn which_image(&self, name: &str, path: Vec<u8>, follow: bool) -> Result<WhichView> {
        let name = name.to_owned();
        self.blocking(move |e| {
            let store = &e.inner.store;
            let image = store.images().resolve(&name)?.id;
            let which = store.which(&image, &path, follow)?;
            let layers = e.layer_names(&image, &store.layers_of(&image)?)?;
            Ok(WhichView { image, container: None, which, layers, mount: None })
        })
        .await
    }

    /// The same of a container: its own layer first, then its image's.
    ///
    /// # Errors
    /// As [`Self::which_image`].
    pub async fn which_container(&self, name: &str, path: Vec<u8>, follow: bool) -> Result<WhichView> {
        let c = self.find(name)?;
        let permit = c.readers.clone().acquire_owned().await;
        self.blocking(move |e| {
            let _permit = permit;
            let record = c.record();
            let store = &e.inner.store;
            let which = store.which_in(&record.id, &path, follow);
            let which = which.map_err(|e| without_layer(e.into(), &record.mounts, &path))?;
            // The image may have been removed by force: then nobody knows the steps.
            let layers = store.layers_of(&record.image).ok();
            let layers = layers.map(|l| e.layer_names(&record.image, &l)).transpose()?.unwrap_or_default();
            let mount = mounted_over(&record.mounts, &which.path);
            Ok(WhichView { image: record.image, container: Some(record.id), which, layers, mount })
        })
        .await
    }

    /// The entries of a layer, in the order of a tree; with `dir` only that directory and what is in it.
    ///
    /// # Errors
    /// When there is no such image or layer; later failures come in the stream.
    pub async fn layer_files(
        &self,
        name: &str,
        layer: usize,
        dir: Option<Vec<u8>>,
    ) -> Result<BatchStream<LayerFile>> {
        let (name, engine) = (name.to_owned(), self.clone());
        batches(move |out| {
            let store = &engine.inner.store;
            let id = store.images().resolve(&name)?.id;
            store.list_layer(&id, layer, dir.as_deref(), &mut |file| out.push(file))
        })
        .await
    }

    /// What the trees of two images differ in, in the order of a tree.
    ///
    /// # Errors
    /// When there is no such image; later failures come in the stream.
    pub async fn diff_images(
        &self,
        from: &str,
        to: &str,
        options: DiffOptions,
    ) -> Result<BatchStream<DiffRow>> {
        let (from, to, engine) = (from.to_owned(), to.to_owned(), self.clone());
        batches(move |out| {
            let store = &engine.inner.store;
            let (from, to) = (store.images().resolve(&from)?.id, store.images().resolve(&to)?.id);
            store.diff_images(&from, &to, options, &mut |row| match row {
                Some(row) => out.push(row),
                None => out.alive(),
            })
        })
        .await
    }

    /// A regular file of an image: from `offset` on, `limit` bytes at most. With `top` the image is taken without the
    /// layers above that number.
    ///
    /// # Errors
    /// When there is none; later failures come in the stream.
    pub async fn image_file(
        &self,
        name: &str,
        path: Vec<u8>,
        top: Option<usize>,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<(ImageFile, ByteStream)> {
        let name = name.to_owned();
        let opened = self.blocking(move |e| {
            let store = &e.inner.store;
            Ok(store.open_in_image(&store.images().resolve(&name)?.id, &path, top)?)
        });
        let opened = opened.await?;
        let len = opened.info.size.saturating_sub(offset).min(limit.unwrap_or(u64::MAX));
        let about = ImageFile { path: opened.path, layer: opened.layer, info: opened.info, len };
        let mut file = opened.file;
        let bytes = pipe::from_writer(move |out| {
            let failed = |e| Error::io("read a file of an image", e);
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            let mut buf = vec![0; CHUNK];
            let mut left = len;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                match file.read(&mut buf[..want]) {
                    Ok(0) => return Err(Error::new(Kind::Corrupt, "a file of an image became shorter")),
                    Ok(n) => {
                        out.write_all(&buf[..n]).map_err(failed)?;
                        left -= n as u64;
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(failed(e)),
                }
            }
            Ok(())
        });
        Ok((about, bytes))
    }
}

/// Gathers rows and hands them over.
struct Batch<T> {
    tx: mpsc::Sender<Result<Vec<T>>>,
    rows: Vec<T>,
}

impl<T> Batch<T> {
    fn push(&mut self, row: T) -> longshore_store::Result<()> {
        self.rows.push(row);
        if self.rows.len() < BATCH { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> longshore_store::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.tx.blocking_send(Ok(rows)).map_err(|_| left())
    }

    fn alive(&self) -> longshore_store::Result<()> {
        if self.tx.is_closed() { Err(left()) } else { Ok(()) }
    }
}

/// Nobody reads any more; nobody sees this either.
fn left() -> longshore_store::Error {
    longshore_store::Error::Unavailable("the client has gone".into())
}

/// A stream of what `work` pushes, on a thread of its own. A failure before the first row is the call's.
async fn batches<T: Send + 'static>(
    work: impl FnOnce(&mut Batch<T>) -> longshore_store::Result<()> + Send + 'static,
) -> Result<BatchStream<T>> {
    let (tx, mut rx) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let mut out = Batch { tx, rows: Vec::new() };
        if let Err(e) = work(&mut out).and_then(|()| out.flush()) {
            let _ = out.tx.blocking_send(Err(e.into()));
        }
    });
    let first = match rx.recv().await {
        Some(first) => first?,
        None => return Err(Error::internal("a worker failed; see the daemon's log")),
    };
    let rest = stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) });
    Ok(stream::once(async move { Ok(first) }).chain(rest).boxed())
}

/// The layers with the steps that made them, as far as the document tells.
fn named(document: &ImageDocument, layers: &[Layer]) -> Vec<LayerName> {
    let mut told = document.history.iter().filter(|h| !h.empty_layer);
    let unknown = History::default();
    let name = |layer: &Layer| {
        let step = told.next().unwrap_or(&unknown);
        let created_by = step.created_by.clone().unwrap_or_default();
        LayerName {
            number: layer.number,
            diff_id: layer.record.diff_id.to_string(),
            chain_id: layer.chain.to_string(),
            cache_id: layer.record.cache_id.clone(),
            step: steps::tidy(&created_by),
            created_by,
            comment: step.comment.clone().unwrap_or_default(),
            created: step.created.as_deref().and_then(parse_rfc3339).unwrap_or(0),
        }
    };
    layers.iter().map(name).collect()
}

/// The mount that a path of a container lies in: the one with the longest destination.
fn mounted_over(mounts: &[MountPoint], path: &[u8]) -> Option<MountPoint> {
    let covers = |destination: &str| {
        let at = destination.trim_matches('/').as_bytes();
        path == at || longshore_store::layer::is_below(path, at)
    };
    let own = ENGINES_MOUNTS.iter().map(|at| MountPoint {
        kind: "engine".to_owned(),
        destination: (*at).to_owned(),
        ..MountPoint::default()
    });
    let all = own.chain(mounts.iter().cloned()).filter(|m| covers(&m.destination));
    all.max_by_key(|m| m.destination.trim_matches('/').len())
}

/// What no layer has may still be in a mount.
fn without_layer(e: Error, mounts: &[MountPoint], path: &[u8]) -> Error {
    let mount = longshore_store::inspect::clean_path(path).ok().and_then(|p| mounted_over(mounts, &p));
    match mount {
        Some(m) if e.kind() == Kind::NotFound => {
            let what =
                if m.kind == "engine" { "the engine's own".to_owned() } else { format!("a {}", m.kind) };
            e.and(&format!("in the container {what} is mounted at {}", m.destination))
        }
        _ => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, destination: &str) -> MountPoint {
        MountPoint { kind: kind.into(), destination: destination.into(), ..MountPoint::default() }
    }

    #[test]
    fn the_nearest_mount_covers_a_path() {
        let mounts = [mount("volume", "/data"), mount("bind", "/data/sub/"), mount("tmpfs", "/dev/shm")];
        let at = |path: &str| mounted_over(&mounts, path.as_bytes()).map(|m| m.kind);
        assert_eq!(at("data/x").as_deref(), Some("volume"));
        assert_eq!(at("data/sub/x").as_deref(), Some("bind"));
        assert_eq!(at("dev/shm/x").as_deref(), Some("tmpfs"));
        assert_eq!(at("proc/1").as_deref(), Some("engine"));
        assert_eq!((at("database"), at(""), at("etc/hosts.allow")), (None, None, None));
    }

    #[tokio::test]
    async fn rows_come_in_batches_and_early_failures_at_once() {
        let rows = batches(|out: &mut Batch<u32>| (0..2000).try_for_each(|n| out.push(n))).await.unwrap();
        let got: Vec<u32> = rows.map(|batch| batch.unwrap()).concat().await;
        assert_eq!(got, (0..2000).collect::<Vec<_>>());
        let none = batches(|_: &mut Batch<u32>| Ok(())).await.unwrap();
        assert_eq!(none.map(|b| b.unwrap().len()).collect::<Vec<_>>().await, [0]);
        let e = batches(|_: &mut Batch<u32>| Err(longshore_store::Error::NotFound("no".into()))).await;
        assert_eq!(e.err().map(|e| e.kind()), Some(Kind::NotFound));
        // A client that goes ends the work.
        let (tx, rx) = std::sync::mpsc::channel();
        let rows = batches(move |out: &mut Batch<u32>| {
            let end = (0..u32::MAX).try_for_each(|n| out.push(n).and_then(|()| out.alive()));
            tx.send(end.is_err()).unwrap();
            end
        });
        drop(rows.await.unwrap());
        assert!(tokio::task::spawn_blocking(move || rx.recv().unwrap()).await.unwrap());
    }
}
