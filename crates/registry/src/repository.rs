use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use longshore_oci::image::{Descriptor, Index};
use longshore_oci::{Digest, Reference};
use serde::Deserialize;

use crate::answer::Get;
use crate::blob::Download;
use crate::call::{Call, Target, bare};
use crate::client::Source;
use crate::document::ACCEPT;
use crate::endpoint::Endpoint;
use crate::error::printable;
use crate::headers::{next_link, text};
use crate::token::Scopes;
use crate::transport::Payload;
use crate::url::{Url, encode};
use crate::{BlobStream, Client, Credentials, Document, Error, Result};

/// The digest of what a manifest's address gives.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// One repository of a registry, with the credentials it is used with. Cloning is cheap.
///
/// Reading of manifests and blobs asks the registry's mirrors first; writing, and all that is about the registry's
/// own state, does not.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) client: Client,
    name: Reference,
    pub(crate) credentials: Credentials,
}

/// What names a manifest within a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestRef {
    /// May name another one tomorrow.
    Tag(String),
    /// Names these bytes for ever.
    Digest(Digest),
}

impl fmt::Display for ManifestRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest or an index, as it came.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Exactly what the digest is of.
    pub bytes: Bytes,
    /// One of the four types of manifests and indexes.
    pub media_type: String,
    /// Of `bytes`.
    pub digest: Digest,
    /// The same, parsed.
    pub document: Document,
}

impl Repository {
    pub(crate) fn new(client: Client, name: Reference, credentials: Credentials) -> Self {
        Self { client, name, credentials }
    }

    /// The reference that this was made from.
    #[must_use]
    pub fn name(&self) -> &Reference {
        &self.name
    }

    /// The manifest or index that `at` names: its bytes hash to the digest that was asked for and that the registry
    /// says, its type is the one that header and body say, and it is no longer than [`Limits::manifest`].
    ///
    /// [`Limits::manifest`]: crate::Limits::manifest
    ///
    /// # Errors
    /// Code `MANIFEST_UNKNOWN` where there is none; [`Error::DigestMismatch`], [`Error::Corrupt`],
    /// [`Error::Unsupported`] for what does not hold.
    pub async fn manifest(&self, at: &ManifestRef) -> Result<Fetched> {
        let sources = self.sources()?;
        self.first_of(&sources, |source| self.manifest_from(source, at)).await
    }

    async fn manifest_from(&self, source: Source, at: &ManifestRef) -> Result<Fetched> {
        let limits = &self.client.inner.config.limits;
        let action = self.action("get the manifest", at);
        let get = Get {
            target: Target::Path(self.path(&source.at, &format!("manifests/{at}"))),
            accept: &ACCEPT,
            scopes: &self.scopes(&source, false),
            credentials: &source.credentials,
            action: &action,
            limit: limits.manifest,
            attempts: source.at.attempts(limits),
        };
        let got = self.client.inner.document(&source.at, get).await?;
        let what = || format!("{action} at {}", got.url.origin.authority());
        let digest = Digest::of(&got.bytes);
        let asked = match at {
            ManifestRef::Digest(asked) => Some(*asked),
            ManifestRef::Tag(_) => None,
        };
        for expected in [asked, said_digest(&got.headers, &what)?].into_iter().flatten() {
            if expected != digest {
                return Err(Error::DigestMismatch { what: what(), expected, actual: digest });
            }
        }
        let (document, media_type) = Document::parse(&got.bytes, text(&got.headers, CONTENT_TYPE))
            .map_err(|e| e.of(&self.whole_name(at)))?;
        Ok(Fetched { bytes: got.bytes, media_type, digest, document })
    }

