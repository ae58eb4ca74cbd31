//! The distribution project's registry (Debian's `docker-registry`), on loopback.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use longshore_oci::image::media;
use longshore_oci::{Digest, Kind};
use longshore_registry::{Client, Config, Credentials, Document, ManifestRef, Repository};
use tempfile::TempDir;

use crate::common::tls::Authority;
use crate::common::{bytes, client, collect, descriptor, manifest, me, quick};

/// Ends with the test.
struct Registry {
    process: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// With the lines of `http` and `auth` in its configuration; `{dir}` is its folder.
    fn start(files: &[(&str, &str)], http: &str, auth: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free now, and most likely still when the registry takes it.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: \
             {{dir}}/data}}\n  delete: {{enabled: true}}\nhttp:\n  addr: {address}\n  relativeurls: true\n{http}{auth}"
        );
        let config = config.replace("{dir}", dir.path().to_str().unwrap());
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry (Debian's package) must be on PATH");
        let mut registry = Self { process, address, dir };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return registry;
            }
            if registry.process.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{}", std::fs::read_to_string(registry.dir.path().join("log")).unwrap());
    }

    fn repository(&self, client: &Client, path: &str, credentials: Credentials) -> Repository {
        client.repository(&format!("{}/{path}", self.address).parse().unwrap(), credentials)
    }
}

async fn upload(repository: &Repository, blob: &[u8]) -> longshore_registry::Result<()> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(blob).unwrap();
    repository.upload_blob(Digest::of(blob), blob.len() as u64, file, |_| {}).await
}

/// Everything there is, against one registry.
async fn round(registry: &Registry, client: &Client, credentials: Credentials) {
    let a = registry.repository(client, "some/where", credentials.clone());
    let b = registry.repository(client, "else/where", credentials);
    let big = bytes(5_000_000);
    let digest = Digest::of(&big);
    assert_eq!(a.has_blob(&digest).await.unwrap(), None);
    for blob in [&big[..], b"layer", b"{}", b""] {
        upload(&a, blob).await.unwrap();
        assert_eq!(a.has_blob(&Digest::of(blob)).await.unwrap(), Some(blob.len() as u64));
        assert_eq!(collect(a.blob(&descriptor(blob)).await.unwrap()).await.unwrap(), blob);
    }
    assert!(b.mount_blob(&digest, "some/where").await.unwrap());
    assert_eq!(b.has_blob(&digest).await.unwrap(), Some(big.len() as u64));
    assert!(!b.mount_blob(&Digest::of(b"unknown"), "some/where").await.unwrap());
    let mut wrong = tempfile::tempfile().unwrap();
    wrong.write_all(b"other").unwrap();
    let e = a.upload_blob(Digest::of(b"bytes"), 5, wrong, |_| {}).await.unwrap_err();
    assert_eq!(e.code(), Some("DIGEST_INVALID"), "{e}");

    let bytes = Bytes::from(manifest());
    for tag in ["1", "2"] {
        let at = ManifestRef::Tag(tag.into());
        assert_eq!(
            a.put_manifest(&at, media::OCI_MANIFEST, bytes.clone()).await.unwrap(),
            Digest::of(&bytes)
        );
        assert_eq!(a.manifest(&at).await.unwrap().bytes, bytes);
        let head = a.head_manifest(&at).await.unwrap().unwrap();
        assert_eq!((head.digest, head.size), (Digest::of(&bytes), bytes.len() as u64));
    }
    let got = a.manifest(&ManifestRef::Digest(Digest::of(&bytes))).await.unwrap();
    assert!(matches!(got.document, Document::Manifest(_)));
    let mut tags = a.tags().await.unwrap();
    tags.sort();
    assert_eq!(tags, ["1", "2"]);
    assert!(a.referrers(&Digest::of(&bytes), None).await.unwrap().manifests.is_empty());
    let e = a.manifest(&ManifestRef::Tag("none".into())).await.unwrap_err();
    assert_eq!((e.kind(), e.code()), (Kind::NotFound, Some("MANIFEST_UNKNOWN")));
    assert_eq!(e.refusal().unwrap().words(), "manifest unknown: manifest unknown");
    assert_eq!(a.head_manifest(&ManifestRef::Tag("none".into())).await.unwrap(), None);
    // A manifest whose blobs are not there.
    let e = b.put_manifest(&ManifestRef::Tag("1".into()), media::OCI_MANIFEST, bytes).await.unwrap_err();
    assert_eq!(e.code(), Some("MANIFEST_BLOB_UNKNOWN"), "{e}");
    assert_eq!(b.tags().await.unwrap_err().code(), Some("NAME_UNKNOWN"));
}

