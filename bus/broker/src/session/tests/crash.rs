//! A kept session over connections and crashes: whatever is lost on the way, a message that was
//! acknowledged arrives, with QoS 2 once, and no Packet Identifier ever means two messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::kept::Kept;
use crate::store::{Flows, Ticket};

const TERMS: Terms = Terms {
    version: Version::V5,
    window: 3,
    maximum_packet: u32::MAX,
};

#[derive(Debug, Clone, Default)]
struct Disk {
    queued: BTreeMap<u64, Message>,
    sent: BTreeMap<u16, Option<u64>>,
}

#[derive(Debug)]
enum Write {
    Queue(Message),
    Note(Note),
}

impl Disk {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Queue(message) => {
                self.queued.insert(message.seq(), message);
            }
            Write::Note(Note::Sent(pid, seq)) => {
                self.sent.insert(pid, seq);
            }
            Write::Note(Note::Completed(pid)) => {
                self.sent.remove(&pid);
            }
            Write::Note(Note::Finished(seq)) => {
                self.queued.remove(&seq);
            }
        }
    }
}

/// The subscriber: takes a QoS 2 message on its PUBLISH, and again only after PUBREL.
#[derive(Debug, Default)]
struct Peer {
    received: BTreeSet<u16>,
    got: Vec<u8>,
    answers: VecDeque<(u8, u16)>,
}

impl Peer {
    fn handle(&mut self, (first, pid, payload): (u8, u16, u8)) {
        match first & 0xf6 {
            0x34 => {
                if self.received.insert(pid) {
                    self.got.push(payload);
                } else {
                    assert_eq!(first & 8, 8, "an identifier in use for a new message");
                }
                self.answers.push_back((0x50, pid));
            }
            0x32 => {
                self.got.push(payload);
                self.answers.push_back((0x40, pid));
            }
            0x62 => {
                self.received.remove(&pid);
                self.answers.push_back((0x70, pid));
            }
            other => panic!("{other:x}"),
        }
    }
}

struct World {
    session: Session,
    kept: Kept,
    disk: Disk,
    /// What is written and not committed, a ticket for each batch.
    writing: Vec<(u64, Write)>,
    ticket: u64,
    committed: u64,
    peer: Peer,
    /// On its way to the peer.
    packets: VecDeque<(u8, u16, u8)>,
    seq: u64,
}

impl World {
    fn new() -> Self {
        let mut session = Session::new(7, BOUNDS);
        session.track();
        session.subscribe(request("a", Qos::ExactlyOnce), None, 0, None);
        let kept = session.keep("k", 60, None);
        session.connect(TERMS);
        Self {
            session,
            kept,
            disk: Disk::default(),
            writing: Vec::new(),
            ticket: 1,
            committed: 0,
            peer: Peer::default(),
            packets: VecDeque::new(),
            seq: 0,
        }
    }

    fn settle(&mut self) {
        for note in self.session.take_notes() {
            self.writing.push((self.ticket, Write::Note(note)));
        }
        self.session.handle_written(Ticket::number(self.ticket));
    }

    /// The broker took a message, and acknowledges it once it is committed.
    fn publish(&mut self, qos: Qos) {
        self.seq += 1;
        let message = message(self.seq, "a", qos, false);
        self.writing
            .push((self.ticket, Write::Queue(message.clone())));
        self.session.handle_message(&message);
        self.settle();
    }

    fn commit(&mut self) {
        for (_, write) in self.writing.drain(..) {
            self.disk.apply(write);
        }
        self.committed = self.ticket;
        self.ticket += 1;
    }

    fn poll(&mut self) {
        let progress = Progress::at(self.committed);
        let mut out = BytesMut::new();
        self.session
            .poll_transmit(0, progress, usize::MAX, &mut out);
        self.settle();
        let mut rest = &out[..];
        while let [first, len, body @ ..] = rest {
            let (body, after) = body.split_at(usize::from(*len));
            let pid = if first & 0xf0 == 0x30 {
                &body[3..5]
            } else {
                &body[..2]
            };
            let pid = u16::from_be_bytes([pid[0], pid[1]]);
            self.packets.push_back((*first, pid, *body.last().unwrap()));
            rest = after;
        }
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some(packet) = self.packets.pop_front() else {
                return;
            };
            self.peer.handle(packet);
        }
    }

    fn answer(&mut self, count: usize) {
        for _ in 0..count {
            let Some((kind, pid)) = self.peer.answers.pop_front() else {
                return;
            };
            match kind {
                0x40 => self.session.handle_puback(pid),
                0x50 => self.session.handle_pubrec(pid, false, &mut BytesMut::new()),
                _ => self.session.handle_pubcomp(pid),
            }
            self.settle();
        }
    }

    fn lose_connection(&mut self) {
        self.packets.clear();
        self.peer.answers.clear();
        self.session.disconnect();
        self.kept = self.session.keep("k", 60, Some(0));
        self.settle();
        self.session.connect(TERMS);
    }

    /// The process dies, and the next one has what was committed.
    fn crash(&mut self) {
        self.packets.clear();
        self.peer.answers.clear();
        self.writing.clear();
        self.session = Session::new(7, BOUNDS);
        self.session.track();
        let disk = self.disk.clone();
        let flows = Flows {
            queued: disk.queued.into_values().collect(),
            received: Vec::new(),
            sent: disk.sent.into_iter().collect(),
        };
        self.session.restore(&self.kept, flows);
        self.settle();
        self.session.connect(TERMS);
    }

    fn finish(&mut self) {
        for _ in 0..200 {
            self.poll();
            self.deliver(usize::MAX);
            self.answer(usize::MAX);
            self.commit();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(bool),
    Poll,
    Deliver(usize),
    Answer(usize),
    Commit,
    LoseConnection,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(Step::Publish),
        4 => Just(Step::Poll),
        3 => (1..4_usize).prop_map(Step::Deliver),
        3 => (1..4_usize).prop_map(Step::Answer),
        3 => Just(Step::Commit),
        1 => Just(Step::LoseConnection),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn exactly_once_over_crashes(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        let (mut taken, mut promised, mut twice) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        // Only so many wait at a time that none is dropped.
        let mut room = 2 * BOUNDS.messages;
        for step in steps {
            match step {
                Step::Publish(_) if room == 0 => {}
                Step::Publish(is_twice) => {
                    room -= 1;
                    world.publish(if is_twice { Qos::ExactlyOnce } else { Qos::AtLeastOnce });
                    let seq = u8::try_from(world.seq).unwrap();
                    taken.insert(seq);
                    if is_twice {
                        twice.insert(seq);
                    }
                }
                Step::Poll => world.poll(),
                Step::Deliver(count) => world.deliver(count),
                Step::Answer(count) => world.answer(count),
                Step::Commit => {
                    world.commit();
                    promised.append(&mut taken);
                }
                Step::LoseConnection => world.lose_connection(),
                Step::Crash => {
                    // What was not committed was not acknowledged either.
                    taken.clear();
                    world.crash();
                }
            }
        }
        world.finish();
        for seq in promised {
            let times = world.peer.got.iter().filter(|&&got| got == seq).count();
            prop_assert!(times >= 1, "{} was lost", seq);
        }
        for seq in twice {
            let times = world.peer.got.iter().filter(|&&got| got == seq).count();
            prop_assert!(times <= 1, "{} came {} times", seq, times);
        }
        prop_assert!(world.disk.queued.is_empty() && world.disk.sent.is_empty());
        prop_assert!(world.peer.received.is_empty());
    }
}
