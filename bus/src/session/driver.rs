//! The task that keeps one connection after another.
//!
//! In each turn it takes all that came in, puts as much as the broker takes into one buffer, and
//! waits until something was read or written, or there is more to send. Each turn writes at most one
//! buffer and reads once, so neither side starves the other.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::connection::{Connection, Event};
use super::error::{ConnectionError, in_words};
use super::handle::{Inbox, Request, Session, Shared};
use super::identity::SessionIdentity;
use super::link::Link;
use super::{SessionConfig, SessionError, SessionEvent, transport};
use crate::admin::Admin;
use crate::shutdown::Shutdown;
use crate::time::now;
use crate::watch::Watch;

/// Events that wait for the owner; full means that no further message is taken from the broker.
const INBOX: usize = 1024;
/// Publications that are written while their owner is kept from the outbox: one TLS record.
const BATCH: usize = 16 * 1024;
/// From the begin of a connection to CONNACK; and for its end.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MIN_BACK_OFF: Duration = Duration::from_millis(250);
const MAX_BACK_OFF: Duration = Duration::from_secs(15);

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
    let tls = identity.tls()?;
    let shared = Arc::new(Shared::new(config.filters.clone()));
    let (events, inbox) = mpsc::channel(INBOX);
    let driver = Driver {
        shared: shared.clone(),
        events,
        held: None,
        config,
        identity: identity.clone(),
        tls,
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
            () = session.0.ended() => return,
        }
    }
}

struct Driver {
    shared: Arc<Shared>,
    events: mpsc::Sender<SessionEvent>,
    /// What the inbox had no room for; until then nothing is read.
    held: Option<SessionEvent>,
    config: SessionConfig,
    identity: SessionIdentity,
    tls: Option<Arc<ClientConfig>>,
    /// Why the last connect failed, so that the same reason is logged once.
    failing: Option<String>,
}

/// Why a connection is over.
enum End {
    /// DISCONNECT is out.
    Left,
    Failed(ConnectionError),
    /// Nobody listens to the session any more.
    Unheard,
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        Self::Failed(error)
    }
}

/// The session is closed, or nobody listens to it any more.
struct Ended;

impl Driver {
    async fn run(mut self) {
        let shared = self.shared.clone();
        tokio::select! {
            Ended = self.stay_connected() => {}
            () = shared.ended() => {}
        }
        shared.end();
    }

