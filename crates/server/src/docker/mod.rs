//! The Docker Engine API: decode, call the engine, encode.

mod archive;
mod body;
mod build;
mod build_cache;
mod build_lines;
mod build_order;
mod containers;
mod execs;
pub(crate) mod hijack;
mod human;
mod images;
mod keys;
mod layers;
mod networks;
mod query;
mod registry;
pub(crate) mod reply;
pub(crate) mod route;
mod shape;
mod streams;
mod system;
mod translate;
mod upkeep;
mod volumes;
mod working;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use longshore_api::ApiVersion;
use longshore_engine::Engine;
use longshore_oci::Kind;

use self::query::Query;
use self::reply::Reply;
use self::route::Route;
use crate::errors::ApiError;
use crate::server::Shared;
use crate::{ServerConfig, origin};

/// What an operation answers.
type Answer = Result<Reply, ApiError>;

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

impl From<longshore_engine::Error> for ApiError {
    fn from(e: longshore_engine::Error) -> Self {
        Self::of(e.kind(), e.to_string())
    }
}

/// A request, apart from its body.
struct Call {
    shared: std::sync::Arc<Shared>,
    version: ApiVersion,
    query: Query,
}

impl Call {
    fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    fn config(&self) -> &ServerConfig {
        &self.shared.config
    }
}

fn now_nanos() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Answers a request, whatever becomes of it. What changes something runs to its end even if the
/// client leaves: half an operation would be worse than one that nobody waits for.
pub(crate) async fn answer(shared: std::sync::Arc<Shared>, request: Request<Incoming>) -> Reply {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let reads = matches!(method, Method::GET | Method::HEAD);
    let handling = handle(std::sync::Arc::clone(&shared), request);
    let answered = match reads {
        true => AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|_| Err(panicked())),
        false => tokio::spawn(handling).await.unwrap_or_else(|_| Err(panicked())),
    };
    let reply = answered.unwrap_or_else(|e| {
        tracing::debug!(%method, path, status = e.status.as_u16(), "request failed: {e}");
        reply::error(&e)
    });
    reply::finish(reply, &shared.server_header)
}

/// A defect here or below; the process goes on.
fn panicked() -> ApiError {
    ApiError::of(Kind::Internal, "the operation panicked: this is a defect of the daemon, see its log")
}

async fn handle(shared: std::sync::Arc<Shared>, request: Request<Incoming>) -> Answer {
    let over_tcp = request.extensions().get::<hijack::Connection>().is_none_or(|c| c.over_tcp);
    origin::check(request.headers(), over_tcp, &shared.config.host_names)?;
    let (version, path) = route::split_version(request.uri().path());
    let decoded = query::percent_decode(path, false).ok_or_else(ApiError::page_not_found)?;
    let route = route::find(request.method(), &decoded).ok_or_else(ApiError::page_not_found)?;
    let version = match version.map(negotiate) {
        None => ApiVersion::MAX,
        Some(Ok(version)) => version,
        Some(Err(refusal)) => return Ok(*refusal),
    };
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    let call = Call { shared, version, query };
    dispatch(&call, route, request).await
}

/// The version of a path, or the answer to one that is not served.
fn negotiate(text: &str) -> Result<ApiVersion, Box<Reply>> {
    let version = match text.parse::<ApiVersion>() {
        Ok(v) => v,
        // `/v1/info`: as old as it gets.
        Err(_) => ApiVersion::new(0, 0),
    };
    if version < ApiVersion::MIN {
        let mut refusal = reply::text(
            StatusCode::BAD_REQUEST,
            format!(
                "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a newer version\n",
                ApiVersion::MIN
            ),
        );
        let name = HeaderName::from_static("x-content-type-options");
        refusal.headers_mut().insert(name, HeaderValue::from_static("nosniff"));
        return Err(Box::new(refusal));
    }
    if version > ApiVersion::MAX {
        return Err(Box::new(reply::error(&ApiError::invalid(format!(
            "client version {text} is too new. Maximum supported API version is {}",
            ApiVersion::MAX
        )))));
    }
    Ok(version)
}

