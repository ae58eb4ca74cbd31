//! Paths to operations: a pure function, so that what is served can be read in one table.

use hyper::Method;

use super::{layers, working};

/// What a request wants. Names are decoded and not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Asked about any path.
    Options,
    Ping,
    Version,
    Info,
    Events,
    DiskUsage,
    ContainerList,
    ContainerCreate,
    ContainerPrune,
    Container(String, ContainerOp),
    ExecStart(String),
    ExecResize(String),
    ExecInspect(String),
    ImageList,
    ImageCreate,
    ImageLoad,
    ImagePrune,
    ImageSave(Option<String>),
    ImageInspect(String),
    ImageHistory(String),
    ImageTag(String),
    ImagePush(String),
    ImageSearch,
    ImageRemove(String),
    Commit,
    Auth,
    Distribution(String),
    /// Ours: a manifest as a registry has it.
    Manifest(String),
    /// Ours: what refers to a manifest in a registry.
    Referrers(String),
    Build,
    BuildLines,
    BuildDirectory,
    BuildPrune,
    CompressedPrune,
    Collect,
    Check,
    VolumeList,
    VolumeCreate,
    VolumePrune,
    VolumeInspect(String),
    VolumeRemove(String),
    NetworkList,
    NetworkInspect(String),
    NetworkRemove(String),
    NetworkPrune,
    NetworkCreate,
    NetworkConnect(String),
    NetworkDisconnect(String),
    PluginList,
    /// A plugin that is not there.
    NoPlugin(String),
    Swarm,
    /// Of our own, below `/longshore`.
    Layers(layers::Op),
    /// The same: who can reach what.
    WaysIn,
    /// The same: images made step by step.
    Working(working::Op),
    /// Known, and not built yet; the text names it.
    Missing(&'static str),
}

/// What is done with one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerOp {
    Inspect,
    Top,
    Logs,
    Changes,
    Export,
    Resize,
    Start,
    Stop,
    Restart,
    Kill,
    Rename,
    Update,
    Pause,
    Unpause,
    Attach,
    Wait,
    Remove,
    ArchiveStat,
    ArchiveGet,
    ArchivePut,
    Exec,
    /// Known, and not built yet; the text names it.
    Missing(&'static str),
}

/// Splits `/v1.41/info` into `1.41` and `/info`; a path without a version keeps its own.
pub(crate) fn split_version(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else { return (None, path) };
    let end = rest.find('/').unwrap_or(rest.len());
    let (version, tail) = rest.split_at(end);
    let numeric = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match numeric && !tail.is_empty() {
        true => (Some(version), tail),
        false => (None, path),
    }
}

/// Finds the operation of a decoded path without version. `None`: no such page.
pub(crate) fn find(method: &Method, path: &str) -> Option<Route> {
    if method == Method::OPTIONS {
        return Some(Route::Options);
    }
    let path = path.strip_prefix('/')?;
    let (family, rest) = path.split_once('/').unwrap_or((path, ""));
    let (get, post) = (method == Method::GET, method == Method::POST);
    Some(match (family, rest) {
        ("_ping", "") if get || method == Method::HEAD => Route::Ping,
        ("version", "") if get => Route::Version,
        ("info", "") if get => Route::Info,
        ("events", "") if get => Route::Events,
        ("system", "df") if get => Route::DiskUsage,
        ("auth", "") if post => Route::Auth,
        ("longshore", "compressed/prune") if post => Route::CompressedPrune,
        ("longshore", "build") if post => Route::BuildLines,
        ("longshore", "build/directory") if post => Route::BuildDirectory,
        ("longshore", "gc") if post => Route::Collect,
        ("longshore", "check") if post => Route::Check,
        ("longshore", "ports") if get => Route::WaysIn,
        ("commit", "") if post => Route::Commit,
        ("build", "prune") if post => Route::BuildPrune,
        ("build", "") if post => Route::Build,
        ("build", "cancel") if post => Route::Missing("calling off a build by its id"),
        ("session" | "grpc", "") if post => Route::Missing("BuildKit sessions"),
        ("containers", rest) => return container(method, rest),
        ("exec", rest) => return exec(method, rest),
        ("images", rest) => return image(method, rest),
        ("volumes", rest) => return volume(method, rest),
        ("networks", rest) => return network(method, rest),
        ("longshore", rest) => {
            return own(method, rest)
                .or_else(|| layers::find(method, rest).map(Route::Layers))
                .or_else(|| working::find(method, rest).map(Route::Working));
        }
        ("plugins", "") if get => Route::PluginList,
        ("plugins", rest) if !rest.is_empty() => return plugin(method, rest),
        ("distribution", rest) if get => match name_and_verb(rest)? {
            (name, "json") => Route::Distribution(name),
            _ => return None,
        },
        ("swarm" | "services" | "nodes" | "tasks" | "secrets" | "configs", _) => return swarm(method, path),
        _ => return None,
    })
}

