//! Images: policy over the store's images; archives through bounded channels.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream;
use longshore_oci::image::{History, ImageDocument};
use longshore_oci::{Digest, Platform, Reference};
use longshore_store::archive::{self, LoadEvent, SaveItem};
use longshore_store::{GraphOf, ImageRecord};
use tokio::sync::mpsc;

use crate::container::{merge, port_ranges};
use crate::model::{
    CommitRequest, HistoryEntry, ImageView, ImportRequest, ListImages, ProgressEvent, Status,
};
use crate::stream::{BodyStream, ByteStream, ProgressStream};
use crate::time::{now, parse_rfc3339, rfc3339};
use crate::{Engine, Error, Result, changes, filters, pipe};

const QUEUE: usize = 32;

/// A container that was made from an image.
#[derive(Clone, Debug)]
pub(crate) struct ImageUser {
    /// What it is, for people.
    pub(crate) what: &'static str,
    /// Its short id or its name.
    pub(crate) called: String,
    pub(crate) running: bool,
}

impl Engine {
    /// One image; of several under a name the one for `platform`, if there is one.
    ///
    /// # Errors
    /// When there is none.
    pub async fn image(&self, name: &str, platform: Option<&Platform>) -> Result<ImageView> {
        let (name, platform) = (name.to_owned(), platform.cloned());
        self.blocking(move |e| {
            let images = e.inner.store.images();
            let record = match platform {
                Some(platform) => images.resolve_for(&name, &platform)?,
                None => images.resolve(&name)?,
            };
            e.image_view(record)
        })
        .await
    }

    /// The images that a name stands for, of whatever platform.
    ///
    /// # Errors
    /// When there is none.
    pub async fn images_of(&self, name: &str) -> Result<BTreeSet<Digest>> {
        let name = name.to_owned();
        self.blocking(move |e| {
            let images = e.inner.store.images();
            let own = images.resolve(&name)?.id;
            let reference = name.parse::<Reference>().ok().map(Reference::or_latest);
            let index = reference.map(|reference| images.index(&reference)).transpose()?.flatten();
            let others = index.filter(|index| index.of == own).into_iter().flat_map(|index| index.images);
            Ok(others.map(|image| image.id).chain([own]).collect())
        })
        .await
    }

    fn image_view(&self, r: ImageRecord) -> Result<ImageView> {
        let (_, document) = self.inner.store.images().document(&r.id)?;
        let graph = self.inner.store.graph_data(GraphOf::Image(&r.id)).unwrap_or_default();
        Ok(ImageView {
            created: document.created.as_deref().and_then(parse_rfc3339).unwrap_or(0),
            id: r.id,
            tags: r.tags,
            digests: r.digests,
            parent: r.parent,
            document,
            size: r.size,
            last_tagged: r.last_tagged,
            driver: self.inner.store.driver_choice().name.as_str().to_owned(),
            graph,
            containers: -1,
            shared_size: -1,
        })
    }

    /// Images, newest first.
    ///
    /// # Errors
    /// For filters that are wrong.
    pub async fn images(&self, request: ListImages) -> Result<Vec<ImageView>> {
        self.blocking(move |e| e.images_blocking(&request)).await
    }

    fn images_blocking(&self, request: &ListImages) -> Result<Vec<ImageView>> {
        let f = &request.filters;
        filters::check_known(f, &["before", "dangling", "label", "reference", "since", "until"])?;
        for pattern in filters::values(f, "reference").unwrap_or_default() {
            filters::check_glob(pattern)?;
        }
        let dangling = filters::flag(f, "dangling")?;
        let bound = |name: &str| -> Result<Option<i64>> {
            match filters::values(f, name).and_then(|v| v.last()) {
                None => Ok(None),
                Some(v) => {
                    let r = self.inner.store.images().resolve(v)?;
                    let (_, d) = self.inner.store.images().document(&r.id)?;
                    Ok(Some(d.created.as_deref().and_then(parse_rfc3339).unwrap_or(0)))
                }
            }
        };
        let (before, since) = (bound("before")?, bound("since")?);
        let until = filters::until(f)?;
        let all = self.inner.store.images().list()?;
        let parents: BTreeSet<Digest> = all.iter().filter_map(|r| r.parent).collect();
        let users = self.image_users();
        let mut out = Vec::new();
        for r in all.clone() {
            let elsewhere = !r.elsewhere.is_empty();
            let is_dangling = r.tags.is_empty() && !elsewhere;
            // Steps of an image that lives on under a name.
            let intermediate = is_dangling && parents.contains(&r.id);
            // One of another platform stands behind its name.
            let hidden = intermediate || (elsewhere && r.tags.is_empty());
            if (hidden && !request.all) || dangling.is_some_and(|d| d != is_dangling) {
                continue;
            }
            let Ok(mut view) = self.image_view(r) else { continue };
            let labels = view.document.config.as_ref().and_then(|c| c.labels.as_ref());
            let wanted = before.is_none_or(|t| view.created < t)
                && since.is_none_or(|t| view.created > t)
                && until.is_none_or(|t| view.created < t)
                && filters::labels(f, "label", labels);
            if !wanted {
                continue;
            }
            if let Some(patterns) = filters::values(f, "reference") {
                let hit = |t: &Reference| patterns.iter().any(|p| matches_reference(p, t));
                view.tags.retain(&hit);
                view.digests.retain(&hit);
                if view.tags.is_empty() && view.digests.is_empty() {
                    continue;
                }
            }
            if request.containers {
                view.containers = i64::try_from(users.get(&view.id).map_or(0, Vec::len)).unwrap_or(i64::MAX);
            }
            if request.shared_size {
                view.shared_size = self.shared_size(&view.id, &all);
            }
            out.push(view);
        }
        out.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(out)
    }

