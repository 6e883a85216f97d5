//! The certificate authority: `ca/ca.pem`, and `ca/ca.key` where certificates are signed.
//!
//! The first certificate of `ca.pem` is the one that signs; what follows is trusted too. While one
//! authority takes the place of another, both stand there: see [`crate::rotation`].

use std::path::Path;

use rand::RngCore as _;
use rcgen::KeyPair;

use crate::certificate::Certificate;
use crate::error::{Error, RESTORE};
use crate::files::{self, PUBLIC};
use crate::passphrase::Passphrase;
use crate::pki::NewAuthority;
use crate::profile::{self, Serial, hex};
use crate::rotation::Rotation;
use crate::signer::{Signer, SigningKey};
use crate::surroundings::Surroundings;

/// A certificate authority, read from its folder.
#[derive(Debug)]
pub(crate) struct Authority {
    /// What signs the certificates.
    pub(crate) signer: Signer,
    /// While one takes the place of another: the other one, as long as it is trusted.
    pub(crate) other: Option<Signer>,
    /// Everyone who is trusted, the signer first.
    pub(crate) anchors: Vec<Certificate>,
    /// The content of `ca.pem`.
    pub(crate) pem: String,
}

impl Authority {
    /// Reads the authority in `folder`; `None` when there is none, or only a key without a
    /// certificate, as an interrupted first run leaves.
    pub(crate) fn load(folder: &Path, passphrase: &Passphrase) -> Result<Option<Self>, Error> {
        let path = folder.join("ca.pem");
        let Some(pem) = files::read(&path)? else {
            return Ok(None);
        };
        let anchors = Certificate::all_from_pem(&pem, &path).map_err(Error::for_good)?;
        let Some(first) = anchors.first().filter(|first| first.is_ca) else {
            return Err(Error::Unusable {
                path,
                what: "certificate of an authority",
                remedy: RESTORE,
            });
        };
        let rotation = Rotation::load(folder)?;
        let load = |certificate: &Certificate| {
            let paths = Rotation::keys(rotation.as_ref(), folder, certificate);
            Signer::load(certificate.clone(), &paths, passphrase)
        };
        let other = rotation.as_ref().and_then(|one| one.other_than(first));
        Ok(Some(Self {
            signer: load(first)?,
            other: other
                .filter(|other| anchors.contains(other))
                .map(load)
                .transpose()?,
            anchors,
            pem,
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
        let path = folder.join("ca.key");
        let key = SigningKey::load_or_make(&path, order.sealed, passphrase, surroundings)?;
        let pem = self_signed(&key, order, surroundings)?;
        files::replace(&folder.join("ca.pem"), PUBLIC, &pem)?;
        Self::load(folder, passphrase)?.ok_or_else(|| Error::NoAuthority {
            dir: folder.to_owned(),
        })
    }

    /// All who sign here: one, or two while one takes the place of the other.
    pub(crate) fn signers(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&self.signer).chain(&self.other)
    }

    /// Whether `certificate` was signed by the old one before the new one took its place; before
    /// that the other is the new one, which has signed nothing.
    pub(crate) fn has_superseded(&self, certificate: &Certificate) -> bool {
        let other = self.other.as_ref();
        other.is_some_and(|other| certificate.is_signed_by(&other.certificate))
    }
}

/// Makes the certificate of an authority, in PEM.
pub(crate) fn self_signed(
    key: &KeyPair,
    order: &NewAuthority,
    surroundings: &mut Surroundings,
) -> Result<String, Error> {
    let serial = Serial::random(&mut surroundings.rng);
    // Two authorities are never called the same: clients find the issuer by name.
    let mut tag = [0; 4];
    surroundings.rng.fill_bytes(&mut tag);
    let name = format!("{} {}", order.name, hex(&tag));
    let params = profile::authority(&name, serial, order.years, surroundings.now);
    Ok(params.self_signed(key)?.pem())
}
