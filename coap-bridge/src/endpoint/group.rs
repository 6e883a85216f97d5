//! Requests to groups (RFC 7252 section 8): one question of ours with many answers, and answers of
//! ours that wait their random time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rand::Rng;

use super::client::{self, RequestId};
use super::codec::{Message, Token};
use super::message::{Request, Response};
use super::metrics::Dropped;
use super::parameters::DEFAULT_LEISURE;
use super::remote::Remote;
use super::timers::Timers;
use super::{Endpoint, Event};

/// How many answers to one question are taken. Full: further ones are dropped and counted.
const MAX_ANSWERS: usize = 4096;
/// How many answers of ours wait for their time. Full: a further one is dropped and counted.
const MAX_WAITING: usize = 256;

#[derive(Debug)]
struct Question {
    id: RequestId,
    answered: HashSet<Remote>,
}

#[derive(Debug, Default)]
pub(super) struct Groups {
    questions: HashMap<Token, Question>,
    ends: Timers<Token>,
    next: u64,
    waiting: HashMap<u64, (Remote, Message)>,
    leisure: Timers<u64>,
}

impl Groups {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.ends.next(), self.leisure.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether a group is being asked with this token.
    pub(super) fn has_asked(&self, token: &Token) -> bool {
        self.questions.contains_key(token)
    }
}

impl Endpoint {
    /// Asks all members of a multicast group, once and Non-confirmable; their answers come as
    /// [`Event::GroupResponse`], at most one of each, until `patience` is over. Members answer after
    /// up to [`DEFAULT_LEISURE`]. An answer in blocks is given as it is: ask its sender for the rest.
    pub fn ask_group(
        &mut self,
        group: impl Into<Remote>,
        request: Request,
        patience: Duration,
        now: Instant,
    ) -> RequestId {
        let token = self.fresh_token();
        let id = self.client.next_id();
        let question = Question {
            id,
            answered: HashSet::new(),
        };
        self.groups.questions.insert(token, question);
        self.groups.ends.set(token, now + patience);
        let message = client::message(&request.non_confirmable(), token);
        self.layer.send_non(group.into(), message, now);
        id
    }

    pub(super) fn handle_group_response(
        &mut self,
        peer: Remote,
        token: &Token,
        response: Response,
    ) {
        let Some(question) = self.groups.questions.get_mut(token) else {
            return;
        };
        if question.answered.len() >= MAX_ANSWERS {
            self.layer.metrics.dropped(Dropped::Overload);
        } else if question.answered.insert(peer) {
            let id = question.id;
            self.events
                .push_back(Event::GroupResponse { id, peer, response });
        }
    }

    /// Sends an answer to a request to a group after a random part of the leisure (section 8.2).
    pub(super) fn send_at_leisure(&mut self, peer: Remote, message: Message, now: Instant) {
        if self.groups.waiting.len() >= MAX_WAITING {
            return self.layer.metrics.dropped(Dropped::Overload);
        }
        let id = self.groups.next;
        self.groups.next += 1;
        self.groups.waiting.insert(id, (peer, message));
        let wait = self
            .layer
            .rng()
            .random_range(Duration::ZERO..DEFAULT_LEISURE);
        self.groups.leisure.set(id, now + wait);
    }

    pub(super) fn handle_group_timeout(&mut self, now: Instant) {
        while let Some(token) = self.groups.ends.pop_due(now) {
            self.groups.questions.remove(&token);
        }
        while let Some(id) = self.groups.leisure.pop_due(now) {
            if let Some((peer, message)) = self.groups.waiting.remove(&id) {
                self.layer.send_non(peer, message, now);
            }
        }
    }
}
