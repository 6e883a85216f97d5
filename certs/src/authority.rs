//! The certificate authority: `ca/ca.pem`, and `ca/ca.key` where certificates are signed.

use std::path::{Path, PathBuf};

use rand::RngCore as _;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData,
};

use crate::certificate::Certificate;
use crate::error::Error;
use crate::files::{self, PUBLIC, SECRET};
use crate::passphrase::Passphrase;
use crate::pki::NewAuthority;
use crate::profile::{self, Serial, hex};
use crate::sealed;
use crate::surroundings::Surroundings;

/// The private key of an authority.
#[derive(Debug)]
enum SigningKey {
    /// Ready to sign.
    Open(Box<KeyPair>),
    /// Under a passphrase, which is asked for when something is to be signed.
    Sealed { path: PathBuf, pem: String },
}

/// A certificate authority, read from its folder.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Its own certificate.
    pub(crate) certificate: Certificate,
    /// The content of `ca.pem`.
    pub(crate) pem: String,
    /// Absent where the key is kept elsewhere.
    key: Option<SigningKey>,
    /// What opens the key.
    passphrase: Passphrase,
}

impl Authority {
    /// Reads the authority in `folder`; `None` when there is none, or only a key without a
    /// certificate, as an interrupted first run leaves.
    pub(crate) fn load(folder: &Path, passphrase: &Passphrase) -> Result<Option<Self>, Error> {
        let path = folder.join("ca.pem");
        let Some(pem) = files::read(&path)? else {
            return Ok(None);
        };
        let certificate = Certificate::first_from_pem(&pem, &path)?;
        if !certificate.is_ca {
            return Err(Error::Unusable {
                path,
                what: "certificate of an authority",
            });
        }
        let key = load_key(folder)?;
        let fits = match &key {
            Some(SigningKey::Open(pair)) => certificate.certifies(pair.public_key_raw()),
            Some(SigningKey::Sealed { .. }) | None => true,
        };
        if !fits {
            return Err(Error::Unusable {
                path: folder.join("ca.key"),
                what: "key that fits ca.pem",
            });
        }
        Ok(Some(Self {
            certificate,
            pem,
            key,
            passphrase: passphrase.clone(),
        }))
    }

    /// Makes the authority of `folder`. A key that is there already is used, never overwritten.
    /// A new one is put under the passphrase when `order` says so.
    pub(crate) fn create(
        folder: &Path,
        order: &NewAuthority,
        passphrase: &Passphrase,
        surroundings: &mut Surroundings,
    ) -> Result<Self, Error> {
        files::make_folder(folder)?;
        let key = match load_key(folder)? {
            Some(key) => key.open(passphrase)?,
            None => new_key(folder, order.sealed.then_some(passphrase), surroundings)?,
        };
        let serial = Serial::random(&mut surroundings.rng);
        // Two authorities are never called the same: clients find the issuer by name.
        let mut tag = [0; 4];
        surroundings.rng.fill_bytes(&mut tag);
        let name = format!("{} {}", order.name, hex(&tag));
        let pem = profile::authority(&name, serial, order.years, surroundings.now)
            .self_signed(&key)?
            .pem();
        files::replace(&folder.join("ca.pem"), PUBLIC, &pem)?;
        Self::load(folder, passphrase)?.ok_or_else(|| Error::NoAuthority {
            dir: folder.to_owned(),
        })
    }

    /// Whether certificates can be signed here.
    pub(crate) fn has_key(&self) -> bool {
        match &self.key {
            Some(SigningKey::Open(_)) => true,
            Some(SigningKey::Sealed { .. }) => self.passphrase.is_available(),
            None => false,
        }
    }

    /// Signs `params` for `holder`; gives the PEM, or `None` without the authority's key.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        holder: &impl PublicKeyData,
    ) -> Result<Option<String>, Error> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let key = key.open(&self.passphrase)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der, key)?;
        Ok(Some(params.signed_by(holder, &issuer)?.pem()))
    }

    /// Signs a list of revoked certificates; `None` without the authority's key.
    pub(crate) fn sign_revocations(
        &self,
        params: &CertificateRevocationListParams,
    ) -> Result<Option<String>, Error> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let key = key.open(&self.passphrase)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der, key)?;
        Ok(Some(params.signed_by(&issuer)?.pem()?))
    }
}

impl SigningKey {
    fn open(&self, passphrase: &Passphrase) -> Result<KeyPair, Error> {
        match self {
            Self::Open(pair) => Ok(KeyPair::try_from(pair.serialized_der())?),
            Self::Sealed { path, pem } => {
                let key = passphrase.open(pem, &prompt(path))?;
                key.and_then(|der| KeyPair::try_from(der.as_bytes()).ok())
                    .ok_or_else(|| Error::WrongPassphrase { path: path.clone() })
            }
        }
    }
}

fn prompt(path: &Path) -> String {
    format!("passphrase of {}", path.display())
}

/// Makes the key of an authority and writes it, under a passphrase if one is given.
fn new_key(
    folder: &Path,
    passphrase: Option<&Passphrase>,
    surroundings: &mut Surroundings,
) -> Result<KeyPair, Error> {
    let path = folder.join("ca.key");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let pem = match passphrase {
        Some(passphrase) => {
            let passphrase = passphrase.read(&prompt(&path), true)?;
            sealed::seal(key.serialized_der(), passphrase, &mut surroundings.rng)?
        }
        None => key.serialize_pem(),
    };
    files::replace(&path, SECRET, &pem)?;
    Ok(key)
}

fn load_key(folder: &Path) -> Result<Option<SigningKey>, Error> {
    let path = folder.join("ca.key");
    let Some(pem) = files::read(&path)? else {
        return Ok(None);
    };
    if sealed::is_sealed(&pem) {
        return Ok(Some(SigningKey::Sealed { path, pem }));
    }
    match KeyPair::from_pem(&pem) {
        Ok(key) => Ok(Some(SigningKey::Open(Box::new(key)))),
        Err(_) => Err(Error::Unusable {
            path,
            what: "private key",
        }),
    }
}
