//! The topic tree: one type for every topic of it, written and read in one place.

use std::fmt;

use crate::id::{BridgeId, NodeId, ResourceId};

/// Where the tree stands in the broker's topics; `nodebus/v1` unless configured.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Base(String);

/// Why a text can't be the base of the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} can't be the base of the topics: use levels of a-z, 0-9, _ and -, joined by /")]
pub struct InvalidBase(String);

impl Base {
    /// Takes one or more levels joined by `/`.
    ///
    /// # Errors
    /// A level is empty or holds a character that topics of this tree don't use.
    pub fn new(text: &str) -> Result<Self, InvalidBase> {
        if text.len() <= 128 && text.split('/').all(|level| NodeId::new(level).is_ok()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidBase(text.to_owned()))
        }
    }

    /// The base as it stands in topics, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A topic or a filter below the base.
    #[must_use]
    pub fn join(&self, rest: &str) -> String {
        format!("{}/{rest}", self.0)
    }

    /// The Topic Name of `topic`.
    #[must_use]
    pub fn topic(&self, topic: &Topic) -> String {
        format!("{}/{topic}", self.0)
    }

    /// Reads a Topic Name; none when it is not of this tree.
    #[must_use]
    pub fn parse(&self, name: &str) -> Option<Topic> {
        Topic::parse(name.strip_prefix(&self.0)?.strip_prefix('/')?)
    }
}

impl Default for Base {
    fn default() -> Self {
        Self("nodebus/v1".to_owned())
    }
}

impl std::str::FromStr for Base {
    type Err = InvalidBase;

    fn from_str(text: &str) -> Result<Self, InvalidBase> {
        Self::new(text)
    }
}

impl<'de> serde::Deserialize<'de> for Base {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// What can be asked of a node as a whole, on `nodes/<n>/cmd/<op>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeCommand {
    /// Ask the node for its resources again.
    Rediscover,
    /// Remove the node and every retained topic of it.
    Forget,
    /// See whether the node answers.
    Ping,
}

impl NodeCommand {
    /// The level `<op>`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rediscover => "rediscover",
            Self::Forget => "forget",
            Self::Ping => "ping",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Rediscover, Self::Forget, Self::Ping]
            .into_iter()
            .find(|op| op.as_str() == text)
    }
}

/// A topic of the tree, without its base.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// `bridges/<b>/status`, retained: [`BridgeStatus`](crate::payload::BridgeStatus).
    BridgeStatus(BridgeId),
    /// `nodes/<n>`, retained: [`Descriptor`](crate::payload::Descriptor).
    Node(NodeId),
    /// `nodes/<n>/status`, retained: [`NodeStatus`](crate::payload::NodeStatus).
    NodeStatus(NodeId),
    /// `nodes/<n>/resources`, retained: a list of [`Resource`](crate::payload::Resource).
    Resources(NodeId),
    /// `nodes/<n>/res/<r>`, retained: [`Reading`](crate::payload::Reading).
    Reading(NodeId, ResourceId),
    /// `nodes/<n>/res/<r>/set`: [`SetRequest`](crate::payload::SetRequest).
    Set(NodeId, ResourceId),
    /// `nodes/<n>/res/<r>/get`: [`PlainRequest`](crate::payload::PlainRequest).
    Get(NodeId, ResourceId),
    /// `nodes/<n>/res/<r>/ack`: [`Ack`](crate::payload::Ack).
    Ack(NodeId, ResourceId),
    /// `nodes/<n>/cmd/<op>`: [`PlainRequest`](crate::payload::PlainRequest).
    Command(NodeId, NodeCommand),
    /// `nodes/<n>/cmd/<op>/ack`: [`Ack`](crate::payload::Ack).
    CommandAck(NodeId, NodeCommand),
    /// `events`: [`Event`](crate::payload::Event).
    Events,
}

