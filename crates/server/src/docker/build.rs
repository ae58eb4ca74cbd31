//! `POST /build`: the classic builder's door. Its parameters are Docker's; what is not there yet is refused by name.

use std::collections::BTreeMap;
use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, UPGRADE};
use hyper::{HeaderMap, Request};
use longshore_api::build::{self, BuildHead};
use longshore_api::json;
use longshore_engine::model::{
    BuildAnnotated, BuildAnnotation, BuildExport, BuildRequest, LAYOUT, OutputChunk, OutputStream,
};
use longshore_engine::{
    BodyStream, BuildAgents, BuildAllowed, BuildInput, BuildLimits, BuildNamed, BuildNetwork, BuildRemote,
    BuildSecret, BuildSecrets, build_context,
};
use longshore_oci::{Kind, Platform, Reference};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::build_lines::Lines;
use super::build_order::{Ordered, quietly};
use super::hijack::Session;
use super::{Answer, Call, body, build_cache, images, registry, reply, streams};
use crate::errors::ApiError;

/// Parameters that change what is built and are not there yet.
const LATER: [(&str, &str); 3] = [
    ("outputs", "build outputs other than an image"),
    ("session", "build sessions"),
    ("securityopt", "security options of a build"),
];

/// A limit as clients write it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    #[serde(default)]
    soft: i64,
    #[serde(default)]
    hard: i64,
}

/// `POST /build`.
pub(super) async fn build(call: &Call, request: Request<Incoming>) -> Answer {
    let wanted = decode(call, request.headers(), images::platform(call)?.into_iter().collect())?;
    let quiet = call.query.flag("q");
    let bytes = body::upload(request.into_body(), call.config().upload_idle);
    let events = call.engine().build(wanted, input(call, bytes)?).await?;
    let mut ordered = Ordered::default();
    let lines = events.flat_map(move |event| {
        let lines = if quiet { quietly(event) } else { ordered.push(event) };
        futures_util::stream::iter(lines.into_iter().map(|l| Ok::<_, Infallible>(reply::json_line(&l))))
    });
    Ok(reply::stream(reply::JSON, lines))
}

/// `POST /longshore/build`.
pub(super) async fn lines(call: &Call, request: Request<Incoming>) -> Answer {
    if request.headers().contains_key(UPGRADE) {
        return shared(call, request).await;
    }
    let mut wanted = decode_ours(call, request.headers())?;
    let kind = request.headers().get(CONTENT_TYPE).map(|v| v.as_bytes().to_owned());
    let mut bytes = body::upload(request.into_body(), call.config().upload_idle);
    if kind.as_deref() == Some(build::WITH_HEAD.as_bytes()) {
        let head: BuildHead;
        (head, bytes) = read_head(bytes).await?;
        take_head(&mut wanted, head)?;
    }
    let events = call.engine().build(wanted, input(call, bytes)?).await?;
    let mut lines = Lines::default();
    let lines = events.flat_map(move |event| {
        let lines = lines.push(event);
        futures_util::stream::iter(lines.into_iter().map(|l| Ok::<_, Infallible>(reply::json_line(&l))))
    });
    Ok(reply::stream(reply::NDJSON, lines))
}

