//! A session against a broker of a few lines, over TCP on loopback.

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::session::{BusUrl, Publication, PublishError};

/// Less than the keep alive, after which everything moves.
const PATIENCE: Duration = Duration::from_secs(12);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it takes too long")
}

fn publication(n: usize) -> Publication {
    Publication::passing("t".to_owned(), n.to_string())
}

struct Rig {
    listener: TcpListener,
    session: Session,
    inbox: Inbox,
    _shutdown: Shutdown,
}

impl Rig {
    async fn start(filters: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mqtt://{}", listener.local_addr().unwrap());
        let url: BusUrl = url.parse().unwrap();
        let mut config = SessionConfig::new(url, "none".into(), "s".to_owned());
        config.filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let shutdown = Shutdown::new();
        let (session, inbox) = start(config, &Admin::default(), &shutdown).unwrap();
        Self {
            listener,
            session,
            inbox,
            _shutdown: shutdown,
        }
    }

    /// The next connection, not answered yet.
    async fn accept(&self) -> Peer {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        let mut peer = Peer {
            stream,
            input: BytesMut::new(),
        };
        assert!(matches!(peer.read().await, Some(Packet::Connect(..))));
        peer
    }

    /// The next connection, taken.
    async fn connect(&mut self) -> Peer {
        let mut peer = self.accept().await;
        peer.answer(ConnectReturnCode::Success).await;
        assert_eq!(self.event().await, SessionEvent::Connected);
        peer
    }

    async fn event(&mut self) -> SessionEvent {
        soon(self.inbox.recv()).await.unwrap()
    }

    fn publish(&self, numbers: std::ops::Range<usize>) -> crate::session::Ticket {
        let tickets = numbers.map(|n| self.session.try_publish(publication(n)).unwrap());
        tickets.last().unwrap()
    }
}

/// The broker's end of a connection.
struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

impl Peer {
    /// The next packet; none at the end, of which DISCONNECT is one.
    async fn read(&mut self) -> Option<Packet> {
        loop {
            if self.input.starts_with(&[0xe0, 0]) {
                return None;
            }
            if let Ok(packet) = Packet::read(&mut self.input, None) {
                return Some(packet);
            }
            let count = soon(self.stream.read_buf(&mut self.input)).await.unwrap();
            assert!(count > 0, "closed without DISCONNECT");
        }
    }

