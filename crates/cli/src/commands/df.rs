//! `system df`: docker's tables, and below them, where the daemon tells, everything that lies on the disk.

use serde_json::{Value, json};

use super::lists::{IMAGES, PS, PS_RAW_SIZE, VOLUMES, items, labels, ps_row, text};
use super::say;
use crate::args::build::BuilderDuArgs;
use crate::args::system::DfArgs;
use crate::client::Client;
use crate::error::{Failure, Result};
use crate::format::human::{ago, local, short_id, size, total};
use crate::format::{Columns, Object, Row, print_rows};

const ERRORS: (&str, &str) = ("template parsing error", "template parsing error");

const SUMMARY: Columns = Columns {
    // Docker has a type for each row; the first one's is that of every error.
    kind: "*formatter.diskUsageImagesContext",
    errors: ERRORS,
    raw: (
        "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n",
        "",
    ),
    all: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    default: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
};

const CACHE: Columns = Columns {
    kind: "*formatter.buildCacheContext",
    errors: ERRORS,
    raw: ("", ""),
    all: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
        ("Description", "DESCRIPTION"),
    ],
    default: &["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"],
};

/// What the daemon's ledger is made of, as people call it, in the order shown.
const KINDS: [(&str, &str); 12] = [
    ("layer", "Layers"),
    ("compressed-layer", "Compressed layers"),
    ("document", "Image documents"),
    ("writable-layer", "Writable layers"),
    ("container-files", "Container files"),
    ("log", "Logs"),
    ("volume", "Volumes"),
    ("cache-mount", "Cache mounts"),
    ("context", "Build contexts"),
    ("metadata", "Metadata"),
    ("arriving", "Arriving"),
    ("leftover", "Leftovers"),
];

fn number(v: &Value) -> i64 {
    v.as_i64().unwrap_or(0)
}

/// `system df`.
pub(crate) async fn df(c: &Client, args: &DfArgs) -> Result<()> {
    let usage = c.value("/system/df").await?;
    let format = args.format.as_deref().filter(|f| !f.is_empty()).unwrap_or("table");
    match (args.verbose, format) {
        (false, _) => print_rows(&SUMMARY, &summary(&usage), Some(format), None)?,
        (true, "table") => verbose_tables(&usage)?,
        (true, _) => return verbose(&usage, format),
    }
    let ours = &usage["Longshore"];
    match format == "table" && ours.is_object() {
        false => Ok(()),
        true if args.verbose => ledger(ours),
        true => ledger_sums(ours),
    }
}

fn row(kind: &str, count: usize, active: usize, bytes: i64, free: String) -> Row {
    let row = json!({
        "Type": kind, "TotalCount": count.to_string(), "Active": active.to_string(), "Size": total(bytes),
        "Reclaimable": free,
    });
    Row::new(row, &Value::Null)
}

fn share(free: i64, of: i64) -> String {
    if of > 0 { format!("{} ({}%)", total(free), free * 100 / of) } else { total(free) }
}

/// Docker's four rows.
fn summary(usage: &Value) -> Vec<Row> {
    let used = |i: &&Value| number(&i["Containers"]) > 0;
    let all = number(&usage["LayersSize"]);
    let known = |i: &&Value| number(&i["Size"]) != -1 && number(&i["SharedSize"]) != -1;
    let kept: i64 = items(&usage["Images"])
        .filter(|i| number(&i["Containers"]) != 0)
        .filter(known)
        .map(|i| number(&i["Size"]) - number(&i["SharedSize"]))
        .sum();
    let images = row(
        "Images",
        items(&usage["Images"]).count(),
        items(&usage["Images"]).filter(used).count(),
        all,
        share(all - kept, all),
    );
    let runs = |c: &&Value| ["running", "paused", "restarting"].iter().any(|s| text(&c["State"]).contains(s));
    let bytes = |list: &mut dyn Iterator<Item = &Value>| list.map(|c| number(&c["SizeRw"])).sum::<i64>();
    let all = bytes(&mut items(&usage["Containers"]));
    let free = bytes(&mut items(&usage["Containers"]).filter(|c| !runs(c)));
    let containers = row(
        "Containers",
        items(&usage["Containers"]).count(),
        items(&usage["Containers"]).filter(runs).count(),
        all,
        share(free, all),
    );
    let used = |v: &&Value| number(&v["UsageData"]["RefCount"]) > 0;
    let bytes = |v: &Value| number(&v["UsageData"]["Size"]).max(0);
    let all: i64 = items(&usage["Volumes"]).map(bytes).sum();
    let free = items(&usage["Volumes"]).filter(|v| number(&v["UsageData"]["RefCount"]) == 0).map(bytes).sum();
    let volumes = row(
        "Local Volumes",
        items(&usage["Volumes"]).count(),
        items(&usage["Volumes"]).filter(used).count(),
        all,
        share(free, all),
    );
    let all = cache_size(usage);
    let kept: i64 = items(&usage["BuildCache"])
        .filter(|b| b["InUse"] == true && b["Shared"] != true)
        .map(|b| number(&b["Size"]))
        .sum();
    let cache = row(
        "Build Cache",
        items(&usage["BuildCache"]).count(),
        items(&usage["BuildCache"]).filter(|b| b["InUse"] == true).count(),
        all,
        total(all - kept),
    );
    vec![images, containers, volumes, cache]
}

