//! Whether the other side is still there.

use super::*;

#[test]
fn an_idle_connection_is_asked_for_a_sign_of_life() {
    let mut rig = Rig::open(None);
    for _ in 0..3 {
        rig.sleep(ALIVE).unwrap();
        assert_eq!(rig.sent(), [Packet::PingReq(PingReq)]);
        rig.now += SECOND;
        assert_eq!(rig.hear(&Packet::PingResp(PingResp)).unwrap(), None);
        // Counted from the PINGREQ.
        let due = rig.connection.poll_timeout().unwrap();
        rig.now = due - ALIVE;
    }
    rig.sleep(ALIVE).unwrap();
    rig.sent();
    let silent = rig.sleep(ALIVE).unwrap_err();
    assert!(silent.to_string().contains("silent for 15 s"), "{silent}");
}

#[test]
fn a_dead_broker_is_noticed_though_there_is_much_to_send() {
    let mut rig = Rig::open(None);
    let begin = rig.now;
    let died = (0..).find_map(|n| {
        rig.now += SECOND;
        rig.outbox.push(publication(n)).unwrap();
        rig.published();
        rig.connection.handle_timeout(rig.now).err()
    });
    assert!(matches!(died, Some(ConnectionError::Silent(15))));
    assert_eq!(rig.now - begin, 2 * ALIVE);
}

#[test]
fn messages_are_signs_of_life_too() {
    let mut rig = Rig::open(None);
    for _ in 0..100 {
        rig.now += 10 * SECOND;
        rig.hear(&publish(QoS::AtMostOnce, 0, "x")).unwrap();
        rig.connection.handle_timeout(rig.now).unwrap();
        rig.sent();
    }
}

#[test]
fn silence_means_nothing_while_nobody_listens() {
    let mut rig = Rig::open(None);
    rig.sleep(ALIVE).unwrap();
    rig.sent();
    rig.connection.set_reading(false, rig.now);
    assert_eq!(rig.connection.poll_timeout(), None);
    rig.now += 100 * SECOND;
    rig.connection.handle_timeout(rig.now).unwrap();
    rig.connection.set_reading(true, rig.now);
    // It goes on to tell the broker that it is there.
    assert!(rig.connection.poll_timeout().unwrap() <= rig.now);
    rig.connection.handle_timeout(rig.now).unwrap();
    assert_eq!(rig.sent(), [Packet::PingReq(PingReq)]);
    assert!(rig.sleep(ALIVE).is_err());
}

#[test]
fn the_broker_may_ask_for_a_shorter_keep_alive_only() {
    for (asked, seconds) in [(5, 5), (60, 15), (0, 15)] {
        let mut rig = Rig::open(Some(ConnAckProperties {
            server_keep_alive: Some(asked),
            ..properties()
        }));
        rig.sleep(seconds * SECOND).unwrap();
        assert_eq!(rig.sent(), [Packet::PingReq(PingReq)]);
    }
}
