//! The keys that nodes share with the bridge: a file of lines `name:<hex digits>`, as `certgen psk`
//! writes it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bus::id::NodeId;
use dimpl::PskResolver;

/// The bytes of a key; tinydtls takes no longer ones.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=32;

/// A key that a node shares with the bridge. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(Arc<[u8]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    fn parse(digits: &str) -> Option<Self> {
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| {
            let digit = |c: u8| {
                char::from(c)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            let [high, low] = *pair;
            Some(digit(high)? << 4 | digit(low)?)
        };
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        let bytes = bytes.filter(|bytes| rest.is_empty() && LENGTHS.contains(&bytes.len()))?;
        Some(Self(bytes.into()))
    }
}

/// Why a file of keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The system refuses.
    #[error("the keys in {} can't be read: make the file with `certgen psk add <name>`, or take coap_bridge.psk away", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not `name:key`.
    #[error("line {number} of {} is no key: write name:<16 to 64 hex digits>, each name once, as certgen psk does", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        number: usize,
    },
}

/// The keys by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keys(HashMap<NodeId, Key>);

impl Keys {
    /// Reads a file of keys.
    pub(crate) fn load(path: &Path) -> Result<Self, KeysError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeysError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let is_open = |file: std::fs::Metadata| file.permissions().mode() & 0o007 != 0;
        if std::fs::metadata(path).is_ok_and(is_open) {
            tracing::warn!(file = %path.display(), "everybody may read the keys of nodes: chmod o= it");
        }
        Self::parse(&text).map_err(|number| KeysError::Line {
            path: path.to_owned(),
            number,
        })
    }

    /// Reads the lines; gives the number of the first that is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, usize> {
        let mut keys = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = line
                .trim_end()
                .split_once(':')
                .and_then(|(name, key)| Some((NodeId::new(name).ok()?, Key::parse(key)?)));
            let is_new = entry.map(|(name, key)| keys.insert(name, key).is_none());
            if is_new != Some(true) {
                return Err(at + 1);
            }
        }
        Ok(Self(keys))
    }

    pub(crate) fn get(&self, name: &NodeId) -> Option<&Key> {
        self.0.get(name)
    }

    /// Everybody who has a key.
    pub(crate) fn names(&self) -> impl Iterator<Item = &NodeId> {
        self.0.keys()
    }
}

/// The names in a file of `certgen psk` and their keys, for nodes on this machine.
///
/// # Errors
/// The file can't be read, or a line is no key.
pub fn shared_keys(path: &Path) -> Result<Vec<(String, Vec<u8>)>, KeysError> {
    let keys = Keys::load(path)?.0.into_iter();
    let mut keys: Vec<_> = keys
        .map(|(name, key)| (name.to_string(), key.0.to_vec()))
        .collect();
    keys.sort_unstable();
    Ok(keys)
}

/// Whom a client named in its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    Known(NodeId, Key),
    Unknown,
}

/// What dimpl asks for keys. It calls back from within the handshake that it is working on, and tells
/// nobody whom that named: so the answer is noted until [`Resolver::take_named`].
#[derive(Debug, Default)]
pub(super) struct Resolver {
    keys: RwLock<Keys>,
    named: Mutex<Option<Named>>,
}

impl Resolver {
    /// Puts other keys in force.
    pub(super) fn replace(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether nobody has a key.
    pub(super) fn is_empty(&self) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.0.is_empty()
    }

    /// Whom the handshake that was worked on last has named, if it has.
    pub(super) fn take_named(&self) -> Option<Named> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.take()
    }

    /// Whether this is the key of that name.
    pub(super) fn has(&self, name: &NodeId, key: &Key) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(name) == Some(key)
    }

    fn find(&self, identity: &[u8]) -> Option<(NodeId, Key)> {
        let name = NodeId::new(std::str::from_utf8(identity).ok()?).ok()?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.get(&name)?.clone();
        Some((name, key))
    }
}

impl PskResolver for Resolver {
    fn resolve(&self, identity: &[u8]) -> Option<Vec<u8>> {
        let found = self.find(identity);
        let key = found.as_ref().map(|(_, key)| key.0.to_vec());
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        *named = Some(found.map_or(Named::Unknown, |(name, key)| Named::Known(name, key)));
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_certgen_is_read() {
        let text =
            "# kitchen\nkitchen:000102030405060708090a0b0c0d0e0f\n\nattic:0001020304050607\r\n";
        let keys = Keys::parse(text).unwrap();
        let mut names: Vec<_> = keys.names().map(NodeId::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["attic", "kitchen"]);
        let attic = keys.get(&NodeId::new("attic").unwrap()).unwrap();
        assert_eq!(*attic.0, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(!format!("{keys:?}").contains("[0, 1"), "never shown");
    }

    #[test]
    fn a_line_that_is_no_key_is_named() {
        for bad in [
            "kitchen",
            "kitchen:",
            ":0001020304050607",
            "kitchen:00010203040506",
            "kitchen:000102030405060",
            "kitchen:00010203040506zz",
            "Kitchen:0001020304050607",
            "a b:0001020304050607",
            "good:0001020304050607",
        ] {
            let text = format!("good:0001020304050607\n{bad}\n");
            assert_eq!(Keys::parse(&text), Err(2), "{bad}");
        }
        let error = Keys::load(Path::new("/nowhere/psk"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nowhere/psk") && error.contains("certgen"));
    }

    #[test]
    fn who_was_named_is_told_once() {
        let resolver = Resolver::default();
        assert_eq!(resolver.resolve(b"kitchen"), None);
        assert_eq!(resolver.take_named(), Some(Named::Unknown));
        resolver.replace(Keys::parse("kitchen:0001020304050607").unwrap());
        assert_eq!(resolver.resolve(b"kitchen"), Some((0..8).collect()));
        let Some(Named::Known(name, _)) = resolver.take_named() else {
            panic!("nobody was named");
        };
        assert_eq!((name.as_str(), resolver.take_named()), ("kitchen", None));
        assert_eq!(resolver.resolve(b"\xff"), None);
        assert_eq!(resolver.resolve(b"KITCHEN"), None);
    }
}
