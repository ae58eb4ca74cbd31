//! `version` and `events`.

use hyper::Method;
use serde_json::{Value, json};

use super::{filters, say};
use crate::args::object::{EventsArgs, FormatArgs};
use crate::client::{Client, Payload, each_line, query};
use crate::error::{Failure, Result};
use crate::format::Object;
use crate::format::human::{rfc3339_nanos, timestamp};

/// Docker's status for a template that cannot be used.
const WRONG_TEMPLATE: i32 = 64;

/// What `version` shows of the client.
fn client(version: &str) -> Value {
    json!({
        "Version": env!("CARGO_PKG_VERSION"), "ApiVersion": version,
        "DefaultAPIVersion": longshore_api::ApiVersion::MAX.to_string(), "Os": std::env::consts::OS,
        "Arch": longshore_oci::Platform::host().architecture, "Context": "default",
    })
}

/// What `version` shows of the client, and what the daemon answers.
pub(crate) async fn ask(c: &Client) -> Result<(String, Value)> {
    Ok((c.version().to_owned(), c.value("/version").await?))
}

/// `version`. The client's part is shown even where there is no daemon.
pub(crate) fn version(server: Result<(String, Value)>, args: &FormatArgs) -> Result<()> {
    let (spoken, server) = match server {
        Ok((spoken, server)) => (spoken, Ok(server)),
        Err(e) => (longshore_api::ApiVersion::MAX.to_string(), Err(e)),
    };
    let server = server.map(readable_times);
    let mut both = json!({"Client": client(&spoken), "Server": server.as_ref().ok()});
    match args.format.as_deref().filter(|f| !f.is_empty()) {
        Some("json") => say(&both.to_string())?,
        Some(template) => {
            // Templates know the names of Go's fields.
            let json = both.clone();
            for (part, json, go) in [
                ("Client", "ApiVersion", "APIVersion"),
                ("Server", "ApiVersion", "APIVersion"),
                ("Server", "MinAPIVersion", "MinAPIVersion"),
            ] {
                if both[part].is_object() {
                    both[part][go] = both[part][json].clone();
                }
            }
            show(template, &both, &json, "version", "system.versionInfo")?;
        }
        None => {
            say(&client_text(&both["Client"]))?;
            if let Ok(v) = &server {
                say(&server_text(v))?;
            }
        }
    }
    server.map(drop)
}

