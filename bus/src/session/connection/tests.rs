//! The machine against a broker of a few lines, whose packets rumqttc reads and writes, in virtual
//! time.

mod keep_alive;
mod simulation;

use proptest::prelude::*;
use rumqttc::v5::mqttbytes::v5::{ConnAckProperties, PingResp, SubAck, UnsubAck, UnsubAckReason};

use super::*;
use crate::session::error::in_words;
use crate::session::{BusUrl, Publication, Qos};
use crate::time::now;

const SECOND: Duration = Duration::from_secs(1);
const ALIVE: Duration = Duration::from_secs(KEEP_ALIVE as u64);

fn config() -> SessionConfig {
    SessionConfig::new(BusUrl::default(), "pki".into(), "coap".to_owned())
}

fn publication(n: usize) -> Publication {
    Publication::passing(format!("t/{n}"), n.to_string())
}

fn bytes(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).unwrap();
    bytes
}

fn connack(code: ConnectReturnCode, properties: Option<ConnAckProperties>) -> Packet {
    Packet::ConnAck(ConnAck {
        session_present: false,
        code,
        properties,
    })
}

/// Properties of a CONNACK without any of them.
fn properties() -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

fn publish(qos: QoS, pkid: u16, payload: &str) -> Packet {
    let mut publish = Publish::new("in", qos, payload.to_owned(), None);
    publish.pkid = pkid;
    Packet::Publish(publish)
}

/// A connection, its outbox and its time.
struct Rig {
    connection: Connection,
    outbox: Outbox,
    now: Instant,
}

impl Rig {
    fn opening() -> Self {
        let now = now().mono;
        Self {
            connection: Connection::new(&config(), now + 10 * SECOND, now),
            outbox: Outbox::default(),
            now,
        }
    }

    /// Connected, with CONNECT read.
    fn open(properties: Option<ConnAckProperties>) -> Self {
        let mut this = Self::opening();
        this.sent();
        let event = this.hear(&connack(ConnectReturnCode::Success, properties));
        assert_eq!(event.unwrap(), Some(Event::Connected));
        this
    }

    fn hear(&mut self, packet: &Packet) -> Result<Option<Event>, ConnectionError> {
        self.hear_bytes(&bytes(packet))
    }

    fn hear_bytes(&mut self, bytes: &[u8]) -> Result<Option<Event>, ConnectionError> {
        self.connection.handle_data(bytes, self.now);
        self.connection.poll_event()
    }

    /// Everything that is to be written, read by the broker.
    fn sent(&mut self) -> Vec<Packet> {
        let mut bytes = BytesMut::from(self.connection.transmit());
        self.connection.handle_transmitted(bytes.len(), self.now);
        let mut packets = Vec::new();
        while !bytes.is_empty() {
            // rumqttc does not read the short form.
            packets.push(match &bytes[..] {
                [0xe0, 0] => {
                    bytes.clear();
                    Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection))
                }
                _ => Packet::read(&mut bytes, None).unwrap(),
            });
        }
        packets
    }

    fn push(&mut self, count: usize) {
        for n in 0..count {
            self.outbox.push(publication(n)).unwrap();
        }
    }

    fn publish(&mut self) -> Vec<String> {
        self.connection.publish(&mut self.outbox, usize::MAX / 2)
    }

    /// The Packet Identifiers of what is published now.
    fn published(&mut self) -> Vec<u16> {
        self.publish();
        let packets = self.sent().into_iter();
        let ids = packets.filter_map(|packet| match packet {
            Packet::Publish(publish) => Some(publish.pkid),
            _ => None,
        });
        ids.collect()
    }

    /// Lets time pass up to the next deadline, which is so far away.
    fn sleep(&mut self, expected: Duration) -> Result<(), ConnectionError> {
        let due = self.connection.poll_timeout().unwrap();
        assert_eq!(due - self.now, expected);
        self.now = due;
        self.connection.handle_timeout(self.now)
    }
}

fn words(result: Result<Option<Event>, ConnectionError>) -> String {
    in_words(&result.unwrap_err())
}

