//! When a Will Message is published (MQTT 5 section 3.1.2.5 and 3.1.3.2.2).

use std::time::{Duration, Instant};

use bus::time::Now;

use crate::message::Draft;
use crate::wire::Will;

/// A Will that waits for its Will Delay Interval.
#[derive(Debug)]
pub(crate) struct Delayed {
    pub(crate) due: Instant,
    pub(crate) will: Will,
}

/// What is to be done with a Will when its connection ended without a normal DISCONNECT.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Publish it at once.
    Now(Will),
    /// Publish it then, unless the client is back before.
    Later(Delayed),
    /// Its client is back already.
    Never,
}

/// What became of the session that the Will belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionFate {
    /// It ended with the connection, or a clean start ended it.
    Ended,
    /// It waits for its client for so long.
    Waits(Duration),
    /// Another connection has taken it up.
    Resumed,
}

/// Decides on the Will of a connection that ended.
pub(crate) fn fate(will: Will, session: SessionFate, now: Instant) -> Fate {
    let delay = Duration::from_secs(u64::from(will.delay));
    match session {
        SessionFate::Ended => Fate::Now(will),
        _ if delay.is_zero() => Fate::Now(will),
        SessionFate::Resumed => Fate::Never,
        // Whichever comes first.
        SessionFate::Waits(expiry) => Fate::Later(Delayed {
            due: now + delay.min(expiry),
            will,
        }),
    }
}

/// Makes the message of a Will that is due.
pub(crate) fn message(will: Will, origin: u64, now: Now) -> Draft {
    let Will {
        mut draft, expiry, ..
    } = will;
    draft.set_origin(origin);
    draft.set_expires(expiry.map(|seconds| expires(seconds, now)));
    draft
}

/// When a Message Expiry Interval that starts now ends, in milliseconds since 1970.
pub(crate) fn expires(seconds: u32, now: Now) -> i64 {
    now.wall.unix_millis() + 1000 * i64::from(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;
    use crate::wire::Qos;

    fn will(delay: u32) -> Will {
        Will {
            topic: "w".to_owned(),
            draft: Draft::new(&Parts {
                topic: "w",
                payload: b"gone",
                qos: Qos::AtLeastOnce,
                retain: true,
                origin: 0,
                expires: None,
                properties: &[],
            }),
            delay,
            expiry: Some(2),
        }
    }

    fn check(delay: u32, session: SessionFate) -> Option<Duration> {
        let now = bus::time::now().mono;
        match fate(will(delay), session, now) {
            Fate::Now(_) => Some(Duration::ZERO),
            Fate::Later(delayed) => Some(delayed.due - now),
            Fate::Never => None,
        }
    }

    #[test]
    fn a_will_waits_for_its_delay_or_the_end_of_the_session() {
        let hour = SessionFate::Waits(Duration::from_secs(3600));
        assert_eq!(check(0, hour), Some(Duration::ZERO));
        assert_eq!(check(5, hour), Some(Duration::from_secs(5)));
        assert_eq!(check(7200, hour), Some(Duration::from_secs(3600)));
        assert_eq!(check(5, SessionFate::Ended), Some(Duration::ZERO));
    }

    #[test]
    fn a_client_that_is_back_keeps_a_delayed_will_silent() {
        assert_eq!(check(5, SessionFate::Resumed), None);
        assert_eq!(check(0, SessionFate::Resumed), Some(Duration::ZERO));
    }

    #[test]
    fn a_will_expires_from_when_it_is_published() {
        let now = bus::time::now();
        let message = message(will(0), 7, now).seal(1, 0);
        assert_eq!(message.expires(), Some(now.wall.unix_millis() + 2000));
        assert_eq!(message.origin(), 7);
    }
}
