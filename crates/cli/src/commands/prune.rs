//! What removes everything that is not needed.

use std::io::Write;

use hyper::Method;
use serde_json::Value;

use super::upkeep::only_ours;
use super::{App, filters, say};
use crate::args::build::BuilderPruneArgs;
use crate::args::image::ImagePruneArgs;
use crate::args::object::{ContainerPruneArgs, VolumePruneArgs};
use crate::args::system::{NetworkPruneArgs, SystemPruneArgs};
use crate::args::units;
use crate::client::{Client, Payload, query};
use crate::error::{Failure, Result};
use crate::format::human::total;

const CONTAINERS: &str = "all stopped containers";
const NETWORKS: &str = "all networks not used by at least one container";
const COMPRESSED: &str = "compressed forms of layers that can be made or fetched again";
const VOLUMES: &str = "all anonymous volumes not used by at least one container";

/// What one prune did.
struct Pruned {
    /// A title and what was removed; empty when nothing was.
    text: String,
    bytes: i64,
}

/// `container prune`.
pub(crate) async fn containers(app: &App<'_>, args: &ContainerPruneArgs) -> Result<()> {
    if !args.force && !confirmed(&warning("This will remove all stopped containers."))? {
        return Ok(());
    }
    report(&prune_containers(&app.client, &configured(app, &args.filter)).await?)
}

async fn prune_containers(c: &Client, wanted: &[String]) -> Result<Pruned> {
    let done = prune(c, "/containers/prune", wanted).await?;
    Ok(pruned(&done, "Deleted Containers:", names(&done["ContainersDeleted"])))
}

/// `network prune`.
pub(crate) async fn networks(app: &App<'_>, args: &NetworkPruneArgs) -> Result<()> {
    let question = warning("This will remove all custom networks not used by at least one container.");
    if !args.force && !confirmed(&question)? {
        return Ok(());
    }
    // Networks take no space: there is no total.
    let done = prune_networks(&app.client, &configured(app, &args.filter)).await?;
    crate::streams::show(longshore_api::stream::Stream::Stdout, done.text.as_bytes())
}

async fn prune_networks(c: &Client, wanted: &[String]) -> Result<Pruned> {
    let done = prune(c, "/networks/prune", wanted).await?;
    Ok(pruned(&done, "Deleted Networks:", names(&done["NetworksDeleted"])))
}

/// `volume prune`.
pub(crate) async fn volumes(app: &App<'_>, args: &VolumePruneArgs) -> Result<()> {
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
    let question = warning(&format!("This will remove {what} volumes not used by at least one container."));
    if !args.force && !confirmed(&question)? {
        return Ok(());
    }
    report(&prune_volumes(&app.client, &configured(app, &wanted)).await?)
}

async fn prune_volumes(c: &Client, wanted: &[String]) -> Result<Pruned> {
    let done = prune(c, "/volumes/prune", wanted).await?;
    Ok(pruned(&done, "Deleted Volumes:", names(&done["VolumesDeleted"])))
}

/// `image prune`.
pub(crate) async fn images(app: &App<'_>, args: &ImagePruneArgs) -> Result<()> {
    let question = warning(if args.all {
        "This will remove all images without at least one container associated to them."
    } else {
        "This will remove all dangling images."
    });
    if !args.force && !confirmed(&question)? {
        return Ok(());
    }
    report(&prune_images(&app.client, args.all, &configured(app, &args.filter)).await?)
}

async fn prune_images(c: &Client, all: bool, wanted: &[String]) -> Result<Pruned> {
    let mut wanted = wanted.to_vec();
    wanted.push(format!("dangling={}", !all));
    let done = prune(c, "/images/prune", &wanted).await?;
    let gone = done["ImagesDeleted"].as_array().into_iter().flatten();
    let gone = gone.filter_map(|d| match (d["Untagged"].as_str(), d["Deleted"].as_str()) {
        (Some(name), _) => Some(format!("untagged: {name}")),
        (None, Some(id)) => Some(format!("deleted: {id}")),
        (None, None) => None,
    });
    Ok(pruned(&done, "Deleted Images:", gone.collect()))
}

/// `builder prune`.
pub(crate) async fn build_cache(app: &App<'_>, args: &BuilderPruneArgs) -> Result<()> {
    let question = warning(if args.all {
        "This will remove all build cache."
    } else {
        "This will remove the build cache that no image has in common with it."
    });
    if !args.force && !confirmed(&question)? {
        return Ok(());
    }
    let bytes = |text: Option<&str>| {
        let bytes = text.map(units::bytes_or_unlimited).transpose()?.filter(|bytes| *bytes > 0);
        Ok::<_, Failure>(bytes.map(|bytes| bytes.to_string()).unwrap_or_default())
    };
    let kept = bytes(args.reserved_space.as_deref().or(args.keep_storage.as_deref()))?;
    // Daemons before API 1.48 call the first one otherwise.
    let keep = [
        ("reserved-space", kept.clone()),
        ("keep-storage", kept),
        ("max-used-space", bytes(args.max_used_space.as_deref())?),
        ("min-free-space", bytes(args.min_free_space.as_deref())?),
    ];
    report(&prune_build_cache(&app.client, args.all, &keep, &configured(app, &args.filter)).await?)
}

