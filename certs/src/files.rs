//! Files that are either wholly there or not at all, with the mode they need from their first byte.
//!
//! Whoever writes holds the [`Lock`]; so a leftover of an interrupted run can only be rubbish.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink,
};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A private key: for its owner only.
pub(crate) const SECRET: u32 = 0o600;
/// A certificate: for everyone who may enter the folder.
pub(crate) const PUBLIC: u32 = 0o644;

/// Makes a folder and its parents, each for its owner only; one that exists stays as it is.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_folder(parent)?;
    match fault::point().and_then(|()| DirBuilder::new().mode(0o700).create(path)) {
        Ok(()) => sync_folder(parent),
        // Another certgen was quicker.
        Err(_) if path.is_dir() => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Err(Error::file(
            "made",
            path,
            io::ErrorKind::NotADirectory.into(),
        )),
        Err(source) => Err(Error::file("made", path, source)),
    }
}

/// Reads a file as text; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) => match source.kind() {
            io::ErrorKind::NotFound => Ok(None),
            // Not UTF-8: whatever it is, it is no PEM; the caller's parser says so.
            io::ErrorKind::InvalidData => Ok(Some(String::new())),
            _ => Err(Error::file("read", path, source)),
        },
    }
}

/// Makes what happened to the entries of a folder last through a power failure.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| Error::file("written", path, source))
}

/// Creates a file that must not exist, with exactly this mode, and writes it to the disk.
pub(crate) fn create(path: &Path, mode: u32, content: impl AsRef<[u8]>) -> Result<(), Error> {
    let write = || {
        fault::point()?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        // The umask may have taken bits away.
        file.set_permissions(Permissions::from_mode(mode))?;
        fault::point()?;
        file.write_all(content.as_ref())?;
        fault::point()?;
        file.sync_all()
    };
    write().map_err(|source| Error::file("written", path, source))
}

/// The name beside `path` under which its next content is prepared.
fn draft(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("..{name}.new"))
}

/// Removes a file or link; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fault::point().and_then(|()| std::fs::remove_file(path)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removed", path, source))
        }
        _ => Ok(()),
    }
}

/// Moves a file or link, in the place of what is there.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fault::point()
        .and_then(|()| std::fs::rename(from, to))
        .map_err(|source| Error::file("written", to, source))?;
    for folder in [
        to.parent(),
        from.parent().filter(|from| Some(*from) != to.parent()),
    ] {
        folder.map_or(Ok(()), sync_folder)?;
    }
    Ok(())
}

/// Removes a folder with all that is in it; one that is not there is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<(), Error> {
    match fault::point().and_then(|()| std::fs::remove_dir_all(path)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removed", path, source))
        }
        _ => Ok(()),
    }
}

/// Replaces a file: readers see the old content or the new one, never a part.
pub(crate) fn replace(path: &Path, mode: u32, content: impl AsRef<[u8]>) -> Result<(), Error> {
    let draft = draft(path);
    remove(&draft)?;
    create(&draft, mode, content)?;
    rename(&draft, path)
}

/// Replaces a file of secrets, which keeps the owner, group and mode it may have been given.
pub(crate) fn rewrite(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Error> {
    let draft = draft(path);
    remove(&draft)?;
    create(&draft, SECRET, content)?;
    if let Ok(meta) = path.metadata() {
        take_over(&draft, &meta).map_err(|source| Error::file("given away", &draft, source))?;
    }
    rename(&draft, path)
}

/// Gives a file the owner, group and mode of another.
fn take_over(path: &Path, from: &Metadata) -> io::Result<()> {
    fault::point()?;
    let own = path.metadata()?;
    if (own.uid(), own.gid()) != (from.uid(), from.gid()) {
        chown(path, Some(from.uid()), Some(from.gid()))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(from.mode() & 0o7777))
}

/// Points the symbolic link `path` at `target` in one step, whatever `path` was before.
pub(crate) fn replace_link(path: &Path, target: &str) -> Result<(), Error> {
    let draft = draft(path);
    remove(&draft)?;
    fault::point()
        .and_then(|()| symlink(target, &draft))
        .map_err(|source| Error::file("written", &draft, source))?;
    rename(&draft, path)
}

/// Keeps a second certgen out of the same PKI. Released on drop, and by the system when the
/// process dies.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock in the authority's folder, after whoever holds it.
    pub(crate) fn acquire(folder: &Path) -> Result<Self, Error> {
        make_folder(folder)?;
        let path = folder.join(".lock");
        let open = || {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(SECRET)
                .open(&path)?;
            file.lock()?;
            Ok(Self { _file: file })
        };
        open().map_err(|source| Error::file("locked", &path, source))
    }
}

/// Before each change of the disk, a place at which a test can end the writing as a kill would.
#[cfg(not(test))]
pub(crate) mod fault {
    use std::io;

    /// Goes on.
    #[expect(clippy::unnecessary_wraps, reason = "as in tests")]
    pub(crate) fn point() -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        /// Points until the end; endless when none.
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Lets this thread pass so many points and none after them.
    pub(crate) fn end_after(points: Option<u32>) {
        LEFT.set(points);
    }

    /// Goes on, or fails for good once it is time.
    pub(crate) fn point() -> io::Result<()> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("killed by the test")),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
