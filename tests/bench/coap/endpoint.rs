//! A server of one resource on the bridge's socket and endpoint: what they cost without a bridge.

use bus::time::{now, sleep_until};
use coap_bridge::endpoint::options::format;
use coap_bridge::endpoint::{Code, Endpoint, Event, Limits, Response};
use coap_bridge::socket::Socket;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::bus::on_one_thread;

/// Serves `/time` until it is ended.
pub(crate) fn serve() -> anyhow::Result<()> {
    on_one_thread(async {
        let mut socket = Socket::bind("127.0.0.1:0".parse()?, None)?;
        println!("coap://{}", socket.local_addr()?);
        let mut endpoint = Endpoint::new(Limits::default(), StdRng::from_os_rng());
        loop {
            tokio::select! {
                readable = socket.readable() => readable?,
                () = sleep_until(endpoint.poll_timeout()) => endpoint.handle_timeout(now().mono),
            }
            loop {
                let Ok(batch) = socket.receive() else { break };
                let now = now().mono;
                for (from, datagram) in batch {
                    endpoint.handle_datagram(from, datagram, now);
                    answer(&mut endpoint, now);
                }
                while let Some(transmit) = endpoint.poll_transmit() {
                    // A datagram may be lost.
                    drop(socket.send(transmit.to.address(), &transmit.bytes));
                }
            }
        }
    })
}

fn answer(endpoint: &mut Endpoint, now: std::time::Instant) {
    while let Some(event) = endpoint.poll_event() {
        if let Event::Request {
            exchange, request, ..
        } = event
        {
            let response = match request.path().as_deref() {
                // As long as libcoap's.
                Some("time") => Response::content(format::TEXT, "Nov 25 12:00:00"),
                _ => Response::new(Code::NOT_FOUND),
            };
            endpoint.respond(exchange, response, now);
        }
    }
}