    /// Bytes of the layers that other images have, too.
    fn shared_size(&self, id: &Digest, all: &[ImageRecord]) -> i64 {
        let Some(own) = all.iter().find(|r| r.id == *id) else { return 0 };
        let others: BTreeSet<&Digest> = all.iter().filter(|r| r.id != *id).flat_map(|r| &r.layers).collect();
        let sizes = own.layers.iter().filter(|l| others.contains(l));
        let total: u64 = sizes.filter_map(|l| self.inner.store.layer(l).ok().flatten()).map(|l| l.size).sum();
        i64::try_from(total).unwrap_or(i64::MAX)
    }

    /// Containers by the image they were made from.
    pub(crate) fn image_users(&self) -> BTreeMap<Digest, Vec<ImageUser>> {
        let mut out: BTreeMap<Digest, Vec<ImageUser>> = BTreeMap::new();
        for c in self.all() {
            let r = &c.read().record;
            let what = if r.is_active() { "running container" } else { "stopped container" };
            let user = ImageUser { what, called: r.short_id().to_owned(), running: r.is_active() };
            out.entry(r.image).or_default().push(user);
        }
        for record in self.all_working().iter().map(|w| w.record()) {
            let user = ImageUser { what: "working container", called: record.name, running: false };
            record.image.into_iter().for_each(|image| out.entry(image).or_default().push(user.clone()));
        }
        out
    }

    /// The steps that made an image, newest first.
    ///
    /// # Errors
    /// When there is none.
    pub async fn history(&self, name: &str) -> Result<Vec<HistoryEntry>> {
        let name = name.to_owned();
        self.blocking(move |e| {
            let images = e.inner.store.images();
            let record = images.resolve(&name)?;
            let rows = images.history(&record.id)?;
            Ok(rows
                .into_iter()
                .map(|r| HistoryEntry {
                    tags: r.image.and_then(|i| images.get(&i).ok()).map(|i| i.tags).unwrap_or_default(),
                    id: r.image,
                    created: r.step.created.as_deref().and_then(parse_rfc3339).unwrap_or(0),
                    created_by: r.step.created_by.unwrap_or_default(),
                    comment: r.step.comment.unwrap_or_default(),
                    size: r.size,
                })
                .collect())
        })
        .await
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// When there is no such image.
    pub async fn tag(&self, name: &str, to: &Reference) -> Result<()> {
        let name = name.to_owned();
        let to = to.clone().or_latest();
        if to.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        self.blocking(move |e| {
            let images = e.inner.store.images();
            let record = images.resolve(&name)?;
            let from = name.parse::<Reference>().ok().map(Reference::or_latest);
            let index = from.map(|from| images.index(&from)).transpose()?.flatten();
            match index.filter(|index| index.of == record.id) {
                Some(index) => images.set_index(&to, &index)?,
                None => images.tag(&record.id, &to)?,
            }
            e.image_event("tag", &record.id, &to.familiar());
            Ok(())
        })
        .await
    }

    pub(crate) fn image_event(&self, action: &str, id: &Digest, name: &str) {
        let mut attributes = match self.inner.store.images().document(id) {
            Ok((_, d)) => d.config.and_then(|c| c.labels).unwrap_or_default(),
            Err(_) => BTreeMap::new(),
        };
        attributes.insert("name".into(), name.to_owned());
        self.inner.events.publish("image", action, id.to_string(), attributes);
    }

    /// Takes images from an archive.
    ///
    /// # Errors
    /// None at once; a failure comes as an event.
    pub async fn load(&self, body: BodyStream, quiet: bool) -> Result<ProgressStream> {
        let reader = pipe::into_reader(body);
        let engine = self.clone();
        Ok(progress(move |tx| {
            let send = |event: LoadEvent<'_>| {
                let line = match event {
                    LoadEvent::Layer(id, bytes) => {
                        if quiet {
                            return;
                        }
                        ProgressEvent {
                            status: Some("Loading layer".into()),
                            id: Some(id.get(..12).unwrap_or(id).to_owned()),
                            current: Some(bytes),
                            total: Some(bytes),
                            ..Default::default()
                        }
                    }
                    LoadEvent::Renamed(r, old) => text(format!(
                        "The image {} already exists, renaming the old one with ID {old} to empty string\n",
                        r.familiar()
                    )),
                    LoadEvent::Tagged(r) => text(format!("Loaded image: {}\n", r.familiar())),
                    LoadEvent::Untagged(id) => text(format!("Loaded image ID: {id}\n")),
                };
                // A client that has gone: the load goes on.
                let _ = tx.blocking_send(line);
            };
            for loaded in archive::load(&engine.inner.store, reader, &send)? {
                engine.image_event("load", &loaded.id, &loaded.id.to_string());
            }
            engine.image_added();
            Ok(())
        }))
    }

