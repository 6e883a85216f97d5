//! A folder of certificates: an authority and everything it issued.
//!
//! ```text
//! <dir>/ca/{ca.pem,ca.key,index.json,crl.pem}
//! <dir>/<role>/<name>/{ca.pem,cert.pem,key.pem}
//! ```
//!
//! Asking twice changes nothing: a request that what exists fulfils is answered with what exists.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::decision::{self, Decision};
use crate::error::Error;
use crate::files::{self, Lock};
use crate::folder::{self, Found};
use crate::index::{Entry, Index};
use crate::issuing::Order;
use crate::key::{Key, KeyType};
use crate::name::{Identity, Name, San};
use crate::passphrase::Passphrase;
use crate::rights::Rights;
use crate::role::Role;
use crate::surroundings::Surroundings;

/// A folder of certificates, which need not exist yet.
#[derive(Debug, Clone)]
pub struct Pki {
    dir: PathBuf,
    pub(crate) passphrase: Passphrase,
}

/// What an authority that is made is like.
#[derive(Debug, Clone)]
pub struct NewAuthority {
    /// Its Common Name, to which a random tag is added.
    pub name: String,
    /// How long it lives.
    pub years: u32,
    /// Whether its key is encrypted with the PKI's passphrase.
    pub sealed: bool,
}

impl Default for NewAuthority {
    fn default() -> Self {
        Self {
            name: "nodebus CA".to_owned(),
            years: 10,
            sealed: false,
        }
    }
}

/// What happened to something that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was made.
    Created,
    /// It was there.
    Unchanged,
    /// It was there, but was revoked, and stays so until it is asked for with `--force`.
    Revoked,
    /// It was there and was replaced.
    Replaced(Reason),
}

/// Why something that was there was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its files were incomplete or don't fit each other.
    Damaged,
    /// It was signed by another authority than the one here.
    OtherAuthority,
    /// It has expired.
    Expired,
    /// Two thirds of its life are over.
    Due,
    /// It lacked an address under which it is reached.
    Address,
    /// It was asked for with `--force`.
    Forced,
    /// It was asked to be renewed.
    Renewed,
    /// Another authority takes the place of the one that signed it.
    Superseded,
}

/// A certificate authority that exists now.
#[derive(Debug, Clone, Serialize)]
pub struct Initialised {
    /// Whether it existed before.
    pub outcome: Outcome,
    /// Where it is.
    pub folder: PathBuf,
    /// Whether its key is here too, so that certificates can be signed.
    pub has_key: bool,
    /// Its certificate.
    pub certificate: Certificate,
}

/// A certificate that exists now.
#[derive(Debug, Clone, Serialize)]
pub struct Issued {
    /// Whether it existed before.
    pub outcome: Outcome,
    /// Whose it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// Where `ca.pem`, `cert.pem` and `key.pem` are.
    pub folder: PathBuf,
    /// What it says.
    pub certificate: Certificate,
    /// What became of its PKCS#12 file; none when there is none or it stayed as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pkcs12: Option<Pkcs12>,
}

/// What became of a PKCS#12 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pkcs12 {
    /// It holds the certificate.
    Written,
    /// It held the certificate before, and was removed.
    Outdated,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// For whom.
    pub identity: Identity,
    /// Addresses beyond those that the role has by itself.
    pub sans: Vec<San>,
    /// Days of validity; the role's own when `None`.
    pub days: Option<u32>,
    /// The kind of key to make.
    pub key_type: KeyType,
    /// A certification request (PEM file) of someone who keeps the key; none is made then.
    pub csr: Option<PathBuf>,
    /// The password of a PKCS#12 file to write too.
    pub pkcs12: Option<Passphrase>,
    /// To whom the files are given, also those of a certificate that exists.
    pub rights: Rights,
    /// What to do with a certificate that exists and differs.
    pub existing: Existing,
}

/// What to do with a certificate that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Keep it, and refuse a request that it doesn't fulfil.
    Keep,
    /// Keep it, but renew it in time and add addresses that it lacks. One that was revoked stays so.
    Maintain,
    /// Replace it.
    Replace,
}

