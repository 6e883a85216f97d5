//! One network connection of an MQTT 5 client, without IO.
//!
//! Feed what came to [`Connection::handle_data`], then take [`Connection::poll_event`] until there
//! is none; write [`Connection::transmit`] and tell [`Connection::handle_transmitted`] how much of
//! it went out; call [`Connection::handle_timeout`] at [`Connection::poll_timeout`]. Time never goes
//! back. After an error there is nothing left to do but to close the network connection.
//!
//! Deviation: anything that comes in is a sign of life, not only PINGRESP, which may be late behind a
//! great many messages. A PUBACK for what was not sent is passed on, for the outbox to ignore.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter, Packet, PacketType,
    PingReq, PubAck, PubAckReason, Publish, SubAck, Subscribe, SubscribeReasonCode, Unsubscribe,
    check,
};
use rumqttc::v5::mqttbytes::{self, QoS};

use super::error::ConnectionError;
use super::outbox::{LAST_ID, Outbox};
use super::wire::{self, KEEP_ALIVE, MAX_PACKET, TooLarge, write_publish};
use super::{Message, SessionConfig};

/// Unacknowledged publications on the wire, if the broker takes as many.
const MAX_IN_FLIGHT: u16 = 8192;
/// Publications are added to what waits to be written up to here.
const OUTPUT: usize = 64 * 1024;
/// The largest PUBLISH that is sent, if the broker takes as much.
const MAX_PUBLISH: u32 = 16 * 1024 * 1024;
/// What waits to be written never gets here, with the acknowledgements of as many messages as the
/// broker may send before it reads some.
const MAX_OUTPUT: usize = OUTPUT + MAX_PUBLISH as usize + 4 * (u16::MAX as usize + 1);
/// Subscriptions and their ends that are not acknowledged; further ones wait with the owner.
const MAX_ASKED: usize = 1024;

/// What a connection tells its owner.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// The broker has taken the connection; nothing else comes before this.
    Connected,
    /// A message came; its PUBACK is on its way.
    Message(Message),
    /// The broker answered for the publication with this Packet Identifier.
    Acknowledged(u16, PubAckReason),
    /// The broker does not serve this Topic Filter.
    Unserved(String, SubscribeReasonCode),
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// CONNACK is to come until then.
    Opening(Instant),
    Open,
    /// DISCONNECT is the last packet, and is to be gone until then.
    Leaving(Instant),
}

/// The machine.
#[derive(Debug)]
pub(super) struct Connection {
    phase: Phase,
    input: BytesMut,
    output: BytesMut,
    /// The broker's Receive Maximum, or fewer.
    receive_maximum: u16,
    /// The broker's Maximum Packet Size, or less.
    max_packet: u32,
    keep_alive: Duration,
    /// When something last went out.
    sent: Instant,
    /// When something last came in, or could have.
    heard: Instant,
    /// A PINGREQ is out since then, and nothing has come in.
    pinged: Option<Instant>,
    /// What comes in is taken.
    is_reading: bool,
    /// Subscriptions, and ends of such, without their acknowledgement: Packet Identifier and filter.
    asked: VecDeque<(u16, String)>,
    last_id: u16,
}

impl Connection {
    /// Begins with CONNECT; the broker is to answer until `deadline`.
    pub(super) fn new(config: &SessionConfig, deadline: Instant, now: Instant) -> Self {
        let mut this = Self {
            phase: Phase::Opening(deadline),
            input: BytesMut::new(),
            output: BytesMut::new(),
            receive_maximum: 0,
            max_packet: MAX_PUBLISH,
            keep_alive: Duration::from_secs(KEEP_ALIVE.into()),
            sent: now,
            heard: now,
            pinged: None,
            is_reading: true,
            asked: VecDeque::new(),
            last_id: LAST_ID,
        };
        this.write(&wire::connect(config));
        this
    }

    /// Takes bytes that came in. To be called once [`Connection::poll_event`] gives nothing more.
    pub(super) fn handle_data(&mut self, bytes: &[u8], now: Instant) {
        self.input.extend_from_slice(bytes);
        self.heard = now;
        self.pinged = None;
    }

