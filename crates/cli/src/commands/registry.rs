//! `pull`, `push` and `search`, and what all commands about registries share.

use std::io::Write as _;

use hyper::body::Incoming;
use hyper::{Method, Response};
use longshore_api::stream::Stream;
use longshore_oci::Reference;
use serde_json::{Value, json};

use super::progress::show_progress;
use super::{App, filters, login, say};
use crate::args::registry::{PullArgs, PushArgs, SearchArgs, no_content_trust};
use crate::cli::Action;
use crate::client::{Client, escape, query, read};
use crate::config::Config;
use crate::credentials::{Credentials, key};
use crate::error::{Context, Failure, Result};
use crate::format::human::ellipsis;
use crate::format::{Columns, Row, print_rows};
use crate::tty;

/// The API's version in which a push of one platform came.
const PUSH_PLATFORM: (u32, u32) = (1, 46);

/// A name that a user gave, with the tag that is meant; an unsaid one is told.
fn named(text: &str, all_tags: bool, quiet: bool) -> Result<Reference> {
    let name: Reference = text.parse().map_err(super::image::bad_reference)?;
    match (name.tag().is_none() && name.digest().is_none(), all_tags) {
        (true, true) => Ok(name),
        (false, true) => Err(Failure::new("tag can't be used with --all-tags/-a")),
        (true, false) => {
            if !quiet {
                say("Using default tag: latest")?;
            }
            Ok(name.or_latest())
        }
        (false, false) => Ok(name),
    }
}

/// What a command comes to where there is no daemon: what can be said without one comes first.
pub(crate) fn without_daemon(action: &Action, e: Failure) -> Failure {
    let named = match action {
        Action::Pull(args) => named(&args.name, args.all_tags, args.quiet),
        Action::Push(args) => named(&args.name, args.all_tags, args.quiet),
        _ => return e,
    };
    named.err().unwrap_or(e)
}

/// The platform of an option, else the one that the environment sets for all commands.
pub(crate) fn platform(given: Option<&str>) -> String {
    let platform = match given {
        Some(platform) => platform.to_owned(),
        None => std::env::var("DOCKER_DEFAULT_PLATFORM").unwrap_or_default(),
    };
    platform.to_ascii_lowercase()
}

/// The user at a registry. A program that should know and does not answer is told of: without, what is not public
/// seems not to be there.
pub(super) fn user_at(config: &Config, registry: &str) -> Credentials {
    let (credentials, problem) = config.credentials(key(registry));
    if let Some(e) = problem {
        eprintln!("WARNING: {}", tty::printable(&e));
    }
    credentials
}

/// Asks the daemon for work at a registry. Where it says that the user is nobody there, and somebody sits at the
/// terminal, it asks for a name and password once.
pub(super) async fn ask(
    app: &App<'_>,
    registry: &str,
    method: Method,
    path: &str,
    doing: &str,
) -> Result<Response<Incoming>> {
    let user = user_at(&app.config, registry);
    match app.client.call_as(&user, method.clone(), path).await {
        Err(e) if e.status == Some(401) && tty::stdin_is_terminal() => {
            eprintln!("{}", tty::printable(&e.message));
            say(&format!("\nLogin prior to {doing}:"))?;
            let user = login::prompt(None, None, &user.username, key(registry)).await?;
            app.client.call_as(&user, method, path).await
        }
        other => other,
    }
}

/// `pull`.
pub(crate) async fn pull(app: &App<'_>, args: &PullArgs) -> Result<()> {
    let name = named(&args.name, args.all_tags, args.quiet)?;
    if name.digest().is_none() {
        no_content_trust(args.disable_content_trust)?;
    }
    let path = pull_path(&name, &platform(args.platform.as_deref()));
    let answer = ask(app, name.registry(), Method::POST, &path, "pull").await.map_err(plugin_hint)?;
    show_progress(answer, Stream::Stdout, args.quiet).await.map_err(plugin_hint)?;
    say(&name.to_string())
}

/// The request for an image; without a tag and digest, for all of its repository.
pub(super) fn pull_path(name: &Reference, platform: &str) -> String {
    let digest = name.digest().map(ToString::to_string);
    let tag = digest.as_deref().or(name.tag()).unwrap_or_default();
    let repository = format!("{}/{}", name.registry(), name.repository());
    query("/images/create", &[("fromImage", &repository), ("tag", tag), ("platform", platform)])
}

