//! TLS with authorities and certificates of folders, hosts without TLS, and proxies.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use longshore_oci::Kind;
use longshore_registry::{Config, Credentials, Error, ManifestRef, ProxyConfig};

use crate::common::tls::{Authority, Pair};
use crate::common::{ME, Server, client, manifest, manifest_reply, me, quick, reply};

fn tag() -> ManifestRef {
    ManifestRef::Tag("1".into())
}

fn serve(authority: &Authority, pair: &Pair, clients: bool) -> Server {
    Server::on("127.0.0.1:0", Some(authority.config(pair, clients)), |_| manifest_reply(&manifest()))
}

/// A client for which every name leads to `server`, by a proxy: what is at a loopback address needs no TLS, and names
/// behind a proxy have no address.
fn through(server: SocketAddr) -> (Config, Relay) {
    let relay = Relay::start(server, false);
    let proxy = ProxyConfig { https: Some(relay.url()), http: Some(relay.url()), no_proxy: String::new() };
    (Config { proxy, ..quick() }, relay)
}

async fn pull(config: Config, name: &str, credentials: Credentials) -> Result<(), Error> {
    let name = name.parse().unwrap();
    client(config).repository(&name, credentials).manifest(&tag()).await.map(drop)
}

/// A proxy that answers CONNECT with a way to one server, whatever the name.
struct Relay {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    fn start(to: SocketAddr, closed: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = heads.clone();
        std::thread::spawn(move || {
            // More than any test makes.
            for stream in listener.incoming().take(64).flatten() {
                let log = log.clone();
                std::thread::spawn(move || relay(stream, to, closed, &log));
            }
        });
        Self { address, heads }
    }

