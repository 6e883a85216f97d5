//! Handshakes: from the first word of a stranger to a proven identity.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::time::Now;
use dimpl::crypto::Dtls12CipherSuite;
use dimpl::{Config, Error, SecurityError};

use super::association::{Association, Failure, Outcome, Proof};
use super::cookie::Cookie;
use super::keys::{Named, Resolver};
use super::metrics::{Dropped, Ended, Refused};
use super::provider::provider;
use super::record::{BadHello, ClientHello, Record, fatal_alert};
use super::sessions::Credential;
use super::trust::Holder;
use super::{Event, Server, Stage};
use crate::block::{Block, Tally};

/// A handshake that takes longer has failed: four retransmissions on a lossy link, and some.
pub(super) const HANDSHAKE_TIME: Duration = Duration::from_secs(30);
/// One datagram of ours in a handshake, in bytes: what IPv6 carries everywhere, without its headers.
const MTU: usize = 1280 - 48;

/// With shared keys.
const PSK_SUITE: Dtls12CipherSuite = Dtls12CipherSuite::PSK_AES128_CCM_8;
/// With certificates.
const CERTIFICATE_SUITES: [Dtls12CipherSuite; 3] = [
    Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256,
    Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384,
    Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256,
];

/// How dimpl is to do it. Made once: making one tries out the whole cryptography.
#[derive(Debug)]
pub(super) struct Configs {
    psk: Arc<Config>,
    certificates: Arc<Config>,
}

impl Configs {
    pub(super) fn new(resolver: Arc<Resolver>) -> Result<Self, Error> {
        let common = || {
            Config::builder()
                .with_crypto_provider(provider())
                .dtls13_cipher_suites(&[])
                .handshake_timeout(HANDSHAKE_TIME)
                .mtu(MTU)
        };
        let psk = common()
            .with_psk_server(None, resolver)
            .dtls12_cipher_suites(&[PSK_SUITE])
            .kx_groups(&[])
            .build()?;
        let certificates = common().dtls12_cipher_suites(&CERTIFICATE_SUITES).build()?;
        Ok(Self {
            psk: Arc::new(psk),
            certificates: Arc::new(certificates),
        })
    }
}

/// Who a client says that it is.
#[derive(Debug)]
enum Claim {
    None,
    Key(Named),
    /// A certificate that is good; whether the client holds its key is not known yet.
    Certificate(Holder, Vec<u8>),
}

#[derive(Debug)]
struct Handshake {
    association: Association,
    claim: Claim,
    /// By certificate.
    certified: bool,
}

/// The handshakes of verified addresses.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    by_address: HashMap<SocketAddr, Handshake>,
    blocks: Tally,
}

impl Handshakes {
    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    fn insert(&mut self, address: SocketAddr, handshake: Handshake) {
        if self.by_address.insert(address, handshake).is_none() {
            self.blocks.add(Block::of(address));
        }
    }

    fn remove(&mut self, address: SocketAddr) -> Option<Handshake> {
        let handshake = self.by_address.remove(&address)?;
        self.blocks.remove(Block::of(address));
        Some(handshake)
    }
}

impl Server {
    pub(super) fn handle_hello(
        &mut self,
        from: SocketAddr,
        record: &Record<'_>,
        datagram: &[u8],
        now: Now,
    ) {
        let hello = match ClientHello::read(record) {
            Ok(hello) => hello,
            Err(why) => {
                return self.metrics.dropped(match why {
                    BadHello::Malformed => Dropped::Malformed,
                    BadHello::Fragmented => Dropped::Fragmented,
                    BadHello::Version => Dropped::Version,
                });
            }
        };
        if self.resolver.is_empty() && self.trust.is_none() {
            return self.metrics.dropped(Dropped::NoCredentials);
        }
        let session = self.sessions.get(from);
        if session.is_some_and(|session| session.association.began_with(hello.random)) {
            return self.metrics.dropped(Dropped::Late);
        }
        if let Some(cookie) = self.cookies.check(from, &hello, now.mono) {
            self.handle_verified(from, &hello, cookie, datagram, now);
        } else if let Some(cookie) = self.cookies.make(from, &hello, now.mono) {
            self.metrics.cookies.inc();
            self.transmit(from, hello.verify_request(&cookie).into());
        }
    }

