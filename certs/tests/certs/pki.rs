//! What becomes of the folder: asked twice, asked otherwise, with time and after accidents.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use certs::{Certificate, Error, Existing, Issued, Outcome, Reason};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::bench::Bench;

/// Path, inode, mode and content of everything in a folder.
fn snapshot(dir: &Path) -> Vec<(PathBuf, u64, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            found.extend(snapshot(&path));
        }
        found.push((path, meta.ino(), meta.mode(), content));
    }
    found.sort();
    found
}

#[test]
fn asking_twice_changes_nothing() {
    let mut bench = Bench::new();
    assert!(
        bench
            .quickstart(&["192.168.1.20"])
            .iter()
            .all(|one| *one == Outcome::Created)
    );
    bench
        .ask("broker/other", &["bus.example.org"], Existing::Keep)
        .unwrap();
    let before = snapshot(bench.pki.dir());

    bench.pass(30);
    assert!(
        bench
            .quickstart(&["192.168.1.20"])
            .iter()
            .all(|one| *one == Outcome::Unchanged)
    );
    assert!(
        bench
            .quickstart(&[])
            .iter()
            .all(|one| *one == Outcome::Unchanged)
    );
    let again = bench.pki.init(&mut bench.surroundings).unwrap();
    assert_eq!(again.outcome, Outcome::Unchanged);
    assert_eq!(bench.issue("viewer/viewer").outcome, Outcome::Unchanged);
    assert_eq!(bench.issue("broker/other").outcome, Outcome::Unchanged);
    let same = bench
        .ask("broker/other", &["bus.example.org"], Existing::Keep)
        .unwrap();
    assert_eq!(same.outcome, Outcome::Unchanged);
    assert_eq!(snapshot(bench.pki.dir()), before);
}

