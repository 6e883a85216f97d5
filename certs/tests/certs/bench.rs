//! What the tests of the folder and of its certificates share.

use std::path::PathBuf;

use certs::{
    Certificate, Error, Existing, Identity, Issued, Outcome, Pki, Request, San, Surroundings,
};
use rand::SeedableRng as _;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A PKI in a folder of its own, with a clock that stands still.
pub(crate) struct Bench {
    _folder: TempDir,
    pub(crate) pki: Pki,
    pub(crate) surroundings: Surroundings,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = crate::command::folder();
        Self {
            pki: Pki::new(folder.path().join("pki")),
            _folder: folder,
            surroundings: Surroundings {
                now: OffsetDateTime::from_unix_timestamp(1_795_461_482).unwrap(),
                hostname: Some("pi4".to_owned()),
                rng: rand::rngs::StdRng::seed_from_u64(7),
            },
        }
    }

    pub(crate) fn initialised() -> Self {
        let mut bench = Self::new();
        bench.pki.init(&mut bench.surroundings).unwrap();
        bench
    }

    pub(crate) fn pass(&mut self, days: i64) {
        self.surroundings.now += Duration::days(days);
    }

    pub(crate) fn ask(
        &mut self,
        what: &str,
        sans: &[&str],
        existing: Existing,
    ) -> Result<Issued, Error> {
        let request = Request {
            sans: sans.iter().map(|san| san.parse().unwrap()).collect(),
            existing,
            ..Request::new(identity(what))
        };
        self.pki.issue(&request, &mut self.surroundings)
    }

    pub(crate) fn issue(&mut self, what: &str) -> Issued {
        self.ask(what, &[], Existing::Keep).unwrap()
    }

    pub(crate) fn quickstart(&mut self, sans: &[&str]) -> Vec<Outcome> {
        let sans: Vec<San> = sans.iter().map(|san| san.parse().unwrap()).collect();
        let bundle = certs::quickstart_in(&self.pki, &sans, &mut self.surroundings).unwrap();
        let authority = std::iter::once(bundle.authority.outcome);
        authority
            .chain(bundle.issued.iter().map(|one| one.outcome))
            .collect()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.pki.dir().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> Certificate {
        let path = self.path(path);
        let pem = std::fs::read_to_string(&path).unwrap();
        Certificate::first_from_pem(&pem, &path).unwrap()
    }
}

pub(crate) fn identity(what: &str) -> Identity {
    let (role, name) = what.split_once('/').unwrap();
    Identity::from_uri(&format!("urn:nodebus:{role}:{name}")).unwrap()
}
