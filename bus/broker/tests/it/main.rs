//! The broker from outside: real sockets, wrong packets too.

mod access;
mod flows;
mod hostile;
mod retained;
mod sessions;
mod support;
mod wills;
