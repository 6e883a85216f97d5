//! Conformance of the broker to MQTT 3.1.1 and 5, by normative statement.
//!
//! A test is called after the statement that it checks: `mqtt5_3_3_1_8` checks `[MQTT-3.3.1-8]` of
//! MQTT 5. `MQTT_BROKER=host:port` names a broker to check; without it, each statement is checked
//! against our own broker and Debian's mosquitto, which shows that the test tests the standard.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod brokers;
mod client;

mod connecting;
mod publishing;
mod subscribing;
mod wire;

/// Declares tests of `name(broker, version)`: under one name for each version, as the statements'
/// numbers differ between the two.
macro_rules! statements {
    ($($body:ident: $($test:ident = $version:literal),+;)+) => {$($(
        #[test]
        fn $test() {
            crate::brokers::on_each(stringify!($test), |broker| $body(broker, $version));
        }
    )+)+};
}
pub(crate) use statements;
