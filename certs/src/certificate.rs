//! What a certificate says, read back from the certificate itself.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::error::Error;
use crate::name::{Identity, San};
use crate::profile::hex;

/// What a certificate says about its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Its Subject, such as `CN=alice`.
    pub subject: String,
    /// The Subject of whoever signed it.
    pub issuer: String,
    /// The role and name of its holder; none in an authority's or a stranger's certificate.
    pub identity: Option<Identity>,
    /// The addresses under which its holder is reached.
    pub sans: Vec<San>,
    /// What it may be used for: `serverAuth`, `clientAuth`, `keyCertSign`, `cRLSign`.
    pub usages: Vec<&'static str>,
    /// Whether it may sign certificates.
    pub is_ca: bool,
    /// Lower-case hex digits.
    pub serial: String,
    /// Not valid before.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// Not valid after.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// The certificate itself.
    #[serde(skip)]
    pub der: CertificateDer<'static>,
}

impl Certificate {
    /// Reads all certificates of a PEM text, in their order; `path` is for the error.
    ///
    /// # Errors
    /// The text holds no certificate, or one that can't be parsed.
    pub fn all_from_pem(pem: &str, path: &Path) -> Result<Vec<Self>, Error> {
        let unusable = || Error::Unusable {
            path: path.to_owned(),
            what: "certificate",
            remedy: "name a PEM file of one",
        };
        let mut found = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let der = der.map_err(|_| unusable())?;
            found.push(Self::from_der(der).ok_or_else(unusable)?);
        }
        if found.is_empty() {
            return Err(unusable());
        }
        Ok(found)
    }

    /// Reads the first certificate of a PEM text; `path` is for the error.
    ///
    /// # Errors
    /// The text holds no certificate, or one that can't be parsed.
    pub fn first_from_pem(pem: &str, path: &Path) -> Result<Self, Error> {
        let mut all = Self::all_from_pem(pem, path)?;
        Ok(all.swap_remove(0))
    }

    /// Parses a certificate; `None` when it is none.
    pub(crate) fn from_der(der: CertificateDer<'static>) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(&der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let (identity, sans) = names(&parsed)?;
        Some(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            identity,
            sans,
            usages: usages(&parsed)?,
            is_ca: parsed.is_ca(),
            serial: hex(&parsed.serial.to_bytes_be()),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            der: der.clone(),
        })
    }

    /// The certificate in PEM.
    pub(crate) fn to_pem(&self) -> String {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        pem::encode_config(&pem::Pem::new("CERTIFICATE", self.der.as_ref()), config)
    }

    /// Whether `authority` signed it.
    #[must_use]
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let parsed = X509Certificate::from_der(&self.der);
        let signer = X509Certificate::from_der(&authority.der);
        let (Ok((_, parsed)), Ok((_, signer))) = (parsed, signer) else {
            return false;
        };
        parsed.issuer() == signer.subject()
            && parsed.verify_signature(Some(signer.public_key())).is_ok()
    }

    /// Whether `key` (a public key as rcgen gives it, the bare point) is the one it certifies.
    pub(crate) fn certifies(&self, key: &[u8]) -> bool {
        X509Certificate::from_der(&self.der)
            .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data.as_ref() == key)
    }

    /// Whether it can't be used at `now`, because it ended.
    #[must_use]
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.not_after <= now
    }

    /// Whether two thirds of its life are over at `now`: time to renew it.
    #[must_use]
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        (self.not_after - now) * 3 <= self.not_after - self.not_before
    }
}

/// The identity and the addresses among the Subject Alternative Names.
fn names(parsed: &X509Certificate<'_>) -> Option<(Option<Identity>, Vec<San>)> {
    let mut identity = None;
    let mut sans = Vec::new();
    let extension = parsed.subject_alternative_name().ok()?;
    for name in extension
        .iter()
        .flat_map(|found| &found.value.general_names)
    {
        match name {
            GeneralName::DNSName(host) => sans.push(San::Dns((*host).to_owned())),
            GeneralName::IPAddress(bytes) => sans.push(San::Ip(address(bytes)?)),
            GeneralName::URI(uri) => identity = identity.or_else(|| Identity::from_uri(uri)),
            // A stranger's certificate may carry others; they are nothing to us.
            _ => {}
        }
    }
    Some((identity, sans))
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}

fn usages(parsed: &X509Certificate<'_>) -> Option<Vec<&'static str>> {
    let mut usages = Vec::new();
    if let Some(extended) = parsed.extended_key_usage().ok()? {
        if extended.value.server_auth {
            usages.push("serverAuth");
        }
        if extended.value.client_auth {
            usages.push("clientAuth");
        }
    }
    if let Some(basic) = parsed.key_usage().ok()? {
        if basic.value.key_cert_sign() {
            usages.push("keyCertSign");
        }
        if basic.value.crl_sign() {
            usages.push("cRLSign");
        }
    }
    Some(usages)
}
