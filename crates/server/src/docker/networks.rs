//! Networks.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use longshore_api::{NetworkConnect, NetworkCreate, NetworkCreated, NetworkDisconnect, NetworksPruned};
use longshore_oci::Kind;
use serde::de::DeserializeOwned;

use super::translate::{create, reach, rest};
use super::{Answer, Call, body, reply};
use crate::errors::ApiError;

async fn read<T: DeserializeOwned + Default>(call: &Call, request: Request<Incoming>) -> Result<T, ApiError> {
    let (parts, incoming) = request.into_parts();
    Ok(body::read_json::<T>(&parts.headers, incoming, call.config()).await?.unwrap_or_default())
}

/// `GET /networks`.
pub(super) async fn list(call: &Call) -> Answer {
    let found = call.engine().networks(&call.query.filters()?).await?;
    Ok(reply::json(&found.into_iter().map(|n| rest::network(n, false)).collect::<Vec<_>>()))
}

/// `GET /longshore/ports`.
pub(super) async fn ways_in(call: &Call) -> Answer {
    let found = call.engine().ways_in(call.query.all("container")).await?;
    Ok(reply::json(&found.into_iter().map(reach::way).collect::<Vec<_>>()))
}

/// `GET /networks/{name}`.
pub(super) async fn inspect(call: &Call, name: &str) -> Answer {
    // Every network here has the scope `local`.
    if call.query.given("scope").is_some_and(|s| s != "local") {
        return Err(ApiError::of(Kind::NotFound, format!("network {name} not found")));
    }
    Ok(reply::json(&rest::network(call.engine().network(name).await?, true)))
}

/// `POST /networks/create`.
pub(super) async fn create(call: &Call, request: Request<Incoming>) -> Answer {
    let wanted: NetworkCreate = read(call, request).await?;
    if wanted.scope == "swarm" {
        let text = "cannot create a swarm scoped network when swarm is not active";
        return Err(ApiError::of(Kind::Denied, text));
    }
    if wanted.ingress {
        return Err(ApiError::of(Kind::Unavailable, super::NO_SWARM));
    }
    let id = call.engine().create_network(rest::create_network(wanted)?).await?;
    Ok(reply::json_status(StatusCode::CREATED, &NetworkCreated { id, warning: String::new() }))
}

/// `DELETE /networks/{name}`.
pub(super) async fn remove(call: &Call, name: &str) -> Answer {
    call.engine().remove_network(name).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST /networks/prune`.
pub(super) async fn prune(call: &Call) -> Answer {
    let removed = call.engine().prune_networks(&call.query.filters()?).await?;
    Ok(reply::json(&NetworksPruned { networks_deleted: Some(removed).filter(|all| !all.is_empty()) }))
}

/// `POST /networks/{name}/connect`.
pub(super) async fn connect(call: &Call, name: &str, request: Request<Incoming>) -> Answer {
    let wanted: NetworkConnect = read(call, request).await?;
    let endpoint = create::endpoint(wanted.endpoint_config.unwrap_or_default())?;
    call.engine().connect_network(name, &wanted.container, endpoint).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `POST /networks/{name}/disconnect`.
pub(super) async fn disconnect(call: &Call, name: &str, request: Request<Incoming>) -> Answer {
    let wanted: NetworkDisconnect = read(call, request).await?;
    call.engine().disconnect_network(name, &wanted.container).await?;
    Ok(reply::empty(StatusCode::OK))
}
