//! `network create`, `connect`, `disconnect` and `rm`.

use hyper::Method;
use serde_json::{Value, json};

use super::{drop_answer, each, say};
use crate::args::networks::{NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkRmArgs};
use crate::client::{Client, Payload, escape};
use crate::error::{Failure, Result};

/// `network create`.
pub(crate) async fn create(c: &Client, args: &NetworkCreateArgs) -> Result<()> {
    let body = args.body().map_err(Failure::new)?;
    let made: Value = c.json(Method::POST, "/networks/create", Payload::Json(body)).await?;
    if let Some(warning) = made["Warning"].as_str().filter(|w| !w.is_empty()) {
        eprintln!("WARNING: {}", crate::tty::printable(warning));
    }
    say(made["Id"].as_str().unwrap_or_default())
}

/// `network connect`.
pub(crate) async fn connect(c: &Client, args: &NetworkConnectArgs) -> Result<()> {
    let [network, container] = args.names.as_slice() else { return Ok(()) };
    let body = json!({"Container": container, "EndpointConfig": args.endpoint()});
    let path = format!("/networks/{}/connect", escape(network));
    drop_answer(c, Method::POST, &path, Payload::Json(body)).await
}

/// `network disconnect`.
pub(crate) async fn disconnect(c: &Client, args: &NetworkDisconnectArgs) -> Result<()> {
    let [network, container] = args.names.as_slice() else { return Ok(()) };
    let body = json!({"Container": container, "Force": args.force});
    let path = format!("/networks/{}/disconnect", escape(network));
    drop_answer(c, Method::POST, &path, Payload::Json(body)).await
}

/// `network rm`.
pub(crate) async fn rm(c: &Client, args: &NetworkRmArgs) -> Result<()> {
    each(&args.names, |name| async move {
        match drop_answer(c, Method::DELETE, &format!("/networks/{}", escape(&name)), Payload::Empty).await {
            Err(e) if args.force && e.is_not_found() => Ok(()),
            Err(e) => Err(e),
            Ok(()) => say(&name),
        }
    })
    .await
}
