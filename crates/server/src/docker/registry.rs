//! Images from and to registries, and what registries know.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request};
use longshore_api::json;
use longshore_api::registry::{
    AuthConfig, AuthResponse, DistributionInspect, ManifestInspect, Referrers, SearchResult,
};
use longshore_engine::Credentials;
use longshore_engine::model::{ManifestView, PullRequest, PushRequest, SearchRequest};
use longshore_oci::Reference;

use super::images::{platform, progress};
use super::{Answer, Call, body, reply};
use crate::errors::ApiError;

/// Where Docker clients keep the credentials of its own registry.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Results of a search, unless asked for otherwise, and at most.
const SEARCH_LIMIT: u32 = 25;
const SEARCH_MAX: u32 = 100;

/// `POST /images/create?fromImage=`.
pub(super) async fn pull(call: &Call, headers: &HeaderMap) -> Answer {
    let query = &call.query;
    let (name, tag) = (query.text("fromImage"), query.text("tag"));
    let named = parse(name)?;
    let reference = match tag {
        "" => named,
        tag if tag.contains(':') => {
            let digest = tag.parse().map_err(|_| ApiError::invalid("invalid tag format"))?;
            named.with_digest(digest)
        }
        tag => named.with_tag(tag).map_err(|_| ApiError::invalid("invalid tag format"))?,
    };
    let events = call
        .engine()
        .pull(PullRequest {
            all_tags: reference.tag().is_none() && reference.digest().is_none(),
            reference,
            platform: platform(call)?,
            beside: false,
            credentials: credentials(headers)?,
        })
        .await?;
    Ok(progress(events))
}

/// `POST /images/{name}/push`.
pub(super) async fn push(call: &Call, name: &str, request: Request<Incoming>) -> Answer {
    let named = parse(name)?;
    let reference = match call.query.text("tag") {
        "" => named,
        tag => named.with_tag(tag).map_err(|_| ApiError::invalid("invalid tag format"))?,
    };
    let credentials = credentials(request.headers())?;
    Ok(progress(call.engine().push(PushRequest { reference, platform: platform(call)?, credentials }).await?))
}

/// `POST /auth`.
pub(super) async fn auth(call: &Call, request: Request<Incoming>) -> Answer {
    let (parts, incoming) = request.into_parts();
    let auth: AuthConfig =
        body::read_json(&parts.headers, incoming, call.config()).await?.unwrap_or_default();
    let registry = match auth.serveraddress.as_str() {
        "" => HUB_KEY.to_owned(),
        address => address.to_owned(),
    };
    let token = call.engine().login(&registry, proven(auth)?).await?;
    let answer =
        AuthResponse { identity_token: token.unwrap_or_default(), status: "Login Succeeded".to_owned() };
    Ok(reply::json(&answer))
}

/// `GET /images/search`.
pub(super) async fn search(call: &Call, headers: &HeaderMap) -> Answer {
    let term = call.query.text("term");
    if term.is_empty() {
        return Err(ApiError::invalid("the parameter term is missing: what is to be searched for?"));
    }
    let limit = call.query.number::<u32>("limit")?.filter(|n| *n > 0).unwrap_or(SEARCH_LIMIT);
    if limit > SEARCH_MAX {
        let text = format!("limit {limit} is outside the range of [1, {SEARCH_MAX}]");
        return Err(ApiError::invalid(text));
    }
    let wanted = SearchRequest {
        term: term.to_owned(),
        limit,
        filters: call.query.filters()?,
        credentials: credentials(headers)?,
    };
    let found = call.engine().search(wanted).await?.into_iter().map(|h| SearchResult {
        star_count: h.stars,
        is_official: h.official,
        name: h.name,
        is_automated: h.automated,
        description: h.description,
    });
    Ok(reply::json(&found.collect::<Vec<_>>()))
}

/// `GET /distribution/{name}/json`.
pub(super) async fn distribution(call: &Call, name: &str, headers: &HeaderMap) -> Answer {
    let found = call.engine().distribution(&parse(name)?, &credentials(headers)?).await?;
    Ok(reply::json(&DistributionInspect { descriptor: found.descriptor, platforms: found.platforms }))
}

/// `GET /longshore/manifests/{name}`.
pub(super) async fn manifest(call: &Call, name: &str, headers: &HeaderMap) -> Answer {
    let all = call.query.flag("verbose");
    let found = call.engine().manifest(&parse(name)?, &credentials(headers)?, all).await?;
    Ok(reply::json(&inspect(found)))
}

fn inspect(m: ManifestView) -> ManifestInspect {
    ManifestInspect {
        descriptor: m.descriptor,
        raw: STANDARD.encode(&m.raw),
        manifests: m.manifests.into_iter().map(inspect).collect(),
    }
}

