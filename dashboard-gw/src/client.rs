//! What the gateway remembers of one page: where it stands, when it may get its next frame, whether
//! it still answers.
//!
//! Holds no messages: a page that is slow is only further behind, and gets what it missed in one
//! frame, or a snapshot when that is not known any more.

use std::time::{Duration, Instant};

use crate::model::Model;

/// The least time between two frames of changes: ten a second.
const FRAME_INTERVAL: Duration = Duration::from_millis(100);
/// The most time between two: scripts see no pings, so a page needs a frame to know that it is
/// still connected.
const BEAT_INTERVAL: Duration = Duration::from_secs(15);
/// Clients are pinged so often, and closed when two pings stay unanswered.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(15);
/// One message of a client is paid off in this time: 50 a second ...
const MESSAGE_COST: Duration = Duration::from_millis(20);
/// ... after a burst of 100.
const MESSAGE_DEBT: Duration = Duration::from_secs(2);

/// Whether a client is still there (RFC 6455 section 5.5.2).
#[derive(Debug)]
pub(crate) struct Keepalive {
    ping_at: Instant,
    unanswered: u8,
}

/// What to do about a client that was silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Send a ping.
    Ping,
    /// It is gone: close.
    Gone,
}

impl Keepalive {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            ping_at: now + PING_INTERVAL,
            unanswered: 0,
        }
    }

    /// Anything came from the client.
    pub(crate) fn handle_message(&mut self) {
        self.unanswered = 0;
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.ping_at
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Silence> {
        if now < self.ping_at {
            return None;
        }
        self.ping_at = now + PING_INTERVAL;
        if self.unanswered >= 2 {
            return Some(Silence::Gone);
        }
        self.unanswered += 1;
        Some(Silence::Ping)
    }
}

/// How much a client may send: 50 messages a second after a burst of 100.
#[derive(Debug)]
pub(crate) struct Allowance {
    paid_at: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self { paid_at: now }
    }

    /// Whether one more message is within the allowance.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        let paid_at = self.paid_at.max(now) + MESSAGE_COST;
        let ok = paid_at.saturating_duration_since(now) <= MESSAGE_DEBT;
        if ok {
            self.paid_at = paid_at;
        }
        ok
    }
}

/// What the page knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// It has not said so yet.
    Unsaid,
    /// Nothing, or nothing that is of use.
    Nothing,
    /// All up to this change.
    At(u64),
}

/// The next frame of changes for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// All there is.
    Snapshot {
        /// It got one before and then fell too far behind.
        slow: bool,
    },
    /// What changed after this.
    Since(u64),
}

/// One page.
#[derive(Debug)]
pub(crate) struct Client {
    position: Position,
    /// It asked, so it gets a frame though nothing may have changed.
    asked: bool,
    next_frame: Instant,
    next_beat: Instant,
}

impl Client {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            position: Position::Unsaid,
            asked: false,
            next_frame: now,
            next_beat: now,
        }
    }

    /// The page said where it stands: `rev`, when that is from this run of the gateway.
    pub(crate) fn handle_resume(&mut self, rev: Option<u64>, model: &Model) {
        self.asked = true;
        self.position = match rev {
            Some(rev) if model.knows(rev) => Position::At(rev),
            _ => Position::Nothing,
        };
    }

    /// Whether there are changes to send, now or later, when the model stands at `rev`.
    pub(crate) fn is_behind(&self, rev: u64) -> bool {
        match self.position {
            Position::Unsaid => false,
            Position::Nothing => true,
            Position::At(at) => at != rev,
        }
    }

    /// The frame that is due; the page counts as up to date afterwards.
    pub(crate) fn poll_frame(&mut self, model: &Model, now: Instant) -> Option<Frame> {
        if self.poll_timeout(model.rev()).is_none_or(|due| now < due) {
            return None;
        }
        let frame = match self.position {
            Position::At(rev) if model.knows(rev) => Frame::Since(rev),
            Position::At(_) => Frame::Snapshot { slow: true },
            Position::Unsaid | Position::Nothing => Frame::Snapshot { slow: false },
        };
        self.position = Position::At(model.rev());
        self.asked = false;
        self.next_frame = now + FRAME_INTERVAL;
        self.next_beat = now + BEAT_INTERVAL;
        Some(frame)
    }

    /// When the next frame is due, when the model stands at `rev`; none before the page said where
    /// it stands.
    pub(crate) fn poll_timeout(&self, rev: u64) -> Option<Instant> {
        match self.position {
            Position::Unsaid => None,
            _ if self.asked || self.is_behind(rev) => Some(self.next_frame),
            Position::Nothing | Position::At(_) => Some(self.next_beat),
        }
    }
}