/// A build of files that the client sends when it is asked.
async fn shared(call: &Call, mut request: Request<Incoming>) -> Answer {
    let takeover = streams::takeover(&mut request)?;
    let mut wanted = decode_ours(call, request.headers())?;
    let elsewhere = call.query.given("remote").map(remote).transpose()?;
    let body = body::read_limited(request.into_body(), build::MAX_HEAD, call.config()).await?;
    // What it holds must not come back in an error.
    let bad = || ApiError::invalid("the request of a build whose files are shared is not what it should be");
    let mut head: BuildHead = json::from_slice(&body).map_err(|_| bad())?;
    let dockerfile = head.dockerfile.take().map(|text| STANDARD.decode(text)).transpose();
    let dockerfile = dockerfile.map_err(|_| bad())?;
    let contexts = std::mem::take(&mut head.contexts);
    let own_context = contexts.first().is_some_and(|key| !key.is_empty());
    // A Dockerfile may be in a context that is elsewhere.
    if if elsewhere.is_some() { own_context } else { dockerfile.is_none() } {
        return Err(bad());
    }
    if head.named_directories.values().any(|n| *n >= contexts.len()) {
        return Err(bad());
    }
    let directories = std::mem::take(&mut head.named_directories).into_iter();
    wanted.contexts.extend(directories.map(|(name, n)| (name, BuildNamed::Files(n))));
    let images = std::mem::take(&mut head.named_images).into_iter();
    wanted.contexts.extend(images.map(|(name, image)| (name, BuildNamed::Image(image))));
    for (name, directory) in std::mem::take(&mut head.named_layouts) {
        wanted.contexts.insert(name.clone(), BuildNamed::Image(format!("{LAYOUT}{name}")));
        wanted.layouts.insert(name, build_cache::place(directory)?);
    }
    for (name, text) in std::mem::take(&mut head.named_remotes) {
        wanted.contexts.insert(name, BuildNamed::Remote(Box::new(remote(&text)?)));
    }
    take_head(&mut wanted, head)?;
    let (input, mut pieces) = mpsc::channel(8);
    let answers = futures_util::stream::poll_fn(move |cx| pieces.poll_recv(cx).map(|piece| piece.map(Ok)));
    let answers = Box::pin(answers);
    let events =
        call.engine().build(wanted, BuildInput::Shared { dockerfile, contexts, elsewhere, answers }).await?;
    let mut lines = Lines::default();
    let output = events.flat_map(move |event| {
        let lines = lines.push(event).into_iter().map(|line| reply::json_line(&line));
        let chunks = lines.map(|data| OutputChunk { stream: OutputStream::Stdout, data });
        futures_util::stream::iter(chunks.collect::<Vec<_>>())
    });
    takeover.start(call.version, Session { tty: true, output: output.boxed(), input: Some(input) }, None)
}

/// The parameters of our own route.
fn decode_ours(call: &Call, headers: &HeaderMap) -> Result<BuildRequest, ApiError> {
    let mut wanted = decode(call, headers, platforms(call)?)?;
    wanted.check = call.query.flag("check");
    wanted.keep_failed = call.query.flag("keepfailed");
    wanted.explain = call.query.flag("explain");
    wanted.unrecorded = call.query.flag("norecord");
    for what in call.query.all("allow") {
        match what.as_str() {
            "network.host" => wanted.allowed.host_network = true,
            "security.insecure" => wanted.allowed.insecure = true,
            what => {
                return Err(ApiError::invalid(format!(
                    "allow={what}: want network.host or security.insecure"
                )));
            }
        }
    }
    for what in call.query.all("export") {
        wanted.exports.push(match what.as_str() {
            "tree" => BuildExport::Tree,
            "archive" => BuildExport::Archive,
            what => return Err(ApiError::invalid(format!("export={what}: want tree or archive"))),
        });
    }
    Ok(wanted)
}

fn decode(call: &Call, headers: &HeaderMap, platforms: Vec<Platform>) -> Result<BuildRequest, ApiError> {
    let q = &call.query;
    for (name, what) in LATER {
        if q.given(name).is_some() {
            return Err(ApiError::unimplemented(what));
        }
    }
    if q.text("version") == "2" {
        return Err(ApiError::unimplemented("BuildKit through POST /build (version=2)"));
    }
    if !matches!(q.text("isolation"), "" | "default") {
        return Err(ApiError::invalid("invalid isolation: only \"default\" is there on Linux"));
    }
    Ok(BuildRequest {
        dockerfile: q.text("dockerfile").to_owned(),
        tags: q.all("t").iter().filter(|t| !t.is_empty()).map(|t| tag(t)).collect::<Result<_, _>>()?,
        target: q.given("target").map(str::to_owned),
        args: given(arguments(q.text("buildargs"))?),
        labels: map(q.text("labels"), "labels")?,
        check: false,
        explain: false,
        keep_failed: false,
        no_cache: q.flag("nocache"),
        fresh_stages: q.all("nocachefilter"),
        pull: q.flag("pull"),
        network: network(q.text("networkmode"))?,
        hosts: q.all("extrahosts").iter().flat_map(|h| hosts(h)).collect(),
        limits: limits(call)?,
        platforms,
        annotations: Vec::new(),
        secrets: BuildSecrets::new(),
        contexts: BTreeMap::new(),
        layouts: BTreeMap::new(),
        agents: BTreeMap::new(),
        allowed: BuildAllowed::default(),
        exports: Vec::new(),
        squash: q.flag("squash"),
        unrecorded: false,
        credentials: registry::all_credentials(headers)?,
        cache_from: build_cache::images(&list(q.text("cachefrom"), "cachefrom")?)?,
        cache_to: Vec::new(),
    })
}

