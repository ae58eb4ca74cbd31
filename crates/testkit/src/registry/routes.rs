//! The OCI distribution specification 1.1, honestly.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use longshore_oci::Digest;
use longshore_oci::image::media;
use serde_json::{Value, json};

use super::Shared;
use super::auth::{Auth, Need};
use super::blob::Blob;
use super::http::{Answer, Body, Request};
use super::repos::{Document, Upload};

/// Bytes that one manifest may have; more than any client may accept.
const MAX_MANIFEST: usize = 64 << 20;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Ping,
    Catalog,
    Token,
    Manifest(String, String),
    Blob(String, String),
    /// Of a repository; empty for one that is to begin.
    Upload(String, String),
    Tags(String),
    Referrers(String, String),
    Other,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/v2") else {
            return if path == "/token" { Self::Token } else { Self::Other };
        };
        match rest {
            "" | "/" => return Self::Ping,
            "/_catalog" => return Self::Catalog,
            _ => {}
        }
        let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        let name = |n: usize| parts[..parts.len() - n].join("/");
        match parts.as_slice() {
            [_, .., "blobs", "uploads"] => Self::Upload(name(2), String::new()),
            [_, .., "blobs", "uploads", id] => Self::Upload(name(3), (*id).to_owned()),
            [_, .., "blobs", digest] => Self::Blob(name(2), (*digest).to_owned()),
            [_, .., "manifests", reference] => Self::Manifest(name(2), (*reference).to_owned()),
            [_, .., "referrers", digest] => Self::Referrers(name(2), (*digest).to_owned()),
            [_, .., "tags", "list"] => Self::Tags(name(2)),
            _ => Self::Other,
        }
    }

    /// The right that it takes.
    fn need(&self, method: &str) -> Option<Need> {
        let (Self::Manifest(repo, _)
        | Self::Blob(repo, _)
        | Self::Upload(repo, _)
        | Self::Tags(repo)
        | Self::Referrers(repo, _)) = self
        else {
            return None;
        };
        let actions: &[&str] = match (self, method) {
            (Self::Upload(..), _) => &["pull", "push"],
            (_, "GET" | "HEAD") => &["pull"],
            (_, "DELETE") => &["delete"],
            _ => &["pull", "push"],
        };
        Some(Need { repo: repo.clone(), actions })
    }
}

fn not_found(code: &str, what: &str) -> Answer {
    Answer::error(404, code, &format!("{what} unknown to registry"))
}

/// Answers one request as it should be answered. An error is one of the connection.
pub(super) fn answer(shared: &Shared, request: &Request, body: &mut Body<'_>) -> io::Result<Answer> {
    let route = Route::of(request.path());
    if route == Route::Token {
        let text = text(body)?;
        return Ok(match &shared.tokens {
            Some(tokens) => tokens.serve(request, &text),
            None => not_found("UNSUPPORTED", "token server"),
        });
    }
    if let Err(refused) = shared.auth.check(request, route.need(&request.method).as_ref()) {
        return Ok(*refused);
    }
    let method = request.method.as_str();
    Ok(match (&route, method) {
        (Route::Ping, "GET" | "HEAD") => Answer::new(200).json(&json!({})),
        (Route::Catalog, "GET") => {
            let names = shared.repos().repos.keys().cloned().collect();
            page(request, "/v2/_catalog", "repositories", None, names)
        }
        (Route::Tags(repo), "GET") => tags(shared, request, repo),
        (Route::Manifest(repo, name), "GET" | "HEAD") => manifest(shared, repo, name),
        (Route::Manifest(repo, name), "PUT") => put_manifest(shared, request, repo, name, body)?,
        (Route::Manifest(repo, name), "DELETE") => delete_manifest(shared, repo, name),
        (Route::Blob(repo, digest), "GET" | "HEAD") => blob(shared, request, repo, digest),
        (Route::Blob(repo, digest), "DELETE") => delete_blob(shared, repo, digest),
        (Route::Upload(repo, id), "POST") if id.is_empty() => begin(shared, request, repo, body)?,
        (Route::Upload(repo, id), _) if !id.is_empty() => upload(shared, request, repo, id, body)?,
        (Route::Referrers(repo, digest), "GET") => referrers(shared, request, repo, digest),
        _ => Answer::error(405, "UNSUPPORTED", "the operation is unsupported"),
    })
}

