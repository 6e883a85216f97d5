//! 2.04 to a push, and when it leaves.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::bench::{Bench, Server, addr};
use crate::endpoint::Code;
use crate::endpoint::parameters::EMPTY_ACK_DELAY;
use crate::firmware::settled::{WAITING_CON, WAITING_NON};
use crate::metrics::Refused;

const SOURCE: &str = "10.0.0.1:49152";
/// `CON POST /server` with the token AB.
const PUSH: &[u8] = b"\x41\x02\x77\x01\xab\xb6server\xfft:1";

/// A node, and a bus that takes and does not acknowledge.
fn slow() -> Bench {
    let mut bench = Bench::new();
    // It is asked there, so that nothing of the bridge's own waits for an answer of the other port.
    let server = Server::new("</t>", &[("t", "0")]);
    bench.servers.insert(addr("10.0.0.1:5683"), server);
    bench.alive(SOURCE, "alive:a");
    bench.bus_is_slow = true;
    bench
}

/// What went to the node since the last time, but for questions of the bridge.
fn answers(bench: &mut Bench) -> Vec<Bytes> {
    let stray = std::mem::take(&mut bench.stray).into_iter();
    let ours = stray.filter(|(to, bytes)| *to == addr(SOURCE) && !matches!(bytes[1], 1..32));
    ours.map(|(_, bytes)| bytes).collect()
}

fn catch_up(bench: &mut Bench) {
    bench.bus_is_slow = false;
    bench.wait(Duration::ZERO);
    bench.bus_is_slow = true;
}

#[test]
fn a_push_is_answered_when_it_can_not_be_lost_and_duplicates_change_nothing() {
    let mut bench = slow();
    bench.datagram(SOURCE, PUSH);
    bench.datagram(SOURCE, PUSH);
    assert!(answers(&mut bench).is_empty());
    assert_eq!(bench.value("a", "t"), json!(1), "the bus has it");
    assert_eq!(bench.metrics.pushes.get(), 1);
    assert_eq!(
        bench.con(SOURCE, "alive", "alive:a"),
        Some(Code::CHANGED),
        "a sign of life waits for nothing"
    );
    answers(&mut bench);
    catch_up(&mut bench);
    let expected = [&b"\x61\x44\x77\x01\xab\xffReceived 't:1'"[..]];
    assert_eq!(answers(&mut bench), expected);
    // The acknowledgement was lost.
    assert_eq!(bench.datagram(SOURCE, PUSH), expected);
    assert_eq!(bench.metrics.pushes.get(), 1);
}

#[test]
fn what_takes_long_is_acknowledged_first_and_answered_by_itself() {
    let mut bench = slow();
    bench.datagram(SOURCE, PUSH);
    bench.wait(EMPTY_ACK_DELAY);
    assert_eq!(answers(&mut bench), [&b"\x60\x00\x77\x01"[..]]);
    assert_eq!(bench.datagram(SOURCE, PUSH), [&b"\x60\x00\x77\x01"[..]]);
    catch_up(&mut bench);
    let answers = answers(&mut bench);
    let answer = answers.last().unwrap();
    assert_eq!((answer[0], answer[1], answer[4]), (0x41, 0x44, 0xab));
    assert_eq!(bench.metrics.pushes.get(), 1);
}

#[test]
fn a_non_confirmable_push_is_answered_likewise() {
    let mut bench = slow();
    let push = [b"\x51", &PUSH[1..]].concat();
    bench.datagram(SOURCE, &push);
    bench.datagram(SOURCE, &push);
    bench.wait(Duration::from_secs(1));
    assert!(answers(&mut bench).is_empty());
    catch_up(&mut bench);
    let answers = answers(&mut bench);
    let [answer] = answers.as_slice() else {
        panic!("one answer: {answers:?}");
    };
    assert_eq!((answer[0], answer[1], answer[4]), (0x51, 0x44, 0xab));
}

#[test]
fn so_many_pushes_wait_that_there_is_room_for_all_else() {
    let mut bench = slow();
    for n in 0..WAITING_CON {
        assert_eq!(bench.bridge.is_behind(), n >= WAITING_NON, "{n}");
        assert_eq!(bench.con(SOURCE, "server", &format!("t:{n}")), None);
    }
    let busy = Some(Code::SERVICE_UNAVAILABLE);
    assert_eq!(bench.con(SOURCE, "server", "t:1"), busy);
    assert_eq!(bench.push(SOURCE, "t:1"), None);
    assert_eq!(bench.metrics.refused_for(Refused::Overload), 2);
    for n in 0..100 {
        let alive = format!("alive:{n}");
        let from = format!("10.3.3.3:{}", 1000 + n);
        assert_eq!(bench.con(&from, "alive", &alive), Some(Code::CHANGED));
    }
    bench.stray.clear();
    catch_up(&mut bench);
    assert_eq!(answers(&mut bench).len(), WAITING_CON);
    assert!(!bench.bridge.is_behind() && !bench.bridge.has_unsettled());
}
