//! Certificates of a test's own authority, and the TLS of its clients.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    // Each its own, so that none is taken for another.
    let name: String = key.public_key_raw()[..8]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, key).unwrap()
}

pub(crate) fn certificate(
    authority: &Authority,
    uri: Option<&str>,
    usage: ExtendedKeyUsagePurpose,
    edit: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, KeyPair) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    if let Some(uri) = uri {
        let uri = SanType::URI(uri.try_into().unwrap());
        params.subject_alt_names.push(uri);
    }
    params.extended_key_usages = vec![usage];
    edit(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.der().clone(), key)
}

/// The revocation list of an authority, with these serial numbers, in PEM.
pub(crate) fn revocations(authority: &Authority, serials: &[u64]) -> String {
    let revoked = serials.iter().map(|&serial| RevokedCertParams {
        serial_number: serial.into(),
        revocation_time: rcgen::date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(4000, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority).unwrap().pem().unwrap()
}

/// Writes what a broker of this authority needs to prove itself into `folder`.
pub(crate) fn server_pki(authority: &Authority, folder: &Path) {
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let (server, key) = certificate(authority, None, usage, |_| {});
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    write("ca.pem", authority.pem());
    write("key.pem", key.serialize_pem());
    write("cert.pem", pem(&server));
}

/// TLS of a client that trusts the authority and shows this certificate.
pub(crate) fn client_config(
    authority: &Authority,
    identity: Option<(CertificateDer<'static>, KeyPair)>,
) -> rustls::ClientConfig {
    client_config_of(authority, identity, rustls::DEFAULT_VERSIONS)
}

pub(super) fn client_config_of(
    authority: &Authority,
    identity: Option<(CertificateDer<'static>, KeyPair)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(bus::tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            config
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
        None => config.with_no_client_auth(),
    }
}

pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    use std::fmt::Write;
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut line = String::new();
    for chunk in der.chunks(3) {
        let mut bits = 0_u32;
        for i in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0));
        }
        for i in 0..4 {
            let digit = char::from(alphabet[(bits >> (18 - 6 * i) & 63) as usize]);
            line.push(if i <= chunk.len() { digit } else { '=' });
        }
        if line.len() == 64 {
            writeln!(text, "{line}").unwrap();
            line.clear();
        }
    }
    if !line.is_empty() {
        writeln!(text, "{line}").unwrap();
    }
    text + "-----END CERTIFICATE-----\n"
}
