//! Plain copies of an identity's files, to be carried to where its holder is.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::certificate::Certificate;
use crate::embed::Embedded;
use crate::error::Error;
use crate::files::{self, PUBLIC, SECRET};
use crate::folder::FILES;
use crate::key::Key;
use crate::name::Identity;
use crate::pki::Pki;

/// In which form files are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// As they are
    #[default]
    Pem,
    /// DER and a C header, for constrained nodes
    C,
}

/// What was copied.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// Whose files.
    #[serde(flatten)]
    pub identity: Identity,
    /// Where the copies are.
    pub folder: PathBuf,
    /// Their names.
    pub files: Vec<&'static str>,
    /// What the certificate says.
    pub certificate: Certificate,
}

impl Pki {
    /// Copies an identity's files into the folder `to`, which is made when it isn't there. Files
    /// of the same names are replaced, each at once.
    ///
    /// # Errors
    /// There is no such identity, it can't be used, or the system refuses to read or write.
    pub fn export(
        &self,
        identity: &Identity,
        to: &Path,
        format: Format,
    ) -> Result<Exported, Error> {
        let certificate = self.existing(identity)?;
        let folder = self.folder(identity);
        // All from one generation, also when another certgen renews meanwhile.
        let live = folder.join("..live");
        let from = live.canonicalize().unwrap_or_else(|_| folder.clone());
        files::make_folder(to)?;
        let mut copied = Vec::new();
        if format == Format::C {
            let ca = from.join("ca.pem");
            let pem = files::read(&ca)?.unwrap_or_default();
            let anchor = Certificate::first_from_pem(&pem, &ca)?;
            let key = Key::of_folder(&from)?;
            for (name, is_secret, content) in
                Embedded::new(identity, &anchor, &certificate, &key).files
            {
                let mode = if is_secret { SECRET } else { PUBLIC };
                files::replace(&to.join(name), mode, content)?;
                copied.push(name);
            }
            return Ok(Exported {
                identity: identity.clone(),
                folder: to.to_owned(),
                files: copied,
                certificate,
            });
        }
        for name in FILES {
            let source = if name == "crl.pem" {
                folder.join(name)
            } else {
                from.join(name)
            };
            let content = match std::fs::read(&source) {
                Ok(content) => content,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::file("read", &source, error)),
            };
            let is_public = source
                .metadata()
                .is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0);
            let mode = if is_public { PUBLIC } else { SECRET };
            files::replace(&to.join(name), mode, content)?;
            copied.push(name);
        }
        Ok(Exported {
            identity: identity.clone(),
            folder: to.to_owned(),
            files: copied,
            certificate,
        })
    }
}