/// `GET /longshore/referrers/{name}`.
pub(super) async fn referrers(call: &Call, name: &str, headers: &HeaderMap) -> Answer {
    let kind = call.query.given("artifactType");
    let found = call.engine().referrers(&parse(name)?, &credentials(headers)?, kind).await?;
    Ok(reply::json(&Referrers { manifests: found }))
}

fn parse(name: &str) -> Result<Reference, ApiError> {
    Ok(name.parse::<Reference>().map_err(longshore_engine::Error::from)?)
}

/// The header `X-Registry-Auth`: nothing, an empty object and `null` mean nobody.
/// The credentials that a build may show, by registry.
pub(super) fn all_credentials(headers: &HeaderMap) -> Result<BTreeMap<String, Credentials>, ApiError> {
    let Some(value) = headers.get("x-registry-config").filter(|v| !v.is_empty()) else {
        return Ok(BTreeMap::new());
    };
    let bad = || ApiError::invalid("invalid X-Registry-Config header: want base64 of a JSON object");
    let bytes = decode(value.as_bytes()).ok_or_else(bad)?;
    let all: Option<BTreeMap<String, AuthConfig>> = json::from_slice(&bytes).map_err(|_| bad())?;
    let one = |(name, auth): (String, AuthConfig)| {
        // Docker calls its own registry by an address of old.
        let name = if name == HUB_KEY { "docker.io".to_owned() } else { name };
        Ok((name, proven(auth)?))
    };
    all.unwrap_or_default().into_iter().map(one).collect()
}

/// Clients differ in alphabet and padding.
fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let url_safe = GeneralPurpose::new(&base64::alphabet::URL_SAFE, lenient);
    url_safe.decode(value).or_else(|_| STANDARD.decode(value)).ok()
}

fn credentials(headers: &HeaderMap) -> Result<Credentials, ApiError> {
    let Some(value) = headers.get("x-registry-auth").filter(|v| !v.is_empty()) else {
        return Ok(Credentials::Anonymous);
    };
    // What it holds must not come back in an error.
    let bad = || ApiError::invalid("invalid X-Registry-Auth header: want URL-safe base64 of a JSON object");
    let bytes = decode(value.as_bytes()).ok_or_else(bad)?;
    let auth: Option<AuthConfig> = json::from_slice(&bytes).map_err(|_| bad())?;
    proven(auth.unwrap_or_default())
}

fn proven(auth: AuthConfig) -> Result<Credentials, ApiError> {
    if !auth.registrytoken.is_empty() {
        return Ok(Credentials::RegistryToken(auth.registrytoken));
    }
    if !auth.identitytoken.is_empty() {
        return Ok(Credentials::IdentityToken(auth.identitytoken));
    }
    if !auth.username.is_empty() || !auth.password.is_empty() {
        return Ok(Credentials::Basic { username: auth.username, password: auth.password });
    }
    if auth.auth.is_empty() {
        return Ok(Credentials::Anonymous);
    }
    let bad = || ApiError::invalid("invalid credentials: auth is not base64 of username:password");
    let bytes = STANDARD.decode(&auth.auth).or_else(|_| URL_SAFE.decode(&auth.auth)).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (username, password) = text.split_once(':').ok_or_else(bad)?;
    let password = password.trim_end_matches('\0').to_owned();
    Ok(Credentials::Basic { username: username.to_owned(), password })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<Credentials, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", text.parse().unwrap());
        credentials(&headers)
    }

    #[test]
    fn credentials_come_in_many_forms() {
        let me = || Credentials::Basic { username: "me".into(), password: "h:nter2?>".into() };
        let object = r#"{"username":"me","password":"h:nter2?>"}"#;
        for text in
            [URL_SAFE.encode(object), STANDARD.encode(object), URL_SAFE.encode(object).replace('=', "")]
        {
            assert_eq!(header(&text).unwrap(), me());
        }
        let auth = format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("me:h:nter2?>"));
        assert_eq!(header(&URL_SAFE.encode(auth)).unwrap(), me());
        for nobody in ["{}", "null", r#"{"username":"","password":""}"#] {
            assert_eq!(header(&URL_SAFE.encode(nobody)).unwrap(), Credentials::Anonymous);
        }
        assert_eq!(credentials(&HeaderMap::new()).unwrap(), Credentials::Anonymous);
        let token = URL_SAFE.encode(r#"{"identitytoken":"t"}"#);
        assert_eq!(header(&token).unwrap(), Credentials::IdentityToken("t".into()));
        for bad in ["!", &URL_SAFE.encode("hunter2"), &URL_SAFE.encode(r#"{"auth":"hunter2"}"#)] {
            let e = header(bad).unwrap_err();
            assert!(!e.to_string().contains("hunter2"), "{e}");
        }
    }
}
