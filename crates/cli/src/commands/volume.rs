//! `volume`.

use hyper::Method;
use serde_json::{Value, json};

use super::{drop_answer, each, filters, inspect, lists, say, system};
use crate::cli::VolumeCommand;
use crate::client::{Client, Payload, escape, query};
use crate::error::Result;

/// Carries out a volume command.
pub(crate) async fn run(c: &Client, command: VolumeCommand) -> Result<()> {
    match command {
        VolumeCommand::Create { driver, label, opt, volume } => {
            let map = |values: &[String]| -> Value {
                values
                    .iter()
                    .map(|v| v.split_once('=').unwrap_or((v, "")))
                    .map(|(k, v)| (k.to_owned(), json!(v)))
                    .collect()
            };
            let body = json!({"Name": volume.unwrap_or_default(), "Driver": driver, "DriverOpts": map(&opt), "Labels": map(&label)});
            let made: Value = c.json(Method::POST, "/volumes/create", Payload::Json(body)).await?;
            say(made["Name"].as_str().unwrap_or_default())
        }
        VolumeCommand::Ls(args) => lists::volumes(c, &args).await,
        VolumeCommand::Inspect(args) => inspect::inspect(c, &args, "volume").await,
        VolumeCommand::Rm { force, volumes } => {
            each(&volumes, |name| async move {
                let path =
                    query(&format!("/volumes/{}", escape(&name)), &[("force", if force { "1" } else { "" })]);
                drop_answer(c, Method::DELETE, &path, Payload::Empty).await?;
                say(&name)
            })
            .await
        }
        VolumeCommand::Prune(args) => {
            let mut wanted = args.filter.clone();
            let question = if args.all {
                wanted.push("all=1".into());
                "WARNING! This will remove all local volumes not used by at least one container.\nAre you sure you want to continue?"
            } else {
                "WARNING! This will remove anonymous local volumes not used by at least one container.\nAre you sure you want to continue?"
            };
            system::prune(
                c,
                "/volumes/prune",
                &filters(&wanted)?,
                args.force,
                question,
                "VolumesDeleted",
                "Deleted Volumes:",
            )
            .await
        }
    }
}
