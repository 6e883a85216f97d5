//! What nodes answered, and what follows from it.

use std::time::Instant;

use bus::bridge::{self as orders, Answer, Report, Uid};
use bus::time::Now;
use serde_json::Value;

use super::Bridge;
use super::answers::{answered, failed, ok};
use super::wire::{self, Reading};
use super::work::{Ask, Then};
use crate::endpoint::{Code, RequestError, RequestId, Response};
use crate::metrics::Refused;

impl Bridge {
    pub(super) fn handle_response(
        &mut self,
        id: RequestId,
        result: Result<Response, RequestError>,
        observed: bool,
        now: Now,
    ) {
        let Some((uid, ask)) = self.asked.remove(&id) else {
            return;
        };
        if let Ask::Probe(place) = ask {
            return self.handle_probe(&uid, id, place, result, now);
        }
        let Some(node) = self.nodes.get_mut(&uid) else {
            return;
        };
        node.current.take_if(|current| current.id == id);
        if result.is_ok() {
            node.seen = Some(now.mono);
        }
        match ask {
            Ask::Probe(_) => {}
            Ask::Read { path, then } => {
                self.note_observation(&uid, &path, id, observed);
                self.end_read(&uid, &path, then, result, now);
            }
            Ask::Write { path, id, deadline } => {
                self.end_write(&uid, path, id, deadline, result, now);
            }
            Ask::Fetch { path, id } => {
                self.seen_if_ok(&uid, &result);
                self.answer(id, fetched(&path, result, now));
            }
            Ask::Ping(id) => {
                self.seen_if_ok(&uid, &result);
                self.answer(
                    id,
                    match result {
                        Ok(response) => ok(response.code, None),
                        // A node that rejects the message has answered it.
                        Err(RequestError::Reset) => Answer {
                            code: None,
                            ..ok(Code::EMPTY, None)
                        },
                        Err(error) => failed(error, &error.to_string()),
                    },
                );
            }
        }
        self.pump(&uid, now);
        self.arm_poll(&uid, now);
    }

    fn note_observation(&mut self, uid: &Uid, path: &str, id: RequestId, observed: bool) {
        let node = self.nodes.get_mut(uid);
        let Some(entry) = node.and_then(|node| node.resources.get_mut(path)) else {
            return;
        };
        if observed {
            entry.observation = Some(id);
            let path = path.to_owned();
            let then = Then::Routine;
            self.asked
                .insert(id, (uid.clone(), Ask::Read { path, then }));
        } else {
            entry.observation.take_if(|observation| *observation == id);
        }
    }

    fn end_read(
        &mut self,
        uid: &Uid,
        path: &str,
        then: Then,
        result: Result<Response, RequestError>,
        now: Now,
    ) {
        let value = match &result {
            Ok(response) if response.code.is_success() => {
                Some(self.report_value(uid, path, response, now))
            }
            _ => {
                self.seen_if_ok(uid, &result);
                self.note_failed_read(uid, path, &result, now);
                None
            }
        };
        match (then, result) {
            (Then::Routine, _) => {}
            (Then::Confirm(id, code), _) => self.answer(id, ok(code, value)),
            (Then::Answer(id), Ok(response)) => self.answer(id, answered(response.code, value)),
            (Then::Answer(id), Err(error)) => self.answer(id, failed(error, &error.to_string())),
        }
    }

    fn report_value(&mut self, uid: &Uid, path: &str, response: &Response, now: Now) -> Value {
        let (readings, flaw) = wire::read(path, response.format(), &response.payload, now.wall);
        if let Some(flaw) = flaw {
            self.metrics.kept_as_bytes(flaw);
            tracing::debug!(node.uid = %uid, path, format = response.format(), ?flaw, "a value can't be read");
        }
        let value = readings.last().map(|last| last.sample.v.clone());
        self.report_readings(uid, readings, now);
        let entry = self
            .nodes
            .get_mut(uid)
            .and_then(|node| node.resources.get_mut(path));
        if let Some(entry) = entry {
            entry.format = response.format();
            entry.missing = false;
        }
        value.unwrap_or_default()
    }