    /// The next publication; gives its Packet Identifier and number.
    async fn publication(&mut self) -> (u16, usize) {
        loop {
            match self.read().await {
                Some(Packet::Publish(publish)) => {
                    let number = std::str::from_utf8(&publish.payload).unwrap();
                    return (publish.pkid, number.parse().unwrap());
                }
                Some(Packet::PubAck(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn write(&mut self, packets: impl IntoIterator<Item = Packet>) {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet.write(&mut bytes, None).unwrap();
        }
        soon(self.stream.write_all(&bytes)).await.unwrap();
    }

    async fn answer(&mut self, code: ConnectReturnCode) {
        let ack = ConnAck {
            session_present: false,
            code,
            properties: None,
        };
        self.write([Packet::ConnAck(ack)]).await;
    }

    async fn ack(&mut self, id: u16) {
        self.write([Packet::PubAck(PubAck::new(id, None))]).await;
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_in_order() {
    let mut rig = Rig::start(&["f"]).await;
    let last = rig.publish(0..3);
    let mut peer = rig.connect().await;
    assert!(matches!(peer.read().await, Some(Packet::Subscribe(_))));
    let mut ids = Vec::new();
    for n in 0..3 {
        let (id, number) = peer.publication().await;
        assert_eq!(number, n);
        ids.push(id);
    }
    peer.ack(ids[1]).await;
    // The answer to the end of a packet that never comes.
    soon(peer.stream.write_all(&[0x30, 9, 0])).await.unwrap();
    drop(peer);
    let SessionEvent::Disconnected { reason } = rig.event().await else {
        panic!("still connected");
    };
    assert_eq!(reason, "the bus closed the connection");

    rig.publish(3..4);
    let mut peer = rig.connect().await;
    assert!(matches!(peer.read().await, Some(Packet::Subscribe(_))));
    for n in [0, 2] {
        assert!(!rig.session.is_done(last));
        let (id, number) = peer.publication().await;
        assert_eq!(number, n);
        peer.ack(id).await;
    }
    soon(rig.session.done(last)).await;
    assert_eq!(peer.publication().await.1, 3);
}

#[tokio::test]
async fn what_is_published_after_a_pause_leaves_at_once() {
    let mut rig = Rig::start(&[]).await;
    let mut peer = rig.connect().await;
    // All of them within the time in which one would leave by itself, with the next deadline.
    let all = async {
        for n in 0..5 {
            let ticket = rig.publish(n..n + 1);
            let (id, number) = peer.publication().await;
            assert_eq!(number, n);
            peer.ack(id).await;
            rig.session.done(ticket).await;
        }
    };
    soon(all).await;
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    let mut rig = Rig::start(&[]).await;
    for _ in 0..2 {
        let mut peer = rig.accept().await;
        peer.answer(ConnectReturnCode::ServerBusy).await;
    }
    rig.connect().await;
}

#[tokio::test]
async fn what_waits_can_be_taken_back_only_while_there_is_no_connection() {
    let mut rig = Rig::start(&[]).await;
    let mut peer = rig.connect().await;
    let ticket = rig.publish(0..1);
    peer.publication().await;
    assert_eq!(rig.session.take_back(), None);
    drop(peer);
    assert!(matches!(
        rig.event().await,
        SessionEvent::Disconnected { .. }
    ));
    let taken = rig.session.take_back().unwrap();
    assert_eq!(taken, [(ticket, publication(0))]);
    soon(rig.session.done(ticket)).await;
}

#[tokio::test]
async fn the_end_waits_for_acknowledgements_and_says_disconnect() {
    let mut rig = Rig::start(&[]).await;
    let mut peer = rig.connect().await;
    rig.publish(0..2);
    let (session, broker) = (rig.session.clone(), async {
        let ids = [peer.publication().await.0, peer.publication().await.0];
        assert_eq!(
            rig.session.try_publish(publication(2)),
            Err(PublishError::Closed)
        );
        for id in ids {
            peer.ack(id).await;
        }
        assert_eq!(peer.read().await, None);
        // The broker closes when it likes.
        assert_eq!(peer.stream.read(&mut [0; 9]).await.unwrap(), 0);
    });
    soon(async { tokio::join!(biased; session.close(), broker) }).await;
    assert_eq!(soon(rig.inbox.recv()).await, None);
}

#[tokio::test]
async fn a_session_without_a_connection_ends_at_once() {
    let rig = Rig::start(&[]).await;
    rig.publish(0..1);
    soon(rig.session.close()).await;
}

#[tokio::test]
async fn the_outbox_has_room_again_once_the_oldest_is_acknowledged() {
    let mut rig = Rig::start(&[]).await;
    rig.publish(0..crate::session::outbox::CAPACITY);
    assert!(!rig.session.has_room());
    let mut peer = rig.connect().await;
    let (room, ack) = (rig.session.room(), async {
        let (id, _) = peer.publication().await;
        peer.ack(id).await;
    });
    soon(async { tokio::join!(room, ack) }).await;
    assert!(rig.session.has_room());
}

#[tokio::test]
async fn publications_leave_while_nobody_takes_messages() {
    let mut rig = Rig::start(&[]).await;
    let mut peer = rig.connect().await;
    let count = 3 * INBOX;
    let message = |n: usize| {
        let mut publish = Publish::new("in", QoS::AtLeastOnce, n.to_string(), None);
        publish.pkid = u16::try_from(n + 1).unwrap();
        Packet::Publish(publish)
    };
    peer.write((0..count).map(message)).await;
    // So many are taken; the rest waits.
    for n in 0..=INBOX {
        let packet = peer.read().await;
        let Some(Packet::PubAck(ack)) = packet else {
            panic!("{packet:?}");
        };
        assert_eq!(usize::from(ack.pkid), n + 1);
    }
    let last = rig.publish(0..5000);
    for n in 0..5000 {
        let (id, number) = peer.publication().await;
        assert_eq!(number, n);
        peer.ack(id).await;
    }
    assert!(!rig.session.is_done(last), "the acknowledgements wait too");
    for n in 0..count {
        let SessionEvent::Message(message) = rig.event().await else {
            panic!("no message");
        };
        assert_eq!(message.payload, n.to_string());
    }
    soon(rig.session.done(last)).await;
}

#[tokio::test]
async fn subscriptions_change_while_connected_and_last() {
    let mut rig = Rig::start(&["a", "b"]).await;
    let mut peer = rig.connect().await;
    rig.session.unsubscribe("a");
    rig.session.subscribe("c");
    rig.session.subscribe("c");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(match peer.read().await {
            Some(Packet::Subscribe(packet)) => format!("+{}", packet.filters[0].path),
            Some(Packet::Unsubscribe(packet)) => format!("-{}", packet.filters[0]),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["+a", "+b", "-a", "+c"]);
    drop(peer);
    assert!(matches!(
        rig.event().await,
        SessionEvent::Disconnected { .. }
    ));
    let mut peer = rig.connect().await;
    for filter in ["b", "c"] {
        let packet = peer.read().await;
        let Some(Packet::Subscribe(packet)) = packet else {
            panic!("{packet:?}");
        };
        assert_eq!(packet.filters[0].path, filter);
    }
}
