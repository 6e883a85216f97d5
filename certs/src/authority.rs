//! The certificate authority: `ca/ca.pem`, and `ca/ca.key` where certificates are signed.

use std::path::Path;

use rand::RngCore as _;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData,
};

use crate::certificate::Certificate;
use crate::error::Error;
use crate::files::{self, PUBLIC, SECRET};
use crate::profile::{self, Serial, hex};
use crate::surroundings::Surroundings;

/// A certificate authority, read from its folder.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Its own certificate.
    pub(crate) certificate: Certificate,
    /// The content of `ca.pem`.
    pub(crate) pem: String,
    /// Absent where the key is kept elsewhere.
    key: Option<KeyPair>,
}

impl Authority {
    /// Reads the authority in `folder`; `None` when there is none, or only a key without a
    /// certificate, as an interrupted first run leaves.
    pub(crate) fn load(folder: &Path) -> Result<Option<Self>, Error> {
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
        if key
            .as_ref()
            .is_some_and(|key| !certificate.certifies(key.public_key_raw()))
        {
            return Err(Error::Unusable {
                path: folder.join("ca.key"),
                what: "key that fits ca.pem",
            });
        }
        Ok(Some(Self {
            certificate,
            pem,
            key,
        }))
    }

    /// Makes the authority of `folder`. A key that is there already is used, never overwritten.
    pub(crate) fn create(folder: &Path, surroundings: &mut Surroundings) -> Result<Self, Error> {
        files::make_folder(folder)?;
        let key = match load_key(folder)? {
            Some(key) => key,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                files::replace(&folder.join("ca.key"), SECRET, key.serialize_pem())?;
                key
            }
        };
        let serial = Serial::random(&mut surroundings.rng);
        // Two authorities are never called the same: clients find the issuer by name.
        let mut tag = [0; 4];
        surroundings.rng.fill_bytes(&mut tag);
        let name = format!("nodebus CA {}", hex(&tag));
        let pem = profile::authority(&name, serial, surroundings.now)
            .self_signed(&key)?
            .pem();
        files::replace(&folder.join("ca.pem"), PUBLIC, &pem)?;
        Self::load(folder)?.ok_or_else(|| Error::NoAuthority {
            dir: folder.to_owned(),
        })
    }

    /// Whether certificates can be signed here.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
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
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der, key)?;
        Ok(Some(params.signed_by(&issuer)?.pem()?))
    }
}

fn load_key(folder: &Path) -> Result<Option<KeyPair>, Error> {
    let path = folder.join("ca.key");
    let Some(pem) = files::read(&path)? else {
        return Ok(None);
    };
    match KeyPair::from_pem(&pem) {
        Ok(key) => Ok(Some(key)),
        Err(_) => Err(Error::Unusable {
            path,
            what: "private key",
        }),
    }
}
