//! The task around rumqttc's event loop.
//!
//! rumqttc's `poll` is not cancel safe, so nothing here drops it half-way while the session lives:
//! publishers put their packets into rumqttc's own request channel, and this task only polls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, LastWill, Packet, PubAck, PubAckReason, Publish, PublishProperties,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions, MqttState};
use rumqttc::{NetworkOptions, Outgoing, Transport};
use tokio::sync::{Notify, mpsc};

use super::identity::SessionIdentity;
use super::outbox::{CAPACITY, Outbox, Ticket};
use super::{Message, Publication, PublishError, Qos, SessionConfig, SessionError, SessionEvent};
use crate::admin::Admin;
use crate::shutdown::Shutdown;
use crate::watch::Watch;

/// Unacknowledged publications on the wire; rumqttc reserves about 200 bytes for each.
const INFLIGHT: u16 = 8192;
/// Room in rumqttc's channel beside the outbox, for subscriptions and DISCONNECT.
const CONTROL: usize = 1024;
/// Events that wait for the owner; full means that nothing more is read from the broker.
const INBOX: usize = 1024;
/// The largest packet either way.
const MAX_PACKET: u32 = 1024 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT_SECONDS: u64 = 10;
const MIN_BACK_OFF: Duration = Duration::from_millis(250);
const MAX_BACK_OFF: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
struct State {
    outbox: Outbox,
    filters: Vec<String>,
    connected: bool,
    /// A DISCONNECT is under way only to connect anew with a renewed certificate.
    renewing: bool,
    closing: bool,
    ended: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    client: AsyncClient,
    /// Woken when the outbox shrinks from full, and when the session ends.
    changed: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a publication to the wire. The channel has room for the whole outbox, so a refusal can
    /// only mean that the event loop is gone, and then the session ends anyway.
    fn hand(&self, publication: &Publication) {
        let Publication {
            topic,
            payload,
            qos,
            retain,
            ..
        } = publication.clone();
        let qos = match qos {
            Qos::AtMostOnce => QoS::AtMostOnce,
            Qos::AtLeastOnce => QoS::AtLeastOnce,
        };
        let sent = match properties(publication) {
            Some(properties) => self
                .client
                .try_publish_with_properties(topic, qos, retain, payload, properties),
            None => self.client.try_publish(topic, qos, retain, payload),
        };
        if sent.is_err() {
            tracing::error!("the MQTT client takes no more requests");
        }
    }

    fn control(&self, request: impl FnOnce(&AsyncClient) -> bool) {
        if !request(&self.client) {
            tracing::error!("the MQTT client takes no more requests");
        }
    }
}

fn properties(publication: &Publication) -> Option<PublishProperties> {
    let Publication {
        response_topic,
        correlation,
        expiry,
        ..
    } = publication;
    if response_topic.is_none() && correlation.is_none() && expiry.is_none() {
        return None;
    }
    Some(PublishProperties {
        message_expiry_interval: *expiry,
        response_topic: response_topic.clone(),
        correlation_data: correlation.clone(),
        ..PublishProperties::default()
    })
}

/// The sending end of a session. Clones share it.
#[derive(Debug, Clone)]
pub struct Session(Arc<Shared>);

impl Session {
    /// Takes a publication: from here on it reaches the broker, over as many connections as it takes.
    ///
    /// # Errors
    /// The outbox is full, the session has ended, or the topic is not valid.
    pub fn try_publish(&self, publication: Publication) -> Result<Ticket, PublishError> {
        if !rumqttc::valid_topic(&publication.topic) || publication.topic.is_empty() {
            return Err(PublishError::Topic);
        }
        let mut state = self.0.state();
        if state.ended || state.closing {
            return Err(PublishError::Closed);
        }
        if state.outbox.is_full() {
            return Err(PublishError::Full);
        }
        let connected = state.connected;
        if connected {
            self.0.hand(&publication);
        }
        let pushed = state.outbox.push(publication, connected);
        pushed.ok_or(PublishError::Full)
    }