/// A name and what follows its last slash; names may hold slashes.
fn name_and_verb(rest: &str) -> Option<(String, &str)> {
    let (name, verb) = rest.rsplit_once('/')?;
    (!name.is_empty()).then(|| (name.to_owned(), verb))
}

fn container(method: &Method, rest: &str) -> Option<Route> {
    use ContainerOp as Op;
    let (get, post) = (method == Method::GET, method == Method::POST);
    match rest {
        "json" if get => return Some(Route::ContainerList),
        "create" if post => return Some(Route::ContainerCreate),
        "prune" if post => return Some(Route::ContainerPrune),
        "" => return None,
        name if method == Method::DELETE => return Some(Route::Container(name.to_owned(), Op::Remove)),
        _ => {}
    }
    if get && rest.strip_suffix("/attach/ws").is_some_and(|name| !name.is_empty()) {
        return Some(Route::Missing("attaching over a web socket"));
    }
    let (name, verb) = name_and_verb(rest)?;
    let op = match verb {
        "json" if get => Op::Inspect,
        "top" if get => Op::Top,
        "logs" if get => Op::Logs,
        "changes" if get => Op::Changes,
        "export" if get => Op::Export,
        "stats" if get => Op::Missing("stats"),
        "archive" if method == Method::HEAD => Op::ArchiveStat,
        "archive" if get => Op::ArchiveGet,
        "archive" if method == Method::PUT => Op::ArchivePut,
        "checkpoints" if get || post => return Some(Route::Missing("checkpoints")),
        "resize" if post => Op::Resize,
        "start" if post => Op::Start,
        "stop" if post => Op::Stop,
        "restart" if post => Op::Restart,
        "kill" if post => Op::Kill,
        "rename" if post => Op::Rename,
        "pause" if post => Op::Pause,
        "unpause" if post => Op::Unpause,
        "attach" if post => Op::Attach,
        "wait" if post => Op::Wait,
        "exec" if post => Op::Exec,
        "update" if post => Op::Update,
        _ => return None,
    };
    Some(Route::Container(name, op))
}

fn exec(method: &Method, rest: &str) -> Option<Route> {
    let (id, verb) = name_and_verb(rest)?;
    match verb {
        "start" if method == Method::POST => Some(Route::ExecStart(id)),
        "resize" if method == Method::POST => Some(Route::ExecResize(id)),
        "json" if method == Method::GET => Some(Route::ExecInspect(id)),
        _ => None,
    }
}

