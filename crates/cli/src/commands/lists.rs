//! Lists: `ps`, `images`, `history`, `network ls`, `volume ls`.

use serde_json::{Value, json};

use super::{App, filters};
use crate::args::container::PsArgs;
use crate::args::image::{HistoryArgs, ImagesArgs};
use crate::args::object::{NetworkLsArgs, VolumeLsArgs};
use crate::client::{Client, escape, query};
use crate::error::{Failure, Result};
use crate::format::human::{ago, ellipsis, go_time, local, rfc3339, short_id, size, total};
use crate::format::{Columns, Row, print_rows};

/// What stands before a template's errors in most lists.
const ERRORS: (&str, &str) = ("template parsing error", "template parsing error");

const PS_RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\n\
    created_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\n\
    labels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n";
pub(super) const PS_RAW_SIZE: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\n\
    created_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\n\
    labels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\nsize: {{.Size}}\n";

pub(super) const PS: Columns = Columns {
    kind: "*formatter.ContainerContext",
    errors: ("failed to parse template", "failed to execute template"),
    raw: (PS_RAW, "container_id: {{.ID}}"),
    all: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Size", "SIZE"),
        ("Names", "NAMES"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
    ],
    default: &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"],
};

const PS_SIZE: Columns = Columns {
    raw: (PS_RAW_SIZE, PS.raw.1),
    default: &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", "Size"],
    ..PS
};

pub(super) fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

