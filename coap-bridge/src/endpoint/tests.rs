//! Two endpoints and hostile datagrams.

mod datagrams;
mod link;
mod raw;
mod transfer;