#[test]
fn it_begins_with_connect_and_waits_for_connack() {
    let mut rig = Rig::opening();
    let mut config = config();
    config.will = Some(Publication::retained("gone".to_owned(), "x"));
    rig.connection = Connection::new(&config, rig.now + 10 * SECOND, rig.now);
    let packets = rig.sent();
    let [Packet::Connect(connect, Some(will), None)] = &packets[..] else {
        panic!("{packets:?}");
    };
    assert_eq!(
        (connect.client_id.as_str(), connect.keep_alive),
        ("coap", KEEP_ALIVE)
    );
    assert!(connect.clean_start);
    assert_eq!(
        (&will.topic[..], &will.message[..]),
        (&b"gone"[..], &b"x"[..])
    );
    assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
    let limits = connect.properties.as_ref().unwrap();
    assert_eq!(limits.max_packet_size, Some(MAX_PACKET));
    assert_eq!(limits.receive_maximum, Some(u16::MAX));

    rig.outbox.push(publication(0)).unwrap();
    assert!(rig.published().is_empty() && !rig.connection.can_ask());
    let unanswered = rig.sleep(10 * SECOND).unwrap_err();
    assert_eq!(unanswered.to_string(), "the bus did not answer in time");
}

#[test]
fn a_refusal_says_why() {
    for (code, text) in [
        (ConnectReturnCode::NotAuthorized, "not authorized"),
        (
            ConnectReturnCode::ClientIdentifierNotValid,
            "certificate's name",
        ),
        (ConnectReturnCode::ServerBusy, "busy"),
        (ConnectReturnCode::UseAnotherServer, "UseAnotherServer"),
    ] {
        let refused = words(Rig::opening().hear(&connack(code, None)));
        assert!(refused.contains(text), "{refused}");
    }
    let unfit = |properties| {
        let ack = connack(ConnectReturnCode::Success, Some(properties));
        words(Rig::opening().hear(&ack))
    };
    let no_qos = unfit(ConnAckProperties {
        max_qos: Some(0),
        ..properties()
    });
    assert!(no_qos.contains("takes no QoS 1"), "{no_qos}");
    let no_retain = unfit(ConnAckProperties {
        retain_available: Some(0),
        ..properties()
    });
    assert!(no_retain.contains("no retained messages"), "{no_retain}");
    let zero = unfit(ConnAckProperties {
        receive_max: Some(0),
        ..properties()
    });
    assert!(zero.contains("limit of 0"), "{zero}");
    // MQTT 3.1.1: unacceptable protocol version.
    let old = words(Rig::opening().hear_bytes(&[0x20, 2, 0, 1]));
    assert!(old.contains("older MQTT"), "{old}");
    let early = words(Rig::opening().hear(&Packet::PingResp(PingResp)));
    assert!(early.contains("before CONNACK"), "{early}");
}

#[test]
fn the_brokers_end_says_why() {
    for (packet, text) in [
        (&[0xe0, 0][..], "NormalDisconnection"),
        (&[0xe0, 1, 0x8e], "SessionTakenOver"),
        (&[0xe0, 2, 0x8b, 0], "ServerShuttingDown"),
        (&[0xe0, 1, 0x01], "not MQTT 5"),
        (&[0xf0, 1, 0], "not MQTT 5"),
        (&[0xc0, 0], "no place here"),
        (&[0x30, 0xff, 0xff, 0xff, 0xff], "not MQTT 5"),
        (&[0x30, 0xff, 0xff, 0x7f], "not MQTT 5"),
        // A PUBLISH that ends before its properties is whole, and wrong.
        (&[0x30, 3, 0, 1, b't'], "not MQTT 5"),
    ] {
        let ended = words(Rig::open(None).hear_bytes(packet));
        assert!(ended.contains(text), "{packet:x?}: {ended}");
    }
}

