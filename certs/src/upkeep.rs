//! What exists, what of it will end soon, and renewing it.

use std::str::FromStr;

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::error::{Error, ISSUE};
use crate::files::Lock;
use crate::folder::{self, Found};
use crate::index::Index;
use crate::issuing::Order;
use crate::key::Key;
use crate::name::{Identity, Name};
use crate::pki::{Issued, Outcome, Pkcs12, Pki, Reason};
use crate::revocation::CRL_DAYS;
use crate::rights::Rights;
use crate::role::Role;
use crate::surroundings::Surroundings;

/// When a certificate is to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// Less than this is left.
    Left(Duration),
    /// More than this share of its life is over, in per cent, up to 100.
    Over(u8),
}

impl Default for Within {
    /// Two thirds: what is left then is time enough to notice that renewing fails.
    fn default() -> Self {
        Self::Over(66)
    }
}

impl FromStr for Within {
    type Err = Error;

    /// Reads `30d`, `12h` or `66%`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |digits: &str| digits.parse::<u16>().ok();
        let parsed = if let Some(digits) = text.strip_suffix('%') {
            number(digits)
                .filter(|share| *share <= 100)
                .and_then(|share| u8::try_from(share).ok())
                .map(Self::Over)
        } else if let Some(digits) = text.strip_suffix('d') {
            number(digits).map(|days| Self::Left(Duration::days(days.into())))
        } else if let Some(digits) = text.strip_suffix('h') {
            number(digits).map(|hours| Self::Left(Duration::hours(hours.into())))
        } else {
            None
        };
        parsed.ok_or_else(|| Error::InvalidWithin(text.to_owned()))
    }
}

impl Within {
    /// Whether a certificate is to be renewed at `now`.
    #[must_use]
    pub fn covers(self, certificate: &Certificate, now: OffsetDateTime) -> bool {
        let left = certificate.not_after - now;
        match self {
            Self::Left(limit) => left <= limit,
            Self::Over(share) => {
                let life = certificate.not_after - certificate.not_before;
                left * 100 <= life * i32::from(100 - share.min(100))
            }
        }
    }
}

/// How it stands with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It proves who its holder is.
    Valid,
    /// It has ended.
    Expired,
    /// It was revoked.
    Revoked,
    /// Its files are incomplete or don't fit each other.
    Damaged,
}

/// One identity of the PKI.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// Who it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// How it stands with it.
    pub state: State,
    /// Its certificate; none when damaged.
    pub certificate: Option<Certificate>,
}

/// One attempt of renewing.
#[derive(Debug)]
pub struct Renewal {
    /// Whose certificate.
    pub identity: Identity,
    /// What came of it.
    pub result: Result<Issued, Error>,
}

/// An authority that lives no longer than this shortens what it signs: time to replace it.
const AUTHORITY_ENDS: Duration = Duration::days(400);

impl Pki {
    /// The certificate of the authority, when it will end soon and no other takes its place yet.
    ///
    /// # Errors
    /// Its files are damaged, or the system refuses to read them.
    pub fn ending_authority(&self, now: OffsetDateTime) -> Result<Option<Certificate>, Error> {
        let authority = Authority::load(&self.authority_folder(), &self.passphrase)?;
        let ending = authority.filter(|one| {
            one.other.is_none() && one.signer.certificate.not_after - now < AUTHORITY_ENDS
        });
        Ok(ending.map(|one| one.signer.certificate))
    }