    /// What `at` names, without its bytes; `None` where there is nothing. Mirrors are not asked.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn head_manifest(&self, at: &ManifestRef) -> Result<Option<Descriptor>> {
        let source = self.own()?;
        let action = self.action("look for the manifest", at);
        let headers = match self.head(&source, &format!("manifests/{at}"), &ACCEPT, &action).await? {
            Some(headers) => headers,
            None => return Ok(None),
        };
        let what = || format!("{action} at {}", source.at.name);
        let digest = said_digest(&headers, &what)?;
        if let (ManifestRef::Digest(expected), Some(actual)) = (at, digest)
            && *expected != actual
        {
            return Err(Error::DigestMismatch { what: what(), expected: *expected, actual });
        }
        let size = text(&headers, CONTENT_LENGTH).and_then(|l| l.parse().ok()).filter(|l| *l > 0);
        let media_type = text(&headers, CONTENT_TYPE).filter(|t| ACCEPT.contains(t));
        let (digest, size, media_type) = match (digest, size, media_type) {
            (Some(digest), Some(size), Some(media_type)) => (digest, size, media_type.to_owned()),
            // Some registries say less to HEAD than to GET.
            _ => {
                let got = self.manifest_from(source, at).await?;
                (got.digest, got.bytes.len() as u64, got.media_type)
            }
        };
        Ok(Some(Descriptor::new(media_type, digest, size)))
    }

    /// The bytes of a blob. The address in the descriptor's `urls` is never used.
    ///
    /// # Errors
    /// When no server begins to send it; later failures come out of the stream.
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<BlobStream> {
        self.blob_from(self.sources()?, descriptor).await
    }

    async fn blob_from(&self, sources: Vec<Source>, descriptor: &Descriptor) -> Result<BlobStream> {
        let scopes = self.scopes(&self.own()?, false);
        let inner = self.client.inner.clone();
        let download = Download::begin(inner, sources, self.name.repository(), scopes, descriptor).await?;
        Ok(BlobStream::new(download))
    }

    /// A small blob as a whole, its size and digest checked.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the descriptor says more than `limit` bytes.
    pub async fn read_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes> {
        if descriptor.size > limit {
            return Err(Error::TooLarge(format!(
                "the blob {} of {} has {} bytes; at most {limit} are read",
                descriptor.digest,
                self.name.familiar_name(),
                descriptor.size
            )));
        }
        let read = |source| async {
            let mut stream = self.blob_from(vec![source], descriptor).await?;
            let mut out = bytes::BytesMut::new();
            while let Some(piece) = stream.next().await {
                out.extend_from_slice(&piece?);
            }
            Ok(out.freeze())
        };
        self.first_of(&self.sources()?, read).await
    }

    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`Limits::entries`](crate::Limits::entries).
    pub async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct List {
            tags: Option<Vec<String>>,
        }
        let source = self.own()?;
        let action = format!("list the tags of {}", self.name.repository());
        let mut all = Vec::new();
        let mut target = Target::Path(self.path(&source.at, "tags/list"));
        for _ in 0..self.client.inner.config.limits.pages {
            let (list, next): (List, _) = self.page(&source, target, "application/json", &action).await?;
            for tag in list.tags.unwrap_or_default() {
                if self.name.clone().with_tag(&tag).is_err() {
                    let place = &source.at.name;
                    return Err(Error::Corrupt(format!(
                        "{action} at {place}: {:?} is no tag",
                        printable(&tag)
                    )));
                }
                all.push(tag);
            }
            self.bounded(all.len(), &action)?;
            match next {
                Some(next) => target = Target::At(next),
                None => return Ok(all),
            }
        }
        Err(Error::TooLarge(format!("{action} at {}: the list has too many pages", source.at.name)))
    }

    /// What refers to the manifest `subject`, of one artifact type if that is given. Registries without the
    /// referrers API are asked for the tag `sha256-<hex>` that stands for it.
    ///
    /// # Errors
    /// When the registry cannot be asked, or answers with something else than an index.
    pub async fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Index> {
        let source = self.own()?;
        let action = format!("list the referrers of {}@{subject}", self.name.repository());
        let mut path = self.path(&source.at, &format!("referrers/{subject}"));
        if let Some(kind) = artifact_type {
            path.push_str(&format!("?artifactType={}", encode(kind)));
        }
        let accept = longshore_oci::image::media::OCI_INDEX;
        let mut target = Target::Path(path);
        let mut all: Option<Index> = None;
        for _ in 0..self.client.inner.config.limits.pages {
            let page: Result<(Index, _)> = self.page(&source, target, accept, &action).await;
            let (page, next) = match page {
                Err(e) if all.is_none() && e.refusal().is_some_and(|r| r.status == 404) => {
                    (self.referrers_by_tag(source.clone(), subject).await?, None)
                }
                other => other?,
            };
            match &mut all {
                None => all = Some(page),
                Some(all) => all.manifests.extend(page.manifests),
            }
            self.bounded(all.as_ref().map_or(0, |i| i.manifests.len()), &action)?;
            match next {
                Some(next) => target = Target::At(next),
                None => break,
            }
        }
        let mut index = all.unwrap_or_else(empty_index);
        if let Some(kind) = artifact_type {
            index.manifests.retain(|d| d.artifact_type.as_deref() == Some(kind));
        }
        Ok(index)
    }

    async fn referrers_by_tag(&self, source: Source, subject: &Digest) -> Result<Index> {
        let tag = ManifestRef::Tag(format!("sha256-{}", subject.hex()));
        match self.manifest_from(source, &tag).await {
            Ok(Fetched { document: Document::Index(index), .. }) => Ok(index),
            Ok(_) => Err(Error::Corrupt(format!("{} is no index of referrers", self.whole_name(&tag)))),
            Err(e) if e.refusal().is_some_and(|r| r.status == 404) => Ok(empty_index()),
            Err(e) => Err(e),
        }
    }

    /// The size of a blob if the repository has it. `None` also where the registry does not say how long it is.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>> {
        let action = format!("look for the blob {digest} of {}", self.name.repository());
        let headers = self.head(&self.own()?, &format!("blobs/{digest}"), &[], &action).await?;
        Ok(headers.and_then(|h| text(&h, CONTENT_LENGTH).and_then(|l| l.parse().ok())))
    }

    /// Writes a manifest or an index, all of whose blobs and manifests are there already. Gives the digest of
    /// `bytes`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `at` is another digest than that of `bytes`.
    pub async fn put_manifest(&self, at: &ManifestRef, media_type: &str, bytes: Bytes) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        if let ManifestRef::Digest(asked) = at
            && *asked != digest
        {
            return Err(Error::Invalid(format!("the manifest's digest is {digest}, and not {asked}")));
        }
        let source = self.own()?;
        let inner = &self.client.inner;
        let action = self.action("put the manifest", at);
        let mut outgoing = bare(Method::PUT, &inner.config.limits);
        let media_type = HeaderValue::from_str(media_type)
            .map_err(|_| Error::Invalid(format!("{:?} is no media type", printable(media_type))))?;
        outgoing.headers.insert(CONTENT_TYPE, media_type);
        outgoing.payload = Payload::Bytes(bytes);
        outgoing.wait = inner.config.limits.commit;
        let call = Call {
            target: Target::Path(self.path(&source.at, &format!("manifests/{at}"))),
            outgoing,
            scopes: &self.scopes(&source, true),
            credentials: &source.credentials,
            action: &action,
            attempts: inner.config.limits.attempts,
            unanswered: false,
            progress: None,
        };
        let answer = inner.call(&source.at, call).await?;
        let fine = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        let answer = answer.expect(inner, &action, &fine).await?;
        let what = || format!("{action} at {}", source.at.name);
        match said_digest(answer.response.headers(), &what)? {
            Some(actual) if actual != digest => {
                Err(Error::DigestMismatch { what: what(), expected: digest, actual })
            }
            _ => Ok(digest),
        }
    }

    /// One page of a list, and the address of the next.
    async fn page<T: for<'a> Deserialize<'a>>(
        &self,
        source: &Source,
        target: Target,
        accept: &'static str,
        action: &str,
    ) -> Result<(T, Option<Url>)> {
        let limits = &self.client.inner.config.limits;
        let get = Get {
            target,
            accept: &[accept],
            scopes: &self.scopes(source, false),
            credentials: &source.credentials,
            action: &action,
            limit: limits.body,
            attempts: limits.attempts,
        };
        let got = self.client.inner.document(&source.at, get).await?;
        let wrong = |why: &str| Error::Corrupt(format!("{action} at {}: {why}", source.at.name));
        let page = serde_json::from_slice(&got.bytes)
            .map_err(|e| wrong(&format!("the answer is not valid: {e}")))?;
        let next = match text(&got.headers, hyper::header::LINK).and_then(next_link) {
            None => None,
            Some(link) => {
                let next = got
                    .url
                    .join(link)
                    .map_err(|e| wrong(&format!("the next page is at no valid address: {e}")))?;
                if next.origin != got.url.origin || next == got.url {
                    return Err(wrong(&format!("the next page is said to be at {next}")));
                }
                Some(next)
            }
        };
        Ok((page, next))
    }

    fn bounded(&self, entries: usize, action: &str) -> Result<()> {
        let most = self.client.inner.config.limits.entries;
        let place = self.name.registry();
        if entries > most {
            return Err(Error::TooLarge(format!(
                "{action} at {place}: the list has more than {most} entries"
            )));
        }
        Ok(())
    }

    /// The headers of what is at `rest`; `None` where there is nothing.
    async fn head(
        &self,
        source: &Source,
        rest: &str,
        accept: &[&'static str],
        action: &String,
    ) -> Result<Option<HeaderMap>> {
        let inner = &self.client.inner;
        let mut outgoing = bare(Method::HEAD, &inner.config.limits);
        for accept in accept {
            outgoing.headers.append(hyper::header::ACCEPT, HeaderValue::from_static(accept));
        }
        let call = Call {
            target: Target::Path(self.path(&source.at, rest)),
            outgoing,
            scopes: &self.scopes(source, false),
            credentials: &source.credentials,
            action,
            attempts: inner.config.limits.attempts,
            unanswered: false,
            progress: None,
        };
        let answer = inner.call(&source.at, call).await?;
        if answer.response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.expect(inner, action, &[StatusCode::OK]).await?;
        Ok(Some(answer.response.into_parts().0.headers))
    }

    /// The registry itself.
    pub(crate) fn own(&self) -> Result<Source> {
        let at = self.client.inner.registry(self.name.registry())?;
        Ok(Source { at, credentials: self.credentials.clone() })
    }

    /// The mirrors that are not resting, and then the registry itself.
    fn sources(&self) -> Result<Vec<Source>> {
        let mirrors = self.client.inner.mirrors.iter();
        let of_this =
            mirrors.filter(|(registry, source)| registry == self.name.registry() && !source.at.rests());
        Ok(of_this.map(|(_, source)| source.clone()).chain([self.own()?]).collect())
    }

    /// What the first of `sources` gives that can; the error of the last.
    async fn first_of<T, F: Future<Output = Result<T>>>(
        &self,
        sources: &[Source],
        get: impl Fn(Source) -> F,
    ) -> Result<T> {
        let mut rest = sources.iter();
        while let Some(source) = rest.next() {
            match get(source.clone()).await {
                Err(e) if rest.len() > 0 => give_up(source, &e),
                result => return result,
            }
        }
        Err(Error::Internal("no server to ask".into()))
    }

    pub(crate) fn path(&self, at: &Arc<Endpoint>, rest: &str) -> String {
        format!("/v2/{}{}/{rest}", at.prefix, self.name.repository())
    }

    pub(crate) fn scopes(&self, source: &Source, write: bool) -> Scopes {
        let actions = if write { "pull,push" } else { "pull" };
        Scopes::new([format!("repository:{}{}:{actions}", source.at.prefix, self.name.repository())])
    }

    fn action(&self, verb: &str, at: &ManifestRef) -> String {
        format!("{verb} of {}", self.whole_name(at))
    }

    fn whole_name(&self, at: &ManifestRef) -> String {
        let name = self.name.repository();
        match at {
            ManifestRef::Tag(tag) => format!("{name}:{tag}"),
            ManifestRef::Digest(digest) => format!("{name}@{digest}"),
        }
    }
}

/// A mirror did not give what it was asked for; one that is broken, or lies, is left alone for a while.
pub(crate) fn give_up(source: &Source, e: &Error) {
    tracing::warn!("mirror {}: {e}", source.at.name);
    if e.refusal().is_none_or(|r| r.status >= 500) {
        source.at.rest();
    }
}

/// The digest that an answer says it is of; `None` where it says none, or one of another algorithm.
fn said_digest(headers: &HeaderMap, what: &dyn Fn() -> String) -> Result<Option<Digest>> {
    match text(headers, CONTENT_DIGEST).map(str::trim) {
        Some(said) if said.starts_with("sha256:") => said.parse().map(Some).map_err(|e| {
            Error::Corrupt(format!("{}: Docker-Content-Digest: {}", what(), printable(&format!("{e}"))))
        }),
        _ => Ok(None),
    }
}

fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(longshore_oci::image::media::OCI_INDEX.into()),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
}
