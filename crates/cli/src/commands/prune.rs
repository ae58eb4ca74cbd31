//! What removes everything that is not needed.

use std::io::Write;

use hyper::Method;
use serde_json::Value;

use super::{filters, say};
use crate::args::image::ImagePruneArgs;
use crate::args::object::{ContainerPruneArgs, VolumePruneArgs};
use crate::client::{Client, Payload, query};
use crate::error::{Failure, Result};
use crate::format::human::total;

/// `container prune`.
pub(crate) async fn containers(c: &Client, args: &ContainerPruneArgs) -> Result<()> {
    if !args.force && !confirmed("This will remove all stopped containers.")? {
        return Ok(());
    }
    let done = prune(c, "/containers/prune", &args.filter).await?;
    report(&done, "Deleted Containers:", &names(&done["ContainersDeleted"]))
}

/// `volume prune`.
pub(crate) async fn volumes(c: &Client, args: &VolumePruneArgs) -> Result<()> {
    let mut wanted = args.filter.clone();
    let what = if args.all {
        if wanted.iter().any(|f| f.split('=').next() == Some("all")) {
            return Err(Failure::new("conflicting options: cannot specify both --all and --filter all=1"));
        }
        wanted.push("all=true".into());
        "all local"
    } else {
        "anonymous local"
    };
    let question = format!("This will remove {what} volumes not used by at least one container.");
    if !args.force && !confirmed(&question)? {
        return Ok(());
    }
    let done = prune(c, "/volumes/prune", &wanted).await?;
    report(&done, "Deleted Volumes:", &names(&done["VolumesDeleted"]))
}

/// `image prune`.
pub(crate) async fn images(c: &Client, args: &ImagePruneArgs) -> Result<()> {
    let question = if args.all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    };
    if !args.force && !confirmed(question)? {
        return Ok(());
    }
    let mut wanted = args.filter.clone();
    wanted.push(format!("dangling={}", !args.all));
    let done = prune(c, "/images/prune", &wanted).await?;
    let gone: Vec<String> = done["ImagesDeleted"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|d| match (d["Untagged"].as_str(), d["Deleted"].as_str()) {
            (Some(name), _) => Some(format!("untagged: {name}")),
            (None, Some(id)) => Some(format!("deleted: {id}")),
            (None, None) => None,
        })
        .collect();
    report(&done, "Deleted Images:", &gone)
}

async fn prune(c: &Client, path: &str, wanted: &[String]) -> Result<Value> {
    c.json(Method::POST, &query(path, &[("filters", &filters(wanted)?)]), Payload::Empty).await
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn report(done: &Value, title: &str, gone: &[String]) -> Result<()> {
    if !gone.is_empty() {
        say(title)?;
        gone.iter().try_for_each(|name| say(name))?;
        say("")?;
    }
    say(&format!("Total reclaimed space: {}", total(done["SpaceReclaimed"].as_i64().unwrap_or(0))))
}

/// Whether the user agrees. The question stands on standard output, as docker's does.
fn confirmed(warning: &str) -> Result<bool> {
    print!("WARNING! {warning}\nAre you sure you want to continue? [y/N] ");
    std::io::stdout().flush().map_err(|e| Failure::new(format!("ask: {e}")))?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::new(format!("read the answer: {e}")))?;
    Ok(line.trim().eq_ignore_ascii_case("y"))
}
