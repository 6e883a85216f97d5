//! From the first byte to CONNACK: who it is, which session it gets, and who is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::time::{now, sleep_until};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::held::Held;
use super::login::log_in;
use super::packets::Client;
use super::{End, Socket};
use crate::acl::Access;
use crate::broker::Broker;
use crate::events::Refusal;
use crate::identity::{Guest, Identity, Known};
use crate::session::{Session, Terms};
use crate::topic;
use crate::wire::{self, Connack, Connect, Packet, Reason, Version};
use bus::rate::Meter;

/// How long a take-over waits for the connection before to deal with its Will.
const TAKE_OVER: Duration = Duration::from_secs(2);

type Opened = (Client, oneshot::Receiver<()>, oneshot::Sender<()>);

async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    maximum: usize,
) -> Result<Box<Connect>, End> {
    loop {
        match wire::take(&mut socket.input, None, maximum)? {
            Some(Packet::Connect(connect)) => return Ok(connect),
            Some(_) => return Err(End::Refused(Reason::ProtocolError)),
            None => {}
        }
        match socket.read().await {
            Ok(0) => return Err(End::Closed),
            Ok(_) => {}
            Err(error) => return Err(End::Failed(error)),
        }
    }
}

/// Reads CONNECT and answers it in `output`. The caller sends that in either case.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    broker: &Arc<Broker>,
    socket: &mut Socket<S>,
    guest: Guest,
    deadline: Instant,
    output: &mut BytesMut,
) -> Result<Opened, End> {
    let maximum = broker.limits.packet_bytes as usize;
    let connect = tokio::select! {
        connect = read_connect(socket, maximum) => connect,
        () = sleep_until(Some(deadline)) => Err(End::Ended(Reason::KeepAliveTimeout)),
        () = broker.shutdown.stopping() => Err(End::Ended(Reason::ServerShuttingDown)),
    };
    let mut connect = connect.inspect_err(|end| {
        // Of what it speaks we know only that it is not what we do (MQTT-3.1.2-2).
        if let End::Refused(reason @ Reason::UnsupportedProtocolVersion) = end {
            refuse(output, Version::V4, 0, *reason);
        }
    })?;
    let (version, room) = (connect.version, connect.maximum_packet);
    let mut refused = |reason| {
        refuse(output, version, room, reason);
        End::Ended(reason)
    };
    let known = match guest {
        Guest::Known(known) => known,
        Guest::Stranger => {
            let logging_in = log_in(broker, &mut connect, socket.peer, deadline);
            logging_in.await.map_err(&mut refused)?
        }
    };
    let access = broker.gate.rules().acl.access(&known.identity);
    check(broker, &connect, &known.identity, &access).map_err(&mut refused)?;
    accept(broker, *connect, known, access, output).await
}

/// Writes the CONNACK of a client that is not let in, and takes packets of up to `room` bytes.
fn refuse(output: &mut BytesMut, version: Version, room: u32, reason: Reason) {
    let connack = Connack {
        refused: Some(reason),
        room,
        ..Connack::default()
    };
    wire::connack(output, version, &connack);
}

/// Whether this client may connect so.
fn check(
    broker: &Broker,
    connect: &Connect,
    identity: &Identity,
    access: &Access,
) -> Result<(), Reason> {
    let who = identity.to_string();
    let refused = |kind, what: &str| {
        let refusal = Refusal {
            kind,
            who: &who,
            what,
        };
        broker.refuse(&refusal, now());
    };
    if connect.has_auth_method {
        return Err(Reason::BadAuthenticationMethod);
    }
    if connect.client_id.is_empty() {
        // Nothing could ever find that session again (MQTT-3.1.3-8).
        if connect.version == Version::V4 && !connect.clean_start {
            return Err(Reason::ClientIdentifierNotValid);
        }
    } else if !identity.may_be(&connect.client_id) {
        refused("client_id", &connect.client_id);
        return Err(Reason::ClientIdentifierNotValid);
    }
    if let Some(will) = &connect.will {
        if !topic::is_topic_name(&will.topic) || !topic::is_bounded(&will.topic) {
            return Err(Reason::TopicNameInvalid);
        }
        if !access.may_publish(&will.topic) {
            refused("will", &will.topic);
            return Err(Reason::NotAuthorized);
        }
    }
    Ok(())
}

