//! The bridge with nodes on a virtual network, and the real registry behind it.

mod bench;
mod directory;
mod life;
mod places;
mod requests;
mod search;
mod secure;
mod settled;
mod values;
