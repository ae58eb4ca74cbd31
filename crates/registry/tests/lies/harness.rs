//! Runs one case after the other, many at once, and says what went wrong with which.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use longshore_oci::{Kind, Reference};
use longshore_registry::{
    Client, Config, Credentials, Document, Error, InsecureRule, Limits, ManifestRef, ProxyConfig, Repository,
    Result,
};
use longshore_testkit::registry::{Image, Layer, Pushed, Registry, Rule, noise};

/// Longer than any case may take: the limits of [`config`] allow ten seconds or so.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "correct-horse-battery";

/// What has to come of a lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// Nothing: what was wanted is there.
    Works,
    /// An error of one of these kinds.
    Fails(&'static [Kind]),
    /// One or the other, but what is there is right.
    Either,
}

pub(crate) const CORRUPT: Then = Then::Fails(&[Kind::Corrupt]);
pub(crate) const UNAVAILABLE: Then = Then::Fails(&[Kind::Unavailable]);
pub(crate) const DENIED: Then = Then::Fails(&[Kind::Denied]);

/// Limits that a test has time for.
pub(crate) fn config() -> Config {
    Config {
        mirrors: Vec::new(),
        // Loopback is not, by itself, once a certificate was seen there.
        insecure: vec![InsecureRule::Network([127, 0, 0, 0].into(), 8)],
        certs_dirs: Vec::new(),
        proxy: ProxyConfig::default(),
        limits: Limits {
            connect: Duration::from_secs(3),
            header: Duration::from_secs(1),
            commit: Duration::from_secs(2),
            idle: Duration::from_secs(1),
            rate_window: Duration::from_secs(2),
            min_rate: 1024,
            document: Duration::from_secs(3),
            attempts: 3,
            backoff: Duration::from_millis(10),
            backoff_max: Duration::from_secs(2),
            retry_total: Duration::from_secs(10),
            redirects: 5,
            manifest: 4 << 20,
            body: 1 << 20,
            entries: 1000,
            pages: 10,
            upload_chunk: 64 << 10,
        },
        ..Config::default()
    }
}

/// A registry that wants a password, one that must never see it, and a client that has it.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) other: Registry,
    pub(crate) image: Image,
    pub(crate) pushed: Pushed,
    pub(crate) repository: Repository,
}

pub(crate) fn credentials() -> Credentials {
    Credentials::Basic { username: USER.into(), password: PASSWORD.into() }
}

pub(crate) fn repository(registry: &Registry, config: Config) -> Repository {
    let name: Reference = registry.reference("zoo/lion", "1").parse().unwrap();
    Client::new(config).unwrap().repository(&name, credentials())
}

/// The layer that is lied about: 200 kB that do not shrink, without a configuration that could be taken for it.
pub(crate) fn image() -> Image {
    Image::new().layer(Layer::tar(&[("noise", &noise(1, 200_000))]).gzip())
}

impl Bench {
    pub(crate) fn basic() -> Self {
        Self::with(Registry::builder().basic(USER, PASSWORD).start())
    }

    pub(crate) fn token() -> Self {
        Self::with(Registry::builder().token(USER, PASSWORD, false).start())
    }

    pub(crate) fn with(registry: Registry) -> Self {
        let other = Registry::builder().on(Ipv4Addr::new(127, 0, 0, 2)).start();
        let image = image();
        image.put(&other, "zoo/lion", "1");
        let pushed = image.put(&registry, "zoo/lion", "1");
        let repository = repository(&registry, config());
        Self { registry, other, image, pushed, repository }
    }

    /// What a pull reads: the manifest by its tag, the configuration and the layer.
    pub(crate) async fn pull(&self) -> Result<()> {
        pull(&self.repository, &self.pushed).await
    }
}

