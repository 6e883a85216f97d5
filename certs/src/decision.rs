//! What to do about a request, given what exists. Reads and writes nothing.

use time::OffsetDateTime;

use crate::authority::Authority;
use crate::certificate::Certificate;
use crate::error::Error;
use crate::folder::Found;
use crate::index::Index;
use crate::name::San;
use crate::pki::{Existing, Outcome, Reason, Request};

/// What to do about a request.
pub(crate) enum Decision {
    /// What exists is the answer.
    Keep(Outcome, Certificate),
    /// A certificate with these addresses is.
    Issue(Outcome, Vec<San>),
}

/// Decides about a request for a certificate that is to be reached as `wanted`.
///
/// # Errors
/// [`Error::Differs`]: what exists is to be kept, but is no answer to the request.
pub(crate) fn decide(
    request: &Request,
    mut wanted: Vec<San>,
    found: Found,
    authority: &Authority,
    index: &Index,
    now: OffsetDateTime,
) -> Result<Decision, Error> {
    let (reason, existing) = match found {
        Found::Nothing => return Ok(Decision::Issue(Outcome::Created, wanted)),
        Found::Damaged => (Some(Reason::Damaged), None),
        Found::Whole(existing) if index.is_revoked(&existing.serial) => {
            return decide_about_revoked(request, wanted, *existing);
        }
        Found::Whole(existing) => (
            reason_to_replace(&existing, &wanted, authority, now),
            Some(*existing),
        ),
    };
    let keep = |existing| Ok(Decision::Keep(Outcome::Unchanged, existing));
    match (request.existing, reason, existing) {
        (Existing::Replace, ..) => Ok(Decision::Issue(Outcome::Replaced(Reason::Forced), wanted)),
        (Existing::Keep, reason, Some(existing)) if is_usable(reason) => {
            refuse_other_addresses(request, &wanted, &existing)?;
            keep(existing)
        }
        (Existing::Maintain, None, Some(existing)) => keep(existing),
        // What can still be used is kept where nothing can be signed.
        (Existing::Maintain, reason, Some(existing))
            if is_usable(reason) && !authority.signer.has_key() =>
        {
            keep(existing)
        }
        (Existing::Maintain, reason, existing) => {
            // Maintenance takes no address away.
            add_missing(
                &mut wanted,
                existing.map(|one| one.sans).unwrap_or_default(),
            );
            let reason = reason.unwrap_or(Reason::Damaged);
            Ok(Decision::Issue(Outcome::Replaced(reason), wanted))
        }
        (Existing::Keep, reason, _) => Err(refuse_unusable(request, reason)),
    }
}

/// Someone took it back, so that only someone's word makes it anew.
fn decide_about_revoked(
    request: &Request,
    wanted: Vec<San>,
    existing: Certificate,
) -> Result<Decision, Error> {
    match request.existing {
        Existing::Replace => Ok(Decision::Issue(Outcome::Replaced(Reason::Forced), wanted)),
        Existing::Maintain => Ok(Decision::Keep(Outcome::Revoked, existing)),
        Existing::Keep => Err(Error::Differs {
            what: request.identity.to_string(),
            difference: "it was revoked".to_owned(),
        }),
    }
}

/// Adds those of `more` that `sans` lacks.
pub(crate) fn add_missing(sans: &mut Vec<San>, more: Vec<San>) {
    for san in more {
        if !sans.contains(&san) {
            sans.push(san);
        }
    }
}

/// Whether a certificate with this shortcoming still proves who its holder is.
fn is_usable(reason: Option<Reason>) -> bool {
    match reason {
        None
        | Some(
            Reason::Due | Reason::Address | Reason::Forced | Reason::Renewed | Reason::Superseded,
        ) => true,
        Some(Reason::Damaged | Reason::OtherAuthority | Reason::Expired) => false,
    }
}

/// Why a certificate should be replaced, the gravest reason first; `None` when all is well.
fn reason_to_replace(
    existing: &Certificate,
    wanted: &[San],
    authority: &Authority,
    now: OffsetDateTime,
) -> Option<Reason> {
    // Nothing outlives its authority, so there renewing would not help.
    let signer = &authority.signer.certificate;
    let can_be_longer = existing.not_after < signer.not_after;
    let is_of_signer = existing.is_signed_by(signer);
    if !is_of_signer && !authority.has_superseded(existing) {
        Some(Reason::OtherAuthority)
    } else if existing.has_expired(now) {
        Some(Reason::Expired)
    } else if !is_of_signer {
        Some(Reason::Superseded)
    } else if existing.is_due(now) && can_be_longer {
        Some(Reason::Due)
    } else if wanted.iter().any(|san| !existing.sans.contains(san)) {
        Some(Reason::Address)
    } else {
        None
    }
}

/// What can't be used is no answer to a request, and replacing it was not asked for.
fn refuse_unusable(request: &Request, reason: Option<Reason>) -> Error {
    let difference = match reason {
        Some(Reason::OtherAuthority) => "another authority than the one here signed it",
        Some(Reason::Expired) => "it has expired",
        _ => "its files are incomplete or don't fit each other",
    };
    Error::Differs {
        what: request.identity.to_string(),
        difference: difference.to_owned(),
    }
}

/// A request that names addresses must get exactly these; one that names none takes what exists.
fn refuse_other_addresses(
    request: &Request,
    wanted: &[San],
    existing: &Certificate,
) -> Result<(), Error> {
    if request.sans.is_empty() {
        return Ok(());
    }
    let list = |left: &[San], right: &[San]| -> Vec<String> {
        let missing = left.iter().filter(|san| !right.contains(san));
        missing.map(ToString::to_string).collect()
    };
    let lacks = list(wanted, &existing.sans);
    let extra = list(&existing.sans, wanted);
    let difference = match (lacks.is_empty(), extra.is_empty()) {
        (true, true) => return Ok(()),
        (false, true) => format!("it lacks {}", lacks.join(", ")),
        (true, false) => format!("it has {} too", extra.join(", ")),
        (false, false) => format!("it has {} and lacks {}", extra.join(", "), lacks.join(", ")),
    };
    Err(Error::Differs {
        what: request.identity.to_string(),
        difference,
    })
}
