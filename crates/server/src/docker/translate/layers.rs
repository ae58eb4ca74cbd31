//! Layers as clients see them.

use longshore_api::layers as api;
use longshore_api::layers::path_out;
use longshore_api::time::rfc3339_nano;
use longshore_engine::model::{self, FileEvent, FileKind, Place};

/// `GET /longshore/images/{name}/layers`.
pub(crate) fn layers(v: model::LayersView) -> api::ImageLayers {
    let (size, wasted) = v.layers.iter().fold((0, 0), |(s, w), l| (s + l.size, w + l.wasted));
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let efficiency = if size == 0 { 1.0 } else { (size - wasted) as f64 / size as f64 };
    let layers = v.layers.into_iter().map(|l| api::ImageLayer {
        layer: name(&l.name),
        size: l.size,
        wasted: l.wasted,
        files_added: l.added,
        files_changed: l.changed,
        files_deleted: l.deleted,
        directories: l.directories,
        directory: l.directory,
        compressed: l.compressed.map(|(digest, size, media_type)| api::CompressedLayer {
            digest: digest.to_string(),
            size,
            media_type,
        }),
    });
    api::ImageLayers { id: v.id.to_string(), size, wasted, efficiency, layers: layers.collect() }
}

fn name(l: &model::LayerName) -> api::LayerName {
    api::LayerName {
        number: l.number as u64,
        diff_id: l.diff_id.clone(),
        chain_id: l.chain_id.clone(),
        cache_id: l.cache_id.clone(),
        step: l.step.clone(),
        created_by: l.created_by.clone(),
        comment: l.comment.clone(),
        created: if l.created == 0 { String::new() } else { rfc3339_nano(l.created) },
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Dir => "dir",
        FileKind::Symlink => "symlink",
        FileKind::Char => "char",
        FileKind::Block => "block",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

fn hard_link(path: &[u8]) -> String {
    if path.is_empty() { String::new() } else { path_out(path).0 }
}

fn device(i: &model::FileInfo) -> Option<(u32, u32)> {
    matches!(i.kind, FileKind::Char | FileKind::Block).then_some(i.dev)
}

/// A file.
pub(crate) fn info(i: model::FileInfo) -> api::FileInfo {
    let time = i.mtime.map(|t| t.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos)));
    api::FileInfo {
        kind: kind(i.kind).to_owned(),
        mode: i.mode,
        size: i.size,
        // The first second of 1970 is a time like others here.
        mtime: time.map_or_else(String::new, |t| match t {
            0 => "1970-01-01T00:00:00Z".to_owned(),
            t => rfc3339_nano(t),
        }),
        uid: i.owner.map(|o| o.0),
        gid: i.owner.map(|o| o.1),
        device: device(&i),
        link_target: text(&i.link),
        hard_link: hard_link(&i.hard_link),
    }
}

/// `GET /longshore/images/{name}/which` and that of containers.
pub(crate) fn which(v: model::WhichView) -> api::Which {
    let (path, path_bytes) = path_out(&v.which.path);
    let layers = v.layers;
    let version = |event: model::Version| {
        let (place, layer) = match event.place {
            Place::Layer(number) => ("layer", Some(number)),
            Place::Init => ("init", None),
            Place::Container => ("container", None),
        };
        let unknown = |number| api::LayerName { number: number as u64, ..api::LayerName::default() };
        api::Version {
            place: place.to_owned(),
            layer: layer.map(|n| layers.get(n.saturating_sub(1)).map_or_else(|| unknown(n), name)),
            change: change(event.event).to_owned(),
            via: if event.event == FileEvent::Deleted { path_out(&event.via).0 } else { String::new() },
            file: event.info.map(info),
            opaque: event.opaque,
            entries: event.entries,
        }
    };
    api::Which {
        image: v.image.to_string(),
        container: v.container.unwrap_or_default(),
        path,
        path_bytes,
        links: v
            .which
            .links
            .iter()
            .map(|(at, to)| api::FollowedLink { path: path_out(at).0, target: text(to) })
            .collect(),
        exists: v.which.exists,
        mount: v.mount.map(|m| api::MountedOver {
            source: if m.name.is_empty() { m.source.display().to_string() } else { m.name },
            kind: m.kind,
            destination: m.destination,
        }),
        versions: v.which.versions.into_iter().map(version).collect(),
    }
}

fn change(event: FileEvent) -> &'static str {
    match event {
        FileEvent::Added => "added",
        FileEvent::Changed => "changed",
        FileEvent::Kept => "kept",
        FileEvent::Deleted => "deleted",
    }
}

fn letter(event: FileEvent) -> String {
    let letter = match event {
        FileEvent::Added => "A",
        FileEvent::Changed => "C",
        FileEvent::Kept => "K",
        FileEvent::Deleted => "D",
    };
    letter.to_owned()
}

/// A line of `GET /longshore/images/{name}/files`.
pub(crate) fn layer_file(f: model::LayerFile) -> api::LayerFile {
    let (path, path_bytes) = path_out(&f.path);
    let line = api::LayerFile {
        path,
        path_bytes,
        change: letter(f.event),
        opaque: f.opaque,
        hidden_by: f.hidden_by.unwrap_or(0) as u64,
        ..api::LayerFile::default()
    };
    match f.info {
        Some(i) => api::LayerFile {
            kind: kind(i.kind).to_owned(),
            mode: i.mode,
            size: i.size,
            mtime: i.mtime.map_or(0, |t| t.secs),
            uid: i.owner.map_or(0, |o| o.0),
            gid: i.owner.map_or(0, |o| o.1),
            device: device(&i),
            link_target: text(&i.link),
            hard_link: hard_link(&i.hard_link),
            ..line
        },
        // A directory that is only implied.
        None if f.event != FileEvent::Deleted => api::LayerFile { kind: "dir".to_owned(), ..line },
        None => line,
    }
}

/// A line of `GET /longshore/images/diff`.
pub(crate) fn diff_line(r: model::DiffRow) -> api::DiffLine {
    let (path, path_bytes) = path_out(&r.path);
    let d = r.differs;
    let differs =
        [("kind", d.kind), ("content", d.content), ("mode", d.mode), ("owner", d.owner), ("mtime", d.mtime)];
    api::DiffLine {
        path,
        path_bytes,
        change: letter(r.event),
        differs: differs.iter().filter(|(_, on)| *on).map(|(what, _)| (*what).to_owned()).collect(),
        from: r.from.map(info),
        to: r.to.map(info),
    }
}