async fn prune_build_cache(
    c: &Client,
    all: bool,
    keep: &[(&str, String)],
    wanted: &[String],
) -> Result<Pruned> {
    let filters = filters(wanted)?;
    let mut pairs = vec![("all", if all { "1" } else { "" }), ("filters", filters.as_str())];
    pairs.extend(keep.iter().map(|(name, bytes)| (*name, bytes.as_str())));
    let path = query("/build/prune", &pairs);
    let done: Value = c.json(Method::POST, &path, Payload::Empty).await?;
    Ok(pruned(&done, "Deleted build cache objects:", names(&done["CachesDeleted"])))
}

/// What remains belongs to images that remain.
async fn prune_compressed(c: &Client) -> Result<Pruned> {
    let done: Value = c
        .json(Method::POST, "/longshore/compressed/prune", Payload::Empty)
        .await
        .map_err(|e| only_ours("--compressed", e))?;
    let gone = done["Dropped"].as_array().into_iter().flatten();
    let gone = gone.filter_map(|d| Some(format!("dropped: {}", d["Digest"].as_str()?)));
    Ok(pruned(&done, "Dropped compressed layers:", gone.collect()))
}

/// `system prune`.
pub(crate) async fn system(app: &App<'_>, args: &SystemPruneArgs) -> Result<()> {
    if args.volumes && args.filter.iter().any(|f| f.split('=').next() == Some("until")) {
        return Err(Failure::new("ERROR: The \"until\" filter is not supported with \"--volumes\""));
    }
    let wanted = configured(app, &args.filter);
    if !args.force && !confirmed(&system_question(args, &wanted))? {
        return Ok(());
    }
    let c = &app.client;
    let mut sum = 0;
    let mut tell = |done: Pruned| {
        sum += done.bytes;
        if done.text.is_empty() { Ok(()) } else { say(&done.text) }
    };
    tell(prune_containers(c, &wanted).await?)?;
    tell(prune_networks(c, &wanted).await?)?;
    if args.volumes {
        tell(prune_volumes(c, &wanted).await?)?;
    }
    tell(prune_images(c, args.all, &wanted).await?)?;
    tell(prune_build_cache(c, args.all, &[], &wanted).await?)?;
    if args.compressed {
        tell(prune_compressed(c).await?)?;
    }
    say(&format!("Total reclaimed space: {}", total(sum)))
}

fn system_question(args: &SystemPruneArgs, wanted: &[String]) -> String {
    let mut what = vec![CONTAINERS, NETWORKS];
    what.extend(args.volumes.then_some(VOLUMES));
    what.extend(match args.all {
        true => ["all images without at least one container associated to them", "all build cache"],
        false => ["all dangling images", "unused build cache"],
    });
    what.extend(args.compressed.then_some(COMPRESSED));
    let mut text = String::from("WARNING! This will remove:\n");
    what.iter().for_each(|w| text += &format!("  - {w}\n"));
    if !wanted.is_empty() {
        text += "\n  Items to be pruned will be filtered with:\n";
        let mut wanted = wanted.to_vec();
        // Docker shows them as its map has them.
        wanted.sort();
        wanted.iter().for_each(|w| text += &format!("  - {w}\n"));
    }
    text + "\nAre you sure you want to continue?"
}

async fn prune(c: &Client, path: &str, wanted: &[String]) -> Result<Value> {
    c.json(Method::POST, &query(path, &[("filters", &filters(wanted)?)]), Payload::Empty).await
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn pruned(done: &Value, title: &str, gone: Vec<String>) -> Pruned {
    let bytes = done["SpaceReclaimed"].as_i64().unwrap_or(0);
    let text = if gone.is_empty() { String::new() } else { format!("{title}\n{}\n", gone.join("\n")) };
    Pruned { text, bytes }
}

fn report(done: &Pruned) -> Result<()> {
    if !done.text.is_empty() {
        say(&done.text)?;
    }
    say(&format!("Total reclaimed space: {}", total(done.bytes)))
}

/// The filters given and those of the configuration file, which do not contradict what was given.
fn configured(app: &App<'_>, given: &[String]) -> Vec<String> {
    let mut all = given.to_vec();
    for filter in app.config.texts("pruneFilters") {
        let Some((key, value)) = filter.split_once('=').filter(|(_, v)| !v.is_empty()) else { continue };
        let opposite = match key {
            "label" => format!("label!={value}"),
            "label!" => format!("label={value}"),
            _ => String::new(),
        };
        if !given.contains(&opposite) {
            all.push(filter.to_owned());
        }
    }
    all
}

fn warning(text: &str) -> String {
    format!("WARNING! {text}\nAre you sure you want to continue?")
}

/// Whether the user agrees. The question stands on standard output, as docker's does.
fn confirmed(question: &str) -> Result<bool> {
    print!("{question} [y/N] ");
    std::io::stdout().flush().map_err(|e| Failure::new(format!("ask: {e}")))?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| Failure::new(format!("read the answer: {e}")))?;
    Ok(line.trim().eq_ignore_ascii_case("y"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_removed_is_a_list() {
        let done = json!({"SpaceReclaimed": 5, "ContainersDeleted": ["a", "b"]});
        let one = pruned(&done, "Deleted:", names(&done["ContainersDeleted"]));
        assert_eq!((one.text.as_str(), one.bytes), ("Deleted:\na\nb\n", 5));
        assert_eq!(pruned(&json!({}), "Deleted:", names(&Value::Null)).text, "");
    }
}