/// The times at which the parts were built, as docker shows them.
fn readable_times(mut server: Value) -> Value {
    for component in server["Components"].as_array_mut().into_iter().flatten() {
        let time = component["Details"]["BuildTime"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
        if let Some(time) = time {
            component["Details"]["BuildTime"] = time.strftime("%a %b %e %H:%M:%S %Y").to_string().into();
        }
    }
    server
}

/// Shows an object with a template; where that fails, docker has an empty line on standard output.
pub(super) fn show(
    template: &str,
    object: &Value,
    json: &Value,
    name: &'static str,
    kind: &'static str,
) -> Result<()> {
    let parsed = Object::parse(template).map_err(|e| {
        let e = e.to_string().replace("template: :", &format!("template: {name}:"));
        Failure::new(format!("template parsing error: {e}")).with_code(WRONG_TEMPLATE)
    })?;
    match parsed.render_typed(object, json, name, kind) {
        Ok(text) => say(&text),
        Err(e) => {
            say("")?;
            Err(Failure::new(e.to_string()))
        }
    }
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

fn row(name: &str, value: &str) -> String {
    format!(" {:<18} {value}\n", format!("{name}:"))
}

fn client_text(v: &Value) -> String {
    let mut out = String::from("Client: Longshore\n");
    out += &row("Version", text(&v["Version"]));
    out += &row("API version", text(&v["ApiVersion"]));
    out += &row("OS/Arch", &format!("{}/{}", text(&v["Os"]), text(&v["Arch"])));
    out += &row("Context", text(&v["Context"]));
    out.trim_end().to_owned()
}

fn server_text(v: &Value) -> String {
    let mut out = format!("\nServer: {}\n", text(&v["Platform"]["Name"]));
    for component in v["Components"].as_array().into_iter().flatten() {
        let details = &component["Details"];
        out += &format!(" {}:\n", text(&component["Name"]));
        let mut put = |name: &str, value: &str| out += &format!("  {:<17} {value}\n", format!("{name}:"));
        put("Version", text(&component["Version"]));
        if details["ApiVersion"].is_string() {
            let (version, least) = (text(&details["ApiVersion"]), text(&details["MinAPIVersion"]));
            put("API version", &format!("{version} (minimum version {least})"));
        }
        for (name, key) in [("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime")]
        {
            if let Some(value) = details[key].as_str().filter(|v| !v.is_empty()) {
                put(name, value);
            }
        }
        if details["Os"].is_string() {
            put("OS/Arch", &format!("{}/{}", text(&details["Os"]), text(&details["Arch"])));
        }
        if details["Experimental"].is_string() {
            put("Experimental", text(&details["Experimental"]));
        }
    }
    out.trim_end().to_owned()
}

/// `events`.
pub(crate) async fn events(c: &Client, args: &EventsArgs) -> Result<()> {
    let wrong = |e: String| Failure::new(format!("Error parsing format: {e}")).with_code(WRONG_TEMPLATE);
    let template = match args.format.as_deref().filter(|f| !f.is_empty()) {
        None | Some("json") => None,
        Some(text) => Some(Object::parse(text).map_err(|e| wrong(e.to_string()))?),
    };
    let as_json = args.format.as_deref() == Some("json");
    let path = query(
        "/events",
        &[
            ("since", &timestamp(&args.since)?),
            ("until", &timestamp(&args.until)?),
            ("filters", &filters(&args.filter)?),
        ],
    );
    let answer = c.call(Method::GET, &path, Payload::Empty).await?;
    each_line(answer, |event| match &template {
        None if as_json => say(&crate::template::escaped_json(&event)),
        None => say(&event_text(&event)),
        Some(template) => {
            let line = template.render_typed(&go_names(event.clone()), &event, "", "*events.Message");
            say(&line.map_err(|e| wrong(e.to_string()))?)
        }
    })
    .await
}

fn event_text(event: &Value) -> String {
    let mut attributes: Vec<String> = event["Actor"]["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", text(v)))
        .collect();
    attributes.sort();
    let shown = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!(
        "{} {} {} {}{shown}",
        rfc3339_nanos(event["timeNano"].as_i64().unwrap_or(0)),
        text(&event["Type"]),
        text(&event["Action"]),
        text(&event["Actor"]["ID"])
    )
}

/// An event with the names of Go's fields.
fn go_names(mut event: Value) -> Value {
    for (json, go) in [
        ("status", "Status"),
        ("id", "ID"),
        ("from", "From"),
        ("scope", "Scope"),
        ("time", "Time"),
        ("timeNano", "TimeNano"),
    ] {
        let value = event[json].take();
        event[go] = if value.is_null() { json!("") } else { value };
        if let Some(map) = event.as_object_mut() {
            map.shift_remove(json);
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_laid_out_as_docker_does() {
        let server = json!({"Platform": {"Name": "P"}, "Components": [
            {"Name": "Engine", "Version": "1", "Details": {"ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}},
        ]});
        assert_eq!(
            server_text(&server),
            "\nServer: P\n Engine:\n  Version:          1\n  API version:      1.51 (minimum version 1.24)\n  OS/Arch:          linux/amd64"
        );
    }

    #[test]
    fn events_are_one_line() {
        let event = json!({"Type": "volume", "Action": "create", "Actor": {"ID": "v", "Attributes": {"driver": "local", "a": "b"}}, "timeNano": 0});
        assert!(event_text(&event).ends_with(" volume create v (a=b, driver=local)"));
        assert_eq!(go_names(json!({"time": 5, "Type": "x"}))["Time"], 5);
    }
}
