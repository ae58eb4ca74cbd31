//! The lies of a registry: each a mode that is switched on for some requests, and off again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::http::{Answer, Ending, Length, Request};
use super::repos::Document;
use super::routes::Route;

/// What goes wrong with an answer. What a lie does not touch is answered honestly.
#[derive(Debug)]
pub enum Lie {
    // The bytes.
    /// As many bytes, others.
    OtherBytes,
    /// Another document, with its media type and its digest.
    OtherDocument(Document),
    /// Every time the next of these, from the start again after the last: a tag that moves.
    Moving(Vec<Document>, AtomicUsize),
    /// Only the first so many bytes, said to be all.
    Short(u64),
    /// So many zeros more than there should be, said to be of it.
    Long(u64),
    /// Zeros after the bytes, for ever; in chunks, so that no length is told.
    Endless,
    /// The same with a length of petabytes.
    EndlessWithLength,

    // The head.
    /// `Docker-Content-Digest` says this (`None`: nothing).
    DigestHeader(Option<String>),
    /// `Content-Type` says this (`None`: nothing).
    ContentType(Option<String>),
    /// A header more.
    Header(String, String),
    /// `Content-Length` says this, the bytes are all there.
    ContentLength(String),
    /// No length: the body ends with the connection.
    NoLength,
    /// A chunk without a size in the middle.
    BadChunk,
    /// A header of so many bytes.
    HugeHeader(usize),
    /// So many headers.
    ManyHeaders(usize),

    // The connection.
    /// Closed after so many bytes of the body.
    CutAfter(u64),
    /// Reset after so many bytes of the body.
    ResetAfter(u64),
    /// Silent after so many bytes of the body, for ever.
    StallAfter(u64),
    /// No answer, for ever.
    Stall,
    /// Closed without an answer.
    Close,
    /// Reset without an answer.
    Reset,
    /// So long between the bytes of the head.
    SlowHead(Duration),
    /// So long between the bytes of the body.
    SlowBody(Duration),
    /// The answer, and then a closed connection where the client expects to use it again.
    CloseAfter,
    /// These bytes in place of an answer.
    Raw(Vec<u8>),
    /// These bytes behind the answer, which the client did not ask for.
    Behind(Vec<u8>),
    /// `100 Continue`, for ever.
    Continues,

    // The status.
    /// A status with an error in the specification's form, and `Retry-After`.
    Status(u16, Option<String>),
    /// A status with an error whose message is this.
    Says(u16, String),
    /// A status with a body of so many bytes.
    HugeError(u16, u64),
    /// A redirect to the same path on another server (scheme, host and port).
    RedirectToHost(u16, String),
    /// A redirect to this address (`None`: to nowhere).
    Redirect(u16, Option<String>),
    /// A redirect to itself.
    RedirectLoop,

    // Who are you?
    /// 401 with these challenges (`None`: without).
    Challenge(Vec<String>),
    /// The token server answers with this.
    Token(Vec<u8>),

    // Ranges.
    /// 200 and everything, whatever was asked for.
    RangeIgnored,
    /// The right range with other bytes.
    RangeOtherBytes,
    /// `Content-Range` says this.
    ContentRange(Option<String>),
    /// 206 with bytes from the start, and the range that was asked for in the head.
    RangeFromStart,
    /// 416.
    RangeRefused,

    // Uploads.
    /// Refused after so many bytes of the request, the rest unread.
    RefuseAfter(u64, u16),
    /// `Location` says this (`None`: nothing).
    Location(Option<String>),
    /// `Location` is the same path on another server.
    LocationOnHost(String),
    /// `Range` says this.
    UploadRange(Option<String>),
    /// 201, and nothing was kept.
    Created,
    /// 201 to a mount of a blob that is not there.
    Mounted,
    /// It has what it has not (`HEAD`).
    Has,

    // Lists.
    /// `Link` says this.
    Link(String),
}