#[tokio::test]
async fn a_registry_without_tls() {
    let registry = Registry::start(&[], "", "");
    round(&registry, &client(quick()), Credentials::Anonymous).await;
    // In pieces, too.
    let mut config = quick();
    config.limits.upload_chunk = 1_000_000;
    let repository = registry.repository(&client(config), "in/pieces", Credentials::Anonymous);
    let blob = bytes(2_500_000);
    upload(&repository, &blob).await.unwrap();
    assert_eq!(collect(repository.blob(&descriptor(&blob)).await.unwrap()).await.unwrap(), blob);
}

#[tokio::test]
async fn a_registry_with_tls_and_passwords() {
    let authority = Authority::new();
    let pair = authority.server(&["127.0.0.1"]);
    // The password is hunter2.
    let htpasswd = "me:$2b$05$ZFvA7j4eso3QCruZnWj9vuchyK.vlYvbApX/RbXE3wVj4o6c9DHnq\n";
    let registry = Registry::start(
        &[("cert.pem", &pair.cert), ("key.pem", &pair.key), ("htpasswd", htpasswd)],
        "  tls: {certificate: {dir}/cert.pem, key: {dir}/key.pem}\n",
        "auth:\n  htpasswd: {realm: here, path: {dir}/htpasswd}\n",
    );
    let certs = tempfile::tempdir().unwrap();
    let folder = certs.path().join(registry.address.to_string());
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    let client = client(Config { certs_dirs: vec![certs.path().to_owned()], ..quick() });
    let host = registry.address.to_string();
    assert_eq!(client.login(&host, me()).await.unwrap().identity_token, None);
    let wrong = Credentials::Basic { username: "me".into(), password: "hunter3".into() };
    for credentials in [wrong, Credentials::Anonymous] {
        assert_eq!(client.login(&host, credentials.clone()).await.unwrap_err().kind(), Kind::Unauthorized);
        let repository = registry.repository(&client, "some/where", credentials);
        let e = repository.tags().await.unwrap_err();
        assert_eq!((e.kind(), e.code()), (Kind::Unauthorized, Some("UNAUTHORIZED")));
    }
    round(&registry, &client, me()).await;
}

/// The connection breaks while a blob is on its way up; this registry then has lost what it had of it.
#[tokio::test]
async fn an_upload_that_broke_off_arrives_all_the_same() {
    let registry = Registry::start(&[], "", "");
    let breaking = Breaking::start(registry.address, 1_500_000);
    let mut config = quick();
    config.limits.upload_chunk = 1_000_000;
    let client = client(config);
    let name = format!("{}/a/b", breaking.address).parse().unwrap();
    let blob = bytes(3_000_000);
    upload(&client.repository(&name, Credentials::Anonymous), &blob).await.unwrap();
    assert!(breaking.broke.load(Ordering::SeqCst));
    let direct = registry.repository(&client, "a/b", Credentials::Anonymous);
    assert_eq!(collect(direct.blob(&descriptor(&blob)).await.unwrap()).await.unwrap(), blob);
}

/// Passes bytes on; after the first so many from clients the connection is closed, once.
struct Breaking {
    address: SocketAddr,
    broke: Arc<AtomicBool>,
}

impl Breaking {
    fn start(to: SocketAddr, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (broke, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let shared = broke.clone();
        std::thread::spawn(move || {
            // More than the test makes.
            for client in listener.incoming().take(64).flatten() {
                let server = TcpStream::connect(to).unwrap();
                let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut back);
                    let _ = back.shutdown(Shutdown::Both);
                });
                let (broke, passed) = (shared.clone(), passed.clone());
                std::thread::spawn(move || pass(client, server, after, &broke, &passed));
            }
        });
        Self { address, broke }
    }
}

fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    after: usize,
    broke: &AtomicBool,
    passed: &AtomicUsize,
) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(n @ 1..) = client.read(&mut piece) {
        let total = passed.fetch_add(n, Ordering::SeqCst) + n;
        if total > after && !broke.swap(true, Ordering::SeqCst) {
            break;
        }
        if server.write_all(&piece[..n]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