/// `builder du`.
pub(crate) async fn build_cache(c: &Client, args: &BuilderDuArgs) -> Result<()> {
    let usage = c.value("/system/df?type=build-cache").await?;
    let rows: Vec<Row> = items(&usage["BuildCache"]).map(cache).collect();
    let verbose =
        &["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared", "Description"];
    print_rows(
        &Columns { default: if args.verbose { verbose } else { CACHE.default }, ..CACHE },
        &rows,
        None,
        None,
    )?;
    let all: i64 = items(&usage["BuildCache"]).map(|b| number(&b["Size"])).sum();
    say(&format!("\nReclaimable: {}\nTotal: {}", total(cache_size(&usage)), total(all)))
}

/// Seconds since 1970 of a time as the API writes it.
fn seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// Bytes of the build cache that nothing else has.
fn cache_size(usage: &Value) -> i64 {
    items(&usage["BuildCache"]).filter(|b| b["Shared"] != true).map(|b| number(&b["Size"])).sum()
}

fn image(v: &Value, short: bool) -> Row {
    let id = text(&v["Id"]);
    let (created, bytes, shared) = (number(&v["Created"]), number(&v["Size"]), number(&v["SharedSize"]));
    let name = items(&v["RepoTags"]).map(text).find(|t| *t != "<none>:<none>");
    let (repository, tag) = name.and_then(|n| n.rsplit_once(':')).unwrap_or(("<none>", "<none>"));
    let row = json!({
        "Repository": repository, "Tag": tag, "Digest": "",
        "ID": if short { short_id(id) } else { id.to_owned() },
        "CreatedSince": ago(created), "CreatedAt": local(created), "Size": size(bytes),
        "VirtualSize": total(bytes), "Containers": number(&v["Containers"]).to_string(),
        "SharedSize": if shared == -1 { "N/A".to_owned() } else { total(shared) },
        "UniqueSize": if shared == -1 { "N/A".to_owned() } else { total(bytes - shared) },
    });
    Row::new(row, &Value::Null)
}

fn container(v: &Value, short: bool) -> Row {
    // Not with what its image takes.
    let mut own = v.clone();
    own["SizeRootFs"] = 0.into();
    ps_row(&own, !short)
}

fn volume(v: &Value) -> Row {
    let (links, bytes) = (&v["UsageData"]["RefCount"], &v["UsageData"]["Size"]);
    let row = json!({
        "Driver": v["Driver"], "Name": v["Name"], "Scope": v["Scope"], "Mountpoint": v["Mountpoint"],
        "Labels": labels(&v["Labels"]), "Links": number(links).to_string(), "Size": total(number(bytes)),
        "Group": "N/A", "Availability": "N/A", "Status": "N/A",
    });
    Row::new(row, &v["Labels"])
}

fn cache(v: &Value) -> Row {
    let since = |v: &Value| v.as_str().and_then(seconds).map(ago).unwrap_or_default();
    let row = json!({
        "ID": short_id(text(&v["ID"])), "CacheType": v["Type"], "Size": total(number(&v["Size"])),
        "CreatedSince": since(&v["CreatedAt"]), "LastUsedSince": since(&v["LastUsedAt"]), "UsageCount": number(&v["UsageCount"]).to_string(),
        "Shared": (v["Shared"] == true).to_string(), "Description": v["Description"],
    });
    Row::new(row, &Value::Null)
}

fn verbose_tables(usage: &Value) -> Result<()> {
    let columns = |of: Columns, default| Columns { default, ..of };
    let all = |key: &str, f: &dyn Fn(&Value) -> Row| items(&usage[key]).map(f).collect::<Vec<_>>();
    say("Images space usage:\n")?;
    let default =
        &["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"];
    print_rows(&columns(IMAGES, default), &all("Images", &|v| image(v, true)), None, None)?;
    say("\nContainers space usage:\n")?;
    let default = &["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"];
    print_rows(&columns(PS, default), &all("Containers", &|v| container(v, true)), None, None)?;
    say("\nLocal Volumes space usage:\n")?;
    print_rows(&columns(VOLUMES, &["Name", "Links", "Size"]), &all("Volumes", &volume), None, None)?;
    say(&format!("\nBuild cache usage: {}\n", total(cache_size(usage))))?;
    print_rows(&CACHE, &all("BuildCache", &cache), None, None)
}