#[cfg(test)]
mod tests {
    use bus::time::Now;

    use super::*;
    use crate::model::tests::{bridge_online, model};

    fn start() -> (Model, Client, Now) {
        let now = bus::time::now();
        (model(now), Client::new(now.mono), now)
    }

    #[test]
    fn nothing_comes_before_the_page_said_where_it_stands() {
        let (mut model, mut client, now) = start();
        bridge_online(&mut model, "coap", now);
        assert_eq!(client.poll_frame(&model, now.mono), None);
        assert_eq!(client.poll_timeout(model.rev()), None);
        client.handle_resume(None, &model);
        let frame = client.poll_frame(&model, now.mono);
        assert_eq!(frame, Some(Frame::Snapshot { slow: false }));
        assert_eq!(client.poll_frame(&model, now.mono), None);
    }

    #[test]
    fn a_page_that_comes_back_gets_what_it_missed() {
        let (mut model, mut client, now) = start();
        bridge_online(&mut model, "coap", now);
        let rev = model.rev();
        bridge_online(&mut model, "ws", now);
        client.handle_resume(Some(rev), &model);
        assert_eq!(client.poll_frame(&model, now.mono), Some(Frame::Since(rev)));
        client.handle_resume(Some(rev + 99), &model);
        assert!(client.is_behind(model.rev()), "a change that never was");
    }

    #[test]
    fn a_page_gets_a_frame_when_it_asks_and_when_nothing_happens() {
        let (model, mut client, now) = start();
        client.handle_resume(Some(0), &model);
        assert_eq!(client.poll_frame(&model, now.mono), Some(Frame::Since(0)));
        assert_eq!(client.poll_frame(&model, now.mono), None);
        let beat = now.mono + BEAT_INTERVAL;
        assert_eq!(client.poll_timeout(model.rev()), Some(beat));
        assert_eq!(client.poll_frame(&model, beat), Some(Frame::Since(0)));
    }

    #[test]
    fn frames_come_at_once_when_idle_and_ten_a_second_when_not() {
        let (mut model, mut client, now) = start();
        client.handle_resume(Some(0), &model);
        client.poll_frame(&model, now.mono);
        let now = now.after(Duration::from_secs(1));
        let mut frames = 0;
        for step in 0..1000_u32 {
            let now = now.after(Duration::from_millis(u64::from(step)));
            bridge_online(&mut model, if step % 2 == 0 { "a" } else { "b" }, now);
            frames += u32::from(client.poll_frame(&model, now.mono).is_some());
            if step == 0 {
                assert_eq!(frames, 1, "the first change waits for nothing");
            }
        }
        assert_eq!(frames, 10);
        let due = client.poll_timeout(model.rev()).unwrap();
        assert!(
            client.poll_frame(&model, due).is_some(),
            "the last change is not lost"
        );
    }

    #[test]
    fn a_page_that_falls_too_far_behind_gets_a_snapshot() {
        let (mut model, mut client, now) = start();
        client.handle_resume(Some(0), &model);
        bridge_online(&mut model, "coap", now);
        for n in 0..40_000_u32 {
            crate::model::tests::event(&mut model, n, now);
        }
        let frame = client.poll_frame(&model, now.mono);
        assert_eq!(frame, Some(Frame::Snapshot { slow: true }));
    }

    #[test]
    fn a_silent_client_is_gone_after_two_pings() {
        let now = bus::time::now().mono;
        let mut keepalive = Keepalive::new(now);
        let at = |n: u32| now + PING_INTERVAL * n;
        assert_eq!(keepalive.handle_timeout(now), None);
        assert_eq!(keepalive.handle_timeout(at(1)), Some(Silence::Ping));
        keepalive.handle_message();
        assert_eq!(keepalive.handle_timeout(at(2)), Some(Silence::Ping));
        assert_eq!(keepalive.handle_timeout(at(3)), Some(Silence::Ping));
        assert_eq!(keepalive.handle_timeout(at(4)), Some(Silence::Gone));
    }

    #[test]
    fn a_flood_is_cut_and_a_lively_client_is_not() {
        let now = bus::time::now().mono;
        let mut flood = Allowance::new(now);
        let admitted = (0..1000).filter(|_| flood.admit(now)).count();
        assert_eq!(admitted, 100);
        assert!(flood.admit(now + MESSAGE_COST));
        let mut lively = Allowance::new(now);
        let each = Duration::from_millis(25);
        assert!((0..10_000).all(|n| lively.admit(now + each * n)));
    }
}
