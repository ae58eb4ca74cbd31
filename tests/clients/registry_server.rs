//! Real registries for tests: docker-registry (package docker-registry), plain or with TLS and a password.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::harness::wait_until;

/// Who may use a registry that asks.
pub(crate) const USER: &str = "ann";
/// The password; its colon is allowed in basic authentication, and easily lost.
pub(crate) const PASSWORD: &str = "s3cret:word";
/// The same for docker-registry: bcrypt of little work, made by `htpasswd -nbB -C 4`.
const HTPASSWD: &str = "ann:$2y$04$M5fY0TFCSGFgSPDyUIp3kuHV/8skhZN1l69Ju2Hp5aBSFsSFmanaC\n";

/// How a registry is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// HTTP, for everybody.
    Plain,
    /// HTTP, for [`USER`].
    Password,
    /// HTTPS, for [`USER`]; the certificate is that of a CA made for it.
    Secure,
}

/// A registry that runs until this is dropped; its repositories go with it.
pub(crate) struct Registry {
    dir: TempDir,
    child: Child,
    address: String,
}

impl Registry {
    /// A registry at a free port of 127.0.0.1 in a network namespace.
    pub(crate) fn start(netns: &Path, door: Door) -> Self {
        Self::start_at(netns, door, "127.0.0.1")
    }

    /// The same at another address, which the namespace must have: Docker trusts every registry of 127.0.0.0/8, whatever
    /// its certificate says.
    pub(crate) fn start_at(netns: &Path, door: Door, ip: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("longshore-registry-").tempdir().expect("temporary folder");
        if door == Door::Secure {
            certify(dir.path(), ip);
        }
        let config = dir.path().join("config.yml");
        fs::write(&config, configuration(dir.path(), door, ip)).expect("configuration");
        let log = fs::File::create(dir.path().join("log")).expect("log");
        let child = Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(["docker-registry", "serve"])
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("nsenter (package util-linux)");
        let mut registry = Self { dir, child, address: String::new() };
        wait_until("docker-registry listens: `make test` installs it", || {
            let port = port(&registry.log());
            registry.address = port.map(|port| format!("{ip}:{port}")).unwrap_or_default();
            !registry.address.is_empty()
        });
        registry
    }

    /// `127.0.0.1:41234`: what stands before a repository's name.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A name of an image in it.
    pub(crate) fn name(&self, repository_and_tag: &str) -> String {
        format!("{}/{repository_and_tag}", self.address)
    }

    /// The certificate of the CA, PEM; there only with TLS.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// The folder with everything that was pushed.
    pub(crate) fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }

    /// What it logged, one line for each request.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the registry's log, its last lines");
            let log = self.log();
            let first = log.lines().count().saturating_sub(30);
            log.lines().skip(first).for_each(|l| eprintln!("{l}"));
        }
    }
}

fn configuration(dir: &Path, door: Door, ip: &str) -> String {
    let dir = dir.display();
    let mut out = format!(
        "version: 0.1\nlog:\n  level: info\n  formatter: json\nstorage:\n  filesystem:\n    rootdirectory: {dir}/storage\n  delete:\n    enabled: true\n\
         http:\n  addr: {ip}:0\n  secret: of a test\n"
    );
    if door == Door::Secure {
        out += &format!("  tls:\n    certificate: {dir}/server.crt\n    key: {dir}/server.key\n");
    }
    if door != Door::Plain {
        fs::write(format!("{dir}/htpasswd"), HTPASSWD).expect("htpasswd");
        out += &format!("auth:\n  htpasswd:\n    realm: of a test\n    path: {dir}/htpasswd\n");
    }
    out
}

/// The port in `listening on 127.0.0.1:41234`.
fn port(log: &str) -> Option<u16> {
    let rest = log.split_once("\"listening on ")?.1;
    let address = rest.split(['"', ',']).next()?;
    address.rsplit_once(':')?.1.parse().ok()
}

/// Makes `ca.crt`, and `server.crt` with `server.key` for an address.
fn certify(dir: &Path, ip: &str) {
    let extensions = format!(
        "[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = Longshore test\n\
         [ca]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\nsubjectKeyIdentifier = hash\n\
         [server]\nbasicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature\nextendedKeyUsage = serverAuth\n\
         subjectAltName = IP:{ip},DNS:localhost,DNS:registry.test\nauthorityKeyIdentifier = keyid\nsubjectKeyIdentifier = hash\n"
    );
    fs::write(dir.join("openssl.cnf"), extensions).expect("openssl.cnf");
    let key = "-x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30";
    for line in [
        format!("req {key} -subj /CN=ca -extensions ca -keyout ca.key -out ca.crt"),
        format!(
            "req {key} -subj /CN=server -extensions server -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt"
        ),
    ] {
        let out = Command::new("openssl").args(line.split(' ')).current_dir(dir).output();
        let out = out.expect("openssl (package openssl)");
        assert!(out.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