/// Reads all of an image; what is read without an error is right.
pub(crate) async fn pull(repository: &Repository, pushed: &Pushed) -> Result<()> {
    let fetched = repository.manifest(&ManifestRef::Tag("1".into())).await?;
    assert_eq!(fetched.digest, pushed.manifest, "a wrong manifest was taken for right");
    let Document::Manifest(manifest) = fetched.document else { panic!("a manifest was taken for an index") };
    let config = repository.read_blob(&manifest.config, 1 << 20).await?;
    assert_eq!(
        longshore_oci::Digest::of(&config),
        pushed.config,
        "a wrong configuration was taken for right"
    );
    for (layer, digest) in manifest.layers.iter().zip(&pushed.layers) {
        let bytes = drain(repository, layer).await?;
        assert_eq!(longshore_oci::Digest::of(&bytes), *digest, "a wrong layer was taken for right");
    }
    Ok(())
}

/// All bytes of a blob.
pub(crate) async fn drain(
    repository: &Repository,
    layer: &longshore_oci::image::Descriptor,
) -> Result<Bytes> {
    let mut stream = repository.blob(layer).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes.into())
}

/// What is wrong with an outcome, if anything.
pub(crate) fn judge(then: Then, outcome: &Result<()>, took: Duration) -> Option<String> {
    if took > DEADLINE {
        return Some(format!("it took {took:?}"));
    }
    match (then, outcome) {
        (Then::Works | Then::Either, Ok(())) => None,
        (Then::Works, Err(e)) => Some(format!("it failed: {e}")),
        (Then::Fails(_), Ok(())) => Some("it went unnoticed".into()),
        (Then::Fails(kinds), Err(e)) if !kinds.contains(&e.kind()) => {
            Some(format!("{:?} instead of {kinds:?}: {e}", e.kind()))
        }
        (_, Err(e)) => unclear(e),
    }
}

/// Whether an error's words are fit to be shown.
fn unclear(e: &Error) -> Option<String> {
    let text = e.to_string();
    let wrong = |why: &str| Some(format!("{why}: {text:?}"));
    if text.is_empty() || text.len() > 2000 {
        return wrong("its words are not of a length that people read");
    }
    if text.chars().any(char::is_control) {
        return wrong("control characters are passed on");
    }
    if text.contains(PASSWORD) || text.contains("YW5uO") {
        return wrong("the password is told");
    }
    if !text.contains("127.0.0.") && !text.contains("zoo/lion") {
        return wrong("it does not say where");
    }
    None
}

/// One case: its name and what is wrong with it.
pub(crate) type Verdict = (String, Option<String>);

/// Does `work` against a registry that lies so, and again when it is honest.
pub(crate) async fn lied_to<F, W>(name: &str, bench: Bench, rules: Vec<Rule>, then: Then, work: W) -> Verdict
where
    W: Fn(Arc<Bench>) -> F,
    F: Future<Output = Result<()>>,
{
    for rule in rules {
        bench.registry.lie(rule);
    }
    let bench = Arc::new(bench);
    let begun = Instant::now();
    let outcome = tokio::time::timeout(DEADLINE * 2, work(Arc::clone(&bench))).await;
    let took = begun.elapsed();
    let mut wrong = match &outcome {
        Err(_) => Some("it does not end".to_owned()),
        Ok(outcome) => judge(then, outcome, took),
    };
    if bench.other.requests().iter().any(longshore_testkit::registry::Recorded::has_credentials) {
        wrong = Some("credentials went to another host".into());
    }
    let sent: u64 = bench.registry.requests().iter().map(|r| r.sent).sum();
    if wrong.is_none() && sent > 64 << 20 {
        wrong = Some(format!("{sent} bytes were read"));
    }
    bench.registry.be_honest();
    if wrong.is_none()
        && let Err(e) = work(Arc::clone(&bench)).await
    {
        wrong = Some(format!("the next attempt failed: {e}"));
    }
    if let Ok(Err(e)) = &outcome
        && std::env::var_os("LIES_SHOW").is_some()
    {
        eprintln!("{name}: {took:?}: {e}");
    }
    (name.to_owned(), wrong)
}

/// Runs all cases at once, and fails with all that is wrong.
pub(crate) async fn run_all(cases: Vec<impl Future<Output = Verdict>>) {
    let verdicts = futures_util::future::join_all(cases).await;
    let count = verdicts.len();
    let wrong: Vec<String> = verdicts
        .into_iter()
        .filter_map(|(name, wrong)| wrong.map(|wrong| format!("{name}: {wrong}")))
        .collect();
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
