//! Snapshot, then live: whatever the order of publishing, subscribing and delivering.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::admin::Admin;
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::fanout::{Link, Pending, Sink};
use crate::message::Parts;
use crate::session::{Bounds, Session, Terms};
use crate::store::tests::{on_disk, outcome};
use crate::store::{Outcome, Progress};
use crate::topic;
use crate::wire::{FilterRequest, Qos, RetainHandling, Version};

/// A fan-out whose messages arrive when the test says so.
#[derive(Default)]
struct Slow(Mutex<Vec<Message>>);

impl Fanout for Slow {
    fn publish(&self, message: Message) -> Result<(), Stopped> {
        self.0.lock().unwrap().push(message);
        Ok(())
    }

    fn attach(&self, _: Weak<dyn Sink>) -> Box<dyn Link> {
        unreachable!("sessions are driven by hand")
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn relieved(&self) -> Pending<'_, ()> {
        Box::pin(async {})
    }
}

/// One session behind the exchange, as connection and fan-out drive it together.
struct World {
    exchange: Exchange,
    fanout: Arc<Slow>,
    session: Session,
    /// What the fan-out has brought so far.
    brought: usize,
    /// Filters with the place in the fan-out from which on they bring messages.
    filters: Vec<(String, usize)>,
    /// What the client got: topic, value, retain flag.
    got: Vec<(String, u64, bool)>,
}

impl World {
    fn new() -> Self {
        let fanout = Arc::new(Slow::default());
        let metrics = Arc::new(Metrics::new(&Admin::default()));
        let bounds = Bounds {
            messages: 1_000_000,
            bytes: 1_000_000_000,
        };
        let mut session = Session::new(1, bounds);
        session.connect(Terms {
            version: Version::V4,
            window: u16::MAX,
            maximum_packet: u32::MAX,
        });
        Self {
            exchange: Exchange::new(fanout.clone(), Arc::default(), metrics),
            fanout,
            session,
            brought: 0,
            filters: Vec::new(),
            got: Vec::new(),
        }
    }

    fn publish(&self, topic: &str, value: u64, retain: bool) {
        let draft = Draft::new(&Parts {
            topic,
            payload: &value.to_be_bytes(),
            qos: Qos::AtMostOnce,
            retain,
            origin: 0,
            expires: None,
            properties: &[],
        });
        self.exchange.publish(draft).unwrap();
    }

    fn published(&self) -> usize {
        self.fanout.0.lock().unwrap().len()
    }

    /// The fan-out knows the filter.
    fn subscribe(&mut self, filter: &str) {
        if !self.session.is_subscribed(filter) {
            self.filters.push((filter.to_owned(), self.published()));
        }
    }

    /// The session gets the snapshot, some time later.
    fn snapshot(&mut self, filter: &str) {
        let request = FilterRequest {
            filter: filter.to_owned(),
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        };
        let (at, messages) = self.exchange.subscribe(None, &request, true, 0);
        self.session.subscribe(request, None, at, messages);
    }

    /// The fan-out brings up to `count` messages, and the client reads.
    fn bring(&mut self, count: usize) {
        let published = self.fanout.0.lock().unwrap().clone();
        for (at, message) in published.iter().enumerate().skip(self.brought).take(count) {
            self.brought += 1;
            let asked = |(filter, from): &(String, usize)| {
                *from <= at && topic::matches(filter, message.topic())
            };
            if self.filters.iter().any(asked) {
                self.session.handle_message(message);
            }
        }
        let mut out = BytesMut::new();
        self.session
            .poll_transmit(0, Progress::default(), usize::MAX, &mut out);
        let mut rest = &out[..];
        while let [first, len, body @ ..] = rest {
            let (body, after) = body.split_at(usize::from(*len));
            let (topic, value) = body[2..].split_at(body.len() - 10);
            let value = u64::from_be_bytes(value.try_into().unwrap());
            let topic = String::from_utf8(topic.to_vec()).unwrap();
            self.got.push((topic, value, first & 1 == 1));
            rest = after;
        }
    }
}

