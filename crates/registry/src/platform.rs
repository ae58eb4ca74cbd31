//! Which manifest of an index is meant: containerd's rules, which are Docker's.

use longshore_oci::Platform;
use longshore_oci::image::{Descriptor, Index};

use crate::{Error, Result};

/// What marks a manifest that only says something about another (BuildKit's provenance).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The manifest of `index` for the platform that is `wanted`, or else for `host`.
///
/// The nearest wins: the same variant, then older ones that the processor runs too (`arm/v7` runs `arm/v6`,
/// `amd64` runs `386`, `arm64` runs `arm`). Attestations are no candidates. Without a wish, an index that holds
/// nothing but one manifest of an unnamed platform gives that.
///
/// # Errors
/// [`Error::NotFound`] in Docker's words.
pub fn choose(index: &Index, wanted: Option<&Platform>, host: &Platform) -> Result<Descriptor> {
    let target = wanted.unwrap_or(host);
    let candidates: Vec<&Descriptor> = index.manifests.iter().filter(|d| !is_attestation(d)).collect();
    for runs in runnable(&normal(target)) {
        let found = candidates.iter().find(|d| d.platform.as_ref().is_some_and(|p| normal(p) == runs));
        if let Some(d) = found {
            return Ok((*d).clone());
        }
    }
    match candidates.as_slice() {
        [only] if only.platform.is_none() && wanted.is_none() => Ok((*only).clone()),
        _ => Err(Error::NotFound(format!("no matching manifest for {target} in the manifest list entries"))),
    }
}

fn is_attestation(d: &Descriptor) -> bool {
    d.annotations.contains_key(REFERENCE_TYPE)
        || d.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
}

/// A platform in one spelling: os, architecture, variant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Normal(String, String, String);

/// The names that others use, in Go's; the first variant of each processor is no variant.
fn normal(p: &Platform) -> Normal {
    let os = match p.os.to_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    };
    let variant = p.variant.as_deref().unwrap_or_default().to_lowercase();
    let (arch, variant) = match (p.architecture.to_lowercase().as_str(), variant.as_str()) {
        ("i386", _) => ("386".to_owned(), String::new()),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64".into(), String::new()),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64".into(), v.into()),
        ("aarch64" | "arm64", "8" | "v8" | "8.0" | "v8.0") => ("arm64".into(), String::new()),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64".into(), "v9".into()),
        ("aarch64" | "arm64", v) => ("arm64".into(), v.into()),
        ("armhf", _) | ("arm", "" | "7") => ("arm".into(), "v7".into()),
        ("armel", _) => ("arm".into(), "v6".into()),
        ("arm", v @ ("5" | "6" | "8")) => ("arm".into(), format!("v{v}")),
        (arch, v) => (arch.into(), v.into()),
    };
    Normal(os, arch, variant)
}

/// What a machine of this platform runs, the best first.
fn runnable(p: &Normal) -> Vec<Normal> {
    let Normal(os, arch, variant) = p;
    let with = |arch: &str, variant: String| Normal(os.clone(), arch.to_owned(), variant);
    let mut out = vec![p.clone()];
    let number = |v: &str| v.trim_start_matches('v').parse::<u8>().ok();
    let arm = |newest: u8| (5..=newest).rev().map(move |n| with("arm", format!("v{n}")));
    match arch.as_str() {
        "amd64" => {
            let newest = number(variant).unwrap_or(1);
            out.extend((2..newest).rev().map(|n| with("amd64", format!("v{n}"))));
            if newest > 1 {
                out.push(with("amd64", String::new()));
            }
            out.push(with("386", String::new()));
        }
        "arm" => out.extend(arm(number(variant).unwrap_or(7).saturating_sub(1).min(8))),
        "arm64" => {
            out.extend(older_arm64(variant).into_iter().map(|v| with("arm64", v)));
            out.extend(arm(8));
        }
        _ => {}
    }
    out
}

