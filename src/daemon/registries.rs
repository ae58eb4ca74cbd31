//! How registries are reached: `registry-mirrors`, `insecure-registries`, `proxies` and the limits, as dockerd has them,
//! and mirrors of other registries.

use anyhow::{Result, bail};
use clap::Args;
use longshore_engine::{InsecureRule, Mirror, ProxyConfig, RegistryConfig};
use serde::Deserialize;

use super::settings::{File, both};

/// Docker's own registry, whose mirrors `registry-mirrors` names.
const HUB: &str = "docker.io";

/// The flags.
#[derive(Debug, Default, Args)]
pub(super) struct RegistryFlags {
    /// Mirror of Docker's registry to ask first, https://host[:port]; may be given several times
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// Registry that may have a bad certificate or speak plain HTTP: host[:port] or a network; may be given several times
    #[arg(long, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
    /// Layers that are downloaded at once (default: 3)
    #[arg(long, value_name = "N")]
    max_concurrent_downloads: Option<usize>,
    /// Layers that are uploaded at once (default: 5)
    #[arg(long, value_name = "N")]
    max_concurrent_uploads: Option<usize>,
    /// Proxy for registries that speak plain HTTP (default: from HTTP_PROXY)
    #[arg(long, value_name = "URL")]
    http_proxy: Option<String>,
    /// Proxy for all other registries (default: from HTTPS_PROXY)
    #[arg(long, value_name = "URL")]
    https_proxy: Option<String>,
    /// Registries that are reached without a proxy, separated by commas (default: from NO_PROXY)
    #[arg(long, value_name = "HOSTS")]
    no_proxy: Option<String>,
}

/// `proxies` of `daemon.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Proxies {
    http_proxy: Option<String>,
    https_proxy: Option<String>,
    no_proxy: Option<String>,
}

/// The resolved settings.
#[derive(Clone, Debug, Default)]
pub(super) struct Registries {
    pub(super) config: RegistryConfig,
    pub(super) downloads: Option<usize>,
    pub(super) uploads: Option<usize>,
}

pub(super) fn resolve(flags: RegistryFlags, keys: &mut File) -> Result<Registries> {
    let hub = lists("registry-mirror", flags.registry_mirror, std::mem::take(&mut keys.registry_mirrors))?;
    let insecure =
        lists("insecure-registry", flags.insecure_registry, std::mem::take(&mut keys.insecure_registries))?;
    let mut config = RegistryConfig::default();
    let others = std::mem::take(&mut keys.mirrors)
        .into_iter()
        .flat_map(|(host, urls)| urls.into_iter().map(move |u| (host.clone(), u)));
    for (host, url) in hub.into_iter().map(|url| (HUB.to_owned(), url)).chain(others) {
        config.mirrors.push(Mirror::new(&host, &url)?);
    }
    for rule in insecure {
        config.insecure.push(rule.parse::<InsecureRule>()?);
    }
    for (host, servers) in std::mem::take(&mut keys.token_servers) {
        config.token_servers.extend(servers.into_iter().map(|server| (host.clone(), server)));
    }
    if let Some(dirs) = keys.certs_dirs.take() {
        config.certs_dirs = dirs;
    }
    let proxies = std::mem::take(&mut keys.proxies);
    let ProxyConfig { http, https, no_proxy } = ProxyConfig::from_env();
    config.proxy = ProxyConfig {
        http: both("http-proxy", flags.http_proxy, proxies.http_proxy)?.or(http),
        https: both("https-proxy", flags.https_proxy, proxies.https_proxy)?.or(https),
        no_proxy: both("no-proxy", flags.no_proxy, proxies.no_proxy)?.unwrap_or(no_proxy),
    };
    Ok(Registries {
        config,
        downloads: count(
            "max-concurrent-downloads",
            flags.max_concurrent_downloads,
            keys.max_concurrent_downloads,
        )?,
        uploads: count("max-concurrent-uploads", flags.max_concurrent_uploads, keys.max_concurrent_uploads)?,
    })
}

/// Lists of the file and of the flags together, as dockerd has it.
fn lists(name: &str, flags: Vec<String>, keys: Vec<String>) -> Result<Vec<String>> {
    let all: Vec<String> = keys.into_iter().chain(flags).collect();
    if all.iter().any(|v| v.trim().is_empty()) {
        bail!("{name} is empty: name one or leave it out");
    }
    Ok(all)
}

fn count(name: &str, flag: Option<usize>, key: Option<usize>) -> Result<Option<usize>> {
    match both(name, flag, key)? {
        Some(0) => bail!("{name} is 0: at least 1 is needed"),
        n => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> File {
        serde_json::from_str(text).expect("keys")
    }

    #[test]
    fn keys_and_flags_add_up() {
        let file = r#"{"registry-mirrors": ["https://a.test"], "mirrors": {"quay.io": ["https://b.test/q"]},
            "insecure-registries": ["10.0.0.0/8"], "max-concurrent-uploads": 2, "proxies": {"https-proxy": "p.test:3128"}}"#;
        let flags = RegistryFlags {
            registry_mirror: vec!["http://c.test".into()],
            insecure_registry: vec!["r.test:5000".into()],
            ..Default::default()
        };
        let all = resolve(flags, &mut keys(file)).expect("valid");
        let mirrors: Vec<_> =
            all.config.mirrors.iter().map(|m| (m.registry.as_str(), m.url.as_str())).collect();
        assert_eq!(
            mirrors,
            [(HUB, "https://a.test"), (HUB, "http://c.test"), ("quay.io", "https://b.test/q")]
        );
        assert_eq!((all.config.insecure.len(), all.uploads, all.downloads), (2, Some(2), None));
        assert_eq!(all.config.proxy.https.as_deref(), Some("p.test:3128"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            (r#"{"registry-mirrors": ["a.test"]}"#, "a.test"),
            (r#"{"insecure-registries": ["http://a.test"]}"#, "://"),
            (r#"{"insecure-registries": [""]}"#, "insecure-registry is empty"),
            (r#"{"max-concurrent-downloads": 0}"#, "max-concurrent-downloads is 0"),
        ] {
            let e = resolve(RegistryFlags::default(), &mut keys(text)).expect_err("wrong");
            assert!(e.to_string().contains(word), "{text}: {e}");
        }
        let flags = RegistryFlags { no_proxy: Some("x".into()), ..Default::default() };
        let e = resolve(flags, &mut keys(r#"{"proxies": {"no-proxy": "y"}}"#)).expect_err("twice");
        assert!(e.to_string().contains("both as a flag"), "{e}");
    }
}
