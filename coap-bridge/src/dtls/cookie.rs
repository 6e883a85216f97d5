//! The stateless cookie (RFC 6347 section 4.2.1): nothing is kept of an address, and no key is
//! touched, before it has shown that it receives what is sent to it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use dimpl::crypto::aws_lc_rs::default_provider;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::record::ClientHello;

/// A cookie is taken for this long at least, and twice as long at the most.
const LIFETIME: Duration = Duration::from_secs(60);

pub(super) type Cookie = [u8; 32];
type Secret = [u8; 32];

#[derive(Debug)]
pub(super) struct Cookies {
    current: Secret,
    previous: Secret,
    since: Instant,
    rng: StdRng,
}

impl Cookies {
    pub(super) fn new(rng: &mut StdRng, now: Instant) -> Self {
        let mut rng = StdRng::from_rng(rng);
        Self {
            current: rng.random(),
            previous: rng.random(),
            since: now,
            rng,
        }
    }

    fn renew(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < LIFETIME {
            return;
        }
        // What was made before the last but one renewal is of no use any more.
        self.previous = if age < 2 * LIFETIME {
            self.current
        } else {
            self.rng.random()
        };
        self.current = self.rng.random();
        self.since = now;
    }

    /// The cookie for a client; none when there is no cryptography.
    pub(super) fn make(
        &mut self,
        from: SocketAddr,
        hello: &ClientHello<'_>,
        now: Instant,
    ) -> Option<Cookie> {
        self.renew(now);
        cookie(&self.current, from, hello)
    }

    /// The cookie that a client brought back, if it is one of ours.
    pub(super) fn check(
        &mut self,
        from: SocketAddr,
        hello: &ClientHello<'_>,
        now: Instant,
    ) -> Option<Cookie> {
        let brought: Cookie = hello.cookie.try_into().ok()?;
        self.renew(now);
        let made = [self.current, self.previous].map(|secret| cookie(&secret, from, hello));
        let is_ours = |made: &Cookie| {
            let pairs = made.iter().zip(brought);
            // In the same time, wherever they differ.
            pairs.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
        };
        made.iter().flatten().any(is_ours).then_some(brought)
    }
}

/// HMAC-SHA-256 over the client's address and what it must repeat.
fn cookie(secret: &Secret, from: SocketAddr, hello: &ClientHello<'_>) -> Option<Cookie> {
    let (ip, scope) = match from {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
        SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
    };
    debug_assert_eq!(IpAddr::from(ip).to_canonical(), from.ip());
    let mut data = ip.octets().to_vec();
    data.extend(scope.to_be_bytes());
    data.extend(from.port().to_be_bytes());
    for part in hello.parameters() {
        data.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        data.extend(part);
    }
    default_provider()
        .hmac_provider
        .hmac_sha256(secret, &data)
        .ok()
}

#[cfg(test)]
mod tests {
    use crate::dtls::client::hello;
    use crate::dtls::record::records;

    use super::*;

    #[test]
    fn a_cookie_is_good_for_one_address_and_one_hello_and_some_time() {
        let start = bus::time::now().mono;
        let mut cookies = Cookies::new(&mut StdRng::seed_from_u64(1), start);
        let here: SocketAddr = "[fe80::1%2]:7".parse().unwrap();
        let ask = |cookies: &mut Cookies, from: &str, random: u8, cookie: &[u8], after: u64| {
            let datagram = hello(random, cookie);
            let all = records(&datagram).unwrap();
            let hello = ClientHello::read(&all[0]).unwrap();
            let now = start + Duration::from_secs(after);
            cookies.check(from.parse().unwrap(), &hello, now).is_some()
        };
        let datagram = hello(7, &[]);
        let all = records(&datagram).unwrap();
        let first = ClientHello::read(&all[0]).unwrap();
        let cookie = cookies.make(here, &first, start).unwrap();

        assert!(ask(&mut cookies, "[fe80::1%2]:7", 7, &cookie, 0));
        for elsewhere in [
            "[fe80::1%3]:7",
            "[fe80::1%2]:8",
            "[fe80::2%2]:7",
            "10.0.0.1:7",
        ] {
            assert!(!ask(&mut cookies, elsewhere, 7, &cookie, 0), "{elsewhere}");
        }
        assert!(!ask(&mut cookies, "[fe80::1%2]:7", 8, &cookie, 0));
        assert!(!ask(&mut cookies, "[fe80::1%2]:7", 7, &cookie[1..], 0));
        assert!(!ask(&mut cookies, "[fe80::1%2]:7", 7, &[0; 32], 0));
        assert!(ask(&mut cookies, "[fe80::1%2]:7", 7, &cookie, 59));
        assert!(ask(&mut cookies, "[fe80::1%2]:7", 7, &cookie, 100));
        assert!(!ask(&mut cookies, "[fe80::1%2]:7", 7, &cookie, 161));
    }
}