/// The variants of arm64 that one of `variant` runs too: v9.n is v8.(n+5) and more.
fn older_arm64(variant: &str) -> Vec<String> {
    let text = variant.trim_start_matches('v');
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let (Ok(major), Ok(minor)) = (major.parse::<u8>(), minor.parse::<u8>()) else { return Vec::new() };
    let minor = minor.min(9);
    let name = |major: u8, minor: u8| match (major, minor) {
        (8, 0) => String::new(),
        (major, 0) => format!("v{major}"),
        (major, minor) => format!("v{major}.{minor}"),
    };
    let mut out = Vec::new();
    if major == 9 {
        out.extend((0..minor).rev().map(|m| name(9, m)));
        out.extend((0..=(minor + 5).min(9)).rev().map(|m| name(8, m)));
    } else if major == 8 {
        out.extend((0..minor).rev().map(|m| name(8, m)));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use longshore_oci::Digest;

    use super::*;

    fn entry(platform: Option<&str>, n: u64) -> Descriptor {
        Descriptor {
            media_type: longshore_oci::image::media::OCI_MANIFEST.into(),
            digest: Digest::of(&n.to_le_bytes()),
            size: n,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: platform.map(|p| {
                let mut parts = p.split('/').map(str::to_owned);
                Platform {
                    os: parts.next().unwrap(),
                    architecture: parts.next().unwrap(),
                    variant: parts.next(),
                    os_version: None,
                }
            }),
            artifact_type: None,
        }
    }

    fn index(platforms: &[&str]) -> Index {
        Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests: platforms.iter().zip(0..).map(|(p, n)| entry(Some(p), n)).collect(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    fn pick(platforms: &[&str], wanted: &str) -> Option<u64> {
        let wanted: Platform = wanted.parse().unwrap();
        choose(&index(platforms), Some(&wanted), &Platform::host()).ok().map(|d| d.size)
    }

    #[test]
    fn the_nearest_variant_wins() {
        assert_eq!(pick(&["linux/arm/v6", "linux/arm/v7"], "linux/arm"), Some(1));
        assert_eq!(pick(&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7"), Some(1));
        assert_eq!(pick(&["linux/arm/v7"], "linux/arm/v6"), None);
        assert_eq!(pick(&["linux/arm64"], "linux/arm64/v8"), Some(0));
        assert_eq!(pick(&["linux/arm64/v8"], "linux/arm64"), Some(0));
        assert_eq!(pick(&["linux/arm64/v9", "linux/arm64/v8.4"], "linux/arm64/v9"), Some(0));
        assert_eq!(pick(&["linux/arm64/v9", "linux/arm64/v8.4"], "linux/arm64/v8.5"), Some(1));
        assert_eq!(pick(&["linux/arm/v7"], "linux/arm64"), Some(0));
        assert_eq!(pick(&["linux/amd64/v1", "linux/amd64/v3"], "linux/amd64/v2"), Some(0));
        assert_eq!(pick(&["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"], "linux/amd64/v3"), Some(2));
        assert_eq!(pick(&["linux/amd64/v3", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(pick(&["linux/386", "windows/amd64"], "linux/amd64"), Some(0));
        assert_eq!(pick(&["linux/arm/v255"], "linux/arm/v254"), None);
    }

    #[test]
    fn attestations_are_no_images() {
        assert_eq!(pick(&["unknown/unknown", "linux/amd64"], "linux/amd64"), Some(1));
        let mut i = index(&["linux/amd64", "linux/amd64"]);
        i.manifests[0].annotations.insert(REFERENCE_TYPE.into(), "attestation-manifest".into());
        assert_eq!(choose(&i, None, &"linux/amd64".parse().unwrap()).unwrap().size, 1);
    }

    #[test]
    fn nothing_fits_in_dockers_words() {
        let e = choose(&index(&["linux/amd64"]), Some(&"linux/arm64/v8".parse().unwrap()), &Platform::host());
        let text = e.unwrap_err().to_string();
        assert_eq!(text, "no matching manifest for linux/arm64/v8 in the manifest list entries");
    }

    #[test]
    fn one_manifest_without_a_platform_is_taken_only_without_a_wish() {
        let mut i = index(&[]);
        i.manifests.push(entry(None, 7));
        let host: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(choose(&i, None, &host).unwrap().size, 7);
        assert!(choose(&i, Some(&host), &host).is_err());
    }
}
