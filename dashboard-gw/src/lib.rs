//! Shows the bus to browsers: the page, its stream, and the client protocol of Pyaiot.

pub mod message;
