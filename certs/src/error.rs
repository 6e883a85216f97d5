//! Why a request can't be fulfilled. Every text names the file and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use crate::name::{Identity, Name};

/// Why certgen can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name has a character that no topic, path or pattern could carry.
    #[error("{0:?} is not a name: use 1 to 64 of a-z, 0-9, _ and -")]
    InvalidName(String),
    /// A SAN is neither a host name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address: leave out scheme, port and path")]
    InvalidSan(String),
    /// Nothing was found under this name.
    #[error("there is no certificate called {what:?} in {}: see what there is with `certgen list`, or name a file or another --dir", dir.display())]
    NotFound {
        /// What was asked for.
        what: String,
        /// The folder of the PKI.
        dir: PathBuf,
    },
    /// There is no certificate authority yet.
    #[error("there is no certificate authority in {}: run `certgen init`, or name its folder with --dir", dir.display())]
    NoAuthority {
        /// The folder of the PKI.
        dir: PathBuf,
    },
    /// The certificate of the authority is there, its key is not.
    #[error("{} is missing, so nothing can be signed here: put the key back, or run certgen where it is kept", path.display())]
    NoAuthorityKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The authority's own certificate has ended.
    #[error("the certificate authority in {} has expired: move the folder aside and start anew with `certgen bundle quickstart`", dir.display())]
    AuthorityExpired {
        /// The folder of the PKI.
        dir: PathBuf,
    },
    /// Several identities of different roles have the name.
    #[error("{name} is the name of {found}: name the role too, as {example}")]
    Ambiguous {
        /// The name.
        name: String,
        /// Those who have it.
        found: String,
        /// One of them.
        example: String,
    },
    /// A time is none.
    #[error("{0:?} is no time: use days, hours or a share of the life, as 30d, 12h or 66%")]
    InvalidWithin(String),
    /// A certification request is none.
    #[error("{} holds no usable certification request: make one with `openssl req -new`, its key P-256, Ed25519 or RSA", path.display())]
    Request {
        /// The file.
        path: PathBuf,
    },
    /// A key is needed that is not here.
    #[error("the key is not here but with whoever made {}: {remedy}", path.display())]
    KeyElsewhere {
        /// The request.
        path: PathBuf,
        /// What they can do.
        remedy: &'static str,
    },
    /// A secret is needed, but neither a file nor a terminal is there.
    #[error(
        "the {what} is needed, but there is no terminal to ask at: name a file or a descriptor that holds it"
    )]
    NobodyToAsk {
        /// The secret.
        what: String,
    },
    /// A secret is empty.
    #[error("the {what} is empty: put it into the first line")]
    NoSecret {
        /// The secret.
        what: String,
    },
    /// A secret was typed differently the second time.
    #[error("the {what} was not the same both times: run the command again")]
    Mistyped {
        /// The secret.
        what: String,
    },
    /// A passphrase doesn't open a key.
    #[error("{} can't be opened: the passphrase is another one, or the file is damaged", path.display())]
    WrongPassphrase {
        /// The file of the key.
        path: PathBuf,
    },
    /// A shared key is none.
    #[error("{} holds no key: use 16 to 64 hex digits, or leave it out to have one made", path.display())]
    InvalidKey {
        /// The file.
        path: PathBuf,
    },
    /// A password can't be hashed.
    #[error("that password can't be used: choose another one")]
    InvalidPassword,
    /// A line of a file of secrets has no name.
    #[error("line {number} of {} is no `name:...`: mend it, or begin it with # to have it ignored", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        number: usize,
    },
    /// A name is not in a file of secrets.
    #[error("{name} is not in {}: see who is with `list`", path.display())]
    NoSuchLine {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// There is no such user or group.
    #[error("{name:?} is not in {}: make it first, or give its number", file.display())]
    Unknown {
        /// The user or group.
        name: String,
        /// Where it was looked for.
        file: PathBuf,
    },
    /// A server can't be asked for its certificates.
    #[error("{server} shows no certificate: check host and port, and that it speaks TLS there")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What the system or the server said.
        #[source]
        source: io::Error,
    },
    /// The authority's exchange is not where it should be for a stage.
    #[error("the exchange of the authority in {} is not that far: run `certgen rotate-ca --stage {first}` first", dir.display())]
    Stage {
        /// The folder of the PKI.
        dir: PathBuf,
        /// What comes before.
        first: &'static str,
    },
    /// The old authority can't go while it is needed.
    #[error(
        "the old authority signed what is still in use, {found}: run `certgen renew --all`, carry the new files to where they run, or give them up with --force"
    )]
    StillInUse {
        /// Whose certificates.
        found: String,
    },
    /// A revoked certificate can't be renewed.
    #[error("{what} was revoked, and stays so: make a new one with `{command}`")]
    Revoked {
        /// The identity, `<role>/<name>`.
        what: String,
        /// What makes a new one.
        command: String,
    },
    /// What exists differs from what was asked for.
    #[error(
        "{what} exists already, but {difference}: keep it as it is, or replace it with --force"
    )]
    Differs {
        /// The identity, `<role>/<name>`.
        what: String,
        /// In what it differs.
        difference: String,
    },
    /// A file holds something else than it should.
    #[error("{} holds no usable {what}: {remedy}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The system refused an operation on a file.
    #[error("{} can't be {action}: {remedy}", path.display())]
    File {
        /// What was tried, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What to do about it.
        remedy: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A key can't be encrypted.
    #[error("the key can't be encrypted: choose another passphrase")]
    Sealing(#[from] pkcs8::Error),
    /// A PKCS#12 file can't be made.
    #[error("the PKCS#12 file can't be made: choose another password")]
    Pkcs12(#[from] Box<p12_keystore::error::Error>),
    /// The cryptographic library refused to make a key or a certificate.
    #[error("the certificate can't be made: report this with the command that you ran")]
    Signing(#[from] rcgen::Error),
}

/// What to do about a damaged file on which all that was issued rests.
pub(crate) const RESTORE: &str =
    "restore it from a backup; what it held can't be made a second time";
/// What to do about a damaged file of one identity.
pub(crate) const ISSUE: &str =
    "restore it from a backup, or make all of this identity anew with `certgen issue ... --force`";

impl Error {
    /// Several have one name.
    pub(crate) fn ambiguous(name: &Name, found: &[&Identity]) -> Self {
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        Self::Ambiguous {
            name: name.to_string(),
            example: found.first().cloned().unwrap_or_default(),
            found: found.join(" and "),
        }
    }

    /// The same about a file on which all that was issued rests.
    pub(crate) fn for_good(self) -> Self {
        match self {
            Self::Unusable { path, what, .. } => Self::Unusable {
                path,
                what,
                remedy: RESTORE,
            },
            other => other,
        }
    }

    /// The old authority is needed by these.
    pub(crate) fn still_in_use(waiting: &[Identity]) -> Self {
        let found: Vec<String> = waiting.iter().map(ToString::to_string).collect();
        Self::StillInUse {
            found: found.join(", "),
        }
    }

    /// Wraps what the system said about `path`, with the remedy that fits.
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::PermissionDenied => "run certgen as the user who owns the folder",
            io::ErrorKind::ReadOnlyFilesystem => "name a writable folder with --dir",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space",
            io::ErrorKind::NotADirectory => "a file stands where a folder should be: move it aside",
            io::ErrorKind::Unsupported => "use a file system with symbolic links and locks",
            _ => "check the path and the disk",
        };
        Self::File {
            action,
            path: path.to_owned(),
            remedy,
            source,
        }
    }
}
