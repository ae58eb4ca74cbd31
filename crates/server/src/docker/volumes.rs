//! Volumes.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use longshore_api::{VolumeCreate, VolumeList, VolumesPruned};
use longshore_engine::model::CreateVolume;
use longshore_oci::Kind;

use super::translate::rest;
use super::{Answer, Call, body, reply};
use crate::errors::ApiError;

/// `GET /volumes`.
pub(super) async fn volumes(call: &Call) -> Answer {
    let found = call.engine().volumes(&call.query.filters()?).await?;
    let volumes = found.into_iter().map(rest::volume).collect();
    Ok(reply::json(&VolumeList { volumes, warnings: None }))
}

/// `POST /volumes/create`.
pub(super) async fn create_volume(call: &Call, request: Request<Incoming>) -> Answer {
    let (parts, incoming) = request.into_parts();
    let read = body::read_json::<VolumeCreate>(&parts.headers, incoming, call.config()).await?;
    let wanted = read.unwrap_or_default();
    if wanted.cluster_volume_spec.is_some() {
        return Err(ApiError::of(Kind::Unavailable, super::NO_SWARM));
    }
    let made = call
        .engine()
        .create_volume(CreateVolume {
            name: wanted.name,
            driver: wanted.driver,
            labels: wanted.labels,
            options: wanted.driver_opts,
        })
        .await?;
    Ok(reply::json_status(StatusCode::CREATED, &rest::volume(made)))
}

/// `GET /volumes/{name}`.
pub(super) async fn volume(call: &Call, name: &str) -> Answer {
    Ok(reply::json(&rest::volume(call.engine().volume(name).await?)))
}

/// `DELETE /volumes/{name}`.
pub(super) async fn remove_volume(call: &Call, name: &str) -> Answer {
    call.engine().remove_volume(name, call.query.flag("force")).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST /volumes/prune`.
pub(super) async fn prune_volumes(call: &Call) -> Answer {
    let mut filters = call.query.filters()?;
    // Only unnamed ones since 1.42, unless told otherwise.
    if call.version.below(42) {
        filters.entry("all".to_owned()).or_insert_with(|| vec!["true".to_owned()]);
    }
    let done = call.engine().prune_volumes(&filters).await?;
    Ok(reply::json(&VolumesPruned { volumes_deleted: done.deleted, space_reclaimed: done.reclaimed }))
}
