//! `version`, `info`, `events`, and what is pruned.

use hyper::Method;
use serde_json::{Value, json};

use super::{confirmed, filters, say};
use crate::cli::{EventsArgs, FormatArgs, PruneArgs};
use crate::client::{Client, Payload, each_line, query};
use crate::error::{Failure, Result};
use crate::format::human::size;
use crate::format::render_object;

/// `version`.
pub(crate) async fn version(c: &Client, args: &FormatArgs) -> Result<()> {
    let server = c.value("/version").await;
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": c.version(), "Os": std::env::consts::OS,
        "Arch": longshore_oci::Platform::host().architecture, "Context": "default",
    });
    let shown = server.as_ref().map(|v| {
        let mut v = v.clone();
        v["APIVersion"] = v["ApiVersion"].clone();
        v
    });
    let mut both = json!({"Client": client, "Server": shown.as_ref().ok()});
    both["Client"]["APIVersion"] = client["ApiVersion"].clone();
    match args.format.as_deref() {
        Some("json") => say(&both.to_string())?,
        Some(template) => say(&render_object(template, &both)?)?,
        None => {
            let line = |name: &str, value: &str| format!(" {name:<18} {value}");
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            say("Client: Longshore")?;
            say(&line("Version:", env!("CARGO_PKG_VERSION")))?;
            say(&line("API version:", c.version()))?;
            say(&line(
                "OS/Arch:",
                &format!("{}/{}", text(&both["Client"]["Os"]), text(&both["Client"]["Arch"])),
            ))?;
            if let Ok(v) = &server {
                say(&format!("\nServer: {}", text(&v["Platform"]["Name"])))?;
                for component in v["Components"].as_array().into_iter().flatten() {
                    say(&format!(" {}:", text(&component["Name"])))?;
                    say(&format!(" {}", line("Version:", &text(&component["Version"]))))?;
                }
                say(&line(
                    "API version:",
                    &format!("{} (minimum version {})", text(&v["ApiVersion"]), text(&v["MinAPIVersion"])),
                ))?;
                say(&line("Kernel:", &text(&v["KernelVersion"])))?;
                say(&line("OS/Arch:", &format!("{}/{}", text(&v["Os"]), text(&v["Arch"]))))?;
            }
        }
    }
    server.map(drop)
}

/// `info`.
pub(crate) async fn info(c: &Client, args: &FormatArgs) -> Result<()> {
    let v = c.value("/info").await?;
    match args.format.as_deref() {
        Some("json") => return say(&v.to_string()),
        Some(template) => return say(&render_object(template, &v)?),
        None => {}
    }
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let rows = [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
    ];
    for (name, key) in rows {
        say(&format!("{name}: {}", text(&v[key])))?;
    }
    for row in v["DriverStatus"].as_array().into_iter().flatten() {
        say(&format!(" {}: {}", text(&row[0]), text(&row[1])))?;
    }
    let rows = [
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Name", "Name"),
        ("ID", "ID"),
        ("Root Dir", "DockerRootDir"),
        ("Debug Mode", "Debug"),
    ];
    for (name, key) in rows {
        say(&format!("{name}: {}", text(&v[key])))?;
    }
    say(&format!("Total Memory: {}", size(v["MemTotal"].as_i64().unwrap_or(0))))?;
    let options =
        v["SecurityOptions"].as_array().into_iter().flatten().map(&text).collect::<Vec<_>>().join(", ");
    say(&format!("Security Options: {options}"))?;
    for warning in v["Warnings"].as_array().into_iter().flatten() {
        eprintln!("{}", text(warning));
    }
    Ok(())
}

/// `events`.
pub(crate) async fn events(c: &Client, args: &EventsArgs) -> Result<()> {
    let path = query(
        "/events",
        &[("since", &args.since), ("until", &args.until), ("filters", &filters(&args.filter)?)],
    );
    let answer = c.call(Method::GET, &path, Payload::Empty).await?;
    each_line(answer, |event| match args.format.as_deref() {
        Some("json") => say(&event.to_string()),
        Some(template) => say(&render_object(template, &event)?),
        None => {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let attributes = event["Actor"]["Attributes"].as_object().into_iter().flatten();
            let attributes: Vec<String> = attributes.map(|(k, v)| format!("{k}={}", text(v))).collect();
            let time = jiff::Timestamp::from_nanosecond(i128::from(event["timeNano"].as_i64().unwrap_or(0)))
                .map(|t| {
                    t.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string()
                })
                .unwrap_or_default();
            let shown =
                if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
            say(&format!(
                "{time} {} {} {}{shown}",
                text(&event["Type"]),
                text(&event["Action"]),
                text(&event["Actor"]["ID"])
            ))
        }
    })
    .await
}

/// `container prune`.
pub(crate) async fn prune_containers(c: &Client, args: &PruneArgs) -> Result<()> {
    let question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?";
    prune(
        c,
        "/containers/prune",
        &filters(&args.filter)?,
        args.force,
        question,
        "ContainersDeleted",
        "Deleted Containers:",
    )
    .await
}

/// Asks, prunes, and says what went.
pub(crate) async fn prune(
    c: &Client,
    path: &str,
    wanted: &str,
    force: bool,
    question: &str,
    key: &str,
    title: &str,
) -> Result<()> {
    if !force && !confirmed(question)? {
        return Err(Failure::exit(1));
    }
    let done: Value = c.json(Method::POST, &query(path, &[("filters", wanted)]), Payload::Empty).await?;
    let gone: Vec<&str> = done[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !gone.is_empty() {
        say(title)?;
        gone.iter().try_for_each(|name| say(name))?;
        say("")?;
    }
    say(&format!("Total reclaimed space: {}", size(done["SpaceReclaimed"].as_i64().unwrap_or(0))))
}
