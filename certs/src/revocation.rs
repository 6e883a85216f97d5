//! Revoking certificates, and the list of those that were: `ca/crl.pem` (RFC 5280 section 5).
//!
//! What was revoked stands in the index first; the list is made from it, and can be made again.

use rcgen::{CertificateRevocationListParams, RevokedCertParams, SerialNumber};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::authority::Authority;
use crate::error::Error;
use crate::files::{self, Lock, PUBLIC};
use crate::index::{Entry, Index};
use crate::name::{Identity, Name};
use crate::pki::Pki;
use crate::role::Role;
use crate::signer::Signer;
use crate::surroundings::Surroundings;

/// For how long a list is valid unless told otherwise. Whoever checks strictly refuses everyone
/// once it has ended, so it ends late; `certgen renew --all` makes it anew at half of its life.
pub const CRL_DAYS: u32 = 90;

/// Why a certificate is revoked (RFC 5280 section 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationReason {
    /// Nobody said
    #[default]
    Unspecified,
    /// Someone else may have its key
    KeyCompromise,
    /// Its holder changed hands
    AffiliationChanged,
    /// Another took its place
    Superseded,
    /// Its holder is no more
    CessationOfOperation,
    /// Its holder may no longer do what it allows
    PrivilegeWithdrawn,
}

impl From<RevocationReason> for rcgen::RevocationReason {
    fn from(reason: RevocationReason) -> Self {
        match reason {
            RevocationReason::Unspecified => Self::Unspecified,
            RevocationReason::KeyCompromise => Self::KeyCompromise,
            RevocationReason::AffiliationChanged => Self::AffiliationChanged,
            RevocationReason::Superseded => Self::Superseded,
            RevocationReason::CessationOfOperation => Self::CessationOfOperation,
            RevocationReason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

/// When and why a certificate was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The moment.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Why.
    pub reason: RevocationReason,
}

/// What is to be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// All certificates of one identity that are still valid.
    Identity(Identity),
    /// The only identity of this name.
    Name(Name),
    /// One certificate; lower-case hex digits.
    Serial(String),
}

/// The list of revoked certificates as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct Revocations {
    /// The list.
    pub path: std::path::PathBuf,
    /// Where copies of it were put: every broker reads the one in its own folder.
    pub copies: Vec<std::path::PathBuf>,
    /// Its number.
    pub number: u64,
    /// Valid until.
    #[serde(with = "time::serde::rfc3339")]
    pub next_update: OffsetDateTime,
    /// What was revoked just now; empty when it had been before.
    pub revoked: Vec<Entry>,
    /// How many certificates it lists.
    pub listed: usize,
}

impl Pki {
    /// Revokes certificates and makes the list anew.
    ///
    /// # Errors
    /// There is nothing of this name, or more than one; the authority or its key is missing; or
    /// the system refuses to read or write.
    pub fn revoke(
        &self,
        what: &Revoked,
        reason: RevocationReason,
        surroundings: &Surroundings,
    ) -> Result<Revocations, Error> {
        let authority = self.authority()?;
        let _lock = Lock::acquire(&self.authority_folder())?;
        let mut index = Index::load(&self.index_path())?;
        let now = surroundings.now;
        let serial = match what {
            Revoked::Serial(serial) => Some(serial.as_str()),
            Revoked::Identity(_) | Revoked::Name(_) => None,
        };
        let identity = match what {
            Revoked::Identity(identity) => Some(identity.clone()),
            Revoked::Name(name) => Some(self.only_of_index(name, &index)?),
            Revoked::Serial(_) => None,
        };
        let is_meant = |entry: &Entry| match (serial, &identity) {
            (Some(serial), _) => entry.serial == serial,
            (None, Some(identity)) => entry.identity == *identity,
            (None, None) => false,
        };
        if !index.issued.iter().any(is_meant) {
            return Err(Error::NotFound {
                what: what.to_string(),
                dir: self.dir().to_owned(),
            });
        }
        // Nothing is written that can't be followed by the list.
        for signer in authority.signers() {
            signer.open()?;
        }
        let mut revoked = Vec::new();
        for entry in index.issued.iter_mut().filter(|entry| is_meant(entry)) {
            // One that has ended proves nothing any more and needs no place in the list.
            if entry.revoked.is_none() && entry.not_after > now {
                entry.revoked = Some(Revocation { at: now, reason });
                revoked.push(entry.clone());
            }
        }
        index.save(&self.index_path())?;
        let mut revocations = self.list_revocations(index, &authority, CRL_DAYS, now)?;
        revocations.revoked = revoked;
        Ok(revocations)
    }

    /// The identity of this name, of whatever role, of which a certificate was issued.
    fn only_of_index(&self, name: &Name, index: &Index) -> Result<Identity, Error> {
        let mut found: Vec<&Identity> = Vec::new();
        for entry in index.issued.iter().filter(|one| one.identity.name == *name) {
            if !found.contains(&&entry.identity) {
                found.push(&entry.identity);
            }
        }
        match found[..] {
            [one] => Ok(one.clone()),
            [] => Err(Error::NotFound {
                what: name.to_string(),
                dir: self.dir().to_owned(),
            }),
            _ => Err(Error::ambiguous(name, &found)),
        }
    }

    /// Makes the list of revoked certificates anew, valid for `days`.
    ///
    /// # Errors
    /// The authority or its key is missing, or the system refuses to read or write.
    pub fn crl(&self, days: u32, surroundings: &Surroundings) -> Result<Revocations, Error> {
        let authority = self.authority()?;
        let _lock = Lock::acquire(&self.authority_folder())?;
        let index = Index::load(&self.index_path())?;
        self.list_revocations(index, &authority, days, surroundings.now)
    }

