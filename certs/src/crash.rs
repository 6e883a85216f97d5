//! A kill before any change of the disk leaves a PKI that can be used, whatever was being done.

use std::path::{Path, PathBuf};

use rand::SeedableRng as _;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::files::fault;
use crate::{
    Certificate, Error, Existing, Format, Identity, Passphrase, Pki, Request, RevocationReason,
    Revoked, Rights, Stage, State, Surroundings, Within,
};

/// A PKI in its parent folder, which the test owns.
struct Place {
    folder: TempDir,
    surroundings: Surroundings,
}

impl Place {
    fn new() -> Self {
        // In memory where that is possible: no power fails here, and the many syncs would take long.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self {
            folder: folder.unwrap(),
            surroundings: Surroundings {
                now: OffsetDateTime::from_unix_timestamp(1_795_461_482).unwrap(),
                hostname: Some("pi4".to_owned()),
                rng: rand::rngs::StdRng::seed_from_u64(7),
            },
        }
    }

    /// The same once more, elsewhere.
    fn copy(&self) -> Self {
        let copy = Self {
            surroundings: Surroundings {
                hostname: self.surroundings.hostname.clone(),
                rng: self.surroundings.rng.clone(),
                ..self.surroundings
            },
            ..Self::new()
        };
        copy_folder(self.folder.path(), copy.folder.path());
        copy
    }

    fn pki(&self) -> Pki {
        Pki::new(self.folder.path().join("pki"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        let meta = path.symlink_metadata().unwrap();
        if meta.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&path).unwrap(), copy).unwrap();
        } else if meta.is_dir() {
            std::fs::create_dir(&copy).unwrap();
            std::fs::set_permissions(&copy, meta.permissions()).unwrap();
            copy_folder(&path, &copy);
        } else {
            std::fs::copy(&path, copy).unwrap();
        }
    }
}

fn identity(what: &str) -> Identity {
    Identity::from_uri(&format!("urn:nodebus:{}", what.replace('/', ":"))).unwrap()
}

/// Everyone who is there can connect: has a certificate with its key, which the broker trusts, and
/// trusts the broker's.
#[track_caller]
fn assert_usable(place: &Place, point: u32) {
    let pki = place.pki();
    if pki.authority().is_err() {
        assert!(
            !place.file("pki/viewer").exists(),
            "at {point}: no authority"
        );
        return;
    }
    let anchors = |who: &Identity| {
        let path = pki.folder(who).join("ca.pem");
        let pem = std::fs::read_to_string(&path).ok()?;
        Some(Certificate::all_from_pem(&pem, &path).unwrap())
    };
    let bus = identity("broker/bus");
    let certificate_of_bus = pki.existing(&bus).ok();
    for one in pki.list(place.surroundings.now).unwrap() {
        assert_ne!(one.state, State::Damaged, "at {point}: {}", one.identity);
        let own = one.certificate.unwrap();
        let trusts = |anchors: Vec<Certificate>, certificate: &Certificate| {
            let known = anchors.iter().any(|one| certificate.is_signed_by(one));
            assert!(known, "at {point}: {} and the bus", one.identity);
        };
        trusts(
            anchors(&bus).or_else(|| anchors(&one.identity)).unwrap(),
            &own,
        );
        let shown = certificate_of_bus.as_ref().unwrap_or(&own);
        trusts(anchors(&one.identity).unwrap(), shown);
    }
}

/// Kills `command` before each change of the disk in turn; afterwards all is usable, and the same
/// command completes its work. Gives what it leaves when nothing hinders it.
#[track_caller]
fn check(before: &Place, command: impl Fn(&mut Place) -> Result<(), Error>) -> Place {
    for point in 0..2000 {
        let mut place = before.copy();
        fault::end_after(Some(point));
        let ended = command(&mut place);
        fault::end_after(None);
        if ended.is_ok() {
            assert!(point > 3, "it writes");
            assert_usable(&place, point);
            return place;
        }
        assert_usable(&place, point);
        if let Err(error) = command(&mut place) {
            panic!("after a kill at {point}: {error}");
        }
        assert_usable(&place, point);
    }
    panic!("it never ends");
}

fn request(what: &str, existing: Existing) -> Request {
    Request {
        existing,
        ..Request::new(identity(what))
    }
}

/// An authority, a broker, a viewer, and a list of revocations.
fn small() -> Place {
    let mut place = Place::new();
    let pki = place.pki();
    pki.init(&mut place.surroundings).unwrap();
    for who in ["broker/bus", "viewer/alice", "viewer/bob"] {
        let request = request(who, Existing::Keep);
        pki.issue(&request, &mut place.surroundings).unwrap();
    }
    pki.crl(90, &place.surroundings).unwrap();
    place
}

