//! The list of everything that was ever issued, `ca/index.json`.
//!
//! An entry is written before its certificate comes into use: there may be entries without a
//! certificate, after an interrupted run, but no certificate without an entry.

use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::error::Error;
use crate::files::{self, PUBLIC};
use crate::name::{Identity, San};

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
}

#[derive(Serialize, Deserialize)]
struct Index {
    version: u32,
    issued: Vec<Entry>,
}

/// Reads the list; none when nothing was issued yet.
///
/// # Errors
/// The file can't be read, or is not such a list.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    let Some(text) = files::read(path)? else {
        return Ok(Vec::new());
    };
    match serde_json::from_str::<Index>(&text) {
        Ok(index) if index.version == VERSION => Ok(index.issued),
        _ => Err(Error::Unusable {
            path: path.to_owned(),
            what: "list of issued certificates",
        }),
    }
}

/// Adds a certificate to the list. Needs the lock.
pub(crate) fn add(
    path: &Path,
    identity: &Identity,
    certificate: &Certificate,
    issued: OffsetDateTime,
) -> Result<(), Error> {
    let mut entries = read(path)?;
    entries.push(Entry {
        serial: certificate.serial.clone(),
        identity: identity.clone(),
        sans: certificate.sans.clone(),
        issued,
        not_after: certificate.not_after,
    });
    let index = Index {
        version: VERSION,
        issued: entries,
    };
    let mut text = serde_json::to_string_pretty(&index)
        .map_err(|source| Error::file("written", path, std::io::Error::other(source)))?;
    text.push('\n');
    files::replace(path, PUBLIC, &text)
}
