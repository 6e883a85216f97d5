//! Connections that come and go, to a broker that acknowledges in any order: nothing that was
//! accepted is lost, and the order stays.

use std::collections::BTreeMap;

use super::*;

/// What the broker may have in flight from us.
const RECEIVE_MAXIMUM: u16 = 3;

#[derive(Debug, Clone)]
enum Step {
    Push(Qos),
    /// So many bytes reach the broker.
    Up(usize),
    /// So many bytes reach the client.
    Down(usize),
    /// The broker acknowledges one of those in flight.
    Ack(usize),
    /// The broker sends a message.
    Message,
    /// The client fills its buffer.
    Publish(usize),
    Lose,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Push(Qos::AtLeastOnce)),
        1 => Just(Step::Push(Qos::AtMostOnce)),
        8 => (1..40usize).prop_map(Step::Up),
        8 => (1..12usize).prop_map(Step::Down),
        6 => (0..3usize).prop_map(Step::Ack),
        2 => Just(Step::Message),
        6 => (1..50usize).prop_map(Step::Publish),
        1 => Just(Step::Lose),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 0..300)
}

struct World {
    rig: Rig,
    /// On the way to the broker, and to the client.
    up: BytesMut,
    down: BytesMut,
    /// The broker has read CONNECT.
    is_open: bool,
    /// Packet Identifier and number of what the broker has not acknowledged.
    in_flight: BTreeMap<u16, usize>,
    /// Numbers of what came, over each connection.
    came: Vec<Vec<usize>>,
    pushed: usize,
    sure: Vec<usize>,
    /// Messages that are on the way to the client, or were lost with their connection.
    messages: usize,
}

impl World {
    fn new() -> Self {
        let mut this = Self {
            rig: Rig::opening(),
            up: BytesMut::new(),
            down: BytesMut::new(),
            is_open: false,
            in_flight: BTreeMap::new(),
            came: Vec::new(),
            pushed: 0,
            sure: Vec::new(),
            messages: 0,
        };
        this.lose();
        this
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Push(qos) => self.push(*qos),
            Step::Up(count) => self.up(*count),
            Step::Down(count) => self.down(*count),
            Step::Ack(at) => {
                if let Some(id) = self.in_flight.keys().nth(*at).copied() {
                    self.in_flight.remove(&id);
                    self.down
                        .extend(bytes(&Packet::PubAck(PubAck::new(id, None))));
                }
            }
            Step::Message if self.is_open => {
                self.messages += 1;
                self.down.extend(bytes(&publish(QoS::AtLeastOnce, 1, "x")));
            }
            Step::Message => {}
            Step::Publish(count) => {
                let refused = self.rig.connection.publish(&mut self.rig.outbox, *count);
                assert!(refused.is_empty());
            }
            Step::Lose => self.lose(),
            Step::Wait => self.rig.now += Duration::from_millis(1),
        }
    }

    fn push(&mut self, qos: Qos) {
        let publication = Publication {
            qos,
            ..publication(self.pushed)
        };
        self.rig.outbox.push(publication).unwrap();
        if qos == Qos::AtLeastOnce {
            self.sure.push(self.pushed);
        }
        self.pushed += 1;
    }

    fn up(&mut self, count: usize) {
        let bytes = self.rig.connection.transmit();
        let count = count.min(bytes.len());
        self.up.extend_from_slice(&bytes[..count]);
        self.rig.connection.handle_transmitted(count, self.rig.now);
        while let Ok(packet) = Packet::read(&mut self.up, None) {
            match packet {
                Packet::Connect(..) => self.open(),
                Packet::Publish(publish) => self.take(&publish),
                Packet::PubAck(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn open(&mut self) {
        let limits = ConnAckProperties {
            receive_max: Some(RECEIVE_MAXIMUM),
            ..properties()
        };
        self.is_open = true;
        self.down = bytes(&connack(ConnectReturnCode::Success, Some(limits)));
    }

    fn take(&mut self, publish: &Publish) {
        let number = std::str::from_utf8(&publish.payload).unwrap();
        let number = number.parse().unwrap();
        self.came.last_mut().unwrap().push(number);
        if publish.qos == QoS::AtLeastOnce {
            let before = self.in_flight.insert(publish.pkid, number);
            assert_eq!(before, None, "the identifier is in use");
            assert!(self.in_flight.len() <= usize::from(RECEIVE_MAXIMUM));
        }
    }

    fn down(&mut self, count: usize) {
        let bytes = self.down.split_to(count.min(self.down.len()));
        self.rig.connection.handle_data(&bytes, self.rig.now);
        while let Some(event) = self.rig.connection.poll_event().unwrap() {
            match event {
                Event::Connected => {}
                Event::Acknowledged(id, _) => assert!(self.rig.outbox.handle_ack(id).is_some()),
                Event::Message(_) => self.messages -= 1,
                Event::Unserved(..) => panic!("nothing was asked for"),
            }
        }
    }

    fn lose(&mut self) {
        let now = self.rig.now;
        self.rig.connection = Connection::new(&config(), now + 10 * SECOND, now);
        self.rig.outbox.handle_disconnect();
        self.up.clear();
        self.down.clear();
        self.is_open = false;
        self.in_flight.clear();
        self.came.push(Vec::new());
        self.messages = 0;
    }

    /// Goes on until all is acknowledged.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.rig.outbox.is_empty() && self.down.is_empty() {
                return;
            }
            let on = [
                Step::Publish(99),
                Step::Up(999),
                Step::Ack(0),
                Step::Down(999),
            ];
            on.iter().for_each(|step| self.step(step));
        }
        panic!("it does not come to an end");
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_whatever_the_network_does(steps in steps()) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.settle();
        for connection in &world.came {
            prop_assert!(connection.is_sorted_by(|a, b| a < b), "{:?}", connection);
        }
        let mut all: Vec<usize> = world.came.concat();
        all.sort_unstable();
        for number in &world.sure {
            prop_assert!(all.binary_search(number).is_ok(), "{} is lost", number);
        }
        prop_assert_eq!(world.messages, 0, "of the last connection all came");
    }
}
