//! Images in and out.

use std::io::{self, Read};

use bytes::Bytes;
use hyper::Method;
use longshore_api::ImageDelete;
use serde_json::Value;
use tokio::sync::mpsc;

use super::container::{download, split_reference};
use super::{each, say};
use crate::cli::{ImportArgs, LoadArgs, RmiArgs, SaveArgs, TagArgs};
use crate::client::{Client, Payload, each_line, escape, query};
use crate::error::{Context, Failure, Result};
use crate::tty;

const CHUNK: usize = 256 << 10;

/// `load`.
pub(crate) async fn load(c: &Client, args: &LoadArgs) -> Result<()> {
    let input = args.input.as_deref().unwrap_or("-");
    if input == "-" && tty::stdin_is_terminal() {
        return Err(Failure::new("requested load from stdin, but stdin is empty"));
    }
    let chunks = upload(open(input)?);
    let path = query("/images/load", &[("quiet", if args.quiet { "1" } else { "" })]);
    let answer = c.call(Method::POST, &path, Payload::Stream("application/x-tar", chunks)).await?;
    each_line(answer, show_progress).await
}

/// A line of a progress stream.
fn show_progress(line: Value) -> Result<()> {
    if let Some(e) = line["errorDetail"]["message"].as_str().or(line["error"].as_str()) {
        return Err(Failure::new(e));
    }
    if let Some(text) = line["stream"].as_str() {
        return say(text.trim_end_matches('\n'));
    }
    match line["status"].as_str() {
        // What is going on is for people who watch, not part of the result.
        Some(status) if line["progressDetail"].as_object().is_some_and(|d| !d.is_empty()) => {
            if std::io::IsTerminal::is_terminal(&io::stderr()) {
                let id = line["id"].as_str().unwrap_or_default();
                eprint!("\r\x1b[K{} {}", tty::printable(id), tty::printable(status));
            }
            Ok(())
        }
        Some(status) => say(status),
        None => Ok(()),
    }
}

fn open(input: &str) -> Result<Box<dyn Read + Send>> {
    if input == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let file =
        std::fs::File::open(input).map_err(|e| Failure::new(format!("open {input}: {}", lower(&e))))?;
    Ok(Box::new(file))
}

fn lower(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Reads on a thread of its own, a few chunks ahead.
fn upload(mut source: Box<dyn Read + Send>) -> mpsc::Receiver<io::Result<Bytes>> {
    let (send, chunks) = mpsc::channel(4);
    std::thread::spawn(move || {
        loop {
            let mut buf = vec![0; CHUNK];
            let item = match source.read(&mut buf) {
                Ok(0) => return,
                Ok(n) => {
                    buf.truncate(n);
                    Ok(Bytes::from(buf))
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
            let failed = item.is_err();
            // When the daemon has gone nobody takes it.
            if send.blocking_send(item).is_err() || failed {
                return;
            }
        }
    });
    chunks
}

/// `save`.
pub(crate) async fn save(c: &Client, args: &SaveArgs) -> Result<()> {
    let pairs: Vec<(&str, &str)> = args.images.iter().map(|i| ("names", i.as_str())).collect();
    download(c, &query("/images/get", &pairs), args.output.as_deref()).await
}

/// `import`.
pub(crate) async fn import(c: &Client, args: &ImportArgs) -> Result<()> {
    if args.file.contains("://") {
        return Err(Failure::new(format!(
            "{}: importing from a URL is not implemented yet: download it first",
            args.file
        )));
    }
    let (repo, tag) = split_reference(args.reference.as_deref().unwrap_or_default());
    let mut pairs = vec![
        ("fromSrc", "-"),
        ("repo", &repo),
        ("tag", &tag),
        ("message", &args.message),
        ("platform", &args.platform),
    ];
    pairs.extend(args.change.iter().map(|ch| ("changes", ch.as_str())));
    let chunks = upload(open(&args.file)?);
    let answer = c
        .call(Method::POST, &query("/images/create", &pairs), Payload::Stream("application/x-tar", chunks))
        .await?;
    each_line(answer, show_progress).await
}

/// `tag`.
pub(crate) async fn tag(c: &Client, args: &TagArgs) -> Result<()> {
    let target: longshore_oci::Reference = args
        .target
        .parse()
        .context(|| format!("Error parsing reference: {:?} is not a valid repository/tag", args.target))?;
    let target = target.or_latest();
    let (repo, tag) = (target.familiar_name(), target.tag().unwrap_or_default().to_owned());
    c.post(&query(&format!("/images/{}/tag", escape(&args.source)), &[("repo", &repo), ("tag", &tag)])).await
}

/// `rmi`.
pub(crate) async fn rmi(c: &Client, args: &RmiArgs) -> Result<()> {
    let flag = |on: bool| if on { "1" } else { "" };
    each(&args.images, |name| {
        let path = query(
            &format!("/images/{}", escape(&name)),
            &[("force", flag(args.force)), ("noprune", flag(args.no_prune))],
        );
        async move {
            let gone: Vec<ImageDelete> = match c.json(Method::DELETE, &path, Payload::Empty).await {
                Err(e) if args.force && e.is_not_found() => {
                    eprintln!("{}", e.message);
                    return Ok(());
                }
                other => other?,
            };
            gone.iter().try_for_each(|d| {
                let value = serde_json::to_value(d).unwrap_or_default();
                match (value["Untagged"].as_str(), value["Deleted"].as_str()) {
                    (Some(name), _) => say(&format!("Untagged: {name}")),
                    (_, Some(id)) => say(&format!("Deleted: {id}")),
                    _ => Ok(()),
                }
            })
        }
    })
    .await
}
