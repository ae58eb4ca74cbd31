//! Files of containers: `docker cp`.

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, StatusCode};
use longshore_api::PathStat;
use longshore_api::time::rfc3339_nano;
use longshore_engine::model::{self, ArchivePutFlags};

use super::{Answer, Call, body, reply};
use crate::errors::ApiError;

fn path(call: &Call) -> Result<&str, ApiError> {
    call.query.given("path").ok_or_else(|| ApiError::invalid("bad parameter: 'path' cannot be empty"))
}

fn with_stat(mut answer: reply::Reply, stat: model::PathStat) -> Answer {
    let stat = PathStat {
        name: stat.name,
        size: stat.size,
        mode: stat.mode,
        mtime: rfc3339_nano(stat.mtime),
        link_target: stat.link_target,
    };
    let value = HeaderValue::try_from(stat.to_header()).map_err(|e| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("encode the path's stat: {e}"))
    })?;
    answer.headers_mut().insert(PathStat::HEADER, value);
    Ok(answer)
}

/// `HEAD /containers/{name}/archive`.
pub(super) async fn stat(call: &Call, name: &str) -> Answer {
    let stat = call.engine().archive_stat(name, path(call)?).await?;
    with_stat(reply::empty(StatusCode::OK), stat)
}

/// `GET /containers/{name}/archive`.
pub(super) async fn get(call: &Call, name: &str) -> Answer {
    let (stat, bytes) = call.engine().archive_get(name, path(call)?).await?;
    with_stat(reply::stream(reply::TAR, bytes), stat)
}

/// `PUT /containers/{name}/archive`.
pub(super) async fn put(call: &Call, name: &str, request: Request<Incoming>) -> Answer {
    let flags = ArchivePutFlags {
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.flag("copyUIDGID"),
    };
    let bytes = body::upload(request.into_body(), call.config().upload_idle);
    call.engine().archive_put(name, path(call)?, flags, bytes).await?;
    Ok(reply::empty(StatusCode::OK))
}
