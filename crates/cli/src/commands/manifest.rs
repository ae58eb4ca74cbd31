//! `manifest inspect`. Docker's command line talks to the registry by itself; this one asks the daemon, which knows the
//! registries' mirrors, certificates and proxies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::{Method, Response};
use longshore_api::registry::Referrers;
use longshore_oci::image::Descriptor;
use longshore_oci::{Digest, Reference};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::App;
use super::registry::user_at;
use crate::args::registry::{ManifestInspectArgs, ReferrersArgs};
use crate::client::{escape, query, read};
use crate::credentials::Credentials;
use crate::error::{Context, Failure, Result};
use crate::format::human;
use crate::format::indent::indent;
use crate::format::{Columns, Row, print_rows};
use crate::streams::show;
use crate::template::{escape_html, escaped_json};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A document of a registry, as Longshore's daemon gives it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    descriptor: Value,
    /// Its bytes, in base64.
    raw: String,
    /// What it lists, when that was asked for.
    #[serde(default)]
    manifests: Vec<Document>,
}

impl Document {
    fn media_type(&self) -> &str {
        self.descriptor["mediaType"].as_str().unwrap_or_default()
    }

    /// The text, which is JSON and has the digest that is said.
    fn text(&self) -> Result<String> {
        let bytes = STANDARD.decode(&self.raw).context(|| "the daemon's answer is not base64".into())?;
        let digest = self.descriptor["digest"].as_str().unwrap_or_default();
        if digest.starts_with("sha256:") && Digest::of(&bytes).to_string() != digest {
            return Err(Failure::new(format!("the daemon's answer is not the manifest {digest}")));
        }
        let text = String::from_utf8(bytes).context(|| format!("manifest {digest}"))?;
        serde_json::from_str::<serde::de::IgnoredAny>(&text).context(|| format!("manifest {digest}"))?;
        Ok(text)
    }
}

/// `manifest inspect`.
pub(crate) async fn inspect(app: &App<'_>, args: &ManifestInspectArgs) -> Result<()> {
    let [name] = args.names.as_slice() else {
        return Err(Failure::new("manifest lists that are kept on this machine are not implemented yet"));
    };
    let name: Reference = name.parse().map_err(super::image::bad_reference)?;
    let name = name.or_latest();
    if args.insecure && !is_loopback(name.registry()) {
        return Err(Failure::new(format!(
            "--insecure: it is the daemon that talks to {}; name it among the daemon's insecure-registries",
            name.registry()
        )));
    }
    let user = user_at(&app.config, name.registry());
    let document = fetch(app, &user, &name, args.verbose).await?;
    let shown = match (document.media_type(), args.verbose) {
        (DOCKER_LIST | OCI_INDEX, false) => indent(&list(&document)?, "   ", 0),
        (DOCKER_LIST | OCI_INDEX, true) => {
            let parts = document.manifests.iter().map(|part| {
                let digest = part.descriptor["digest"].as_str().unwrap_or_default();
                verbose(&with_digest(&name, digest), &listed_platform(&part.descriptor), part)
            });
            let parts = parts.collect::<Result<Vec<_>>>()?;
            indent(format!("[{}]", parts.join(",")).as_bytes(), "\t", 0)
        }
        (_, false) => indent(document.text()?.as_bytes(), "\t", 0),
        (_, true) => {
            let platform = match &document.descriptor["platform"] {
                Value::Object(_) => listed_platform(&document.descriptor),
                _ => platform(app, &user, &name).await,
            };
            indent(verbose(&name.to_string(), &platform, &document)?.as_bytes(), "\t", 0)
        }
    };
    show(longshore_api::stream::Stream::Stdout, &[&shown[..], b"\n"].concat())
}