/// Everything as one object, for a template.
fn verbose(usage: &Value, format: &str) -> Result<()> {
    let all = |key: &str, f: &dyn Fn(&Value) -> Row| {
        Value::from(items(&usage[key]).map(|v| f(v).into_value()).collect::<Vec<_>>())
    };
    let object = json!({
        "Images": all("Images", &|v| image(v, false)), "Containers": all("Containers", &|v| container(v, false)),
        "Volumes": all("Volumes", &volume), "BuildCache": all("BuildCache", &cache),
    });
    let each = |kind: &str, list: &str, raw: &str| {
        format!("{{{{range .{list}}}}}type: {kind}\n{raw}\n{{{{end -}}}}\n")
    };
    let raw = || {
        [
            each("Image", "Images", super::lists::IMAGES_DIGESTS.raw.0),
            each("Container", "Containers", PS_RAW_SIZE),
            each("Volume", "Volumes", VOLUMES.raw.0),
        ]
        .concat()
    };
    let template = match format {
        // What is JSON within JSON has its angle brackets escaped.
        "json" | "{{json .}}" => {
            let text = crate::template::escaped_json(&object);
            return crate::streams::show(longshore_api::stream::Stream::Stdout, text.as_bytes());
        }
        "raw" => raw(),
        text => crate::template::unescape(text.strip_prefix("table").unwrap_or(text).trim_start()),
    };
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("template parsing error: {e}"));
    let text = Object::parse(&template).map_err(|e| failed(&e))?;
    let text = text.render_typed(&object, &object, "", "*formatter.diskUsageContext");
    let text = text.map_err(|e| Failure::new(e.to_string()))?;
    crate::streams::show(longshore_api::stream::Stream::Stdout, text.as_bytes())
}

const LEDGER: Columns = Columns {
    kind: "ledger",
    errors: ERRORS,
    raw: ("", ""),
    all: &[
        ("Kind", "KIND"),
        ("Objects", "OBJECTS"),
        ("Size", "SIZE"),
        ("Name", "NAME"),
        ("Inodes", "INODES"),
        ("Images", "IMAGES"),
        ("Of", "OF"),
    ],
    default: &["Kind", "Objects", "Size"],
};

fn heading(ours: &Value) -> Result<()> {
    say(&format!("\nOn the disk, below {}:\n", text(&ours["DataRoot"])))
}

/// What each kind of thing takes, and all of them.
fn ledger_sums(ours: &Value) -> Result<()> {
    heading(ours)?;
    let mut rows = Vec::new();
    let mut put = |kind: &str, objects: String, bytes: i64| {
        let row = json!({"Kind": kind, "Objects": objects, "Size": total(bytes)});
        rows.push(Row::new(row, &Value::Null));
    };
    for (kind, called) in KINDS {
        let of_kind = || items(&ours["Ledger"]).filter(|r| r["Kind"] == kind);
        put(called, of_kind().count().to_string(), of_kind().map(|r| number(&r["Bytes"])).sum());
    }
    put("Total", String::new(), number(&ours["Total"]));
    print_rows(&LEDGER, &rows, None, None)
}

/// Every object.
fn ledger(ours: &Value) -> Result<()> {
    heading(ours)?;
    let mut rows = Vec::new();
    for (kind, _) in KINDS {
        for r in items(&ours["Ledger"]).filter(|r| r["Kind"] == kind) {
            let name = text(&r["Name"]);
            let long =
                name.starts_with("sha256:") || (name.len() == 64 && !name.contains('/') && kind != "volume");
            let row = json!({
                "Kind": kind, "Name": if long { short_id(name) } else { name.to_owned() },
                "Size": total(number(&r["Bytes"])), "Inodes": number(&r["Inodes"]).to_string(),
                "Images": r["Shared"].as_i64().map(|n| n.to_string()).unwrap_or_default(), "Of": text(&r["Of"]),
            });
            rows.push(Row::new(row, &Value::Null));
        }
    }
    let all = json!({
        "Kind": "total", "Name": "", "Size": total(number(&ours["Total"])), "Images": "", "Of": "",
        "Inodes": items(&ours["Ledger"]).map(|r| number(&r["Inodes"])).sum::<i64>().to_string(),
    });
    rows.push(Row::new(all, &Value::Null));
    let columns = Columns { default: &["Kind", "Name", "Size", "Inodes", "Images", "Of"], ..LEDGER };
    print_rows(&columns, &rows, None, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_had_back_is_counted_as_docker_does() {
        let usage = json!({
            "LayersSize": 1000,
            "Images": [
                {"Size": 600, "SharedSize": 100, "Containers": 2}, {"Size": 500, "SharedSize": 100, "Containers": 0},
            ],
            "Containers": [{"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}],
            "Volumes": [{"UsageData": {"RefCount": 0, "Size": 5}}, {"UsageData": {"RefCount": 1, "Size": 15}}],
            "BuildCache": [],
        });
        let shown: Vec<String> = summary(&usage)
            .into_iter()
            .map(|r| {
                let v = r.into_value();
                let of = |k: &str| text(&v[k]).to_owned();
                [of("Type"), of("TotalCount"), of("Active"), of("Size"), of("Reclaimable")].join("|")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "Images|2|1|1kB|500B (50%)",
                "Containers|2|1|40B|30B (75%)",
                "Local Volumes|2|1|20B|5B (25%)",
                "Build Cache|0|0|0B|0B"
            ]
        );
    }
}
