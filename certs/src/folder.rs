//! The folder of one identity: `ca.pem`, `cert.pem` and `key.pem`, changed all at once.
//!
//! Who keeps the key elsewhere has `csr.pem` instead of it. They are links to `..live/`, itself a link to the folder `..<serial>/` that holds the files.
//! Exchanging that one link exchanges them together, as Kubernetes does with mounted secrets, and
//! works when the identity's folder is a volume of its own. A reader that resolves `..live` first
//! always gets files that fit each other: the generation before the live one is kept for it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::error::Error;
use crate::files::{self, PUBLIC, SECRET};
use crate::key::Key;
use crate::rights::Rights;

const LIVE: &str = "..live";

/// Every file that an identity's folder may hold.
pub(crate) const FILES: [&str; 6] = [
    "ca.pem", "cert.pem", "key.pem", "csr.pem", "crl.pem", PKCS12,
];

/// Certificate and key in one file; of the generation that it was asked for.
pub(crate) const PKCS12: &str = "identity.p12";

/// What is written for an identity.
pub(crate) struct Content<'a> {
    files: Vec<(&'static str, u32, Cow<'a, str>)>,
}

impl<'a> Content<'a> {
    /// The trust anchors, the end-entity certificate, and its key or the request it came with.
    pub(crate) fn new(ca: &'a str, cert: &'a str, key: &'a Key) -> Self {
        let key = match key {
            Key::Pair(pair) => ("key.pem", SECRET, pair.serialize_pem().into()),
            Key::Request(request) => ("csr.pem", PUBLIC, request.pem.as_str().into()),
        };
        Self {
            files: vec![
                ("ca.pem", PUBLIC, ca.into()),
                ("cert.pem", PUBLIC, cert.into()),
                key,
            ],
        }
    }
}

/// What stands in an identity's folder.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// Files that can't be used together.
    Damaged,
    /// A certificate with its key, or with the request of whoever has the key.
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
    let request = files::read(&folder.join("csr.pem"))?;
    let ca = files::read(&folder.join("ca.pem"))?;
    let has_key = key.is_some() || request.is_some();
    let (cert, ca) = match (cert, ca) {
        (None, None) if !has_key => return Ok(Found::Nothing),
        (Some(cert), Some(ca)) if has_key => (cert, ca),
        _ => return Ok(Found::Damaged),
    };
    let anchored = Certificate::all_from_pem(&ca, &path).is_ok();
    let certificate = Certificate::first_from_pem(&cert, &path);
    match (certificate, Key::of_folder(folder)) {
        (Ok(certificate), Ok(key)) if anchored && certificate.certifies(key.public()) => {
            Ok(Found::Whole(Box::new(certificate)))
        }
        _ => Ok(Found::Damaged),
    }
}

/// Writes a new generation beside the live one and makes it the live one. Needs the lock.
///
/// Its files belong to whom `rights` says or else to whom those before did.
pub(crate) fn write(
    folder: &Path,
    serial: &str,
    content: &Content<'_>,
    rights: Rights,
) -> Result<(), Error> {
    files::make_folder(folder)?;
    let kept = rights.or(Rights::of_folder(folder));
    let generation = format!("..{serial}");
    let inner = folder.join(&generation);
    files::make_folder(&inner)?;
    for (name, mode, text) in &content.files {
        files::create(&inner.join(name), *mode, text.as_bytes())?;
        kept.apply(&inner.join(name))?;
    }
    kept.apply(&inner)?;
    files::sync_folder(&inner)?;

    let before = std::fs::read_link(folder.join(LIVE)).ok();
    let links = FILES.map(|name| {
        let (target, link) = (format!("{LIVE}/{name}"), folder.join(name));
        let is_linked = std::fs::read_link(&link).ok() == Some(PathBuf::from(&target));
        (inner.join(name).exists(), is_linked, link, target)
    });
    // Links that lead nowhere yet are as good as none, so that all files appear at once.
    for (_, _, link, target) in links
        .iter()
        .filter(|(is_new, linked, ..)| *is_new && !linked)
    {
        files::replace_link(link, target)?;
    }
    files::replace_link(&folder.join(LIVE), &generation)?;
    // What is left of the generation before.
    for (_, _, link, _) in links
        .iter()
        .filter(|(is_new, linked, ..)| !is_new && *linked)
    {
        files::remove(link)?;
    }
    remove_generations(folder, &[Some(inner), before.map(|name| folder.join(name))])
}

/// Adds the PKCS#12 file to the live generation. Needs the lock.
pub(crate) fn write_pkcs12(folder: &Path, content: &[u8]) -> Result<(), Error> {
    let path = folder.join(LIVE).join(PKCS12);
    files::replace(&path, SECRET, content)?;
    Rights::of_folder(folder).apply(&path)?;
    files::replace_link(&folder.join(PKCS12), &format!("{LIVE}/{PKCS12}"))
}

/// Gives the holder the trust anchors of `authority`, if it trusts one of them already; says
/// whether it lacked some or had others. Needs the lock.
///
/// The live generation is changed in place: whoever reads it may trust more or fewer than its
/// certificate needs, but has a certificate with its key.
pub(crate) fn trust(folder: &Path, authority: &Authority) -> Result<bool, Error> {
    let live = folder.join(LIVE);
    let place = if live.is_dir() { &live } else { folder };
    let path = place.join("ca.pem");
    let Some(pem) = files::read(&path)? else {
        return Ok(false);
    };
    let Ok(trusted) = Certificate::all_from_pem(&pem, &path) else {
        // Nothing that can be used: `certgen list` says so.
        return Ok(false);
    };
    let anchors = &authority.anchors;
    let is_ours = trusted.iter().any(|one| anchors.contains(one));
    let is_same = trusted.len() == anchors.len() && trusted.iter().all(|one| anchors.contains(one));
    if !is_ours || is_same {
        return Ok(false);
    }
    files::rewrite(&path, &authority.pem)?;
    Ok(true)
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
            files::remove_folder(&path)?;
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