    /// A ClientHello from an address at which the client really is.
    fn handle_verified(
        &mut self,
        from: SocketAddr,
        hello: &ClientHello<'_>,
        cookie: Cookie,
        datagram: &[u8],
        now: Now,
    ) {
        if let Some(running) = self.handshakes.by_address.get(&from) {
            if running.association.began_with(hello.random) {
                // It has not got our answer.
                return self.handle_handshake(from, datagram, now);
            }
            self.refuse(from, Refused::Restarted);
        } else if let Some(refused) = self.crowded(from) {
            // It will ask again.
            return self.metrics.refused(refused);
        }
        let Some((config, proof)) = self.choose(hello) else {
            self.metrics.refused(Refused::NotSupported);
            return self.alert(from, hello, Refused::NotSupported);
        };
        let scratch = &mut self.scratch;
        let opened = Association::open(config, &proof, hello, cookie, datagram, scratch, now.mono);
        match opened {
            Ok((association, outcomes)) => {
                let handshake = Handshake {
                    association,
                    claim: Claim::None,
                    certified: matches!(proof, Proof::Certificate(_)),
                };
                self.handshakes.insert(from, handshake);
                self.count();
                self.take_handshake(from, Ok(outcomes), now);
            }
            Err(failure) => {
                let refused = refused(&failure, &Claim::None, false);
                self.metrics.refused(refused);
                self.alert(from, hello, refused);
            }
        }
    }

    fn alert(&mut self, to: SocketAddr, hello: &ClientHello<'_>, refused: Refused) {
        if let Some(description) = refused.alert() {
            self.transmit(to, fatal_alert(hello.sequence, description).into());
        }
    }

    /// Whether there is no room for a handshake with somebody new.
    fn crowded(&self, from: SocketAddr) -> Option<Refused> {
        let block = Block::of(from);
        let max = self.limits.max_handshakes;
        let renews = self.sessions.get(from).is_some();
        if self.handshakes.len() >= max {
            Some(Refused::TooManyHandshakes)
        } else if self.handshakes.blocks.count(block) >= max.div_ceil(4) {
            Some(Refused::TooManyHandshakesAtAddress)
        } else if !renews && self.sessions.at(block) >= self.limits.max_sessions_per_address {
            Some(Refused::TooManySessionsAtAddress)
        } else {
            None
        }
    }

    /// How to do it, by the first of the client's suites that we can.
    fn choose(&self, hello: &ClientHello<'_>) -> Option<(Arc<Config>, Proof)> {
        hello.suites().find_map(|suite| {
            let suite = Dtls12CipherSuite::from_u16(suite);
            if suite == PSK_SUITE {
                let config = (!self.resolver.is_empty()).then(|| self.configs.psk.clone())?;
                return Some((config, Proof::SharedKey));
            }
            let trust = self.trust.as_ref()?;
            CERTIFICATE_SUITES.contains(&suite).then(|| {
                let proof = Proof::Certificate(trust.certificate.clone());
                (self.configs.certificates.clone(), proof)
            })
        })
    }

    pub(super) fn handle_handshake(&mut self, from: SocketAddr, datagram: &[u8], now: Now) {
        if let Some(handshake) = self.handshakes.by_address.get_mut(&from) {
            let association = &mut handshake.association;
            let result = association.handle(datagram, &mut self.scratch, now.mono);
            self.take_handshake(from, result, now);
        }
    }

    pub(super) fn handle_handshake_timeout(&mut self, address: SocketAddr, now: Now) {
        if let Some(handshake) = self.handshakes.by_address.get_mut(&address) {
            let association = &mut handshake.association;
            let result = association.handle_timeout(&mut self.scratch, now.mono);
            self.take_handshake(address, result, now);
        }
    }

    /// What has come of a call for a handshake.
    fn take_handshake(
        &mut self,
        from: SocketAddr,
        result: Result<Vec<Outcome>, Failure>,
        now: Now,
    ) {
        let named = self.resolver.take_named();
        let Some(handshake) = self.handshakes.by_address.get_mut(&from) else {
            return;
        };
        if let Some(named) = named {
            handshake.claim = Claim::Key(named);
        }
        let deadline = handshake.association.deadline();
        let outcomes = match result {
            Ok(outcomes) => outcomes,
            Err(failure) => {
                let why = refused(&failure, &handshake.claim, handshake.certified);
                return self.refuse(from, why);
            }
        };
        self.arm(Stage::Handshake(from), deadline);
        let mut outcomes = outcomes.into_iter();
        while let Some(outcome) = outcomes.next() {
            match outcome {
                Outcome::Transmit(bytes) => self.transmit(from, bytes),
                Outcome::Certificate(der) => {
                    if let Err(why) = self.claim(from, der, now) {
                        return self.refuse(from, why);
                    }
                }
                Outcome::Connected => {
                    self.establish(from, now);
                    return self.take_session(from, Ok(outcomes.collect()), now.mono);
                }
                Outcome::Data(_) | Outcome::Closed => {}
            }
        }
    }