    /// The identities of a role that have a folder, by name.
    ///
    /// # Errors
    /// The system refuses to read the folder.
    pub(crate) fn identities_of(&self, role: Role) -> Result<Vec<Identity>, Error> {
        let folder = self.dir().join(role.as_str());
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::file("read", &folder, source)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| Error::file("read", &folder, source))?;
            let name = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(name) = name {
                found.push(Identity { role, name });
            }
        }
        found.sort();
        Ok(found)
    }

    /// Every identity that has a certificate here, by role and name.
    ///
    /// # Errors
    /// The system refuses to read a file.
    pub fn list(&self, now: OffsetDateTime) -> Result<Vec<Listed>, Error> {
        let index = Index::load(&self.index_path())?;
        let mut listed = Vec::new();
        for role in Role::ALL {
            for identity in self.identities_of(role)? {
                let (state, certificate) = match folder::read(&self.folder(&identity))? {
                    Found::Nothing => continue,
                    Found::Damaged => (State::Damaged, None),
                    Found::Whole(one) if index.is_revoked(&one.serial) => {
                        (State::Revoked, Some(*one))
                    }
                    Found::Whole(one) if one.has_expired(now) => (State::Expired, Some(*one)),
                    Found::Whole(one) => (State::Valid, Some(*one)),
                };
                listed.push(Listed {
                    identity,
                    state,
                    certificate,
                });
            }
        }
        Ok(listed)
    }

    /// The only identity of a name, of whatever role.
    ///
    /// # Errors
    /// There is none, or there are several ([`Error::Ambiguous`]).
    pub fn only(&self, name: &Name) -> Result<Identity, Error> {
        let found = self.find(name)?;
        match &found[..] {
            [one] => Ok(one.clone()),
            [] => Err(Error::NotFound {
                what: name.to_string(),
                dir: self.dir().to_owned(),
            }),
            several => Err(Error::ambiguous(name, &several.iter().collect::<Vec<_>>())),
        }
    }

    /// Whether a certificate is to be renewed.
    ///
    /// # Errors
    /// There is none ([`Error::NotFound`]), it can't be used, or the system refuses to read it.
    pub fn needs_renewal(
        &self,
        identity: &Identity,
        within: Within,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let existing = self.existing(identity)?;
        let authority = Authority::load(&self.authority_folder(), &self.passphrase)?;
        let is_superseded = authority.is_some_and(|one| one.has_superseded(&existing));
        Ok(is_superseded || within.covers(&existing, now))
    }

    /// The certificate of an identity.
    pub(crate) fn existing(&self, identity: &Identity) -> Result<Certificate, Error> {
        let folder = self.folder(identity);
        match folder::read(&folder)? {
            Found::Whole(certificate) => Ok(*certificate),
            Found::Nothing => Err(Error::NotFound {
                what: identity.to_string(),
                dir: self.dir().to_owned(),
            }),
            Found::Damaged => Err(Error::Unusable {
                path: folder,
                what: "certificate with its key",
                remedy: ISSUE,
            }),
        }
    }

    /// Renews a certificate: the same holder, addresses and, unless `rekey`, key.
    ///
    /// With `within` only when it is time; without, now.
    ///
    /// # Errors
    /// There is no such certificate or no authority; the authority's key is missing; the
    /// certificate was revoked ([`Error::Revoked`]); or the system refuses to read or write.
    pub fn renew(
        &self,
        identity: &Identity,
        within: Option<Within>,
        rekey: bool,
        surroundings: &mut Surroundings,
    ) -> Result<Issued, Error> {
        let authority = self.authority()?;
        let _lock = Lock::acquire(&self.authority_folder())?;
        let existing = self.existing(identity)?;
        let index = Index::load(&self.index_path())?;
        // Nothing outlives its authority, so there renewing on a timer would not help.
        let can_be_longer = existing.not_after < authority.signer.certificate.not_after;
        let is_time = authority.has_superseded(&existing)
            || within
                .is_none_or(|within| within.covers(&existing, surroundings.now) && can_be_longer);
        let had_pkcs12 = self.has_pkcs12(identity);
        let (outcome, certificate) = if is_time {
            if index.is_revoked(&existing.serial) {
                return Err(Error::Revoked {
                    what: identity.to_string(),
                    command: format!("certgen issue {} {} --force", identity.role, identity.name),
                });
            }
            let days = index.entry(&existing.serial).and_then(|entry| entry.days);
            let renewed =
                self.sign_again(identity, &existing, days, rekey, &authority, surroundings)?;
            (Outcome::Replaced(Reason::Renewed), renewed)
        } else {
            (Outcome::Unchanged, existing)
        };
        Ok(Issued {
            outcome,
            identity: identity.clone(),
            folder: self.folder(identity),
            certificate,
            pkcs12: (had_pkcs12 && !self.has_pkcs12(identity)).then_some(Pkcs12::Outdated),
        })
    }

    /// Signs what `existing` says for as long as it was asked for. Needs the lock.
    pub(crate) fn sign_again(
        &self,
        identity: &Identity,
        existing: &Certificate,
        days: Option<u32>,
        rekey: bool,
        authority: &Authority,
        surroundings: &mut Surroundings,
    ) -> Result<Certificate, Error> {
        let mut key = Key::of_folder(&self.folder(identity))?;
        if rekey {
            let Some(kind) = key.kind() else {
                return Err(Error::KeyElsewhere {
                    path: self.folder(identity).join("csr.pem"),
                    remedy: "let them make another, and issue with --csr and --force",
                });
            };
            key = Key::generate(kind)?;
        }
        let order = Order {
            identity,
            sans: &existing.sans,
            days,
            key,
            rights: Rights::default(),
        };
        self.sign(&order, authority, surroundings)
    }

    /// Renews all certificates whose time has come, and the list of revoked ones at half of its
    /// life. One that can't be renewed hinders no other; revoked ones are left alone.
    ///
    /// # Errors
    /// There is no authority, its key is missing while something is to be signed, or the system
    /// refuses to read or write what concerns all.
    pub fn renew_all(
        &self,
        within: Within,
        rekey: bool,
        surroundings: &mut Surroundings,
    ) -> Result<Vec<Renewal>, Error> {
        self.authority()?;
        let mut renewals = Vec::new();
        for listed in self.list(surroundings.now)? {
            if listed.state == State::Revoked {
                continue;
            }
            let result = self.renew(&listed.identity, Some(within), rekey, surroundings);
            renewals.push(Renewal {
                identity: listed.identity,
                result,
            });
        }
        if self.crl_is_due(surroundings.now)? {
            self.crl(CRL_DAYS, surroundings)?;
        }
        Ok(renewals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        let check = |text: &str, expected| assert_eq!(text.parse::<Within>().ok(), expected);
        check("30d", Some(Within::Left(Duration::days(30))));
        check("12h", Some(Within::Left(Duration::hours(12))));
        check("66%", Some(Within::Over(66)));
        for bad in ["", "30", "101%", "-1d", "d", "1.5d", "30 d", "99999999d"] {
            check(bad, None);
        }
    }
}
