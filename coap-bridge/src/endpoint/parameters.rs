//! Transmission parameters (RFC 7252 section 4.8) and what follows from them.

use std::time::Duration;

/// The least time before the first retransmission.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// The first retransmission comes after up to so many times [`ACK_TIMEOUT`].
pub const ACK_RANDOM_FACTOR: f64 = 1.5;
/// How often a Confirmable message is sent again.
pub const MAX_RETRANSMIT: u32 = 4;
/// How many Confirmable messages wait for their acknowledgement from one endpoint.
pub const NSTART: usize = 1;
/// From the first to the last transmission of a Confirmable message, at the most.
pub const MAX_TRANSMIT_SPAN: Duration = Duration::from_secs(45);
/// From the first transmission to giving up, at the most.
pub const MAX_TRANSMIT_WAIT: Duration = Duration::from_secs(93);
/// A Confirmable message's mid is not used again for so long.
pub const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);
/// A Non-confirmable message's mid is not used again for so long.
pub const NON_LIFETIME: Duration = Duration::from_secs(145);
/// A member of a group answers a request to the group after a random part of this time (section 8.2).
pub const DEFAULT_LEISURE: Duration = Duration::from_secs(5);
/// A request that is not answered within this time gets an empty acknowledgement, and its response
/// separately (RFC 7252 section 5.2.2).
pub const EMPTY_ACK_DELAY: Duration = Duration::from_secs(1);
/// A notification that comes so long after another is newer, whatever its number says
/// (RFC 7641 section 3.4).
pub(super) const OBSERVE_REORDER_SPAN: Duration = Duration::from_secs(128);
/// An observation is renewed when its last representation has been stale for this long, plus a random
/// time of up to [`RENEW_SPREAD`] (RFC 7641 section 3.3.1).
pub(super) const RENEW_AFTER: Duration = Duration::from_secs(5);
/// See [`RENEW_AFTER`].
pub(super) const RENEW_SPREAD: Duration = Duration::from_secs(10);
