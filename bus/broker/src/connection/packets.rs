//! What each packet of a client does: checked against its access, then done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::time::now;
use bytes::BytesMut;

use super::End;
use super::held::{Answer, Held};
use crate::acl::Access;
use crate::broker::Broker;
use crate::events::Refusal;
use crate::exchange::{ExchangeError, Flow};
use crate::identity::{Identity, Proof};
use crate::limits::Presence;
use crate::message::{Draft, Parts};
use crate::session::Session;
use crate::sessions::Handle;
use crate::store::{Outcome, Ticket, Writes};
use crate::topic;
use crate::will;
use crate::wire::{self, Acknowledgement, Packet, Publish, Qos, Reason, Version, Will};
use bus::rate::Meter;

/// DISCONNECT with Will Message (MQTT 5 section 3.14.2.1).
const WITH_WILL: u8 = 0x04;
/// Packet Identifier not found (MQTT 5 section 3.7.2.1).
const NOT_FOUND: u8 = 0x92;

/// A client that got its CONNACK.
pub(super) struct Client {
    pub(super) broker: Arc<Broker>,
    /// `role:name`.
    pub(super) who: String,
    pub(super) identity: Identity,
    pub(super) proof: Proof,
    /// It counts among the clients of its name.
    pub(super) presence: Option<Presence>,
    /// The rules under which it was last looked at.
    pub(super) generation: u64,
    pub(super) access: Access,
    pub(super) client_id: String,
    /// What the registry of sessions knows it by.
    pub(super) session_key: String,
    pub(super) version: Version,
    /// The largest packet that it takes, bytes.
    pub(super) maximum_packet: u32,
    /// It wants Reason Strings in all packets (MQTT-3.1.2-29).
    pub(super) wants_reasons: bool,
    pub(super) handle: Arc<Handle>,
    pub(super) epoch: u64,
    pub(super) will: Option<Will>,
    pub(super) keep_alive: Option<Duration>,
    /// Topic aliases that the client set; bounded by the Topic Alias Maximum it was told.
    pub(super) aliases: HashMap<u16, String>,
    /// Acknowledgements that wait for the store.
    pub(super) held: Held,
    /// What the session is to send next waits for the store.
    pub(super) is_held: bool,
    /// CONNECT asked for a session that outlives the connection.
    pub(super) is_session_kept: bool,
    /// What it published, against `publish_rate`.
    pub(super) published: Meter,
    /// It published faster than it may: until then nothing more is read from it.
    pub(super) slowed: Option<Instant>,
}