    /// What happened next; none until more comes in.
    ///
    /// # Errors
    /// The broker refused or ended the connection, or sent what it may not.
    pub(super) fn poll_event(&mut self) -> Result<Option<Event>, ConnectionError> {
        while let Some(packet) = self.read()? {
            let event = match (self.phase, packet) {
                (Phase::Opening(_), Packet::ConnAck(ack)) => self.handle_connack(ack)?,
                (Phase::Opening(_), _) => {
                    return Err(ConnectionError::Violation("something before CONNACK"));
                }
                (_, Packet::Publish(publish)) => self.handle_publish(publish)?,
                (_, Packet::PubAck(ack)) => Some(Event::Acknowledged(ack.pkid, ack.reason)),
                (_, Packet::SubAck(ack)) => self.handle_suback(&ack),
                (_, Packet::UnsubAck(ack)) => {
                    self.asked.retain(|(id, _)| *id != ack.pkid);
                    None
                }
                (_, Packet::PingResp(_)) => None,
                (_, _) => {
                    return Err(ConnectionError::Violation(
                        "a packet that has no place here",
                    ));
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// The next whole packet.
    fn read(&mut self) -> Result<Option<Packet>, ConnectionError> {
        let header = match check(self.input.iter(), Some(MAX_PACKET)) {
            Ok(header) => header,
            Err(mqttbytes::Error::InsufficientBytes(_)) => return Ok(None),
            Err(error) => return Err(ConnectionError::Malformed(error)),
        };
        let mut packet = self.input.split_to(header.frame_length());
        match header.packet_type() {
            Ok(PacketType::Disconnect) => return Err(disconnected(body(&packet))),
            // Before MQTT 5 it had no Properties.
            Ok(PacketType::ConnAck) if body(&packet).len() == 2 => {
                return Err(ConnectionError::OldMqtt);
            }
            Ok(_) | Err(_) => {}
        }
        // The packet is whole: that bytes are missing is an error here.
        let packet = Packet::read(&mut packet, None);
        packet.map(Some).map_err(ConnectionError::Malformed)
    }

    fn handle_connack(&mut self, ack: ConnAck) -> Result<Option<Event>, ConnectionError> {
        if ack.code != ConnectReturnCode::Success {
            return Err(ConnectionError::Refused(ack.code));
        }
        let mut receive_maximum = u16::MAX;
        if let Some(properties) = ack.properties {
            if properties.max_qos == Some(0) {
                return Err(ConnectionError::Unfit("takes no QoS 1"));
            }
            if properties.retain_available == Some(0) {
                return Err(ConnectionError::Unfit("keeps no retained messages"));
            }
            receive_maximum = properties.receive_max.unwrap_or(u16::MAX);
            let max_packet = properties.max_packet_size.unwrap_or(u32::MAX);
            self.max_packet = max_packet.min(MAX_PUBLISH);
            if receive_maximum == 0 || max_packet == 0 {
                return Err(ConnectionError::Violation("a limit of 0 in CONNACK"));
            }
            match properties.server_keep_alive {
                None | Some(0) => {}
                Some(seconds) => {
                    self.keep_alive = Duration::from_secs(seconds.min(KEEP_ALIVE).into())
                }
            }
        }
        self.receive_maximum = receive_maximum.min(MAX_IN_FLIGHT);
        self.phase = Phase::Open;
        Ok(Some(Event::Connected))
    }

    fn handle_publish(&mut self, publish: Publish) -> Result<Option<Event>, ConnectionError> {
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.write(&Packet::PubAck(PubAck::new(publish.pkid, None))),
            QoS::ExactlyOnce => {
                return Err(ConnectionError::Violation("a message of QoS 2 unasked"));
            }
        }
        if self.output.len() > MAX_OUTPUT {
            return Err(ConnectionError::Deaf);
        }
        Ok(wire::message(publish).map(Event::Message))
    }

    fn handle_suback(&mut self, ack: &SubAck) -> Option<Event> {
        let at = self.asked.iter().position(|(id, _)| *id == ack.pkid)?;
        let (_, filter) = self.asked.remove(at)?;
        match ack.return_codes.first()? {
            SubscribeReasonCode::Success(_) => None,
            refused => Some(Event::Unserved(filter, *refused)),
        }
    }

    /// Whether there is room for [`Connection::subscribe`] and [`Connection::unsubscribe`].
    pub(super) fn can_ask(&self) -> bool {
        matches!(self.phase, Phase::Open) && self.asked.len() < MAX_ASKED && !self.is_full()
    }

    /// Asks for the messages of a Topic Filter, with QoS 1. One packet each, so that the broker takes
    /// them in order.
    pub(super) fn subscribe(&mut self, filter: &str) {
        let mut packet = Subscribe::new(Filter::new(filter, QoS::AtLeastOnce), None);
        packet.pkid = self.ask(filter);
        self.write(&Packet::Subscribe(packet));
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&mut self, filter: &str) {
        let mut packet = Unsubscribe::new(filter, None);
        packet.pkid = self.ask(filter);
        self.write(&Packet::Unsubscribe(packet));
    }

    /// A Packet Identifier of those that no publication gets.
    fn ask(&mut self, filter: &str) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(LAST_ID + 1);
        self.asked.push_back((self.last_id, filter.to_owned()));
        self.last_id
    }

    /// Whether enough waits to be written.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT
    }

    /// Puts about `bytes` of publications into what is to be written; gives those that the broker
    /// can't take.
    pub(super) fn publish(&mut self, outbox: &mut Outbox, bytes: usize) -> Vec<String> {
        let mut refused = Vec::new();
        if !matches!(self.phase, Phase::Open) {
            return refused;
        }
        let end = OUTPUT.min(self.output.len() + bytes);
        while self.output.len() < end
            && let Some((id, publication)) = outbox.to_send(self.receive_maximum)
        {
            match write_publish(&mut self.output, id, publication, self.max_packet) {
                Ok(()) => outbox.handle_sent(),
                Err(TooLarge) => refused.extend(outbox.refuse().map(|refused| refused.topic)),
            }
        }
        refused
    }

    /// Leaves, so that the Will stays silent; nothing is sent after it.
    pub(super) fn disconnect(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Open) {
            let reason = DisconnectReasonCode::NormalDisconnection;
            self.write(&Packet::Disconnect(Disconnect::new(reason)));
            self.phase = Phase::Leaving(now + self.keep_alive);
        }
    }