fn image(method: &Method, rest: &str) -> Option<Route> {
    let (get, post) = (method == Method::GET, method == Method::POST);
    match rest {
        "json" if get => return Some(Route::ImageList),
        "search" if get => return Some(Route::ImageSearch),
        "get" if get => return Some(Route::ImageSave(None)),
        "create" if post => return Some(Route::ImageCreate),
        "load" if post => return Some(Route::ImageLoad),
        "prune" if post => return Some(Route::ImagePrune),
        "" => return None,
        name if method == Method::DELETE => return Some(Route::ImageRemove(name.to_owned())),
        _ => {}
    }
    let (name, verb) = name_and_verb(rest)?;
    match verb {
        "json" if get => Some(Route::ImageInspect(name)),
        "history" if get => Some(Route::ImageHistory(name)),
        "get" if get => Some(Route::ImageSave(Some(name))),
        "push" if post => Some(Route::ImagePush(name)),
        "tag" if post => Some(Route::ImageTag(name)),
        _ => None,
    }
}

/// What Docker does not have.
fn own(method: &Method, rest: &str) -> Option<Route> {
    let get = method == Method::GET;
    let (family, name) = rest.split_once('/').filter(|(_, name)| !name.is_empty())?;
    match family {
        "manifests" if get => Some(Route::Manifest(name.to_owned())),
        "referrers" if get => Some(Route::Referrers(name.to_owned())),
        _ => None,
    }
}

fn volume(method: &Method, rest: &str) -> Option<Route> {
    match (method, rest) {
        (&Method::GET, "") => Some(Route::VolumeList),
        (&Method::POST, "create") => Some(Route::VolumeCreate),
        (&Method::POST, "prune") => Some(Route::VolumePrune),
        (_, "") => None,
        (&Method::GET, name) => Some(Route::VolumeInspect(name.to_owned())),
        (&Method::DELETE, name) => Some(Route::VolumeRemove(name.to_owned())),
        (&Method::PUT, _) => Some(Route::Swarm),
        _ => None,
    }
}

fn network(method: &Method, rest: &str) -> Option<Route> {
    match (method, rest) {
        (&Method::GET, "") => Some(Route::NetworkList),
        (&Method::POST, "create") => Some(Route::NetworkCreate),
        (&Method::POST, "prune") => Some(Route::NetworkPrune),
        (_, "") => None,
        (&Method::GET, name) => Some(Route::NetworkInspect(name.to_owned())),
        (&Method::DELETE, name) => Some(Route::NetworkRemove(name.to_owned())),
        (&Method::POST, rest) => match name_and_verb(rest)? {
            (name, "connect") => Some(Route::NetworkConnect(name.to_owned())),
            (name, "disconnect") => Some(Route::NetworkDisconnect(name.to_owned())),
            _ => None,
        },
        _ => None,
    }
}

/// There are no plugins: what names one finds none.
fn plugin(method: &Method, rest: &str) -> Option<Route> {
    let (get, post) = (method == Method::GET, method == Method::POST);
    match rest {
        "privileges" if get => return Some(Route::Missing("installing plugins")),
        "pull" | "create" if post => return Some(Route::Missing("installing plugins")),
        name if method == Method::DELETE => return Some(Route::NoPlugin(name.to_owned())),
        _ => {}
    }
    let (name, verb) = name_and_verb(rest)?;
    let known = match verb {
        "json" => get,
        "enable" | "disable" | "push" | "set" | "upgrade" => post,
        _ => false,
    };
    known.then_some(Route::NoPlugin(name))
}

