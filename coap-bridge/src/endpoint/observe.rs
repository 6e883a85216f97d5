//! Observations of peers' resources (RFC 7641), and which notification is newer.

use std::time::{Duration, Instant};

use rand::Rng;

use super::blocks::Download;
use super::client::{Outgoing, Purpose, RequestError, RequestId};
use super::codec::Token;
use super::message::{Request, Response};
use super::options::number;
use super::parameters::{MAX_TRANSMIT_WAIT, OBSERVE_REORDER_SPAN, RENEW_AFTER, RENEW_SPREAD};
use super::remote::Remote;
use super::{Endpoint, Event};

/// What is known of one observation.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) id: RequestId,
    pub(super) peer: Remote,
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
        peer: Remote,
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

impl Endpoint {
    /// Asks anew what is observed, under the same token (RFC 7641 section 3.3.1), so that the peer
    /// keeps the observation or learns of it again. Ends as [`Endpoint::observe`] does. When Max-Age
    /// has passed without a notification, this happens by itself.
    ///
    /// # Errors
    /// [`RequestError::Busy`] when too much waits already, or when nothing is observed under `id`.
    pub fn renew(
        &mut self,
        id: RequestId,
        timeout: Duration,
        now: Instant,
    ) -> Result<(), RequestError> {
        let tokens = self.client.tokens.get(&id).into_iter().flatten();
        // The registration itself may not have ended: the rest of a long body comes under another token.
        if (tokens.clone()).any(|token| self.client.requests.contains_key(token)) {
            return Err(RequestError::Busy);
        }
        let found = tokens
            .copied()
            .find_map(|token| Some((token, self.client.observations.get(&token)?)));
        let (token, observation) = found.ok_or(RequestError::Busy)?;
        let outgoing = Outgoing {
            id,
            peer: observation.peer,
            request: observation.request.clone(),
            purpose: Purpose::Register,
            deadline: now + timeout,
            send: None,
            upload: None,
            download: None,
            echo: None,
        };
        self.send(token, outgoing, now)
    }

    /// Nothing was heard of an observation since its representation went stale: the peer may have
    /// forgotten it (section 3.3.1).
    pub(super) fn renew_stale(&mut self, token: Token, now: Instant) {
        let Some(observation) = self.client.observations.get(&token) else {
            return;
        };
        let id = observation.id;
        if self.renew(id, MAX_TRANSMIT_WAIT, now).is_err() {
            self.renew_later(token, 0, now);
        }
    }

    fn renew_later(&mut self, token: Token, max_age: u32, now: Instant) {
        let spread = self.layer.rng().random_range(Duration::ZERO..RENEW_SPREAD);
        let at = now + Duration::from_secs(max_age.into()) + RENEW_AFTER + spread;
        self.client.renewals.set(token, at);
    }

    /// The peer has taken the registration, or it has not (RFC 7641 section 3.1).
    pub(super) fn note_registration(
        &mut self,
        token: Token,
        outgoing: &Outgoing,
        response: &Response,
        now: Instant,
    ) {
        match sequence(response).filter(|_| response.code.is_success()) {
            Some(sequence) => {
                let Outgoing {
                    id, peer, request, ..
                } = outgoing;
                let observation = Observation::new(*id, *peer, request.clone(), sequence, now);
                self.client.observations.insert(token, observation);
                self.client.note(*id, token);
                self.renew_later(token, response.max_age(), now);
            }
            None => self.client.remove_observation(&token),
        }
    }

    pub(super) fn handle_notification(
        &mut self,
        token: Token,
        response: Response,
        bad_option: bool,
        now: Instant,
    ) {
        let Some(observation) = self.client.observations.get_mut(&token) else {
            return;
        };
        let (id, peer) = (observation.id, observation.peer);
        let sequence = sequence(&response).filter(|_| response.code.is_success());
        let Some(sequence) = sequence.filter(|_| !bad_option) else {
            // Section 4.2: an error, or a response that is no notification, ends the observation.
            self.client.remove_observation(&token);
            self.events.push_back(Event::Notification {
                id,
                peer,
                response,
                last: true,
            });
            return;
        };
        if !observation.is_fresh(sequence, now) {
            return;
        }
        let request = observation.request.clone();
        self.renew_later(token, response.max_age(), now);
        match Download::begin(&response, self.limits.max_body) {
            Ok(None) => self.events.push_back(Event::Notification {
                id,
                peer,
                response,
                last: false,
            }),
            Ok(download) => {
                let outgoing = Outgoing {
                    id,
                    peer,
                    request,
                    purpose: Purpose::Notified,
                    deadline: now + MAX_TRANSMIT_WAIT,
                    send: None,
                    upload: None,
                    download,
                    echo: None,
                };
                self.send_next(outgoing, now);
            }
            Err(error) => self.layer.metrics.failed(RequestError::from(error).label()),
        }
    }
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