pub(super) fn items(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

/// `ps`.
pub(crate) async fn ps(app: &App<'_>, args: &PsArgs) -> Result<()> {
    let c = &app.client;
    let last = if args.latest { Some(1) } else { Some(args.last).filter(|n| *n > 0) };
    let flag = |on: bool| if on { "1" } else { "" };
    let given = args.format.as_deref().filter(|f| !f.is_empty());
    if args.quiet && given.is_some() {
        eprintln!("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    let format = match given {
        Some("raw") => given,
        _ if args.quiet => None,
        _ => app.config.format(given, false, "psFormat"),
    };
    // A template that shows everything shows the size too.
    let wants_size =
        args.size || format.is_some_and(|f| f.contains(".Size") || f.replace(' ', "").contains("{{json.}}"));
    let path = query(
        "/containers/json",
        &[
            ("all", flag(args.all)),
            ("limit", &last.map(|n| n.to_string()).unwrap_or_default()),
            ("size", flag(wants_size)),
            ("filters", &filters(&args.filter)?),
        ],
    );
    let list = c.value(&path).await?;
    let rows: Vec<Row> = items(&list).map(|v| ps_row(v, args.no_trunc)).collect();
    let columns = if args.size { &PS_SIZE } else { &PS };
    print_rows(columns, &rows, format, args.quiet.then_some("ID"))
}

pub(super) fn ps_row(v: &Value, no_trunc: bool) -> Row {
    let id = text(&v["Id"]);
    let created = v["Created"].as_i64().unwrap_or(0);
    // A reference that no longer is one, or an id, is shown short.
    let image = match text(&v["Image"]) {
        i if !no_trunc && i.starts_with("sha256:") => short_id(i),
        i => i.to_owned(),
    };
    let command = text(&v["Command"]);
    let command = quoted(&if no_trunc { command.to_owned() } else { ellipsis(command, 20) });
    let names: Vec<&str> =
        items(&v["Names"]).map(|n| text(n).trim_start_matches('/')).filter(|n| !n.contains('/')).collect();
    let mounts: Vec<String> = items(&v["Mounts"])
        .map(|m| if text(&m["Name"]).is_empty() { text(&m["Source"]) } else { text(&m["Name"]) })
        .map(|m| if no_trunc { m.to_owned() } else { ellipsis(m, 15) })
        .collect();
    let local_volumes = items(&v["Mounts"]).filter(|m| text(&m["Driver"]) == "local").count();
    let networks: Vec<String> =
        v["NetworkSettings"]["Networks"].as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
    let row = json!({
        "ID": if no_trunc { id.to_owned() } else { short_id(id) },
        "Image": image,
        "Command": command,
        "CreatedAt": local(created),
        "RunningFor": ago(created),
        "Ports": ports(&v["Ports"]),
        "State": text(&v["State"]),
        "Status": text(&v["Status"]),
        "Size": container_size(v),
        "Names": names.join(","),
        "Labels": labels(&v["Labels"]),
        "Mounts": mounts.join(","),
        "LocalVolumes": local_volumes.to_string(),
        "Networks": networks.join(","),
        "Platform": Value::Null,
    });
    Row::new(row, &v["Labels"])
}

/// Go's quoted text: a command may have line feeds and worse.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn container_size(v: &Value) -> String {
    let own = v["SizeRw"].as_i64().unwrap_or(0);
    match v["SizeRootFs"].as_i64().unwrap_or(0) {
        0 => size(own),
        all => format!("{} (virtual {})", size(own), size(all)),
    }
}

pub(super) fn labels(v: &Value) -> String {
    let pairs = v.as_object().into_iter().flatten();
    pairs.map(|(k, v)| format!("{k}={}", text(v))).collect::<Vec<_>>().join(",")
}

/// `0.0.0.0:8080->80/tcp, 90/tcp`; ports in a row become a range.
fn ports(v: &Value) -> String {
    struct Run {
        ip: String,
        kind: String,
        private: (i64, i64),
        public: (i64, i64),
    }
    let mut all: Vec<(i64, String, i64, String)> = items(v)
        .map(|p| {
            let n = |k: &str| p[k].as_i64().unwrap_or(0);
            (n("PrivatePort"), text(&p["IP"]).to_owned(), n("PublicPort"), text(&p["Type"]).to_owned())
        })
        .collect();
    all.sort_by(|a, b| (&a.3, &a.1, a.0, a.2).cmp(&(&b.3, &b.1, b.0, b.2)));
    let mut runs: Vec<Run> = Vec::new();
    for (private, ip, public, kind) in all {
        match runs.last_mut() {
            Some(r)
                if r.ip == ip
                    && r.kind == kind
                    && r.private.1 + 1 == private
                    && ((public == 0 && r.public.1 == 0) || (public != 0 && r.public.1 + 1 == public)) =>
            {
                r.private.1 = private;
                r.public.1 = public;
            }
            _ => runs.push(Run { ip, kind, private: (private, private), public: (public, public) }),
        }
    }
    let range = |(a, b): (i64, i64)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    runs.sort_by_key(|r| (r.private.0, r.public.0 == 0));
    let shown = runs.iter().map(|r| {
        if r.public.0 == 0 {
            return format!("{}/{}", range(r.private), r.kind);
        }
        let ip = if r.ip.contains(':') { format!("[{}]", r.ip) } else { r.ip.clone() };
        format!("{ip}:{}->{}/{}", range(r.public), range(r.private), r.kind)
    });
    shown.collect::<Vec<_>>().join(", ")
}

pub(super) const IMAGES: Columns = Columns {
    kind: "*formatter.imageContext",
    errors: ERRORS,
    raw: (
        "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n",
        "image_id: {{.ID}}",
    ),
    all: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Containers", "CONTAINERS"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("VirtualSize", "SIZE"),
    ],
    default: &["Repository", "Tag", "ID", "CreatedSince", "Size"],
};

pub(super) const IMAGES_DIGESTS: Columns = Columns {
    raw: (
        "repository: {{.Repository}}\ntag: {{.Tag}}\ndigest: {{.Digest}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n",
        IMAGES.raw.1,
    ),
    default: &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
    ..IMAGES
};