#[test]
fn what_can_not_be_stored_is_refused_before_anybody_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let store = Arc::new(on_disk(folder.path(), is_full.clone()));
    let fanout = Arc::new(Slow::default());
    let metrics = Arc::new(Metrics::new(&Admin::default()));
    let exchange = Exchange::new(fanout.clone(), store.clone(), metrics);
    let publish = |topic: &str, qos, retain| {
        exchange.publish(Draft::new(&Parts {
            topic,
            payload: b"x",
            qos,
            retain,
            origin: 0,
            expires: None,
            properties: &[],
        }))
    };
    let request = FilterRequest {
        filter: "queue".to_owned(),
        qos: Qos::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Never,
    };
    exchange.subscribe(Some(1), &request, false, 0);
    let before = publish("a", Qos::AtLeastOnce, true).unwrap();
    assert_eq!(outcome(&store, before), Outcome::Stored);
    is_full.store(true, Ordering::SeqCst);
    // Nobody knows yet: it is told, and not acknowledged.
    let first = publish("b", Qos::AtLeastOnce, true).unwrap();
    assert_eq!(outcome(&store, first), Outcome::Failed);

    let told = fanout.0.lock().unwrap().len();
    for (topic, qos, retain) in [
        ("c", Qos::AtLeastOnce, true),
        ("c", Qos::ExactlyOnce, true),
        ("queue", Qos::AtLeastOnce, false),
    ] {
        assert_eq!(publish(topic, qos, retain), Err(ExchangeError::Unstorable));
    }
    assert_eq!(fanout.0.lock().unwrap().len(), told);
    // What is promised to nobody goes on.
    let free = publish("queue", Qos::AtMostOnce, false);
    assert_eq!(free, Ok(Ticket::default()));
    let free = publish("c", Qos::AtLeastOnce, false);
    assert_eq!(free, Ok(Ticket::default()));

    is_full.store(false, Ordering::SeqCst);
    assert_eq!(
        outcome(&store, publish("d", Qos::AtMostOnce, true).unwrap()),
        Outcome::Stored
    );
    let after = publish("queue", Qos::AtLeastOnce, false).unwrap();
    assert_eq!(outcome(&store, after), Outcome::Stored);
    store.close();
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u8),
    Subscribe(u8),
    Bring(u8),
}

const TOPICS: [&str; 3] = ["a/x", "a/y", "b"];
const FILTERS: [&str; 4] = ["a/#", "a/x", "+", "#"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Step::Publish),
        1 => (0..4_u8).prop_map(Step::Subscribe),
        2 => (0..4_u8).prop_map(Step::Bring),
    ]
}

proptest! {
    /// Values of a topic never go back, and the last one arrives, however subscriptions overlap.
    #[test]
    fn never_older_after_newer(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        let (mut value, mut last) = (0, BTreeMap::new());
        for step in steps {
            match step {
                Step::Publish(topic) => {
                    value += 1;
                    let topic = TOPICS[usize::from(topic)];
                    world.publish(topic, value, true);
                    last.insert(topic, value);
                }
                Step::Subscribe(filter) => {
                    let filter = FILTERS[usize::from(filter)];
                    world.subscribe(filter);
                    // Between the two, others go on.
                    value += 1;
                    world.publish("a/x", value, true);
                    last.insert("a/x", value);
                    world.bring(1);
                    world.snapshot(filter);
                }
                Step::Bring(count) => world.bring(usize::from(count)),
            }
        }
        world.bring(usize::MAX);
        let mut newest = BTreeMap::new();
        for (topic, value, retain) in &world.got {
            let before = newest.insert(topic.as_str(), *value);
            // A further subscription tells the value once more.
            prop_assert!(before.is_none_or(|before| before < *value || (*retain && before == *value)));
        }
        for (topic, value) in last {
            if world.session.filters().any(|filter| topic::matches(filter, topic)) {
                prop_assert_eq!(newest.get(topic), Some(&value));
            }
        }
    }

    /// With one subscription, every later message arrives once, kept or not.
    #[test]
    fn everything_after_the_subscription_arrives(
        before in proptest::collection::vec((0..3_u8, any::<bool>()), 0..20),
        after in proptest::collection::vec((0..3_u8, any::<bool>()), 0..40),
        brought in 0..20_usize,
    ) {
        let mut world = World::new();
        let mut value = 0;
        let mut publish = |world: &World, (topic, retain): (u8, bool)| {
            value += 1;
            world.publish(TOPICS[usize::from(topic)], value, retain);
            value
        };
        for one in before {
            publish(&world, one);
        }
        world.subscribe("#");
        world.bring(brought);
        world.snapshot("#");
        let expected: Vec<u64> = after.into_iter().map(|one| publish(&world, one)).collect();
        world.bring(usize::MAX);
        let live = world.got.iter().filter(|(_, _, retain)| !retain);
        let live: Vec<u64> = live.map(|(_, value, _)| *value).collect();
        prop_assert_eq!(live, expected);
    }
}