    /// Whether DISCONNECT is written, and the network connection is to be closed.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_)) && self.output.is_empty()
    }

    /// What is to be written now.
    pub(super) fn transmit(&self) -> &[u8] {
        &self.output
    }

    /// So many bytes of [`Connection::transmit`] are written.
    pub(super) fn handle_transmitted(&mut self, count: usize, now: Instant) {
        self.output.advance(count.min(self.output.len()));
        self.sent = now;
    }

    /// Says whether what comes in is taken. While it is not, the broker's silence means nothing.
    pub(super) fn set_reading(&mut self, is_reading: bool, now: Instant) {
        if is_reading && !self.is_reading {
            self.heard = now;
            self.pinged = None;
        }
        self.is_reading = is_reading;
    }

    /// When [`Connection::handle_timeout`] is to be called; none while nothing is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match (self.phase, self.pinged) {
            (Phase::Opening(until) | Phase::Leaving(until), _) => Some(until),
            (Phase::Open, Some(pinged)) => self.is_reading.then(|| pinged + self.keep_alive),
            (Phase::Open, None) if self.is_reading => {
                Some(self.sent.min(self.heard) + self.keep_alive)
            }
            (Phase::Open, None) => Some(self.sent + self.keep_alive),
        }
    }

    /// Asks the broker for a sign of life when it is time (MQTT 5 section 3.1.2.10).
    ///
    /// # Errors
    /// The broker is silent for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return Ok(());
        }
        match (self.phase, self.pinged) {
            (Phase::Opening(_), _) => Err(ConnectionError::Unanswered),
            (Phase::Leaving(_), _) => Err(ConnectionError::Deaf),
            (Phase::Open, Some(_)) => Err(ConnectionError::Silent(self.keep_alive.as_secs())),
            (Phase::Open, None) => {
                self.write(&Packet::PingReq(PingReq));
                self.pinged = Some(now);
                Ok(())
            }
        }
    }

    /// Writes one of our own small packets; after DISCONNECT there are none.
    fn write(&mut self, packet: &Packet) {
        if matches!(self.phase, Phase::Leaving(_)) {
            return;
        }
        if let Err(error) = packet.write(&mut self.output, None) {
            tracing::error!(%error, "a packet could not be written");
        }
    }
}

/// What of a whole packet comes after the fixed header.
fn body(packet: &[u8]) -> &[u8] {
    let length = packet.iter().skip(1).take_while(|byte| **byte >= 0x80);
    packet.get(2 + length.count()..).unwrap_or_default()
}

/// The meaning of a DISCONNECT; without a Reason Code it is normal (MQTT 5 section 3.14.2.1).
fn disconnected(body: &[u8]) -> ConnectionError {
    match body.first().copied().unwrap_or_default().try_into() {
        Ok(reason) => ConnectionError::Disconnected(reason),
        Err(error) => ConnectionError::Malformed(error),
    }
}

#[cfg(test)]
mod tests;
