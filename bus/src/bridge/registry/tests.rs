//! The registry in a world of its own: a bus, a queue and a clock.

mod away;
mod commands;
mod life;
mod others;
mod restart;
mod sim;