    fn url(&self) -> String {
        format!("http://me:hunter2@{}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn relay(mut stream: TcpStream, to: SocketAddr, closed: bool, log: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head.clone()).unwrap();
    log.lock().unwrap().push(text.clone());
    if closed {
        let _ = stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
        return;
    }
    let mut server = TcpStream::connect(to).unwrap();
    if text.starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    } else {
        server.write_all(&head).unwrap();
    }
    let (mut from_server, mut to_client) = (server.try_clone().unwrap(), stream.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut stream, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Write);
}

fn put(dir: &Path, host: &str, files: &[(&str, &str)]) {
    let dir = dir.join(host);
    std::fs::create_dir_all(&dir).unwrap();
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[tokio::test]
async fn an_authority_comes_from_the_hosts_folder() {
    let authority = Authority::new();
    let server = serve(&authority, &authority.server(&["registry.test"]), false);
    let (mut config, relay) = through(server.address);
    let dir = tempfile::tempdir().unwrap();
    config.certs_dirs = vec![dir.path().join("none"), dir.path().to_owned()];

    let e = pull(config.clone(), "registry.test/a/b", Credentials::Anonymous).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    let text = e.to_string();
    assert!(text.contains("certificate signed by unknown authority"), "{text}");
    assert!(text.contains("none/registry.test/ca.crt"), "{text}");
    assert!(!text.contains("tried"), "{text}");

    // A folder of another port is another host's; both ways of writing the own port are its own.
    put(dir.path(), "registry.test:5000", &[("ca.crt", &authority.pem())]);
    assert!(pull(config.clone(), "registry.test/a/b", Credentials::Anonymous).await.is_err());
    let running = client(config.clone());
    let repository = running.repository(&"registry.test/a/b".parse().unwrap(), Credentials::Anonymous);
    assert!(repository.manifest(&tag()).await.is_err());
    put(dir.path(), "registry.test:443", &[("ca.crt", &authority.pem())]);
    // A client that runs sees what was put there since.
    repository.manifest(&tag()).await.unwrap();
    pull(config.clone(), "registry.test:5000/a/b", Credentials::Anonymous).await.unwrap();
    assert!(
        relay.heads()[0].starts_with("CONNECT registry.test:443 HTTP/1.1\r\nHost: registry.test:443\r\n")
    );
    assert!(relay.heads()[0].contains(&format!("\r\nProxy-Authorization: {ME}\r\n")));

    // A certificate for another name is no good.
    let other = serve(&authority, &authority.server(&["other.test"]), false);
    let (wrong, _relay) = through(other.address);
    let e =
        pull(Config { certs_dirs: config.certs_dirs, ..wrong }, "registry.test/a/b", me()).await.unwrap_err();
    assert!(e.to_string().contains("failed to verify certificate"), "{e}");
    assert!(other.log().is_empty());
}

#[tokio::test]
async fn a_certificate_of_ours_comes_from_the_hosts_folder() {
    let authority = Authority::new();
    let server = serve(&authority, &authority.server(&["registry.test"]), true);
    let (mut config, _relay) = through(server.address);
    let dir = tempfile::tempdir().unwrap();
    config.certs_dirs = vec![dir.path().to_owned()];
    let own = authority.client();
    put(dir.path(), "registry.test", &[("ca.crt", &authority.pem())]);
    assert!(pull(config.clone(), "registry.test/a/b", Credentials::Anonymous).await.is_err());
    put(dir.path(), "registry.test", &[("client.cert", &own.cert)]);
    let e = pull(config.clone(), "registry.test/a/b", Credentials::Anonymous).await.unwrap_err();
    assert!(e.to_string().contains("missing client.key for "), "{e}");
    put(dir.path(), "registry.test", &[("client.key", "no key")]);
    let e = pull(config.clone(), "registry.test/a/b", Credentials::Anonymous).await.unwrap_err();
    assert!(e.to_string().contains("client.key: no private key"), "{e}");
    assert!(server.log().is_empty());
    put(dir.path(), "registry.test", &[("client.key", &own.key)]);
    pull(config, "registry.test/a/b", Credentials::Anonymous).await.unwrap();
    assert!(server.log()[0].certificate);
}

#[tokio::test]
async fn atk_30_a_redirect_takes_no_certificate_to_another_origin() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let own = authority.client();
    for host in ["registry.test", "store.test"] {
        put(dir.path(), host, &[("ca.crt", &authority.pem()), ("c.cert", &own.cert), ("c.key", &own.key)]);
    }
    // One server, two names: the proxy leads both to it. Who shows no certificate is refused.
    let pair = authority.server(&["registry.test", "store.test"]);
    let server = Server::on("127.0.0.1:0", Some(authority.config(&pair, true)), |r| match r.header("host") {
        Some("registry.test") => reply(307).with("Location", "https://store.test/blob"),
        _ => reply(200).body("blob"),
    });
    let (mut config, _relay) = through(server.address);
    config.certs_dirs = vec![dir.path().to_owned()];
    config.limits.attempts = 1;
    let repository = client(config).repository(&"registry.test/a/b".parse().unwrap(), Credentials::Anonymous);
    // So the redirect cannot be followed, though the other host has a folder with a certificate of ours.
    assert!(repository.blob(&crate::common::descriptor(b"blob")).await.is_err());
    let log = server.log();
    assert_eq!(log.len(), 1);
    assert!(log[0].certificate);
}

#[tokio::test]
async fn atk_30_a_redirect_from_https_to_http_is_refused() {
    let authority = Authority::new();
    let pair = authority.server(&["registry.test"]);
    let plain = Server::start(|_| reply(200).body("blob"));
    let place = plain.url("/blob");
    let server = Server::on("127.0.0.1:0", Some(authority.config(&pair, false)), move |_| {
        reply(307).with("Location", place.clone())
    });
    let (mut config, _relay) = through(server.address);
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "registry.test", &[("ca.crt", &authority.pem())]);
    config.certs_dirs = vec![dir.path().to_owned()];
    let repository = client(config).repository(&"registry.test/a/b".parse().unwrap(), me());
    let e = repository.blob(&crate::common::descriptor(b"blob")).await.unwrap_err();
    assert!(matches!(e, Error::Forbidden(_)), "{e}");
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn a_host_without_tls_is_refused_with_the_remedy_unless_it_is_insecure() {
    let server = Server::start(|_| manifest_reply(&manifest()));
    let (config, relay) = through(server.address);
    let e = pull(config.clone(), "registry.test:5000/a/b", me()).await.unwrap_err();
    let text = e.to_string();
    assert!(text.contains("server gave HTTP response to HTTPS client"), "{text}");
    assert!(text.contains("add it to insecure-registries"), "{text}");
    assert!(server.log().is_empty());

    for rule in ["registry.test", "registry.test:5000"] {
        let insecure = Config { insecure: vec![rule.parse().unwrap()], ..config.clone() };
        let client = client(insecure);
        let repository =
            client.repository(&"registry.test:5000/a/b".parse().unwrap(), Credentials::Anonymous);
        let before = relay.heads().len();
        repository.manifest(&tag()).await.unwrap();
        repository.manifest(&tag()).await.unwrap();
        let heads = relay.heads().split_off(before);
        // TLS was tried once; without it the proxy reads the request itself.
        assert!(heads[0].starts_with("CONNECT "), "{heads:?}");
        assert!(
            heads[1].starts_with("GET http://registry.test:5000/v2/a/b/manifests/1 HTTP/1.1\r\n"),
            "{heads:?}"
        );
        assert!(heads[1].to_lowercase().contains(&format!("proxy-authorization: {}", ME.to_lowercase())));
        assert_eq!(heads.len(), 2, "{heads:?}");
    }
    let other = Config { insecure: vec!["registry.test:5001".parse().unwrap()], ..config };
    assert!(pull(other, "registry.test:5000/a/b", Credentials::Anonymous).await.is_err());
}

#[tokio::test]
async fn an_insecure_host_with_tls_need_not_prove_itself() {
    let authority = Authority::new();
    let server = serve(&authority, &authority.server(&["somebody.else"]), false);
    // Loopback is insecure without a rule, by address and by name.
    pull(quick(), &format!("{}/a/b", server.host()), Credentials::Anonymous).await.unwrap();
    pull(quick(), &format!("localhost:{}/a/b", server.address.port()), Credentials::Anonymous).await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let relay = Relay::start("127.0.0.1:1".parse().unwrap(), true);
    let config =
        Config { proxy: ProxyConfig { https: Some(relay.url()), ..ProxyConfig::default() }, ..quick() };
    let e = pull(config, "registry.test/a/b", me()).await.unwrap_err().to_string();
    assert!(e.contains(&format!("proxy {}", relay.address)) && e.contains("407"), "{e}");
    assert!(!e.contains("hunter2"), "{e}");
    let socks = ProxyConfig { https: Some("socks5://127.0.0.1:1".into()), ..ProxyConfig::default() };
    let e = pull(Config { proxy: socks, ..quick() }, "registry.test/a/b", me()).await.unwrap_err();
    assert!(e.to_string().contains("SOCKS proxies are not supported"), "{e}");
}