#[test]
fn a_broker_with_receive_maximum_1_gets_one_at_a_time() {
    let mut rig = Rig::open(Some(ConnAckProperties {
        receive_max: Some(1),
        ..properties()
    }));
    rig.push(3);
    for n in 0..3 {
        let ids = rig.published();
        assert_eq!((ids.len(), rig.published().len()), (1, 0));
        let event = rig.hear(&Packet::PubAck(PubAck::new(ids[0], None)));
        let Ok(Some(Event::Acknowledged(id, PubAckReason::Success))) = event else {
            panic!("{event:?}");
        };
        assert_eq!(rig.outbox.handle_ack(id), Some(publication(n)));
    }
    assert!(rig.outbox.is_empty());
}

#[test]
fn what_is_in_flight_and_what_waits_to_be_written_are_bounded() {
    let mut rig = Rig::open(None);
    rig.push(10_000);
    rig.publish();
    assert!(rig.connection.is_full());
    assert!((OUTPUT..OUTPUT + 100).contains(&rig.connection.transmit().len()));
    assert!(!rig.connection.can_ask());
    let mut count = 0;
    loop {
        match rig.published().len() {
            0 => break,
            more => count += more,
        }
    }
    assert_eq!(count, usize::from(MAX_IN_FLIGHT));
}

#[test]
fn one_that_is_too_large_does_not_hold_up_the_others() {
    let mut rig = Rig::open(Some(ConnAckProperties {
        max_packet_size: Some(100),
        ..properties()
    }));
    rig.outbox.push(publication(0)).unwrap();
    let large = Publication::passing("large".to_owned(), "x".repeat(100));
    rig.outbox.push(large).unwrap();
    let last = rig.outbox.push(publication(2)).unwrap();
    assert_eq!(rig.publish(), ["large"]);
    for id in rig.published() {
        assert!(rig.outbox.handle_ack(id).is_some());
    }
    assert!(rig.outbox.is_done(last));
}

#[test]
fn messages_are_acknowledged_as_asked() {
    let mut rig = Rig::open(None);
    let Some(Event::Message(message)) = rig.hear(&publish(QoS::AtMostOnce, 0, "a")).unwrap() else {
        panic!("no message");
    };
    assert_eq!(
        (message.topic.as_str(), &message.payload[..]),
        ("in", &b"a"[..])
    );
    assert!(rig.sent().is_empty());
    let event = rig.hear(&publish(QoS::AtLeastOnce, 7, "b")).unwrap();
    assert!(matches!(event, Some(Event::Message(_))));
    assert_eq!(rig.sent(), [Packet::PubAck(PubAck::new(7, None))]);
    let unasked = words(rig.hear(&publish(QoS::ExactlyOnce, 8, "c")));
    assert!(unasked.contains("QoS 2"), "{unasked}");
}

#[test]
fn a_broker_that_never_reads_is_left() {
    let mut rig = Rig::open(None);
    let largest = "x".repeat(MAX_PUBLISH as usize - 20);
    let largest = Publication::passing("t".to_owned(), largest);
    rig.outbox.push(largest).unwrap();
    assert!(rig.publish().is_empty());
    let message = bytes(&publish(QoS::AtLeastOnce, 7, ""));
    let count = (0..200_000).take_while(|_| rig.hear_bytes(&message).is_ok());
    let count = count.count();
    assert!((usize::from(u16::MAX)..200_000).contains(&count), "{count}");
    let deaf = rig.hear_bytes(&message);
    assert!(matches!(deaf, Err(ConnectionError::Deaf)));
}

