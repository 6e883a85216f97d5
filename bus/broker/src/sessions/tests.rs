//! A group of sessions that come, go and end: whatever they do, no message is lost as long as one of
//! them is left, and none is given to two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;

use bus::admin::Admin;
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::fanout::{Fanout, Link, Pending, Sink, Stopped};
use crate::message::{Draft, Message, Parts};
use crate::session::Terms;
use crate::store::Progress;
use crate::wire::{FilterRequest, Qos, RetainHandling, Version};

/// Groups do without.
struct NoFanout;

impl Fanout for NoFanout {
    fn publish(&self, _: Message) -> Result<(), Stopped> {
        Ok(())
    }

    fn attach(&self, _: Weak<dyn Sink>) -> Box<dyn Link> {
        unreachable!("nobody subscribes but in groups")
    }

    fn is_congested(&self) -> bool {
        false
    }

    fn relieved(&self) -> Pending<'_, ()> {
        Box::pin(async {})
    }
}

const SHARE: &str = "$share/g/a";
const MEMBERS: usize = 3;

#[derive(Default)]
struct Member {
    connection: Option<Opened>,
    /// Sent to it and not acknowledged.
    open: Vec<(u16, u32)>,
}

struct World {
    sessions: Sessions,
    exchange: Arc<Exchange>,
    members: [Member; MEMBERS],
    published: u32,
    acknowledged: BTreeMap<u32, usize>,
    /// May have come twice, because its connection was lost under way.
    doubtful: BTreeSet<u32>,
}

fn key(member: usize) -> String {
    format!("m{member}")
}

impl World {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new(&Admin::default()));
        let store: Arc<Store> = Arc::default();
        let exchange = Exchange::new(Arc::new(NoFanout), store.clone(), metrics.clone());
        let exchange = Arc::new(exchange);
        let bounds = Bounds {
            messages: 1000,
            bytes: 1_000_000,
        };
        Self {
            sessions: Sessions::new(bounds, 10, exchange.clone(), store, metrics),
            exchange,
            members: Default::default(),
            published: 0,
            acknowledged: BTreeMap::new(),
            doubtful: BTreeSet::new(),
        }
    }

    /// A member connects, and takes its connection over from before; with a clean start, the session
    /// before ends.
    fn connect(&mut self, member: usize, clean_start: bool) {
        let hour = Duration::from_secs(3600);
        let opened = self.sessions.open(&key(member), clean_start, hour);
        let opened = opened.unwrap_or_else(|_| panic!("room for all"));
        let handle = opened.handle.clone();
        let (window, version) = (2, Version::V5);
        handle.bind(opened.epoch, |session| {
            session.connect(Terms {
                version,
                window,
                maximum_packet: u32::MAX,
            });
        });
        let request = FilterRequest {
            filter: SHARE.to_owned(),
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        };
        let subscribe = |session: &mut crate::session::Session| {
            session.subscribe(request.clone(), None, 0, None);
        };
        handle.with(opened.epoch, subscribe).unwrap();
        self.exchange.join(&request, handle.joining()).unwrap();
        let open = std::mem::take(&mut self.members[member].open);
        self.doubtful.extend(open.iter().map(|(_, number)| number));
        self.members[member].connection = Some(opened);
    }

    /// Its session stays, and what it acknowledged not is sent again.
    fn leave(&mut self, member: usize) {
        let Some(opened) = self.members[member].connection.take() else {
            return;
        };
        let open = std::mem::take(&mut self.members[member].open);
        self.doubtful.extend(open.iter().map(|(_, number)| number));
        let now = bus::time::now();
        let key = key(member);
        self.sessions
            .close(&key, &opened.handle, opened.epoch, None, now);
    }

    /// It comes, and goes for ever.
    fn end(&mut self, member: usize) {
        self.connect(member, false);
        if let Some(opened) = &self.members[member].connection {
            self.sessions
                .set_expiry(&key(member), opened.epoch, Duration::ZERO);
        }
        self.leave(member);
    }

    fn publish(&mut self) {
        self.published += 1;
        let draft = Draft::new(&Parts {
            topic: "a",
            payload: &self.published.to_be_bytes(),
            qos: Qos::AtLeastOnce,
            retain: false,
            origin: 0,
            expires: None,
            properties: &[],
        });
        self.exchange.publish(draft).unwrap();
    }

    fn read(&mut self, member: usize) {
        let Some(opened) = &self.members[member].connection else {
            return;
        };
        let mut out = BytesMut::new();
        let poll = |session: &mut crate::session::Session| {
            session.poll_transmit(0, Progress::default(), usize::MAX, &mut out);
        };
        opened.handle.with(opened.epoch, poll).unwrap();
        for packet in out.chunks(12) {
            // First byte, length, topic, Packet Identifier, no properties, number.
            let pid = u16::from_be_bytes([packet[5], packet[6]]);
            let number = u32::from_be_bytes(packet[8..].try_into().unwrap());
            self.members[member].open.push((pid, number));
        }
    }

    fn acknowledge(&mut self, member: usize) {
        let Some(opened) = &self.members[member].connection else {
            return;
        };
        for (pid, number) in self.members[member].open.drain(..) {
            let puback = |session: &mut crate::session::Session| session.handle_puback(pid);
            opened.handle.with(opened.epoch, puback).unwrap();
            *self.acknowledged.entry(number).or_default() += 1;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Connect(usize, bool),
    Leave(usize),
    End(usize),
    Read(usize),
    Acknowledge(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..MEMBERS;
    // The first one's session never ends, so that there is always one.
    let mortal = 1..MEMBERS;
    prop_oneof![
        6 => Just(Step::Publish),
        1 => member.clone().prop_map(|member| Step::Connect(member, false)),
        1 => mortal.clone().prop_map(|member| Step::Connect(member, true)),
        1 => member.clone().prop_map(Step::Leave),
        1 => mortal.prop_map(Step::End),
        4 => member.clone().prop_map(Step::Read),
        3 => member.prop_map(Step::Acknowledge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]
    #[test]
    fn a_group_loses_nothing(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        world.connect(0, true);
        for step in steps {
            match step {
                Step::Publish => world.publish(),
                Step::Connect(member, clean_start) => world.connect(member, clean_start),
                Step::Leave(member) => world.leave(member),
                Step::End(member) => world.end(member),
                Step::Read(member) => world.read(member),
                Step::Acknowledge(member) => world.acknowledge(member),
            }
        }
        for member in 1..MEMBERS {
            world.end(member);
        }
        world.connect(0, false);
        for _ in 0..=world.published {
            world.read(0);
            world.acknowledge(0);
        }
        for number in 1..=world.published {
            let times = world.acknowledged.get(&number).copied().unwrap_or(0);
            prop_assert!(times >= 1, "{} was lost", number);
            prop_assert!(times == 1 || world.doubtful.contains(&number), "{} came twice", number);
        }
    }
}
