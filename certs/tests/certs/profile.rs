//! What the certificates say.

use certs::{Error, Existing, Outcome, Role};
use time::Duration;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use crate::bench::{Bench, identity};

fn key_identifiers(parsed: &X509Certificate<'_>) -> (Vec<u8>, Vec<u8>) {
    let mut own = Vec::new();
    let mut signer = Vec::new();
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => own = id.0.to_vec(),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                signer = id.key_identifier.as_ref().unwrap().0.to_vec();
            }
            _ => {}
        }
    }
    (own, signer)
}

#[test]
fn an_authority_may_sign_end_entities_and_crls_and_nothing_else() {
    let bench = Bench::initialised();
    let ca = bench.read("ca/ca.pem");
    let (_, parsed) = X509Certificate::from_der(&ca.der).unwrap();

    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 0b110_0000, "keyCertSign and cRLSign");
    assert!(parsed.subject().iter_organization().next().is_none());
    assert!(ca.subject.starts_with("CN=nodebus CA "));
    assert_eq!(ca.not_before, bench.surroundings.now - Duration::minutes(5));
    assert_eq!(ca.not_after.year(), bench.surroundings.now.year() + 10);
    let (own, signer) = key_identifiers(&parsed);
    assert_eq!(own.len(), 20);
    assert_eq!(own, signer);
    assert!(ca.is_signed_by(&ca));
}

#[test]
fn a_role_decides_what_a_certificate_may_do() {
    let mut bench = Bench::initialised();
    let ca = bench.read("ca/ca.pem");
    let (_, signer) = X509Certificate::from_der(&ca.der).unwrap();
    let mut serials = vec![ca.serial.clone()];
    for role in Role::ALL {
        let name = format!("a-{role}");
        let issued = bench.issue(&format!("{role}/{name}"));
        let certificate = bench.read(&format!("{role}/{name}/cert.pem"));
        assert_eq!(issued.certificate, certificate);
        assert_eq!(certificate.subject, format!("CN={name}"), "no Organisation");
        assert_eq!(
            certificate.identity,
            Some(identity(&format!("{role}/{name}")))
        );
        let server = matches!(
            role,
            Role::Broker | Role::DashboardServer | Role::CoapServer
        );
        assert_eq!(
            certificate.usages,
            [if server { "serverAuth" } else { "clientAuth" }]
        );
        assert_eq!(server, !certificate.sans.is_empty());
        assert!(!certificate.is_ca);
        assert!(certificate.is_signed_by(&ca));
        assert_eq!(
            certificate.not_before,
            bench.surroundings.now - Duration::minutes(5)
        );
        let days = (certificate.not_after - bench.surroundings.now).whole_days();
        assert_eq!(days, i64::from(role.default_days()));

        let (_, parsed) = X509Certificate::from_der(&certificate.der).unwrap();
        assert!(parsed.basic_constraints().unwrap().unwrap().critical);
        assert_eq!(
            parsed.key_usage().unwrap().unwrap().value.flags,
            1,
            "digitalSignature"
        );
        let (own, by) = key_identifiers(&parsed);
        assert_eq!(own.len(), 20);
        assert_eq!(by, key_identifiers(&signer).0);
        assert_eq!(parsed.raw_serial().len(), 16, "positive, no leading zero");
        serials.push(certificate.serial);
    }
    let issued = serials.len();
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), issued);
    let index = bench.pki.index().unwrap();
    assert_eq!(index.len(), Role::ALL.len());
    assert!(index.iter().all(|entry| serials.contains(&entry.serial)));
}

#[test]
fn nothing_outlives_its_authority() {
    let mut bench = Bench::initialised();
    let ca = bench.read("ca/ca.pem");
    bench.pass(3600);
    assert_eq!(
        bench.issue("viewer/late").certificate.not_after,
        ca.not_after
    );
    // Renewing would not make it longer, so it is left alone.
    let again = bench.ask("viewer/late", &[], Existing::Maintain).unwrap();
    assert_eq!(again.outcome, Outcome::Unchanged);
    bench.pass(60);
    let refused = bench.ask("viewer/later", &[], Existing::Keep).unwrap_err();
    assert!(
        matches!(refused, Error::AuthorityExpired { .. }),
        "{refused}"
    );
}
