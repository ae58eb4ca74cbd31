//! `--ulimit nofile=1024:2048`.

use serde_json::{Value, json};

const NAMES: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// One limit of a create request.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let decimal =
        |t: &str| t.parse::<i64>().map_err(|_| format!("strconv.ParseInt: parsing {t:?}: invalid syntax"));
    let (soft, hard) = match limits.split(':').collect::<Vec<_>>().as_slice() {
        [both] => (decimal(both)?, decimal(both)?),
        [soft, hard] => (decimal(soft)?, decimal(hard)?),
        _ => {
            return Err(format!(
                "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
            ));
        }
    };
    if hard != -1 && soft == -1 {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
        ));
    }
    if hard != -1 && soft > hard {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(json!({"Name": name, "Soft": soft, "Hard": hard}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_refused_as_docker_does() {
        assert_eq!(parse("nofile=1:2").unwrap(), json!({"Name": "nofile", "Soft": 1, "Hard": 2}));
        assert_eq!(parse("core=0").unwrap(), json!({"Name": "core", "Soft": 0, "Hard": 0}));
        assert_eq!(parse("core=-1").unwrap(), json!({"Name": "core", "Soft": -1, "Hard": -1}));
        for (text, want) in [
            ("x", "invalid ulimit argument: x"),
            ("foo=1", "invalid ulimit type: foo"),
            ("nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
            ("nofile=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(parse(text).unwrap_err(), want);
        }
    }
}
