//! Whether a certificate would be accepted, and if not, why.

use std::path::{Path, PathBuf};

use serde::Serialize;
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::error::Error;
use crate::files;
use crate::index::Index;
use crate::pki::Pki;

/// What keeps a certificate from being accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// None of the authorities that are trusted here signed it.
    OtherAuthority,
    /// It was signed here but is not in the list of what was issued.
    Unlisted,
    /// It is not valid yet.
    NotYetValid,
    /// It has ended.
    Expired,
    /// It was revoked.
    Revoked,
    /// It says nothing of a role and a name.
    NoIdentity,
    /// Its role asks for another use than it allows.
    WrongUse,
    /// The key beside it is another one.
    OtherKey,
}

/// A certificate that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The file it stands in.
    pub path: PathBuf,
    /// Why it would be refused; empty when all is well.
    pub flaws: Vec<Flaw>,
    /// What it says.
    pub certificate: Certificate,
}

impl Pki {
    /// Checks the first certificate of a PEM file: signature, dates, revocation, identity, use,
    /// and `key.pem` beside it when it is there.
    ///
    /// # Errors
    /// There is no authority here, or a file can't be read or holds no certificate.
    pub fn verify(&self, path: &Path, now: OffsetDateTime) -> Result<Verified, Error> {
        let Some(pem) = files::read(path)? else {
            return Err(Error::NotFound {
                what: path.display().to_string(),
                dir: self.dir().to_owned(),
            });
        };
        let certificate = Certificate::first_from_pem(&pem, path)?;
        let authority = self.authority()?;
        let index = Index::load(&self.index_path())?;
        let mut flaws = Vec::new();
        let mut note = |is_so: bool, flaw| {
            if is_so {
                flaws.push(flaw);
            }
        };
        let mut anchors = authority.anchors.iter();
        let ours = anchors.any(|anchor| certificate.is_signed_by(anchor));
        note(!ours, Flaw::OtherAuthority);
        if !certificate.is_ca {
            let unlisted = ours && index.entry(&certificate.serial).is_none();
            note(unlisted, Flaw::Unlisted);
            let usage = certificate.identity.as_ref().map(|one| {
                if one.role.is_server() {
                    "serverAuth"
                } else {
                    "clientAuth"
                }
            });
            note(usage.is_none(), Flaw::NoIdentity);
            let fits = usage.is_none_or(|usage| certificate.usages == [usage]);
            note(!fits, Flaw::WrongUse);
        }
        note(certificate.not_before > now, Flaw::NotYetValid);
        note(certificate.has_expired(now), Flaw::Expired);
        note(index.is_revoked(&certificate.serial), Flaw::Revoked);
        let key = path.with_file_name("key.pem");
        if path.file_name().is_some_and(|name| name == "cert.pem")
            && let Some(pem) = files::read(&key)?
        {
            let fits = rcgen::KeyPair::from_pem(&pem)
                .is_ok_and(|pair| certificate.certifies(pair.public_key_raw()));
            note(!fits, Flaw::OtherKey);
        }
        Ok(Verified {
            path: path.to_owned(),
            flaws,
            certificate,
        })
    }
}