    /// Whether this publication and all that were taken before it are acknowledged.
    #[must_use]
    pub fn is_done(&self, ticket: Ticket) -> bool {
        self.0.state().outbox.is_done(ticket)
    }

    /// Completes when this publication and all before it are acknowledged or taken back, or the
    /// session has ended. Cancel safe.
    pub async fn done(&self, ticket: Ticket) {
        self.until(|state| state.ended || state.outbox.is_done(ticket))
            .await;
    }

    /// Gives back what is not acknowledged, oldest first, for an owner that keeps it elsewhere while
    /// the broker is away; none while there is a connection, over which it is on its way.
    #[must_use]
    pub fn take_back(&self) -> Option<Vec<(Ticket, Publication)>> {
        let mut state = self.0.state();
        if state.connected {
            return None;
        }
        let taken = state.outbox.take_back();
        drop(state);
        self.0.changed.notify_waiters();
        Some(taken)
    }

    /// Whether the outbox has room now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.0.state().outbox.is_full()
    }

    /// Completes when the outbox has room or the session has ended. Cancel safe.
    pub async fn room(&self) {
        self.until(|state| state.ended || !state.outbox.is_full())
            .await;
    }

    /// Subscribes to a further filter, now and after each connect, with QoS 1.
    pub fn subscribe(&self, filter: &str) {
        let mut state = self.0.state();
        if state.filters.iter().any(|known| known == filter) {
            return;
        }
        state.filters.push(filter.to_owned());
        if state.connected {
            self.0
                .control(|client| client.try_subscribe(filter, QoS::AtLeastOnce).is_ok());
        }
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, filter: &str) {
        let mut state = self.0.state();
        state.filters.retain(|known| known != filter);
        if state.connected {
            self.0
                .control(|client| client.try_unsubscribe(filter).is_ok());
        }
    }

    /// Ends the session: waits until everything taken is acknowledged, then sends DISCONNECT, so
    /// that the Will stays silent. Ends at once when there is no connection.
    ///
    /// Cancel safe: the session goes on closing.
    pub async fn close(&self) {
        {
            let mut state = self.0.state();
            state.closing = true;
            if state.renewing {
                // It leaves once it is back: the DISCONNECT has silenced the Will.
            } else if !state.connected {
                state.ended = true;
            } else if state.outbox.is_empty() {
                self.0.control(|client| client.try_disconnect().is_ok());
            }
        }
        self.0.changed.notify_waiters();
        self.until(|state| state.ended).await;
    }

    /// Leaves the bus and comes back, with what the files of the identity hold by then.
    fn renew(&self) {
        let mut state = self.0.state();
        if state.connected && !state.closing && !state.renewing {
            state.renewing = true;
            self.0.control(|client| client.try_disconnect().is_ok());
        }
    }

    async fn until(&self, done: impl Fn(&State) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(&self.0.state()) {
                return;
            }
            changed.await;
        }
    }
}

/// The receiving end of a session.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<SessionEvent>);

impl Inbox {
    /// The next event; none when the session has ended. Cancel safe.
    ///
    /// While nobody receives, the session reads no further packets: never wait for
    /// [`Session::room`] or [`Session::close`] without receiving here too.
    pub async fn recv(&mut self) -> Option<SessionEvent> {
        self.0.recv().await
    }
}

/// Starts a session; it connects by itself and stays connected until it is closed. `admin` is told
/// until when its certificate is valid.
///
/// # Errors
/// The identity's files can't be used, or the configuration is not valid.
pub fn start(
    config: SessionConfig,
    admin: &Admin,
    shutdown: &Shutdown,
) -> Result<(Session, Inbox), SessionError> {
    let valid_id = !config.client_id.is_empty() && !config.client_id.starts_with(' ');
    if !valid_id {
        return Err(SessionError::Invalid(config.client_id));
    }
    if let Some(filter) = config
        .filters
        .iter()
        .find(|filter| !rumqttc::valid_filter(filter))
    {
        return Err(SessionError::Invalid(filter.clone()));
    }
    let identity = SessionIdentity::new(&config, admin);
    let watch = identity.watch();
    let options = options(&config, identity.transport()?);
    let (client, event_loop) = AsyncClient::new(options, CAPACITY + CONTROL);
    let state = State {
        filters: config.filters.clone(),
        ..State::default()
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        client,
        changed: Notify::new(),
    });
    let (events, inbox) = mpsc::channel(INBOX);
    let driver = Driver {
        shared: shared.clone(),
        event_loop,
        events,
        config,
        identity: identity.clone(),
        failing: None,
    };
    shutdown.spawn(driver.run());
    let session = Session(shared);
    if let Some(watch) = watch {
        shutdown.spawn(renew(session.clone(), identity, watch));
    }
    Ok((session, Inbox(inbox)))
}

