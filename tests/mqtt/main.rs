//! Conformance of the broker to MQTT 3.1.1 and 5, by normative statement.
//!
//! A test is called after the statement that it checks: `mqtt5_3_3_1_8` checks `[MQTT-3.3.1-8]` of
//! MQTT 5. `MQTT_BROKER=host:port` names a broker to check; without it, each statement is checked
//! against our own broker and Debian's mosquitto, which shows that the test tests the standard. Where
//! mosquitto itself fails, `but` says why, and the test runs against both all the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says why")]

mod brokers;
mod client;

mod connecting;
mod flows;
mod numbers;
mod properties;
mod publishing;
mod sessions;
mod shared;
mod subscribing;
mod sys;
mod wills;
mod wire;

/// A check of one broker.
type Check = fn(&brokers::Broker, u8);

macro_rules! slow {
    ($($module:ident: $($body:ident $version:literal),+;)+) => {
        &[$($((
            concat!("mqtt::", stringify!($module), "::", stringify!($body), $version),
            $module::$body,
            $version,
        )),+),+]
    };
}

/// Checks that wait for time to pass: they begin with the first test, and are waited for in their own.
const SLOW: &[(&str, Check, u8)] = slow! {
    connecting: keep_alive 4, keep_alive 5, keep_alive_is_the_clients 4, keep_alive_is_the_clients 5;
    flows: completed_although_expired 5;
    properties: expired 5, remaining_expiry 5;
    sessions: kept_while_open 5, not_sent_again 5;
    wills: after_silence 4, after_silence 5, after_its_delay 5, with_its_session 5;
};

/// Declares tests of `name(broker, version)`: under one name for each version, as the statements'
/// numbers differ between the two.
macro_rules! statements {
    ($($body:ident: $($test:ident = $version:literal $(but $defect:literal)?),+;)+) => {$($(
        #[test]
        fn $test() {
            let check = concat!(module_path!(), "::", stringify!($body), $version);
            let defect = [$($defect)?].first().copied();
            crate::brokers::on_each(check, defect, |broker| $body(broker, $version));
        }
    )+)+};
}
pub(crate) use statements;
