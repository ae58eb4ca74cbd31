//! `volume create` and `volume rm`.

use hyper::Method;
use serde_json::{Value, json};

use super::{drop_answer, each, say};
use crate::args::object::{VolumeCreateArgs, VolumeRmArgs};
use crate::args::pairs;
use crate::client::{Client, Payload, escape, query};
use crate::error::Result;

/// `volume create`.
pub(crate) async fn create(c: &Client, args: &VolumeCreateArgs) -> Result<()> {
    let body = json!({
        "Name": args.name.as_deref().unwrap_or_default(), "Driver": args.driver,
        "DriverOpts": pairs(&args.opt), "Labels": pairs(&args.label),
    });
    let made: Value = c.json(Method::POST, "/volumes/create", Payload::Json(body)).await?;
    say(made["Name"].as_str().unwrap_or_default())
}

/// `volume rm`.
pub(crate) async fn rm(c: &Client, args: &VolumeRmArgs) -> Result<()> {
    let force = if args.force { "1" } else { "" };
    each(&args.volumes, |name| async move {
        let path = query(&format!("/volumes/{}", escape(&name)), &[("force", force)]);
        drop_answer(c, Method::DELETE, &path, Payload::Empty).await?;
        say(&name)
    })
    .await
}
