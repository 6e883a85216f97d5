//! Secrets that people choose: read from a file, a descriptor or the terminal, never from the
//! command line, which everyone on the machine can see.

use std::fmt;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pkcs8::SecretDocument;

use crate::error::Error;
use crate::sealed;

/// The longest secret that is read, in bytes.
const LONGEST: u64 = 1024;

/// Where a secret comes from; it is read once, when it is needed.
#[derive(Clone, Default)]
pub struct Passphrase {
    file: Option<PathBuf>,
    /// Nobody is asked, even at a terminal.
    is_unattended: bool,
    read: Arc<OnceLock<String>>,
    /// The keys that it opened, and what they were read from: opening takes a while.
    opened: Arc<Mutex<Vec<(String, SecretDocument)>>>,
}

impl Passphrase {
    /// The first line of a file.
    #[must_use]
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self {
            file: Some(path.into()),
            ..Self::default()
        }
    }

    /// The first line of what can be read from an open descriptor.
    #[must_use]
    pub fn from_descriptor(number: u32) -> Self {
        Self::from_file(format!("/dev/fd/{number}"))
    }

    /// None: for a program that works by itself, even if it was started at a terminal.
    #[must_use]
    pub fn unattended() -> Self {
        Self {
            is_unattended: true,
            ..Self::default()
        }
    }

    /// Whether there is anything to read it from.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.file.is_some()
            || self.read.get().is_some()
            || (!self.is_unattended && std::io::stdin().is_terminal())
    }

    /// Reads it; a person is asked by `prompt`, and twice when it is `new`.
    ///
    /// # Errors
    /// It can't be read, is empty, or there is nobody to ask.
    pub fn read(&self, prompt: &str, new: bool) -> Result<&str, Error> {
        if let Some(secret) = self.read.get() {
            return Ok(secret);
        }
        let secret = match &self.file {
            Some(path) => first_line(path)?,
            None if self.is_available() => ask(prompt, new)?,
            None => {
                return Err(Error::NobodyToAsk {
                    what: prompt.to_owned(),
                });
            }
        };
        if secret.is_empty() {
            let file = self.file.as_ref();
            let place = file.map_or(String::new(), |path| format!(" in {}", path.display()));
            return Err(Error::NoSecret {
                what: format!("{prompt}{place}"),
            });
        }
        Ok(self.read.get_or_init(|| secret))
    }
}

impl Passphrase {
    /// Opens a key in PEM; `None` when this is not its passphrase, or it is no such key.
    pub(crate) fn open(&self, pem: &str, prompt: &str) -> Result<Option<SecretDocument>, Error> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = opened.iter().find(|(sealed, _)| sealed == pem) {
            return Ok(Some(key.clone()));
        }
        let key = sealed::unseal(pem, self.read(prompt, false)?);
        Ok(key.inspect(|key| opened.push((pem.to_owned(), key.clone()))))
    }
}

/// Says where it comes from, never what it is.
impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passphrase")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

fn first_line(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        .map_err(|source| Error::file("read", path, source))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn ask(prompt: &str, new: bool) -> Result<String, Error> {
    let ask = |prompt: String| {
        rpassword::prompt_password(prompt)
            .map_err(|source| Error::file("read", Path::new("/dev/tty"), source))
    };
    let secret = ask(format!("{prompt}: "))?;
    if new && ask(format!("{prompt}, again: "))? != secret {
        return Err(Error::Mistyped {
            what: prompt.to_owned(),
        });
    }
    Ok(secret)
}
