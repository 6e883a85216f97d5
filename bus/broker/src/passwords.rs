//! Names and passwords: the file that `certgen passwd` writes, lines `name:role:<PHC string>`.
//!
//! Hashes are Argon2id (RFC 9106), slow and large on purpose. A password that was right once is
//! therefore known again by a keyed hash (HMAC-SHA256 under a random key of its own, in memory
//! only) as long as its line stays, so that a thousand clients that come back at once are no load.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use aws_lc_rs::hmac;
use bus::id::NodeId;
use rand::Rng;

use crate::identity::{Identity, Role};

/// Why a file of passwords can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordsError {
    /// It can't be read.
    #[error("the file of passwords {} can't be read: make it with certgen passwd add, or give nodebus the right to read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of it is wrong.
    #[error("{}, line {number}: {wrong}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        number: usize,
        /// What is wrong with it, and the remedy.
        wrong: &'static str,
    },
}

/// A password in memory; it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A password as it was seen last, without the password.
struct Seen {
    key: hmac::Key,
    tag: hmac::Tag,
}

/// One line: who logs in with which password.
pub(crate) struct Login {
    pub(crate) identity: Identity,
    hash: String,
    seen: OnceLock<Seen>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.identity)
    }
}

impl Login {
    fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity && self.hash == other.hash
    }

    fn is_seen(&self, password: &[u8]) -> bool {
        let is_it = |seen: &Seen| hmac::verify(&seen.key, password, seen.tag.as_ref()).is_ok();
        self.seen.get().is_some_and(is_it)
    }

    fn verify(&self, password: &[u8]) -> bool {
        let verified = Argon2::default().verify_password(password, self.hash.as_str());
        verified.is_ok()
    }

    fn see(&self, password: &[u8], random: &mut impl Rng) {
        self.seen.get_or_init(|| {
            let key: [u8; 32] = random.random();
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            let tag = hmac::sign(&key, password);
            Seen { key, tag }
        });
    }
}

/// All who may log in with a password.
#[derive(Debug, Default)]
pub(crate) struct Passwords {
    logins: HashMap<String, Arc<Login>>,
    /// Stands in for names that are not there, so that they take as long.
    decoy: Option<Arc<Login>>,
}

impl Passwords {
    /// Reads the file; nobody may log in without one. Lines that are as `before` keep what was seen.
    pub(crate) fn load(path: Option<&Path>, before: &Self) -> Result<Self, PasswordsError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(path).map_err(|source| PasswordsError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, before).map_err(|(number, wrong)| PasswordsError::Line {
            path: path.to_owned(),
            number,
            wrong,
        })
    }

    fn parse(text: &str, before: &Self) -> Result<Self, (usize, &'static str)> {
        let mut passwords = Self::default();
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let login = parse_line(line).map_err(|wrong| (at + 1, wrong))?;
            let name = login.identity.name.clone();
            let login = match before.logins.get(&name) {
                Some(before) if before.is_same(&login) => before.clone(),
                _ => Arc::new(login),
            };
            passwords.decoy.get_or_insert_with(|| login.clone());
            if passwords.logins.insert(name, login).is_some() {
                return Err((
                    at + 1,
                    "this name stood in a line before: remove one of them",
                ));
            }
        }
        Ok(passwords)
    }

    /// Whose password this is, when it was verified before: at next to no cost.
    pub(crate) fn recall(&self, name: &str, password: &[u8]) -> Option<Arc<Login>> {
        let login = self.logins.get(name)?;
        login.is_seen(password).then(|| login.clone())
    }

    /// Against whose hash a password for `name` is checked; none when there is no hash at all.
    fn measure(&self, name: &str) -> Option<&Login> {
        let login = self.logins.get(name).or(self.decoy.as_ref());
        login.map(|login| &**login)
    }

    /// Whose password this is. It takes some 20 ms and 19 MiB with the hashes of certgen, whether
    /// there is such a name or not.
    pub(crate) fn verify(
        &self,
        name: &str,
        password: &[u8],
        random: &mut impl Rng,
    ) -> Option<Arc<Login>> {
        let is_right = self.measure(name)?.verify(password);
        let login = self.logins.get(name).filter(|_| is_right)?;
        login.see(password, random);
        Some(login.clone())
    }

    /// Whether this login stands as it did.
    pub(crate) fn has(&self, login: &Login) -> bool {
        let now = self.logins.get(&login.identity.name);
        now.is_some_and(|now| now.is_same(login))
    }
}

