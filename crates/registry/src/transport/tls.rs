//! Whom to believe and as whom to speak, for each host: the system's authorities and the folders of certificates.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::ConnectError;
use crate::url::Origin;

/// Bytes of one file of certificates.
const MAX_FILE: u64 = 1 << 20;
/// Files of one folder.
const MAX_FILES: usize = 64;
/// Hosts whose configuration is kept.
const MAX_KEPT: usize = 128;

/// Makes and keeps TLS configurations.
pub(crate) struct Tls {
    certs_dirs: Vec<PathBuf>,
    system: OnceLock<Arc<RootCertStore>>,
    kept: Mutex<HashMap<Key, (Stamp, Arc<ClientConfig>)>>,
}

/// Host and port; whether the server must prove itself; whether we may.
type Key = (String, bool, bool);
/// Path, inode, size and time of each file in a host's folders.
type Stamp = Vec<(PathBuf, u64, u64, i64, i64)>;

impl Tls {
    pub(crate) fn new(certs_dirs: Vec<PathBuf>) -> Self {
        Self { certs_dirs, system: OnceLock::new(), kept: Mutex::default() }
    }

    /// The configuration for `to`. `verify`: its certificate must be good; `client`: the certificate of its folder is
    /// shown when it asks for one. Reads files: not for an async thread.
    pub(crate) fn config(
        &self,
        to: &Origin,
        verify: bool,
        client: bool,
    ) -> Result<Arc<ClientConfig>, ConnectError> {
        let files = self.files(to)?;
        let key = (to.host_port(), verify, client);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = kept.get(&key).filter(|(stamp, _)| *stamp == files) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(&files, verify, client)?);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(key, (files, config.clone()));
        Ok(config)
    }

    /// Every file of the host's folders; a folder that is not there has none.
    fn files(&self, to: &Origin) -> Result<Stamp, ConnectError> {
        let mut names = vec![to.host_port()];
        if to.authority() != to.host_port() {
            names.push(to.authority());
        }
        let mut out = Stamp::new();
        for dir in self.certs_dirs.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name))) {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let Ok(m) = fs::metadata(entry.path()) else { continue };
                if m.is_file() {
                    out.push((entry.path(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
                }
            }
            if out.len() > MAX_FILES {
                return Err(unusable(&dir, "too many files"));
            }
        }
        out.sort();
        Ok(out)
    }

    fn build(&self, files: &Stamp, verify: bool, client: bool) -> Result<ClientConfig, ConnectError> {
        let provider = Arc::new(ring::default_provider());
        let failed = |e: TlsError| ConnectError::new(format!("TLS: {e}"), false);
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let builder = if verify {
            builder.with_root_certificates(self.roots(files)?)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        };
        match if client { client_pair(files)? } else { None } {
            Some((chain, key, path)) => {
                builder.with_client_auth_cert(chain, key).map_err(|e| unusable(&path, &e.to_string()))
            }
            None => Ok(builder.with_no_client_auth()),
        }
    }

    /// The system's authorities and those of `files`.
    fn roots(&self, files: &Stamp) -> Result<Arc<RootCertStore>, ConnectError> {
        let system = self.system.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            for e in &found.errors {
                tracing::warn!("certificates of the system: {e}");
            }
            roots.add_parsable_certificates(found.certs);
            Arc::new(roots)
        });
        let mut own = system.clone();
        for path in files.iter().map(|f| &f.0).filter(|p| has_extension(p, "crt")) {
            for cert in certificates(path)? {
                Arc::make_mut(&mut own).add(cert).map_err(|e| unusable(path, &e.to_string()))?;
            }
        }
        Ok(own)
    }
}

/// The first `x.cert` with its `x.key`. One without the other is an error, as with Docker.
type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, PathBuf);

fn client_pair(files: &Stamp) -> Result<Option<Pair>, ConnectError> {
    let have = |path: &Path| files.iter().any(|f| f.0 == path);
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for path in files.iter().map(|f| &f.0) {
        let other = if has_extension(path, "cert") {
            path.with_extension("key")
        } else if has_extension(path, "key") {
            path.with_extension("cert")
        } else {
            continue;
        };
        if !have(&other) {
            return Err(ConnectError::new(
                format!(
                    "missing {} for {}: a client certificate has the extension .cert and its key .key; certificates \
                     of authorities have .crt",
                    name(&other),
                    path.display()
                ),
                false,
            ));
        }
    }
    let Some(path) = files.iter().map(|f| &f.0).find(|p| has_extension(p, "cert")) else { return Ok(None) };
    let key_path = path.with_extension("key");
    let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?)
        .map_err(|_| unusable(&key_path, "no private key"))?;
    Ok(Some((certificates(path)?, key, path.clone())))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(unusable(path, "no certificate in PEM")),
        Err(e) => Err(unusable(path, &e.to_string())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| unusable(path, &e.to_string()))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| unusable(path, &e.to_string()))?;
    if bytes.len() as u64 > MAX_FILE { Err(unusable(path, "the file is too long")) } else { Ok(bytes) }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

fn unusable(path: &Path, why: &str) -> ConnectError {
    ConnectError::new(format!("certificates: {}: {why}", path.display()), false)
}

/// Takes every certificate: for hosts that the configuration says are insecure. The handshake's signature is still
/// checked, by the key in the certificate.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