#[test]
fn an_authority_and_certificates_are_made() {
    let done = check(&Place::new(), |place| {
        place.pki().init(&mut place.surroundings).map(drop)
    });
    check(&done, |place| {
        let request = Request {
            rights: Rights {
                owner: None,
                group: Some(std::os::unix::fs::MetadataExt::gid(
                    &place.folder.path().metadata().unwrap(),
                )),
            },
            ..request("viewer/alice", Existing::Keep)
        };
        place
            .pki()
            .issue(&request, &mut place.surroundings)
            .map(drop)
    });
}

#[test]
fn a_certificate_is_replaced() {
    let before = small();
    check(&before, |place| {
        let request = request("viewer/alice", Existing::Replace);
        place
            .pki()
            .issue(&request, &mut place.surroundings)
            .map(drop)
    });
    for rekey in [false, true] {
        check(&before, |place| {
            place.surroundings.now += Duration::days(1);
            let renewals =
                place
                    .pki()
                    .renew_all(Within::Over(0), rekey, &mut place.surroundings)?;
            for renewal in renewals {
                renewal.result?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_revocation_is_never_half() {
    let revoked = check(&small(), |place| {
        let what = Revoked::Identity(identity("viewer/bob"));
        let reason = RevocationReason::default();
        place
            .pki()
            .revoke(&what, reason, &place.surroundings)
            .map(drop)
    });
    let list = |name| std::fs::read(revoked.file(name)).unwrap();
    assert_eq!(list("pki/ca/crl.pem"), list("pki/broker/bus/crl.pem"));
    check(&revoked, |place| {
        place.pki().crl(90, &place.surroundings).map(drop)
    });
}

#[test]
fn an_authority_is_replaced() {
    let before = small();
    let key = |place: &Place| std::fs::read(place.file("pki/ca/ca.key")).unwrap();
    let (old, mut place) = (key(&before), before);
    let rotate = |stage| {
        move |place: &mut Place| {
            let rotated = place.pki().rotate(stage, false, &mut place.surroundings)?;
            assert_eq!(rotated.stage.unwrap_or(Stage::Finish), stage);
            Ok(())
        }
    };
    for stage in [Stage::Prepare, Stage::Switch] {
        place = check(&place, rotate(stage));
        assert_eq!(key(&place), old);
    }
    place = check(&place, |place| {
        let renewals = place
            .pki()
            .renew_all(Within::default(), false, &mut place.surroundings)?;
        renewals
            .into_iter()
            .try_for_each(|one| one.result.map(drop))
    });
    place = check(&place, rotate(Stage::Finish));
    assert_ne!(key(&place), old);
    let pki = place.pki();
    let retired = pki.authority_folder().join("retired");
    let retired = std::fs::read_dir(retired).unwrap().next().unwrap().unwrap();
    assert_eq!(std::fs::read(retired.path().join("ca.key")).unwrap(), old);
    assert!(!pki.authority_folder().join("rotation").exists());
    // And once more from the start.
    for stage in [Stage::Prepare, Stage::Switch] {
        pki.rotate(stage, false, &mut place.surroundings).unwrap();
    }
    assert_ne!(pki.authority().unwrap().signer.certificate.serial, "");
}

#[test]
fn files_of_secrets_and_copies_are_written() {
    let before = small();
    std::fs::write(before.file("secret"), "correct horse\n").unwrap();
    let keys = check(&before, |place| {
        let (path, rng) = (place.file("psk"), &mut place.surroundings.rng);
        crate::add_psk(&path, &"kitchen".parse()?, None, false, rng).map(drop)
    });
    let line = std::fs::read_to_string(keys.file("psk")).unwrap();
    let more = check(&keys, |place| {
        let (path, rng) = (place.file("psk"), &mut place.surroundings.rng);
        crate::add_psk(&path, &"attic".parse()?, None, false, rng).map(drop)
    });
    let lines = std::fs::read_to_string(more.file("psk")).unwrap();
    assert!(lines.starts_with(&line), "no line is lost");
    check(&before, |place| {
        let password = Passphrase::from_file(place.file("secret"));
        let (path, rng) = (place.file("passwd"), &mut place.surroundings.rng);
        let role = crate::Role::Viewer;
        crate::add_password(&path, role, &"carol".parse()?, &password, rng).map(drop)
    });
    for format in [Format::Pem, Format::C] {
        check(&before, |place| {
            let to = place.file("carry");
            let who = identity("viewer/alice");
            place.pki().export(&who, &to, format).map(drop)
        });
    }
}