    /// Reports what a node has pushed or answered; false when it has too many resources for any of it.
    pub(super) fn report_readings(&mut self, uid: &Uid, readings: Vec<Reading>, now: Now) -> bool {
        let mut taken = readings.is_empty();
        for Reading { path, sample, ts } in readings {
            let Some(node) = self.nodes.get_mut(uid) else {
                return false;
            };
            if !node.note_value(&path, now.mono) {
                self.metrics.refused(Refused::TooManyResources);
                continue;
            }
            taken = true;
            self.report(Report::Reading {
                uid: uid.clone(),
                path,
                sample,
                ts,
            });
        }
        taken
    }

    fn note_failed_read(
        &mut self,
        uid: &Uid,
        path: &str,
        result: &Result<Response, RequestError>,
        now: Now,
    ) {
        self.metrics.reads_failed.inc();
        let Some(node) = self.nodes.get_mut(uid) else {
            return;
        };
        if let Some(entry) = node.resources.get_mut(path) {
            entry.fresh = Some(now.mono);
            let code = result.as_ref().map(|response| response.code);
            entry.unreadable |= code == Ok(Code::METHOD_NOT_ALLOWED);
            let missing = code == Ok(Code::NOT_FOUND) && entry.listed.is_some();
            if missing && !std::mem::replace(&mut entry.missing, missing) {
                // The list is not true any more.
                let due = now.mono.checked_sub(self.rules.rediscover_interval);
                node.discovery.listed_at = due.or(node.discovery.listed_at);
            }
        }
        if result.is_err() {
            // It does not answer: the rest is asked when its time comes again.
            for path in std::mem::take(&mut node.reads) {
                if let Some(entry) = node.resources.get_mut(&path) {
                    entry.fresh = Some(now.mono);
                }
            }
        }
    }

    fn end_write(
        &mut self,
        uid: &Uid,
        path: String,
        id: orders::RequestId,
        deadline: Instant,
        result: Result<Response, RequestError>,
        now: Now,
    ) {
        match result {
            Ok(response) if response.code.is_success() => {
                let left = deadline.saturating_duration_since(now.mono);
                let then = Then::Confirm(id, response.code);
                self.read(uid, path, then, left, now);
            }
            Ok(response) => {
                self.seen_if_ok(uid, &Ok(response.clone()));
                self.answer(id, answered(response.code, None));
            }
            Err(error) => self.answer(id, failed(error, &error.to_string())),
        }
    }

    /// Any answer is a sign of life; a reported value is one already.
    fn seen_if_ok(&mut self, uid: &Uid, result: &Result<Response, RequestError>) {
        if result.is_ok() {
            self.report(Report::Seen { uid: uid.clone() });
        }
    }

    pub(super) fn handle_notification(
        &mut self,
        id: RequestId,
        response: &Response,
        last: bool,
        now: Now,
    ) {
        let Some((uid, Ask::Read { path, .. })) = self.asked.get(&id).cloned() else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&uid) {
            node.seen = Some(now.mono);
        }
        if response.code.is_success() {
            self.report_value(&uid, &path, response, now);
        }
        if last {
            self.note_observation(&uid, &path, id, false);
            let renewing = |node: &super::node::Node| {
                node.current
                    .as_ref()
                    .is_some_and(|current| current.id == id)
            };
            if !self.nodes.get(&uid).is_some_and(renewing) {
                self.asked.remove(&id);
            }
        }
        self.arm_poll(&uid, now);
    }
}

/// The answer to a question: what the resource said, which is not its state.
fn fetched(path: &str, result: Result<Response, RequestError>, now: Now) -> Answer {
    match result {
        Ok(response) if response.code.is_success() => {
            let (readings, _) = wire::read(path, response.format(), &response.payload, now.wall);
            let said = readings.into_iter().next_back();
            answered(response.code, said.map(|reading| reading.sample.v))
        }
        Ok(response) => answered(response.code, None),
        Err(error) => failed(error, &error.to_string()),
    }
}
