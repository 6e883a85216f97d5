//! Noticing that files were replaced while a part runs, such as renewed certificates.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks at the files. A change is taken up when the next look finds no further one, so
/// that a file is not read while it is written.
pub const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of the files from another: time of change, size and inode of each.
pub type Stamp = Vec<Option<(i64, i64, u64, u64)>>;

/// How files are now; one that isn't there has none.
pub fn stamp(paths: impl IntoIterator<Item = PathBuf>) -> Stamp {
    let stamp = |path: PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.size(), file.ino()))
    };
    paths.into_iter().map(stamp).collect()
}

/// Files, such as those of an identity, looked at once a second.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    /// How they were when they were last read.
    taken_up: Stamp,
    /// How they were at the last look.
    looked: Stamp,
}

impl Watch {
    /// Begins with the files of an identity as they are: to be made before they are first read.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let paths = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
        Self::over(paths.to_vec())
    }

    /// The same with any files, which need not be there.
    #[must_use]
    pub fn over(paths: Vec<PathBuf>) -> Self {
        let now = stamp(paths.clone());
        Self {
            paths,
            taken_up: now.clone(),
            looked: now,
        }
    }

    /// Completes when the files changed and have come to rest. Cancel safe.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let paths = self.paths.clone();
            // A file system may keep one waiting.
            let Ok(now) = tokio::task::spawn_blocking(move || stamp(paths)).await else {
                continue;
            };
            let last = std::mem::replace(&mut self.looked, now);
            if self.looked == last && self.looked != self.taken_up {
                self.taken_up.clone_from(&self.looked);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_noticed_once_it_has_come_to_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cert.pem");
        std::fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(folder.path());
        let patience = Duration::from_secs(20);
        for content in ["other", "another"] {
            std::fs::write(&path, content).unwrap();
            let noticed = tokio::time::timeout(patience, watch.changed()).await;
            assert!(noticed.is_ok());
            assert_eq!(watch.taken_up, stamp(watch.paths.clone()));
        }
        let quiet = tokio::time::timeout(3 * LOOK, watch.changed()).await;
        assert!(quiet.is_err(), "nothing changed");
    }
}
