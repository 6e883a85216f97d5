//! Putting a new authority in the place of the old one without an outage, in three stages.
//!
//! 1. *Prepare*: a new authority is made, and everyone here trusts both; the old one signs.
//! 2. *Switch*: the new one signs; what is renewed from now on is of the new one.
//! 3. *Finish*: nobody trusts the old one any more.
//!
//! Meanwhile `ca/rotation/` holds `old.pem`, `new.pem` and `new.key`, and `ca/ca.pem` both
//! certificates, the one that signs first. So each stage turns on one file that is replaced at
//! once; all else can be done again, and is, by running the stage again.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::authority::{self, Authority};
use crate::certificate::Certificate;
use crate::error::Error;
use crate::files::{self, Lock, PUBLIC};
use crate::folder::{self, Found};
use crate::index::Index;
use crate::name::Identity;
use crate::pki::{NewAuthority, Pki};
use crate::role::Role;
use crate::signer::SigningKey;
use crate::surroundings::Surroundings;

/// A step on the way from one authority to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Makes the new authority, and lets everyone trust it beside the old one
    Prepare,
    /// Lets the new authority sign; both stay trusted
    Switch,
    /// Ends the trust in the old authority
    Finish,
}

/// How it stands with the exchange of an authority.
#[derive(Debug, Clone, Serialize)]
pub struct Rotated {
    /// The stage that is reached; none when no exchange is under way.
    pub stage: Option<Stage>,
    /// Whether anything had to be done to reach it.
    pub changed: bool,
    /// The one that signs now.
    pub signs: Certificate,
    /// The other one that is trusted; none before and after.
    pub other: Option<Certificate>,
    /// The folder of the PKI.
    pub folder: PathBuf,
    /// Whose certificates are of the old authority.
    pub waiting: Vec<Identity>,
    /// Whether the authority's own key moved to `ca/retired`, and where.
    pub retired: Option<PathBuf>,
}

/// An exchange that is under way.
#[derive(Debug)]
pub(crate) struct Rotation {
    old: Certificate,
    new: Certificate,
}

impl Rotation {
    /// Reads what is under way in the authority's folder. `new.pem` is written last and removed
    /// first: without it, nothing is.
    pub(crate) fn load(folder: &Path) -> Result<Option<Self>, Error> {
        let read = |name| -> Result<Option<Certificate>, Error> {
            let path = folder.join("rotation").join(name);
            let pem = files::read(&path)?;
            pem.map(|pem| Certificate::first_from_pem(&pem, &path))
                .transpose()
        };
        let new = read("new.pem")?;
        let old = if new.is_some() {
            read("old.pem")?
        } else {
            None
        };
        Ok(old.zip(new).map(|(old, new)| Self { old, new }))
    }

    /// Where the key of `certificate` may be, in the order in which to look.
    pub(crate) fn keys(
        rotation: Option<&Self>,
        folder: &Path,
        certificate: &Certificate,
    ) -> Vec<PathBuf> {
        let place = folder.join("ca.key");
        let new = folder.join("rotation/new.key");
        match rotation {
            // At the very end its key moves to the old one's place.
            Some(rotation) if rotation.new == *certificate => vec![new, place],
            _ => vec![place],
        }
    }

    pub(crate) fn other_than(&self, certificate: &Certificate) -> Option<&Certificate> {
        if *certificate == self.new {
            Some(&self.old)
        } else if *certificate == self.old {
            Some(&self.new)
        } else {
            None
        }
    }

    /// How far it got, given who is trusted; none when the new one is not trusted yet.
    fn stage(&self, anchors: &[Certificate]) -> Option<Stage> {
        if !anchors.contains(&self.new) {
            None
        } else if !anchors.contains(&self.old) {
            Some(Stage::Finish)
        } else if anchors.first() == Some(&self.new) {
            Some(Stage::Switch)
        } else {
            Some(Stage::Prepare)
        }
    }
}

