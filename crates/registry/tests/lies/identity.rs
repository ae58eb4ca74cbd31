//! Who is told who we are: redirects, challenges, token servers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use longshore_oci::Kind;
use longshore_registry::{Client, Config, Credentials};
use longshore_testkit::registry::{Lie, Registry, Rule};

use crate::harness::{
    Bench, CORRUPT, DENIED, PASSWORD, Then, UNAVAILABLE, USER, config, credentials, image, lied_to, pull,
    repository, run_all,
};

const UNAUTHORIZED: Then = Then::Fails(&[Kind::Unauthorized]);

/// Hosts that no registry may make us ask: cloud machines answer there with their keys.
const METADATA: &str = "http://169.254.169.254";

#[tokio::test(flavor = "multi_thread")]
async fn atk_30_redirects_take_no_credentials_along() {
    let layer = image().layers[0].blob.digest();
    let mut cases = Vec::new();
    for (token, code) in [301, 302, 303, 307, 308].into_iter().flat_map(|c| [(false, c), (true, c)]) {
        for what in ["blob", "manifest"] {
            let bench = if token { Bench::token() } else { Bench::basic() };
            let to = Lie::RedirectToHost(code, bench.other.origin().to_owned());
            let rule = if what == "blob" { Rule::blobs(to).path(layer) } else { Rule::manifests(to) };
            let name = format!("{what} {code}, token {token}");
            cases.push(async move {
                let name = name;
                lied_to(
                    &name,
                    bench,
                    vec![rule.authorized(true)],
                    Then::Works,
                    |b| async move { b.pull().await },
                )
                .await
            });
        }
    }
    run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_30_redirects_that_lead_nowhere() {
    let to = |place: &str| Lie::Redirect(307, Some(place.to_owned()));
    let refused = Then::Fails(&[Kind::Denied, Kind::Corrupt, Kind::Unavailable]);
    let cases = vec![
        ("for ever", Lie::RedirectLoop, CORRUPT),
        ("without a place", Lie::Redirect(307, None), CORRUPT),
        ("to no address", to("http://[::bad"), CORRUPT),
        ("to a file", to("file:///etc/passwd"), CORRUPT),
        ("to another protocol", to("gopher://127.0.0.2/x"), CORRUPT),
        ("to a user", to("http://ann:pw@127.0.0.2:1/"), refused),
        ("to the keys of a cloud machine", to(&format!("{METADATA}/latest/meta-data/")), DENIED),
        ("to the same in another notation", to("http://2852039166/latest/meta-data/"), refused),
        ("to the same in IPv6", to("http://[::ffff:169.254.169.254]/latest/"), refused),
        ("to nobody", to("http://127.0.0.2:1/"), UNAVAILABLE),
        (
            "with a line break",
            to("/v2/\u{b}x y"),
            Then::Fails(&[Kind::Corrupt, Kind::NotFound, Kind::Unavailable]),
        ),
    ];
    let layer = image().layers[0].blob.digest();
    let cases =
        cases.into_iter().map(|(name, lie, then)| {
            lied_to(name, Bench::basic(), vec![Rule::blobs(lie).path(layer)], then, |b| async move {
                b.pull().await
            })
        });
    run_all(cases.collect()).await;
}

/// A folder of certificates that trusts a registry.
fn trusting(registry: &Registry) -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join(registry.host());
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("ca.crt"), registry.ca().unwrap()).unwrap();
    let config = Config { certs_dirs: vec![dir.path().to_owned()], insecure: Vec::new(), ..config() };
    (dir, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_30_what_came_by_tls_goes_on_by_tls() {
    for (name, manifest, redirect) in
        [("blob", false, true), ("manifest", true, true), ("realm", false, false), ("upload", false, true)]
    {
        let registry = Registry::builder().tls().basic(USER, PASSWORD).start();
        let (_dir, config) = trusting(&registry);
        let b = Bench { repository: repository(&registry, config), ..Bench::with(registry) };
        b.pull().await.unwrap_or_else(|e| panic!("{name}: before: {e}"));
        let to = b.other.origin().to_owned();
        let e = if name == "upload" {
            b.registry.lie(Rule::upload_starts(Lie::LocationOnHost(to)));
            crate::writing::upload(&b).await.unwrap_err()
        } else {
            let lie = match redirect {
                true => Lie::RedirectToHost(307, to),
                false => Lie::Challenge(vec![format!("Bearer realm=\"{to}/token\",service=\"x\"")]),
            };
            b.registry.lie(if manifest { Rule::manifests(lie) } else { Rule::blobs(lie) });
            b.pull().await.unwrap_err()
        };
        assert_eq!(e.kind(), Kind::Denied, "{name}: {e}");
        assert_eq!(b.other.requests().len(), 0, "{name}: the other was asked");
        b.registry.be_honest();
        b.pull().await.unwrap_or_else(|e| panic!("{name}: afterwards: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_29_a_password_goes_to_the_registrys_own_token_server() {
    let other = "http://127.0.0.2:1";
    let bearer = |realm: &str| Lie::Challenge(vec![format!("Bearer realm=\"{realm}\",service=\"s\"")]);
    let refused = Then::Fails(&[Kind::Denied, Kind::Corrupt, Kind::Unauthorized]);
    let long = format!("Bearer realm=\"{}\"", "x".repeat(60_000));
    let cases = vec![
        ("on another host", bearer(&format!("{other}/token")), DENIED),
        ("on another host, by a user in front", bearer("http://127.0.0.1@127.0.0.2:1/token"), refused),
        ("at the keys of a cloud machine", bearer(&format!("{METADATA}/token")), DENIED),
        ("in a file", bearer("file:///etc/passwd"), refused),
        ("nowhere", bearer(""), refused),
        ("without a realm", Lie::Challenge(vec!["Bearer service=\"s\"".into()]), UNAUTHORIZED),
        ("without anything", Lie::Challenge(Vec::new()), UNAUTHORIZED),
        (
            "of a kind that nobody knows",
            Lie::Challenge(vec!["Negotiate".into(), "Digest realm=\"x\"".into()]),
            UNAUTHORIZED,
        ),
        ("without an end", Lie::Challenge(vec!["Bearer realm=\"http://127".into()]), refused),
        ("of nothing but commas", Lie::Challenge(vec![",,,=,=\"\"\\,\"".into()]), UNAUTHORIZED),
        ("very long", Lie::Challenge(vec![long]), refused),
        ("a hundred", Lie::Challenge(vec!["Basic realm=\"x\"".into(); 90]), UNAUTHORIZED),
        ("again and again", Lie::Challenge(vec!["Basic realm=\"x\"".into()]), UNAUTHORIZED),
    ];
    let cases = cases.into_iter().map(|(name, lie, then)| {
        lied_to(name, Bench::basic(), vec![Rule::manifests(lie)], then, |b| async move { b.pull().await })
    });
    run_all(cases.collect()).await;
}

/// A registry that says no for ever is not asked for ever.
#[tokio::test(flavor = "multi_thread")]
async fn atk_32_a_storm_of_401() {
    for bench in [Bench::basic(), Bench::token()] {
        bench.registry.lie(Rule::manifests(Lie::Status(401, None)));
        let challenge = format!("Bearer realm=\"{}/token\",service=\"s\"", bench.registry.origin());
        bench.registry.lie(Rule::blobs(Lie::Challenge(vec![challenge])));
        assert_eq!(bench.pull().await.unwrap_err().kind(), Kind::Unauthorized);
        let descriptor = serde_json::from_value(bench.image.manifest()["layers"][0].clone()).unwrap();
        let e = crate::harness::drain(&bench.repository, &descriptor).await.unwrap_err();
        assert!(matches!(e.kind(), Kind::Unauthorized | Kind::NotFound), "{e}");
        assert!(bench.registry.requests().len() < 20, "{} requests", bench.registry.requests().len());
        bench.registry.be_honest();
        bench.pull().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn atk_29_token_servers_that_lie() {
    let token = |text: &str| Lie::Token(text.as_bytes().to_vec());
    let refused = Then::Fails(&[Kind::Corrupt, Kind::Unauthorized, Kind::Invalid, Kind::Denied]);
    let large = Then::Fails(&[Kind::TooLarge]);
    let cases = vec![
        ("junk", token("<html>"), refused),
        ("nothing", token(""), refused),
        ("no token", token("{}"), refused),
        ("an empty token", token(r#"{"token":""}"#), refused),
        ("a number", token(r#"{"token":7}"#), refused),
        ("a token with a line break", token(r#"{"token":"x\r\nX-Evil: 1"}"#), refused),
        (
            "a token of a megabyte",
            Lie::Token(format!("{{\"token\":\"{}\"}}", "x".repeat(1 << 20)).into_bytes()),
            large,
        ),
        (
            "a token of ten kilobytes",
            Lie::Token(format!("{{\"token\":\"{}\"}}", "x".repeat(10_000)).into_bytes()),
            refused,
        ),
        ("a token that is worth nothing", token(r#"{"token":"worthless"}"#), UNAUTHORIZED),
        (
            "that ended long ago",
            token(r#"{"token":"x","expires_in":-99999999999,"issued_at":"1970"}"#),
            refused,
        ),
        ("that never ends", token(r#"{"token":"x","expires_in":1e300}"#), refused),
        ("endless", Lie::Endless, large),
        ("silent", Lie::Stall, UNAVAILABLE),
        ("closed", Lie::Close, UNAVAILABLE),
        ("500", Lie::Status(500, None), UNAVAILABLE),
        ("403", Lie::Status(403, None), DENIED),
        (
            "a redirect to another host",
            Lie::RedirectToHost(302, "http://127.0.0.2:1".into()),
            Then::Fails(&[Kind::Denied, Kind::Corrupt, Kind::Unavailable, Kind::Unauthorized]),
        ),
        ("a redirect to itself", Lie::RedirectLoop, CORRUPT),
        ("a refusal of a gigabyte", Lie::HugeError(401, 1 << 30), UNAUTHORIZED),
    ];
    let cases = cases.into_iter().map(|(name, lie, then)| {
        lied_to(name, Bench::token(), vec![Rule::token(lie)], then, |b| async move { b.pull().await })
    });
    run_all(cases.collect()).await;
}

/// The token server is redirected to a server that listens: it must not get the password.
#[tokio::test(flavor = "multi_thread")]
async fn atk_29_a_token_servers_redirect_takes_no_password_along() {
    for code in [301, 302, 307, 308] {
        let b = Bench::token();
        b.registry.lie(Rule::token(Lie::RedirectToHost(code, b.other.origin().to_owned())));
        let _ = b.pull().await;
        for request in b.other.requests() {
            assert!(!request.has_credentials(), "{code}: {request:?}");
            assert!(request.received == 0, "{code}: {request:?}");
        }
    }
}

/// Where the token server is another one, the registry's password goes nowhere, and anonymous pulls go on.
#[tokio::test(flavor = "multi_thread")]
async fn atk_29_strangers_tokens_are_for_nobody_in_particular() {
    let realm = Registry::builder().on(Ipv4Addr::new(127, 0, 0, 3)).token(USER, PASSWORD, true).start();
    let b = Bench::with(Registry::builder().token_from(&realm).start());
    let e = b.pull().await.unwrap_err();
    assert_eq!(e.kind(), Kind::Denied, "{e}");
    assert!(realm.requests().iter().all(|r| !r.has_credentials() && !r.target.contains(PASSWORD)));
    let name = b.repository.name().clone();
    let anonymous = Client::new(config()).unwrap().repository(&name, Credentials::Anonymous);
    pull(&anonymous, &b.pushed).await.unwrap();
    assert!(realm.requests().iter().all(|r| !r.has_credentials()));
}

/// Tokens that end in the middle are asked for again, without the user.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_is_renewed() {
    let b = Arc::new(Bench::token());
    b.pull().await.unwrap();
    b.registry.expire_tokens();
    b.pull().await.unwrap();
    crate::writing::upload(&b).await.unwrap();
    b.registry.expire_tokens();
    crate::writing::push(&b).await.unwrap();
}

/// Two registries, one client: what one of them gave is not told to the other.
#[tokio::test(flavor = "multi_thread")]
async fn atk_30_tokens_stay_with_their_registry() {
    let b = Bench::token();
    let client = Client::new(config()).unwrap();
    let own = client.repository(b.repository.name(), credentials());
    pull(&own, &b.pushed).await.unwrap();
    let name = b.other.reference("zoo/lion", "1").parse().unwrap();
    pull(&client.repository(&name, Credentials::Anonymous), &b.pushed).await.unwrap();
    assert!(b.other.requests().iter().all(|r| !r.has_credentials()));
}
