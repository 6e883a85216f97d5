//! Who may read the files of an identity: their owner, and the group of a service.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::error::Error;
use crate::files;

/// To whom files are given. What is `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// The user who owns them, by number.
    pub owner: Option<u32>,
    /// A group that may read them, by number.
    pub group: Option<u32>,
}

/// The number of a user: it is written as one, or stands in `/etc/passwd`.
///
/// # Errors
/// There is no such user, or the file can't be read.
pub fn user(text: &str) -> Result<u32, Error> {
    number(text, Path::new("/etc/passwd"))
}

/// The number of a group: it is written as one, or stands in `/etc/group`.
///
/// # Errors
/// There is no such group, or the file can't be read.
pub fn group(text: &str) -> Result<u32, Error> {
    number(text, Path::new("/etc/group"))
}

fn number(text: &str, file: &Path) -> Result<u32, Error> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let known = files::read(file)?.unwrap_or_default();
    let find = |line: &str| {
        // Both files: name, password, number, and more.
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1)?.parse().ok())?
    };
    known.lines().find_map(find).ok_or_else(|| Error::Unknown {
        name: text.to_owned(),
        file: file.to_owned(),
    })
}

impl Rights {
    /// Those of an identity whose folder is there; none in particular otherwise.
    pub(crate) fn of_folder(folder: &Path) -> Self {
        let Ok(meta) = folder.join("..live/").metadata() else {
            return Self::default();
        };
        let shared = meta.mode() & 0o050 != 0;
        Self {
            owner: Some(meta.uid()),
            group: shared.then_some(meta.gid()),
        }
    }

    /// These, and where they say nothing, `others`.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            owner: self.owner.or(others.owner),
            group: self.group.or(others.group),
        }
    }

    /// Gives a file or folder away and lets the group read what only the owner might.
    pub(crate) fn apply(self, path: &Path) -> Result<(), Error> {
        let change = || {
            files::fault::point()?;
            let meta = path.metadata()?;
            let owner = self.owner.filter(|owner| *owner != meta.uid());
            let group = self.group.filter(|group| *group != meta.gid());
            if owner.is_some() || group.is_some() {
                chown(path, owner, group)?;
            }
            // Read for files; for folders also enter.
            let more = if meta.is_dir() { 0o050 } else { 0o040 };
            if self.group.is_some() && meta.mode() & more != more {
                std::fs::set_permissions(path, Permissions::from_mode(meta.mode() & 0o777 | more))?;
            }
            Ok(())
        };
        change().map_err(|source| Error::file("given away", path, source))
    }

    /// Lets everyone pass through the folder, but not list it, so that they reach their own.
    pub(crate) fn let_pass(path: &Path) -> Result<(), Error> {
        let change = || {
            files::fault::point()?;
            let mode = path.metadata()?.mode() & 0o777;
            if mode & 0o011 != 0o011 {
                std::fs::set_permissions(path, Permissions::from_mode(mode | 0o011))?;
            }
            Ok(())
        };
        change().map_err(|source| Error::file("opened to services", path, source))
    }
}