impl Request {
    /// A request for what the role has by itself, answered by what exists.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            sans: Vec::new(),
            days: None,
            key_type: KeyType::default(),
            csr: None,
            pkcs12: None,
            rights: Rights::default(),
            existing: Existing::Keep,
        }
    }

    fn key(&self) -> Result<Key, Error> {
        let Some(path) = &self.csr else {
            return Key::generate(self.key_type);
        };
        match files::read(path)? {
            Some(pem) => Key::from_request(pem, path),
            None => Err(Error::Request { path: path.clone() }),
        }
    }
}

impl Pki {
    /// The PKI in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            passphrase: Passphrase::default(),
        }
    }

    /// Opens the authority's key, if it is encrypted, with this passphrase.
    #[must_use]
    pub fn with_passphrase(self, passphrase: Passphrase) -> Self {
        Self { passphrase, ..self }
    }

    /// The folder of the PKI.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the authority.
    #[must_use]
    pub fn authority_folder(&self) -> PathBuf {
        self.dir.join("ca")
    }

    /// The folder of an identity.
    #[must_use]
    pub fn folder(&self, identity: &Identity) -> PathBuf {
        self.dir
            .join(identity.role.as_str())
            .join(identity.name.as_str())
    }

    /// Makes sure that there is a certificate authority.
    ///
    /// # Errors
    /// The files of an existing one are damaged, or the system refuses to read or write.
    pub fn init(&self, surroundings: &mut Surroundings) -> Result<Initialised, Error> {
        self.init_as(&NewAuthority::default(), surroundings)
    }

    /// [`Self::init`] with a say in what is made when there is none.
    ///
    /// # Errors
    /// As [`Self::init`]; or the passphrase for its key can't be read.
    pub fn init_as(
        &self,
        order: &NewAuthority,
        surroundings: &mut Surroundings,
    ) -> Result<Initialised, Error> {
        if let Some(authority) = Authority::load(&self.authority_folder(), &self.passphrase)? {
            return Ok(self.initialised(Outcome::Unchanged, &authority));
        }
        let _lock = Lock::acquire(&self.authority_folder())?;
        // Another certgen may have made it meanwhile.
        if let Some(authority) = Authority::load(&self.authority_folder(), &self.passphrase)? {
            return Ok(self.initialised(Outcome::Unchanged, &authority));
        }
        let authority = Authority::create(
            &self.authority_folder(),
            order,
            &self.passphrase,
            surroundings,
        )?;
        Ok(self.initialised(Outcome::Created, &authority))
    }

    fn initialised(&self, outcome: Outcome, authority: &Authority) -> Initialised {
        Initialised {
            outcome,
            folder: self.authority_folder(),
            has_key: authority.signer.has_key(),
            certificate: authority.signer.certificate.clone(),
        }
    }

    /// Makes sure that there is the certificate that `request` asks for.
    ///
    /// # Errors
    /// There is no authority, its key is elsewhere or it has expired; what exists differs from the
    /// request ([`Error::Differs`]); or the system refuses to read or write.
    pub fn issue(
        &self,
        request: &Request,
        surroundings: &mut Surroundings,
    ) -> Result<Issued, Error> {
        // What needs no writing needs no lock, and works in a folder that can only be read.
        let authority = self.authority()?;
        let decision = self.decide(request, &authority, surroundings)?;
        if let (Decision::Keep(outcome, certificate), None) = (decision, &request.pkcs12) {
            self.give(&request.identity, request.rights)?;
            return Ok(self.issued(outcome, request, certificate));
        }
        let password = request.pkcs12.as_ref();
        let password = password.map(|one| one.read("password of the PKCS#12 file", true));
        let password = password.transpose()?;
        let _lock = Lock::acquire(&self.authority_folder())?;
        let authority = self.authority()?;
        let had_pkcs12 = self.has_pkcs12(&request.identity);
        let mut issued = self.issue_locked(request, &authority, surroundings)?;
        if let Some(password) = password {
            let certificate = &issued.certificate;
            self.write_pkcs12(&request.identity, certificate, &authority, password)?;
            issued.pkcs12 = Some(Pkcs12::Written);
        } else if had_pkcs12 && !self.has_pkcs12(&request.identity) {
            issued.pkcs12 = Some(Pkcs12::Outdated);
        }
        Ok(issued)
    }

    fn issue_locked(
        &self,
        request: &Request,
        authority: &Authority,
        surroundings: &mut Surroundings,
    ) -> Result<Issued, Error> {
        match self.decide(request, authority, surroundings)? {
            Decision::Keep(outcome, certificate) => {
                self.give(&request.identity, request.rights)?;
                Ok(self.issued(outcome, request, certificate))
            }
            Decision::Issue(outcome, sans) => {
                let order = Order {
                    identity: &request.identity,
                    sans: &sans,
                    days: request.days,
                    key: request.key()?,
                    rights: request.rights,
                };
                let certificate = self.sign(&order, authority, surroundings)?;
                Ok(self.issued(outcome, request, certificate))
            }
        }
    }

    fn issued(&self, outcome: Outcome, request: &Request, certificate: Certificate) -> Issued {
        Issued {
            outcome,
            folder: self.folder(&request.identity),
            identity: request.identity.clone(),
            certificate,
            pkcs12: None,
        }
    }

    pub(crate) fn has_pkcs12(&self, identity: &Identity) -> bool {
        self.folder(identity).join(folder::PKCS12).exists()
    }

    pub(crate) fn authority(&self) -> Result<Authority, Error> {
        Authority::load(&self.authority_folder(), &self.passphrase)?.ok_or_else(|| {
            Error::NoAuthority {
                dir: self.dir.clone(),
            }
        })
    }

    /// Compares what is asked for with what is there.
    fn decide(
        &self,
        request: &Request,
        authority: &Authority,
        surroundings: &Surroundings,
    ) -> Result<Decision, Error> {
        let Identity { role, name } = &request.identity;
        let mut wanted = role.default_sans(name, surroundings.hostname.as_deref());
        decision::add_missing(&mut wanted, request.sans.clone());
        let found = folder::read(&self.folder(&request.identity))?;
        if matches!(found, Found::Nothing) {
            self.refuse_other_role(request)?;
        }
        let index = Index::load(&self.index_path())?;
        let now = surroundings.now;
        let decision = decision::decide(request, wanted, found, authority, &index, now)?;
        if let (Decision::Keep(_, existing), Some(path)) = (&decision, &request.csr)
            && !existing.certifies(request.key()?.public())
        {
            return Err(Error::Differs {
                what: request.identity.to_string(),
                difference: format!("with another key than the one of {}", path.display()),
            });
        }
        Ok(decision)
    }

    /// One name for a bridge and a viewer is most likely a slip; for a part that opens connections and
    /// answers others it is not.
    fn refuse_other_role(&self, request: &Request) -> Result<(), Error> {
        let Identity { role, name } = &request.identity;
        if request.existing != Existing::Keep {
            return Ok(());
        }
        let others = self.find(name)?;
        let mut others = others.iter();
        match others.find(|other| !role.is_same_part(other.role)) {
            Some(other) => Err(Error::Differs {
                what: name.to_string(),
                difference: format!("its role is {}, not {role}", other.role),
            }),
            None => Ok(()),
        }
    }

    /// The identities called `name`, of whatever role.
    ///
    /// # Errors
    /// The system refuses to read a file.
    pub fn find(&self, name: &Name) -> Result<Vec<Identity>, Error> {
        let mut found = Vec::new();
        for role in Role::ALL {
            let identity = Identity {
                role,
                name: name.clone(),
            };
            if !matches!(folder::read(&self.folder(&identity))?, Found::Nothing) {
                found.push(identity);
            }
        }
        Ok(found)
    }

    /// Everything that was ever issued here, oldest first.
    ///
    /// # Errors
    /// The list can't be read or is damaged.
    pub fn index(&self) -> Result<Vec<Entry>, Error> {
        Ok(Index::load(&self.index_path())?.issued)
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.authority_folder().join("index.json")
    }
}
