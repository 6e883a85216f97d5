//! Whose key a certificate certifies: one that is made here, one that is kept, or one that its
//! holder never shows, known by a certification request (PKCS#10, RFC 2986).

use std::path::Path;

use pkcs8::{PrivateKeyInfoRef, SecretDocument};
use rcgen::{
    CertificateSigningRequestParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PKCS_RSA_SHA256, RsaKeySize,
};
use serde::Serialize;

use crate::error::{Error, ISSUE};
use crate::files;

/// The kind of a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum KeyType {
    /// ECDSA on the curve P-256: small, and known to everyone
    #[default]
    P256,
    /// Ed25519: small, but browsers don't know it
    Ed25519,
    /// RSA with 3072 bits: large and slow, for what knows nothing else
    Rsa,
}

/// A key to certify.
#[derive(Debug)]
pub(crate) enum Key {
    /// With its private part.
    Pair(Box<KeyPair>),
    /// The private part is with its holder.
    Request(Box<Request>),
}

/// A certification request whose signature was checked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) pem: String,
    pub(crate) parsed: CertificateSigningRequestParams,
}

impl Key {
    /// Makes a new one.
    pub(crate) fn generate(kind: KeyType) -> Result<Self, Error> {
        let pair = match kind {
            KeyType::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            KeyType::Ed25519 => without_public_key(&KeyPair::generate_for(&PKCS_ED25519)?)?,
            KeyType::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072)?,
        };
        Ok(Self::Pair(Box::new(pair)))
    }

    /// Reads a certification request and checks that whoever made it has the private key. What it
    /// asks for beyond its key is not looked at: the command line decides that.
    ///
    /// # Errors
    /// It can't be read, is none, or its signature is wrong.
    pub(crate) fn from_request(pem: String, path: &Path) -> Result<Self, Error> {
        match CertificateSigningRequestParams::from_pem(&pem) {
            Ok(parsed) => Ok(Self::Request(Box::new(Request { pem, parsed }))),
            Err(_) => Err(Error::Request {
                path: path.to_owned(),
            }),
        }
    }

    /// The key that the folder of an identity holds.
    ///
    /// # Errors
    /// There is none, or it can't be used.
    pub(crate) fn of_folder(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("key.pem");
        if let Some(pem) = files::read(&path)? {
            return match KeyPair::from_pem(&pem).and_then(|pair| without_public_key(&pair)) {
                Ok(pair) => Ok(Self::Pair(Box::new(pair))),
                Err(_) => Err(Error::Unusable {
                    path,
                    what: "private key",
                    remedy: ISSUE,
                }),
            };
        }
        let request = folder.join("csr.pem");
        match files::read(&request)? {
            Some(pem) => Self::from_request(pem, &request),
            None => Err(Error::Unusable {
                path,
                what: "private key",
                remedy: ISSUE,
            }),
        }
    }

    /// What kind it is; `None` when it is made elsewhere.
    pub(crate) fn kind(&self) -> Option<KeyType> {
        let Self::Pair(pair) = self else {
            return None;
        };
        Some(if pair.algorithm() == &PKCS_ED25519 {
            KeyType::Ed25519
        } else if pair.algorithm() == &PKCS_ECDSA_P256_SHA256 {
            KeyType::P256
        } else {
            KeyType::Rsa
        })
    }

    /// The public key as rcgen gives it.
    pub(crate) fn public(&self) -> &[u8] {
        match self {
            Self::Pair(pair) => pair.public_key_raw(),
            Self::Request(request) => rcgen::PublicKeyData::der_bytes(&request.parsed.public_key),
        }
    }
}

/// The same key without the public key that rcgen puts beside one of Ed25519 (RFC 5958 section 2,
/// version 2): OpenSSL reads no such file.
fn without_public_key(pair: &KeyPair) -> Result<KeyPair, rcgen::Error> {
    let plain = |der| -> Result<SecretDocument, pkcs8::Error> {
        let mut info = PrivateKeyInfoRef::try_from(der)?;
        info.public_key = None;
        Ok(SecretDocument::encode_msg(&info)?)
    };
    let plain = plain(pair.serialized_der());
    KeyPair::try_from(
        plain
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?
            .as_bytes(),
    )
}
