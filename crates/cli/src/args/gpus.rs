//! `--gpus all`, `--gpus '"device=0,1",capabilities=compute'`.

use serde_json::{Map, Value, json};

use super::csv;

/// One device request. The daemon says whether it can meet it.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut request = Map::new();
    let mut capabilities = vec!["gpu".to_owned()];
    for field in csv::fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or(("count", &field));
        match key {
            "driver" => drop(request.insert("Driver".into(), json!(value))),
            "count" => drop(request.insert("Count".into(), json!(count(value)?))),
            "device" => drop(request.insert("DeviceIDs".into(), value.split(',').collect())),
            "capabilities" => capabilities.extend(value.split(',').map(str::to_owned)),
            "options" => {
                let options: Map<String, Value> = csv::fields(value)?
                    .iter()
                    .map(|o| o.split_once('=').unwrap_or((o, "")))
                    .map(|(k, v)| (k.to_owned(), json!(v)))
                    .collect();
                request.insert("Options".into(), Value::Object(options));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if request.get("Count").is_none() && request.get("DeviceIDs").is_none() {
        request.insert("Count".into(), json!(1));
    }
    request.insert("Capabilities".into(), json!([capabilities]));
    Ok(Value::Object(request))
}

fn count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse().map_err(|_| {
        format!("invalid count ({text}): value must be either \"all\" or an integer: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_docker_reads_them() {
        assert_eq!(parse("all").unwrap(), json!({"Count": -1, "Capabilities": [["gpu"]]}));
        assert_eq!(
            parse("\"device=0,1\",capabilities=utility").unwrap(),
            json!({"DeviceIDs": ["0", "1"], "Capabilities": [["gpu", "utility"]]})
        );
        assert_eq!(parse("x=y").unwrap_err(), "unexpected key 'x' in 'x=y'");
    }
}
