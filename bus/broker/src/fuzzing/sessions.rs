//! What three clients do, one step after the other, against what each of them is owed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Script;
use super::peer::{Got, Peer, connect, packet, string};
use super::world::{World, run};
use crate::topic;

const CLIENTS: [&str; 3] = ["x", "y", "z"];
const TOPICS: [&str; 6] = ["a/b", "a/c", "a", "c", "b/b", "/"];
const FILTERS: [&str; 9] = [
    "#",
    "a/#",
    "a/+",
    "a/b",
    "+/b",
    "c",
    "+/+",
    "$share/g/a/+",
    "$share/g/#",
];

/// Time passes, but not so much that a session ends.
const WHILE: Duration = Duration::from_secs(50);
/// Session Expiry Interval, seconds.
const EXPIRY: [u8; 4] = [0, 0, 0, 200];

struct Subscription {
    filter: &'static str,
    qos: u8,
    no_local: bool,
}

/// A session as its client sees it.
#[derive(Default)]
struct Session {
    is_kept: bool,
    subscriptions: Vec<Subscription>,
    /// Filters that it ever asked for.
    asked: BTreeSet<&'static str>,
    /// Messages that the broker promised to deliver.
    owed: BTreeSet<u32>,
    /// Messages that came.
    seen: BTreeSet<u32>,
}

impl Session {
    /// Whether a message is promised to it. Of a group, one session gets it.
    fn is_owed(&self, name: &str, qos: u8, is_own: bool) -> bool {
        let mut subscriptions = self.subscriptions.iter();
        qos > 0
            && subscriptions.any(|known| {
                known.qos > 0
                    && !(known.no_local && is_own)
                    && topic::shared(known.filter).is_none()
                    && topic::matches(known.filter, name)
            })
    }

    fn take(&mut self, name: &str, payload: &[u8]) {
        let mut asked = self.asked.iter();
        assert!(
            asked.any(|filter| topic::matches(topic::unshared(filter), name)),
            "{name} was not asked for"
        );
        if let Ok(value) = payload.try_into() {
            self.seen.insert(u32::from_be_bytes(value));
        }
    }

    fn is_content(&self, client: &str) {
        let missing: Vec<_> = self.owed.difference(&self.seen).collect();
        assert!(missing.is_empty(), "{client} never got {missing:?}");
    }
}

#[derive(Default)]
struct Client {
    peer: Option<Peer>,
    session: Option<Session>,
    /// Receive Maximum.
    window: usize,
    last_pid: u16,
}

impl Client {
    fn next_pid(&mut self) -> u16 {
        self.last_pid = self.last_pid.checked_add(1).unwrap_or(1);
        self.last_pid
    }

    /// Takes account of what came.
    fn note(&mut self) {
        let (Some(peer), Some(session)) = (&mut self.peer, &mut self.session) else {
            return;
        };
        for got in &peer.got {
            if let Got::Publish { topic, payload } = got {
                session.take(topic, payload);
            }
        }
        let count = peer.unacknowledged.len();
        assert!(
            count <= self.window,
            "{count} messages in a window of {}",
            self.window
        );
    }

    /// The connection is gone.
    fn left(&mut self) {
        self.peer = None;
        if self
            .session
            .as_ref()
            .is_some_and(|session| !session.is_kept)
        {
            self.session = None;
        }
    }
}

struct Play<'a> {
    world: &'a World,
    clients: [Client; 3],
    last_value: u32,
}

/// Every byte or two is a step of one of three clients.
///
/// # Panics
/// When something panics, when the broker says what is no MQTT, or when a client does not get what
/// it is owed.
pub fn sessions(data: &[u8]) {
    run(async |world| {
        let mut play = Play {
            world,
            clients: Default::default(),
            last_value: 0,
        };
        let mut script = Script(data);
        while play.step(&mut script).await.is_some() {}
        play.end().await;
    });
}

