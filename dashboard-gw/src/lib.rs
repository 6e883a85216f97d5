//! Shows the bus to browsers: the page, its stream, and the client protocol of Pyaiot.

#[cfg(test)]
mod bindings;
pub mod message;
