//! Why a request can't be fulfilled. Every text names the file and the remedy.

use std::io;
use std::path::{Path, PathBuf};

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
    #[error("there is no certificate called {what:?} in {}: see what there is with `ls {}`, or name a file", dir.display(), dir.display())]
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
    #[error("{} holds no usable {what}: restore it from a backup, or move it aside and run the command again", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
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
    /// The cryptographic library refused to make a key or a certificate.
    #[error("the certificate can't be made")]
    Signing(#[from] rcgen::Error),
}

impl Error {
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
