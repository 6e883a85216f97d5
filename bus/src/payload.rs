//! What stands in the payloads: UTF-8 JSON, numbers as numbers, times as RFC 3339.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{BridgeId, NodeId};
use crate::time::Timestamp;

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Online,
    /// It is not.
    Offline,
}

/// `bridges/<b>/status`; the bridge's Will Message says `offline` without a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BridgeStatus {
    /// Whether the bridge is connected.
    pub state: State,
    /// What its nodes speak: `coap`, `websocket`.
    pub protocol: String,
    /// The version of the bridge.
    pub version: String,
    /// How many nodes it knows.
    #[serde(default)]
    pub nodes: u32,
    /// When this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "string"))]
    pub ts: Option<Timestamp>,
}

/// `nodes/<n>`: who the node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Descriptor {
    /// The level `<n>`.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub id: NodeId,
    /// What the node calls itself, as it was sent.
    pub uid: String,
    /// What people call it: its `name` resource, else its uid.
    pub name: String,
    /// What it speaks: `coap`, `websocket`.
    pub protocol: String,
    /// The bridge that owns it.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub bridge: BridgeId,
    /// Where it is reached, as its protocol writes addresses.
    pub address: String,
    /// Its operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub os: Option<String>,
    /// Its board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub board: Option<String>,
    /// Its processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub mcu: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub vendor: Option<String>,
    /// The version of its firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub version: Option<String>,
    /// When the bridge first heard of it.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub first_seen: Timestamp,
    /// How often it has started anew since.
    #[serde(default)]
    pub epoch: u32,
}

/// `nodes/<n>/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct NodeStatus {
    /// Whether the node gave a sign of life lately.
    pub state: State,
    /// Why the state is what it is: `alive`, `timeout`, `closed`, `restored` ...
    pub reason: String,
    /// The last sign of life.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub last_seen: Timestamp,
}

/// One entry of `nodes/<n>/resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Resource {
    /// The level `<r>`.
    pub name: String,
    /// What the node calls it: its path, or its key.
    pub path: String,
    /// Resource types (RFC 6690 section 3.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "ts", ts(as = "Option<Vec<String>>", optional))]
    pub rt: Vec<String>,
    /// Interface descriptions (RFC 6690 section 3.2).
    #[serde(default, rename = "if", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "ts", ts(as = "Option<Vec<String>>", optional))]
    pub interfaces: Vec<String>,
    /// Content formats (RFC 7252 section 7.2.1).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "ts", ts(as = "Option<Vec<u16>>", optional))]
    pub ct: Vec<u16>,
    /// Whether it says that it can be observed (RFC 7641 section 6).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "ts", ts(as = "Option<bool>", optional))]
    pub obs: bool,
    /// The greatest size of its representation, in bytes (RFC 6690 section 3.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub sz: Option<u64>,
    /// A title for people (RFC 8288 section 3.4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub title: Option<String>,
    /// What it takes, as far as is known: `get`, `set`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "ts", ts(as = "Option<Vec<Method>>", optional))]
    pub methods: Vec<Method>,
}

/// What can be done to a resource or to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Read.
    Get,
    /// Write.
    Set,
}

/// `nodes/<n>/res/<r>`: the last value that the node gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Reading {
    /// Number, boolean, string or JSON value.
    pub v: Value,
    /// The unit of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub u: Option<String>,
    /// When the bridge got it.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub ts: Timestamp,
    /// The text that `v` and `u` were read from, when they are not the text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub raw: Option<String>,
    /// When `v` is bytes in base64: their Content-Format (RFC 7252 section 12.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub ct: Option<u16>,
}

/// The longest payload of a request, in bytes.
pub const MAX_REQUEST: usize = 64 * 1024;

/// The longest `id` of a request, in bytes.
pub const MAX_REQUEST_ID: usize = 128;

/// Why a request can't be taken; the text goes into the `rejected` ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// Longer than [`MAX_REQUEST`].
    #[error("the payload is longer than {MAX_REQUEST} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the payload is not UTF-8 text")]
    NotText,
    /// Nothing in it.
    #[error("the payload is empty: send a value, or {{\"v\": value}}")]
    Empty,
    /// An object with other members than `v`, `id`, `timeout_ms` and `method`, or of the wrong types.
    #[error(
        "the object is not {{\"v\": value, \"id\": text, \"timeout_ms\": number, \"method\": \"put\", \"post\", \"patch\", \"ipatch\" or \"fetch\"}} (all but v may be left out)"
    )]
    WrongShape,
    /// The id is longer than [`MAX_REQUEST_ID`].
    #[error("the id is longer than {MAX_REQUEST_ID} bytes")]
    LongId,
}