async fn dispatch(call: &Call, route: Route, request: Request<Incoming>) -> Answer {
    match route {
        Route::Options => Ok(reply::empty(StatusCode::OK)),
        Route::Ping => system::ping(),
        Route::Version => system::version(call).await,
        Route::Info => system::info(call).await,
        Route::Events => system::events(call).await,
        Route::DiskUsage => system::disk_usage(call).await,
        Route::ContainerList => containers::list(call).await,
        Route::ContainerCreate => containers::create(call, request).await,
        Route::ContainerPrune => containers::prune(call).await,
        Route::Container(name, op) => containers::one(call, &name, op, request).await,
        Route::ExecStart(id) => execs::start(call, &id, request).await,
        Route::ExecResize(id) => execs::resize(call, &id).await,
        Route::ExecInspect(id) => execs::inspect(call, &id).await,
        Route::ImageList => images::list(call).await,
        Route::ImageCreate => images::create(call, request).await,
        Route::ImageLoad => images::load(call, request).await,
        Route::ImagePrune => images::prune(call).await,
        Route::ImageSave(name) => images::save(call, name.as_deref()).await,
        Route::ImageInspect(name) => images::inspect(call, &name).await,
        Route::ImageHistory(name) => images::history(call, &name).await,
        Route::ImageTag(name) => images::tag(call, &name).await,
        Route::ImageRemove(name) => images::remove(call, &name).await,
        Route::ImagePush(name) => registry::push(call, &name, request).await,
        Route::ImageSearch => registry::search(call, request.headers()).await,
        Route::Auth => registry::auth(call, request).await,
        Route::Distribution(name) => registry::distribution(call, &name, request.headers()).await,
        Route::Manifest(name) => registry::manifest(call, &name, request.headers()).await,
        Route::Referrers(name) => registry::referrers(call, &name, request.headers()).await,
        Route::Commit => images::commit(call, request).await,
        Route::Build => build::build(call, request).await,
        Route::BuildLines => build::lines(call, request).await,
        Route::BuildDirectory => build_cache::directory(call, request).await,
        Route::BuildPrune => upkeep::prune_build_cache(call).await,
        Route::CompressedPrune => upkeep::prune_compressed(call).await,
        Route::Collect => upkeep::collect(call).await,
        Route::Check => upkeep::check(call),
        Route::VolumeList => volumes::volumes(call).await,
        Route::VolumeCreate => volumes::create_volume(call, request).await,
        Route::VolumePrune => volumes::prune_volumes(call).await,
        Route::VolumeInspect(name) => volumes::volume(call, &name).await,
        Route::VolumeRemove(name) => volumes::remove_volume(call, &name).await,
        Route::NetworkList => networks::list(call).await,
        Route::NetworkInspect(name) => networks::inspect(call, &name).await,
        Route::NetworkRemove(name) => networks::remove(call, &name).await,
        Route::NetworkPrune => networks::prune(call).await,
        Route::NetworkCreate => networks::create(call, request).await,
        Route::NetworkConnect(name) => networks::connect(call, &name, request).await,
        Route::NetworkDisconnect(name) => networks::disconnect(call, &name, request).await,
        Route::WaysIn => networks::ways_in(call).await,
        Route::PluginList => Ok(reply::json(&serde_json::json!([]))),
        Route::NoPlugin(name) => Err(ApiError::of(Kind::NotFound, format!("plugin {name:?} not found"))),
        Route::Swarm => Err(ApiError::of(Kind::Unavailable, NO_SWARM)),
        Route::Layers(op) => layers::answer(call, op).await,
        Route::Working(op) => working::answer(call, op, request).await,
        Route::Missing(what) => Err(ApiError::unimplemented(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_outside_the_range_are_refused() {
        assert_eq!(negotiate("1.24").unwrap(), ApiVersion::MIN);
        assert_eq!(negotiate("1.51").unwrap(), ApiVersion::MAX);
        for (text, kind) in [
            ("1.10", "text/plain; charset=utf-8"),
            ("1", "text/plain; charset=utf-8"),
            ("1.52", "application/json"),
        ] {
            let refusal = negotiate(text).unwrap_err();
            assert_eq!(refusal.status(), StatusCode::BAD_REQUEST);
            assert_eq!(refusal.headers()["content-type"], kind);
        }
    }

    #[test]
    fn every_answer_names_the_daemon() {
        let server = HeaderValue::from_static("Longshore/0.1.0 (linux)");
        let reply = reply::finish(reply::error(&ApiError::page_not_found()), &server);
        assert_eq!(reply.headers()["api-version"], "1.51");
        assert_eq!(reply.headers()["ostype"], "linux");
        assert_eq!(reply.headers()["docker-experimental"], "false");
        assert_eq!(reply.headers()["server"], server);
        assert_eq!(reply.status(), StatusCode::NOT_FOUND);
    }
}
