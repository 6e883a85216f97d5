//! The certificates of nodebus: an authority, and one identity for every part and person.
//!
//! Every client of the bus proves who it is by a certificate whose URI SAN `urn:nodebus:<role>:<name>`
//! names its role; this crate makes them, and the command `certgen` is its face. [`quickstart`] is
//! the entry for `nodebus up`.
//!
//! It refuses to overwrite the key of an authority, to print a secret, and to issue anything that
//! outlives the authority.

#![warn(missing_docs)]

mod authority;
mod bundle;
mod certificate;
#[cfg(test)]
mod crash;
mod credentials;
mod decision;
mod embed;
mod error;
mod export;
mod files;
mod folder;
mod index;
mod issuing;
mod key;
mod lines;
mod name;
mod passphrase;
mod pkcs12;
mod pki;
mod profile;
mod remote;
mod revocation;
mod rights;
mod role;
mod rotation;
mod sealed;
mod signer;
mod surroundings;
mod upkeep;
mod verify;

pub use bundle::{Bundle, quickstart, quickstart_in};
pub use certificate::Certificate;
pub use credentials::{Entered, Login, add_password, add_psk, logins, remove_login};
pub use error::Error;
pub use export::{Exported, Format};
pub use index::Entry;
pub use key::KeyType;
pub use name::{Identity, Name, San};
pub use passphrase::Passphrase;
pub use pki::{Existing, Initialised, Issued, NewAuthority, Outcome, Pkcs12, Pki, Reason, Request};
pub use remote::{certificates_of, host_and_port};
pub use revocation::{CRL_DAYS, Revocation, RevocationReason, Revocations, Revoked};
pub use rights::{Rights, group, user};
pub use role::Role;
pub use rotation::{Rotated, Stage};
pub use surroundings::Surroundings;
pub use upkeep::{Listed, Renewal, State, Within};
pub use verify::{Flaw, Verified};
