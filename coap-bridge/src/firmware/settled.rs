//! Pushes that were taken and are not answered yet: 2.04 says that the bus or the disk has the values.
//!
//! Reports are numbered in the order in which [`Bridge::poll_report`] gives them. A push waits for the
//! last of its own.

use std::collections::VecDeque;

use bus::time::Now;

use super::{Bridge, SHED_CON, SHED_NON};
use crate::endpoint::{ExchangeId, Response};

/// Non-confirmable pushes are shed when so many pushes wait for their answer.
pub(super) const WAITING_NON: usize = 8192;
/// Confirmable pushes are answered 5.03 when so many wait: three quarters of what the endpoint takes, so
/// that everything else finds room.
pub(super) const WAITING_CON: usize = 12_288;

#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// How many reports there were.
    reported: u64,
    /// How many of them, the oldest, are settled.
    settled: u64,
    /// The number of the last report, and the answer, oldest first. Bounded by [`WAITING_CON`].
    answers: VecDeque<(u64, ExchangeId, Response)>,
}

impl Unsettled {
    /// There is a further report.
    pub(super) fn reported(&mut self) {
        self.reported += 1;
    }
}

impl Bridge {
    /// So many reports, the oldest, have reached the bus or the disk: their pushes are answered.
    pub(crate) fn handle_settled(&mut self, settled: u64, now: Now) {
        self.unsettled.settled = settled;
        while let Some((number, ..)) = self.unsettled.answers.front()
            && *number <= settled
            && let Some((_, exchange, response)) = self.unsettled.answers.pop_front()
        {
            self.endpoint.respond(exchange, response, now.mono);
        }
    }

    /// Whether pushes wait for their answer.
    pub(crate) fn has_unsettled(&self) -> bool {
        !self.unsettled.answers.is_empty()
    }

    pub(super) fn answer_when_settled(
        &mut self,
        exchange: ExchangeId,
        response: Response,
        now: Now,
    ) {
        let Unsettled {
            reported,
            settled,
            answers,
        } = &mut self.unsettled;
        if *reported <= *settled {
            self.endpoint.respond(exchange, response, now.mono);
        } else {
            answers.push_back((*reported, exchange, response));
        }
    }

    /// Whether a push is not taken now.
    pub(super) fn sheds(&self, confirmable: bool) -> bool {
        let (reports, waiting) = match confirmable {
            true => (SHED_CON, WAITING_CON),
            false => (SHED_NON, WAITING_NON),
        };
        self.reports.len() >= reports || self.unsettled.answers.len() >= waiting
    }
}
