//! The resources of the ETSI CoAP plugtests on the bridge's own endpoint, for any client to test
//! itself and us with:
//!
//!     cargo run --package coap-bridge --example plugtest-server -- [ADDRESS [SECONDS]]
//!
//! It listens at ADDRESS (127.0.0.1:5683) and changes what is observed each SECONDS (5). Unlike the
//! bridge it gives long answers to whoever asks: do not let strangers reach it.

#![expect(clippy::print_stdout, reason = "it says where it listens")]

mod plugtest;

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:5683".to_owned());
    let address: SocketAddr = address.parse()?;
    let mut settings = plugtest::Settings::default();
    if let Some(seconds) = arguments.next() {
        settings.change_every = Duration::try_from_secs_f64(seconds.parse()?)?;
    }
    let socket = UdpSocket::bind(address)?;
    println!("coap://{}", socket.local_addr()?);
    plugtest::serve(&socket, settings, &AtomicBool::new(true))?;
    Ok(())
}
