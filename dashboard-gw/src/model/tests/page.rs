//! A page against the model: whatever happens, and however its frames fall.

use std::collections::BTreeMap;

use bus::payload::BridgeStatus;
use bus::time::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::{bridge, descriptor, model, take};
use crate::message::{BusState, Change, Node, ServerMessage};
use crate::model::SETTLE;
use crate::model::entry::Entry;

/// What a page knows, kept as the page keeps it.
#[derive(Debug, Default, PartialEq)]
struct Page {
    bus: Option<BusState>,
    bridges: BTreeMap<String, BridgeStatus>,
    nodes: BTreeMap<String, Node>,
}

impl Page {
    fn of(snapshot: ServerMessage) -> Self {
        let ServerMessage::Snapshot {
            bus,
            bridges,
            nodes,
            ..
        } = snapshot
        else {
            panic!("not a snapshot");
        };
        Self {
            bus: Some(bus),
            bridges: bridges.into_iter().map(|b| (b.id, b.status)).collect(),
            nodes: nodes
                .into_iter()
                .map(|node| (node.id.clone(), node))
                .collect(),
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Bus { bus } => self.bus = Some(bus),
            Change::Bridge { bridge } => drop(self.bridges.insert(bridge.id, bridge.status)),
            Change::BridgeGone { id } => drop(self.bridges.remove(&id)),
            Change::Node { node } => drop(self.nodes.insert(node.id.clone(), *node)),
            Change::NodeGone { id } => drop(self.nodes.remove(&id)),
            Change::Status { id, status } => self.nodes.get_mut(&id).unwrap().status = Some(status),
            Change::Value {
                id,
                resource,
                reading,
            } => {
                let node = self.nodes.get_mut(&id).unwrap();
                node.values.insert(resource, reading);
            }
            Change::Event { .. } => {}
        }
    }
}

/// One step of a life: a message, or the bus, or time.
#[derive(Debug, Clone)]
enum Step {
    Message(String, String),
    Connected,
    Disconnected,
    Settled,
}

fn step() -> impl Strategy<Value = Step> {
    let ts = Timestamp::from_unix_millis(0);
    let id = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let state = prop::sample::select(vec!["online", "offline"]);
    let message = (0..12_u8, id, state, 0..3_u8).prop_map(move |(kind, id, state, n)| {
        let empty = String::new();
        let (topic, payload) = match kind {
            0 => (
                format!("bridges/{id}/status"),
                bridge(state, bus::time::now()).to_string(),
            ),
            1 => (format!("bridges/{id}/status"), empty),
            2 | 3 => {
                let mut value = descriptor(id, &format!("u{n}"), "coap");
                value["epoch"] = json!(n);
                (format!("nodes/{id}"), value.to_string())
            }
            4 => (format!("nodes/{id}"), empty),
            5 => {
                let status = json!({"state": state, "reason": "x", "last_seen": ts});
                (format!("nodes/{id}/status"), status.to_string())
            }
            6 => (format!("nodes/{id}/status"), empty),
            7 => (
                format!("nodes/{id}/resources"),
                json!([{"name": "r", "path": "/r"}]).to_string(),
            ),
            8 => (format!("nodes/{id}/res/r{n}"), empty),
            9 => (
                "events".to_owned(),
                json!({"type": "node_new", "ts": ts}).to_string(),
            ),
            _ => {
                let value = json!({"v": [kind, n, state], "ts": ts});
                (format!("nodes/{id}/res/r{n}"), value.to_string())
            }
        };
        Step::Message(topic, payload)
    });
    prop_oneof![
        20 => message,
        1 => Just(Step::Connected),
        1 => Just(Step::Disconnected),
        1 => Just(Step::Settled),
    ]
}

proptest! {
    /// However a page's frames fall, it ends up with what the model holds, and what the model
    /// counts as kept is what it keeps.
    #[test]
    fn a_page_that_applies_the_changes_knows_what_the_model_knows(
        steps in prop::collection::vec((step(), any::<bool>()), 0..120),
    ) {
        let mut now = bus::time::now();
        let mut model = model(now);
        let (mut page, mut rev) = (Page::of(model.snapshot()), model.rev());
        for (step, frame) in steps {
            match step {
                // Some of it is over the limits; that must do no harm either.
                Step::Message(topic, payload) => drop(take(&mut model, &topic, &payload, now)),
                Step::Connected => model.handle_connected(now),
                Step::Disconnected => model.handle_disconnected(now),
                Step::Settled => {
                    now = now.after(SETTLE);
                    model.handle_timeout(now);
                }
            }
            if frame {
                for change in model.since(rev).unwrap() {
                    page.apply(change);
                }
                rev = model.rev();
                prop_assert_eq!(&page, &Page::of(model.snapshot()));
            }
        }
        let bridges: usize = model.bridges.values().map(|held| held.size).sum();
        let nodes: usize = model.nodes.values().map(Entry::size).sum();
        prop_assert_eq!(model.held, bridges + nodes);
    }
}