impl Lie {
    /// See [`Lie::Moving`].
    #[must_use]
    pub fn moving(documents: Vec<Document>) -> Self {
        Self::Moving(documents, AtomicUsize::new(0))
    }

    /// An answer to be given without asking the registry.
    pub(super) fn instead(&self, request: &Request) -> Option<Answer> {
        let bare = |f: &dyn Fn(&mut Answer)| {
            let mut answer = Answer::new(200);
            f(&mut answer);
            Some(answer)
        };
        match self {
            Self::Stall => bare(&|a| a.delivery.never = Some(Ending::Stall)),
            Self::Close => bare(&|a| a.delivery.never = Some(Ending::Close)),
            Self::Reset => bare(&|a| a.delivery.never = Some(Ending::Reset)),
            Self::Raw(bytes) => bare(&|a| a.delivery.raw = Some(bytes.clone())),
            Self::Status(status, retry) => {
                let mut answer = Answer::error(*status, "UNKNOWN", "this registry does not feel well");
                answer.set("Retry-After", retry.as_deref());
                Some(answer)
            }
            Self::Says(status, message) => Some(Answer::error(*status, "DENIED", message)),
            Self::HugeError(status, n) => {
                let start = br#"{"errors":[{"code":"UNKNOWN","message":""#;
                let body = super::Blob::from(&start[..]).then_repeat(b'x', *n).then(br#""}]}"#);
                Some(Answer::new(*status).body("application/json", body))
            }
            Self::RedirectToHost(status, origin) => {
                Some(Answer::new(*status).with("Location", format!("{origin}{}", request.target)))
            }
            Self::Redirect(status, to) => {
                let mut answer = Answer::new(*status);
                answer.set("Location", to.as_deref());
                Some(answer)
            }
            Self::RedirectLoop => Some(Answer::new(307).with("Location", request.target.clone())),
            Self::Challenge(challenges) => {
                let answer = Answer::error(401, "UNAUTHORIZED", "authentication required");
                Some(challenges.iter().fold(answer, |a, c| a.with("WWW-Authenticate", c.as_str())))
            }
            Self::Token(body) => Some(Answer::new(200).body("application/json", body.clone().into())),
            Self::RangeRefused => Some(Answer::new(416)),
            Self::RefuseAfter(_, status) => Some(Answer::error(*status, "UNKNOWN", "no more")),
            Self::Created | Self::Mounted => {
                let digest = ["mount", "digest"].iter().find_map(|name| request.query(name));
                let path = request.path().split("/uploads").next().unwrap_or_default();
                let digest = digest.unwrap_or_default();
                Some(Answer::new(201).with("Location", format!("{path}/{digest}")))
            }
            Self::Has => Some(Answer::new(200).with("Content-Length", "1234")),
            Self::OtherDocument(document) => Some(document_answer(document)),
            Self::Moving(documents, next) => {
                let i = next.fetch_add(1, Ordering::Relaxed);
                documents.get(i % documents.len().max(1)).map(document_answer)
            }
            _ => None,
        }
    }

    /// Makes an honest answer a lie.
    pub(super) fn twist(&self, request: &Request, answer: &mut Answer) {
        let to_end = |answer: &Answer, n: u64| n.min(answer.body.len());
        match self {
            Self::OtherBytes | Self::RangeOtherBytes => answer.body = answer.body.inverted(),
            Self::Short(n) => answer.body = answer.body.slice(0, *n),
            Self::Long(n) => answer.body = answer.body.clone().then_repeat(0, *n),
            Self::Endless => {
                answer.delivery.length = Length::Chunked;
                answer.delivery.ending = Some((answer.body.len(), Ending::Endless));
            }
            Self::EndlessWithLength => {
                answer.delivery.length = Length::Says((1_u64 << 60).to_string());
                answer.delivery.ending = Some((answer.body.len(), Ending::Endless));
            }
            Self::DigestHeader(value) => answer.set("Docker-Content-Digest", value.as_deref()),
            Self::ContentType(value) => answer.set("Content-Type", value.as_deref()),
            Self::Header(name, value) => answer.headers.push((name.clone(), value.clone())),
            Self::ContentLength(text) => {
                answer.delivery.length = Length::Says(text.clone());
                answer.delivery.close_silently = true;
            }
            Self::NoLength => answer.delivery.length = Length::UntilClose,
            Self::BadChunk => answer.delivery.length = Length::BadChunk,
            Self::HugeHeader(n) => answer.headers.push(("X-Huge".into(), "x".repeat(*n))),
            Self::ManyHeaders(n) => {
                answer.headers.extend((0..*n).map(|i| (format!("X-Header-{i}"), "x".to_owned())));
            }
            Self::CutAfter(n) => answer.delivery.ending = Some((to_end(answer, *n), Ending::Close)),
            Self::ResetAfter(n) => answer.delivery.ending = Some((to_end(answer, *n), Ending::Reset)),
            Self::StallAfter(n) => answer.delivery.ending = Some((to_end(answer, *n), Ending::Stall)),
            Self::SlowHead(pace) => answer.delivery.head_pace = Some(*pace),
            Self::SlowBody(pace) => answer.delivery.body_pace = Some(*pace),
            Self::CloseAfter => answer.delivery.close_silently = true,
            Self::Behind(bytes) => answer.delivery.behind.clone_from(bytes),
            Self::Continues => answer.delivery.continues = true,
            Self::ContentRange(value) => answer.set("Content-Range", value.as_deref()),
            Self::Location(value) => answer.set("Location", value.as_deref()),
            Self::LocationOnHost(origin) => {
                if let Some(path) = super::http::find(&answer.headers, "location").map(str::to_owned) {
                    answer.set("Location", Some(&format!("{origin}{path}")));
                }
            }
            Self::UploadRange(value) => answer.set("Range", value.as_deref()),
            Self::Link(value) => answer.set("Link", Some(value)),
            _ => {}
        }
        if matches!(self, Self::RangeFromStart)
            && let Some(start) = asked_from(request)
        {
            let total = answer.body.len();
            answer.status = 206;
            answer.set("Content-Range", Some(&format!("bytes {start}-{}/{total}", total.saturating_sub(1))));
            answer.body = answer.body.slice(0, total.saturating_sub(start));
        }
    }

    /// The request as the registry sees it.
    pub(super) fn asked(&self, request: &Request) -> Request {
        let mut request = request.clone();
        if matches!(self, Self::RangeIgnored | Self::RangeFromStart) {
            request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("range"));
        }
        request
    }
}

