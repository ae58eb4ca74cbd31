//! The client's own settings: `config.json`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::credentials::helper::{self, Helper};
use crate::credentials::{Credentials, file};

/// What the file says; everything is optional.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    value: Value,
    path: PathBuf,
}

impl Config {
    /// Reads the file of `--config`, else of `DOCKER_CONFIG`, else of the home directory. A file that cannot be read is
    /// warned of, as docker does.
    pub(crate) fn load(flag: Option<&str>) -> Self {
        let path = directory(flag).join("config.json");
        let value = match read(&path) {
            Ok(value) => value,
            Err(e) => {
                eprintln!("WARNING: Error {e}");
                return Self { value: Value::Null, path };
            }
        };
        if let Some(e) = file::first_error(&value) {
            eprintln!("WARNING: Error {}", unparsed(&path, &e));
        }
        Self { value, path }
    }

    /// What is known of the user at a registry, by its key ([`crate::credentials::key`]), and why the program that
    /// keeps it did not answer.
    pub(crate) fn credentials(&self, server: &str) -> (Credentials, Option<String>) {
        self.credentials_beside(server, server)
    }

    /// The same for what is kept beside a registry's credentials, by the same program.
    pub(crate) fn credentials_beside(&self, keeper: &str, name: &str) -> (Credentials, Option<String>) {
        let own = file::get(&self.value, name).unwrap_or_default();
        let Some(helper) = self.helper(keeper) else { return (own, None) };
        match helper.get(name) {
            // An address of old stands in the file, whoever keeps the rest.
            Ok(kept) => (Credentials { email: own.email, ..kept.unwrap_or_default() }, None),
            Err(e) => (own, Some(e)),
        }
    }

    /// What is known of users at all registries that have a name here, and why programs that keep some did not answer.
    pub(crate) fn all_credentials(&self) -> (Vec<(String, Credentials)>, Vec<String>) {
        let mut names = self.registries();
        names.extend(file::helped(&self.value));
        names.sort_unstable();
        names.dedup();
        let (mut all, mut problems) = (Vec::new(), Vec::new());
        for name in names {
            let (user, problem) = self.credentials(&name);
            problems.extend(problem);
            if user != Credentials::default() {
                all.push((name, user));
            }
        }
        (all, problems)
    }

    /// Keeps credentials where the settings say. Those that go into the file in plain text are warned of.
    pub(crate) fn keep(&self, credentials: &Credentials) -> Result<(), String> {
        let Some(helper) = self.helper(&credentials.server) else {
            let changed = file::update(&self.path, |config| file::put(config, credentials))?;
            if changed && !credentials.password.is_empty() {
                eprintln!(
                    "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
                     Configure a credential helper to remove this warning. See\n\
                     https://docs.docker.com/go/credential-store/\n",
                    self.path.display()
                );
            }
            return Ok(());
        };
        helper.store(credentials)?;
        let remembered = Credentials {
            server: credentials.server.clone(),
            email: credentials.email.clone(),
            ..Credentials::default()
        };
        let found = self.found();
        let edit = |config: &mut Value| {
            let named = found.is_some_and(|suffix| file::set_store(config, suffix));
            file::put(config, &remembered) || named
        };
        file::update(&self.path, edit).map(drop)
    }

    /// Forgets what is under a name; that there is nothing is no error.
    pub(crate) fn forget(&self, server: &str) -> Result<(), String> {
        self.forget_beside(server, server)
    }

    /// The same for what is kept beside a registry's credentials.
    pub(crate) fn forget_beside(&self, keeper: &str, name: &str) -> Result<(), String> {
        if let Some(helper) = self.helper(keeper) {
            helper.erase(name)?;
        }
        file::update(&self.path, |config| file::remove(config, name)).map(drop)
    }

    /// The names of the registries in the file.
    pub(crate) fn registries(&self) -> Vec<String> {
        file::servers(&self.value)
    }

    fn helper(&self, server: &str) -> Option<Helper> {
        file::helper(&self.value, server).or_else(|| self.found()).map(Helper::new)
    }

    /// The program that is used where nothing is configured.
    fn found(&self) -> Option<&'static str> {
        if file::contains_credentials(&self.value) { None } else { helper::default_suffix() }
    }

    /// A text of the file; empty when it has none.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.value[key].as_str().unwrap_or_default()
    }

    /// Texts of a list of the file.
    pub(crate) fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        self.value[key].as_array().into_iter().flatten().filter_map(Value::as_str)
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
        let all = &self.value["proxies"];
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

fn read(path: &Path) -> Result<Value, String> {
    let text = file::read(path).map_err(|e| format!("loading config file: {e}"))?;
    file::parse(&text.unwrap_or_default()).map_err(|e| unparsed(path, &e))
}

fn unparsed(path: &Path, e: &str) -> String {
    format!("parsing config file ({}): {e}", path.display())
}

fn directory(flag: Option<&str>) -> PathBuf {
    if let Some(dir) = flag {
        return dir.into();
    }
    match std::env::var_os("DOCKER_CONFIG").filter(|d| !d.is_empty()) {
        Some(dir) => dir.into(),
        None => home().join(".docker"),
    }
}

/// The user's home, also where the environment does not tell it.
fn home() -> PathBuf {
    if let Some(home) = std::env::var_os("HOME").filter(|h| !h.is_empty()) {
        return home.into();
    }
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let own =
        users.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|u| u.get(2) == Some(&uid.as_str()));
    own.and_then(|u| u.get(5).map(PathBuf::from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> Config {
        Config { value, path: PathBuf::new() }
    }

    #[test]
    fn an_option_comes_before_the_file() {
        let config = of(json!({"psFormat": "{{.ID}}", "detachKeys": "ctrl-a"}));
        assert_eq!(config.format(None, false, "psFormat"), Some("{{.ID}}"));
        assert_eq!(config.format(Some("json"), false, "psFormat"), Some("json"));
        assert_eq!(config.format(None, true, "psFormat"), None);
        assert_eq!(config.format(None, false, "imagesFormat"), None);
        let config = of(json!({"detachKeys": "ctrl-a", "proxies": {
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
