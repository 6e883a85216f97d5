//! The list of everything that was ever issued, `ca/index.json`.
//!
//! An entry is written before its certificate comes into use: there may be entries without a
//! certificate, after an interrupted run, but no certificate without an entry.

use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::error::{Error, RESTORE};
use crate::files::{self, PUBLIC};
use crate::name::{Identity, San};
use crate::revocation::Revocation;

/// The form of the file; a newer one is refused rather than damaged.
const VERSION: u32 = 1;

/// One certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Lower-case hex digits.
    pub serial: String,
    /// Whose it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// The addresses in it.
    pub sans: Vec<San>,
    /// When it was issued.
    #[serde(with = "time::serde::rfc3339")]
    pub issued: OffsetDateTime,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// Days of validity that were asked for, when they were not the role's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// The Subject of the authority that signed it.
    #[serde(default)]
    pub issuer: String,
    /// When and why it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    /// The number of the newest CRL; they only grow (RFC 5280 section 5.2.3).
    #[serde(default)]
    pub(crate) crl_number: u64,
    pub(crate) issued: Vec<Entry>,
}

impl Index {
    /// Reads the list; an empty one when nothing was issued yet.
    ///
    /// # Errors
    /// The file can't be read, or is not such a list.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let Some(text) = files::read(path)? else {
            return Ok(Self {
                version: VERSION,
                crl_number: 0,
                issued: Vec::new(),
            });
        };
        match serde_json::from_str::<Self>(&text) {
            Ok(index) if index.version == VERSION => Ok(index),
            _ => Err(Error::Unusable {
                path: path.to_owned(),
                what: "list of issued certificates",
                remedy: RESTORE,
            }),
        }
    }

    /// Writes the list. Needs the lock.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::file("written", path, std::io::Error::other(source)))?;
        text.push('\n');
        files::replace(path, PUBLIC, &text)
    }

    /// The entry of a certificate.
    pub(crate) fn entry(&self, serial: &str) -> Option<&Entry> {
        self.issued.iter().find(|entry| entry.serial == serial)
    }

    /// Whether a certificate was revoked.
    pub(crate) fn is_revoked(&self, serial: &str) -> bool {
        self.entry(serial)
            .is_some_and(|entry| entry.revoked.is_some())
    }
}

/// Adds a certificate to the list. Needs the lock.
pub(crate) fn add(
    path: &Path,
    identity: &Identity,
    certificate: &Certificate,
    days: Option<u32>,
    issued: OffsetDateTime,
) -> Result<(), Error> {
    let mut index = Index::load(path)?;
    index.issued.push(Entry {
        serial: certificate.serial.clone(),
        identity: identity.clone(),
        sans: certificate.sans.clone(),
        issued,
        not_after: certificate.not_after,
        days,
        issuer: certificate.issuer.clone(),
        revoked: None,
    });
    index.save(path)
}
