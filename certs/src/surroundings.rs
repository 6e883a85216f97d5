//! What certgen takes from the machine it runs on.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use time::OffsetDateTime;

/// The time, the machine's name and randomness: the logic gets them, it never asks for them.
///
/// Private keys are not made from `rng`: the cryptographic library has a generator of its own.
#[derive(Debug)]
pub struct Surroundings {
    /// The moment of the request.
    pub now: OffsetDateTime,
    /// What the machine calls itself, when it says.
    pub hostname: Option<String>,
    /// Where serial numbers come from.
    pub rng: StdRng,
}

impl Surroundings {
    /// Asks this machine.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place of certgen that reads the clock"
    )]
    pub fn of_this_machine() -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        Self {
            now: std::time::SystemTime::now().into(),
            hostname: hostname
                .map(|name| name.trim().to_owned())
                .filter(|name| !is_container_id(name)),
            rng: StdRng::from_os_rng(),
        }
    }
}

/// Whether a host name is the one a container engine makes up: 12 hex digits, another for every
/// container. Nobody reaches a server by it.
fn is_container_id(name: &str) -> bool {
    name.len() == 12 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_id_is_no_name() {
        assert!(is_container_id("0a1b2c3d4e5f"));
        assert!(!is_container_id("raspberrypi4"));
        assert!(!is_container_id("0a1b2c3d4e5"));
    }
}
