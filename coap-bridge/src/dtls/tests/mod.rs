//! The server against clients of dimpl, over a link that loses, doubles, delays and reorders.

mod abuse;
mod bench;
mod certificates;
mod life;
mod psk;
