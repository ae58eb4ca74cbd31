//! An authority of a registry's own, and the certificate that it gives it.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

pub(super) struct Made {
    pub(super) config: Arc<rustls::ServerConfig>,
    /// PEM.
    pub(super) ca: String,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It has ended.
    Expired,
    /// It has not begun.
    NotYet,
    /// It is another server's.
    OtherName,
}

/// A certificate for that address, and for `localhost`.
pub(super) fn make(address: IpAddr, flaw: Option<Flaw>) -> Made {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    // Two of the same name would look like one that vouches for itself.
    params.distinguished_name.push(DnType::CommonName, "longshore test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    if flaw == Some(Flaw::OtherName) {
        params.subject_alt_names = vec![SanType::IpAddress([192, 0, 2, 1].into())];
    } else {
        params.subject_alt_names.push(SanType::IpAddress(address));
    }
    match flaw {
        Some(Flaw::Expired) => params.not_after = rcgen::date_time_ymd(2020, 1, 1),
        Some(Flaw::NotYet) => params.not_before = rcgen::date_time_ymd(3000, 1, 1),
        _ => {}
    }
    let key = KeyPair::generate().expect("key");
    let certificate = params.signed_by(&key, &authority).expect("certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("certificate and key");
    Made { config: Arc::new(config), ca: authority.pem() }
}
