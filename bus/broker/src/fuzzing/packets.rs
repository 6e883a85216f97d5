//! Bytes of one client: decoded, and through its connection and session, while others look on.

use super::Script;
use super::peer::{Got, Peer, connect, packet, string};
use super::world::{World, run};

/// A client that connected properly, with a session that is kept.
async fn client(world: &World, level: u8, id: &str, properties: &[u8]) -> Peer {
    let mut peer = world.connect();
    peer.level = level;
    peer.send(&connect(level, 0, properties, &string(id))).await;
    peer
}

fn subscribe(level: u8, filter: &str, qos: u8) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(
        0x82,
        &[&[0, 1], properties, &string(filter), &[qos]].concat(),
    )
}

/// How the attacker begins: with anything, or as a client that connected.
const BEGINNINGS: [(u8, &[u8]); 4] = [
    (0, &[]),
    (4, &[]),
    // Session Expiry Interval.
    (5, &[0x11, 0, 0, 0, 60]),
    // With a Receive Maximum and a Maximum Packet Size that are small.
    (5, &[0x11, 0, 0, 0, 60, 0x21, 0, 2, 0x27, 0, 0, 0, 40]),
];

/// The first byte says how the attacker begins, the second how its bytes are cut into pieces; the
/// rest is what it sends.
///
/// # Panics
/// When something panics, when the broker says what is no MQTT, or when others notice.
pub fn packets(data: &[u8]) {
    let mut script = Script(data);
    let (Some((level, properties)), Some(cut)) = (script.pick(&BEGINNINGS), script.byte()) else {
        return;
    };
    run(async |world| {
        let mut witnesses = [
            client(world, 5, "five", &[]).await,
            client(world, 4, "four", &[]).await,
        ];
        for (witness, filter) in witnesses.iter_mut().zip(["#", "a/+"]) {
            let asked = subscribe(witness.level, filter, 2);
            witness.send(&asked).await;
        }
        let mut attacker = match level {
            0 => world.connect(),
            _ => client(world, level, "attacker", properties).await,
        };
        if level == 0 {
            // Its version stands where CONNECT has it, if it is one.
            attacker.level = if data.get(10) == Some(&5) { 5 } else { 4 };
        }
        let piece = if cut == 0 {
            usize::MAX
        } else {
            usize::from(cut)
        };
        while !script.0.is_empty() {
            attacker.send(script.bytes(piece)).await;
            if cut != 0 {
                tokio::task::yield_now().await;
            }
        }
        let [five, four] = &mut witnesses;
        world.settle(&mut [&mut attacker, five, four]).await;
        drop(attacker);
        // Its session goes on, whatever it said.
        let mut again = client(world, 5, "attacker", &[0x11, 0, 0, 0, 60]).await;
        world.settle(&mut [&mut again, five, four]).await;
        look_on(world, five, four).await;
    });
}

/// The others are there and talk to each other.
async fn look_on(world: &World, five: &mut Peer, four: &mut Peer) {
    for peer in [&mut *five, &mut *four] {
        peer.catch_up().await;
        peer.got.clear();
        peer.send(&[0xc0, 0]).await;
    }
    five.send(&packet(
        0x32,
        &[&string("a/alive")[..], &[0, 7, 0, b'y']].concat(),
    ))
    .await;
    world.settle(&mut [five, four]).await;
    let message = Got::Publish {
        topic: "a/alive".to_owned(),
        payload: b"y".to_vec(),
    };
    for peer in [&*five, &*four] {
        assert!(peer.is_open, "a bystander was closed");
        assert!(peer.got.contains(&Got::Pingresp), "a bystander hangs");
        assert!(
            peer.got.contains(&message),
            "a bystander gets nothing: {:?}",
            peer.got
        );
    }
    assert!(five.got.contains(&Got::Puback(7)));
}
