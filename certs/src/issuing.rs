//! Signing a certificate and putting it into the folder of its holder.

use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::error::Error;
use crate::folder::{self, Content, FILES};
use crate::index;
use crate::key::Key;
use crate::name::{Identity, San};
use crate::pki::Pki;
use crate::profile::{self, Serial};
use crate::rights::Rights;
use crate::surroundings::Surroundings;

/// A certificate that was decided upon.
pub(crate) struct Order<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) sans: &'a [San],
    /// Days of validity; the role's own when `None`.
    pub(crate) days: Option<u32>,
    pub(crate) key: Key,
    /// To whom its files are given; to whom they were given before where it says nothing.
    pub(crate) rights: Rights,
}

impl Pki {
    /// Signs and writes a certificate. Needs the lock.
    pub(crate) fn sign(
        &self,
        order: &Order<'_>,
        authority: &Authority,
        surroundings: &mut Surroundings,
    ) -> Result<Certificate, Error> {
        let now = surroundings.now;
        if authority.signer.certificate.has_expired(now) {
            return Err(Error::AuthorityExpired {
                dir: self.dir().to_owned(),
            });
        }
        let identity = order.identity;
        let days = order.days.unwrap_or(identity.role.default_days());
        let serial = Serial::random(&mut surroundings.rng);
        let ca_end = authority.signer.certificate.not_after;
        let params = profile::end_entity(identity, order.sans, days, serial, now, ca_end)?;
        let cert = match &order.key {
            Key::Pair(pair) => authority.signer.sign(&params, pair.as_ref())?,
            Key::Request(request) => {
                let holder = &request.parsed.public_key;
                authority.signer.sign(&params, holder)?
            }
        };
        let folder = self.folder(identity);
        let certificate = Certificate::first_from_pem(&cert, &folder.join("cert.pem"))?;
        index::add(&self.index_path(), identity, &certificate, order.days, now)?;
        let content = Content::new(&authority.pem, &cert, &order.key);
        folder::write(&folder, &serial.to_hex(), &content, order.rights)?;
        self.give(identity, order.rights)?;
        self.hand_out_revocations(identity)?;
        Ok(certificate)
    }

    /// Gives the files of an identity to whom `rights` says, and lets them reach them.
    pub(crate) fn give(&self, identity: &Identity, rights: Rights) -> Result<(), Error> {
        if rights == Rights::default() {
            return Ok(());
        }
        let folder = self.folder(identity);
        Rights::let_pass(self.dir())?;
        Rights::let_pass(&self.dir().join(identity.role.as_str()))?;
        for name in FILES {
            let path = folder.join(name);
            if path.exists() {
                rights.apply(&path)?;
            }
        }
        rights.apply(&folder.join("..live/"))?;
        rights.apply(&folder)
    }
}