/// Whether a registry is on this machine, so that every daemon talks to it without TLS.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const REFERRERS: Columns = Columns {
    kind: "*manifest.referrer",
    errors: ("template parsing error", "template parsing error"),
    raw: ("", ""),
    all: &[("Digest", "DIGEST"), ("Type", "TYPE"), ("Size", "SIZE"), ("Annotations", "ANNOTATIONS")],
    default: &["Digest", "Type", "Size", "Annotations"],
};

/// `manifest referrers`.
pub(crate) async fn referrers(app: &App<'_>, args: &ReferrersArgs) -> Result<()> {
    let name: Reference = args.name.parse().map_err(super::image::bad_reference)?;
    let name = name.or_latest();
    let user = user_at(&app.config, name.registry());
    let path = format!("/longshore/referrers/{}", escape(&name.to_string()));
    let path = query(&path, &[("artifactType", &args.artifact_type)]);
    let body = read(ask(app, &user, &path, &name).await?).await?;
    let found: Referrers = longshore_api::json::from_slice(&body)
        .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))?;
    let rows: Vec<Row> = found.manifests.iter().map(referrer).collect();
    print_rows(&REFERRERS, &rows, args.format.as_deref(), None)
}

fn referrer(d: &Descriptor) -> Row {
    let annotations: Vec<String> = d.annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let fields = json!({
        "Digest": d.digest.to_string(),
        "Type": d.artifact_type.as_ref().unwrap_or(&d.media_type),
        "Size": human::size(i64::try_from(d.size).unwrap_or(i64::MAX)),
        "Annotations": annotations.join(","),
    });
    Row::new(fields, &Value::Null)
}

async fn fetch(app: &App<'_>, user: &Credentials, name: &Reference, parts: bool) -> Result<Document> {
    let path = format!("/longshore/manifests/{}", escape(&name.to_string()));
    let path = query(&path, &[("verbose", if parts { "1" } else { "" })]);
    let body = read(ask(app, user, &path, name).await?).await?;
    longshore_api::json::from_slice(&body)
        .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))
}

/// Asks for what only our daemon tells of a registry.
async fn ask(app: &App<'_>, user: &Credentials, path: &str, name: &Reference) -> Result<Response<Incoming>> {
    match app.client.call_as(user, Method::GET, path).await {
        Err(e) if e.is_not_found() && e.message.ends_with("page not found") => Err(Failure::new(
            "this daemon does not show the manifests of registries; Longshore's own does (longshore daemon)",
        )),
        Err(e) if e.is_not_found() => Err(Failure::new(format!("no such manifest: {name}"))),
        other => other,
    }
}

/// The platform of an image that no list names, from its configuration; unknown for what is no image.
async fn platform(app: &App<'_>, user: &Credentials, name: &Reference) -> Value {
    let path = format!("/distribution/{}/json", escape(&name.to_string()));
    let ask = async { read(app.client.call_as(user, Method::GET, &path).await?).await };
    let known = ask.await.ok().and_then(|body| serde_json::from_slice::<Value>(&body).ok());
    listed_platform(&json!({"platform": known.unwrap_or_default()["Platforms"][0]}))
}

/// A platform with the members and the order that docker gives it; also where a list says nothing.
fn listed_platform(descriptor: &Value) -> Value {
    let platform = &descriptor["platform"];
    let mut out = Map::new();
    for key in ["architecture", "os"] {
        out.insert(key.into(), Value::from(platform[key].as_str().unwrap_or_default()));
    }
    for key in ["os.version", "os.features", "variant"] {
        let value = &platform[key];
        let given =
            value.as_str().is_some_and(|v| !v.is_empty()) || value.as_array().is_some_and(|v| !v.is_empty());
        if given {
            out.insert(key.into(), value.clone());
        }
    }
    Value::Object(out)
}

/// `name:tag@digest`.
fn with_digest(name: &Reference, digest: &str) -> String {
    let text = name.to_string();
    let before = text.split('@').next().unwrap_or_default();
    format!("{before}@{digest}")
}

