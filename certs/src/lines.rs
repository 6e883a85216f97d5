//! Files of secrets with a line for each name, `name:...`, as people know them from other brokers.
//! Comments, empty lines and the order stay as they are.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::files::{self, Lock};
use crate::name::Name;

/// Such a file, locked against another certgen.
pub(crate) struct Lines {
    path: PathBuf,
    lines: Vec<String>,
    _lock: Lock,
}

impl Lines {
    /// Reads a file, which need not exist.
    ///
    /// # Errors
    /// It can't be read, or a line has no name.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let lock = Lock::acquire(folder)?;
        Ok(Self {
            path: path.to_owned(),
            lines: read(path)?,
            _lock: lock,
        })
    }

    /// What stands behind the name.
    pub(crate) fn find(&self, name: &Name) -> Option<&str> {
        self.lines
            .iter()
            .filter_map(|line| entry(line))
            .find(|(found, _)| *found == name.as_str())
            .map(|(_, rest)| rest)
    }

    /// Puts `rest` behind the name, in its line or a new one.
    pub(crate) fn put(&mut self, name: &Name, rest: &str) -> Result<(), Error> {
        let line = format!("{name}:{rest}");
        match self.position(name) {
            Some(at) => self.lines[at] = line,
            None => self.lines.push(line),
        }
        self.save()
    }

    /// Removes the line of the name; says whether there was one.
    pub(crate) fn remove(&mut self, name: &Name) -> Result<bool, Error> {
        let Some(at) = self.position(name) else {
            return Ok(false);
        };
        self.lines.remove(at);
        self.save()?;
        Ok(true)
    }

    fn position(&self, name: &Name) -> Option<usize> {
        let is_meant = |line: &String| entry(line).is_some_and(|(found, _)| found == name.as_str());
        self.lines.iter().position(is_meant)
    }

    fn save(&self) -> Result<(), Error> {
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        files::rewrite(&self.path, text)
    }
}

/// The names in a file and what stands behind them, in their order.
pub(crate) fn entries(path: &Path) -> Result<Vec<(String, String)>, Error> {
    let lines = read(path)?;
    let entries = lines.iter().filter_map(|line| entry(line));
    Ok(entries
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect())
}

fn read(path: &Path) -> Result<Vec<String>, Error> {
    let text = files::read(path)?.unwrap_or_default();
    for (at, line) in text.lines().enumerate() {
        if !is_comment(line) && entry(line).is_none() {
            return Err(Error::Line {
                path: path.to_owned(),
                number: at + 1,
            });
        }
    }
    Ok(text.lines().map(str::to_owned).collect())
}

fn is_comment(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with('#')
}

fn entry(line: &str) -> Option<(&str, &str)> {
    if is_comment(line) {
        return None;
    }
    line.split_once(':')
        .filter(|(name, rest)| !name.is_empty() && !rest.is_empty())
}
