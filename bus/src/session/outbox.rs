//! What was published and is not acknowledged yet.
/// How many publications may wait.
pub const CAPACITY: usize = 16_384;