/// A list as docker shows it: made anew of what it lists, with what it knows of that.
fn list(document: &Document) -> Result<Vec<u8>> {
    let list: Value = serde_json::from_str(&document.text()?).context(|| "manifest list".into())?;
    let listed: Vec<Value> = list["manifests"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|d| {
            json!({
                "mediaType": d["mediaType"], "size": d["size"], "digest": d["digest"],
                "platform": listed_platform(d),
            })
        })
        .collect();
    let first = listed.first().and_then(|d| d["mediaType"].as_str());
    let media_type = if first == Some(OCI_MANIFEST) { OCI_INDEX } else { DOCKER_LIST };
    let shown = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": listed});
    Ok(escaped_json(&shown).into_bytes())
}

/// A manifest with all that is known of it, as JSON without layout; the manifest itself stays as it was written.
fn verbose(name: &str, platform: &Value, document: &Document) -> Result<String> {
    let kind = match document.media_type() {
        DOCKER_MANIFEST => "SchemaV2Manifest",
        OCI_MANIFEST => "OCIManifest",
        other => return Err(Failure::new(format!("unsupported manifest type: {other}"))),
    };
    let descriptor = json!({
        "mediaType": document.media_type(),
        "digest": document.descriptor["digest"],
        "size": document.descriptor["size"],
        "platform": platform,
    });
    Ok(format!(
        "{{\"Ref\":{},\"Descriptor\":{},\"Raw\":{},\"{kind}\":{}}}",
        escaped_json(&Value::from(name)),
        escaped_json(&descriptor),
        escaped_json(&Value::from(document.raw.as_str())),
        escape_html(&document.text()?)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(media_type: &str, text: &str) -> Document {
        Document {
            descriptor: json!({"mediaType": media_type, "digest": Digest::of(text.as_bytes()).to_string(), "size": text.len()}),
            raw: STANDARD.encode(text),
            manifests: Vec::new(),
        }
    }

    #[test]
    fn lists_are_shown_as_docker_shows_them() {
        let text = r#"{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:1","size":7,"annotations":{"a":"b"},
            "platform":{"os":"linux","architecture":"arm","variant":"v7","os.features":[]}},{"mediaType":"x","digest":"sha256:2","size":8}]}"#;
        assert_eq!(
            String::from_utf8(list(&document(OCI_INDEX, text)).unwrap()).unwrap(),
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":7,"digest":"sha256:1","platform":{"architecture":"arm","os":"linux","variant":"v7"}},{"mediaType":"x","size":8,"digest":"sha256:2","platform":{"architecture":"","os":""}}]}"#
        );
    }

    #[test]
    fn a_manifest_is_shown_to_the_byte_or_not_at_all() {
        let one = document(OCI_MANIFEST, "{\"b\": 1.0, \"a\": \"<\"}");
        let shown = verbose("h/x:1", &listed_platform(&Value::Null), &one).unwrap();
        assert!(shown.ends_with(r#","OCIManifest":{"b": 1.0, "a": "\u003c"}}"#), "{shown}");
        let mut other = document(OCI_MANIFEST, "{}");
        other.raw = STANDARD.encode("{\"a\":1}");
        assert!(other.text().unwrap_err().message.contains("is not the manifest sha256:"));
        assert!(document(OCI_MANIFEST, "{").text().is_err());
        assert!(verbose("x", &Value::Null, &document("text/html", "{}")).is_err());
        let name: Reference = "a:1".parse().unwrap();
        assert_eq!(with_digest(&name, "sha256:2"), "docker.io/library/a:1@sha256:2");
    }

    #[test]
    fn registries_of_this_machine_need_no_option() {
        for (name, want) in [
            ("127.0.0.1:5000", true),
            ("localhost", true),
            ("[::1]:1", true),
            ("10.0.0.1", false),
            ("a.b:1", false),
        ] {
            assert_eq!(is_loopback(name), want, "{name}");
        }
    }
}