/// Platforms, parted by commas.
fn platforms(call: &Call) -> Result<Vec<Platform>, ApiError> {
    let all = call.query.text("platform").split(',').filter(|one| !one.is_empty());
    all.map(|one| one.parse().map_err(|e| ApiError::invalid(format!("invalid platform: {e}")))).collect()
}

/// What is said of manifests besides.
fn annotation(given: build::BuildAnnotation) -> Result<BuildAnnotation, ApiError> {
    let platform = given.platform.map(|text| text.parse::<Platform>()).transpose();
    let platform = platform.map_err(|e| ApiError::invalid(format!("annotation {}: {e}", given.key)))?;
    let of = match given.of {
        build::BuildAnnotated::Manifest => BuildAnnotated::Manifest,
        build::BuildAnnotated::ManifestDescriptor => BuildAnnotated::ManifestDescriptor,
        build::BuildAnnotated::Index => BuildAnnotated::Index,
        build::BuildAnnotated::IndexDescriptor => BuildAnnotated::IndexDescriptor,
    };
    Ok(BuildAnnotation { of, platform, key: given.key, value: given.value })
}

/// The context that comes with the request, unless it is elsewhere.
fn input(call: &Call, body: BodyStream) -> Result<BuildInput, ApiError> {
    let remote = call.query.given("remote").map(remote).transpose()?;
    Ok(remote.map_or(BuildInput::Tar(body), BuildInput::Elsewhere))
}

/// Where a context is that does not come with the request. What it holds must not come back in an error.
pub(super) fn remote(text: &str) -> Result<BuildRemote, ApiError> {
    if text == "client-session" {
        return Err(ApiError::unimplemented("a context over a build session (remote=client-session)"));
    }
    let wrong = |why: &str| ApiError::invalid(format!("invalid remote context: {why}"));
    let remote = build_context(text).map_err(|e| wrong(&e))?;
    remote.ok_or_else(|| wrong("want the address of a Git repository, or one of http or https"))
}

/// What stands before the context: its length in four bytes, the highest first, and JSON.
pub(super) async fn read_head<T: DeserializeOwned>(
    mut body: BodyStream,
) -> Result<(T, BodyStream), ApiError> {
    let broken = || ApiError::invalid("the request ends before its context");
    let mut read = Vec::new();
    let mut length = None;
    loop {
        if length.is_none()
            && let Some(Ok(four)) = read.get(..4).map(<[u8; 4]>::try_from)
        {
            let n = u32::from_be_bytes(four) as usize;
            if n > build::MAX_HEAD {
                return Err(ApiError::of(
                    Kind::TooLarge,
                    format!("what stands before the context has {n} bytes"),
                ));
            }
            length = Some(n + 4);
        }
        if let Some(end) = length.filter(|end| read.len() >= *end) {
            let rest = Bytes::from(read.split_off(end));
            // What it holds must not come back in an error.
            let head = json::from_slice(read.get(4..).unwrap_or_default())
                .map_err(|_| ApiError::invalid("what stands before the context is not what it should be"))?;
            let rest = futures_util::stream::iter([Ok(rest)]).chain(body);
            return Ok((head, Box::pin(rest)));
        }
        let piece = body.next().await.ok_or_else(broken)?.map_err(|_| broken())?;
        read.extend_from_slice(&piece);
    }
}

/// Takes what every build may be given besides its files.
fn take_head(wanted: &mut BuildRequest, head: BuildHead) -> Result<(), ApiError> {
    wanted.cache_from.extend(build_cache::from(head.cache_from)?);
    wanted.cache_to = build_cache::to(head.cache_to)?;
    wanted.annotations = head.annotations.into_iter().map(annotation).collect::<Result<_, _>>()?;
    wanted.agents = agents(head.agents)?;
    wanted.secrets = secrets(head.secrets)?;
    Ok(())
}