async fn accept(
    broker: &Arc<Broker>,
    mut connect: Connect,
    known: Known,
    access: Access,
    output: &mut BytesMut,
) -> Result<Opened, End> {
    let Known {
        identity,
        proof,
        generation,
    } = known;
    let is_assigned = connect.client_id.is_empty();
    if is_assigned {
        connect.client_id = broker.assign_client_id(&identity);
    }
    let (version, room) = (connect.version, connect.maximum_packet);
    let mut full = |limit| {
        broker.metrics.refused(limit);
        refuse(output, version, room, Reason::QuotaExceeded);
        End::Ended(Reason::QuotaExceeded)
    };
    let presence = broker.admission.welcome(&identity, &connect.client_id);
    let presence = presence.map_err(|_| full("connections_per_identity"))?;
    let session_key = identity.session_key(&connect.client_id);
    let expiry = broker.session_expiry(connect.session_expiry);
    let opened = broker
        .sessions
        .open(&session_key, connect.clean_start, expiry)
        .map_err(|_| full("sessions"))?;
    if let Some((will, origin)) = opened.due {
        broker.publish_will(will, origin, now());
    }
    if let Some(before) = opened.before {
        // Its Will must stand before anything that this connection publishes.
        if tokio::time::timeout(TAKE_OVER, before).await.is_err() {
            tracing::warn!("a connection that was taken over did not end in time");
        }
    }
    let terms = Terms {
        version: connect.version,
        window: connect.receive_maximum.min(broker.limits.inflight),
        maximum_packet: connect.maximum_packet,
    };
    let bind = |session: &mut Session| session.connect(terms);
    opened.handle.bind(opened.epoch, bind);
    welcome(broker, &connect, is_assigned, opened.is_present, output);
    tracing::debug!(
        mqtt.client_id = %connect.client_id.escape_debug(),
        identity = %identity,
        session_present = opened.is_present,
        "client connected"
    );
    let keep_alive = broker.keep_alive(connect.version, connect.keep_alive);
    let keep_alive = Duration::from_secs(u64::from(keep_alive));
    let client = Client {
        broker: broker.clone(),
        who: identity.to_string(),
        identity,
        proof,
        presence,
        // What it subscribed to before was asked for under older rules.
        generation: if opened.is_present { 0 } else { generation },
        access,
        client_id: connect.client_id,
        session_key,
        version: connect.version,
        maximum_packet: connect.maximum_packet,
        wants_reasons: connect.wants_reasons,
        handle: opened.handle,
        epoch: opened.epoch,
        will: connect.will,
        keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
        aliases: HashMap::new(),
        held: Held::default(),
        is_held: false,
        is_session_kept: connect.session_expiry > 0,
        published: Meter::default(),
        slowed: None,
    };
    Ok((client, opened.kicked, opened.gone))
}

/// Writes the CONNACK of a client that is let in.
fn welcome(
    broker: &Broker,
    connect: &Connect,
    is_assigned: bool,
    is_present: bool,
    output: &mut BytesMut,
) {
    let expiry = broker.session_expiry(connect.session_expiry);
    let granted = u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX);
    let keep_alive = broker.keep_alive(connect.version, connect.keep_alive);
    let connack = Connack {
        session_present: is_present,
        refused: None,
        assigned_client_id: is_assigned.then_some(connect.client_id.as_str()),
        session_expiry: (granted != connect.session_expiry).then_some(granted),
        maximum_packet: broker.limits.packet_bytes,
        topic_alias_maximum: broker.limits.topic_aliases,
        keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
        room: connect.maximum_packet,
    };
    wire::connack(output, connect.version, &connack);
}
