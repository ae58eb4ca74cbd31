//! Images.

use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use longshore_api::{ContainerConfig, IdResponse, ImagesPruned, json};
use longshore_engine::ProgressStream;
use longshore_engine::model::{CommitRequest, ImportRequest, ListImages};
use longshore_oci::{Kind, Platform, Reference};

use super::translate::{create, image};
use super::{Answer, Call, body, registry, reply, shape};
use crate::errors::ApiError;

/// `GET /images/json`.
pub(super) async fn list(call: &Call) -> Answer {
    let mut filters = call.query.filters()?;
    if let Some(name) = call.query.given("filter").filter(|_| call.version.below(41)) {
        filters.entry("reference".to_owned()).or_default().push(name.to_owned());
    }
    let wanted = ListImages {
        all: call.query.flag("all"),
        filters,
        shared_size: call.query.flag("shared-size") && !call.version.below(42),
        containers: !call.version.below(51),
    };
    let found = call.engine().images(wanted).await?;
    let lines = found.iter().map(|i| {
        let mut line = image::summary(i);
        shape::image_summary(call.version, &mut line);
        line
    });
    Ok(reply::json(&lines.collect::<Vec<_>>()))
}

/// `POST /images/prune`.
pub(super) async fn prune(call: &Call) -> Answer {
    let done = call.engine().prune_images(&call.query.filters()?).await?;
    let deleted: Vec<_> = done.deleted.into_iter().map(image::deleted).collect();
    Ok(reply::json(&ImagesPruned {
        images_deleted: Some(deleted).filter(|l| !l.is_empty()),
        space_reclaimed: done.reclaimed,
    }))
}

/// `GET /images/{name}/json`.
pub(super) async fn inspect(call: &Call, name: &str) -> Answer {
    let wanted = platform(call)?.filter(|_| !call.version.below(49));
    let found = call.engine().image(name, wanted.as_ref()).await?;
    if let Some(wanted) = wanted {
        let has = found.document.platform();
        if !has.runs_on(&wanted) {
            let text = format!(
                "image with reference {name} was found but its platform ({has}) does not match the specified platform ({wanted})"
            );
            return Err(ApiError::of(Kind::NotFound, text));
        }
    }
    let mut found = image::inspect(found);
    shape::image(call.version, &mut found);
    Ok(reply::json(&found))
}

/// The `platform` parameter: `linux/amd64`, or since 1.48 a JSON object.
pub(super) fn platform(call: &Call) -> Result<Option<Platform>, ApiError> {
    let Some(text) = call.query.given("platform") else { return Ok(None) };
    let read = match text.starts_with('{') {
        true => json::from_slice(text.as_bytes()).map_err(|e| e.to_string()),
        false => text.parse::<Platform>().map_err(|e| e.to_string()),
    };
    read.map(Some).map_err(|e| ApiError::invalid(format!("invalid platform: {e}")))
}

/// `GET /images/{name}/history`.
pub(super) async fn history(call: &Call, name: &str) -> Answer {
    let found = call.engine().history(name).await?;
    Ok(reply::json(&found.into_iter().map(image::history).collect::<Vec<_>>()))
}

/// A repository and a tag given apart. A name without a tag means `latest`.
pub(super) fn repo_tag(repo: &str, tag: &str) -> Result<Option<Reference>, ApiError> {
    if repo.is_empty() {
        return Ok(None);
    }
    let reference: Reference = repo.parse().map_err(longshore_engine::Error::from)?;
    if reference.digest().is_some() {
        return Err(ApiError::invalid("cannot import digest reference"));
    }
    let reference = match tag {
        "" => reference.or_latest(),
        tag => reference.with_tag(tag).map_err(|_| ApiError::invalid("invalid tag format"))?,
    };
    Ok(Some(reference.for_a_tag().map_err(longshore_engine::Error::from)?))
}