/// Agents of SSH by name: their sockets.
pub(super) fn agents(given: BTreeMap<String, String>) -> Result<BuildAgents, ApiError> {
    let one = |(id, socket): (String, String)| match socket.starts_with('/') {
        true => Ok((id, socket.into())),
        false => Err(ApiError::invalid(format!("ssh agent {id}: {socket} is no absolute path"))),
    };
    given.into_iter().map(one).collect()
}

/// Secrets by name, out of base64.
pub(super) fn secrets(given: BTreeMap<String, String>) -> Result<BuildSecrets, ApiError> {
    let mut secrets = BuildSecrets::new();
    for (id, text) in given {
        let bytes =
            STANDARD.decode(text).map_err(|_| ApiError::invalid(format!("secret {id} is not base64")))?;
        let secret = BuildSecret::new(&bytes).map_err(|e| ApiError::invalid(format!("secret {id}: {e}")))?;
        secrets.insert(id, secret);
    }
    Ok(secrets)
}

fn limits(call: &Call) -> Result<BuildLimits, ApiError> {
    let q = &call.query;
    let number = |name: &str| Ok::<i64, ApiError>(q.number::<i64>(name)?.unwrap_or(0));
    let ulimits: Vec<Ulimit> = parse(q.text("ulimits"), "ulimits")?.unwrap_or_default();
    Ok(BuildLimits {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: q.text("cpusetcpus").to_owned(),
        cpuset_mems: q.text("cpusetmems").to_owned(),
        cgroup_parent: q.text("cgroupparent").to_owned(),
        shm_size: number("shmsize")?,
        ulimits: ulimits.into_iter().map(|u| (u.name, u.soft, u.hard)).collect(),
    })
}

/// A name that an image gets.
fn tag(text: &str) -> Result<Reference, ApiError> {
    let reference: Reference =
        text.parse().map_err(|e| ApiError::invalid(format!("invalid tag {text:?}: {e}")))?;
    reference.or_latest().for_a_tag().map_err(|e| ApiError::invalid(format!("invalid tag {text:?}: {e}")))
}

/// Build arguments, in Docker's words where they are none.
fn arguments(text: &str) -> Result<BTreeMap<String, Option<String>>, ApiError> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let read: Result<Option<_>, _> = json::from_slice(text.as_bytes());
    let read = read.map_err(|e| ApiError::invalid(format!("error reading build args: {e}")))?;
    Ok(read.unwrap_or_default())
}

/// Arguments without a value are not given.
fn given(args: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    args.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

pub(super) fn network(text: &str) -> Result<BuildNetwork, ApiError> {
    match text {
        "" | "default" | "bridge" => Ok(BuildNetwork::Default),
        "none" => Ok(BuildNetwork::None),
        "host" => Ok(BuildNetwork::Host),
        text if text.starts_with("container:") => {
            Err(ApiError::unimplemented("building in the network of a container"))
        }
        name => Ok(BuildNetwork::Named(name.to_owned())),
    }
}

/// `name:address`, parted by commas.
fn hosts(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|h| !h.is_empty()).map(str::to_owned).collect()
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str, name: &str) -> Result<Option<T>, ApiError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let read: Result<Option<T>, _> = json::from_slice(text.as_bytes());
    read.map_err(|e| ApiError::invalid(format!("invalid value for parameter {name}: {e}")))
}

fn map<T: for<'de> Deserialize<'de>>(text: &str, name: &str) -> Result<BTreeMap<String, T>, ApiError> {
    Ok(parse(text, name)?.unwrap_or_default())
}

fn list(text: &str, name: &str) -> Result<Vec<String>, ApiError> {
    Ok(parse(text, name)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_hosts() {
        assert_eq!(network("default").unwrap(), BuildNetwork::Default);
        assert_eq!(network("mine").unwrap(), BuildNetwork::Named("mine".into()));
        assert!(network("container:x").is_err());
        assert_eq!(hosts("a:1.2.3.4, b:::1"), ["a:1.2.3.4", "b:::1"]);
    }

    #[test]
    fn arguments_without_a_value_are_not_given() {
        let args = arguments(r#"{"A":"1","B":null}"#).unwrap();
        assert_eq!(given(args), BTreeMap::from([("A".to_owned(), "1".to_owned())]));
        assert!(arguments("[").unwrap_err().to_string().contains("error reading build args"));
    }
}
