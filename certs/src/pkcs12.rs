//! A certificate with its key and its authority in one file, under a password: PKCS#12 (RFC 7292),
//! as phones, browsers and mail programs take it.
//!
//! Encrypted by PBES2 with AES-256-CBC and PBKDF2 with HMAC-SHA-256, with a MAC by HMAC-SHA-256:
//! what OpenSSL 3 and Java write. The legacy ciphers of PKCS#12 (RC2, 3DES) are not offered.

use p12_keystore::error::Error as WriteError;
use p12_keystore::{Certificate as Entry, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};

use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::error::Error;
use crate::folder;
use crate::key::Key;
use crate::name::Identity;
use crate::pki::Pki;

/// Rounds of both key derivations. Phones go through them when they import, so that it is less
/// than for the authority's key.
const ROUNDS: u32 = 100_000;

impl Pki {
    /// Writes `identity.p12` into the folder of an identity, beside the certificate and the key
    /// that it holds. Needs the lock.
    pub(crate) fn write_pkcs12(
        &self,
        identity: &Identity,
        certificate: &Certificate,
        authority: &Authority,
        password: &str,
    ) -> Result<(), Error> {
        let folder = self.folder(identity);
        let Key::Pair(pair) = Key::of_folder(&folder)? else {
            return Err(Error::KeyElsewhere {
                path: folder.join("csr.pem"),
                remedy: "let them put both into a PKCS#12 file",
            });
        };
        let signs = |anchor: &&Certificate| certificate.is_signed_by(anchor);
        let anchor = authority.anchors.iter().find(signs);
        let chain = std::iter::once(certificate).chain(anchor);
        let written = write(identity, pair.serialized_der(), chain, password);
        folder::write_pkcs12(&folder, &written.map_err(Box::new)?)
    }
}

fn write<'a>(
    identity: &Identity,
    key: &[u8],
    chain: impl Iterator<Item = &'a Certificate>,
    password: &str,
) -> Result<Vec<u8>, WriteError> {
    let chain: Result<Vec<Entry>, _> = chain.map(|one| Entry::from_der(&one.der)).collect();
    // Ties the key to its certificate within the file; any bytes do.
    let chain = PrivateKeyChain::new(identity.uri(), PrivateKey::from_der(key)?, chain?);
    let mut store = KeyStore::new();
    let called = format!("nodebus {identity}");
    store.add_entry(&called, KeyStoreEntry::PrivateKeyChain(chain));
    let writer = store.writer(password);
    writer
        .encryption_iterations(ROUNDS)
        .mac_iterations(ROUNDS)
        .write()
}
