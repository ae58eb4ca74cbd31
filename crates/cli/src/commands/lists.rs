//! Lists: `ps`, `images`, `history`, `network ls`, `volume ls`.

use serde_json::{Map, Value, json};

use super::filters;
use crate::cli::{HistoryArgs, ImagesArgs, ListArgs, PsArgs};
use crate::client::{Client, escape, query};
use crate::error::Result;
use crate::format::human::{ago, ellipsis, local, short_id, size};
use crate::format::{Columns, print_rows};

const PS: Columns = Columns {
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
    all: PS.all,
    default: &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", "Size"],
};

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_default()
}

fn items(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

/// `ps`.
pub(crate) async fn ps(c: &Client, args: &PsArgs) -> Result<()> {
    let last = if args.latest { Some(1) } else { args.last.filter(|n| *n > 0) };
    let flag = |on: bool| if on { "1" } else { "" };
    let wants_size = args.size || args.format.as_deref().is_some_and(|f| f.contains(".Size"));
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
    let rows: Vec<Value> = items(&list).map(|v| ps_row(v, args.no_trunc)).collect();
    let columns = if args.size { &PS_SIZE } else { &PS };
    print_rows(columns, &rows, args.format.as_deref(), args.quiet.then_some("ID"))
}

fn ps_row(v: &Value, no_trunc: bool) -> Value {
    let id = text(&v["Id"]);
    let created = v["Created"].as_i64().unwrap_or(0);
    // A reference that no longer is one, or an id, is shown short.
    let image = match text(&v["Image"]) {
        i if !no_trunc && i.starts_with("sha256:") => short_id(i),
        i => i.to_owned(),
    };
    let command = format!(
        "\"{}\"",
        if no_trunc { text(&v["Command"]).to_owned() } else { ellipsis(text(&v["Command"]), 20) }
    );
    let names: Vec<&str> =
        items(&v["Names"]).map(|n| text(n).trim_start_matches('/')).filter(|n| !n.contains('/')).collect();
    let mounts: Vec<String> = items(&v["Mounts"])
        .map(|m| if text(&m["Name"]).is_empty() { text(&m["Source"]) } else { text(&m["Name"]) })
        .map(|m| if no_trunc { m.to_owned() } else { ellipsis(m, 15) })
        .collect();
    let local_volumes = items(&v["Mounts"]).filter(|m| text(&m["Driver"]) == "local").count();
    let networks: Vec<String> =
        v["NetworkSettings"]["Networks"].as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
    json!({
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
        "label_map": v["Labels"],
        "Mounts": mounts.join(","),
        "LocalVolumes": local_volumes.to_string(),
        "Networks": networks.join(","),
        "Platform": Value::Null,
    })
}

fn container_size(v: &Value) -> String {
    let own = v["SizeRw"].as_i64().unwrap_or(0);
    match v["SizeRootFs"].as_i64().unwrap_or(0) {
        0 => size(own),
        all => format!("{} (virtual {})", size(own), size(all)),
    }
}

fn labels(v: &Value) -> String {
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

const IMAGES: Columns = Columns {
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

const IMAGES_DIGESTS: Columns =
    Columns { all: IMAGES.all, default: &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"] };

/// `images`.
pub(crate) async fn images(c: &Client, args: &ImagesArgs) -> Result<()> {
    let mut wanted = args.filter.clone();
    wanted.extend(args.repository.iter().map(|r| format!("reference={r}")));
    let path =
        query("/images/json", &[("all", if args.all { "1" } else { "" }), ("filters", &filters(&wanted)?)]);
    let list = c.value(&path).await?;
    let rows: Vec<Value> = items(&list).flat_map(|v| image_rows(v, args)).collect();
    let columns = if args.digests { &IMAGES_DIGESTS } else { &IMAGES };
    print_rows(columns, &rows, args.format.as_deref(), args.quiet.then_some("ID"))
}

fn image_rows(v: &Value, args: &ImagesArgs) -> Vec<Value> {
    let id = text(&v["Id"]);
    let created = v["Created"].as_i64().unwrap_or(0);
    let shown = size(v["Size"].as_i64().unwrap_or(0));
    let row = |repository: &str, tag: &str, digest: &str| {
        json!({
            "Repository": repository, "Tag": tag, "Digest": digest,
            "ID": if args.no_trunc { id.to_owned() } else { short_id(id) },
            "CreatedSince": ago(created), "CreatedAt": local(created), "Size": shown, "VirtualSize": shown,
            "Containers": "N/A", "SharedSize": "N/A", "UniqueSize": "N/A",
        })
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
    // With -q an image is one line, however many names it has.
    let count = if args.quiet { 1 } else { tags.len() };
    tags.iter()
        .take(count)
        .map(|(r, t)| row(r, t, &digest_of(r).unwrap_or_else(|| "<none>".into())))
        .collect()
}

const HISTORY: Columns = Columns {
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

/// `history`.
pub(crate) async fn history(c: &Client, args: &HistoryArgs) -> Result<()> {
    let list = c.value(&format!("/images/{}/history", escape(&args.image))).await?;
    let rows: Vec<Value> = items(&list)
        .map(|v| {
            let (id, created, bytes) =
                (text(&v["Id"]), v["Created"].as_i64().unwrap_or(0), v["Size"].as_i64().unwrap_or(0));
            let by = text(&v["CreatedBy"]).replace('\t', " ");
            let mut row = Map::new();
            let mut put = |k: &str, v: String| drop(row.insert(k.to_owned(), Value::from(v)));
            put("ID", if args.no_trunc || id == "<missing>" { id.to_owned() } else { short_id(id) });
            put("CreatedSince", if args.human { ago(created) } else { local(created) });
            put("CreatedAt", local(created));
            put("CreatedBy", if args.no_trunc { by } else { ellipsis(&by, 45) });
            put("Size", if args.human { size(bytes) } else { bytes.to_string() });
            put("Comment", text(&v["Comment"]).to_owned());
            Value::Object(row)
        })
        .collect();
    print_rows(&HISTORY, &rows, args.format.as_deref(), args.quiet.then_some("ID"))
}

const NETWORKS: Columns = Columns {
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
pub(crate) async fn networks(c: &Client, args: &ListArgs) -> Result<()> {
    let list = c.value(&query("/networks", &[("filters", &filters(&args.filter)?)])).await?;
    let rows: Vec<Value> = items(&list)
        .map(|v| {
            let id = text(&v["Id"]);
            json!({
                "ID": if args.no_trunc { id.to_owned() } else { short_id(id) },
                "Name": v["Name"], "Driver": v["Driver"], "Scope": v["Scope"], "Labels": labels(&v["Labels"]), "label_map": v["Labels"],
                "IPv4": v["EnableIPv4"].to_string(), "IPv6": v["EnableIPv6"].to_string(), "Internal": v["Internal"].to_string(), "CreatedAt": v["Created"],
            })
        })
        .collect();
    print_rows(&NETWORKS, &rows, args.format.as_deref(), args.quiet.then_some("ID"))
}

const VOLUMES: Columns = Columns {
    all: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
    ],
    default: &["Driver", "Name"],
};

/// `volume ls`.
pub(crate) async fn volumes(c: &Client, args: &ListArgs) -> Result<()> {
    let answer = c.value(&query("/volumes", &[("filters", &filters(&args.filter)?)])).await?;
    let mut rows: Vec<Value> = items(&answer["Volumes"])
        .map(|v| {
            json!({
                "Driver": v["Driver"], "Name": v["Name"], "Scope": v["Scope"], "Mountpoint": v["Mountpoint"],
                "Labels": labels(&v["Labels"]), "label_map": v["Labels"], "Links": "N/A", "Size": "N/A",
            })
        })
        .collect();
    rows.sort_by(|a, b| text(&a["Name"]).cmp(text(&b["Name"])));
    print_rows(&VOLUMES, &rows, args.format.as_deref(), args.quiet.then_some("Name"))
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