/// `images`.
pub(crate) async fn images(app: &App<'_>, args: &ImagesArgs) -> Result<()> {
    if args.tree {
        return Err(Failure::new("images --tree is not implemented yet"));
    }
    let mut wanted = args.filter.clone();
    wanted.extend(args.repository.iter().map(|r| format!("reference={r}")));
    let path =
        query("/images/json", &[("all", if args.all { "1" } else { "" }), ("filters", &filters(&wanted)?)]);
    let list = app.client.value(&path).await?;
    let format = app.config.format(args.format.as_deref(), args.quiet, "imagesFormat");
    let rows: Vec<Row> = items(&list).flat_map(|v| image_rows(v, args)).collect();
    let columns = if args.digests { &IMAGES_DIGESTS } else { &IMAGES };
    print_rows(columns, &rows, format, args.quiet.then_some("ID"))
}

fn image_rows(v: &Value, args: &ImagesArgs) -> Vec<Row> {
    let id = text(&v["Id"]);
    let created = v["Created"].as_i64().unwrap_or(0);
    let shown = size(v["Size"].as_i64().unwrap_or(0));
    let row = |repository: &str, tag: &str, digest: &str| {
        let row = json!({
            "Repository": repository, "Tag": tag, "Digest": digest,
            "ID": if args.no_trunc { id.to_owned() } else { short_id(id) },
            "CreatedSince": ago(created), "CreatedAt": local(created), "Size": shown,
            "VirtualSize": total(v["Size"].as_i64().unwrap_or(0)),
            "Containers": "N/A", "SharedSize": "N/A", "UniqueSize": "N/A",
        });
        Row::new(row, &Value::Null)
    };
    let digest_of = |repository: &str| {
        items(&v["RepoDigests"]).find_map(|d| {
            text(d).split_once('@').filter(|(r, _)| *r == repository).map(|(_, d)| d.to_owned())
        })
    };
    let tags: Vec<(String, String)> = items(&v["RepoTags"])
        .filter_map(|t| text(t).rsplit_once(':').map(|(r, t)| (r.to_owned(), t.to_owned())))
        .filter(|(r, _)| r != "<none>")
        .collect();
    if tags.is_empty() {
        let by_digest: Vec<(String, String)> = items(&v["RepoDigests"])
            .filter_map(|d| text(d).split_once('@').map(|(r, d)| (r.to_owned(), d.to_owned())))
            .filter(|(r, _)| r != "<none>")
            .collect();
        if by_digest.is_empty() {
            return vec![row("<none>", "<none>", "<none>")];
        }
        return by_digest.iter().map(|(r, d)| row(r, "<none>", d)).collect();
    }
    tags.iter().map(|(r, t)| row(r, t, &digest_of(r).unwrap_or_else(|| "<none>".into()))).collect()
}

const HISTORY: Columns = Columns {
    kind: "*image.historyContext",
    errors: ERRORS,
    raw: ("", ""),
    all: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    default: &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
};

/// The same with exact times and sizes.
const HISTORY_EXACT: Columns =
    Columns { default: &["ID", "CreatedAt", "CreatedBy", "Size", "Comment"], ..HISTORY };

/// `history`.
pub(crate) async fn history(c: &Client, args: &HistoryArgs) -> Result<()> {
    let platform = super::image::platform_json(&args.platform)?;
    let path = format!("/images/{}/history", escape(&args.image));
    let list = c.value(&query(&path, &[("platform", &platform)])).await?;
    let rows: Vec<Row> = items(&list)
        .map(|v| {
            let (id, created, bytes) =
                (text(&v["Id"]), v["Created"].as_i64().unwrap_or(0), v["Size"].as_i64().unwrap_or(0));
            let by = text(&v["CreatedBy"]).replace('\t', " ");
            let row = json!({
                "ID": if args.no_trunc || id == "<missing>" { id.to_owned() } else { short_id(id) },
                "CreatedSince": if args.human { ago(created) } else { rfc3339(created) },
                "CreatedAt": if created == 0 { String::new() } else { rfc3339(created) },
                "CreatedBy": if args.no_trunc { by } else { ellipsis(&by, 45) },
                "Size": if args.human { size(bytes) } else { bytes.to_string() },
                "Comment": text(&v["Comment"]),
            });
            Row::new(row, &Value::Null)
        })
        .collect();
    let columns = if args.human { &HISTORY } else { &HISTORY_EXACT };
    print_rows(columns, &rows, args.format.as_deref(), args.quiet.then_some("ID"))
}

