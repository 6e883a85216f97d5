mod crash;

use super::*;
use crate::message::{Draft, Parts};
use crate::wire::RetainHandling;

const BOUNDS: Bounds = Bounds {
    messages: 4,
    bytes: 10_000,
};

const TERMS: Terms = Terms {
    version: Version::V4,
    window: 2,
    maximum_packet: u32::MAX,
};

fn message(seq: u64, topic: &str, qos: Qos, retain: bool) -> Message {
    Draft::new(&Parts {
        topic,
        payload: &[u8::try_from(seq).unwrap()],
        qos,
        retain,
        origin: 1,
        expires: None,
        properties: &[],
    })
    .seal(seq, 0)
}

fn request(filter: &str, qos: Qos) -> FilterRequest {
    FilterRequest {
        filter: filter.to_owned(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    }
}

fn session(qos: Qos) -> Session {
    let mut session = Session::new(7, BOUNDS);
    session.connect(TERMS);
    session.subscribe(request("a", qos), None, 0, None);
    session
}

/// First byte, Packet Identifier and payload of what the session sends now.
fn sent(session: &mut Session) -> Vec<(u8, u16, u8)> {
    let mut out = BytesMut::new();
    session.poll_transmit(0, Progress::default(), usize::MAX, &mut out);
    let (mut rest, mut packets) = (&out[..], Vec::new());
    while let [first, len, body @ ..] = rest {
        let (body, after) = body.split_at(usize::from(*len));
        let (pid, payload) = match (first & 0xf0, first & 6, body) {
            (0x30, 0, [_, _, _, payload]) => (0, *payload),
            (0x30, _, [_, _, _, high, low, payload]) => {
                (u16::from_be_bytes([*high, *low]), *payload)
            }
            (_, _, [high, low]) => (u16::from_be_bytes([*high, *low]), 0),
            _ => panic!("{body:?}"),
        };
        packets.push((*first, pid, payload));
        rest = after;
    }
    packets
}

#[test]
fn the_window_holds_messages_back() {
    let mut session = session(Qos::AtLeastOnce);
    for seq in 1..=4 {
        session.handle_message(&message(seq, "a", Qos::AtLeastOnce, false));
    }
    assert_eq!(sent(&mut session), [(0x32, 1, 1), (0x32, 2, 2)]);
    assert_eq!(sent(&mut session), []);
    session.handle_puback(2);
    session.handle_puback(2);
    session.handle_puback(99);
    assert_eq!(sent(&mut session), [(0x32, 3, 3)]);
    session.handle_puback(1);
    assert_eq!(sent(&mut session), [(0x32, 4, 4)]);
}

#[test]
fn a_full_queue_drops_qos_0_and_ends_the_connection_at_twice_that() {
    let mut session = session(Qos::AtLeastOnce);
    let mut push = |qos| session.handle_message(&message(1, "a", qos, false));
    for _ in 0..4 {
        assert_eq!(push(Qos::AtMostOnce), Pushed::Queued);
    }
    assert_eq!(push(Qos::AtMostOnce), Pushed::Dropped);
    for _ in 0..4 {
        assert_eq!(push(Qos::AtLeastOnce), Pushed::Queued);
    }
    assert_eq!(push(Qos::AtLeastOnce), Pushed::Overflow);
    assert!(session.is_overflowed());
}

#[test]
fn an_absent_client_keeps_the_newest() {
    let mut session = session(Qos::AtLeastOnce);
    session.handle_message(&message(1, "a", Qos::AtMostOnce, false));
    session.disconnect();
    assert_eq!(
        session.handle_message(&message(2, "a", Qos::AtMostOnce, false)),
        Pushed::NotAsked
    );
    for seq in 1..=10 {
        session.handle_message(&message(seq, "a", Qos::AtLeastOnce, false));
    }
    session.connect(Terms {
        window: 100,
        ..TERMS
    });
    let got: Vec<u8> = sent(&mut session).iter().map(|packet| packet.2).collect();
    assert_eq!(got, (3..=10).collect::<Vec<u8>>());
}

#[test]
fn flows_go_on_where_they_were() {
    let mut session = session(Qos::ExactlyOnce);
    for seq in 1..=2 {
        session.handle_message(&message(seq, "a", Qos::ExactlyOnce, false));
    }
    assert_eq!(sent(&mut session), [(0x34, 1, 1), (0x34, 2, 2)]);
    session.handle_pubrec(1, false, &mut BytesMut::new());
    assert_eq!(sent(&mut session), [(0x62, 1, 0)]);
    session.disconnect();
    session.connect(TERMS);
    assert_eq!(sent(&mut session), [(0x62, 1, 0), (0x3c, 2, 2)]);
    // A PUBCOMP before its PUBREC ends nothing.
    session.handle_pubcomp(2);
    session.handle_pubcomp(1);
    session.disconnect();
    session.connect(TERMS);
    assert_eq!(sent(&mut session), [(0x3c, 2, 2)]);
}

#[test]
fn what_is_sent_again_fits_the_window_of_the_new_connection() {
    let mut session = session(Qos::ExactlyOnce);
    let wide = Terms {
        window: 10,
        ..TERMS
    };
    session.connect(wide);
    let qos = |seq| {
        if seq % 2 == 0 {
            Qos::AtLeastOnce
        } else {
            Qos::ExactlyOnce
        }
    };
    for seq in 1..=4 {
        session.handle_message(&message(seq, "a", qos(seq), false));
    }
    assert_eq!(sent(&mut session).len(), 4);
    session.disconnect();
    session.connect(TERMS);
    assert_eq!(sent(&mut session), [(0x3c, 1, 1), (0x3a, 2, 2)]);
    // A flow makes room when it is over, and goes on before that.
    session.handle_pubrec(1, false, &mut BytesMut::new());
    assert_eq!(sent(&mut session), [(0x62, 1, 0)]);
    session.handle_pubcomp(1);
    assert_eq!(sent(&mut session), [(0x3c, 3, 3)]);
    session.handle_puback(2);
    assert_eq!(sent(&mut session), [(0x3a, 4, 4)]);
}

#[test]
fn a_snapshot_is_not_bounded_and_comes_first() {
    let mut session = session(Qos::AtMostOnce);
    let snapshot = (1..=100).map(|seq| message(seq, "s", Qos::AtMostOnce, true));
    session.subscribe(
        request("s", Qos::AtMostOnce),
        None,
        100,
        Some(snapshot.collect()),
    );
    // On its way when the snapshot was made, which has it or a newer one.
    session.handle_message(&message(99, "s", Qos::AtMostOnce, true));
    session.handle_message(&message(101, "s", Qos::AtMostOnce, true));
    let got: Vec<_> = sent(&mut session);
    let values: Vec<u8> = got.iter().map(|packet| packet.2).collect();
    assert_eq!(values, (1..=101).collect::<Vec<u8>>());
    assert!(got[..100].iter().all(|packet| packet.0 == 0x31));
    assert_eq!(got[100].0, 0x30);
}

#[test]
fn an_absent_client_is_not_owed_a_snapshot() {
    let mut session = session(Qos::AtLeastOnce);
    let snapshot = vec![message(1, "s", Qos::AtLeastOnce, true)];
    session.subscribe(request("s", Qos::AtLeastOnce), None, 1, Some(snapshot));
    session.disconnect();
    session.connect(TERMS);
    assert_eq!(sent(&mut session), []);
}

#[test]
fn output_stops_at_its_budget() {
    let mut session = session(Qos::AtMostOnce);
    for seq in 1..=4 {
        session.handle_message(&message(seq, "a", Qos::AtMostOnce, false));
    }
    let mut out = BytesMut::new();
    let one = session.poll_transmit(0, Progress::default(), 1, &mut out);
    assert_eq!(one.messages, 1);
    let none = session.poll_transmit(0, Progress::default(), 1, &mut out);
    assert_eq!(none.messages, 0);
}
