//! Observations of peers' resources (RFC 7641), and which notification is newer.

use std::net::SocketAddr;
use std::time::Instant;

use super::client::RequestId;
use super::message::{Request, Response};
use super::options::number;
use super::parameters::OBSERVE_REORDER_SPAN;

/// What is known of one observation.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) id: RequestId,
    pub(super) peer: SocketAddr,
    pub(super) request: Request,
    last: (u32, Instant),
}

/// The sequence number of a notification: 24 bits.
pub(super) fn sequence(response: &Response) -> Option<u32> {
    let value = response.options.uint(number::OBSERVE)?;
    Some(value & 0x00FF_FFFF)
}

impl Observation {
    pub(super) fn new(
        id: RequestId,
        peer: SocketAddr,
        request: Request,
        sequence: u32,
        now: Instant,
    ) -> Self {
        Self {
            id,
            peer,
            request,
            last: (sequence, now),
        }
    }

    /// Whether this notification is newer than the newest so far, which it then becomes.
    pub(super) fn is_fresh(&mut self, sequence: u32, now: Instant) -> bool {
        let fresh = is_newer(self.last, (sequence, now));
        if fresh {
            self.last = (sequence, now);
        }
        fresh
    }
}

/// RFC 7641 section 3.4.
fn is_newer((v1, t1): (u32, Instant), (v2, t2): (u32, Instant)) -> bool {
    const HALF: u32 = 1 << 23;
    (v1 < v2 && v2 - v1 < HALF)
        || (v1 > v2 && v1 - v2 > HALF)
        || t2.saturating_duration_since(t1) > OBSERVE_REORDER_SPAN
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newer_notification_wins() {
        let t = bus::time::now().mono;
        let newer = |v1, v2, seconds| is_newer((v1, t), (v2, t + Duration::from_secs(seconds)));
        assert!(newer(1, 2, 0));
        assert!(!newer(2, 2, 0));
        assert!(!newer(2, 1, 0));
        assert!(newer(0x00FF_FFFF, 0, 0), "24 bits, then from the start");
        assert!(!newer(0, 0x00FF_FFFF, 0));
        assert!(!newer(2, 1, 128));
        assert!(newer(2, 1, 129), "after so long it can't be an old one");
    }
}
