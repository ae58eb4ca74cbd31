//! Who is told what: challenges, tokens, realms, redirects.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::{
    ME, Request, Server, bytes, client, collect, descriptor, manifest, manifest_reply, me, quick, reply,
};
use longshore_oci::Kind;
use longshore_registry::{Credentials, Error, ManifestRef};

fn tag() -> ManifestRef {
    ManifestRef::Tag("1".into())
}

/// A registry that wants a token from `realm`.
fn asking(realm: impl Fn() -> String + Send + Sync + 'static, token: &'static str) -> Server {
    Server::start(move |r| {
        if r.header("authorization") == Some(&format!("Bearer {token}")) {
            return manifest_reply(&manifest());
        }
        let realm = realm();
        reply(401).with(
            "WWW-Authenticate",
            format!(r#"Bearer realm="{realm}",service="s v",scope="repository:a/b:pull""#),
        )
    })
}

fn granting(token: &'static str) -> Server {
    Server::start(move |_| reply(200).body(format!(r#"{{"token":"{token}","expires_in":300}}"#)))
}

#[tokio::test]
async fn a_token_is_fetched_once_and_sent_unasked_from_then_on() {
    let realm = granting("t1");
    let url = realm.url("/token");
    let registry = asking(move || url.clone(), "t1");
    let repository = registry.repository(me());
    for _ in 0..3 {
        repository.manifest(&tag()).await.unwrap();
    }
    let asked = realm.log();
    assert_eq!(
        asked.iter().map(Request::line).collect::<Vec<_>>(),
        ["GET /token?account=me&client_id=longshore&service=s%20v&scope=repository%3Aa%2Fb%3Apull"]
    );
    assert_eq!(asked[0].header("authorization"), Some(ME));
    let answers: Vec<_> =
        registry.log().iter().map(|r| r.header("authorization").map(str::to_owned)).collect();
    assert_eq!(answers, [None, Some("Bearer t1".into()), Some("Bearer t1".into()), Some("Bearer t1".into())]);
}

#[tokio::test]
async fn many_requests_at_once_ask_for_one_token() {
    let realm = granting("t1");
    let url = realm.url("/token");
    let registry = asking(move || url.clone(), "t1");
    let repository = registry.repository(Credentials::Anonymous);
    let all = (0..8).map(|_| {
        let repository = repository.clone();
        tokio::spawn(async move { repository.manifest(&tag()).await.map(drop) })
    });
    for one in futures_util::future::join_all(all).await {
        one.unwrap().unwrap();
    }
    assert_eq!(realm.log().len(), 1);
    assert_eq!(realm.log()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_token_that_is_no_longer_taken_is_replaced_once() {
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let realm = Server::start(move |_| {
        reply(200).body(format!(r#"{{"access_token":"t{}"}}"#, count.fetch_add(1, Ordering::SeqCst)))
    });
    let url = realm.url("/token");
    let good = Arc::new(Mutex::new("Bearer t0".to_owned()));
    let now = good.clone();
    let registry = Server::start(move |r| match r.header("authorization") {
        Some(token) if token == *now.lock().unwrap() => manifest_reply(&manifest()),
        _ => reply(401).with("WWW-Authenticate", format!(r#"Bearer realm="{url}",error="invalid_token""#)),
    });
    let repository = registry.repository(Credentials::Anonymous);
    repository.manifest(&tag()).await.unwrap();
    *good.lock().unwrap() = "Bearer t1".into();
    repository.manifest(&tag()).await.unwrap();
    // A storm: whatever is sent is refused. It ends, and says so.
    *good.lock().unwrap() = "Bearer never".into();
    let e = repository.manifest(&tag()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthorized, "{e}");
    assert_eq!(given.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_never_in_an_address() {
    let realm = granting("t1");
    let url = realm.url("/token");
    let registry = asking(move || url.clone(), "t1");
    registry.repository(Credentials::IdentityToken("secret&1".into())).manifest(&tag()).await.unwrap();
    let asked = &realm.log()[0];
    assert_eq!(asked.line(), "POST /token");
    assert_eq!(
        String::from_utf8_lossy(&asked.body),
        "grant_type=refresh_token&client_id=longshore&service=s%20v&scope=repository%3Aa%2Fb%3Apull&refresh_token=secret%261"
    );
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let registry = asking(|| "http://127.0.0.1:1/never".into(), "mine");
    registry.repository(Credentials::RegistryToken("mine".into())).manifest(&tag()).await.unwrap();
    let e =
        registry.repository(Credentials::RegistryToken("other".into())).manifest(&tag()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthorized, "{e}");
    assert!(!e.to_string().contains("other"), "{e}");
}

#[tokio::test]
async fn basic_is_sent_when_asked_for_and_unasked_from_then_on() {
    let registry = Server::start(|r| match r.header("authorization") {
        Some(ME) => manifest_reply(&manifest()),
        _ => reply(401).with("WWW-Authenticate", r#"Basic realm="here""#),
    });
    let repository = registry.repository(me());
    repository.manifest(&tag()).await.unwrap();
    repository.manifest(&tag()).await.unwrap();
    assert_eq!(registry.log().len(), 3);
    let e = registry.repository(Credentials::Anonymous).manifest(&tag()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthorized);
    assert_eq!(e.refusal().unwrap().words(), "unauthorized: authentication required");
}

#[tokio::test]
async fn atk_29_a_realm_on_another_host_gets_no_credentials() {
    let realm = Server::on("127.0.0.2:0", None, |_| reply(200).body(r#"{"token":"t1"}"#));
    let url = realm.url("/token");
    let registry = asking(move || url.clone(), "t1");
    for credentials in [me(), Credentials::IdentityToken("hunter2".into())] {
        let e = registry.repository(credentials).manifest(&tag()).await.unwrap_err();
        assert!(matches!(e, Error::Forbidden(_)), "{e}");
        let text = e.to_string();
        assert!(
            text.contains("127.0.0.2") && text.contains("token-servers") && !text.contains("hunter2"),
            "{text}"
        );
    }
    assert_eq!(realm.connections(), 0);
    // Without credentials there is nothing to lose.
    registry.repository(Credentials::Anonymous).manifest(&tag()).await.unwrap();
    assert_eq!(realm.log()[0].header("authorization"), None);
    // The configuration may say that it is the registry's own.
    let mut config = quick();
    config.token_servers = vec![("127.0.0.1".into(), "127.0.0.2".into())];
    client(config).repository(&registry.name(), me()).manifest(&tag()).await.unwrap();
    assert_eq!(realm.log()[1].header("authorization"), Some(ME));
}

#[tokio::test]
async fn atk_29_a_realm_at_a_metadata_address_is_not_asked() {
    for bad in ["http://169.254.169.254/latest", "http://[fe80::1]/t", "http://[::ffff:169.254.169.254]/t"] {
        let registry = asking(move || bad.into(), "t1");
        let e = registry.repository(Credentials::Anonymous).manifest(&tag()).await.unwrap_err();
        assert!(matches!(e, Error::Forbidden(_)), "{bad}: {e}");
    }
    for bad in ["file:///etc/passwd", "http://me:pw@127.0.0.1/t", "", "//"] {
        let registry = asking(move || bad.into(), "t1");
        let e = registry.repository(Credentials::Anonymous).manifest(&tag()).await.unwrap_err();
        assert!(matches!(e, Error::Corrupt(_)), "{bad}: {e}");
    }
}

#[tokio::test]
async fn a_token_server_that_lies_ends_in_an_error() {
    for (body, word) in [
        ("<html>".to_owned(), "not a token in JSON"),
        ("{}".to_owned(), "no token"),
        (r#"{"token":"a\r\nX-Evil: 1"}"#.to_owned(), "impossible characters"),
        (format!(r#"{{"token":"{}"}}"#, "x".repeat(5 << 20)), "longer than"),
    ] {
        let realm = Server::start(move |_| reply(200).body(&body));
        let url = realm.url("/token");
        let registry = asking(move || url.clone(), "t1");
        let e = registry.repository(Credentials::Anonymous).manifest(&tag()).await.unwrap_err();
        assert!(e.to_string().contains(word), "{e}");
    }
    let realm = Server::start(|_| reply(401).body(r#"{"details":"incorrect username or password"}"#));
    let url = realm.url("/token");
    let registry = asking(move || url.clone(), "t1");
    let e = registry.repository(me()).manifest(&tag()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthorized);
    assert_eq!(e.refusal().unwrap().words(), "unauthorized: incorrect username or password");
    assert!(!e.to_string().contains("hunter2"), "{e}");
}

#[tokio::test]
async fn atk_30_a_redirect_takes_no_authorization_to_another_origin() {
    let blob = bytes(1000);
    for status in [301, 302, 303, 307, 308] {
        let content = blob.clone();
        // Another port, and another address, are other origins.
        for address in ["127.0.0.1:0", "127.0.0.2:0"] {
            let content = content.clone();
            let store = Server::on(address, None, move |r| {
                assert_eq!(r.header("authorization"), None);
                reply(200).body(&content)
            });
            let place = store.url("/blob?X-Signature=s");
            let registry = Server::start(move |r| match r.header("authorization") {
                Some(ME) => reply(status).with("Location", place.clone()),
                _ => reply(401).with("WWW-Authenticate", "Basic"),
            });
            let stream = registry.repository(me()).blob(&descriptor(&blob)).await.unwrap();
            assert_eq!(collect(stream).await.unwrap(), blob);
            assert_eq!(store.log()[0].header("authorization"), None);
        }
    }
}

#[tokio::test]
async fn atk_30_who_left_does_not_come_back_with_authorization() {
    let home = Arc::new(Mutex::new(String::new()));
    let back = home.clone();
    let other =
        Server::start(move |_| reply(307).with("Location", format!("{}/again", back.lock().unwrap())));
    let away = other.url("/away");
    let registry = Server::start(move |r| match (r.target.as_str(), r.header("authorization")) {
        ("/again", _) => reply(200).body("blob"),
        (_, Some(ME)) => reply(307).with("Location", away.clone()),
        _ => reply(401).with("WWW-Authenticate", "Basic"),
    });
    *home.lock().unwrap() = registry.url("");
    let stream = registry.repository(me()).blob(&descriptor(b"blob")).await.unwrap();
    assert_eq!(collect(stream).await.unwrap(), b"blob");
    assert_eq!(registry.log().last().unwrap().header("authorization"), None);
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_authorization() {
    let registry = Server::start(|r| match (r.target.as_str(), r.header("authorization")) {
        (_, None) => reply(401).with("WWW-Authenticate", "Basic"),
        ("/there", Some(ME)) => reply(200).body("blob"),
        _ => reply(307).with("Location", "/there"),
    });
    let stream = registry.repository(me()).blob(&descriptor(b"blob")).await.unwrap();
    assert_eq!(collect(stream).await.unwrap(), b"blob");
}

#[tokio::test]
async fn atk_31_a_stranger_that_asks_who_we_are_is_not_told() {
    let store = Server::start(|_| reply(401).with("WWW-Authenticate", "Basic"));
    let place = store.url("/blob");
    let registry = Server::start(move |_| reply(307).with("Location", place.clone()));
    let e = registry.repository(me()).blob(&descriptor(b"blob")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthorized, "{e}");
    assert_eq!(store.log().len(), 1);
}

#[tokio::test]
async fn redirects_end() {
    let registry = Server::start(|r| reply(302).with("Location", format!("{}x", r.target)));
    let e = registry.repository(me()).blob(&descriptor(b"blob")).await.unwrap_err();
    assert!(e.to_string().contains("redirected more than 5 times"), "{e}");
    assert_eq!(registry.log().len(), 6);
    for bad in ["http://169.254.169.254/x", "http://[fe80::1]/"] {
        let registry = Server::start(move |_| reply(302).with("Location", bad));
        let e = registry.repository(me()).blob(&descriptor(b"blob")).await.unwrap_err();
        assert!(matches!(e, Error::Forbidden(_)), "{e}");
    }
    let registry = Server::start(|_| reply(302));
    let e = registry.repository(me()).blob(&descriptor(b"blob")).await.unwrap_err();
    assert!(e.to_string().contains("no Location"), "{e}");
}

#[tokio::test]
async fn login() {
    let realm = Server::start(|r| match r.header("authorization") {
        Some(ME) => reply(200).body(r#"{"token":"t","refresh_token":"keep"}"#),
        _ => reply(401)
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}"#),
    });
    let url = realm.url("/token");
    let registry = Server::start(move |r| match r.header("authorization") {
        Some("Bearer t") => reply(200).body("{}"),
        _ => reply(401).with("WWW-Authenticate", format!(r#"Bearer realm="{url}",service="s""#)),
    });
    let client = client(quick());
    let login = client.login(&registry.host(), me()).await.unwrap();
    assert_eq!(login.identity_token.as_deref(), Some("keep"));
    assert_eq!(realm.lines(), ["GET /token?account=me&client_id=longshore&offline_token=true&service=s"]);
    assert_eq!(registry.lines(), ["GET /v2/", "GET /v2/"]);
    let wrong = Credentials::Basic { username: "me".into(), password: "hunter3".into() };
    let e = client.login(&registry.host(), wrong).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthorized);
    assert_eq!(e.refusal().unwrap().words(), "unauthorized: incorrect username or password");

    let basic = Server::start(|r| match r.header("authorization") {
        Some(ME) => reply(200),
        _ => reply(401).with("WWW-Authenticate", "Basic realm=x"),
    });
    assert_eq!(
        client.login(&format!("https://{}/v1/", basic.host()), me()).await.unwrap().identity_token,
        None
    );
    let e = client.login(&basic.host(), Credentials::Anonymous).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthorized);
    let none = Server::start(|_| reply(404));
    assert_eq!(client.login(&none.host(), me()).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn search() {
    let registry = Server::start(|r| {
        assert_eq!(r.target, "/v1/search?q=busy%20box&n=2");
        reply(200).body(
            r#"{"results":[{"name":"busybox","description":"a\u001b[31mb","star_count":3,"is_official":true},
                {"name":"x/y"},{"name":"too/many"}]}"#,
        )
    });
    let found = client(quick()).search(&registry.host(), "busy box", 2, me()).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].description.as_str(), found[0].stars, found[0].official), ("a[31mb", 3, true));
    assert_eq!(registry.log()[0].header("authorization"), Some(ME));
}

/// In a network of its own, where addresses of the internet lead to this process.
#[test]
fn privileged_atk_29_a_public_registry_sends_to_no_private_address() {
    let namespace = longshore_sys::netns::create().unwrap();
    let run = || {
        for args in [["link", "set", "lo", "up"].as_slice(), &["addr", "add", "9.9.9.9/32", "dev", "lo"]] {
            assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let realm = granting("t1");
            let port = realm.address.port();
            let registry = Server::on("9.9.9.9:5000", None, move |_| {
                reply(401)
                    .with("WWW-Authenticate", format!(r#"Bearer realm="http://127.0.0.1:{port}/token""#))
            });
            let mut config = quick();
            config.insecure = vec!["9.9.9.9:5000".parse().unwrap()];
            let repository = client(config).repository(&registry.name(), Credentials::Anonymous);
            let e = repository.manifest(&tag()).await.unwrap_err();
            assert!(matches!(e, Error::Forbidden(_)), "{e}");
            assert!(e.to_string().contains("private"), "{e}");
            assert_eq!(realm.connections(), 0);
        });
    };
    longshore_sys::netns::with_netns(namespace.as_fd(), run).unwrap();
}
