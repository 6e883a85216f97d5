//! The broker from outside: real sockets, wrong packets too.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets what it does not expect ends there"
)]

mod access;
mod clients;
mod exactly_once;
mod flows;
mod hostile;
mod kill;
mod limits;
mod passwords;
mod process;
mod reload;
mod restart;
mod retained;
mod sessions;
mod shared;
mod silent;
mod slow;
mod soak;
mod stop;
mod support;
mod websocket;
mod wills;
