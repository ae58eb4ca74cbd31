//! `--mount type=bind,source=/a,target=/b,readonly`.

use serde_json::{Map, Value, json};

use super::units::bytes;
use crate::error::{Failure, Result};

/// One mount of a create request.
pub(crate) fn parse(text: &str) -> Result<Value> {
    let mut mount = Map::new();
    mount.insert("Type".into(), json!("volume"));
    let (mut bind, mut volume, mut tmpfs) = (Map::new(), Map::new(), Map::new());
    for field in fields(text)? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(k, v)| (k, Some(v)));
        let needed =
            || value.ok_or_else(|| Failure::new(format!("invalid field '{field}' must be a key=value pair")));
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(v) => Err(Failure::new(format!("invalid value for {key}: {v}"))),
        };
        match key.to_ascii_lowercase().as_str() {
            "type" => drop(mount.insert("Type".into(), json!(needed()?.to_ascii_lowercase()))),
            "source" | "src" => drop(mount.insert("Source".into(), json!(source(needed()?)))),
            "target" | "dst" | "destination" => drop(mount.insert("Target".into(), json!(needed()?))),
            "readonly" | "ro" => drop(mount.insert("ReadOnly".into(), json!(flag()?))),
            "consistency" => drop(mount.insert("Consistency".into(), json!(needed()?))),
            "bind-propagation" => drop(bind.insert("Propagation".into(), json!(needed()?))),
            "bind-recursive" => match needed()? {
                "enabled" => {}
                "disabled" => drop(bind.insert("NonRecursive".into(), json!(true))),
                "writable" => drop(bind.insert("ReadOnlyNonRecursive".into(), json!(true))),
                "readonly" => drop(bind.insert("ReadOnlyForceRecursive".into(), json!(true))),
                other => return Err(Failure::new(format!("invalid value for bind-recursive: {other}"))),
            },
            "volume-subpath" => drop(volume.insert("Subpath".into(), json!(needed()?))),
            "volume-nocopy" => drop(volume.insert("NoCopy".into(), json!(flag()?))),
            "volume-driver" => {
                let name = needed()?;
                volume.entry("DriverConfig").or_insert_with(|| json!({}))["Name"] = json!(name);
            }
            "volume-opt" | "volume-label" => {
                let (k, v) = needed()?.split_once('=').unwrap_or((needed()?, ""));
                if key.ends_with("label") {
                    volume.entry("Labels").or_insert_with(|| json!({}))[k] = json!(v);
                } else {
                    let config = volume.entry("DriverConfig").or_insert_with(|| json!({}));
                    if config["Options"].is_null() {
                        config["Options"] = json!({});
                    }
                    config["Options"][k] = json!(v);
                }
            }
            "tmpfs-size" => drop(tmpfs.insert("SizeBytes".into(), json!(bytes(needed()?)?))),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(needed()?, 8).map_err(|_| {
                    Failure::new(format!("invalid value for {key}: {}", value.unwrap_or_default()))
                })?;
                tmpfs.insert("Mode".into(), json!(mode));
            }
            _ => return Err(Failure::new(format!("unknown option '{key}' in '{field}'"))),
        }
    }
    let kind = mount["Type"].as_str().unwrap_or_default().to_owned();
    for (name, options, of) in
        [("BindOptions", bind, "bind"), ("VolumeOptions", volume, "volume"), ("TmpfsOptions", tmpfs, "tmpfs")]
    {
        if !options.is_empty() {
            if kind != of {
                return Err(Failure::new(format!("cannot mix '{of}-*' options with mount type '{kind}'")));
            }
            mount.insert(name.into(), Value::Object(options));
        }
    }
    if mount.get("Target").is_none() {
        return Err(Failure::new("target is required"));
    }
    Ok(Value::Object(mount))
}

/// A relative bind source is one of this machine's paths.
fn source(text: &str) -> String {
    if text == "." || text.starts_with("./") || text.starts_with("../") {
        return std::path::absolute(text).map_or_else(|_| text.to_owned(), |p| p.display().to_string());
    }
    text.to_owned()
}

/// Comma-separated fields; a quoted one may have commas (RFC 4180).
fn fields(text: &str) -> Result<Vec<String>> {
    let (mut out, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(Failure::new(format!("a quote in '{text}' is not closed")));
    }
    out.push(field);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_parsed() {
        assert_eq!(
            parse("type=bind,src=/a,dst=/b,ro").unwrap(),
            json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true})
        );
        assert_eq!(parse("target=/x").unwrap(), json!({"Type": "volume", "Target": "/x"}));
        let t = parse("type=tmpfs,\"target=/a,b\",tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        assert_eq!(
            t,
            json!({"Type": "tmpfs", "Target": "/a,b", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}})
        );
        for bad in
            ["", "type=bind", "x=y,target=/a", "type=tmpfs,target=/a,bind-propagation=shared", "\"target=/a"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