    /// Images as an archive.
    ///
    /// # Errors
    /// When one is not there; later failures come in the stream.
    pub async fn save(&self, names: &[String]) -> Result<ByteStream> {
        let names = names.to_vec();
        let items = self.blocking(move |e| e.save_items(&names)).await?;
        let engine = self.clone();
        Ok(pipe::from_writer(move |w| {
            archive::save(&engine.inner.store, &items, w)?;
            for item in &items {
                engine.image_event("save", &item.id, &item.id.to_string());
            }
            Ok(())
        }))
    }

    /// A name without a tag stands for all tags of its repository.
    fn save_items(&self, names: &[String]) -> Result<Vec<SaveItem>> {
        if names.is_empty() {
            return Err(Error::invalid("no image to save: name at least one"));
        }
        let images = self.inner.store.images();
        let mut items: Vec<SaveItem> = Vec::new();
        let mut add = |id: Digest, tag: Option<Reference>| {
            let at = match items.iter().position(|i| i.id == id) {
                Some(at) => at,
                None => {
                    items.push(SaveItem { id, tags: Vec::new() });
                    items.len() - 1
                }
            };
            if let Some(t) = tag.filter(|t| !items[at].tags.contains(t)) {
                items[at].tags.push(t);
            }
        };
        for name in names {
            let parsed = name.parse::<Reference>().ok();
            let bare = parsed.as_ref().filter(|r| r.tag().is_none() && r.digest().is_none());
            let mut found = false;
            if let Some(bare) = bare {
                for (r, id) in images.references()? {
                    if r.tag().is_some()
                        && r.registry() == bare.registry()
                        && r.repository() == bare.repository()
                    {
                        add(id, Some(r));
                        found = true;
                    }
                }
            }
            if !found {
                let record = images.resolve(name).map_err(|e| match bare {
                    // All of its tags were asked for, not the latest.
                    Some(bare) => Error::not_found(format!("No such image: {}", bare.familiar())),
                    None => e.into(),
                })?;
                let tag = if is_id(name, &record.id) { None } else { parsed.filter(|r| r.tag().is_some()) };
                add(record.id, tag);
            }
        }
        Ok(items)
    }

    /// An image of one layer from a tar.
    ///
    /// # Errors
    /// For wrong changes; later failures come as events.
    pub async fn import(&self, request: ImportRequest, body: BodyStream) -> Result<ProgressStream> {
        let mut config = longshore_oci::image::RunConfig::default();
        changes::apply(&mut config, &request.changes)?;
        let platform = request.platform.unwrap_or_else(Platform::host);
        if platform.os != Platform::host().os {
            return Err(Error::invalid("operating system is not supported"));
        }
        let message = if request.message.is_empty() { "Imported from -".to_owned() } else { request.message };
        let reference = request.reference.map(Reference::or_latest);
        let reader = pipe::into_reader(body);
        let engine = self.clone();
        Ok(progress(move |tx| {
            let created = rfc3339(now());
            let id = archive::import(&engine.inner.store, reader, reference.as_ref(), |_| ImageDocument {
                created: Some(created.clone()),
                architecture: platform.architecture,
                os: platform.os,
                variant: platform.variant,
                config: Some(config),
                history: vec![History {
                    created: Some(created),
                    comment: Some(message),
                    ..History::default()
                }],
                ..ImageDocument::default()
            })?;
            engine.image_event("import", &id, &id.to_string());
            engine.image_added();
            if let Some(r) = &reference {
                engine.image_event("tag", &id, &r.familiar());
            }
            let _ = tx.blocking_send(ProgressEvent { status: Some(id.to_string()), ..Default::default() });
            Ok(())
        }))
    }