#[test]
fn subscriptions_go_in_order_and_refusals_are_told() {
    let mut rig = Rig::open(None);
    rig.connection.subscribe("a");
    rig.connection.unsubscribe("a");
    rig.connection.subscribe("b");
    let packets = rig.sent();
    let [
        Packet::Subscribe(a),
        Packet::Unsubscribe(end),
        Packet::Subscribe(b),
    ] = &packets[..]
    else {
        panic!("{packets:?}");
    };
    assert_eq!(
        (a.filters[0].path.as_str(), a.filters[0].qos),
        ("a", QoS::AtLeastOnce)
    );
    assert_eq!(end.filters, ["a"]);
    let suback = |pkid, code| {
        Packet::SubAck(SubAck {
            pkid,
            return_codes: vec![code],
            properties: None,
        })
    };
    let refused = SubscribeReasonCode::NotAuthorized;
    let event = rig.hear(&suback(b.pkid, refused)).unwrap();
    assert_eq!(event, Some(Event::Unserved("b".to_owned(), refused)));
    let taken = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    assert_eq!(rig.hear(&suback(a.pkid, taken)).unwrap(), None);
    let unsuback = UnsubAck {
        pkid: end.pkid,
        reasons: vec![UnsubAckReason::Success],
        properties: None,
    };
    assert_eq!(rig.hear(&Packet::UnsubAck(unsuback)).unwrap(), None);
    assert!(rig.connection.asked.is_empty());
}

#[test]
fn the_identifiers_of_subscriptions_are_none_of_publications_and_bounded() {
    let mut rig = Rig::open(None);
    let mut seen = std::collections::HashSet::new();
    while rig.connection.can_ask() {
        rig.connection.subscribe("f");
        seen.extend(rig.connection.asked.back().map(|(id, _)| *id));
        rig.sent();
    }
    assert_eq!(seen.len(), MAX_ASKED);
    for _ in 0..100_000 {
        let (id, _) = rig.connection.asked.pop_front().unwrap();
        assert!(id > LAST_ID && seen.remove(&id));
        rig.connection.subscribe("f");
        rig.sent();
        assert!(seen.insert(rig.connection.last_id));
    }
}

#[test]
fn disconnect_is_the_last_packet() {
    let mut rig = Rig::open(None);
    rig.outbox.push(publication(0)).unwrap();
    rig.publish();
    rig.connection.disconnect(rig.now);
    rig.outbox.push(publication(1)).unwrap();
    rig.publish();
    rig.hear(&publish(QoS::AtLeastOnce, 7, "late")).unwrap();
    rig.connection.disconnect(rig.now);
    assert!(!rig.connection.is_over());
    let packets = rig.sent();
    let [Packet::Publish(_), Packet::Disconnect(reason)] = &packets[..] else {
        panic!("{packets:?}");
    };
    assert_eq!(
        reason.reason_code,
        DisconnectReasonCode::NormalDisconnection
    );
    assert!(rig.connection.is_over());
}

#[test]
fn a_broker_that_does_not_take_disconnect_is_left_all_the_same() {
    let mut rig = Rig::open(None);
    rig.connection.disconnect(rig.now);
    assert!(matches!(rig.sleep(ALIVE), Err(ConnectionError::Deaf)));
}

fn packets() -> impl Strategy<Value = Packet> {
    prop_oneof![
        Just(connack(ConnectReturnCode::Success, Some(properties()))),
        (0..3u8, 1..9u16, ".{0,20}").prop_map(|(level, id, payload)| {
            publish(mqttbytes::qos(level).unwrap(), id, &payload)
        }),
        any::<u16>().prop_map(|id| Packet::PubAck(PubAck::new(id, None))),
        Just(Packet::PingResp(PingResp)),
        any::<u16>().prop_map(|pkid| Packet::SubAck(SubAck {
            pkid,
            return_codes: vec![SubscribeReasonCode::Unspecified],
            properties: None,
        })),
    ]
}

proptest! {
    /// Whatever a broker sends, it is taken or ends the connection.
    #[test]
    fn no_bytes_do_harm(
        packets in prop::collection::vec(packets(), 0..5),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        rubbish in prop::collection::vec(any::<u8>(), 0..50),
        is_open: bool,
        step in 1..9usize,
    ) {
        let mut stream: Vec<u8> = packets.iter().flat_map(|packet| bytes(packet).to_vec()).collect();
        stream.extend(rubbish);
        for (at, byte) in changes {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        let mut rig = if is_open { Rig::open(None) } else { Rig::opening() };
        'stream: for chunk in stream.chunks(step) {
            rig.connection.handle_data(chunk, rig.now);
            loop {
                match rig.connection.poll_event() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
    }
}
