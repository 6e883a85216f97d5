//! The client protocol of Pyaiot's broker, from its broker's side.
//!
//! A client says `{"type":"new"}` and gets every node: `new`, then an `update` for each resource;
//! from then on everything that happens, in order. It writes with an `update` of its own. There is
//! no answer to a write in this protocol; the node's next value is the answer.
//!
//! A machine: changes of the model in, messages out. What the protocol has no word for is not
//! sent: a node that is offline, or whose bridge is, is `out`, as with Pyaiot.

use std::collections::HashMap;
use std::net::SocketAddr;

use bus::id::{BridgeId, NodeId, ResourceId};
use bus::payload::{Descriptor, Reading, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::Model;
use crate::model::order::Key;

/// What a client says.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    /// Show me everything, and keep me informed.
    New,
    /// Write a resource.
    Write {
        /// Which node.
        uid: String,
        /// Which resource, as the node calls it.
        endpoint: String,
        /// What to write.
        payload: Value,
    },
    /// A message that Pyaiot's broker takes and does nothing with.
    Nothing,
}

/// Why a client is closed with 1003, as Pyaiot's broker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nonsense {
    /// Not JSON.
    NotJson,
    /// JSON, but no message.
    NoMessage,
    /// A type that there is not.
    Type,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    uid: Value,
    endpoint: String,
    payload: Value,
}

/// Reads what a client sent.
///
/// # Errors
/// See [`Nonsense`].
pub(crate) fn parse(text: &str) -> Result<Said, Nonsense> {
    let message: Value = serde_json::from_str(text).map_err(|_| Nonsense::NotJson)?;
    let kind = message.get("type").and_then(Value::as_str);
    match kind.ok_or(Nonsense::NoMessage)? {
        "new" => Ok(Said::New),
        "update" => {
            let data = message.get("data").cloned().unwrap_or_default();
            let Ok(write) = serde_json::from_value::<Write>(data) else {
                return Ok(Said::Nothing);
            };
            let uid = match write.uid {
                Value::String(uid) => uid,
                other => other.to_string(),
            };
            Ok(Said::Write {
                uid,
                endpoint: write.endpoint,
                payload: write.payload,
            })
        }
        "out" | "reset" => Ok(Said::Nothing),
        _ => Err(Nonsense::Type),
    }
}

/// The resource that a client means by `endpoint`.
pub(crate) fn resource(model: &Model, node: &NodeId, endpoint: &str) -> ResourceId {
    let endpoint = endpoint.trim_start_matches('/');
    let mut listed = model.node_resources(node).iter();
    let listed = listed.find(|listed| listed.path.trim_start_matches('/') == endpoint);
    listed
        .and_then(|listed| ResourceId::new(&listed.name).ok())
        .unwrap_or_else(|| ResourceId::from_text(endpoint))
}

/// The other way round: what the node calls a resource.
fn endpoint<'a>(model: &'a Model, node: &NodeId, resource: &'a ResourceId) -> &'a str {
    let mut listed = model.node_resources(node).iter();
    let listed = listed.find(|listed| listed.name == resource.as_str());
    listed.map_or(resource.as_str(), |listed| {
        listed.path.trim_start_matches('/')
    })
}

/// A node as the clients were told of it.
#[derive(Debug)]
struct Shown {
    uid: String,
    /// What the node said its uid is.
    own_uid: String,
    epoch: u32,
}

/// Tells the clients what happens.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    shown: HashMap<NodeId, Shown>,
    by_uid: HashMap<String, NodeId>,
    online: HashMap<BridgeId, bool>,
}

impl Feed {
    /// The messages that a change of the model means, in order.
    pub(crate) fn handle_change(&mut self, model: &Model, key: &Key) -> Vec<String> {
        let mut messages = Vec::new();
        match key {
            Key::Value(node, resource) => {
                if let Some(shown) = self.shown.get(node)
                    && let Some(reading) = model.value(node, resource)
                {
                    messages.push(update(model, node, &shown.uid, resource, reading));
                }
            }
            Key::Node(node) | Key::Status(node) => self.show(model, node, &mut messages),
            Key::Bridge(bridge) => self.bridge(model, bridge, &mut messages),
            Key::Bus | Key::Event(_) => {}
        }
        messages
    }

    /// All nodes, for a client that is new.
    pub(crate) fn replay(&self, model: &Model) -> Vec<String> {
        let mut messages = Vec::new();
        for node in model.node_ids() {
            if let Some(shown) = self.shown.get(node) {
                messages.push(json!({"type": "new", "uid": shown.uid}).to_string());
                updates(model, node, &shown.uid, &mut messages);
            }
        }
        messages
    }

