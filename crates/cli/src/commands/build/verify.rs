//! Whether a build gives the same image twice.

use hyper::Method;
use longshore_api::layers::DiffLine;
use serde_json::Value;

use super::{App, one_build};
use crate::args::build::{BuildArgs, Progress};
use crate::client::{Payload, escape, query};
use crate::commands::layers::{ask, lines};
use crate::error::{Context, Failure, Result};
use crate::format::human::size;
use crate::tty::one_line;

/// Builds again, without the cache, what became the image `first`, and compares both.
///
/// # Errors
/// When they differ, with the first file that does; when the second build fails.
pub(super) async fn verify(app: &App<'_>, args: &BuildArgs, progress: Progress, first: &str) -> Result<()> {
    let again = BuildArgs {
        no_cache: true,
        tag: Vec::new(),
        output: Vec::new(),
        push: false,
        pull: false,
        explain: false,
        ..args.clone()
    };
    let second = one_build(app, &again, progress).await?;
    let second = second.ok_or_else(|| Failure::new("the second build gave no image"))?;
    if second == first {
        eprintln!("Reproducible: built a second time without the cache, the image is {first} again.");
        return Ok(());
    }
    let told = differences(app, first, &second).await;
    // It has no name, and nobody but this program knows of it.
    app.client.call(Method::DELETE, &format!("/images/{}", escape(&second)), Payload::Empty).await?;
    Err(Failure::new(format!("not reproducible: {}", told?)))
}

/// What is different between two images, in words.
async fn differences(app: &App<'_>, first: &str, second: &str) -> Result<String> {
    let c = &app.client;
    let layers = async |id: &str| -> Result<Value> {
        let image = c.value(&format!("/images/{}/json", escape(id))).await?;
        Ok(image["RootFS"]["Layers"].clone())
    };
    if layers(first).await? == layers(second).await? {
        return Ok(format!("a second build gave the same files, but another configuration ({second})"));
    }
    let path = query("/longshore/images/diff", &[("from", first), ("to", second), ("content", "1")]);
    let answer = ask(c, &path).await?;
    let (mut count, mut shown) = (0u64, None);
    lines(answer, |text| {
        let line: DiffLine =
            serde_json::from_str(text).context(|| "the daemon's answer is not understood".into())?;
        // A directory differs because of what is in it.
        let is_dir = line.to.as_ref().is_some_and(|file| file.kind == "dir");
        if !is_dir || line.change != "C" {
            count += 1;
            shown.get_or_insert(line);
        }
        Ok(())
    })
    .await?;
    Ok(match shown {
        Some(line) => format!("a second build differs in {count} files, first {}", told(&line)),
        None => "a second build gave other layers of the same files (times of directories)".to_owned(),
    })
}

fn told(line: &DiffLine) -> String {
    let path = one_line(&line.path);
    match line.change.as_str() {
        "A" => format!("{path}: only there the second time"),
        "D" => format!("{path}: only there the first time"),
        _ => {
            let sizes = match (&line.from, &line.to) {
                (Some(from), Some(to)) if from.size != to.size => {
                    let text = |n: u64| size(i64::try_from(n).unwrap_or(i64::MAX));
                    format!(", {} and then {}", text(from.size), text(to.size))
                }
                _ => String::new(),
            };
            format!("{path}: {}{sizes}", line.differs.join(", "))
        }
    }
}