impl Pki {
    /// Takes the exchange of the authority to `stage`, or says that it is there already.
    ///
    /// The new authority is called as the old one, but for the tag, and lives as long from now as
    /// the old one did from its start; its key is under the passphrase if the old one's is.
    ///
    /// # Errors
    /// There is no authority or its key is missing; a stage before this one is missing
    /// ([`Error::Stage`]); certificates of the old authority are still in use when it finishes
    /// ([`Error::StillInUse`]), unless `force`; or the system refuses to read or write.
    pub fn rotate(
        &self,
        stage: Stage,
        force: bool,
        surroundings: &mut Surroundings,
    ) -> Result<Rotated, Error> {
        self.authority()?;
        let _lock = Lock::acquire(&self.authority_folder())?;
        match stage {
            Stage::Prepare => self.prepare(surroundings),
            Stage::Switch => self.switch(surroundings),
            Stage::Finish => self.finish(force, surroundings),
        }
    }

    /// What is under way, and how far it got.
    fn under_way(&self, authority: &Authority) -> Result<Option<(Rotation, Option<Stage>)>, Error> {
        let rotation = Rotation::load(&self.authority_folder())?;
        Ok(rotation.map(|rotation| {
            let stage = rotation.stage(&authority.anchors);
            (rotation, stage)
        }))
    }

    fn prepare(&self, surroundings: &mut Surroundings) -> Result<Rotated, Error> {
        let authority = self.authority()?;
        let reached = self.under_way(&authority)?.and_then(|(_, stage)| stage);
        let mut changed = false;
        match reached {
            Some(Stage::Finish) => return Err(stage_missing(self, "finish")),
            Some(Stage::Prepare | Stage::Switch) => {}
            None => {
                self.make_successor(&authority, surroundings)?;
                changed = true;
            }
        }
        changed |= self.spread_trust(surroundings)?;
        self.rotated(reached.or(Some(Stage::Prepare)), changed, surroundings)
    }

    /// Makes the new authority beside the old one and writes it into `ca.pem`.
    fn make_successor(
        &self,
        authority: &Authority,
        surroundings: &mut Surroundings,
    ) -> Result<(), Error> {
        let old = &authority.signer;
        old.open()?;
        let folder = self.authority_folder().join("rotation");
        files::make_folder(&folder)?;
        let path = folder.join("new.key");
        let seal = old.is_sealed();
        let key = SigningKey::load_or_make(&path, seal, &self.passphrase, surroundings)?;
        let pem = authority::self_signed(&key, &like(&old.certificate), surroundings)?;
        let path = folder.join("new.pem");
        let new = Certificate::first_from_pem(&pem, &path)?;
        files::replace(&folder.join("old.pem"), PUBLIC, old.certificate.to_pem())?;
        files::replace(&path, PUBLIC, &pem)?;
        let mut anchors = authority.anchors.clone();
        anchors.insert(1, new);
        self.trust(&anchors)
    }

    fn switch(&self, surroundings: &mut Surroundings) -> Result<Rotated, Error> {
        let authority = self.authority()?;
        let Some((rotation, Some(reached))) = self.under_way(&authority)? else {
            return Err(stage_missing(self, "prepare"));
        };
        // Whoever was left out when it was prepared must know the new one before it signs.
        let mut changed = self.spread_trust(surroundings)?;
        if reached == Stage::Prepare {
            if let Some(new) = &authority.other {
                new.open()?;
            }
            let mut anchors = vec![rotation.new, rotation.old];
            for anchor in authority.anchors {
                if !anchors.contains(&anchor) {
                    anchors.push(anchor);
                }
            }
            self.trust(&anchors)?;
            changed = true;
        }
        self.rotated(Some(reached.max(Stage::Switch)), changed, surroundings)
    }

    fn finish(&self, force: bool, surroundings: &mut Surroundings) -> Result<Rotated, Error> {
        let authority = self.authority()?;
        let Some((rotation, reached)) = self.under_way(&authority)? else {
            return self.rotated(None, false, surroundings);
        };
        match reached {
            None | Some(Stage::Prepare) => return Err(stage_missing(self, "switch")),
            Some(Stage::Switch) => {
                let waiting = self.waiting(surroundings)?;
                if !waiting.is_empty() && !force {
                    return Err(Error::still_in_use(&waiting));
                }
                let mut anchors = authority.anchors;
                anchors.retain(|anchor| *anchor != rotation.old);
                self.trust(&anchors)?;
            }
            Some(Stage::Finish) => {}
        }
        self.spread_trust(surroundings)?;
        let retired = self.retire(&rotation)?;
        let mut rotated = self.rotated(Some(Stage::Finish), true, surroundings)?;
        rotated.retired = Some(retired);
        Ok(rotated)
    }