/// `POST /images/{name}/tag`.
pub(super) async fn tag(call: &Call, name: &str) -> Answer {
    let Some(target) = repo_tag(call.query.text("repo"), call.query.text("tag"))? else {
        return Err(ApiError::invalid("invalid reference format"));
    };
    call.engine().tag(name, &target).await?;
    Ok(reply::empty(StatusCode::CREATED))
}

/// `DELETE /images/{name}`.
pub(super) async fn remove(call: &Call, name: &str) -> Answer {
    if call.query.given("platforms").is_some() {
        return Err(ApiError::unimplemented("removing one platform of an image"));
    }
    let (force, prune) = (call.query.flag("force"), !call.query.flag("noprune"));
    let done = call.engine().remove_image(name, force, prune).await?;
    Ok(reply::json(&done.into_iter().map(image::deleted).collect::<Vec<_>>()))
}

pub(super) fn progress(events: ProgressStream) -> reply::Reply {
    let lines = events.map(|e| Ok::<_, std::convert::Infallible>(reply::json_line(&image::progress(e))));
    reply::stream(reply::JSON, lines)
}

/// `POST /images/load`.
pub(super) async fn load(call: &Call, request: Request<Incoming>) -> Answer {
    if call.query.given("platform").is_some() {
        return Err(ApiError::unimplemented("loading one platform of an image"));
    }
    let bytes = body::upload(request.into_body(), call.config().upload_idle);
    let events = call.engine().load(bytes, call.query.flag_or("quiet", true)).await?;
    Ok(progress(events))
}

/// `GET /images/get` and `GET /images/{name}/get`.
pub(super) async fn save(call: &Call, name: Option<&str>) -> Answer {
    if call.query.given("platform").is_some() {
        return Err(ApiError::unimplemented("saving one platform of an image"));
    }
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => call.query.all("names"),
    };
    if names.iter().all(String::is_empty) {
        return Err(ApiError::invalid("no image names were given"));
    }
    let bytes = call.engine().save(&names).await?;
    Ok(reply::stream(reply::TAR, bytes))
}

/// `POST /images/create`: a pull or an import.
pub(super) async fn create(call: &Call, request: Request<Incoming>) -> Answer {
    let query = &call.query;
    if query.given("fromImage").is_some() {
        return registry::pull(call, request.headers()).await;
    }
    match query.text("fromSrc") {
        "-" => {}
        "" => return Err(ApiError::invalid("neither fromImage nor fromSrc was given")),
        _ => return Err(ApiError::unimplemented("importing from a URL")),
    }
    let wanted = ImportRequest {
        reference: repo_tag(query.text("repo"), query.text("tag"))?,
        message: query.text("message").to_owned(),
        changes: query.all("changes"),
        platform: platform(call)?,
    };
    let bytes = body::upload(request.into_body(), call.config().upload_idle);
    Ok(progress(call.engine().import(wanted, bytes).await?))
}

/// `POST /commit`.
pub(super) async fn commit(call: &Call, request: Request<Incoming>) -> Answer {
    let query = &call.query;
    let (parts, incoming) = request.into_parts();
    let config = match body::read_json::<ContainerConfig>(&parts.headers, incoming, call.config()).await {
        Ok(config) => config,
        // Clients declare JSON and send nothing, in chunks.
        Err(e) if e.message.contains("got EOF") => None,
        Err(e) => return Err(e),
    };
    let given = config.filter(|c| *c != ContainerConfig::default());
    let made = call
        .engine()
        .commit(CommitRequest {
            container: query.text("container").to_owned(),
            reference: repo_tag(query.text("repo"), query.text("tag"))?,
            comment: query.text("comment").to_owned(),
            author: query.text("author").to_owned(),
            changes: query.all("changes"),
            pause: query.given("pause").is_none() || query.flag("pause"),
            config: given.as_ref().map(create::run_config),
        })
        .await?;
    Ok(reply::json_status(StatusCode::CREATED, &IdResponse { id: made.to_string() }))
}