    async fn stay_connected(&mut self) -> Ended {
        let mut random = rand::rngs::SmallRng::from_os_rng();
        let mut back_off = MIN_BACK_OFF;
        loop {
            let end = self.connection().await;
            let (was_connected, renewing, closing) = self.disconnected();
            let come_back = match end {
                End::Unheard => Err(Ended),
                End::Left if renewing => self.left_to_renew().await,
                End::Left => Err(Ended),
                End::Failed(_) if closing => Err(Ended),
                End::Failed(error) => self.failed(&error, was_connected).await,
            };
            let Ok(pause) = come_back else {
                return Ended;
            };
            if was_connected {
                back_off = MIN_BACK_OFF;
            }
            if pause {
                let wait = back_off.mul_f64(random.random_range(0.5..1.0));
                back_off = (back_off * 2).min(MAX_BACK_OFF);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.shared.closing() => {}
                }
            }
            self.renew_identity();
        }
    }

    /// One connection, from its begin to its end.
    async fn connection(&mut self) -> End {
        let begin = now().mono;
        let deadline = begin + CONNECT_TIMEOUT;
        let opening = transport::open(&self.config.url, self.tls.clone());
        let stream = match tokio::time::timeout_at(deadline.into(), opening).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return End::Failed(error),
            Err(_) => return End::Failed(ConnectionError::Unanswered),
        };
        let connection = Connection::new(&self.config, deadline, begin);
        let mut link = Link::new(connection, stream);
        let mut timer = Box::pin(tokio::time::sleep_until(deadline.into()));
        while !link.connection.is_over() {
            if let Err(end) = self.turn(&mut link, timer.as_mut()).await {
                return end;
            }
        }
        // A broker that reads nothing more is not waited for.
        let closed = tokio::time::timeout(CONNECT_TIMEOUT, link.close()).await;
        if closed.is_err() {
            tracing::debug!("the bus does not take the end of the connection");
        }
        End::Left
    }

    async fn turn(&mut self, link: &mut Link, mut timer: Pin<&mut Sleep>) -> Result<(), End> {
        self.take_in(&mut link.connection)?;
        self.give(&mut link.connection);
        let is_reading = self.held.is_none();
        let deadline = link.connection.poll_timeout();
        // Deadlines move with each packet, mostly on: the timer follows when it must.
        if let Some(deadline) = deadline
            && (timer.is_elapsed() || timer.deadline() > deadline.into())
        {
            timer.as_mut().reset(deadline.into());
        }
        tokio::select! {
            biased;
            exchanged = link.exchange(is_reading) => exchanged?,
            () = self.shared.work.notified() => {}
            // Whether it is room or the end, the next turn finds out.
            _ = self.events.reserve(), if !is_reading => {}
            () = timer, if deadline.is_some() => link.connection.handle_timeout(now().mono)?,
        }
        Ok(())
    }

    /// Takes what came in, as far as the inbox has room for it.
    fn take_in(&mut self, connection: &mut Connection) -> Result<(), End> {
        let mut acks = Vec::new();
        let taken = self.take_events(connection, &mut acks);
        self.acknowledged(&acks);
        connection.set_reading(self.held.is_none(), now().mono);
        taken
    }

    fn take_events(
        &mut self,
        connection: &mut Connection,
        acks: &mut Vec<(u16, PubAckReason)>,
    ) -> Result<(), End> {
        if let Some(held) = self.held.take() {
            self.offer(held)?;
        }
        while self.held.is_none()
            && let Some(event) = connection.poll_event()?
        {
            match event {
                Event::Acknowledged(id, reason) => acks.push((id, reason)),
                Event::Message(message) => self.offer(SessionEvent::Message(message))?,
                Event::Connected => {
                    self.connected();
                    self.offer(SessionEvent::Connected)?;
                }
                Event::Unserved(filter, reason) => {
                    tracing::warn!(
                        mqtt.filter = filter,
                        ?reason,
                        "the bus refused a subscription"
                    );
                }
            }
        }
        Ok(())
    }

    fn offer(&mut self, event: SessionEvent) -> Result<(), End> {
        match self.events.try_send(event) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(event)) => {
                self.held = Some(event);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(End::Unheard),
        }
    }

    fn connected(&mut self) {
        self.failing = None;
        tracing::info!(bus = %self.config.url, mqtt.client_id = self.config.client_id, "connected to the bus");
        let mut state = self.shared.state();
        state.connected = true;
        state.renewing = false;
        state.requests = state
            .filters
            .iter()
            .cloned()
            .map(Request::Subscribe)
            .collect();
    }

    fn acknowledged(&self, acks: &[(u16, PubAckReason)]) {
        if acks.is_empty() {
            return;
        }
        let mut refused = Vec::new();
        let mut state = self.shared.state();
        for (id, reason) in acks {
            let publication = state.outbox.handle_ack(*id);
            let taken = matches!(
                reason,
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers
            );
            if let (false, Some(publication)) = (taken, publication) {
                refused.push((publication.topic, reason));
            }
        }
        self.shared.progressed(state);
        for (topic, reason) in refused {
            tracing::warn!(mqtt.topic = topic, ?reason, "the bus refused a message");
        }
    }

    /// Puts what waits into what is to be written, as much as the broker takes and one write is good
    /// for.
    fn give(&self, connection: &mut Connection) {
        loop {
            let mut state = self.shared.state();
            if !state.connected {
                return;
            }
            while connection.can_ask()
                && let Some(request) = state.requests.pop_front()
            {
                match request {
                    Request::Subscribe(filter) => connection.subscribe(&filter),
                    Request::Unsubscribe(filter) => connection.unsubscribe(&filter),
                }
            }
            let before = connection.transmit().len();
            let refused = connection.publish(&mut state.outbox, BATCH);
            if state.is_leaving() {
                connection.disconnect(now().mono);
            }
            state.idle = state.outbox.is_sent();
            self.shared.progressed(state);
            for topic in refused {
                tracing::warn!(mqtt.topic = topic, "a message is larger than the bus takes");
            }
            let is_all = connection.transmit().len() < before + BATCH;
            if is_all || connection.is_full() {
                return;
            }
        }
    }

    /// Forgets the connection; gives whether there was one, and whether it was left to renew the
    /// certificate or the session is to end.
    fn disconnected(&mut self) -> (bool, bool, bool) {
        let mut state = self.shared.state();
        state.outbox.handle_disconnect();
        state.requests.clear();
        let was_connected = std::mem::take(&mut state.connected);
        (was_connected, state.renewing, state.closing)
    }

    /// Comes back at once.
    async fn left_to_renew(&mut self) -> Result<bool, Ended> {
        tracing::info!(
            mqtt.client_id = self.config.client_id,
            "connecting anew with the renewed certificate"
        );
        self.tell_disconnected("the certificate was renewed".to_owned())
            .await?;
        Ok(false)
    }

    /// Comes back after a pause.
    async fn failed(
        &mut self,
        error: &ConnectionError,
        was_connected: bool,
    ) -> Result<bool, Ended> {
        self.shared.state().renewing = false;
        let reason = in_words(error);
        if self.failing.as_ref() != Some(&reason) {
            tracing::warn!(bus = %self.config.url, reason, "no connection to the bus");
            self.failing = Some(reason.clone());
        }
        if was_connected {
            self.tell_disconnected(reason).await?;
        }
        Ok(true)
    }

    async fn tell_disconnected(&mut self, reason: String) -> Result<(), Ended> {
        let held = self.held.take();
        for event in held
            .into_iter()
            .chain([SessionEvent::Disconnected { reason }])
        {
            self.events.send(event).await.map_err(|_| Ended)?;
        }
        Ok(())
    }

    /// Reads the identity's files again, so that a renewed certificate is used from here on.
    fn renew_identity(&mut self) {
        match self.identity.tls() {
            Ok(tls) => self.tls = tls,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the old certificate is used on");
            }
        }
    }
}

#[cfg(test)]
mod tests;
