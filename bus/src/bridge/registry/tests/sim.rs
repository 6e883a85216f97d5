//! A registry with its queue and store, and the bus around it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::super::*;
use crate::bridge::{Answer, QueueConfig, Report, Request, Sample};
use crate::id::BridgeId;
use crate::payload::AckStatus;
use crate::time;
use crate::topic::Base;

pub(super) const MAX_TIME: Duration = Duration::from_secs(120);

/// A registry with its queue and store, and the bus as a retained map plus a log of what passed.
pub(super) struct Sim {
    pub(super) registry: Registry,
    pub(super) now: Now,
    pub(super) retained: BTreeMap<String, Value>,
    pub(super) passed: Vec<(String, Value)>,
    /// The values of all readings, as a subscriber gets them.
    pub(super) readings: Vec<(String, Value)>,
    pub(super) queue: VecDeque<Publication>,
    pub(super) kept: HashMap<String, Vec<u8>>,
}

impl Sim {
    pub(super) fn new() -> Self {
        let config = BridgeConfig {
            name: BridgeId::new("coap").unwrap(),
            protocol: "coap",
            base: Base::default(),
            max_time: Some(MAX_TIME),
            forget_after: Duration::from_secs(86_400),
            max_nodes: 3,
            queue: QueueConfig::default(),
        };
        let now = time::now();
        let mut sim = Self {
            registry: Registry::new(config),
            now,
            retained: BTreeMap::new(),
            passed: Vec::new(),
            readings: Vec::new(),
            queue: VecDeque::new(),
            kept: HashMap::new(),
        };
        sim.connect();
        sim.registry.finish_restoring();
        sim.drain();
        sim
    }

    /// The process is killed and starts anew; what was in the queue and the store is there.
    pub(super) fn restart(&mut self) {
        self.registry = Registry::new(self.registry.config.clone());
        let kept: Vec<_> = self.kept.clone().into_iter().collect();
        self.registry.restore_kept(&kept, self.now);
        self.drain();
    }

    pub(super) fn connect(&mut self) {
        self.registry.handle_connected(self.now);
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some((uid, node)) = self.registry.poll_kept() {
            let uid = uid.as_str().to_owned();
            match node {
                Some(node) => self.kept.insert(uid, node),
                None => self.kept.remove(&uid),
            };
        }
        while let Some(publication) = self.registry.poll_to_queue() {
            self.queue.push_back(publication);
        }
        while let Some(publication) = self.registry.poll_publication() {
            self.take(publication);
        }
        if self.registry.is_connected() && self.registry.is_behind() {
            while let Some(publication) = self.queue.pop_front() {
                let publication = self.registry.from_queue(publication);
                self.take(publication);
            }
            self.registry.handle_caught_up(false);
        }
    }

    pub(super) fn take(&mut self, publication: Publication) {
        let topic = publication.topic.strip_prefix("nodebus/v1/");
        let topic = topic.unwrap().to_owned();
        if publication.retain && publication.payload.is_empty() {
            self.retained.remove(&topic);
            return;
        }
        let value: Value = serde_json::from_slice(&publication.payload).unwrap();
        if topic.contains("/res/") && !topic.ends_with("/ack") {
            self.readings.push((topic.clone(), value["v"].clone()));
        }
        if publication.retain {
            self.retained.insert(topic, value);
        } else {
            self.passed.push((topic, value));
        }
    }

    /// The values that a subscriber got of a resource.
    pub(super) fn values(&self, topic: &str) -> Vec<&Value> {
        let of_it = self.readings.iter().filter(|(t, _)| t == topic);
        of_it.map(|(_, v)| v).collect()
    }

    pub(super) fn report(&mut self, report: Report) {
        self.registry.handle_report(report, self.now);
        self.drain();
    }

    pub(super) fn announce(&mut self, uid: &str) {
        self.report(Report::Announce {
            uid: uid_of(uid),
            address: "[::1]:5683".into(),
            reset: false,
        });
    }

    pub(super) fn reading(&mut self, uid: &str, path: &str, text: &str) {
        let sample = Sample::from_text(text);
        let ts = self.now.wall;
        self.report(Report::Reading {
            uid: uid_of(uid),
            path: path.into(),
            sample,
            ts,
        });
    }

    pub(super) fn message(&mut self, topic: &str, payload: &str, retain: bool) {
        let message = Message {
            topic: format!("nodebus/v1/{topic}"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            retain,
            response_topic: None,
            correlation: None,
            expiry: None,
        };
        self.registry.handle_message(&message, self.now);
        self.drain();
    }

    pub(super) fn pass_time(&mut self, by: Duration) {
        let end = self.now.after(by);
        while let Some(at) = self.registry.poll_timeout()
            && at <= end.mono
        {
            let step = at.saturating_duration_since(self.now.mono);
            self.now = self.now.after(step);
            self.registry.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    pub(super) fn request(&mut self) -> Option<Request> {
        match self.registry.poll_order()? {
            Order::Execute(request) => Some(request),
            Order::Restore { .. } | Order::Forget { .. } => None,
        }
    }

    pub(super) fn acks(&self) -> Vec<&Value> {
        self.passed
            .iter()
            .filter(|(topic, _)| topic.ends_with("/ack"))
            .map(|(_, v)| v)
            .collect()
    }

    pub(super) fn events(&self) -> Vec<&str> {
        let events = self.passed.iter().filter(|(topic, _)| topic == "events");
        events.filter_map(|(_, v)| v["type"].as_str()).collect()
    }
}

pub(super) fn uid_of(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

pub(super) fn ok(v: Value) -> Answer {
    Answer {
        status: AckStatus::Ok,
        code: Some("2.04".into()),
        v: Some(v),
        error: None,
    }
}
