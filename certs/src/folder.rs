//! The folder of one identity: `ca.pem`, `cert.pem` and `key.pem`, changed all at once.
//!
//! The three are links to `..live/`, itself a link to the folder `..<serial>/` that holds the files.
//! Exchanging that one link exchanges them together, as Kubernetes does with mounted secrets, and
//! works when the identity's folder is a volume of its own. A reader that resolves `..live` first
//! always gets files that fit each other: the generation before the live one is kept for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::certificate::Certificate;
use crate::error::Error;
use crate::files::{self, PUBLIC, SECRET};

const LIVE: &str = "..live";

/// What is written for an identity.
pub(crate) struct Content<'a> {
    /// The trust anchors.
    pub(crate) ca: &'a str,
    /// The end-entity certificate, then intermediates.
    pub(crate) cert: &'a str,
    /// The private key.
    pub(crate) key: &'a str,
}

/// What stands in an identity's folder.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// Files that can't be used together.
    Damaged,
    /// A certificate with its key.
    Whole(Box<Certificate>),
}

/// Reads what stands in `folder`.
///
/// # Errors
/// A file is there but the system refuses to read it.
pub(crate) fn read(folder: &Path) -> Result<Found, Error> {
    let path = folder.join("cert.pem");
    let cert = files::read(&path)?;
    let key = files::read(&folder.join("key.pem"))?;
    let ca = files::read(&folder.join("ca.pem"))?;
    let (cert, key, ca) = match (cert, key, ca) {
        (None, None, None) => return Ok(Found::Nothing),
        (Some(cert), Some(key), Some(ca)) => (cert, key, ca),
        _ => return Ok(Found::Damaged),
    };
    let anchored = Certificate::all_from_pem(&ca, &path).is_ok();
    let certificate = Certificate::first_from_pem(&cert, &path);
    match (certificate, rcgen::KeyPair::from_pem(&key)) {
        (Ok(certificate), Ok(key)) if anchored && certificate.certifies(&key) => {
            Ok(Found::Whole(Box::new(certificate)))
        }
        _ => Ok(Found::Damaged),
    }
}

/// Writes a new generation beside the live one and makes it the live one. Needs the lock.
pub(crate) fn write(folder: &Path, serial: &str, content: &Content<'_>) -> Result<(), Error> {
    files::make_folder(folder)?;
    let generation = format!("..{serial}");
    let inner = folder.join(&generation);
    files::make_folder(&inner)?;
    files::create(&inner.join("ca.pem"), PUBLIC, content.ca)?;
    files::create(&inner.join("cert.pem"), PUBLIC, content.cert)?;
    files::create(&inner.join("key.pem"), SECRET, content.key)?;
    files::sync_folder(&inner)?;

    let before = std::fs::read_link(folder.join(LIVE)).ok();
    files::replace_link(&folder.join(LIVE), &generation)?;
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let target = format!("{LIVE}/{name}");
        let link = folder.join(name);
        if std::fs::read_link(&link).ok() != Some(PathBuf::from(&target)) {
            files::replace_link(&link, &target)?;
        }
    }
    remove_generations(folder, &[Some(inner), before.map(|name| folder.join(name))])
}

/// Removes every generation but those to keep, also what an interrupted run left.
fn remove_generations(folder: &Path, keep: &[Option<PathBuf>]) -> Result<(), Error> {
    let entries =
        std::fs::read_dir(folder).map_err(|source| Error::file("read", folder, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| Error::file("read", folder, source))?;
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && is_generation(entry.file_name()) && !keep.contains(&Some(path.clone())) {
            std::fs::remove_dir_all(&path)
                .map_err(|source| Error::file("removed", &path, source))?;
        }
    }
    Ok(())
}

fn is_generation(name: OsString) -> bool {
    name.to_str().is_some_and(|name| {
        name.strip_prefix("..").is_some_and(|serial| {
            serial.len() == 32 && serial.bytes().all(|b| b.is_ascii_hexdigit())
        })
    })
}
