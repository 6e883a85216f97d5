//! One certificate authority that signs: its certificate, and its key where it is kept here.

use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, CertificateRevocationListParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData,
};

use crate::certificate::Certificate;
use crate::error::{Error, RESTORE};
use crate::files::{self, SECRET};
use crate::passphrase::Passphrase;
use crate::sealed;
use crate::surroundings::Surroundings;

/// The private key of an authority.
#[derive(Debug)]
pub(crate) enum SigningKey {
    /// Ready to sign.
    Open(Box<KeyPair>),
    /// Under a passphrase, which is asked for when something is to be signed.
    Sealed { path: PathBuf, pem: String },
}

/// An authority that signs.
#[derive(Debug)]
pub(crate) struct Signer {
    /// Its own certificate.
    pub(crate) certificate: Certificate,
    /// Absent where the key is kept elsewhere.
    key: Option<SigningKey>,
    /// Where the key should be.
    place: PathBuf,
    /// What opens the key.
    passphrase: Passphrase,
}

impl Signer {
    /// The authority of `certificate`, whose key is at the first of `paths` at which one is.
    ///
    /// # Errors
    /// The key is damaged or belongs to another certificate, or can't be read.
    pub(crate) fn load(
        certificate: Certificate,
        paths: &[PathBuf],
        passphrase: &Passphrase,
    ) -> Result<Self, Error> {
        let mut found = None;
        for path in paths {
            if let Some(key) = SigningKey::load(path)? {
                found = Some((path, key));
                break;
            }
        }
        if let Some((path, SigningKey::Open(pair))) = &found
            && !certificate.certifies(pair.public_key_raw())
        {
            return Err(Error::Unusable {
                path: (*path).clone(),
                what: "key that fits the certificate of the authority",
                remedy: RESTORE,
            });
        }
        Ok(Self {
            certificate,
            key: found.map(|(_, key)| key),
            place: paths.first().cloned().unwrap_or_default(),
            passphrase: passphrase.clone(),
        })
    }

    /// Whether it can sign here.
    pub(crate) fn has_key(&self) -> bool {
        match &self.key {
            Some(SigningKey::Open(_)) => true,
            Some(SigningKey::Sealed { .. }) => self.passphrase.is_available(),
            None => false,
        }
    }

    /// Whether its key is under a passphrase.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.key, Some(SigningKey::Sealed { .. }))
    }

    /// Opens the key.
    ///
    /// # Errors
    /// It is not here, or its passphrase can't be read or is another one.
    pub(crate) fn open(&self) -> Result<KeyPair, Error> {
        match &self.key {
            Some(key) => key.open(&self.passphrase),
            None => Err(Error::NoAuthorityKey {
                path: self.place.clone(),
            }),
        }
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Error> {
        let key = self.open()?;
        Ok(Issuer::from_ca_cert_der(&self.certificate.der, key)?)
    }

    /// Signs `params` for `holder`; gives the PEM.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        holder: &impl PublicKeyData,
    ) -> Result<String, Error> {
        Ok(params.signed_by(holder, &self.issuer()?)?.pem())
    }

    /// Signs a list of revoked certificates; gives the PEM.
    pub(crate) fn sign_revocations(
        &self,
        params: &CertificateRevocationListParams,
    ) -> Result<String, Error> {
        Ok(params.signed_by(&self.issuer()?)?.pem()?)
    }
}

impl SigningKey {
    /// Reads a key; `None` when there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, Error> {
        let Some(pem) = files::read(path)? else {
            return Ok(None);
        };
        if sealed::is_sealed(&pem) {
            let path = path.to_owned();
            return Ok(Some(Self::Sealed { path, pem }));
        }
        match KeyPair::from_pem(&pem) {
            Ok(key) => Ok(Some(Self::Open(Box::new(key)))),
            Err(_) => Err(Error::Unusable {
                path: path.to_owned(),
                what: "private key",
                remedy: RESTORE,
            }),
        }
    }

    /// Makes sure that there is a key, which is never overwritten, and opens it. A new one is put
    /// under the passphrase when one is given.
    pub(crate) fn load_or_make(
        path: &Path,
        seal: bool,
        passphrase: &Passphrase,
        surroundings: &mut Surroundings,
    ) -> Result<KeyPair, Error> {
        if let Some(key) = Self::load(path)? {
            return key.open(passphrase);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pem = if seal {
            let passphrase = passphrase.read(&prompt(path), true)?;
            sealed::seal(key.serialized_der(), passphrase, &mut surroundings.rng)?
        } else {
            key.serialize_pem()
        };
        files::replace(path, SECRET, &pem)?;
        Ok(key)
    }

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