    /// The node that clients know by `uid`.
    pub(crate) fn node(&self, uid: &str) -> Option<&NodeId> {
        self.by_uid.get(uid)
    }

    fn bridge(&mut self, model: &Model, bridge: &BridgeId, messages: &mut Vec<String>) {
        let is_online = model.bridge_is_online(bridge) == Some(true);
        let was_online = if is_online {
            self.online.insert(bridge.clone(), true)
        } else {
            self.online.remove(bridge)
        };
        if was_online.unwrap_or(false) == is_online {
            return;
        }
        let nodes = model.node_ids().filter(|id| {
            (model.node_descriptor(id)).is_some_and(|descriptor| descriptor.bridge == *bridge)
        });
        for node in nodes {
            self.show(model, node, messages);
        }
    }

    /// Brings what the clients know of a node up to date.
    fn show(&mut self, model: &Model, node: &NodeId, messages: &mut Vec<String>) {
        let Some(descriptor) = present(model, node) else {
            self.hide(node, messages);
            return;
        };
        if (self.shown.get(node)).is_some_and(|shown| shown.own_uid != descriptor.uid) {
            self.hide(node, messages);
        }
        if let Some(shown) = self.shown.get_mut(node) {
            if shown.epoch != descriptor.epoch {
                shown.epoch = descriptor.epoch;
                messages.push(json!({"type": "reset", "uid": shown.uid}).to_string());
                // The client forgets all of the node, and the bridge may publish only what changed.
                updates(model, node, &shown.uid, messages);
            }
            return;
        }
        let uid = self.free_uid(descriptor);
        messages.push(json!({"type": "new", "uid": uid}).to_string());
        updates(model, node, &uid, messages);
        self.by_uid.insert(uid.clone(), node.clone());
        let shown = Shown {
            uid,
            own_uid: descriptor.uid.clone(),
            epoch: descriptor.epoch,
        };
        self.shown.insert(node.clone(), shown);
    }

    fn hide(&mut self, node: &NodeId, messages: &mut Vec<String>) {
        if let Some(shown) = self.shown.remove(node) {
            self.by_uid.remove(&shown.uid);
            messages.push(json!({"type": "out", "uid": shown.uid}).to_string());
        }
    }

    /// The node's own uid, unless another node has it: then its id on the bus, and so on.
    fn free_uid(&self, descriptor: &Descriptor) -> String {
        let id = descriptor.id.as_str();
        let numbered = (2_u32..).map(|n| format!("{id}-{n}"));
        [descriptor.uid.clone(), id.to_owned()]
            .into_iter()
            .chain(numbered)
            .find(|uid| !self.by_uid.contains_key(uid))
            .unwrap_or_default()
    }
}

/// The descriptor of a node that is there as far as one can know.
fn present<'a>(model: &'a Model, node: &NodeId) -> Option<&'a Descriptor> {
    let descriptor = model.node_descriptor(node)?;
    let online = model.status(node)?.state == State::Online
        && model.bridge_is_online(&descriptor.bridge) == Some(true);
    online.then_some(descriptor)
}

/// All that is known of a node, as Pyaiot's gateways tell it: their own resources first.
fn updates(model: &Model, node: &NodeId, uid: &str, messages: &mut Vec<String>) {
    if let Some(descriptor) = model.node_descriptor(node) {
        let protocol = match descriptor.protocol.as_str() {
            "coap" => "CoAP",
            "websocket" => "WebSocket",
            other => other,
        };
        messages.push(message(uid, "protocol", &json!(protocol)));
        if descriptor.protocol == "coap" {
            messages.push(message(uid, "ip", &json!(ip(&descriptor.address))));
        }
    }
    for (resource, reading) in model.values(node) {
        messages.push(update(model, node, uid, resource, reading));
    }
}

fn ip(address: &str) -> String {
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    (address.parse::<SocketAddr>()).map_or_else(|_| address.to_owned(), |a| a.ip().to_string())
}

fn update(
    model: &Model,
    node: &NodeId,
    uid: &str,
    resource: &ResourceId,
    reading: &Reading,
) -> String {
    let endpoint = endpoint(model, node, resource);
    match &reading.raw {
        Some(raw) => message(uid, endpoint, &json!(raw)),
        None => message(uid, endpoint, &reading.v),
    }
}

fn message(uid: &str, endpoint: &str, data: &Value) -> String {
    json!({"type": "update", "uid": uid, "endpoint": endpoint, "data": data}).to_string()
}

#[cfg(test)]
mod tests;