/// Where the range that is asked for begins.
fn asked_from(request: &Request) -> Option<u64> {
    request.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
}

fn document_answer(document: &Document) -> Answer {
    Answer::new(200)
        .with("Docker-Content-Digest", longshore_oci::Digest::of(&document.bytes).to_string())
        .body(&document.media_type, document.bytes.clone().into())
}

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Any,
    Ping,
    Token,
    Manifests,
    Blobs,
    Uploads,
    Tags,
}

/// A lie, and the requests that it is told to.
#[derive(Debug)]
pub struct Rule {
    lie: Lie,
    what: What,
    methods: Option<&'static [&'static str]>,
    path: Option<String>,
    ranged: Option<bool>,
    authorized: Option<bool>,
    skip: AtomicUsize,
    times: AtomicUsize,
}

impl Rule {
    fn new(what: What, lie: Lie, methods: Option<&'static [&'static str]>) -> Self {
        Self {
            lie,
            what,
            methods,
            path: None,
            ranged: None,
            authorized: None,
            skip: AtomicUsize::new(0),
            times: AtomicUsize::new(usize::MAX),
        }
    }

    /// To every request.
    #[must_use]
    pub fn any(lie: Lie) -> Self {
        Self::new(What::Any, lie, None)
    }

    /// To `/v2/`.
    #[must_use]
    pub fn ping(lie: Lie) -> Self {
        Self::new(What::Ping, lie, None)
    }

    /// To requests for a token.
    #[must_use]
    pub fn token(lie: Lie) -> Self {
        Self::new(What::Token, lie, None)
    }

    /// Where a manifest is read or asked for (GET and HEAD).
    #[must_use]
    pub fn manifests(lie: Lie) -> Self {
        Self::new(What::Manifests, lie, Some(&["GET", "HEAD"]))
    }

    /// Where a blob is read.
    #[must_use]
    pub fn blobs(lie: Lie) -> Self {
        Self::new(What::Blobs, lie, Some(&["GET"]))
    }

    /// Where it is asked whether a blob is there.
    #[must_use]
    pub fn blob_heads(lie: Lie) -> Self {
        Self::new(What::Blobs, lie, Some(&["HEAD"]))
    }

    /// Where an upload, or a mount, begins.
    #[must_use]
    pub fn upload_starts(lie: Lie) -> Self {
        Self::new(What::Uploads, lie, Some(&["POST"]))
    }

    /// Where bytes are uploaded.
    #[must_use]
    pub fn uploads(lie: Lie) -> Self {
        Self::new(What::Uploads, lie, Some(&["PATCH", "PUT"]))
    }

    /// Where a manifest is put.
    #[must_use]
    pub fn manifest_puts(lie: Lie) -> Self {
        Self::new(What::Manifests, lie, Some(&["PUT"]))
    }

    /// Where tags are listed.
    #[must_use]
    pub fn tags(lie: Lie) -> Self {
        Self::new(What::Tags, lie, Some(&["GET"]))
    }

    /// Only those with one of these methods.
    #[must_use]
    pub fn method(mut self, methods: &'static [&'static str]) -> Self {
        self.methods = Some(methods);
        self
    }

    /// Only those whose path has this in it: a repository, a tag, a digest.
    #[must_use]
    pub fn path(mut self, part: impl ToString) -> Self {
        self.path = Some(part.to_string());
        self
    }

    /// Only those that ask for a range, or those that do not.
    #[must_use]
    pub fn ranged(mut self, yes: bool) -> Self {
        self.ranged = Some(yes);
        self
    }

    /// Only those with `Authorization`, or those without.
    #[must_use]
    pub fn authorized(mut self, yes: bool) -> Self {
        self.authorized = Some(yes);
        self
    }

    /// Not to the first so many.
    #[must_use]
    pub fn skip(self, n: usize) -> Self {
        self.skip.store(n, Ordering::Relaxed);
        self
    }

    /// To so many, and honest again after them.
    #[must_use]
    pub fn times(self, n: usize) -> Self {
        self.times.store(n, Ordering::Relaxed);
        self
    }

    pub(super) fn lie(&self) -> &Lie {
        &self.lie
    }

    /// Whether this request is lied to; counts it.
    pub(super) fn takes(&self, request: &Request) -> bool {
        let what = match self.what {
            What::Any => true,
            What::Ping => Route::of(request.path()) == Route::Ping,
            What::Token => Route::of(request.path()) == Route::Token,
            What::Manifests => matches!(Route::of(request.path()), Route::Manifest(..)),
            What::Blobs => matches!(Route::of(request.path()), Route::Blob(..)),
            What::Uploads => matches!(Route::of(request.path()), Route::Upload(..)),
            What::Tags => matches!(Route::of(request.path()), Route::Tags(..)),
        };
        let wanted = what
            && self.methods.is_none_or(|m| m.contains(&request.method.as_str()))
            && self.path.as_ref().is_none_or(|p| request.path().contains(p.as_str()))
            && self.ranged.is_none_or(|yes| request.header("range").is_some() == yes)
            && self.authorized.is_none_or(|yes| request.header("authorization").is_some() == yes);
        wanted && !count_down(&self.skip) && count_down(&self.times)
    }
}

/// Takes one away if there is one.
fn count_down(n: &AtomicUsize) -> bool {
    n.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
}
