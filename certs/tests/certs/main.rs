//! The tests of the certificates and of the command certgen, one module per subject.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests may panic as tests do"
)]

mod bench;
mod certgen;
mod command;
mod errors;
mod golden;
mod handshake;
mod life;
mod peers;
mod pkcs12;
mod pki;
mod profile;
mod rights;
mod rotation;
mod secrets;
