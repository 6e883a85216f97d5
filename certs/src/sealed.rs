//! Private keys under a passphrase: PKCS#8 `EncryptedPrivateKeyInfo` (RFC 5958 section 3) with
//! PBES2 (RFC 8018 section 6.2), PBKDF2 with HMAC-SHA-256 and AES-256-CBC, which every tool reads.

use pkcs8::der::pem::LineEnding;
use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use rand::CryptoRng;

const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// Rounds of PBKDF2: what OWASP advises for HMAC-SHA-256.
const ROUNDS: u32 = 600_000;

/// Whether a PEM text is such a key.
pub(crate) fn is_sealed(pem: &str) -> bool {
    pem.contains(LABEL)
}

/// Encrypts a PKCS#8 key.
pub(crate) fn seal(
    key: &[u8],
    passphrase: &str,
    rng: &mut impl CryptoRng,
) -> Result<String, pkcs8::Error> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut iv);
    let parameters = Parameters::generate_pbkdf2_sha256_aes256cbc(ROUNDS, &salt, iv)?;
    let sealed = PrivateKeyInfoRef::try_from(key)?.encrypt_with_params(parameters, passphrase)?;
    Ok(sealed.to_pem(LABEL, LineEnding::LF)?.to_string())
}

/// Decrypts to the PKCS#8 key; `None` when the passphrase is another one, or it is no such key.
pub(crate) fn unseal(pem: &str, passphrase: &str) -> Option<SecretDocument> {
    let (_, document) = SecretDocument::from_pem(pem).ok()?;
    let sealed = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).ok()?;
    sealed.decrypt(passphrase).ok()
}
