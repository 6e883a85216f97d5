use bus::bridge::registry::Registry;
use bus::bridge::{BridgeConfig, Order, QueueConfig};
use bus::id::BridgeId;
use bus::session::Message as BusMessage;
use bus::topic::Base;
use serde_json::json;

use super::*;

const LIMITS: Limits = Limits {
    ping_interval: Duration::from_secs(15),
    messages_per_second: 10,
};

/// A node's machine, and a registry that asks for things as it does in the bridge.
struct Bench {
    node: Node,
    registry: Registry,
    now: Now,
}

#[track_caller]
fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

impl Bench {
    fn new() -> Self {
        let now = bus::time::now();
        let registry = Registry::new(BridgeConfig {
            name: BridgeId::from_text("ws"),
            protocol: "websocket",
            base: Base::default(),
            max_time: None,
            forget_after: Duration::from_secs(3600),
            max_nodes: 10,
            queue: QueueConfig::default(),
        });
        let mut node = Node::new(uid("random"), "10.0.0.1:5".to_owned(), LIMITS, now.mono);
        assert_eq!(
            node.poll_transmit(),
            Some(Frame::Text(r#"{"request":"discover"}"#.to_owned()))
        );
        Self {
            node,
            registry,
            now,
        }
    }

    /// A node that said hello as `n` and gave its led and its temperature.
    fn known() -> Self {
        let mut bench = Self::new();
        bench.says(json!({"type": "hello", "uid": "n"}));
        bench.says(json!({"type": "update", "data": {"led": "0", "temperature": 20}}));
        for report in bench.reports() {
            bench.registry.handle_report(report, bench.now);
        }
        bench
    }

    fn says(&mut self, message: Value) {
        self.node.handle_text(&message.to_string(), self.now);
    }

    fn reports(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.node.poll_report()).collect()
    }

    fn sent(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.node.poll_transmit())
            .filter_map(|frame| match frame {
                Frame::Text(text) => Some(text),
                Frame::Ping(_) => None,
            })
            .collect()
    }

    /// Somebody publishes on `nodes/n/<rest>`.
    fn asked(&mut self, rest: &str, payload: &str) {
        let message = BusMessage {
            topic: format!("nodebus/v1/nodes/n/{rest}"),
            payload: payload.to_owned().into(),
            retain: false,
            response_topic: None,
            correlation: None,
            expiry: None,
        };
        self.registry.handle_message(&message, self.now);
        let Some(Order::Execute(request)) = self.registry.poll_order() else {
            panic!("{rest} made no request");
        };
        self.node.handle_request(request, self.now.mono);
    }

    /// The answers among the reports, as status and value.
    fn answers(&mut self) -> Vec<(AckStatus, Option<Value>)> {
        self.reports()
            .into_iter()
            .filter_map(|report| match report {
                Report::Answer { answer, .. } => Some((answer.status, answer.v)),
                _ => None,
            })
            .collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.node.handle_timeout(self.now.mono);
    }
}

#[test]
fn a_node_without_a_hello_is_announced_at_its_first_update() {
    let mut bench = Bench::new();
    bench.says(json!({"type": "new", "data": "node"}));
    assert_eq!(bench.reports(), []);
    bench.says(json!({"type": "update", "data": {"led": "0"}}));
    let reports = bench.reports();
    assert_eq!(
        reports[0],
        Report::Announce {
            uid: uid("random"),
            address: "10.0.0.1:5".to_owned(),
            reset: false
        }
    );
    let Report::Reading { path, sample, .. } = &reports[1] else {
        panic!("{reports:?}");
    };
    assert_eq!((path.as_str(), &sample.v), ("led", &json!(0)));
}

#[test]
fn a_hello_gives_the_name_and_comes_once() {
    let mut bench = Bench::new();
    bench.says(json!({"type": "hello", "uid": "bench 3"}));
    assert!(matches!(
        &bench.reports()[..],
        [Report::Announce { uid, .. }] if uid.as_str() == "bench 3"
    ));
    bench.says(json!({"type": "hello", "uid": "another"}));
    assert_eq!(bench.node.uid().as_str(), "bench 3");
    assert_eq!(
        bench.node.closing(),
        Some(Close::Invalid(Invalid::LateHello))
    );
}

#[test]
fn a_hello_after_an_update_is_refused() {
    let mut bench = Bench::new();
    bench.says(json!({"type": "update", "data": {}}));
    bench.says(json!({"type": "hello", "uid": "n"}));
    assert_eq!(bench.node.uid().as_str(), "random");
    assert!(bench.node.closing().is_some());
}

