//! One connection of dimpl: what goes in, what comes out, and a wall around it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dimpl::{Config, Dtls, DtlsCertificate, Error, Output};

use super::cookie::Cookie;
use super::provider::with_cookie;
use super::record::{self, ClientHello};

/// Where dimpl puts what comes out: holds any record that it opens ([`super::MAX_DATAGRAM`]) or makes
/// ([`MAX_DATA`]).
pub(super) type Scratch = Box<[u8; 8192]>;
/// More is not sent at once.
const MAX_DATA: usize = 8000;
/// dimpl calls ten years what others call never.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A datagram to send.
    Transmit(Bytes),
    /// The peer's certificate, which nobody has verified yet.
    Certificate(Vec<u8>),
    /// The peer has proven who it is.
    Connected,
    /// What the peer sent.
    Data(Bytes),
    /// The peer has said goodbye.
    Closed,
}

/// Why a connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Dtls(Error),
    /// dimpl has panicked.
    Panicked,
}

/// How the server proves itself, if it does with more than the shared key.
#[derive(Debug, Clone)]
pub(super) enum Proof {
    SharedKey,
    Certificate(Arc<DtlsCertificate>),
}

#[derive(Debug)]
pub(super) struct Association {
    dtls: Dtls,
    client_random: [u8; 32],
    /// What is added to the sequence numbers of records in the clear.
    offset: u64,
    /// The last of them.
    sequence: u64,
    /// When dimpl wants to be called.
    deadline: Option<Instant>,
}

/// Runs a call of dimpl, which parses what strangers send: a panic in it ends one connection.
fn walled<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Failure::Dtls),
        Err(_) => Err(Failure::Panicked),
    }
}

impl Association {
    /// A connection with a client whose address is verified by this cookie.
    pub(super) fn open(
        config: Arc<Config>,
        proof: &Proof,
        hello: &ClientHello<'_>,
        cookie: Cookie,
        datagram: &[u8],
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<(Self, Vec<Outcome>), Failure> {
        let dtls = match proof {
            Proof::SharedKey => Dtls::new_12_psk(config, now),
            Proof::Certificate(certificate) => {
                Dtls::new_12(config, DtlsCertificate::clone(certificate), now)
            }
        };
        let mut new = Self {
            dtls,
            client_random: *hello.random,
            // dimpl's own HelloVerifyRequest, which nobody sees, took number 0.
            offset: hello.sequence.wrapping_sub(1),
            sequence: hello.sequence,
            deadline: None,
        };
        // It must know the time before anything else.
        walled(|| new.dtls.handle_timeout(now))?;
        walled(|| new.dtls.handle_packet(&hello.first()))?;
        drop(new.drain(scratch, now)?);
        walled(|| with_cookie(cookie, || new.dtls.handle_packet(datagram)))?;
        let outcomes = new.drain(scratch, now)?;
        Ok((new, outcomes))
    }

    /// Whether it began with this client's random number.
    pub(super) fn began_with(&self, random: &[u8; 32]) -> bool {
        self.client_random == *random
    }

    pub(super) fn handle(
        &mut self,
        datagram: &[u8],
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<Vec<Outcome>, Failure> {
        walled(|| {
            self.dtls.handle_timeout(now)?;
            self.dtls.handle_packet(datagram)
        })?;
        self.drain(scratch, now)
    }

    pub(super) fn handle_timeout(
        &mut self,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<Vec<Outcome>, Failure> {
        walled(|| self.dtls.handle_timeout(now))?;
        self.drain(scratch, now)
    }

    pub(super) fn send(
        &mut self,
        data: &[u8],
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<Vec<Outcome>, Failure> {
        let data = data.get(..MAX_DATA).unwrap_or(data);
        walled(|| {
            self.dtls.handle_timeout(now)?;
            self.dtls.send_application_data(data)
        })?;
        self.drain(scratch, now)
    }

    /// Says goodbye, if the peer has proven who it is.
    pub(super) fn close(
        &mut self,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<Vec<Outcome>, Failure> {
        walled(|| self.dtls.close())?;
        self.drain(scratch, now)
    }

    /// A fatal alert in the clear, for a handshake that has failed.
    pub(super) fn alert(&self, description: u8) -> Bytes {
        record::fatal_alert(self.sequence.wrapping_add(1), description).into()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes everything that has come of the last call.
    fn drain(&mut self, scratch: &mut Scratch, now: Instant) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes = Vec::new();
        walled(|| {
            loop {
                match self.dtls.poll_output(&mut **scratch) {
                    Output::Packet(packet) => {
                        let mut packet = packet.to_vec();
                        let last = record::renumber(&mut packet, self.offset);
                        self.sequence = last.unwrap_or(self.sequence);
                        outcomes.push(Outcome::Transmit(packet.into()));
                    }
                    Output::PeerCert(der) => outcomes.push(Outcome::Certificate(der.to_vec())),
                    Output::Connected => outcomes.push(Outcome::Connected),
                    Output::ApplicationData(data) => {
                        outcomes.push(Outcome::Data(Bytes::copy_from_slice(data)));
                    }
                    Output::CloseNotify => outcomes.push(Outcome::Closed),
                    Output::Timeout(at) => {
                        self.deadline = (at < now + NEVER).then_some(at);
                        return Ok(());
                    }
                    // No record is longer than the buffer.
                    Output::BufferTooSmall { .. } => return Err(Error::TransmitQueueFull),
                    // Keys for SRTP.
                    _ => {}
                }
            }
        })?;
        Ok(outcomes)
    }
}