fn parse_line(line: &str) -> Result<Login, &'static str> {
    let mut fields = line.splitn(3, ':');
    let (Some(name), Some(role), Some(hash)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("it is not name:role:hash; write it with certgen passwd add");
    };
    NodeId::new(name).map_err(|_| "the name is not 1 to 64 of a-z, 0-9, _ and -")?;
    let role = Role::ALL
        .into_iter()
        .find(|known| known.as_str() == role)
        .ok_or(
            "the role is none of a client: bridge, dashboard, operator, viewer, node or admin",
        )?;
    let remedy = "the hash is not one of Argon2id; write it with certgen passwd add";
    let parsed = PasswordHash::new(hash).map_err(|_| remedy)?;
    let is_usable = parsed.algorithm.as_str() == "argon2id"
        && argon2::Params::try_from(&parsed).is_ok()
        && parsed.salt.is_some()
        && parsed.hash.is_some();
    if !is_usable {
        return Err(remedy);
    }
    Ok(Login {
        identity: Identity {
            role,
            name: name.to_owned(),
            is_proven: true,
        },
        hash: hash.to_owned(),
        seen: OnceLock::new(),
    })
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// Cheap, so that the tests are quick.
    fn line(name: &str, role: &str, password: &str) -> String {
        let params = argon2::Params::new(16, 1, 1, None).unwrap();
        let argon2 = Argon2::from(params);
        let hash = argon2.hash_password_with_salt(password.as_bytes(), b"salt of 16 bytes");
        format!("{name}:{role}:{}", hash.unwrap())
    }

    fn parse(lines: &[String], before: &Passwords) -> Passwords {
        Passwords::parse(&lines.join("\n"), before).unwrap()
    }

    #[test]
    fn the_right_password_of_the_right_name() {
        let text = [
            "# people".to_owned(),
            String::new(),
            line("ann", "operator", "secret"),
        ];
        let (passwords, mut random) = (
            parse(&text, &Passwords::default()),
            StdRng::seed_from_u64(1),
        );
        let mut verify = |name, password: &[u8]| passwords.verify(name, password, &mut random);
        assert!(verify("ann", b"wrong").is_none());
        assert!(
            verify("bob", b"secret").is_none(),
            "the decoy's own password"
        );
        assert!(verify("", b"").is_none());
        // The time that a check takes tells nothing of who is there.
        assert!(passwords.measure("bob").is_some());
        assert!(passwords.recall("ann", b"secret").is_none(), "not yet seen");
        let login = verify("ann", b"secret").unwrap();
        assert_eq!(login.identity.to_string(), "operator:ann");
        assert!(passwords.recall("ann", b"secret").is_some());
        assert!(passwords.recall("ann", b"wrong").is_none());
        assert!(passwords.recall("bob", b"secret").is_none());
        assert!(!format!("{login:?}{passwords:?}").contains("argon2"));
    }

    #[test]
    fn a_changed_line_is_another_login_and_forgets_what_was_seen() {
        let lines = |role, password| [line("ann", role, password), line("bob", "viewer", "b")];
        let (before, mut random) = (
            parse(&lines("viewer", "a"), &Passwords::default()),
            StdRng::seed_from_u64(1),
        );
        let ann = before.verify("ann", b"a", &mut random).unwrap();
        let bob = before.verify("bob", b"b", &mut random).unwrap();
        for changed in [lines("admin", "a"), lines("viewer", "other")] {
            let after = parse(&changed, &before);
            assert!(!after.has(&ann) && after.has(&bob));
            assert!(after.recall("ann", b"a").is_none());
            assert!(after.recall("bob", b"b").is_some());
        }
        assert!(!Passwords::default().has(&bob));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let twice = format!(
            "{}\n{}",
            line("ann", "viewer", "a"),
            line("ann", "viewer", "b")
        );
        let sha = "ann:viewer:$7$101$c2FsdA==$aGFzaA==".to_owned();
        for (text, number, word) in [
            ("ann".to_owned(), 1, "name:role:hash"),
            (format!("\n{}", line("a/b", "viewer", "a")), 2, "a-z"),
            (line("ann", "broker", "a"), 1, "role"),
            (sha, 1, "Argon2id"),
            (
                "ann:viewer:$argon2id$v=19$m=1,t=1,p=1".to_owned(),
                1,
                "Argon2id",
            ),
            (twice, 2, "before"),
        ] {
            let (at, wrong) = Passwords::parse(&text, &Passwords::default()).unwrap_err();
            assert_eq!(at, number, "{text}");
            assert!(wrong.contains(word), "{text}: {wrong}");
        }
    }
}