/// How a value goes to a resource (RFC 7252 section 5.8, RFC 8132). A node that knows nothing of these
/// takes [`SetMethod::Put`] only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetMethod {
    /// It is what the resource holds from now on.
    #[default]
    Put,
    /// The resource does something with it.
    Post,
    /// It says what is to change.
    Patch,
    /// The same; saying it twice changes nothing more.
    IPatch,
    /// It is a question; the ack has the answer in `v`, and nothing changes.
    Fetch,
}

/// `nodes/<n>/res/<r>/set`: a bare scalar, or an object with the value in `v`.
#[derive(Debug, Clone, PartialEq)]
pub struct SetRequest {
    /// The value to write.
    pub v: Value,
    /// How.
    pub method: SetMethod,
    /// What the ack will carry.
    pub id: Option<String>,
    /// How long the asker will wait, in milliseconds.
    pub timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetObject {
    v: Value,
    #[serde(default)]
    method: SetMethod,
    id: Option<String>,
    timeout_ms: Option<u64>,
}

fn request_text(payload: &[u8]) -> Result<&str, InvalidRequest> {
    if payload.len() > MAX_REQUEST {
        return Err(InvalidRequest::TooLong);
    }
    std::str::from_utf8(payload)
        .map(str::trim)
        .map_err(|_| InvalidRequest::NotText)
}

fn checked_id(id: Option<String>) -> Result<Option<String>, InvalidRequest> {
    match id {
        Some(id) if id.len() > MAX_REQUEST_ID => Err(InvalidRequest::LongId),
        id => Ok(id),
    }
}

impl SetRequest {
    /// Reads a payload. Text that is not JSON is the string it is, so that `-m on` works.
    ///
    /// # Errors
    /// See [`InvalidRequest`].
    pub fn parse(payload: &[u8]) -> Result<Self, InvalidRequest> {
        let text = request_text(payload)?;
        if text.is_empty() {
            return Err(InvalidRequest::Empty);
        }
        if text.starts_with('{') {
            let object: SetObject =
                serde_json::from_str(text).map_err(|_| InvalidRequest::WrongShape)?;
            let id = checked_id(object.id)?;
            return Ok(Self {
                v: object.v,
                method: object.method,
                id,
                timeout_ms: object.timeout_ms,
            });
        }
        let v = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        Ok(Self {
            v,
            method: SetMethod::Put,
            id: None,
            timeout_ms: None,
        })
    }
}

/// `nodes/<n>/res/<r>/get` and `nodes/<n>/cmd/<op>`: empty, or `{"id", "timeout_ms"}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainRequest {
    /// What the ack will carry.
    #[serde(default)]
    pub id: Option<String>,
    /// How long the asker will wait, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

impl PlainRequest {
    /// Reads a payload.
    ///
    /// # Errors
    /// See [`InvalidRequest`].
    pub fn parse(payload: &[u8]) -> Result<Self, InvalidRequest> {
        let text = request_text(payload)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        // serde would take an array for the object.
        if !text.starts_with('{') {
            return Err(InvalidRequest::WrongShape);
        }
        let request: Self = serde_json::from_str(text).map_err(|_| InvalidRequest::WrongShape)?;
        Ok(Self {
            id: checked_id(request.id)?,
            ..request
        })
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum AckStatus {
    /// The node confirmed.
    Ok,
    /// It never went to the node, or the node would not.
    Rejected,
    /// No answer in time.
    Timeout,
    /// The node or the way to it failed.
    Error,
}

/// `nodes/<n>/res/<r>/ack` and `nodes/<n>/cmd/<op>/ack`: exactly one for each request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Ack {
    /// The id of the request; null when it had none.
    pub id: Option<String>,
    /// `set`, `get`, `rediscover`, `forget` or `ping`.
    pub op: String,
    /// How it ended.
    pub status: AckStatus,
    /// The node's own answer code, as its protocol writes it (`2.04`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub code: Option<String>,
    /// What the resource holds now, as the node said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub v: Option<Value>,
    /// From the request's arrival at the bridge to its end, in milliseconds.
    pub ms: u64,
    /// The reason in words, when it did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub error: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A node that the bridge did not know.
    NodeNew,
    /// No sign of life for too long, or its connection closed.
    NodeLost,
    /// The node started anew.
    NodeReset,
    /// The node and its topics were removed.
    NodeForgotten,
    /// A request ended.
    Command,
    /// Somebody was refused.
    AuthFailed,
}

/// `events`: what happened, in order, not retained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[cfg_attr(feature = "ts", ts(rename = "BusEvent"))]
pub struct Event {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The node it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "string"))]
    pub node: Option<NodeId>,
    /// The bridge that saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "string"))]
    pub bridge: Option<BridgeId>,
    /// When.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub ts: Timestamp,
    /// More, by kind: `reason`, `resource`, `op`, `status`, `identity` ...
    #[serde(flatten)]
    pub detail: serde_json::Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn set(payload: &str, v: Value, id: Option<&str>) {
        let request = SetRequest::parse(payload.as_bytes()).unwrap();
        assert_eq!((request.v, request.id.as_deref()), (v, id));
    }

    #[test]
    fn a_set_is_a_scalar_or_an_object() {
        set("1", json!(1), None);
        set(" true\n", json!(true), None);
        set("21.5", json!(21.5), None);
        set("on", json!("on"), None);
        set("\"1\"", json!("1"), None);
        set("0:0:0", json!("0:0:0"), None);
        set(
            r#"{"v":1,"id":"c-42","timeout_ms":5000}"#,
            json!(1),
            Some("c-42"),
        );
        set(r#"{"v":{"r":1}}"#, json!({"r": 1}), None);
    }

    #[test]
    fn a_set_may_name_its_method() {
        let method = |payload: &str| SetRequest::parse(payload.as_bytes()).map(|set| set.method);
        assert_eq!(method("1"), Ok(SetMethod::Put));
        assert_eq!(method(r#"{"v":1}"#), Ok(SetMethod::Put));
        for (name, expected) in [
            ("put", SetMethod::Put),
            ("post", SetMethod::Post),
            ("patch", SetMethod::Patch),
            ("ipatch", SetMethod::IPatch),
            ("fetch", SetMethod::Fetch),
        ] {
            let payload = format!(r#"{{"v":1,"method":"{name}"}}"#);
            assert_eq!(method(&payload), Ok(expected));
        }
        let unknown = method(r#"{"v":1,"method":"delete"}"#);
        assert_eq!(unknown, Err(InvalidRequest::WrongShape));
    }

    #[test]
    fn rubbish_is_refused_by_name() {
        let error = |payload: &[u8]| SetRequest::parse(payload).unwrap_err();
        assert_eq!(error(b""), InvalidRequest::Empty);
        assert_eq!(error(b"\xff\xfe"), InvalidRequest::NotText);
        assert_eq!(error(b"{\"x\":1}"), InvalidRequest::WrongShape);
        assert_eq!(error(b"{\"v\":1"), InvalidRequest::WrongShape);
        assert_eq!(error(&vec![b'1'; MAX_REQUEST + 1]), InvalidRequest::TooLong);
        let long = json!({"v": 1, "id": "x".repeat(MAX_REQUEST_ID + 1)}).to_string();
        assert_eq!(error(long.as_bytes()), InvalidRequest::LongId);
        let nested = "[".repeat(MAX_REQUEST);
        assert!(SetRequest::parse(nested.as_bytes()).is_ok_and(|r| r.v.is_string()));
    }

    #[test]
    fn a_get_may_be_empty() {
        assert_eq!(PlainRequest::parse(b"").unwrap(), PlainRequest::default());
        assert_eq!(
            PlainRequest::parse(b"{\"id\":\"c\"}")
                .unwrap()
                .id
                .as_deref(),
            Some("c")
        );
        assert!(PlainRequest::parse(b"1").is_err());
    }

    #[test]
    fn payloads_are_written_as_the_contract_says() {
        let ts = Timestamp::from_unix_millis(0);
        let reading = Reading {
            v: json!(21.5),
            u: Some("°C".into()),
            ts,
            raw: None,
            ct: None,
        };
        assert_eq!(
            serde_json::to_value(&reading).unwrap(),
            json!({"v": 21.5, "u": "°C", "ts": "1970-01-01T00:00:00.000Z"})
        );
        let ack = Ack {
            id: None,
            op: "set".into(),
            status: AckStatus::Rejected,
            code: None,
            v: None,
            ms: 0,
            error: Some("the node is offline".into()),
        };
        assert_eq!(
            serde_json::to_value(&ack).unwrap(),
            json!({"id": null, "op": "set", "status": "rejected", "ms": 0, "error": "the node is offline"})
        );
    }
}