#[track_caller]
fn check_differs(result: Result<Issued, Error>, text: &str) {
    match result {
        Err(error @ Error::Differs { .. }) => assert_eq!(error.to_string(), text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_part_that_connects_and_answers_has_a_certificate_for_each() {
    let mut bench = Bench::initialised();
    for (client, server) in [
        ("bridge/coap", "coap-server/coap"),
        ("dashboard/page", "dashboard-server/page"),
    ] {
        bench.issue(client);
        let second = bench.ask(server, &[], Existing::Keep).unwrap();
        assert_eq!(second.outcome, Outcome::Created);
    }
    assert!(bench.ask("bridge/page", &[], Existing::Keep).is_err());
}

#[test]
fn what_differs_is_kept_unless_forced() {
    let mut bench = Bench::initialised();
    let first = bench
        .ask("broker/bus", &["a.example"], Existing::Keep)
        .unwrap();
    check_differs(
        bench.ask("broker/bus", &["b.example"], Existing::Keep),
        "broker/bus exists already, but it has a.example and lacks b.example: \
         keep it as it is, or replace it with --force",
    );
    bench.issue("operator/alice");
    check_differs(
        bench.ask("viewer/alice", &[], Existing::Keep),
        "alice exists already, but its role is operator, not viewer: \
         keep it as it is, or replace it with --force",
    );
    assert_eq!(bench.read("broker/bus/cert.pem"), first.certificate);

    let forced = bench
        .ask("broker/bus", &["b.example"], Existing::Replace)
        .unwrap();
    assert_eq!(forced.outcome, Outcome::Replaced(Reason::Forced));
    let sans = bench.read("broker/bus/cert.pem").sans;
    assert!(sans.contains(&"b.example".parse().unwrap()));
    assert!(!sans.contains(&"a.example".parse().unwrap()));
    assert_eq!(
        bench.pki.index().unwrap().len(),
        3,
        "every certificate stays listed"
    );

    bench.pass(400);
    check_differs(
        bench.ask("operator/alice", &[], Existing::Keep),
        "operator/alice exists already, but it has expired: \
         keep it as it is, or replace it with --force",
    );
}

#[test]
fn a_quickstart_mends_what_time_and_accidents_do() {
    let mut bench = Bench::new();
    bench.quickstart(&["a.example"]);
    let unchanged = vec![Outcome::Unchanged; 7];
    let replaced = |positions: &[usize], reason| {
        let mut outcomes = unchanged.clone();
        for at in positions {
            outcomes[*at] = Outcome::Replaced(reason);
        }
        outcomes
    };

    // A new address is added, the others stay.
    assert_eq!(
        bench.quickstart(&["b.example"]),
        replaced(&[1], Reason::Address)
    );
    let sans = bench.read("broker/bus/cert.pem").sans;
    for san in ["a.example", "b.example", "pi4.local", "bus"] {
        assert!(sans.contains(&san.parse().unwrap()), "{san}");
    }
    // Two thirds of a year later all but the bus are due, later the bus too.
    bench.pass(245);
    assert_eq!(
        bench.quickstart(&[]),
        replaced(&[2, 3, 4, 5, 6], Reason::Due)
    );
    bench.pass(60);
    assert_eq!(bench.quickstart(&[]), replaced(&[1], Reason::Due));
    bench.pass(366);
    assert_eq!(
        bench.quickstart(&[])[2..],
        vec![Outcome::Replaced(Reason::Expired); 5]
    );

    std::fs::write(bench.path("viewer/viewer/..live/key.pem"), "").unwrap();
    std::fs::remove_file(bench.path("bridge/ws/cert.pem")).unwrap();
    assert_eq!(bench.quickstart(&[]), replaced(&[3, 6], Reason::Damaged));

    std::fs::remove_dir_all(bench.path("ca")).unwrap();
    let anew = bench.quickstart(&[]);
    assert_eq!(anew[0], Outcome::Created);
    assert_eq!(
        anew[1..],
        vec![Outcome::Replaced(Reason::OtherAuthority); 6]
    );
    assert_eq!(bench.quickstart(&[]), unchanged);
}

#[test]
fn the_key_of_an_authority_is_never_overwritten() {
    let mut bench = Bench::initialised();
    bench.issue("viewer/before");
    let key = std::fs::read(bench.path("ca/ca.key")).unwrap();

    // As an interrupted first run leaves it.
    std::fs::remove_file(bench.path("ca/ca.pem")).unwrap();
    let mended = bench.pki.init(&mut bench.surroundings).unwrap();
    assert_eq!(mended.outcome, Outcome::Created);
    assert_eq!(std::fs::read(bench.path("ca/ca.key")).unwrap(), key);

    std::fs::write(bench.path("ca/ca.pem"), "rubbish").unwrap();
    let refused = bench.pki.init(&mut bench.surroundings).unwrap_err();
    assert!(matches!(refused, Error::Unusable { .. }), "{refused}");
    assert_eq!(std::fs::read(bench.path("ca/ca.key")).unwrap(), key);

    // A damaged key is not replaced either.
    std::fs::remove_file(bench.path("ca/ca.pem")).unwrap();
    std::fs::write(bench.path("ca/ca.key"), "rubbish").unwrap();
    bench.pki.init(&mut bench.surroundings).unwrap_err();
    assert_eq!(std::fs::read(bench.path("ca/ca.key")).unwrap(), b"rubbish");
}

#[test]
fn without_the_authoritys_key_what_exists_still_serves() {
    let mut bench = Bench::new();
    bench.quickstart(&[]);
    std::fs::remove_file(bench.path("ca/ca.key")).unwrap();
    assert_eq!(bench.quickstart(&[]), vec![Outcome::Unchanged; 7]);
    bench.pass(300);
    assert_eq!(
        bench.quickstart(&["new.example"]),
        vec![Outcome::Unchanged; 7]
    );
    let refused = bench.ask("viewer/new", &[], Existing::Keep).unwrap_err();
    assert!(matches!(refused, Error::NoAuthorityKey { .. }), "{refused}");
}

#[test]
fn files_have_exactly_the_rights_they_need() {
    let mut bench = Bench::new();
    bench.quickstart(&[]);
    for (path, _, mode, _) in snapshot(bench.pki.dir()) {
        let meta = path.symlink_metadata().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected = match name {
            _ if meta.is_symlink() => continue,
            _ if meta.is_dir() => 0o700,
            ".lock" | "key.pem" | "ca.key" => 0o600,
            "cert.pem" | "ca.pem" | "index.json" => 0o644,
            other => panic!("{other} should not be here"),
        };
        assert_eq!(mode & 0o7777, expected, "{}", path.display());
    }
}

#[test]
fn an_exchange_stays_inside_the_folder_and_keeps_one_generation() {
    let mut bench = Bench::initialised();
    let folder = bench.path("viewer/alice");
    // A volume that was mounted there: not ours to replace or to restrict.
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o750)).unwrap();
    let inode = folder.metadata().unwrap().ino();
    std::fs::create_dir(folder.join(format!("..{}", "0".repeat(32)))).unwrap();
    std::fs::create_dir(folder.join("lost+found")).unwrap();

    let mut serials = Vec::new();
    for _ in 0..3 {
        let issued = bench.ask("viewer/alice", &[], Existing::Replace).unwrap();
        serials.push(issued.certificate.serial);
        // Seen from elsewhere, as a container sees the volume.
        let elsewhere = tempfile::tempdir().unwrap();
        let view = elsewhere.path().join("pki");
        std::os::unix::fs::symlink(&folder, &view).unwrap();
        let pem = std::fs::read_to_string(view.join("cert.pem")).unwrap();
        let seen = Certificate::first_from_pem(&pem, &view).unwrap();
        assert_eq!(Some(&seen.serial), serials.last());
    }
    assert_eq!(folder.metadata().unwrap().ino(), inode);
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o750);
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected = vec![
        format!("..{}", serials[1]),
        format!("..{}", serials[2]),
        "..live".to_owned(),
        "ca.pem".to_owned(),
        "cert.pem".to_owned(),
        "key.pem".to_owned(),
        "lost+found".to_owned(),
    ];
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_reader_never_sees_half_a_pair() {
    let mut bench = Bench::initialised();
    bench.issue("viewer/alice");
    let folder = bench.path("viewer/alice");
    let (done, stop) = std::sync::mpsc::sync_channel::<()>(0);
    let reader = std::thread::spawn(move || {
        let mut pairs = std::collections::BTreeSet::new();
        while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            // The link is always there; the folder behind it may be gone by the time it is looked at.
            let follow = || folder.join(folder.join("..live").read_link().unwrap());
            let live = follow();
            let read = |name| std::fs::read_to_string(live.join(name));
            let (Ok(cert), Ok(key)) = (read("cert.pem"), read("key.pem")) else {
                // Two exchanges overtook it: what it began to read is gone, and another is there.
                assert_ne!(follow(), live);
                continue;
            };
            let cert = Certificate::first_from_pem(&cert, &live).unwrap();
            let key = rcgen::KeyPair::from_pem(&key).unwrap();
            let (_, parsed) = X509Certificate::from_der(&cert.der).unwrap();
            let certified = &parsed.public_key().subject_public_key.data;
            assert_eq!(certified.as_ref(), rcgen::PublicKeyData::der_bytes(&key));
            pairs.insert(cert.serial);
        }
        pairs.len()
    });
    for _ in 0..50 {
        bench.ask("viewer/alice", &[], Existing::Replace).unwrap();
    }
    drop(done);
    assert!(reader.join().unwrap() > 1, "the reader saw the exchange");
}
