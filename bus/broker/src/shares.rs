//! Shared Subscriptions (MQTT 5 section 4.8.2): each message goes to one session of a group.
//!
//! What a group gets is a copy with a number of its own, handed to the chosen session directly, so
//! that it stands beside the message that the same session may have asked for otherwise. Nothing
//! waits in a group: a message is always a session's, and another's only when that one lets go.

use std::cell::Cell;
use std::sync::{Arc, Weak};

use crate::filters::Filters;
use crate::message::Message;
use crate::topic;
use crate::wire::{FilterRequest, Qos};

/// The most sessions in one group; one more is refused. It bounds the search for a ready one.
pub(crate) const MAX_MEMBERS: usize = 1_000;

/// How ready a session is for one more message; a group takes the first of these that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Readiness {
    /// It can be sent at once.
    Idle,
    /// It waits behind others.
    Busy,
    /// It waits for the client to come back, which QoS 0 does not.
    Absent,
    /// Its queue is full, and what that means happens.
    Full,
}

/// A session as its groups see it.
pub(crate) trait Member: Send + Sync {
    /// How ready it is now.
    fn readiness(&self) -> Readiness;

    /// Takes a message, however ready it is by now.
    fn take(&self, message: Message);
}

/// A session that joins a group.
pub(crate) struct Joining {
    /// Its number.
    pub(crate) number: u64,
    /// It outlives the process, and so does what waits for it.
    pub(crate) is_kept: bool,
    pub(crate) member: Weak<dyn Member>,
}

struct Joined {
    number: u64,
    is_kept: bool,
    qos: Qos,
    member: Weak<dyn Member>,
}

struct Group {
    /// The Shared Subscription, as it was asked for.
    share: Arc<str>,
    joined: Vec<Joined>,
    /// Where the search for the next message's session begins.
    next: Cell<usize>,
}

/// There are as many sessions in the group as allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Whose a message is to be.
pub(crate) struct Chosen {
    pub(crate) share: Arc<str>,
    /// The session's number.
    pub(crate) number: u64,
    /// It is to be stored before it is acknowledged.
    pub(crate) is_stored: bool,
    pub(crate) member: Arc<dyn Member>,
}

/// All groups. One ends with its last session.
#[derive(Default)]
pub(crate) struct Shares(Filters<Group>);

impl Shares {
    /// Adds a session to the group that `request` names, or changes what it asks for.
    pub(crate) fn join(&mut self, request: &FilterRequest, joining: Joining) -> Result<(), Full> {
        let Joining {
            number,
            is_kept,
            member,
        } = joining;
        let joined = Joined {
            number,
            is_kept,
            qos: request.qos,
            member,
        };
        let share = &request.filter;
        self.0.edit(topic::unshared(share), |groups| {
            let Some(group) = groups.iter_mut().find(|group| *group.share == **share) else {
                groups.push(Group {
                    share: share.as_str().into(),
                    joined: vec![joined],
                    next: Cell::new(0),
                });
                return Ok(());
            };
            if let Some(known) = group.joined.iter_mut().find(|j| j.number == number) {
                *known = joined;
                return Ok(());
            }
            group.joined.retain(|known| known.member.strong_count() > 0);
            if group.joined.len() >= MAX_MEMBERS {
                return Err(Full);
            }
            group.joined.push(joined);
            Ok(())
        })
    }

    /// Takes a session out of a group.
    pub(crate) fn leave(&mut self, share: &str, number: u64) {
        self.0.edit(topic::unshared(share), |groups| {
            for group in groups.iter_mut().filter(|group| *group.share == *share) {
                group.joined.retain(|joined| joined.number != number);
            }
            groups.retain(|group| !group.joined.is_empty());
        });
    }

    /// Chooses a session in each group that asks for a message; and counts the groups that lose it,
    /// because it is QoS 0 and the queues of all who are there are full.
    pub(crate) fn choose(&self, message: &Message) -> (Vec<Chosen>, u64) {
        let (mut chosen, mut dropped) = (Vec::new(), 0);
        for group in self.0.matching(message.topic()) {
            match group.choose(message, None) {
                Some(one) => chosen.push(one),
                None => dropped += u64::from(group.is_full()),
            }
        }
        (chosen, dropped)
    }

    /// Chooses another session than `number` for the copy that this one lets go of.
    pub(crate) fn choose_other(&self, copy: &Message, number: u64) -> Option<Chosen> {
        let share = copy.share()?;
        let mut groups = self.0.matching(copy.topic()).into_iter();
        let group = groups.find(|group| *group.share == *share)?;
        group.choose(copy, Some(number))
    }
}

impl Group {
    fn is_full(&self) -> bool {
        let members = self
            .joined
            .iter()
            .filter_map(|joined| joined.member.upgrade());
        members
            .map(|member| member.readiness())
            .any(|readiness| readiness == Readiness::Full)
    }

    /// Asks one session after the other, from the one behind the last that was chosen.
    fn choose(&self, message: &Message, except: Option<u64>) -> Option<Chosen> {
        let (before, after) = self.joined.split_at(self.next.get().min(self.joined.len()));
        let mut best: Option<(Readiness, &Joined, Arc<dyn Member>)> = None;
        for joined in after.iter().chain(before) {
            if except == Some(joined.number) {
                continue;
            }
            let Some(member) = joined.member.upgrade() else {
                continue;
            };
            let readiness = member.readiness();
            let is_promised = message.qos().min(joined.qos) > Qos::AtMostOnce;
            let worst = match (is_promised, except) {
                (false, _) => Readiness::Busy,
                // What one lets go of fills nobody else.
                (true, Some(_)) => Readiness::Absent,
                (true, None) => Readiness::Full,
            };
            let is_better = best.as_ref().is_none_or(|(best, ..)| readiness < *best);
            if readiness <= worst && is_better {
                best = Some((readiness, joined, member));
            }
            if matches!(best, Some((Readiness::Idle, ..))) {
                break;
            }
        }
        let (_, joined, member) = best?;
        let at = self.joined.iter().position(|j| j.number == joined.number);
        self.next.set(at.unwrap_or(0) + 1);
        Some(Chosen {
            share: self.share.clone(),
            number: joined.number,
            is_stored: joined.is_kept && message.qos().min(joined.qos) > Qos::AtMostOnce,
            member,
        })
    }
}

#[cfg(test)]
mod tests;
