//! Names that are safe as one level of a topic.
//!
//! A level is `[a-z0-9_-]{1,64}`: no broker, shell, ACL pattern or Home Assistant rule gives any of
//! these characters a meaning of its own. What a node calls itself stands only in payloads.

use std::fmt;
use std::str::FromStr;

/// The longest level, in bytes.
pub const MAX_LEVEL: usize = 64;

/// Why a text is not a level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 64 of a-z, 0-9, _ and -")]
pub struct InvalidLevel(String);

fn is_level_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')
}

fn is_level(text: &str) -> bool {
    (1..=MAX_LEVEL).contains(&text.len()) && text.bytes().all(is_level_byte)
}

/// Maps any text to a level: lower case, every run of other characters one `-`, cut to 64 bytes.
///
/// Different texts may map to the same level; the owner of the names resolves that with
/// [`numbered`].
fn slug(text: &str) -> String {
    let mut level = String::with_capacity(text.len().min(MAX_LEVEL));
    for c in text.chars().flat_map(char::to_lowercase) {
        if level.len() == MAX_LEVEL {
            break;
        }
        match u8::try_from(c) {
            Ok(byte) if is_level_byte(byte) => level.push(c),
            _ if level.is_empty() || level.ends_with('-') => {}
            _ => level.push('-'),
        }
    }
    let kept = level.trim_end_matches('-').len();
    // A text of nothing but dashes is a level of its own; a text with nothing usable is not.
    if kept > 0 {
        level.truncate(kept);
    } else {
        level = "unnamed".to_owned();
    }
    level
}

/// Appends `-n` to a level, cutting the level so that the whole stays within 64 bytes.
fn numbered(level: &str, n: u32) -> String {
    let suffix = format!("-{n}");
    let keep = level.len().min(MAX_LEVEL - suffix.len());
    format!("{}{suffix}", &level[..keep])
}

macro_rules! level {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes a text that is already a level.
            ///
            /// # Errors
            /// The text is empty, longer than 64 bytes or has another character.
            pub fn new(text: &str) -> Result<Self, InvalidLevel> {
                if is_level(text) { Ok(Self(text.to_owned())) } else { Err(InvalidLevel(text.to_owned())) }
            }

            /// Makes a level from any text: lower case, other characters folded to `-`.
            ///
            /// Not injective: see [`Self::numbered`].
            #[must_use]
            pub fn from_text(text: &str) -> Self {
                Self(slug(text))
            }

            /// The same level with the suffix `-n`, for a text whose level another holds already.
            #[must_use]
            pub fn numbered(&self, n: u32) -> Self {
                Self(numbered(&self.0, n))
            }

            /// The level as it stands in a topic.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidLevel;

            fn from_str(text: &str) -> Result<Self, InvalidLevel> {
                Self::new(text)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

level!(
    /// A node on the bus: the level `<n>` of `nodes/<n>`.
    NodeId
);
level!(
    /// A resource of a node: the level `<r>` of `nodes/<n>/res/<r>`.
    ResourceId
);
level!(
    /// A bridge: the level `<b>` of `bridges/<b>`, and the name in its certificate.
    BridgeId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, level: &str) {
        assert_eq!(NodeId::from_text(text).as_str(), level);
        assert!(is_level(level));
    }

    #[test]
    fn texts_become_levels() {
        check("led", "led");
        check("FB6D23232323232", "fb6d23232323232");
        check("fe80::1%eth0", "fe80-1-eth0");
        check("/sensors/temp/", "sensors-temp");
        check("Tür 3 °C", "t-r-3-c");
        check("", "unnamed");
        check("日本", "unnamed");
        check("+#$/", "unnamed");
        check(&"x".repeat(100), &"x".repeat(64));
        check(&format!("{}  y", "x".repeat(63)), &"x".repeat(63));
    }

    #[test]
    fn a_suffix_keeps_the_length() {
        let full = NodeId::from_text(&"x".repeat(64));
        assert_eq!(full.numbered(12).as_str(), format!("{}-12", "x".repeat(61)));
        assert_eq!(NodeId::from_text("led").numbered(2).as_str(), "led-2");
    }

    #[test]
    fn only_levels_are_taken_as_such() {
        for bad in [
            "",
            "A",
            "a/b",
            "a.b",
            "a+",
            "#",
            "$sys",
            "é",
            &"x".repeat(65),
        ] {
            assert!(NodeId::new(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<NodeId>("\"a/b\"").is_err());
    }
}
