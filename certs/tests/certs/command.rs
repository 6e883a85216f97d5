//! Running certgen, and programs that are not ours.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn certgen(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_certgen"));
    command
        .env("CERTGEN_DIR", dir)
        .env_remove("CERTGEN_PASSPHRASE_FILE")
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .args(args);
    command
}

pub(crate) fn run(dir: &Path, args: &[&str]) -> Output {
    certgen(dir, args).output().unwrap()
}

/// Runs it and takes its answer, as text.
#[track_caller]
pub(crate) fn done(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it and takes its complaint.
#[track_caller]
pub(crate) fn refused(dir: &Path, args: &[&str], code: i32) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&done(dir, args)).unwrap()
}

/// A folder in memory where that is possible: certgen waits for the disk at every write.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    folder.unwrap()
}

/// Runs a program that the test suite installs.
#[track_caller]
pub(crate) fn peer(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output();
    output.unwrap_or_else(|error| {
        panic!("{program} can't be run ({error}): run scripts/install-test-deps")
    })
}

/// Checks with a program that is not ours; the test suite installs it.
#[track_caller]
pub(crate) fn openssl(args: &[&str]) -> String {
    let output = peer("openssl", args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
