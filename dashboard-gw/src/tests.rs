//! Browsers and Pyaiot clients over loopback; the bus is fed by hand.

mod http;
mod https;
mod rig;
mod stream;
mod ws;