/// Everything of a swarm gets one answer, if it exists at all.
fn swarm(method: &Method, path: &str) -> Option<Route> {
    let parts: Vec<&str> = path.split('/').collect();
    let (get, post) = (method == Method::GET, method == Method::POST);
    let known = match parts.as_slice() {
        ["swarm" | "services" | "nodes" | "tasks" | "secrets" | "configs"] => get,
        ["swarm", "unlockkey"] => get,
        ["swarm", "init" | "join" | "leave" | "update" | "unlock"] => post,
        ["services" | "secrets" | "configs", "create"] => post,
        ["services" | "nodes" | "secrets" | "configs", _] => get || method == Method::DELETE,
        ["tasks", _] => get,
        ["services" | "nodes" | "secrets" | "configs", _, "update"] => post,
        ["services" | "tasks", _, "logs"] => get,
        _ => false,
    };
    known.then_some(Route::Swarm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Option<Route> {
        let (method, path) = line.split_once(' ').unwrap();
        find(&method.parse().unwrap(), path)
    }

    #[test]
    fn versions_are_split_off() {
        assert_eq!(split_version("/v1.41/info"), (Some("1.41"), "/info"));
        assert_eq!(split_version("/v1.24/images/v1/json"), (Some("1.24"), "/images/v1/json"));
        for whole in ["/info", "/version", "/volumes", "/v/info", "/vx/info", "/v1.41", "info", "/"] {
            assert_eq!(split_version(whole), (None, whole));
        }
    }

    #[test]
    fn names_may_hold_slashes() {
        let image = |n: &str| Some(Route::ImageInspect(n.into()));
        assert_eq!(at("GET /images/foo/bar:1/json"), image("foo/bar:1"));
        assert_eq!(at("GET /images/localhost:5000/a/json/json"), image("localhost:5000/a/json"));
        assert_eq!(at("DELETE /images/foo/bar:1"), Some(Route::ImageRemove("foo/bar:1".into())));
        assert_eq!(at("GET /images/a/b/get"), Some(Route::ImageSave(Some("a/b".into()))));
        assert_eq!(at("GET /images/get"), Some(Route::ImageSave(None)));
        assert_eq!(at("POST /images/a:5/b/push"), Some(Route::ImagePush("a:5/b".into())));
        assert_eq!(at("GET /distribution/a/b/json"), Some(Route::Distribution("a/b".into())));
        assert_eq!(at("GET /longshore/manifests/a/b:1"), Some(Route::Manifest("a/b:1".into())));
    }

    #[test]
    fn containers() {
        let op = |n: &str, op| Some(Route::Container(n.into(), op));
        assert_eq!(at("GET /containers/json"), Some(Route::ContainerList));
        assert_eq!(at("GET /containers/json/json"), op("json", ContainerOp::Inspect));
        assert_eq!(at("HEAD /containers/web/archive"), op("web", ContainerOp::ArchiveStat));
        assert_eq!(at("DELETE /containers/web"), op("web", ContainerOp::Remove));
        assert_eq!(at("POST /containers/web/exec"), op("web", ContainerOp::Exec));
        assert_eq!(at("GET /containers/web/attach/ws"), Some(Route::Missing("attaching over a web socket")));
    }

    #[test]
    fn unknown_paths_and_methods_are_no_pages() {
        for line in [
            "GET /nosuch",
            "POST /version",
            "GET /containers",
            "GET /containers/web",
            "POST /containers/web/json",
            "GET /containers//json",
            "PUT /containers/create",
            "DELETE /containers/",
            "GET /exec/x",
            "GET /swarm/init",
            "GET /services/a/b/c",
            "GET /",
        ] {
            assert_eq!(at(line), None, "{line}");
        }
        assert_eq!(at("GET /swarm"), Some(Route::Swarm));
        assert_eq!(at("POST /services/create"), Some(Route::Swarm));
        assert_eq!(at("GET /plugins/a/b/json"), Some(Route::NoPlugin("a/b".into())));
        assert_eq!(at("POST /plugins/pull"), Some(Route::Missing("installing plugins")));
        assert_eq!(at("GET /plugins/a/enable"), None);
        assert_eq!(at("GET /networks/"), Some(Route::NetworkList));
        assert_eq!(at("DELETE /networks/a"), Some(Route::NetworkRemove("a".into())));
        assert_eq!(at("OPTIONS /any/thing"), Some(Route::Options));
        assert_eq!(at("GET /system/df"), Some(Route::DiskUsage));
        assert_eq!(at("GET /longshore/ports"), Some(Route::WaysIn));
        assert_eq!(at("POST /longshore/ports"), None);
        let stats = Route::Container("web".into(), ContainerOp::Missing("stats"));
        assert_eq!(at("GET /containers/web/stats"), Some(stats));
    }
}
