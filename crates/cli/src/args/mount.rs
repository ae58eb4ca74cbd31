//! `--mount type=bind,source=/a,target=/b,readonly`.

use serde_json::{Map, Value, json};

use super::csv;
use super::units::bytes;
use crate::flags::values::truth;

type Result<T> = std::result::Result<T, String>;

/// A mount while its fields are read.
#[derive(Default)]
struct Mount {
    top: Map<String, Value>,
    bind: Map<String, Value>,
    volume: Map<String, Value>,
    image: Map<String, Value>,
    tmpfs: Map<String, Value>,
}

/// One mount of a create request.
pub(super) fn parse(text: &str) -> Result<Value> {
    let mut mount = Mount::default();
    mount.top.insert("Type".into(), json!("volume"));
    for field in csv::fields(text)? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(k, v)| (k, Some(v)));
        let key = key.to_ascii_lowercase();
        match (key.as_str(), value) {
            ("readonly" | "ro", None) => put(&mut mount.top, "ReadOnly", true),
            ("volume-nocopy", None) => put(&mut mount.volume, "NoCopy", true),
            ("bind-nonrecursive", None) => put(&mut mount.bind, "NonRecursive", true),
            (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
            (key, Some(value)) => mount.set(key, value, &field)?,
        }
    }
    mount.finish()
}

fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    map.insert(key.to_owned(), value.into());
}

impl Mount {
    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<()> {
        let bad = || format!("invalid value for {key}: {value}");
        match key {
            "type" => put(&mut self.top, "Type", value.to_ascii_lowercase()),
            "source" | "src" => put(&mut self.top, "Source", super::body::absolute(value)),
            "target" | "dst" | "destination" => put(&mut self.top, "Target", value),
            "readonly" | "ro" => put(&mut self.top, "ReadOnly", truth(value).ok_or_else(bad)?),
            "consistency" => put(&mut self.top, "Consistency", value.to_ascii_lowercase()),
            "bind-propagation" => put(&mut self.bind, "Propagation", value.to_ascii_lowercase()),
            "bind-nonrecursive" => put(&mut self.bind, "NonRecursive", truth(value).ok_or_else(bad)?),
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => put(&mut self.bind, "NonRecursive", true),
                "writable" => put(&mut self.bind, "ReadOnlyNonRecursive", true),
                "readonly" => put(&mut self.bind, "ReadOnlyForceRecursive", true),
                _ => {
                    return Err(format!(
                        "{} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
                        bad()
                    ));
                }
            },
            "volume-subpath" => put(&mut self.volume, "Subpath", value),
            "volume-nocopy" => put(&mut self.volume, "NoCopy", truth(value).ok_or_else(bad)?),
            "volume-driver" => self.driver()["Name"] = json!(value),
            "volume-opt" => {
                let (k, v) = value.split_once('=').unwrap_or((value, ""));
                self.driver()["Options"][k] = json!(v);
            }
            "volume-label" => {
                let (k, v) = value.split_once('=').unwrap_or((value, ""));
                self.volume.entry("Labels").or_insert_with(|| json!({}))[k] = json!(v);
            }
            "image-subpath" => put(&mut self.image, "Subpath", value),
            "tmpfs-size" => put(&mut self.tmpfs, "SizeBytes", bytes(value).map_err(|_| bad())?),
            "tmpfs-mode" => {
                put(&mut self.tmpfs, "Mode", u32::from_str_radix(value, 8).map_err(|_| bad())?);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn driver(&mut self) -> &mut Value {
        self.volume.entry("DriverConfig").or_insert_with(|| json!({"Options": {}}))
    }

    fn finish(mut self) -> Result<Value> {
        let kind = self.top["Type"].as_str().unwrap_or_default().to_owned();
        if kind.is_empty() {
            return Err("type is required".into());
        }
        if self.top.get("Target").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err("target is required".into());
        }
        let on = |map: &Map<String, Value>, key: &str| map.get(key) == Some(&json!(true));
        let read_only = on(&self.top, "ReadOnly");
        for (option, key) in [("writable", "ReadOnlyNonRecursive"), ("readonly", "ReadOnlyForceRecursive")] {
            if on(&self.bind, key) && !read_only {
                return Err(format!(
                    "option 'bind-recursive={option}' requires 'readonly' to be specified in conjunction"
                ));
            }
        }
        if on(&self.bind, "ReadOnlyForceRecursive")
            && self.bind.get("Propagation") != Some(&json!("rprivate"))
        {
            return Err("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction".into());
        }
        for (name, options, of) in [
            ("VolumeOptions", self.volume, "volume"),
            ("BindOptions", self.bind, "bind"),
            ("ImageOptions", self.image, "image"),
            ("TmpfsOptions", self.tmpfs, "tmpfs"),
        ] {
            if options.is_empty() {
                continue;
            }
            if kind != of {
                return Err(format!("cannot mix '{of}-*' options with mount type '{kind}'"));
            }
            self.top.insert(name.into(), Value::Object(options));
        }
        Ok(Value::Object(self.top))
    }
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