impl Play<'_> {
    async fn step(&mut self, script: &mut Script<'_>) -> Option<()> {
        let step = script.byte()?;
        let who = usize::from(step & 3) % CLIENTS.len();
        match (step >> 2) % 10 {
            0 => self.connect(who, script.byte()?).await,
            1 | 2 => {
                let filter = script.pick(&FILTERS)?;
                self.subscribe(who, filter, script.byte()?).await;
            }
            3 => self.unsubscribe(who, script.pick(&FILTERS)?).await,
            4 | 5 => {
                let name = script.pick(&TOPICS)?;
                self.publish(who, name, script.byte()?).await;
            }
            6 => {
                if let Some(peer) = &mut self.clients[who].peer {
                    peer.is_prompt = false;
                }
            }
            7 => {
                if let Some(peer) = &mut self.clients[who].peer {
                    peer.catch_up().await;
                }
            }
            8 => self.leave(who, script.byte()?).await,
            _ => self.confuse(who, script.byte()?).await,
        }
        self.settle().await;
        Some(())
    }

    async fn settle(&mut self) {
        let peers = self.clients.iter_mut();
        let mut peers: Vec<&mut Peer> = peers.filter_map(|c| c.peer.as_mut()).collect();
        self.world.settle(&mut peers).await;
        for client in &mut self.clients {
            client.note();
            if let Some(peer) = &mut client.peer {
                peer.got.clear();
                if !peer.is_open {
                    client.left();
                }
            }
        }
    }

    /// Connects, perhaps while an earlier connection is there.
    async fn connect(&mut self, who: usize, how: u8) {
        let level = if how & 1 == 0 { 4 } else { 5 };
        let (is_clean, is_small) = (how & 2 != 0, how & 8 != 0);
        let is_kept = if level == 4 { !is_clean } else { how & 4 != 0 };
        let mut properties = Vec::new();
        if is_kept {
            properties.extend([&[0x11][..], &EXPIRY].concat());
        }
        if is_small {
            properties.extend([0x21, 0, 2]);
        }
        let mut payload = string(CLIENTS[who]);
        let mut flags = u8::from(is_clean) << 1;
        if how & 16 != 0 {
            flags |= 0b0010_1100;
            // A Will Delay Interval of 20 seconds.
            let delay: &[u8] = if level == 5 {
                &[5, 0x18, 0, 0, 0, 20]
            } else {
                &[]
            };
            payload.extend([delay, &string("c"), &string("gone")].concat());
        }
        let client = &mut self.clients[who];
        let mut before = client.peer.take();
        let mut peer = self.world.connect();
        peer.level = level;
        peer.is_prompt = how & 32 != 0;
        peer.send(&connect(level, flags, &properties, &payload))
            .await;
        // Who was there hears of it; what it is sent meanwhile counts.
        let mut peers: Vec<&mut Peer> = before.iter_mut().chain([&mut peer]).collect();
        self.world.settle(&mut peers).await;
        if let Some(before) = before {
            assert!(!before.is_open, "it was taken over");
            client.peer = Some(before);
            client.note();
            client.left();
        }
        let is_present = client.session.is_some() && !is_clean;
        let first = peer.got.pop_front();
        assert_eq!(
            first,
            Some(Got::Connack {
                is_present,
                code: 0
            })
        );
        if !is_present {
            client.session = Some(Session::default());
        }
        if let Some(session) = &mut client.session {
            session.is_kept = is_kept;
        }
        let is_bounded = level == 5 && is_small;
        client.window = if is_bounded { 2 } else { usize::from(u16::MAX) };
        client.peer = Some(peer);
    }

    async fn subscribe(&mut self, who: usize, filter: &'static str, how: u8) {
        let client = &mut self.clients[who];
        let pid = client.next_pid();
        let (Some(peer), Some(session)) = (&mut client.peer, &mut client.session) else {
            return;
        };
        let (qos, handling) = ((how & 3) % 3, (how >> 4 & 3) % 3);
        let no_local = peer.level == 5 && how & 4 != 0 && topic::shared(filter).is_none();
        let (properties, options) = if peer.level == 5 {
            let options = qos | u8::from(no_local) << 2 | (how & 8) | handling << 4;
            (&[0][..], options)
        } else {
            (&[][..], qos)
        };
        let body = [&pid.to_be_bytes(), properties, &string(filter), &[options]].concat();
        // Before the answer, so that what comes first is known to be asked for.
        session.asked.insert(filter);
        peer.send(&packet(0x82, &body)).await;
        self.world.settle(&mut [peer]).await;
        let granted = peer.got.iter().any(|got| *got == Got::Suback(vec![qos]));
        assert!(
            granted || !peer.is_open,
            "{filter} was not granted: {:?}",
            peer.got
        );
        session.subscriptions.retain(|known| known.filter != filter);
        session.subscriptions.push(Subscription {
            filter,
            qos,
            no_local,
        });
    }

    async fn unsubscribe(&mut self, who: usize, filter: &'static str) {
        let client = &mut self.clients[who];
        let pid = client.next_pid();
        let (Some(peer), Some(session)) = (&mut client.peer, &mut client.session) else {
            return;
        };
        let properties: &[u8] = if peer.level == 5 { &[0] } else { &[] };
        let body = [&pid.to_be_bytes(), properties, &string(filter)].concat();
        peer.send(&packet(0xa2, &body)).await;
        session.subscriptions.retain(|known| known.filter != filter);
    }

    async fn publish(&mut self, who: usize, name: &str, how: u8) {
        let (qos, retain) = ((how & 3) % 3, how >> 2 & 1);
        let client = &mut self.clients[who];
        let pid = client.next_pid();
        let Some(peer) = &mut client.peer else { return };
        self.last_value += 1;
        let value = self.last_value;
        let mut body = string(name);
        if qos > 0 {
            body.extend(pid.to_be_bytes());
        }
        if peer.level == 5 {
            body.push(0);
        }
        // An empty one removes what is retained.
        if how & 8 == 0 {
            body.extend(value.to_be_bytes());
        }
        let first = 0x30 | qos << 1 | retain;
        peer.send(&packet(first, &body)).await;
        self.world.settle(&mut [peer]).await;
        let done = match qos {
            1 => peer.got.contains(&Got::Puback(pid)),
            2 => peer.got.contains(&Got::Pubcomp(pid)),
            _ => true,
        };
        assert!(done || !peer.is_open, "not acknowledged: {:?}", peer.got);
        if how & 8 != 0 {
            return;
        }
        for (other, client) in self.clients.iter_mut().enumerate() {
            if let Some(session) = &mut client.session
                && session.is_owed(name, qos, other == who)
            {
                session.owed.insert(value);
            }
        }
    }

    /// Goes, with a word or without.
    async fn leave(&mut self, who: usize, how: u8) {
        let client = &mut self.clients[who];
        if let Some(peer) = &mut client.peer {
            match (how & 3, peer.level) {
                (0, _) => {}
                (1, 5) => peer.send(&[0xe0, 1, 4]).await,
                _ => peer.send(&[0xe0, 0]).await,
            }
            self.world.settle(&mut [peer]).await;
            client.note();
            client.left();
        }
        if how & 4 != 0 {
            let later = bus::time::now().after(WHILE);
            let broker = &self.world.broker;
            for (will, origin) in broker.sessions.handle_timeout(later.mono) {
                broker.publish_will(will, origin, later);
            }
            broker.exchange.handle_timeout(later.wall.unix_millis());
        }
    }

    /// Acknowledges what may be no message of anybody.
    async fn confuse(&mut self, who: usize, how: u8) {
        if let Some(peer) = &mut self.clients[who].peer {
            let first = [0x40, 0x50, 0x62, 0x70][usize::from(how & 3)];
            let pid = u16::from(how >> 2) + 1;
            // What is acknowledged does not come again.
            peer.unacknowledged.retain(|&(known, qos)| {
                let is_ended = matches!((first, qos), (0x40, 1) | (0x70, 2));
                known != pid || !is_ended
            });
            let [high, low] = pid.to_be_bytes();
            peer.send(&[first, 2, high, low]).await;
        }
    }

    /// Everybody comes back and gets what is left for it.
    async fn end(&mut self) {
        for (who, id) in CLIENTS.into_iter().enumerate() {
            let is_kept = |session: &Session| session.is_kept;
            if self.clients[who].session.as_ref().is_some_and(is_kept) {
                // MQTT 5, kept, prompt.
                self.connect(who, 0b10_0101).await;
            } else if let Some(peer) = &mut self.clients[who].peer {
                peer.catch_up().await;
            }
            self.settle().await;
            if let Some(session) = &self.clients[who].session {
                session.is_content(id);
            }
        }
    }
}
