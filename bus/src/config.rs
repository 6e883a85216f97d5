//! How a part's settings are read: defaults < file < environment < flags.
//!
//! The raw settings are plain structs with `#[serde(default, deny_unknown_fields)]`; a part checks
//! them when it is made, before it binds anything.

use std::path::PathBuf;
use std::time::Duration;

use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};

/// Where the settings of a process come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file; it must exist when it is given.
    pub file: Option<PathBuf>,
    /// Flags as `section.key=value`, applied last, in order.
    pub flags: Vec<String>,
}

/// A setting that can't be taken: which one, from where, and what would do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value, a key or the file is wrong: all that is, in words.
    #[error("{0}")]
    Wrong(String),
    /// The file is not there.
    #[error("no configuration file at {0}: check the path given with --config")]
    NoFile(PathBuf),
    /// A flag is not `section.key=value`.
    #[error("{0:?} is not a setting: write section.key=value, such as coap_bridge.max_time=60s")]
    NotASetting(String),
}

/// The prefix of environment variables; `__` separates section and key.
pub const ENV_PREFIX: &str = "NODEBUS_";

/// Reads the settings `T`, starting from `defaults`.
///
/// The environment is `NODEBUS_<SECTION>__<KEY>` in capitals.
///
/// # Errors
/// See [`ConfigError`]; unknown keys are errors.
pub fn load<T>(defaults: T, sources: &Sources) -> Result<T, ConfigError>
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    let mut figment = Figment::from(Serialized::defaults(defaults));
    if let Some(file) = &sources.file {
        if !file.is_file() {
            return Err(ConfigError::NoFile(file.clone()));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    // Only variables with a section: others with the prefix belong to scripts.
    figment = figment.merge(
        Env::prefixed(ENV_PREFIX)
            .filter(|key| key.as_str().contains("__"))
            .split("__"),
    );
    for flag in &sources.flags {
        let not_a_setting = || ConfigError::NotASetting(flag.clone());
        let (key, value) = flag.split_once('=').ok_or_else(not_a_setting)?;
        if !key.contains('.') {
            return Err(not_a_setting());
        }
        let value: Value = value.parse().map_err(|_| not_a_setting())?;
        figment = figment.merge(Flag { key, value });
    }
    figment.extract().map_err(|error| {
        let all: Vec<String> = error.into_iter().map(|one| in_words(&one)).collect();
        ConfigError::Wrong(all.join("; "))
    })
}

/// One `--set`, as a source of its own, so that an error names it.
struct Flag<'a> {
    key: &'a str,
    value: Value,
}

impl Provider for Flag<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("--set {}", self.key))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::global(self.key, &self.value).data()
    }
}

/// Which setting, what is wrong with it, and where it came from.
fn in_words(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let what = match &error.kind {
        Kind::UnknownField(_, known) => format!("no such setting; there are {}", known.join(", ")),
        kind => kind.to_string(),
    };
    let source = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |metadata| {
            let place = metadata.source.as_ref().map(|source| format!(" {source}"));
            format!(" (from {}{})", metadata.name, place.unwrap_or_default())
        });
    if key.is_empty() {
        format!("{what}{source}")
    } else {
        format!("{key}: {what}{source}")
    }
}

/// Serde for durations as people write them: `"30s"`, `"2m"`, `"24h"`; for `#[serde(with)]`.
pub mod duration {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Duration;

    /// Writes a duration as text.
    ///
    /// # Errors
    /// As the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    /// Reads a duration with its unit.
    ///
    /// # Errors
    /// The text has no unit or is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)
            .map_err(|_| serde::de::Error::custom("write a time with its unit, such as \"30s\""))?;
        humantime::parse_duration(&text).map_err(|error| {
            serde::de::Error::custom(format!("{text:?}: {error}; write a time such as \"30s\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Part {
        listen: String,
        #[serde(with = "duration")]
        max_time: Duration,
    }

    impl Default for Part {
        fn default() -> Self {
            Self {
                listen: "[::]:1".into(),
                max_time: Duration::from_secs(120),
            }
        }
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        part: Part,
    }

    fn sources(file: &str, flags: &[&str]) -> (Sources, tempfile::NamedTempFile) {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(file.as_bytes()).unwrap();
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        (
            Sources {
                file: Some(temp.path().to_owned()),
                flags,
            },
            temp,
        )
    }

    #[test]
    fn flags_go_over_the_file_and_the_file_over_the_defaults() {
        let (sources, _file) = sources(
            "[part]\nlisten = \"[::]:2\"\nmax_time = \"5m\"\n",
            &["part.listen=127.0.0.1:0"],
        );
        let whole: Whole = load(Whole::default(), &sources).unwrap();
        assert_eq!(whole.part.listen, "127.0.0.1:0");
        assert_eq!(whole.part.max_time, Duration::from_secs(300));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |file: &str, flags: &[&str]| {
            let (sources, _file) = sources(file, flags);
            load(Whole::default(), &sources).unwrap_err().to_string()
        };
        assert!(error("[part]\nlisten_on = \"x\"\n", &[]).contains("listen_on"));
        assert!(error("[prat]\n", &[]).contains("prat"));
        assert!(error("[part]\nmax_time = 30\n", &[]).contains("unit"));
        assert!(error("", &["part.max_time=soon"]).contains("soon"));
        assert!(error("", &["listen"]).contains("section.key=value"));
        let missing = Sources {
            file: Some("/nowhere/x.toml".into()),
            flags: vec![],
        };
        assert!(
            load(Whole::default(), &missing)
                .unwrap_err()
                .to_string()
                .contains("/nowhere/x.toml")
        );
    }
}