/// What was asked for is no image, but a plugin of Docker's.
fn plugin_hint(mut e: Failure) -> Failure {
    if e.message.contains("when fetching 'plugin'") {
        e.message.push_str(" - Use `docker plugin install`");
    }
    e
}

/// `push`.
pub(crate) async fn push(app: &App<'_>, args: &PushArgs) -> Result<()> {
    let platform = push_platform(&app.client, &args.platform)?;
    let name = named(&args.name, args.all_tags, args.quiet)?;
    if name.digest().is_some() {
        return Err(Failure::new("cannot push a digest reference"));
    }
    no_content_trust(args.disable_content_trust)?;
    let repository = format!("{}/{}", name.registry(), name.repository());
    let path = query(
        &format!("/images/{}/push", escape(&repository)),
        &[("tag", name.tag().unwrap_or_default()), ("platform", &platform)],
    );
    let answer = ask(app, name.registry(), Method::POST, &path, "push").await?;
    let shown = show_progress(answer, Stream::Stdout, args.quiet).await;
    if shown.is_ok() && args.quiet {
        say(&name.to_string())?;
    }
    shown?.iter().filter_map(push_note).try_for_each(|text| note(Stream::Stdout, &text))
}

/// Pushes what was just built to the registry of a name; what goes on is shown on standard error.
pub(super) async fn push_built(app: &App<'_>, name: &str, quiet: bool) -> Result<Option<String>> {
    let name = named(name, false, true)?;
    let repository = format!("{}/{}", name.registry(), name.repository());
    let path =
        query(&format!("/images/{}/push", escape(&repository)), &[("tag", name.tag().unwrap_or_default())]);
    let answer = ask(app, name.registry(), Method::POST, &path, "push").await?;
    let results = show_progress(answer, Stream::Stderr, quiet).await?;
    Ok(results.iter().rev().find_map(|result| result["Digest"].as_str()).map(str::to_owned))
}

/// The platform that alone is pushed, as the API takes it; empty for all.
fn push_platform(client: &Client, text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let platform = super::image::bare_platform_json(text).map_err(|e| {
        // Docker begins no new line.
        Failure::new(format!("Invalid platform {text}{}", e.message))
    })?;
    let version = client.version();
    let spoken = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    if spoken < Some(PUSH_PLATFORM) {
        return Err(Failure::new(format!(
            "\"--platform\" requires API version {}.{}, but the Docker daemon API version is {version}",
            PUSH_PLATFORM.0, PUSH_PLATFORM.1
        )));
    }
    note(
        Stream::Stdout,
        "Using --platform pushes only the specified platform manifest of a multi-platform image index.\n\
         Other components, like attestations, will not be included.\n\
         To push the complete multi-platform image, remove the --platform flag.\n",
    )?;
    Ok(platform)
}

/// What a push has to say that is no progress.
fn push_note(result: &Value) -> Option<String> {
    let digest = |key: &str| tty::printable(result[key]["digest"].as_str().unwrap_or_default());
    if result["manifestPushedInsteadOfIndex"] == true {
        return Some(format!(
            "Not all multiplatform-content is present and only the available single-platform image was pushed\n\
             {} -> {}",
            digest("originalIndex"),
            digest("selectedManifest")
        ));
    }
    (result["contentMissing"] == true).then(|| {
        "You're trying to push a manifest list/index which \n\
         \t\t\t\treferences multiple platform specific manifests, but not all of them are available locally\n\
         \t\t\t\tor available to the remote repository.\n\n\
         \t\t\t\tMake sure you have all the referenced content and try again.\n\n\
         \t\t\t\tYou can also push only a single platform specific manifest directly by specifying the platform you want to push with the --platform flag."
            .to_owned()
    })
}

