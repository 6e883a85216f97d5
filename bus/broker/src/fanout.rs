//! The seam to what carries messages from publishers to the sessions that ask for them.
//!
//! It may bring a message that nobody of a session asked for, never lose one silently, and brings
//! the messages of a topic in order, each once. QoS, retained messages and everything else of MQTT
//! stay on this side of the seam.

pub(crate) mod router;

use std::pin::Pin;
use std::sync::Weak;

use crate::message::Message;

/// A future without a name, for traits that are used as objects.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The core has ended; nothing goes through it any more, and the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message core has ended: the supervisor restarts the process")]
pub(crate) struct Stopped;

/// Carries messages to links.
pub(crate) trait Fanout: Send + Sync {
    /// Hands over a message. Call it in the order of the messages' numbers.
    fn publish(&self, message: Message) -> Result<(), Stopped>;

    /// Makes a link that delivers to `sink` as long as that lives.
    fn attach(&self, sink: Weak<dyn Sink>) -> Box<dyn Link>;

    /// Whether publishers should wait before they hand over more.
    fn is_congested(&self) -> bool;

    /// Completes when the congestion is over, or after a moment at most. Cancel safe.
    fn relieved(&self) -> Pending<'_, ()>;
}

/// What one session asks of the fan-out. Dropping it detaches.
pub(crate) trait Link: Send + Sync {
    /// Asks for a valid Topic Filter. Once this completes, no later message is missed.
    fn subscribe<'a>(&'a self, filter: &'a str) -> Pending<'a, Result<(), Stopped>>;

    /// Asks for it no more, one time.
    fn unsubscribe(&self, filter: &str) -> Result<(), Stopped>;
}

/// Where a link delivers. It must not wait for a client.
pub(crate) trait Sink: Send + Sync {
    /// Takes messages, oldest first.
    fn deliver(&self, messages: &[Message]);
}