#[test]
fn a_write_is_confirmed_by_the_next_update_of_its_resource() {
    let mut bench = Bench::known();
    bench.asked("res/temperature/set", "21");
    assert_eq!(bench.sent(), [r#"{"endpoint":"temperature","payload":21}"#]);
    bench.says(json!({"type": "update", "data": {"led": "1"}}));
    assert_eq!(bench.answers(), []);
    bench.says(json!({"type": "update", "data": {"temperature": 20.5}}));
    let reports = bench.reports();
    // The value first, so that the state stands when the ack is seen.
    assert!(matches!(reports[0], Report::Reading { .. }));
    assert!(matches!(&reports[1], Report::Answer { answer, .. }
        if answer.status == AckStatus::Ok && answer.v == Some(json!(20.5))));
    assert_eq!(reports.len(), 2);
}

#[test]
fn a_node_that_gives_text_is_written_text() {
    let mut bench = Bench::known();
    bench.asked("res/led/set", "1");
    assert_eq!(bench.sent(), [r#"{"endpoint":"led","payload":"1"}"#]);
    bench.says(json!({"type": "update", "data": {"led": "1"}}));
    assert_eq!(bench.answers(), [(AckStatus::Ok, Some(json!(1)))]);
}

#[test]
fn one_update_confirms_the_writes_up_to_its_value() {
    let mut bench = Bench::known();
    for payload in ["1", "0", "1"] {
        bench.asked("res/led/set", payload);
    }
    bench.says(json!({"type": "update", "data": {"led": "0"}}));
    let zero = (AckStatus::Ok, Some(json!(0)));
    assert_eq!(bench.answers(), [zero.clone(), zero]);
    bench.says(json!({"type": "update", "data": {"led": "7"}}));
    assert_eq!(bench.answers(), [(AckStatus::Ok, Some(json!(7)))]);
    bench.says(json!({"type": "update", "data": {"led": "1"}}));
    assert_eq!(bench.answers(), []);
}

#[test]
fn a_read_asks_for_all_and_takes_its_own() {
    let mut bench = Bench::known();
    bench.asked("res/led/get", "");
    assert_eq!(bench.sent(), [r#"{"request":"discover"}"#]);
    bench.says(json!({"type": "update", "data": {"temperature": 1}}));
    assert_eq!(bench.answers(), []);
    bench.says(json!({"type": "update", "data": {"led": "1", "temperature": 1}}));
    assert_eq!(bench.answers(), [(AckStatus::Ok, Some(json!(1)))]);
}

#[test]
fn a_rediscovery_ends_with_any_update() {
    let mut bench = Bench::known();
    bench.asked("cmd/rediscover", "");
    assert_eq!(bench.sent(), [r#"{"request":"discover"}"#]);
    bench.says(json!({"type": "update", "data": {"led": "1"}}));
    assert_eq!(bench.answers(), [(AckStatus::Ok, None)]);
}

#[test]
fn a_ping_is_answered_by_its_own_pong() {
    let mut bench = Bench::known();
    bench.asked("cmd/ping", "");
    let Some(Frame::Ping(number)) = bench.node.poll_transmit() else {
        panic!("no ping was sent");
    };
    for other in [&b""[..], &b"x"[..], &(number - 1).to_be_bytes()[..]] {
        bench.node.handle_pong(other, bench.now);
    }
    assert_eq!(bench.answers(), []);
    bench.node.handle_pong(&number.to_be_bytes(), bench.now);
    assert_eq!(bench.answers(), [(AckStatus::Ok, None)]);
}

#[test]
fn a_silent_node_is_lost_after_two_pings() {
    let mut bench = Bench::known();
    for _ in 0..2 {
        bench.pass(15);
        assert!(matches!(bench.node.poll_transmit(), Some(Frame::Ping(_))));
        assert_eq!(bench.node.closing(), None);
    }
    bench.pass(14);
    assert_eq!(bench.node.closing(), None);
    bench.pass(1);
    assert_eq!(bench.node.closing(), Some(Close::Unanswered));
}

#[test]
fn any_frame_is_a_sign_of_life() {
    let mut bench = Bench::known();
    for _ in 0..10 {
        bench.pass(15);
        bench.says(json!({"type": "update", "data": {}}));
        assert_eq!(bench.node.closing(), None);
    }
    assert!(bench.reports().contains(&Report::Seen { uid: uid("n") }));
}

#[test]
fn a_node_over_its_rate_is_read_no_faster() {
    let mut bench = Bench::known();
    bench.pass(10);
    // A burst of two seconds' worth, then ten a second.
    for _ in 0..20 {
        assert!(bench.node.wants_input());
        bench.says(json!({"type": "update", "data": {}}));
    }
    bench.says(json!({"type": "update", "data": {}}));
    assert!(!bench.node.wants_input());
    let due = bench.node.poll_timeout();
    assert_eq!(due, bench.now.mono + Duration::from_millis(100));
    bench.node.handle_timeout(due);
    assert!(bench.node.wants_input());
}

#[test]
fn who_waits_is_told_when_the_connection_ends() {
    let mut bench = Bench::known();
    bench.asked("res/led/set", "1");
    bench.asked("cmd/ping", "");
    bench.node.handle_end();
    let error = (AckStatus::Error, None);
    assert_eq!(bench.answers(), [error.clone(), error]);
}

#[test]
fn what_nobody_waits_for_any_more_leaves_room() {
    let mut bench = Bench::known();
    for _ in 0..MAX_PENDING {
        bench.asked("res/led/set", r#"{"v":1,"timeout_ms":1000}"#);
        bench.sent();
        bench.now = bench.now.after(Duration::from_millis(500));
        bench.registry.handle_timeout(bench.now);
    }
    assert!(bench.node.pending.len() <= 2);
}

#[test]
fn a_node_that_does_not_read_is_asked_no_more() {
    let mut bench = Bench::known();
    let mut sent = 0;
    for n in 0..MAX_OUTGOING + 10 {
        bench.asked("res/led/set", r#"{"v":1,"timeout_ms":100}"#);
        if bench.answers().is_empty() {
            sent += 1;
        } else {
            assert_eq!(n, MAX_OUTGOING, "the first refusal");
            break;
        }
        bench.now = bench.now.after(Duration::from_millis(100));
        bench.registry.handle_timeout(bench.now);
    }
    assert_eq!(sent, MAX_OUTGOING);
}

#[test]
fn a_node_has_a_bounded_number_of_resources() {
    let mut bench = Bench::known();
    for n in 0..MAX_RESOURCES {
        let mut data = serde_json::Map::new();
        data.insert(format!("r{n}"), json!(n));
        bench.says(json!({"type": "update", "data": data}));
    }
    assert_eq!(
        bench.node.closing(),
        Some(Close::Invalid(Invalid::TooManyResources))
    );
    assert_eq!(bench.node.resources.len(), MAX_RESOURCES);
}