impl Client {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Session) -> T) -> Result<T, End> {
        let done = self.handle.with(self.epoch, work);
        done.ok_or(End::Ended(Reason::SessionTakenOver))
    }

    pub(super) fn refused(&self, kind: &'static str, what: &str) {
        let refusal = Refusal {
            kind,
            who: &self.who,
            what,
        };
        self.broker.refuse(&refusal, now());
    }

    pub(super) async fn handle_packet(
        &mut self,
        packet: Packet,
        out: &mut BytesMut,
    ) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => {
                // Before and not after: what many publish at once must find room too.
                let fanout = self.broker.exchange.fanout();
                if fanout.is_congested() {
                    fanout.relieved().await;
                }
                self.publish(publish, out)
            }
            Packet::Puback { pid } => self.with(|session| session.handle_puback(pid)),
            Packet::Pubrec { pid, failed } => {
                self.with(|session| session.handle_pubrec(pid, failed, out))
            }
            Packet::Pubcomp { pid } => self.with(|session| session.handle_pubcomp(pid)),
            Packet::Pubrel { pid } => self.pubrel(pid, out),
            Packet::Subscribe { pid, id, filters } => self.subscribe(pid, id, filters, out).await,
            Packet::Unsubscribe { pid, filters } => self.unsubscribe(pid, &filters, out),
            Packet::Pingreq => {
                wire::pingresp(out);
                Ok(())
            }
            Packet::Disconnect {
                reason,
                session_expiry,
            } => Err(self.disconnect(reason, session_expiry)),
            // MQTT-3.1.0-2
            Packet::Connect(_) => Err(End::Refused(Reason::ProtocolError)),
        }
    }

    /// The largest acknowledgement that may carry a Reason String, bytes.
    pub(super) fn room(&self) -> u32 {
        if self.wants_reasons {
            self.maximum_packet
        } else {
            0
        }
    }

    fn acknowledge(&self, out: &mut BytesMut, kind: Acknowledgement, pid: u16, reason: u8) {
        wire::acknowledgement(out, self.version, kind, pid, reason);
    }

    /// Puts the topic of a topic alias in place (MQTT 5 section 3.3.2.3.4).
    fn resolve(&mut self, publish: &mut Publish) -> Result<(), End> {
        let Some(alias) = publish.alias else {
            return Ok(());
        };
        if alias == 0 || alias > self.broker.limits.topic_aliases {
            return Err(End::Refused(Reason::TopicAliasInvalid));
        }
        if publish.topic.is_empty() {
            let known = self.aliases.get(&alias);
            let known = known.ok_or(End::Refused(Reason::ProtocolError))?;
            publish.topic.clone_from(known);
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    fn publish(&mut self, mut publish: Publish, out: &mut BytesMut) -> Result<(), End> {
        self.resolve(&mut publish)?;
        if !topic::is_topic_name(&publish.topic) {
            return Err(End::Refused(Reason::TopicNameInvalid));
        }
        self.broker.metrics.received.inc();
        self.pace();
        let pid = publish.pid;
        if publish.qos == Qos::ExactlyOnce && !self.with(|session| session.handle_qos2(pid))? {
            // Behind the acknowledgement of its first PUBLISH.
            let again = Answer::publish(publish.qos, pid, None);
            return self.answer(Ticket::default(), again, out);
        }
        let handed_over = if publish.topic.starts_with('$') {
            self.broker.metrics.refused("reserved_topic");
            match self.version {
                // Nobody gets it, and the client goes on (MQTT-3.3.5-2, section 4.7.2).
                Version::V4 => Ok(Ticket::default()),
                Version::V5 => Err(Reason::TopicNameInvalid),
            }
        } else if !topic::is_bounded(&publish.topic) {
            self.broker.metrics.refused("topic_levels");
            Err(Reason::TopicNameInvalid)
        } else if self.access.may_publish(&publish.topic) {
            self.hand_over(&publish)?
        } else {
            self.refused("publish", &publish.topic);
            Err(Reason::NotAuthorized)
        };
        let answer = Answer::publish(publish.qos, pid, handed_over.err());
        self.answer(handed_over.unwrap_or_default(), answer, out)
    }

    /// Counts a message against the publish rate. The one that is too many is taken all the same,
    /// and nothing after it is read until the rate allows one more: whoever publishes too fast is
    /// held up by its own socket, loses nothing, and no version of MQTT has to say so.
    fn pace(&mut self) {
        let Some(rate) = self.broker.limits.publish_rate() else {
            return;
        };
        let now = now().mono;
        self.published.count(&rate, now);
        self.slowed = self.published.blocked_until(&rate, now);
        if self.slowed.is_some() {
            self.broker.metrics.slowed.inc();
        }
    }

    fn hand_over(&mut self, publish: &Publish) -> Result<Result<Ticket, Reason>, End> {
        let draft = Draft::new(&Parts {
            topic: &publish.topic,
            payload: publish.payload.as_slice(),
            qos: publish.qos,
            retain: publish.retain,
            origin: self.handle.number(),
            expires: publish.expiry.map(|seconds| will::expires(seconds, now())),
            properties: &publish.properties,
        });
        let flow = match self.handle.kept() {
            Some(session) if publish.qos == Qos::ExactlyOnce => Some(Flow {
                session,
                pid: publish.pid,
            }),
            _ => None,
        };
        match self.broker.exchange.publish_as(draft, flow) {
            Ok(ticket) => Ok(Ok(ticket)),
            Err(ExchangeError::RetainedFull) => {
                self.broker.metrics.refused("retained");
                Ok(Err(Reason::QuotaExceeded))
            }
            Err(ExchangeError::Unstorable) => {
                self.broker.metrics.refused("unstorable");
                Ok(Err(Reason::QuotaExceeded))
            }
            Err(ExchangeError::Stopped(_)) => Err(End::Ended(Reason::ServerUnavailable)),
        }
    }

    /// Ends the flow of a QoS 2 message, once it is stored that its Packet Identifier is free: the
    /// client may use it for another then.
    fn pubrel(&mut self, pid: u16, out: &mut BytesMut) -> Result<(), End> {
        let is_known = self.with(|session| session.handle_pubrel(pid))?;
        let reason = if is_known { 0 } else { NOT_FOUND };
        let mut pubcomp = BytesMut::new();
        self.acknowledge(&mut pubcomp, Acknowledgement::Pubcomp, pid, reason);
        let ticket = if is_known {
            self.free(pid)
        } else {
            Ticket::default()
        };
        self.answer(ticket, Answer::Packet(pubcomp), out)
    }

    /// Stores that a kept session waits for PUBREL no more.
    fn free(&self, pid: u16) -> Ticket {
        let mut writes = Writes::default();
        if let Some(number) = self.handle.kept() {
            writes.release(number, pid);
        }
        self.broker.store.write(writes)
    }

    /// Acknowledges a PUBLISH once its write is stored, or refuses it.
    pub(super) fn answer(
        &mut self,
        ticket: Ticket,
        answer: Answer,
        out: &mut BytesMut,
    ) -> Result<(), End> {
        let must_wait = self.held.is_waiting() || ticket != Ticket::default();
        // With QoS 0 nothing is promised.
        if must_wait && !answer.is_nothing() {
            self.held.push(&self.broker.store, ticket, answer);
            return Ok(());
        }
        self.write_answer(answer, out)
    }

    /// Writes the acknowledgements whose writes are stored, and the refusals of those that failed.
    pub(super) fn release(&mut self, out: &mut BytesMut) -> Result<(), End> {
        while let Some((mut answer, outcome)) = self.held.pop() {
            if outcome == Outcome::Failed {
                self.broker.metrics.refused("unstorable");
                match &mut answer {
                    Answer::Publish { refused, .. } => {
                        refused.get_or_insert(Reason::QuotaExceeded);
                    }
                    Answer::Packet(_) => return Err(End::Ended(Reason::QuotaExceeded)),
                }
            }
            self.write_answer(answer, out)?;
        }
        Ok(())
    }

    /// Acknowledges a PUBLISH, or refuses it as far as the client's MQTT has a word for that.
    fn write_answer(&self, answer: Answer, out: &mut BytesMut) -> Result<(), End> {
        let (qos, pid, refused) = match answer {
            Answer::Publish { qos, pid, refused } => (qos, pid, refused),
            Answer::Packet(packet) => {
                out.extend_from_slice(&packet);
                return Ok(());
            }
        };
        if let (Some(reason), Version::V4) = (refused, self.version) {
            return Err(End::Ended(reason));
        }
        let kind = match qos {
            Qos::AtMostOnce => return Ok(()),
            Qos::AtLeastOnce => Acknowledgement::Puback,
            Qos::ExactlyOnce => Acknowledgement::Pubrec,
        };
        match refused {
            None => self.acknowledge(out, kind, pid, 0),
            Some(reason) => {
                if qos == Qos::ExactlyOnce {
                    self.with(|session| session.refuse_qos2(pid))?;
                    self.free(pid);
                }
                wire::refusal(out, kind, pid, reason, self.room());
            }
        }
        Ok(())
    }

    fn disconnect(&self, reason: u8, session_expiry: Option<u32>) -> End {
        if let Some(seconds) = session_expiry {
            // A session that was to end can't be kept after all (MQTT-3.14.2-2).
            if seconds > 0 && !self.is_session_kept {
                return End::Refused(Reason::ProtocolError);
            }
            let expiry = self.broker.session_expiry(seconds);
            let sessions = &self.broker.sessions;
            sessions.set_expiry(&self.session_key, self.epoch, expiry);
        }
        End::Goodbye {
            with_will: reason == WITH_WILL,
        }
    }

    /// Lets go of the session, and deals with the Will.
    pub(super) fn close(&mut self, end: &End) {
        let will = match end {
            End::Goodbye { with_will: false } => None,
            _ => self.will.take(),
        };
        self.presence = None;
        let now = now();
        let sessions = &self.broker.sessions;
        let due = sessions.close(&self.session_key, &self.handle, self.epoch, will, now);
        if let Some(will) = due {
            self.broker.publish_will(will, self.handle.number(), now);
        }
    }
}
