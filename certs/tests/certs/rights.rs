//! Files that are given to services.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use crate::command::{done, folder, refused};

#[test]
fn a_service_can_read_its_files_and_no_others_also_once_renewed() {
    let dir = folder();
    let path = &dir.path().join("pki");
    // A group that the test may give files to: its own.
    let gid = dir.path().metadata().unwrap().gid().to_string();
    let mode = |name: &str| path.join(name).metadata().unwrap().permissions().mode() & 0o777;
    done(path, &["bundle", "quickstart"]);
    done(path, &["issue", "broker", "bus", "--group", &gid]);
    let check = || {
        assert_eq!(mode(""), 0o711);
        assert_eq!(mode("broker"), 0o711);
        assert_eq!(mode("broker/bus"), 0o750);
        assert_eq!(mode("broker/bus/..live/"), 0o750);
        assert_eq!(mode("broker/bus/key.pem"), 0o640);
        assert_eq!(mode("broker/bus/cert.pem"), 0o644);
        assert_eq!(mode("ca"), 0o700);
        assert_eq!(mode("ca/ca.key"), 0o600);
        assert_eq!(mode("viewer/viewer"), 0o700);
        assert_eq!(mode("viewer/viewer/key.pem"), 0o600);
    };
    check();
    done(path, &["renew", "bus", "--rekey"]);
    done(path, &["crl"]);
    check();
    let said = refused(path, &["issue", "broker", "bus", "--group", "no-such"], 2);
    assert!(
        said.contains("no-such") && said.contains("/etc/group"),
        "{said}"
    );
}

#[test]
fn an_owner_is_known_by_name() {
    assert_eq!(certs::user("root").unwrap(), 0);
    assert_eq!(certs::group("root").unwrap(), 0);
    assert_eq!(certs::user("4711").unwrap(), 4711);
    certs::user("no-such").unwrap_err();
}