/// Something to know that is no result, set off as docker sets it off.
pub(super) fn note(to: Stream, text: &str) -> Result<()> {
    let terminal = match to {
        Stream::Stderr => tty::stderr_is_terminal(),
        _ => tty::stdout_is_terminal(),
    };
    let (header, on, off) = if terminal {
        ("\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo \u{2192} \x1b[0m\x1b[0m", "\x1b[3m", "\x1b[0m")
    } else {
        (" Info -> ", "", "")
    };
    let text =
        if terminal { text.replace("--platform", "\x1b[1m--platform\x1b[0m") } else { text.to_owned() };
    let lines: Vec<String> = text.split('\n').map(|line| format!("{on}{line}{off}\n")).collect();
    crate::streams::show(to, format!("\n{header}{}", lines.join("         ")).as_bytes())
}

const SEARCH: Columns = Columns {
    kind: "*registry.searchContext",
    errors: ("template parsing error", "template parsing error"),
    raw: ("", ""),
    all: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
    ],
    default: &["Name", "Description", "StarCount", "IsOfficial"],
};

/// `search`.
pub(crate) async fn search(app: &App<'_>, args: &SearchArgs) -> Result<()> {
    if args.filter.iter().any(|f| f.split('=').next().is_some_and(|k| k.trim() == "is-automated")) {
        let mut err = std::io::stderr();
        let _ = writeln!(
            err,
            "WARNING: the \"is-automated\" filter is deprecated, and searching for \"is-automated=true\" will not yield any results in future."
        );
    }
    let limit = if args.limit > 0 { args.limit.to_string() } else { String::new() };
    let path = query(
        "/images/search",
        &[("term", &args.term), ("limit", &limit), ("filters", &filters(&args.filter)?)],
    );
    let answer = ask(app, searched(&args.term), Method::GET, &path, "search").await?;
    let results: Value =
        serde_json::from_slice(&read(answer).await?).context(|| "the daemon's answer is not JSON".into())?;
    let rows: Vec<Row> =
        results.as_array().into_iter().flatten().map(|v| search_row(v, args.no_trunc)).collect();
    print_rows(&SEARCH, &rows, args.format.as_deref(), None)
}

/// The registry in which a term is searched.
fn searched(term: &str) -> &str {
    match term.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

fn search_row(v: &Value, no_trunc: bool) -> Row {
    let text = |key: &str| v[key].as_str().unwrap_or_default();
    let description = text("description").replace(['\n', '\r'], " ");
    let official = v["is_official"] == true;
    let row = |official: &str| {
        json!({
            "Name": text("name"),
            "Description": if no_trunc { description.clone() } else { ellipsis(&description, 45) },
            "StarCount": v["star_count"].as_i64().unwrap_or(0).to_string(),
            "IsOfficial": official,
        })
    };
    Row::new(row(if official { "[OK]" } else { "" }), &Value::Null).with_json(row(if official {
        "true"
    } else {
        "false"
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_asked_for_by_its_whole_name() {
        let path = |name: &str| pull_path(&name.parse().unwrap(), "");
        assert_eq!(path("busybox"), "/images/create?fromImage=docker.io%2Flibrary%2Fbusybox");
        assert_eq!(path("h:5/a/b:c"), "/images/create?fromImage=h%3A5%2Fa%2Fb&tag=c");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            path(&format!("a/b:c@{digest}")),
            format!("/images/create?fromImage=docker.io%2Fa%2Fb&tag=sha256%3A{}", "a".repeat(64))
        );
    }

    #[test]
    fn terms_are_searched_where_docker_searches_them() {
        for (term, want) in [
            ("a", "docker.io"),
            ("a/b", "docker.io"),
            ("h:1/b/c", "h:1"),
            ("localhost/x", "localhost"),
            ("a.b", "docker.io"),
        ] {
            assert_eq!(searched(term), want);
        }
    }

    #[test]
    fn what_a_push_left_out_is_said() {
        let one = json!({"manifestPushedInsteadOfIndex": true, "originalIndex": {"digest": "sha256:1"}, "selectedManifest": {"digest": "sha256:2"}});
        assert!(push_note(&one).unwrap().ends_with("pushed\nsha256:1 -> sha256:2"));
        assert!(push_note(&json!({"contentMissing": true})).unwrap().contains("--platform"));
        assert_eq!(push_note(&json!({"Tag": "latest", "Digest": "sha256:1", "Size": 1})), None);
    }
}
