//! dimpl's cryptography on aws-lc-rs, and how our cookie gets past dimpl's own.
//!
//! dimpl makes its cookie with a secret of each connection, so that a connection would have to exist
//! before an address is verified. Ours is checked before; dimpl is then shown both halves of the
//! exchange, and has to find in the second the cookie that it would have made itself. It asks its
//! provider for the HMAC that is the cookie: while [`with_cookie`] runs, the answer is ours.

use std::cell::Cell;

use dimpl::CryptoError;
use dimpl::crypto::aws_lc_rs::default_provider;
use dimpl::crypto::{CryptoProvider, HashAlgorithm, HmacProvider};

use super::cookie::Cookie;

thread_local! {
    static VERIFIED: Cell<Option<Cookie>> = const { Cell::new(None) };
}

/// Runs `work`, which shows dimpl a ClientHello whose cookie is verified to be this one. Never with
/// any other input: the cookie is the only thing that DTLS 1.2 makes with `hmac_sha256`.
pub(super) fn with_cookie<T>(cookie: Cookie, work: impl FnOnce() -> T) -> T {
    /// Forgets the cookie, also when the work panics.
    struct Forget;
    impl Drop for Forget {
        fn drop(&mut self) {
            VERIFIED.set(None);
        }
    }
    let _forget = Forget;
    VERIFIED.set(Some(cookie));
    work()
}

#[derive(Debug)]
struct CookieHmac;

static COOKIE_HMAC: CookieHmac = CookieHmac;

impl HmacProvider for CookieHmac {
    fn hmac_sha256(&self, key: &[u8], data: &[u8]) -> Result<[u8; 32], CryptoError> {
        match VERIFIED.get() {
            Some(cookie) => Ok(cookie),
            None => default_provider().hmac_provider.hmac_sha256(key, data),
        }
    }

    fn hmac(
        &self,
        hash: HashAlgorithm,
        key: &[u8],
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, CryptoError> {
        default_provider().hmac_provider.hmac(hash, key, data, out)
    }
}

/// What all connections compute with.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        hmac_provider: &COOKIE_HMAC,
        ..default_provider()
    }
}
