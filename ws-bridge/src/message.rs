//! The JSON of both directions: from untrusted text to types, and what is sent to nodes.

use bus::bridge::Uid;
use serde_json::{Map, Value, json};

/// How many members an update may have.
pub(crate) const MAX_MEMBERS: usize = 64;

/// The longest name of a resource, in bytes.
pub(crate) const MAX_PATH: usize = 128;

/// What a node says.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// Its name; before its first update.
    Hello(Uid),
    /// Values of its resources.
    Update(Map<String, Value>),
    /// `new`, `out` and `reset`: Pyaiot's gateway took them and did nothing, and its test node
    /// sends `new`.
    Other,
}

/// Why a message is not taken. The text is the reason of the close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("send text messages, not binary ones")]
    Binary,
    #[error("the message is not JSON")]
    NotJson,
    #[error("the message is not an object with a \"type\"")]
    NoType,
    #[error("the type is none of update, hello")]
    UnknownType,
    #[error("an update needs \"data\", an object from resource to value")]
    NoData,
    #[error("an update has at most {MAX_MEMBERS} members")]
    TooManyMembers,
    #[error("a resource's name is 1 to {MAX_PATH} bytes without control characters")]
    BadPath,
    #[error("a hello needs \"uid\", 1 to 128 bytes of text without control characters")]
    BadUid,
    #[error("a hello comes once, before the first update")]
    LateHello,
    #[error("a node has at most {} resources", crate::node::MAX_RESOURCES)]
    TooManyResources,
}

fn is_path(text: &str) -> bool {
    (1..=MAX_PATH).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl Message {
    /// Reads a text message; members it doesn't know are ignored.
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let Value::Object(mut object) = serde_json::from_str(text).map_err(|_| Invalid::NotJson)?
        else {
            return Err(Invalid::NoType);
        };
        match object.get("type").and_then(Value::as_str) {
            Some("update") => Self::update(object.remove("data")),
            Some("hello") => {
                let uid = object.get("uid").and_then(Value::as_str);
                let uid = uid.and_then(|uid| Uid::new(uid).ok());
                uid.map(Self::Hello).ok_or(Invalid::BadUid)
            }
            Some("new" | "out" | "reset") => Ok(Self::Other),
            Some(_) => Err(Invalid::UnknownType),
            None => Err(Invalid::NoType),
        }
    }

    fn update(data: Option<Value>) -> Result<Self, Invalid> {
        let Some(Value::Object(data)) = data else {
            return Err(Invalid::NoData);
        };
        if data.len() > MAX_MEMBERS {
            return Err(Invalid::TooManyMembers);
        }
        if !data.keys().all(|path| is_path(path)) {
            return Err(Invalid::BadPath);
        }
        Ok(Self::Update(data))
    }
}

/// Asks a node for all its values.
pub(crate) fn discover() -> String {
    json!({"request": "discover"}).to_string()
}

/// Writes a resource of a node.
pub(crate) fn write(path: &str, value: &Value) -> String {
    json!({"endpoint": path, "payload": value}).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn refused(text: &str, why: Invalid) {
        assert_eq!(Message::parse(text), Err(why), "{text:.80}");
    }

    #[test]
    fn what_nodes_say_is_read() {
        let update = Message::parse(r#"{"type":"update","data":{"led":"0","t":21.5},"x":1}"#);
        let Ok(Message::Update(data)) = update else {
            panic!("{update:?}");
        };
        assert_eq!(data["led"], json!("0"));
        assert_eq!(data["t"], json!(21.5));
        assert_eq!(
            Message::parse(r#"{"type":"hello","uid":"bench 3"}"#),
            Ok(Message::Hello(Uid::new("bench 3").unwrap()))
        );
        assert_eq!(
            Message::parse(r#"{"type":"new","data":"node"}"#),
            Ok(Message::Other)
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        refused("", Invalid::NotJson);
        refused("{", Invalid::NotJson);
        refused(&"[".repeat(10_000), Invalid::NotJson);
        refused("[]", Invalid::NoType);
        refused(r#"["update",{"led":1}]"#, Invalid::NoType);
        refused("1", Invalid::NoType);
        refused("{}", Invalid::NoType);
        refused(r#"{"type":1}"#, Invalid::NoType);
        refused(r#"{"type":"reboot"}"#, Invalid::UnknownType);
        refused(r#"{"type":"update"}"#, Invalid::NoData);
        refused(r#"{"type":"update","data":[1]}"#, Invalid::NoData);
        refused(r#"{"type":"update","data":{"":1}}"#, Invalid::BadPath);
        refused(r#"{"type":"update","data":{"a\nb":1}}"#, Invalid::BadPath);
        let long = json!({"type": "update", "data": {"x".repeat(MAX_PATH + 1): 1}});
        refused(&long.to_string(), Invalid::BadPath);
        let members: Map<_, _> = (0..=MAX_MEMBERS)
            .map(|n| (n.to_string(), json!(n)))
            .collect();
        let many = json!({"type": "update", "data": members});
        refused(&many.to_string(), Invalid::TooManyMembers);
        refused(r#"{"type":"hello"}"#, Invalid::BadUid);
        refused(r#"{"type":"hello","uid":7}"#, Invalid::BadUid);
        refused(r#"{"type":"hello","uid":""}"#, Invalid::BadUid);
    }

    #[test]
    fn a_write_is_as_pyaiots_nodes_expect_it() {
        let text = write("led", &json!("1"));
        assert_eq!(text, r#"{"endpoint":"led","payload":"1"}"#);
        assert_eq!(discover(), r#"{"request":"discover"}"#);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            drop(Message::parse(&text));
        }

        #[test]
        fn no_object_panics(kind in "update|hello|new|x", inner in "[\\[\\]{}\",:0-9a-z]*") {
            drop(Message::parse(&format!(r#"{{"type":"{kind}","data":{inner}}}"#)));
        }
    }
}
