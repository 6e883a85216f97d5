//! What decides who gets in and what they may do: replaced as a whole while the broker runs.
//!
//! Connections compare generations at each turn, and look again at their client when it changed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bus::topic::Base;

use crate::acl::{Acl, AclError};
use crate::passwords::{Passwords, PasswordsError};
use crate::tls::{ServerTlsError, Trust};

/// The files that say it.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) pki: PathBuf,
    pub(crate) acl: Option<PathBuf>,
    pub(crate) passwords: Option<PathBuf>,
    pub(crate) base: Base,
}

impl Sources {
    /// Reads the certificates, keys and revocations.
    pub(crate) fn trust(&self) -> Result<Trust, ServerTlsError> {
        Trust::load(&self.pki)
    }

    /// Reads the access list.
    pub(crate) fn acl(&self) -> Result<Acl, AclError> {
        Acl::load(self.acl.as_deref(), &self.base)
    }

    /// Reads the file of passwords; what was seen of those that stay as `before` is kept.
    pub(crate) fn passwords(&self, before: &Passwords) -> Result<Passwords, PasswordsError> {
        Passwords::load(self.passwords.as_deref(), before)
    }

    /// All files that there may be.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let pki = ["ca.pem", "cert.pem", "key.pem", "crl.pem"].map(|name| self.pki.join(name));
        let others = [self.acl.clone(), self.passwords.clone()];
        pki.into_iter().chain(others.into_iter().flatten())
    }
}

/// What is in force.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) trust: Arc<Trust>,
    pub(crate) acl: Arc<Acl>,
    pub(crate) passwords: Arc<Passwords>,
    /// Counts replacements, from 1.
    pub(crate) generation: u64,
}

/// The rules in force and their replacement.
#[derive(Debug)]
pub(crate) struct Gate {
    rules: RwLock<Rules>,
    generation: AtomicU64,
}

impl Gate {
    /// The first rules.
    pub(crate) fn new(trust: Trust, acl: Acl, passwords: Passwords) -> Self {
        Self {
            rules: RwLock::new(Rules {
                trust: Arc::new(trust),
                acl: Arc::new(acl),
                passwords: Arc::new(passwords),
                generation: 1,
            }),
            generation: AtomicU64::new(1),
        }
    }

    /// What is in force.
    pub(crate) fn rules(&self) -> Rules {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.clone()
    }

    /// The generation in force, at the cost of one load.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts in force what is given and keeps the rest.
    pub(crate) fn replace(
        &self,
        trust: Option<Trust>,
        acl: Option<Acl>,
        passwords: Option<Passwords>,
    ) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(trust) = trust {
            rules.trust = Arc::new(trust);
        }
        if let Some(acl) = acl {
            rules.acl = Arc::new(acl);
        }
        if let Some(passwords) = passwords {
            rules.passwords = Arc::new(passwords);
        }
        rules.generation += 1;
        self.generation.store(rules.generation, Ordering::Release);
    }
}