    pub(crate) fn crl_path(&self) -> std::path::PathBuf {
        self.authority_folder().join("crl.pem")
    }

    /// Whether there is a list, and half of its life is over.
    pub(crate) fn crl_is_due(&self, now: OffsetDateTime) -> Result<bool, Error> {
        let lists = self.lists()?;
        Ok(lists
            .iter()
            .any(|list| (list.end - now) * 2 <= list.end - list.start))
    }

    /// Makes the list anew if there is one but not of everyone who signs here, or if a broker
    /// lacks it; says whether it did. Needs the lock.
    pub(crate) fn complete_revocations(
        &self,
        authority: &Authority,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let lists = self.lists()?;
        let signs = |list: &List| {
            let mut signers = authority.signers();
            signers.any(|one| one.certificate.subject == list.issuer)
        };
        let is_whole = lists.len() == authority.signers().count() && lists.iter().all(signs);
        if lists.is_empty() || (is_whole && self.verifiers_have_revocations()?) {
            return Ok(false);
        }
        let index = Index::load(&self.index_path())?;
        self.list_revocations(index, authority, CRL_DAYS, now)?;
        Ok(true)
    }

    /// Those who verify the certificates of others.
    fn verifiers(&self) -> Result<Vec<Identity>, Error> {
        let mut all = Vec::new();
        for role in Role::ALL.into_iter().filter(|role| role.verifies()) {
            all.extend(self.identities_of(role)?);
        }
        Ok(all)
    }

    fn verifiers_have_revocations(&self) -> Result<bool, Error> {
        let list = files::read(&self.crl_path())?;
        for identity in self.verifiers()? {
            if files::read(&self.folder(&identity).join("crl.pem"))? != list {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What `crl.pem` holds: nothing, one list, or one of each of two authorities.
    fn lists(&self) -> Result<Vec<List>, Error> {
        let path = self.crl_path();
        let Some(text) = files::read(&path)? else {
            return Ok(Vec::new());
        };
        let lists: Option<Vec<List>> = Pem::iter_from_buffer(text.as_bytes())
            .map(|pem| List::from_der(&pem.ok()?.contents))
            .collect();
        lists
            .filter(|lists| !lists.is_empty())
            .ok_or_else(|| Error::Unusable {
                path: path.clone(),
                what: "list of revoked certificates",
                remedy: "make it anew with `certgen crl`",
            })
    }

    /// Signs and writes the list. Needs the lock.
    fn list_revocations(
        &self,
        mut index: Index,
        authority: &Authority,
        days: u32,
        now: OffsetDateTime,
    ) -> Result<Revocations, Error> {
        if authority.signer.certificate.has_expired(now) {
            return Err(Error::AuthorityExpired {
                dir: self.dir().to_owned(),
            });
        }
        // The number is taken before it is used, so that no number is ever used twice.
        index.crl_number += 1;
        index.save(&self.index_path())?;
        let next_update = now + Duration::days(i64::from(days));
        let (mut pem, mut listed) = (String::new(), 0);
        for signer in authority.signers() {
            let (list, count) = sign_revocations(&index, signer, now, next_update)?;
            pem += &list;
            listed += count;
        }
        files::replace(&self.crl_path(), PUBLIC, &pem)?;
        let mut copies = Vec::new();
        for identity in self.verifiers()? {
            copies.extend(self.hand_out_revocations(&identity)?);
        }
        Ok(Revocations {
            path: self.crl_path(),
            copies,
            number: index.crl_number,
            next_update,
            revoked: Vec::new(),
            listed,
        })
    }

    /// Puts the list into the folder of one who verifies others, where it is read; gives where it was
    /// put.
    pub(crate) fn hand_out_revocations(
        &self,
        identity: &Identity,
    ) -> Result<Option<std::path::PathBuf>, Error> {
        if !identity.role.verifies() {
            return Ok(None);
        }
        let Some(pem) = files::read(&self.crl_path())? else {
            return Ok(None);
        };
        let copy = self.folder(identity).join("crl.pem");
        files::replace(&copy, PUBLIC, &pem)?;
        Ok(Some(copy))
    }
}

/// Signs the list of what `signer` signed and was revoked; gives the PEM and how many it lists.
fn sign_revocations(
    index: &Index,
    signer: &Signer,
    now: OffsetDateTime,
    next_update: OffsetDateTime,
) -> Result<(String, usize), Error> {
    let mut listed = Vec::new();
    for entry in &index.issued {
        let (Some(revocation), Some(serial)) = (entry.revoked, unhex(&entry.serial)) else {
            continue;
        };
        if entry.issuer.is_empty() || entry.issuer == signer.certificate.subject {
            listed.push(RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: revocation.at,
                // Absent says the same, and is what RFC 5280 section 5.3.1 asks for.
                reason_code: (revocation.reason != RevocationReason::Unspecified)
                    .then(|| revocation.reason.into()),
                invalidity_date: None,
            });
        }
    }
    let count = listed.len();
    let params = CertificateRevocationListParams {
        this_update: now,
        next_update,
        crl_number: SerialNumber::from(index.crl_number.to_be_bytes().to_vec()),
        issuing_distribution_point: None,
        revoked_certs: listed,
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    Ok((signer.sign_revocations(&params)?, count))
}

/// One list that was signed.
struct List {
    issuer: String,
    start: OffsetDateTime,
    end: OffsetDateTime,
}

impl List {
    fn from_der(der: &[u8]) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        let start = list.last_update().to_datetime();
        Some(Self {
            issuer: list.issuer().to_string(),
            start,
            end: list.next_update().map_or(start, |end| end.to_datetime()),
        })
    }
}

impl std::fmt::Display for Revoked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Identity(identity) => identity.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Serial(serial) => f.write_str(serial),
        }
    }
}

/// The bytes of hex digits; `None` for anything else.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}