impl Topic {
    /// Reads a topic whose base was taken off; none when it is not of the tree.
    #[must_use]
    pub fn parse(rest: &str) -> Option<Self> {
        let mut levels = [""; 5];
        let mut n = 0;
        for level in rest.split('/') {
            *levels.get_mut(n)? = level;
            n += 1;
        }
        let node = |text| NodeId::new(text).ok();
        let resource = |text| ResourceId::new(text).ok();
        Some(match &levels[..n] {
            ["events"] => Self::Events,
            ["bridges", b, "status"] => Self::BridgeStatus(BridgeId::new(b).ok()?),
            ["nodes", n] => Self::Node(node(n)?),
            ["nodes", n, "status"] => Self::NodeStatus(node(n)?),
            ["nodes", n, "resources"] => Self::Resources(node(n)?),
            ["nodes", n, "res", r] => Self::Reading(node(n)?, resource(r)?),
            ["nodes", n, "res", r, "set"] => Self::Set(node(n)?, resource(r)?),
            ["nodes", n, "res", r, "get"] => Self::Get(node(n)?, resource(r)?),
            ["nodes", n, "res", r, "ack"] => Self::Ack(node(n)?, resource(r)?),
            ["nodes", n, "cmd", op] => Self::Command(node(n)?, NodeCommand::parse(op)?),
            ["nodes", n, "cmd", op, "ack"] => Self::CommandAck(node(n)?, NodeCommand::parse(op)?),
            _ => return None,
        })
    }

    /// The node that the topic is about, if any.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Node(n)
            | Self::NodeStatus(n)
            | Self::Resources(n)
            | Self::Reading(n, _)
            | Self::Set(n, _)
            | Self::Get(n, _)
            | Self::Ack(n, _)
            | Self::Command(n, _)
            | Self::CommandAck(n, _) => Some(n),
            Self::BridgeStatus(_) | Self::Events => None,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BridgeStatus(b) => write!(f, "bridges/{b}/status"),
            Self::Node(n) => write!(f, "nodes/{n}"),
            Self::NodeStatus(n) => write!(f, "nodes/{n}/status"),
            Self::Resources(n) => write!(f, "nodes/{n}/resources"),
            Self::Reading(n, r) => write!(f, "nodes/{n}/res/{r}"),
            Self::Set(n, r) => write!(f, "nodes/{n}/res/{r}/set"),
            Self::Get(n, r) => write!(f, "nodes/{n}/res/{r}/get"),
            Self::Ack(n, r) => write!(f, "nodes/{n}/res/{r}/ack"),
            Self::Command(n, op) => write!(f, "nodes/{n}/cmd/{}", op.as_str()),
            Self::CommandAck(n, op) => write!(f, "nodes/{n}/cmd/{}/ack", op.as_str()),
            Self::Events => f.write_str("events"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_reads_back_as_itself() {
        let base = Base::new("lab/iot").unwrap();
        for name in [
            "events",
            "bridges/coap/status",
            "nodes/n1",
            "nodes/n1/status",
            "nodes/n1/resources",
            "nodes/n1/res/led",
            "nodes/n1/res/led/set",
            "nodes/n1/res/led/get",
            "nodes/n1/res/led/ack",
            "nodes/n1/cmd/forget",
            "nodes/n1/cmd/ping/ack",
        ] {
            let topic = base
                .parse(&base.join(name))
                .unwrap_or_else(|| panic!("{name}"));
            assert_eq!(topic.to_string(), name);
        }
    }

    #[test]
    fn strangers_are_not_of_the_tree() {
        let base = Base::default();
        for name in [
            "",
            "nodebus/v1",
            "nodebus/v1/",
            "nodebus/v10/events",
            "nodebus/v1/nodes/N1",
            "nodebus/v1/nodes//status",
            "nodebus/v1/nodes/n1/res/led/set/x",
            "nodebus/v1/nodes/n1/cmd/reboot",
            "nodebus/v1/nodes/+/status",
            "other/v1/events",
        ] {
            assert_eq!(base.parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_base_has_no_wildcards_and_no_empty_levels() {
        for bad in ["", "/", "a/", "a/+", "a/#", "$SYS", "A"] {
            assert!(Base::new(bad).is_err(), "{bad}");
        }
    }
}