    /// Puts the old authority aside and the key of the new one in its place.
    fn retire(&self, rotation: &Rotation) -> Result<PathBuf, Error> {
        let folder = self.authority_folder();
        let under_way = folder.join("rotation");
        let retired = folder.join("retired").join(&rotation.old.serial);
        files::make_folder(&retired)?;
        let place = folder.join("ca.key");
        let new = under_way.join("new.key");
        // Once the new key has moved, the place is its own.
        if new.exists() {
            if place.exists() {
                files::rename(&place, &retired.join("ca.key"))?;
            }
            files::rename(&new, &place)?;
        }
        files::remove(&under_way.join("new.pem"))?;
        let old = under_way.join("old.pem");
        if old.exists() {
            files::rename(&old, &retired.join("ca.pem"))?;
        }
        files::remove_folder(&under_way)?;
        Ok(retired)
    }

    /// Writes who is trusted, whoever signs first.
    fn trust(&self, anchors: &[Certificate]) -> Result<(), Error> {
        let pem: String = anchors.iter().map(Certificate::to_pem).collect();
        files::replace(&self.authority_folder().join("ca.pem"), PUBLIC, pem)
    }

    /// Gives everyone here the same trust anchors, and brokers the revocations of each of them;
    /// says whether anyone lacked some.
    fn spread_trust(&self, surroundings: &Surroundings) -> Result<bool, Error> {
        let authority = self.authority()?;
        let mut changed = false;
        for role in Role::ALL {
            for identity in self.identities_of(role)? {
                changed |= folder::trust(&self.folder(&identity), &authority)?;
            }
        }
        Ok(self.complete_revocations(&authority, surroundings.now)? || changed)
    }

    /// Whose certificate is of the old authority while the new one signs, and would be taken yet.
    fn waiting(&self, surroundings: &Surroundings) -> Result<Vec<Identity>, Error> {
        let authority = self.authority()?;
        let index = Index::load(&self.index_path())?;
        let mut waiting = Vec::new();
        for role in Role::ALL {
            for identity in self.identities_of(role)? {
                if let Found::Whole(one) = folder::read(&self.folder(&identity))?
                    && authority.has_superseded(&one)
                    && !one.has_expired(surroundings.now)
                    && !index.is_revoked(&one.serial)
                {
                    waiting.push(identity);
                }
            }
        }
        Ok(waiting)
    }

    fn rotated(
        &self,
        stage: Option<Stage>,
        changed: bool,
        surroundings: &Surroundings,
    ) -> Result<Rotated, Error> {
        let authority = self.authority()?;
        let waiting = match stage {
            Some(Stage::Switch) => self.waiting(surroundings)?,
            _ => Vec::new(),
        };
        Ok(Rotated {
            stage,
            changed,
            signs: authority.signer.certificate,
            other: authority.other.map(|other| other.certificate),
            folder: self.dir().to_owned(),
            waiting,
            retired: None,
        })
    }
}

fn stage_missing(pki: &Pki, first: &'static str) -> Error {
    Error::Stage {
        dir: pki.dir().to_owned(),
        first,
    }
}

/// What makes an authority like `old`: of its name, without the tag, and for as many years.
fn like(old: &Certificate) -> NewAuthority {
    let name = old.subject.strip_prefix("CN=").unwrap_or(&old.subject);
    let bare = name.rsplit_once(' ').filter(|(_, tag)| is_tag(tag));
    let days = (old.not_after - old.not_before).whole_days();
    let years = u32::try_from((days * 100 + 18_262) / 36_525).unwrap_or(10);
    NewAuthority {
        name: bare.map_or(name, |(name, _)| name).to_owned(),
        years: years.clamp(1, 100),
        sealed: false,
    }
}

fn is_tag(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
