use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on: `linux/amd64`, `linux/arm/v7` (OCI image spec, image-index.md).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`; nothing else is run here, but anything is kept.
    pub os: String,
    /// Go's name of the processor: `amd64`, `arm64`, `arm`...
    pub architecture: String,
    /// `v6`, `v7`, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows only; kept as it came.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// The text is not `os[/arch[/variant]]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is an invalid platform: want os[/arch[/variant]], for example linux/amd64")]
pub struct ParsePlatformError(String);

impl Platform {
    /// The platform that this program was compiled for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None, os_version: None }
    }

    /// Whether an image for `self` runs on `host`: os and processor equal, and the variant equal
    /// where both name one (`arm64` and `arm64/v8` are the same).
    #[must_use]
    pub fn runs_on(&self, host: &Self) -> bool {
        let variant = |p: &Self| match (p.architecture.as_str(), p.variant.as_deref()) {
            ("arm64", Some("v8")) | (_, None | Some("")) => None,
            (_, Some(v)) => Some(v.to_owned()),
        };
        self.os == host.os
            && self.architecture == host.architecture
            && match (variant(self), variant(host)) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(v) if !v.is_empty() => write!(f, "/{v}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let err = || ParsePlatformError(s.chars().take(100).collect());
        let parts: Vec<String> = s.split('/').map(str::to_ascii_lowercase).collect();
        let ok =
            |p: &String| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if parts.len() > 3 || !parts.iter().all(ok) {
            return Err(err());
        }
        let arch = |a: &str| match a {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "i386" => "386".to_owned(),
            other => other.to_owned(),
        };
        let host = Self::host();
        Ok(match parts.as_slice() {
            [os] if os == "linux" => host,
            [one] => Self { architecture: arch(one), ..host },
            [os, a] => Self { os: os.clone(), architecture: arch(a), variant: None, os_version: None },
            [os, a, v] => {
                Self { os: os.clone(), architecture: arch(a), variant: Some(v.clone()), os_version: None }
            }
            _ => return Err(err()),
        })
    }
}