fn text(body: &mut Body<'_>) -> io::Result<String> {
    let mut text = String::new();
    body.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

/// A list that the client may want in pages (`n`, `last`).
fn page(request: &Request, path: &str, key: &str, name: Option<&str>, mut all: Vec<String>) -> Answer {
    all.sort_unstable();
    if let Some(last) = request.query("last") {
        all.retain(|item| *item > last);
    }
    let n: usize = request.query("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let more = all.len() > n;
    all.truncate(n);
    let mut value = json!({ key: all });
    if let Some(name) = name {
        value["name"] = name.into();
    }
    let answer = Answer::new(200).json(&value);
    match all.last() {
        Some(last) if more => answer.with("Link", format!("<{path}?n={n}&last={last}>; rel=\"next\"")),
        _ => answer,
    }
}

fn tags(shared: &Shared, request: &Request, repo: &str) -> Answer {
    match shared.repos().repos.get(repo) {
        None => not_found("NAME_UNKNOWN", "repository name"),
        Some(found) => {
            let names = found.tags.keys().cloned().collect();
            page(request, &format!("/v2/{repo}/tags/list"), "tags", Some(repo), names)
        }
    }
}

fn manifest(shared: &Shared, repo: &str, name: &str) -> Answer {
    match shared.repos().manifest(repo, name) {
        None => not_found("MANIFEST_UNKNOWN", "manifest"),
        Some((digest, document)) => Answer::new(200)
            .with("Docker-Content-Digest", digest.to_string())
            .body(&document.media_type, document.bytes.clone().into()),
    }
}

fn put_manifest(
    shared: &Shared,
    request: &Request,
    repo: &str,
    name: &str,
    body: &mut Body<'_>,
) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    body.take(MAX_MANIFEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_MANIFEST {
        return Ok(Answer::error(413, "MANIFEST_INVALID", "manifest too large"));
    }
    let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(Answer::error(400, "MANIFEST_INVALID", "manifest is no JSON"));
    };
    let mut repos = shared.repos();
    if name.contains(':') && name != Digest::of(&bytes).to_string() {
        return Ok(Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"));
    }
    let layers = value["layers"].as_array().cloned().unwrap_or_default();
    for wanted in std::iter::once(&value["config"]).chain(&layers).filter_map(|d| d["digest"].as_str()) {
        let there = wanted.parse().is_ok_and(|digest| repos.blob(repo, &digest).is_some());
        if !there {
            return Ok(Answer::error(
                404,
                "MANIFEST_BLOB_UNKNOWN",
                &format!("blob unknown to registry: {wanted}"),
            ));
        }
    }
    for wanted in value["manifests"].as_array().into_iter().flatten().filter_map(|d| d["digest"].as_str()) {
        if repos.manifest(repo, wanted).is_none() {
            return Ok(Answer::error(
                404,
                "MANIFEST_UNKNOWN",
                &format!("manifest unknown to registry: {wanted}"),
            ));
        }
    }
    let media_type = request.header("content-type").unwrap_or(media::OCI_MANIFEST);
    let digest = repos.put_manifest(repo, name, Document::new(media_type, bytes));
    let mut answer = Answer::new(201)
        .with("Location", format!("/v2/{repo}/manifests/{digest}"))
        .with("Docker-Content-Digest", digest.to_string());
    if let Some(subject) = value["subject"]["digest"].as_str() {
        answer = answer.with("OCI-Subject", subject);
    }
    Ok(answer)
}

fn delete_manifest(shared: &Shared, repo: &str, name: &str) -> Answer {
    let mut repos = shared.repos();
    if repos.manifest(repo, name).is_none() {
        return not_found("MANIFEST_UNKNOWN", "manifest");
    }
    let repo = repos.repo(repo);
    match name.parse::<Digest>() {
        Ok(digest) => {
            repo.manifests.remove(&digest);
            repo.tags.retain(|_, d| *d != digest);
            repo.referrers.values_mut().for_each(|r| {
                r.remove(&digest);
            });
        }
        Err(_) => {
            repo.tags.remove(name);
        }
    }
    Answer::new(202)
}

fn blob(shared: &Shared, request: &Request, repo: &str, digest: &str) -> Answer {
    let Some(digest) = digest.parse::<Digest>().ok() else {
        return Answer::error(400, "DIGEST_INVALID", "provided digest is invalid");
    };
    let repos = shared.repos();
    let Some(blob) = repos.blob(repo, &digest) else { return not_found("BLOB_UNKNOWN", "blob") };
    let answer = |status| {
        Answer::new(status).with("Docker-Content-Digest", digest.to_string()).with("Accept-Ranges", "bytes")
    };
    let total = blob.len();
    let Some(range) = request.header("range").and_then(|r| r.strip_prefix("bytes=")) else {
        return answer(200).body("application/octet-stream", blob.clone());
    };
    let (start, end) = match range.split_once('-') {
        Some((start, end)) => (
            start.parse::<u64>().unwrap_or(u64::MAX),
            end.parse::<u64>().unwrap_or(u64::MAX).min(total.saturating_sub(1)),
        ),
        None => return Answer::error(400, "UNSUPPORTED", "a range that is none"),
    };
    if start > end || start >= total {
        return Answer::new(416).with("Content-Range", format!("bytes */{total}"));
    }
    answer(206)
        .with("Content-Range", format!("bytes {start}-{end}/{total}"))
        .body("application/octet-stream", blob.slice(start, end + 1))
}

fn delete_blob(shared: &Shared, repo: &str, digest: &str) -> Answer {
    let removed = digest.parse().is_ok_and(|digest| shared.repos().repo(repo).blobs.remove(&digest));
    if removed { Answer::new(202) } else { not_found("BLOB_UNKNOWN", "blob") }
}

/// `POST …/blobs/uploads/`: a mount, a whole blob, or the begin of an upload.
fn begin(shared: &Shared, request: &Request, repo: &str, body: &mut Body<'_>) -> io::Result<Answer> {
    if let (Some(mount), Some(from)) = (request.query("mount"), request.query("from"))
        && let Ok(digest) = mount.parse::<Digest>()
        && may_mount(&shared.auth, request, &from)
    {
        let mut repos = shared.repos();
        if repos.blob(&from, &digest).is_some() {
            repos.repo(repo).blobs.insert(digest);
            return Ok(stored(repo, &digest));
        }
    }
    if let Some(digest) = request.query("digest") {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        return Ok(store(shared, repo, &digest, bytes));
    }
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = format!("upload-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    shared.repos().uploads.insert(id.clone(), Upload { repo: repo.to_owned(), bytes: Vec::new() });
    Ok(progress(202, repo, &id, 0))
}

fn may_mount(auth: &Auth, request: &Request, from: &str) -> bool {
    auth.may_mount_from(request, from)
}

fn stored(repo: &str, digest: &Digest) -> Answer {
    Answer::new(201)
        .with("Location", format!("/v2/{repo}/blobs/{digest}"))
        .with("Docker-Content-Digest", digest.to_string())
}

fn store(shared: &Shared, repo: &str, digest: &str, bytes: Vec<u8>) -> Answer {
    let blob = Blob::from(bytes);
    if blob.digest().to_string() != digest {
        return Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    }
    stored(repo, &shared.repos().put_blob(repo, blob))
}

/// Where the upload stands; its state is a parameter that the client must keep.
fn progress(status: u16, repo: &str, id: &str, size: usize) -> Answer {
    Answer::new(status)
        .with("Location", format!("/v2/{repo}/blobs/uploads/{id}?_state=at-{size}"))
        .with("Range", format!("0-{}", size.saturating_sub(1)))
        .with("Docker-Upload-UUID", id)
}

fn upload(
    shared: &Shared,
    request: &Request,
    repo: &str,
    id: &str,
    body: &mut Body<'_>,
) -> io::Result<Answer> {
    let size = match shared.repos().uploads.get(id).filter(|u| u.repo == repo) {
        Some(upload) => upload.bytes.len(),
        None => return Ok(not_found("BLOB_UPLOAD_UNKNOWN", "blob upload")),
    };
    match request.method.as_str() {
        "GET" => Ok(progress(204, repo, id, size)),
        "DELETE" => {
            shared.repos().uploads.remove(id);
            Ok(Answer::new(204))
        }
        "PATCH" | "PUT" => {
            if request.query("_state") != Some(format!("at-{size}")) {
                return Ok(Answer::error(400, "BLOB_UPLOAD_INVALID", "the state is not the last one"));
            }
            if let Some(range) = request.header("content-range")
                && range.split('-').next() != Some(&size.to_string())
            {
                let mut answer = progress(416, repo, id, size);
                answer.set("Content-Type", None);
                return Ok(answer);
            }
            append(shared, id, body)?;
            let size = shared.repos().uploads.get(id).map_or(0, |u| u.bytes.len());
            if request.method == "PATCH" {
                return Ok(progress(202, repo, id, size));
            }
            let upload = shared.repos().uploads.remove(id);
            let digest = request.query("digest").unwrap_or_default();
            Ok(store(shared, repo, &digest, upload.map(|u| u.bytes).unwrap_or_default()))
        }
        _ => Ok(Answer::error(405, "UNSUPPORTED", "the operation is unsupported")),
    }
}

/// Keeps what arrives, also when it ends early.
fn append(shared: &Shared, id: &str, body: &mut Body<'_>) -> io::Result<()> {
    let mut buf = vec![0; 64 << 10];
    loop {
        let n = body.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        if let Some(upload) = shared.repos().uploads.get_mut(id) {
            upload.bytes.extend_from_slice(&buf[..n]);
        }
    }
}

fn referrers(shared: &Shared, request: &Request, repo: &str, digest: &str) -> Answer {
    let Ok(digest) = digest.parse::<Digest>() else {
        return Answer::error(400, "DIGEST_INVALID", "provided digest is invalid");
    };
    let wanted = request.query("artifactType");
    let repos = shared.repos();
    let found = repos.repos.get(repo).and_then(|r| Some((r, r.referrers.get(&digest)?)));
    let mut manifests = Vec::new();
    for (repo, digest) in found.into_iter().flat_map(|(r, digests)| digests.iter().map(move |d| (r, d))) {
        let Some(document) = repo.manifests.get(digest) else { continue };
        let value: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
        let kind = value["artifactType"].as_str().or_else(|| value["config"]["mediaType"].as_str());
        if wanted.is_none() || wanted.as_deref() == kind {
            manifests.push(json!({
                "mediaType": document.media_type,
                "digest": digest.to_string(),
                "size": document.bytes.len(),
                "artifactType": kind,
                "annotations": value["annotations"],
            }));
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
    let mut answer = Answer::new(200).body(media::OCI_INDEX, index.to_string().into_bytes().into());
    if wanted.is_some() {
        answer = answer.with("OCI-Filters-Applied", "artifactType");
    }
    answer
}
