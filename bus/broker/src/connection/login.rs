//! Who a client is that came without a certificate, by the name and password of its CONNECT.

use std::net::SocketAddr;
use std::time::Instant;

use bus::time::{now, sleep_until};

use crate::broker::Broker;
use crate::events::Refusal;
use crate::identity::{Known, Proof};
use crate::logins::Refused;
use crate::wire::{Connect, Reason};

/// Looks at name and password by `deadline`.
pub(super) async fn log_in(
    broker: &Broker,
    connect: &mut Connect,
    peer: SocketAddr,
    deadline: Instant,
) -> Result<Known, Reason> {
    let rules = broker.gate.rules();
    let name = connect.user_name.take().unwrap_or_default();
    let verified = match connect.password.take() {
        Some(password) => {
            let verified = broker
                .logins
                .verify(rules.passwords, peer.ip(), &name, password);
            tokio::select! {
                verified = verified => verified,
                // It may come back: what is being looked at for it then costs nothing any more.
                () = sleep_until(Some(deadline)) => return Err(Reason::ServerBusy),
                () = broker.shutdown.stopping() => return Err(Reason::ServerShuttingDown),
            }
        }
        None => Err(Refused::Wrong),
    };
    let refused = match verified {
        Ok(login) => {
            return Ok(Known {
                identity: login.identity.clone(),
                proof: Proof::Password(login),
                generation: rules.generation,
            });
        }
        Err(refused) => refused,
    };
    let refusal = Refusal {
        kind: "password",
        who: &peer.ip().to_canonical().to_string(),
        what: &name,
    };
    broker.refuse(&refusal, now());
    Err(match refused {
        Refused::Wrong => Reason::BadUserNameOrPassword,
        Refused::TooMany => Reason::ConnectionRateExceeded,
    })
}