    /// An image from a container's changes.
    ///
    /// # Errors
    /// For wrong changes, and when the layer cannot be made.
    pub async fn commit(&self, request: CommitRequest) -> Result<Digest> {
        let c = self.find(&request.container)?;
        let engine = self.clone();
        self.to_the_end(async move {
            let _image = engine.inner.image_use.read().await;
            let _op = c.op.lock().await;
            if c.life.borrow().removed {
                return Err(Error::no_such_container(&request.container));
            }
            let pause = request.pause && c.read().record.state.status == Status::Running;
            if pause {
                engine.pause_locked(&c, false).await?;
            }
            let (reference, comment) = (request.reference.clone(), request.comment.clone());
            let container = c.clone();
            let made = engine.blocking(move |e| e.commit_blocking(&container.record(), request)).await;
            if pause && c.read().record.state.status == Status::Paused {
                // The image is there; a container that stays frozen is worth an error all the same.
                engine.unpause_locked(&c).await?;
            }
            let id = made?;
            let mut more = vec![("comment", comment), ("imageID", id.to_string())];
            more.extend(reference.map(|r| ("imageRef", r.or_latest().familiar())));
            engine.container_event(&c, "commit", &more);
            Ok(id)
        })
        .await
    }

    fn commit_blocking(&self, record: &crate::record::Record, request: CommitRequest) -> Result<Digest> {
        let mut own = record.config.run.clone();
        own.exposed_ports.iter_mut().for_each(port_ranges::expand_exposed);
        let mut config = request.config.clone().unwrap_or_else(|| own.clone());
        changes::apply(&mut config, &request.changes)?;
        merge(&mut config, &own);
        let (_, base) = self.inner.store.images().document(&record.image)?;
        let created = rfc3339(now());
        let reference = request.reference.map(Reference::or_latest);
        let step = History {
            created: Some(created.clone()),
            created_by: Some(
                std::iter::once(&record.path).chain(&record.args).cloned().collect::<Vec<_>>().join(" "),
            ),
            author: Some(request.author.clone()).filter(|a| !a.is_empty()),
            comment: Some(request.comment.clone()).filter(|c| !c.is_empty()),
            empty_layer: false,
        };
        let id =
            archive::commit(&self.inner.store, &record.id, Some(&record.image), reference.as_ref(), |new| {
                let mut history = base.history.clone();
                history.push(History { empty_layer: new.empty, ..step });
                ImageDocument {
                    created: Some(created),
                    author: Some(request.author).filter(|a| !a.is_empty()),
                    config: Some(config),
                    history,
                    container: Some(record.id.clone()),
                    comment: Some(request.comment).filter(|c| !c.is_empty()),
                    docker_version: None,
                    // What the container changed no step gave.
                    build_cache: None,
                    ..base
                }
            })?;
        self.image_event("create", &id, &id.to_string());
        self.image_added();
        if let Some(r) = &reference {
            self.image_event("tag", &id, &r.familiar());
        }
        Ok(id)
    }
}

/// Runs `work` on a thread; what it sends is the stream, a failure its last event.
fn progress(
    work: impl FnOnce(&mpsc::Sender<ProgressEvent>) -> Result<()> + Send + 'static,
) -> ProgressStream {
    let (tx, rx) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        if let Err(e) = work(&tx) {
            let _ = tx.blocking_send(ProgressEvent { error: Some(e.to_string()), ..Default::default() });
        }
    });
    Box::pin(stream::unfold(rx, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) }))
}

fn text(stream: String) -> ProgressEvent {
    ProgressEvent { stream: Some(stream), ..Default::default() }
}

/// Whether a client named the image by (a beginning of) its id.
pub(crate) fn is_id(name: &str, id: &Digest) -> bool {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    !hex.is_empty() && id.hex().starts_with(hex)
}

/// `reference=`: a pattern for the familiar name, with or without tag.
fn matches_reference(pattern: &str, r: &Reference) -> bool {
    filters::glob(pattern, &r.familiar()) || filters::glob(pattern, &r.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids() {
        let id = Digest::of(b"x");
        assert!(
            is_id(&id.to_string(), &id)
                && is_id(&id.short(), &id)
                && !is_id("busybox", &id)
                && !is_id("", &id)
        );
        let r: Reference = "busybox:1".parse().expect("reference");
        assert!(
            matches_reference("busybox", &r)
                && matches_reference("busy*:1", &r)
                && !matches_reference("alpine", &r)
        );
    }
}
