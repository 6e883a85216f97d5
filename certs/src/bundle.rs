//! Sets of certificates that belong together.

use std::path::Path;

use serde::Serialize;

use crate::error::Error;
use crate::name::{Identity, San};
use crate::pki::{Existing, Initialised, Issued, Pki, Request};
use crate::role::Role;
use crate::surroundings::Surroundings;

/// Who needs a certificate so that every part runs and people can take part.
const QUICKSTART: [(Role, &str); 6] = [
    (Role::Broker, "bus"),
    (Role::Bridge, "coap"),
    (Role::Bridge, "ws"),
    (Role::Dashboard, "dashboard"),
    (Role::Operator, "operator"),
    (Role::Viewer, "viewer"),
];

/// An authority and what it issued.
#[derive(Debug, Clone, Serialize)]
pub struct Bundle {
    /// The authority.
    pub authority: Initialised,
    /// The certificates, in the order of the set.
    pub issued: Vec<Issued>,
}

/// Makes sure that `dir` holds all certificates that `nodebus up` and compose need: the authority,
/// `broker/bus`, `bridge/coap`, `bridge/ws`, `dashboard/dashboard`, `operator/operator` and
/// `viewer/viewer`. The bus is also reached under `extra_broker_sans` (DNS names or IP addresses).
///
/// Where all is in order nothing is written. A certificate that has expired or soon will, was
/// issued by another authority or lacks an address is replaced.
///
/// # Errors
/// An address is none, files are damaged in a way that only people can mend, or the system refuses
/// to read or write. What was made before the error stays and is used next time.
pub fn quickstart(dir: &Path, extra_broker_sans: &[String]) -> Result<Bundle, Error> {
    let sans: Result<Vec<San>, Error> = extra_broker_sans.iter().map(|san| san.parse()).collect();
    quickstart_in(&Pki::new(dir), &sans?, &mut Surroundings::of_this_machine())
}

/// [`quickstart`] with the surroundings as a parameter.
///
/// # Errors
/// As [`quickstart`].
pub fn quickstart_in(
    pki: &Pki,
    extra_broker_sans: &[San],
    surroundings: &mut Surroundings,
) -> Result<Bundle, Error> {
    let authority = pki.init(surroundings)?;
    let mut issued = Vec::with_capacity(QUICKSTART.len());
    for (role, name) in QUICKSTART {
        let sans = match role {
            Role::Broker => extra_broker_sans.to_vec(),
            _ => Vec::new(),
        };
        let request = Request {
            sans,
            existing: Existing::Maintain,
            ..Request::new(Identity {
                role,
                name: name.parse()?,
            })
        };
        issued.push(pki.issue(&request, surroundings)?);
    }
    Ok(Bundle { authority, issued })
}
