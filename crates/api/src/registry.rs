//! What concerns registries: logins, searches, and what a registry has under a name.

use longshore_oci::Platform;
use longshore_oci::image::Descriptor;
use serde::{Deserialize, Serialize};

use crate::is_default;

/// Credentials for one registry: the body of `POST /auth`, and, as URL-safe base64, the header `X-Registry-Auth`.
///
/// `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", default)]
#[allow(missing_docs)]
pub struct AuthConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
    #[serde(skip_serializing_if = "is_default")]
    pub password: String,
    /// `base64(username:password)`, in the place of both.
    #[serde(skip_serializing_if = "is_default")]
    pub auth: String,
    #[serde(skip_serializing_if = "is_default")]
    pub serveraddress: String,
    /// A refresh token, in the password's place.
    #[serde(skip_serializing_if = "is_default")]
    pub identitytoken: String,
    /// A bearer token that is sent as it is.
    #[serde(skip_serializing_if = "is_default")]
    pub registrytoken: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

/// The answer to `POST /auth`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct AuthResponse {
    /// To keep in the password's place; empty where the registry gives none.
    pub identity_token: String,
    pub status: String,
}

/// A line of `GET /images/search`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct SearchResult {
    pub star_count: u64,
    pub is_official: bool,
    pub name: String,
    pub is_automated: bool,
    pub description: String,
}

/// `GET /distribution/{name}/json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct DistributionInspect {
    pub descriptor: Descriptor,
    #[serde(default)]
    pub platforms: Vec<Platform>,
}

/// `GET /longshore/manifests/{name}`: a manifest as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct ManifestInspect {
    pub descriptor: Descriptor,
    /// Base64 of its bytes.
    pub raw: String,
    /// Those that an index names, when `verbose` was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Self>,
}

/// `GET /longshore/referrers/{name}`: what refers to a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Referrers {
    pub manifests: Vec<Descriptor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_clients_send_them_and_not_shown() {
        let sent = r#"{"username":"me","password":"hunter2","email":"","serveraddress":"https://index.docker.io/v1/"}"#;
        let auth: AuthConfig = crate::json::from_slice(sent.as_bytes()).unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("me", "hunter2"));
        assert!(!format!("{auth:?}").contains("hunter2"));
        assert_eq!(serde_json::to_string(&AuthConfig::default()).unwrap(), "{}");
    }
}
