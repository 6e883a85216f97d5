//! Two endpoints and hostile datagrams.

mod bench;
mod coap_lite;
mod datagrams;
mod groups;
mod link;
mod raw;
mod serve;
mod transfer;
