//! Certificates: who is believed, and until when.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dimpl::DtlsCertificate;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType,
};

use super::bench::{Bench, Client, KEY, keys, limits};
use crate::dtls::Trust;
use crate::dtls::metrics::{Ended, Refused};

const HERE: &str = "10.0.0.1:7000";
const NODE: &str = "urn:nodebus:node:kitchen";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for clients, in DER and PEM, and its key.
fn issue(
    authority: &Authority,
    uri: &str,
    edit: impl FnOnce(&mut CertificateParams),
) -> (DtlsCertificate, [String; 2]) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(7_u64.into());
    edit(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let der = DtlsCertificate {
        certificate: certificate.der().to_vec(),
        private_key: key.serialize_der(),
    };
    (der, [certificate.pem(), key.serialize_pem()])
}

fn node(authority: &Authority, edit: impl FnOnce(&mut CertificateParams)) -> DtlsCertificate {
    issue(authority, NODE, edit).0
}

fn revoke(folder: &Path, authority: &Authority, serials: &[u64]) {
    let date = rcgen::date_time_ymd;
    let revoked = serials.iter().map(|&serial| RevokedCertParams {
        serial_number: serial.into(),
        revocation_time: date(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: date(2024, 1, 1),
        next_update: date(4000, 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(authority).unwrap().pem().unwrap();
    std::fs::write(folder.join("crl.pem"), list).unwrap();
}

/// A server's folder, and a bench with it.
fn bench(authority: &Authority) -> (Bench, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let (_, [certificate, key]) = issue(authority, "urn:nodebus:coap-server:coap", server);
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("cert.pem", certificate),
        ("key.pem", key),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    revoke(folder.path(), authority, &[99]);
    let trust = Trust::load(folder.path()).unwrap();
    let keys = keys(&[("attic", KEY)]);
    (Bench::with(1, limits(), keys, Some(trust)), folder)
}

fn connect(bench: &mut Bench, at: &str, own: DtlsCertificate) {
    let client = Client::certificate(own, bench.now.mono);
    bench.start(at, client);
}

#[test]
fn a_node_with_a_certificate_speaks_as_its_name() {
    let ours = authority("ours");
    let (mut bench, _folder) = bench(&ours);
    connect(&mut bench, HERE, node(&ours, |_| {}));
    let (session, name) = bench.established();
    assert_eq!(name, "kitchen");
    bench.say(HERE, b"question");
    assert_eq!(bench.data(), (session, Bytes::from_static(b"question")));
    bench.tell(session, b"answer");
    assert_eq!(bench.client(HERE).received, [b"answer"]);
    // Shared keys work beside it.
    bench.works("10.0.0.2:7000", "attic", KEY);
}

#[test]
fn others_are_refused_and_told_why() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let date = rcgen::date_time_ymd;
    let (mut bench, _folder) = bench(&ours);
    connect(&mut bench, HERE, node(&ours, |_| {}));
    let (session, _) = bench.established();
    let with = |uri| issue(&ours, uri, |_| {}).0;
    let cases = [
        (node(&theirs, |_| {}), Refused::UnknownAuthority),
        (
            node(&ours, |p| p.not_after = date(2020, 1, 1)),
            Refused::CertificateExpired,
        ),
        (
            node(&ours, |p| p.not_before = date(4000, 1, 1)),
            Refused::BadCertificate,
        ),
        (
            node(&ours, |p| p.serial_number = Some(99_u64.into())),
            Refused::CertificateRevoked,
        ),
        (with("urn:nodebus:operator:kitchen"), Refused::WrongRole),
        (with("https://example.org"), Refused::WrongRole),
        (with("urn:nodebus:node:not/a/name"), Refused::BadCertificate),
        (
            node(&ours, |p| {
                p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            Refused::WrongRole,
        ),
        (
            node(&ours, |p| {
                let second = SanType::URI("urn:nodebus:admin:x".try_into().unwrap());
                p.subject_alt_names.push(second);
            }),
            Refused::BadCertificate,
        ),
    ];
    for (n, (certificate, why)) in cases.into_iter().enumerate() {
        let at = format!("10.0.1.{n}:7000");
        let before = bench.metrics.refused_for(why);
        connect(&mut bench, &at, certificate);
        assert_eq!(bench.metrics.refused_for(why), before + 1, "{why:?} {n}");
        assert!(bench.client(&at).failed && !bench.client(&at).connected);
        assert!(bench.events.is_empty());
    }
    // Whose certificate it is shows only with its key.
    let mut stolen = node(&ours, |_| {});
    stolen.private_key = node(&ours, |_| {}).private_key;
    connect(&mut bench, "10.0.2.1:7000", stolen);
    assert_eq!(bench.metrics.refused_for(Refused::BadSignature), 1);
    assert_eq!(bench.metrics.handshakes.get(), 0);
    bench.say(HERE, b"still here");
    assert_eq!(bench.data(), (session, Bytes::from_static(b"still here")));
}

#[test]
fn a_revoked_certificate_ends_its_sessions() {
    let ours = authority("ours");
    let (mut bench, folder) = bench(&ours);
    let certificate = node(&ours, |p| p.serial_number = Some(8_u64.into()));
    connect(&mut bench, HERE, certificate.clone());
    let (session, _) = bench.established();
    connect(&mut bench, "10.0.0.2:7000", node(&ours, |_| {}));
    let (other, _) = bench.established();
    revoke(folder.path(), &ours, &[8, 99]);
    let (trust, now) = (Trust::load(folder.path()).unwrap(), bench.now);
    bench.server.handle_trust(trust, now);
    bench.settle();
    assert_eq!(bench.ended(), (session, Ended::Withdrawn));
    assert!(bench.client(HERE).closed);
    connect(&mut bench, "10.0.0.3:7000", certificate);
    assert_eq!(bench.metrics.refused_for(Refused::CertificateRevoked), 1);
    bench.say("10.0.0.2:7000", b"on");
    assert_eq!(bench.data(), (other, Bytes::from_static(b"on")));
}

#[test]
fn a_certificate_that_expires_ends_its_session() {
    let ours = authority("ours");
    let (mut bench, _folder) = bench(&ours);
    let now = bench.now.wall.unix_millis() / 1000;
    let end = time::OffsetDateTime::from_unix_timestamp(now + 600).unwrap();
    connect(&mut bench, HERE, node(&ours, |p| p.not_after = end));
    let (session, _) = bench.established();
    bench.wait(Duration::from_secs(590));
    bench.say(HERE, b"in time");
    assert_eq!(bench.data(), (session, Bytes::from_static(b"in time")));
    bench.wait(Duration::from_secs(20));
    bench.say(HERE, b"too late");
    assert_eq!(bench.ended(), (session, Ended::Withdrawn));
    assert!(bench.events.is_empty() && bench.client(HERE).closed);
}

#[test]
fn without_certificates_nobody_is_asked_for_one() {
    let ours = authority("ours");
    let mut bench = Bench::new(&[("attic", KEY)]);
    connect(&mut bench, HERE, node(&ours, |_| {}));
    assert!(bench.client(HERE).failed);
    assert_eq!(bench.metrics.refused_for(Refused::NotSupported), 1);
}

#[test]
fn a_key_that_dtls_can_not_use_is_named_at_the_start() {
    let ours = authority("ours");
    let (_, folder) = bench(&ours);
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let pem = CertificateParams::default().signed_by(&key, &ours);
    std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("cert.pem"), pem.unwrap().pem()).unwrap();
    let error = Trust::load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("key.pem") && error.contains("certgen"),
        "{error}"
    );
}
