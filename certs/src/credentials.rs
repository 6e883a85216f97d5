//! Who has no certificate: nodes with a key shared beforehand (DTLS, RFC 4279) and people and
//! programs with a password.
//!
//! Keys stand in lines `name:<hex digits>`, passwords in lines `name:role:<PHC string>` hashed by
//! Argon2id (RFC 9106). Neither is ever printed.

use std::path::{Path, PathBuf};

use argon2::password_hash::PasswordHasher as _;
use rand::CryptoRng;
use serde::Serialize;

use crate::error::Error;
use crate::lines::{self, Lines};
use crate::name::Name;
use crate::passphrase::Passphrase;
use crate::pki::{Outcome, Reason};
use crate::profile::hex;
use crate::role::Role;

/// The bytes of a new key: as long as the key of AES-128, which constrained nodes use.
const KEY_BYTES: usize = 16;
/// The bytes of a key that is brought along; tinydtls takes no longer ones.
const KEY_LENGTHS: std::ops::RangeInclusive<usize> = 8..=32;

/// What became of a line.
#[derive(Debug, Clone, Serialize)]
pub struct Entered {
    /// Whether there was one before.
    pub outcome: Outcome,
    /// The name in it.
    pub name: Name,
    /// The file.
    pub path: PathBuf,
}

/// A name in a file of passwords.
#[derive(Debug, Clone, Serialize)]
pub struct Login {
    /// The name.
    pub name: String,
    /// Its role as it stands there.
    pub role: Option<String>,
}

/// Makes sure that a node has a key: a new one, or the hex digits in the file `brought`.
///
/// # Errors
/// It has another than the one brought and `force` is not given ([`Error::Differs`]), what was
/// brought is no key, or the system refuses to read or write.
pub fn add_psk(
    path: &Path,
    name: &Name,
    brought: Option<&Path>,
    force: bool,
    rng: &mut impl CryptoRng,
) -> Result<Entered, Error> {
    let brought = brought.map(read_key).transpose()?;
    let mut lines = Lines::open(path)?;
    let outcome = match (lines.find(name), &brought) {
        (None, _) => Outcome::Created,
        (Some(_), None) if !force => Outcome::Unchanged,
        (Some(existing), Some(brought)) if existing == brought => Outcome::Unchanged,
        (Some(_), Some(_)) if !force => {
            return Err(Error::Differs {
                what: name.to_string(),
                difference: format!("with another key in {}", path.display()),
            });
        }
        (Some(_), _) => Outcome::Replaced(Reason::Forced),
    };
    if outcome != Outcome::Unchanged {
        let key = brought.unwrap_or_else(|| {
            let mut bytes = [0; KEY_BYTES];
            rng.fill_bytes(&mut bytes);
            hex(&bytes)
        });
        lines.put(name, &key)?;
    }
    Ok(Entered {
        outcome,
        name: name.clone(),
        path: path.to_owned(),
    })
}

fn read_key(path: &Path) -> Result<String, Error> {
    let source = Passphrase::from_file(path);
    let text = source.read("key, in hex digits,", true)?;
    let is_key = text.len().is_multiple_of(2)
        && KEY_LENGTHS.contains(&(text.len() / 2))
        && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_key {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Error::InvalidKey {
            path: path.to_owned(),
        })
    }
}

/// Gives a name a role and a password, in place of those it had.
///
/// # Errors
/// The password can't be read, or the system refuses to read or write the file.
pub fn add_password(
    path: &Path,
    role: Role,
    name: &Name,
    password: &Passphrase,
    rng: &mut impl CryptoRng,
) -> Result<Entered, Error> {
    let password = password.read("password", true)?;
    let mut salt = [0; 16];
    rng.fill_bytes(&mut salt);
    let hash = argon2::Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|_| Error::InvalidPassword)?;
    let mut lines = Lines::open(path)?;
    let outcome = match lines.find(name) {
        None => Outcome::Created,
        Some(_) => Outcome::Replaced(Reason::Forced),
    };
    lines.put(name, &format!("{role}:{hash}"))?;
    Ok(Entered {
        outcome,
        name: name.clone(),
        path: path.to_owned(),
    })
}

/// The names in a file of keys or passwords, with the roles of passwords.
///
/// # Errors
/// The file can't be read, or a line has no name.
pub fn logins(path: &Path) -> Result<Vec<Login>, Error> {
    let entries = lines::entries(path)?.into_iter();
    Ok(entries
        .map(|(name, rest)| Login {
            name,
            role: rest.split_once(':').map(|(role, _)| role.to_owned()),
        })
        .collect())
}

/// Removes a name from a file of keys or passwords.
///
/// # Errors
/// It isn't there, or the system refuses to read or write the file.
pub fn remove_login(path: &Path, name: &Name) -> Result<(), Error> {
    if path.exists() && Lines::open(path)?.remove(name)? {
        return Ok(());
    }
    Err(Error::NoSuchLine {
        name: name.to_string(),
        path: path.to_owned(),
    })
}
