//! What stands in a certificate: the one place that turns a role into X.509 extensions (RFC 5280).
//!
//! No Subject Organisation: some brokers read it as a tenant.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::error::Error;
use crate::name::{Identity, San};

/// How far NotBefore lies in the past: the clocks of nodes are poor.
const BACKDATE: Duration = Duration::minutes(5);

fn named(common_name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    subject
}

/// The certificate of an authority that signs end-entity certificates and CRLs, and no authorities.
pub(crate) fn authority(
    common_name: &str,
    serial: Serial,
    years: u32,
    now: OffsetDateTime,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial.into());
    params.not_before = now - BACKDATE;
    params.not_after = now + Duration::days((i64::from(years) * 36_525 + 99) / 100);
    params.use_authority_key_identifier_extension = true;
    params
}

/// The certificate of an identity; it never outlives the authority's `ca_end`.
pub(crate) fn end_entity(
    identity: &Identity,
    sans: &[San],
    days: u32,
    serial: Serial,
    now: OffsetDateTime,
    ca_end: OffsetDateTime,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(identity.name.as_str());
    // Spelled out, since only then the Subject Key Identifier is written too.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![if identity.role.is_server() {
        ExtendedKeyUsagePurpose::ServerAuth
    } else {
        ExtendedKeyUsagePurpose::ClientAuth
    }];
    params.subject_alt_names = vec![SanType::URI(identity.uri().try_into()?)];
    for san in sans {
        params.subject_alt_names.push(match san {
            San::Dns(host) => SanType::DnsName(host.as_str().try_into()?),
            San::Ip(address) => SanType::IpAddress(*address),
        });
    }
    params.serial_number = Some(serial.into());
    params.not_before = now - BACKDATE;
    params.not_after = (now + Duration::days(i64::from(days))).min(ca_end);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A serial number: 126 random bits, so that it can be neither guessed nor used twice, positive and
/// without leading zeros (RFC 5280 section 4.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serial([u8; 16]);

impl Serial {
    pub(crate) fn random(rng: &mut impl rand::CryptoRng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Self(bytes)
    }

    /// As it stands in the index and on the command line: 32 digits of lower-case hex.
    pub(crate) fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl From<Serial> for SerialNumber {
    fn from(serial: Serial) -> Self {
        Self::from_slice(&serial.0)
    }
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
