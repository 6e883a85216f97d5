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

/// What a client was told of a topic: the number of the publication, and whether as retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    number: usize,
    retain: bool,
}

/// A subscription as a client asked for it.
#[derive(Debug, Clone)]
struct Asked {
    filter: &'static str,
    handling: RetainHandling,
    is_new: bool,
}

/// A subscription that stands.
#[derive(Debug)]
struct Standing {
    filter: &'static str,
    /// Publications before it.
    since: usize,
    /// Publications before its snapshot, the last one; 0 when there was none.
    snapshot: usize,
}

/// One session behind the exchange, as its connection and the fan-out drive it.
struct Client {
    session: Session,
    /// Publications that the fan-out has brought so far.
    brought: usize,
    /// Filters with the place in the fan-out from which on they bring messages.
    links: Vec<(&'static str, usize)>,
    /// The fan-out knows it, the exchange not yet.
    under_way: Option<Asked>,
    standing: Vec<Standing>,
    /// Filters that were given up, with the publications that their snapshots covered.
    covered: Vec<(&'static str, usize)>,
    told: BTreeMap<&'static str, Vec<Told>>,
}

impl Client {
    fn new(number: u64) -> Self {
        let bounds = Bounds {
            messages: 1_000_000,
            bytes: 1_000_000_000,
        };
        let mut session = Session::new(number, bounds);
        session.connect(Terms {
            version: Version::V5,
            window: u16::MAX,
            maximum_packet: u32::MAX,
        });
        Self {
            session,
            brought: 0,
            links: Vec::new(),
            under_way: None,
            standing: Vec::new(),
            covered: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// What comes out now, in order.
    fn read(&mut self) -> Vec<(&'static str, Told)> {
        let mut out = BytesMut::new();
        self.session
            .poll_transmit(0, Progress::default(), usize::MAX, &mut out);
        let (mut rest, mut read) = (&out[..], Vec::new());
        while let [first, len, body @ ..] = rest {
            let (body, after) = body.split_at(usize::from(*len));
            let topic_end = 2 + usize::from(body[1]);
            let name = std::str::from_utf8(&body[2..topic_end]).unwrap();
            let topic = TOPICS.into_iter().find(|topic| *topic == name).unwrap();
            let qos = first >> 1 & 3;
            let value = topic_end + if qos > 0 { 2 } else { 0 } + 1 + NUMBER_AT;
            let number = std::str::from_utf8(&body[value..value + 4]).unwrap();
            if qos > 0 {
                let pid = [body[topic_end], body[topic_end + 1]];
                self.session.handle_puback(u16::from_be_bytes(pid));
            }
            let told = Told {
                number: number.parse().unwrap(),
                retain: first & 1 == 1,
            };
            self.told.entry(topic).or_default().push(told);
            read.push((topic, told));
            rest = after;
        }
        read
    }
}

/// Where the number of a publication stands in its user property.
const NUMBER_AT: usize = 6;

/// A publication, as the model knows it.
#[derive(Debug)]
struct Publication {
    topic: &'static str,
    retain: bool,
    is_empty: bool,
}

struct World {
    exchange: Exchange,
    fanout: Arc<Slow>,
    /// By number, from 1.
    published: Vec<Publication>,
    clients: [Client; 2],
}

impl World {
    fn new() -> Self {
        let fanout = Arc::new(Slow::default());
        let metrics = Arc::new(Metrics::new(&Admin::default()));
        Self {
            exchange: Exchange::new(fanout.clone(), Arc::default(), metrics),
            fanout,
            published: Vec::new(),
            clients: [Client::new(1), Client::new(2)],
        }
    }

    fn publish(&mut self, topic: &'static str, retain: bool, is_empty: bool, qos: Qos) {
        self.published.push(Publication {
            topic,
            retain,
            is_empty,
        });
        let number = format!("{:04}", self.published.len());
        let property = [&b"\x26\0\x01n\0\x04"[..], number.as_bytes()].concat();
        let draft = Draft::new(&Parts {
            topic,
            payload: if is_empty { b"" } else { b"x" },
            qos,
            retain,
            origin: 0,
            expires: None,
            properties: &property,
        });
        self.exchange.publish(draft).unwrap();
    }

    /// The numbers of what is retained, as MQTT has it: the last of a topic that came with the flag,
    /// unless that was empty.
    fn retained(&self, filter: &str) -> Vec<(&'static str, Told)> {
        let mut last = BTreeMap::new();
        for (number, publication) in (1..).zip(&self.published) {
            if publication.retain {
                last.insert(publication.topic, (number, publication.is_empty));
            }
        }
        let matching = last
            .into_iter()
            .filter(|(topic, _)| topic::matches(filter, topic));
        matching
            .filter(|(_, (_, is_empty))| !is_empty)
            .map(|(topic, (number, _))| {
                (
                    topic,
                    Told {
                        number,
                        retain: true,
                    },
                )
            })
            .collect()
    }

    /// The fan-out knows the filter; the exchange hears of it some time later.
    fn begin(&mut self, client: usize, filter: &'static str, handling: RetainHandling) {
        self.complete(client);
        let at = self.published.len();
        let client = &mut self.clients[client];
        let is_new = !client.session.is_subscribed(filter);
        if is_new {
            client.links.push((filter, at));
        }
        client.under_way = Some(Asked {
            filter,
            handling,
            is_new,
        });
    }

    /// The exchange and the session know it too, and the client gets its snapshot: exactly what is
    /// retained.
    fn complete(&mut self, client: usize) {
        let Some(asked) = self.clients[client].under_way.take() else {
            return;
        };
        let request = FilterRequest {
            filter: asked.filter.to_owned(),
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: asked.handling,
        };
        let is_told = match asked.handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => asked.is_new,
            RetainHandling::Never => false,
        };
        let (at, messages) = self.exchange.subscribe(None, &request, is_told, 0);
        let expected = if is_told {
            self.retained(asked.filter)
        } else {
            Vec::new()
        };
        let now = self.published.len();
        let client = &mut self.clients[client];
        client.session.subscribe(request, None, at, messages);
        let mut told = client.read();
        told.sort_unstable();
        assert_eq!(told, expected, "{asked:?}");
        let snapshot = if is_told { now } else { 0 };
        let known = client
            .standing
            .iter_mut()
            .find(|s| s.filter == asked.filter);
        match known {
            Some(known) => known.snapshot = known.snapshot.max(snapshot),
            None => client.standing.push(Standing {
                filter: asked.filter,
                since: now,
                snapshot,
            }),
        }
    }

    fn unsubscribe(&mut self, client: usize, filter: &'static str) {
        self.complete(client);
        let client = &mut self.clients[client];
        client.session.unsubscribe(filter);
        client.links.retain(|(known, _)| *known != filter);
        let gone = client
            .standing
            .extract_if(.., |known| known.filter == filter);
        let covered = gone.map(|gone| (gone.filter, gone.snapshot));
        client.covered.extend(covered);
    }

    /// The fan-out brings up to `count` messages: each comes once, if a subscription stood before it
    /// and no snapshot told what is newer.
    fn bring(&mut self, client: usize, count: usize) {
        let messages = self.fanout.0.lock().unwrap().clone();
        let client = &mut self.clients[client];
        let due = messages.iter().enumerate().skip(client.brought).take(count);
        for (at, message) in due {
            client.brought += 1;
            let publication = &self.published[at];
            let asks = |filter: &str| topic::matches(filter, publication.topic);
            if client
                .links
                .iter()
                .any(|&(filter, from)| from <= at && asks(filter))
            {
                client.session.handle_message(message);
            }
            let number = at + 1;
            let mut standing = client
                .standing
                .iter()
                .filter(|standing| asks(standing.filter));
            let snapshots = standing.clone().map(|standing| standing.snapshot);
            let covered = client.covered.iter().filter(|(filter, _)| asks(filter));
            let mut snapshots = snapshots.chain(covered.map(|(_, snapshot)| *snapshot));
            let is_told = publication.retain && snapshots.any(|snapshot| number <= snapshot);
            let is_due = !is_told && standing.any(|standing| standing.since < number);
            let told = Told {
                number,
                retain: false,
            };
            let expected = is_due.then_some((publication.topic, told));
            assert_eq!(client.read(), Vec::from_iter(expected));
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
    Publish(usize, bool, bool, bool),
    Subscribe(usize, usize, RetainHandling),
    Complete(usize),
    Unsubscribe(usize, usize),
    Bring(usize, usize),
}

const TOPICS: [&str; 3] = ["a/x", "a/y", "b"];
const FILTERS: [&str; 4] = ["a/#", "a/x", "+", "#"];

fn step() -> impl Strategy<Value = Step> {
    let handling = prop_oneof![
        2 => Just(RetainHandling::Always),
        1 => Just(RetainHandling::IfNew),
        1 => Just(RetainHandling::Never),
    ];
    let publish = (
        0..3_usize,
        any::<bool>(),
        prop::bool::weighted(0.2),
        any::<bool>(),
    );
    prop_oneof![
        6 => publish.prop_map(|(topic, retain, empty, qos)| Step::Publish(topic, retain, empty, qos)),
        3 => (0..2_usize, 0..4_usize, handling).prop_map(|(c, f, h)| Step::Subscribe(c, f, h)),
        2 => (0..2_usize).prop_map(Step::Complete),
        1 => (0..2_usize, 0..4_usize).prop_map(|(c, f)| Step::Unsubscribe(c, f)),
        5 => (0..2_usize, 0..4_usize).prop_map(|(c, n)| Step::Bring(c, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    /// In whatever order publishers, subscribers and the fan-out have their turns, each message comes
    /// once, a snapshot is what is retained then, and what a topic retained never goes back.
    #[test]
    fn snapshot_then_live(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Publish(topic, retain, is_empty, is_promised) => {
                    let qos = if is_promised { Qos::AtLeastOnce } else { Qos::AtMostOnce };
                    world.publish(TOPICS[topic], retain, is_empty, qos);
                }
                Step::Subscribe(client, filter, handling) => {
                    world.begin(client, FILTERS[filter], handling);
                }
                Step::Complete(client) => world.complete(client),
                Step::Unsubscribe(client, filter) => world.unsubscribe(client, FILTERS[filter]),
                Step::Bring(client, count) => world.bring(client, count),
            }
        }
        for client in 0..2 {
            world.complete(client);
            world.bring(client, usize::MAX);
        }
        let was_kept = |told: &&Told| world.published[told.number - 1].retain;
        for told in world.clients.iter().flat_map(|client| client.told.values()) {
            let kept: Vec<Told> = told.iter().filter(was_kept).copied().collect();
            for pair in kept.windows(2) {
                // A further subscription tells the value once more.
                let again = pair[0].number == pair[1].number && pair[1].retain;
                prop_assert!(pair[0].number < pair[1].number || again, "{:?}", told);
            }
        }
    }
}
