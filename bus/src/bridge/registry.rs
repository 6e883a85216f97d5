//! The bridge machine.