/// Has the session connect anew whenever its certificate was replaced, until it ends.
async fn renew(session: Session, identity: SessionIdentity, mut watch: Watch) {
    loop {
        tokio::select! {
            () = identity.replaced(&mut watch) => session.renew(),
            () = session.until(|state| state.ended) => return,
        }
    }
}

fn options(config: &SessionConfig, transport: Transport) -> MqttOptions {
    let mut options = MqttOptions::new(&config.client_id, &config.url.host, config.url.port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_connection_timeout(CONNECT_TIMEOUT_SECONDS)
        .set_receive_maximum(Some(u16::MAX))
        .set_outgoing_inflight_upper_limit(INFLIGHT)
        .set_max_packet_size(Some(MAX_PACKET));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    if let Some(will) = &config.will {
        let qos = match will.qos {
            Qos::AtMostOnce => QoS::AtMostOnce,
            Qos::AtLeastOnce => QoS::AtLeastOnce,
        };
        let will = LastWill::new(&will.topic, will.payload.to_vec(), qos, will.retain, None);
        options.set_last_will(will);
    }
    options.set_transport(transport);
    options
}

struct Driver {
    shared: Arc<Shared>,
    event_loop: EventLoop,
    events: mpsc::Sender<SessionEvent>,
    config: SessionConfig,
    identity: SessionIdentity,
    /// Why the last connect failed, so that the same reason is logged once.
    failing: Option<String>,
}

impl Driver {
    async fn run(mut self) {
        let mut random = rand::rngs::SmallRng::from_os_rng();
        let mut back_off = MIN_BACK_OFF;
        let session = Session(self.shared.clone());
        while !self.shared.state().ended {
            let polled = tokio::select! {
                polled = self.event_loop.poll() => polled,
                // The one case in which a poll is dropped: nothing is wanted of it any more.
                () = session.until(|state| state.ended) => break,
            };
            match polled {
                Ok(event) => {
                    if matches!(event, Event::Incoming(Packet::ConnAck(_))) {
                        back_off = MIN_BACK_OFF;
                    }
                    if self.handle(event).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    self.shared.state().renewing = false;
                    if self.disconnected(error.to_string()).await.is_err() {
                        break;
                    }
                    let wait = back_off.mul_f64(random.random_range(0.5..1.0));
                    back_off = (back_off * 2).min(MAX_BACK_OFF);
                    self.pause(wait).await;
                    self.renew_identity();
                }
            }
        }
        self.shared.state().ended = true;
        self.shared.changed.notify_waiters();
    }

    /// Handles one event of rumqttc; an error means that the session is at its end.
    async fn handle(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => self.connected().await,
            Event::Incoming(Packet::Publish(publish)) => match message(publish) {
                Some(message) => self.tell(SessionEvent::Message(message)).await,
                None => Ok(()),
            },
            Event::Incoming(Packet::PubAck(ack)) => {
                self.acknowledged(&ack);
                Ok(())
            }
            Event::Outgoing(Outgoing::Publish(packet_id)) => {
                self.shared.state().outbox.handle_sent(packet_id);
                self.progressed();
                Ok(())
            }
            Event::Outgoing(Outgoing::Disconnect) => self.left().await,
            Event::Incoming(_) | Event::Outgoing(_) => Ok(()),
        }
    }

    /// DISCONNECT is out: the session is at its end, or comes back at once.
    async fn left(&mut self) -> Result<(), Ended> {
        if !self.shared.state().renewing {
            return Err(Ended);
        }
        tracing::info!(
            mqtt.client_id = self.config.client_id,
            "connecting anew with the renewed certificate"
        );
        self.reset();
        self.renew_identity();
        let reason = "the certificate was renewed".to_owned();
        self.tell(SessionEvent::Disconnected { reason }).await
    }

    async fn connected(&mut self) -> Result<(), Ended> {
        self.failing = None;
        tracing::info!(bus = %self.config.url, mqtt.client_id = self.config.client_id, "connected to the bus");
        {
            let mut state = self.shared.state();
            let filters: Vec<_> = state
                .filters
                .iter()
                .map(|filter| Filter::new(filter, QoS::AtLeastOnce))
                .collect();
            if !filters.is_empty() {
                // One packet each, so that the broker takes them in order.
                for filter in filters {
                    self.shared
                        .control(|client| client.try_subscribe_many([filter]).is_ok());
                }
            }
            state.connected = true;
            state.renewing = false;
            for publication in state.outbox.hand_all() {
                self.shared.hand(publication);
            }
        }
        self.tell(SessionEvent::Connected).await?;
        self.progressed();
        Ok(())
    }

    fn acknowledged(&mut self, ack: &PubAck) {
        let publication = self.shared.state().outbox.handle_ack(ack.pkid);
        let taken = matches!(
            ack.reason,
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers
        );
        if let (false, Some(publication)) = (taken, publication) {
            tracing::warn!(mqtt.topic = publication.topic, reason = ?ack.reason, "the bus refused a message");
        }
        self.progressed();
    }

    /// The outbox may have shrunk: wake those who wait, and leave when that was all.
    fn progressed(&self) {
        let state = self.shared.state();
        if state.closing && state.outbox.is_empty() {
            self.shared
                .control(|client| client.try_disconnect().is_ok());
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Forgets the connection, and gives whether there was one.
    fn reset(&mut self) -> bool {
        let mut state = self.shared.state();
        // Everything that is not acknowledged is in the outbox; rumqttc's own copies would only
        // come in between.
        self.event_loop.clean();
        self.event_loop.pending.clear();
        self.event_loop.state = MqttState::new(INFLIGHT, false);
        state.outbox.handle_disconnect();
        std::mem::take(&mut state.connected)
    }

    async fn disconnected(&mut self, reason: String) -> Result<(), Ended> {
        let was_connected = self.reset();
        if self.shared.state().closing {
            return Err(Ended);
        }
        if self.failing.as_ref() != Some(&reason) {
            tracing::warn!(bus = %self.config.url, reason, "no connection to the bus");
            self.failing = Some(reason.clone());
        }
        if was_connected {
            self.tell(SessionEvent::Disconnected { reason }).await?;
        }
        Ok(())
    }

    /// Waits before the next connect, but not once the session is to end.
    async fn pause(&mut self, wait: Duration) {
        let ended = Session(self.shared.clone());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ended.until(|state| state.closing || state.ended) => {}
        }
    }

    /// Reads the identity's files again, so that a renewed certificate is used from here on.
    fn renew_identity(&mut self) {
        match self.identity.transport() {
            Ok(transport) => {
                self.event_loop.options.set_transport(transport);
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the old certificate is used on");
            }
        }
    }

    async fn tell(&mut self, event: SessionEvent) -> Result<(), Ended> {
        self.events.send(event).await.map_err(|_| Ended)
    }
}

/// The session is closed, or nobody listens to it any more.
struct Ended;

fn message(publish: Publish) -> Option<Message> {
    let properties = publish.properties.unwrap_or_default();
    Some(Message {
        topic: String::from_utf8(Bytes::into(publish.topic)).ok()?,
        payload: publish.payload,
        retain: publish.retain,
        response_topic: properties.response_topic,
        correlation: properties.correlation_data,
        expiry: properties.message_expiry_interval,
    })
}
