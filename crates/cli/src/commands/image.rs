//! Images in and out.

use std::io::{self, Read};

use bytes::Bytes;
use hyper::Method;
use longshore_api::ImageDelete;
use longshore_api::stream::Stream;
use tokio::sync::mpsc;

use super::container::{download, repository_and_tag};
use super::progress::show_progress;
use super::{each, say};
use crate::args::image::{ImportArgs, LoadArgs, RmiArgs, SaveArgs, TagArgs};
use crate::client::{Client, Payload, escape, query};
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
    // Nobody watches what is no terminal.
    let quiet = args.quiet || !tty::stdout_is_terminal();
    let path = query(
        "/images/load",
        &[("quiet", if quiet { "1" } else { "0" }), ("platform", &platform_json(&args.platform)?)],
    );
    let answer = c.call(Method::POST, &path, Payload::Stream("application/x-tar", chunks)).await?;
    show_progress(answer, Stream::Stdout, false).await.map(drop)
}

fn open(input: &str) -> Result<Box<dyn Read + Send>> {
    if input == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let file = std::fs::File::open(input)
        .map_err(|e| Failure::new(format!("open {input}: {}", crate::error::words(&e))))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(Failure::new(format!("read {input}: is a directory")));
    }
    Ok(Box::new(file))
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
    let platform = platform_json(&args.platform)?;
    let mut pairs: Vec<(&str, &str)> = args.images.iter().map(|i| ("names", i.as_str())).collect();
    pairs.push(("platform", &platform));
    download(c, &query("/images/get", &pairs), args.output.as_deref(), "save image").await
}

/// `import`.
pub(crate) async fn import(c: &Client, args: &ImportArgs) -> Result<()> {
    // Anything that names a scheme is fetched by the daemon.
    let remote = args.file.contains("://");
    let source = if remote { args.file.as_str() } else { "-" };
    let (repo, tag) = repository_and_tag(args.reference.as_deref().unwrap_or_default())?;
    let platform = super::registry::platform(args.platform.as_deref());
    let mut pairs = vec![
        ("fromSrc", source),
        ("repo", &repo),
        ("tag", &tag),
        ("message", &args.message),
        ("platform", &platform),
    ];
    pairs.extend(args.change.iter().map(|ch| ("changes", ch.as_str())));
    let payload =
        if remote { Payload::Empty } else { Payload::Stream("application/x-tar", upload(open(&args.file)?)) };
    let answer = c.call(Method::POST, &query("/images/create", &pairs), payload).await?;
    show_progress(answer, Stream::Stdout, false).await.map(drop)
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
    let platforms = args.platform.iter().map(|p| bare_platform_json(p)).collect::<Result<Vec<_>>>()?;
    each(&args.images, |name| {
        let mut pairs = vec![("force", flag(args.force)), ("noprune", flag(args.no_prune))];
        pairs.extend(platforms.iter().map(|p| ("platforms", p.as_str())));
        let path = query(&format!("/images/{}", escape(&name)), &pairs);
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

/// Fails as docker does for a name that no image can have.
pub(super) fn reference(text: &str) -> Result<()> {
    use longshore_oci::ParseReferenceError::Hex;
    match text.parse::<longshore_oci::Reference>() {
        // An id in full is no name, but good.
        Ok(_) | Err(Hex(_)) => Ok(()),
        Err(_) if text.parse::<longshore_oci::Digest>().is_ok() => Ok(()),
        Err(e) => Err(bad_reference(e)),
    }
}

/// Docker's words for a name that no image can have.
pub(super) fn bad_reference(e: longshore_oci::ParseReferenceError) -> Failure {
    match e {
        longshore_oci::ParseReferenceError::Digest(_) => Failure::new("invalid reference format"),
        e => Failure::new(e.to_string()),
    }
}

/// The parts of `os[/arch[/variant]]`, or one of the first two alone.
pub(super) fn platform(text: &str) -> Result<(String, String, String), String> {
    const SYSTEMS: &[&str] = &["linux", "windows", "darwin", "freebsd"];
    const MACHINES: &[&str] =
        &["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm"];
    let lower = text.to_ascii_lowercase();
    let part =
        |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let parts: Vec<&str> = lower.split('/').collect();
    if !parts.iter().all(part) {
        return Err(format!("{text:?}: invalid component: invalid argument"));
    }
    let machine = |m: &str| {
        match m {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" => "386",
            m => m,
        }
        .to_owned()
    };
    let owned = |v: &str| v.to_owned();
    match parts.as_slice() {
        [os] if SYSTEMS.contains(os) => {
            Ok((owned(os), longshore_oci::Platform::host().architecture, String::new()))
        }
        [arch] if MACHINES.contains(&machine(arch).as_str()) => {
            Ok(("linux".into(), machine(arch), String::new()))
        }
        [_] => Err(format!("{text:?}: unknown operating system or architecture: invalid argument")),
        [os, arch] => Ok((owned(os), machine(arch), String::new())),
        [os, arch, variant] => Ok((owned(os), machine(arch), owned(variant))),
        _ => Err(format!("{text:?}: cannot parse platform specifier: invalid argument")),
    }
}

/// A platform as the API takes it in a query; empty when there is none.
pub(super) fn platform_json(text: &str) -> Result<String> {
    bare_platform_json(text).map_err(|e| Failure::new(format!("invalid platform: {}", e.message)))
}

/// The same; the error says only what is wrong with it.
pub(super) fn bare_platform_json(text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let (os, architecture, variant) = platform(text)?;
    let mut out = serde_json::json!({"architecture": architecture, "os": os});
    if !variant.is_empty() {
        out["variant"] = variant.into();
    }
    Ok(out.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_docker_reads_them() {
        assert_eq!(platform("Linux/x86_64").unwrap(), ("linux".into(), "amd64".into(), String::new()));
        assert_eq!(platform("arm64").unwrap().0, "linux");
        assert_eq!(
            platform("foo").unwrap_err(),
            "\"foo\": unknown operating system or architecture: invalid argument"
        );
        assert!(platform("a/b/c/d").is_err() && platform("").is_err() && platform("a/").is_err());
        assert_eq!(
            platform_json("linux/arm/v7").unwrap(),
            r#"{"architecture":"arm","os":"linux","variant":"v7"}"#
        );
    }

    #[test]
    fn names_of_images_are_checked() {
        for good in [
            "busybox",
            "a/b:c",
            "sha256:08699b902222",
            &"ab".repeat(32),
            &format!("sha256:{}", "ab".repeat(32)),
        ] {
            assert!(reference(good).is_ok(), "{good}");
        }
        assert_eq!(reference("").unwrap_err().message, "invalid reference format");
        assert_eq!(
            reference("NOSuch").unwrap_err().message,
            "invalid reference format: repository name (library/NOSuch) must be lowercase"
        );
    }
}
