//! The DTLS session of one simulated node: the client of dimpl, with a shared key. A session that
//! fails or ends is followed by another one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, Error, Output, PskResolver};

/// How long a node waits before it tries again.
const RETRY: Duration = Duration::from_secs(5);
/// Holds any record of CoAP.
const OUTPUT: usize = 4096;

/// The one key that a node has.
struct Key(Vec<u8>);

impl PskResolver for Key {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

/// What has come of an input.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Datagrams to send.
    pub(crate) send: Vec<Vec<u8>>,
    /// What the bridge said.
    pub(crate) received: Vec<Vec<u8>>,
    /// A session begins: the node says that it is there.
    pub(crate) began: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    config: Arc<Config>,
    /// None while it waits for the next try.
    dtls: Option<Dtls>,
    is_open: bool,
    deadline: Instant,
}

impl Session {
    /// Begins with [`Session::handle_timeout`].
    ///
    /// # Errors
    /// dimpl can't be used.
    pub(crate) fn new(name: &str, key: Vec<u8>, now: Instant) -> Result<Self, Error> {
        let config = Config::builder().with_psk_client(name.into(), Arc::new(Key(key)));
        Ok(Self {
            config: Arc::new(config.build()?),
            dtls: None,
            is_open: false,
            deadline: now,
        })
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn handle_datagram(&mut self, datagram: &[u8], now: Instant) -> Progress {
        self.act(now, |dtls| dtls.handle_packet(datagram))
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Progress {
        if self.dtls.is_none() && self.deadline <= now {
            let mut dtls = Dtls::new_12_psk(self.config.clone(), now);
            dtls.set_active(true);
            self.dtls = Some(dtls);
        }
        self.act(now, |_| Ok(()))
    }

    /// Sends something, if there is a session; what is said without one is lost.
    pub(crate) fn send(&mut self, data: &[u8], now: Instant) -> Progress {
        if !self.is_open {
            return Progress::default();
        }
        self.act(now, |dtls| dtls.send_application_data(data).map(|_| ()))
    }

    fn act(&mut self, now: Instant, act: impl FnOnce(&mut Dtls) -> Result<(), Error>) -> Progress {
        let mut progress = Progress::default();
        let Some(dtls) = &mut self.dtls else {
            return progress;
        };
        let result = dtls.handle_timeout(now).and_then(|()| act(dtls));
        let mut has_ended = result.is_err();
        let mut buffer = [0; OUTPUT];
        loop {
            match dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => progress.send.push(packet.to_vec()),
                Output::Connected => progress.began = true,
                Output::ApplicationData(data) => progress.received.push(data.to_vec()),
                Output::CloseNotify => has_ended = true,
                Output::Timeout(at) => {
                    self.deadline = at;
                    break;
                }
                Output::BufferTooSmall { .. } => {
                    has_ended = true;
                    break;
                }
                _ => {}
            }
        }
        self.is_open |= progress.began;
        if has_ended {
            self.dtls = None;
            self.is_open = false;
            self.deadline = now + RETRY;
        }
        progress
    }
}