const NETWORKS: Columns = Columns {
    kind: "*network.networkContext",
    errors: ERRORS,
    raw: (
        "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
        "network_id: {{.ID}}",
    ),
    all: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    default: &["ID", "Name", "Driver", "Scope"],
};

/// `network ls`.
pub(crate) async fn networks(app: &App<'_>, args: &NetworkLsArgs) -> Result<()> {
    let list = app.client.value(&query("/networks", &[("filters", &filters(&args.filter)?)])).await?;
    let mut all: Vec<&Value> = items(&list).collect();
    all.sort_by_key(|v| text(&v["Name"]));
    let rows: Vec<Row> = all
        .into_iter()
        .map(|v| {
            let id = text(&v["Id"]);
            let row = json!({
                "ID": if args.no_trunc { id.to_owned() } else { short_id(id) },
                "Name": v["Name"], "Driver": v["Driver"], "Scope": v["Scope"], "Labels": labels(&v["Labels"]),
                "IPv4": v["EnableIPv4"].to_string(), "IPv6": v["EnableIPv6"].to_string(),
                "Internal": v["Internal"].to_string(), "CreatedAt": go_time(text(&v["Created"])),
            });
            Row::new(row, &v["Labels"])
        })
        .collect();
    let format = app.config.format(args.format.as_deref(), args.quiet, "networksFormat");
    print_rows(&NETWORKS, &rows, format, args.quiet.then_some("ID"))
}

pub(super) const VOLUMES: Columns = Columns {
    kind: "*formatter.volumeContext",
    errors: ERRORS,
    raw: ("name: {{.Name}}\ndriver: {{.Driver}}\n", "name: {{.Name}}"),
    all: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Group", "GROUP"),
        ("Availability", "AVAILABILITY"),
        ("Status", "STATUS"),
    ],
    default: &["Driver", "Name"],
};

/// `volume ls`.
pub(crate) async fn volumes(app: &App<'_>, args: &VolumeLsArgs) -> Result<()> {
    let answer = app.client.value(&query("/volumes", &[("filters", &filters(&args.filter)?)])).await?;
    let mut all: Vec<&Value> = items(&answer["Volumes"]).collect();
    all.sort_by_key(|v| text(&v["Name"]));
    let rows: Vec<Row> = all
        .into_iter()
        .map(|v| {
            let row = json!({
                "Driver": v["Driver"], "Name": v["Name"], "Scope": v["Scope"], "Mountpoint": v["Mountpoint"],
                "Labels": labels(&v["Labels"]), "Links": "N/A", "Size": "N/A",
                // Those of swarm's volumes, which no other has.
                "Group": "N/A", "Availability": "N/A", "Status": "N/A",
            });
            Row::new(row, &v["Labels"])
        })
        .collect();
    let format = app.config.format(args.format.as_deref(), args.quiet, "volumesFormat");
    print_rows(&VOLUMES, &rows, format, args.quiet.then_some("Name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        let p = |private: i64, public: i64, ip: &str| json!({"PrivatePort": private, "PublicPort": public, "IP": ip, "Type": "tcp"});
        assert_eq!(
            ports(&json!([p(80, 8080, "0.0.0.0"), p(80, 8080, "::")])),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(ports(&json!([p(81, 0, ""), p(80, 0, "")])), "80-81/tcp");
        assert_eq!(ports(&json!([])), "");
    }
}
