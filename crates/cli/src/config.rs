//! The client's own settings: `config.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// What the file says; everything is optional.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config(Value);

impl Config {
    /// Reads the file of `--config`, else of `DOCKER_CONFIG`, else of the home directory. A file that cannot be read is
    /// warned of, as docker does.
    pub(crate) fn load(flag: Option<&str>) -> Self {
        let file = directory(flag).join("config.json");
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Self::default(),
            Err(e) => {
                eprintln!(
                    "WARNING: Error loading config file: open {}: {}",
                    file.display(),
                    crate::error::words(&e)
                );
                return Self::default();
            }
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Self(value),
            Err(e) => {
                eprintln!("WARNING: Error parsing config file ({}): {e}", file.display());
                Self::default()
            }
        }
    }

    /// A text of the file; empty when it has none.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// Texts of a list of the file.
    pub(crate) fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0[key].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// The format that counts: the option's, else the file's.
    pub(crate) fn format<'a>(&'a self, given: Option<&'a str>, quiet: bool, key: &str) -> Option<&'a str> {
        match given.filter(|f| !f.is_empty()) {
            None if !quiet && !self.text(key).is_empty() => Some(self.text(key)),
            other => other,
        }
    }

    /// Variables of the proxies that containers on a daemon are to use, in both spellings that programs know.
    pub(crate) fn proxies(&self, host: &str) -> Vec<(String, String)> {
        let all = &self.0["proxies"];
        let proxies = if all[host].is_object() { &all[host] } else { &all["default"] };
        let mut out = Vec::new();
        for (key, name) in [
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ] {
            if let Some(value) = proxies[key].as_str().filter(|v| !v.is_empty()) {
                out.push((name.to_owned(), value.to_owned()));
                out.push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        out
    }

    /// The keys that leave a container: the option's, else the file's.
    pub(crate) fn detach_keys<'a>(&'a self, given: Option<&'a str>) -> &'a str {
        given.unwrap_or_else(|| self.text("detachKeys"))
    }
}

fn directory(flag: Option<&str>) -> PathBuf {
    if let Some(dir) = flag {
        return dir.into();
    }
    match std::env::var_os("DOCKER_CONFIG").filter(|d| !d.is_empty()) {
        Some(dir) => dir.into(),
        None => Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_option_comes_before_the_file() {
        let config = Config(json!({"psFormat": "{{.ID}}", "detachKeys": "ctrl-a"}));
        assert_eq!(config.format(None, false, "psFormat"), Some("{{.ID}}"));
        assert_eq!(config.format(Some("json"), false, "psFormat"), Some("json"));
        assert_eq!(config.format(None, true, "psFormat"), None);
        assert_eq!(config.format(None, false, "imagesFormat"), None);
        let config = Config(json!({"detachKeys": "ctrl-a", "proxies": {
            "default": {"httpProxy": "a"}, "unix:///x": {"noProxy": "b"},
        }}));
        let names = |host: &str| {
            config.proxies(host).into_iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>()
        };
        assert_eq!(names("unix:///y"), ["HTTP_PROXY=a", "http_proxy=a"]);
        assert_eq!(names("unix:///x"), ["NO_PROXY=b", "no_proxy=b"]);
        assert_eq!((config.detach_keys(None), config.detach_keys(Some("x"))), ("ctrl-a", "x"));
    }
}
