//! A client of dimpl, for tests and fuzz targets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
#[cfg(test)]
use dimpl::DtlsCertificate;
use dimpl::{Config, Dtls, Output, PskResolver};

use super::record::{CLIENT_HELLO, DTLS_1_2, handshake};

pub(crate) const KEY: &str = "000102030405060708090a0b0c0d0e0f";
pub(super) const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f";

thread_local! {
    /// By name and key. Making one tries out the whole cryptography.
    static CONFIGS: RefCell<HashMap<(String, String), Arc<Config>>> = RefCell::default();
}

struct OneKey(Vec<u8>);

impl PskResolver for OneKey {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// A ClientHello that offers TLS_PSK_WITH_AES_128_CCM_8.
pub(super) fn hello(random: u8, cookie: &[u8]) -> Vec<u8> {
    let mut body = DTLS_1_2.to_vec();
    body.extend([random; 32]);
    body.extend([0, u8::try_from(cookie.len()).expect("a short cookie")]);
    body.extend(cookie);
    body.extend([0, 2, 0xc0, 0xa8, 1, 0]);
    // Extended master secret.
    body.extend([0, 4, 0, 23, 0, 0]);
    let message = u16::from(!cookie.is_empty());
    handshake(CLIENT_HELLO, message.into(), message, &body)
}

pub(crate) struct Client {
    dtls: Dtls,
    pub(super) deadline: Option<Instant>,
    pub(crate) connected: bool,
    pub(super) failed: bool,
    pub(super) closed: bool,
    pub(crate) received: Vec<Vec<u8>>,
}

impl Client {
    pub(crate) fn psk(name: &str, key: &str, now: Instant) -> Self {
        let make = || {
            let config =
                Config::builder().with_psk_client(name.into(), Arc::new(OneKey(bytes(key))));
            Arc::new(config.build().expect("a configuration"))
        };
        let config = CONFIGS.with_borrow_mut(|configs| {
            let config = configs.entry((name.to_owned(), key.to_owned()));
            config.or_insert_with(make).clone()
        });
        Self::new(Dtls::new_12_psk(config, now), now)
    }

    #[cfg(test)]
    pub(super) fn certificate(own: DtlsCertificate, now: Instant) -> Self {
        let config = Config::builder().dtls13_cipher_suites(&[]).build();
        Self::new(Dtls::new_12(Arc::new(config.unwrap()), own, now), now)
    }

    fn new(mut dtls: Dtls, now: Instant) -> Self {
        dtls.set_active(true);
        dtls.handle_timeout(now).expect("a client that begins");
        Self {
            dtls,
            deadline: None,
            connected: false,
            failed: false,
            closed: false,
            received: Vec::new(),
        }
    }

    /// Does something with dimpl; gives the datagrams that come of it.
    pub(crate) fn act(
        &mut self,
        act: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>,
    ) -> Vec<Bytes> {
        if self.failed {
            return Vec::new();
        }
        self.failed = act(&mut self.dtls).is_err();
        let mut out = Vec::new();
        let mut buffer = vec![0; 16_384];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => out.push(Bytes::copy_from_slice(packet)),
                Output::Connected => self.connected = true,
                Output::ApplicationData(data) => self.received.push(data.to_vec()),
                Output::CloseNotify => self.closed = true,
                Output::Timeout(at) => {
                    self.deadline = Some(at);
                    return out;
                }
                _ => {}
            }
        }
    }
}