    /// The client shows a certificate.
    fn claim(&mut self, from: SocketAddr, der: Vec<u8>, now: Now) -> Result<(), Refused> {
        let trust = self.trust.as_ref().ok_or(Refused::Withdrawn)?;
        let holder = trust.identify(&der, now.wall)?;
        if let Some(handshake) = self.handshakes.by_address.get_mut(&from) {
            handshake.claim = Claim::Certificate(holder, der);
        }
        Ok(())
    }

    /// The client has proven who it is.
    fn establish(&mut self, from: SocketAddr, now: Now) {
        let Some(handshake) = self.forget(from) else {
            return;
        };
        let (name, credential) = match handshake.claim {
            Claim::Key(Named::Known(name, key)) => (name, Credential::Key(key)),
            Claim::Certificate(Holder { name, until }, der) => {
                (name, Credential::Certificate(der, until))
            }
            Claim::Key(Named::Unknown) | Claim::None => {
                return self.metrics.refused(Refused::Internal);
            }
        };
        // The client has left it, and could not read a goodbye.
        self.end(from, Ended::Renewed, None);
        while let Some(id) = self.sessions.surplus(&name, self.limits.max_sessions) {
            let Some(address) = self.sessions.address(id) else {
                break;
            };
            self.end(address, Ended::Evicted, Some(now.mono));
        }
        let times = (now.mono, self.limits.idle);
        let association = handshake.association;
        let deadline = association.deadline();
        let session = self
            .sessions
            .insert(from, association, name.clone(), credential, times);
        self.arm(Stage::Session(from), deadline);
        self.metrics.established.inc();
        self.count();
        tracing::debug!(peer.addr = %from, node = %name, "a DTLS session begins");
        self.events.push_back(Event::Established {
            session,
            address: from,
            name,
        });
    }

    fn forget(&mut self, address: SocketAddr) -> Option<Handshake> {
        self.deadlines.cancel(&Stage::Handshake(address));
        let handshake = self.handshakes.remove(address);
        self.count();
        handshake
    }

    /// Ends a handshake, and says so where that helps the client.
    fn refuse(&mut self, address: SocketAddr, why: Refused) {
        let Some(handshake) = self.forget(address) else {
            return;
        };
        self.metrics.refused(why);
        tracing::debug!(peer.addr = %address, reason = why.label(), "a DTLS handshake failed");
        if let Some(description) = why.alert() {
            self.transmit(address, handshake.association.alert(description));
        }
    }

    /// Ends the handshakes of those who would not be believed any more.
    pub(super) fn withdraw_handshakes(&mut self, now: Now) {
        let is_lost = |handshake: &Handshake| match &handshake.claim {
            Claim::Key(Named::Known(name, key)) => !self.resolver.has(name, key),
            Claim::Certificate(holder, der) => {
                let credential = Credential::Certificate(der.clone(), holder.until);
                !self.is_good(&holder.name, &credential, now)
            }
            Claim::Key(Named::Unknown) | Claim::None => false,
        };
        let all = self.handshakes.by_address.iter();
        let lost = all.filter_map(|(address, one)| is_lost(one).then_some(*address));
        for address in lost.collect::<Vec<_>>() {
            self.refuse(address, Refused::Withdrawn);
        }
    }
}

/// Why a handshake has failed.
fn refused(failure: &Failure, claim: &Claim, certified: bool) -> Refused {
    let Failure::Dtls(error) = failure else {
        return Refused::Internal;
    };
    match error {
        Error::Timeout(_) => Refused::Timeout,
        Error::CertificateError(dimpl::CertificateError::NoClientCertificateReceived) => {
            Refused::NoCertificate
        }
        Error::SecurityError(SecurityError::FatalAlert { .. }) => Refused::Alert,
        Error::SecurityError(SecurityError::ClientFinishedVerificationFailed)
        | Error::CryptoError(_) => match claim {
            Claim::Key(Named::Known(..)) => Refused::WrongKey,
            Claim::Key(Named::Unknown) => Refused::UnknownIdentity,
            // The whole flight may come at once, before the certificate is looked at.
            Claim::None if certified => Refused::BadSignature,
            Claim::Certificate(..) => Refused::BadSignature,
            Claim::None => Refused::Protocol,
        },
        Error::SecurityError(_) => Refused::NotSupported,
        _ => Refused::Protocol,
    }
}
