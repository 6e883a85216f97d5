//! Why a connection came to its end, in words for an operator.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use rumqttc::v5::mqttbytes;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, DisconnectReasonCode};

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the bus can't be reached")]
    Unreachable(#[source] io::Error),
    #[error("the host in the address of the bus can't stand in a certificate")]
    Host,
    #[error("the TLS handshake with the bus failed")]
    Handshake(#[source] io::Error),
    #[error("the bus did not answer in time")]
    Unanswered,
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    #[error("the bus closed the connection")]
    Closed,
    #[error("the bus refused the connection: {}", refusal(*.0))]
    Refused(ConnectReturnCode),
    #[error("the bus speaks an older MQTT: MQTT 5 is needed")]
    OldMqtt,
    #[error("the bus {0}, which nodebus can't do without")]
    Unfit(&'static str),
    #[error("the bus ended the connection: {0:?}")]
    Disconnected(DisconnectReasonCode),
    #[error("the bus sent what is not MQTT 5")]
    Malformed(#[source] mqttbytes::Error),
    #[error("the bus sent {0}, against MQTT 5")]
    Violation(&'static str),
    #[error("the bus was silent for {0} s, though asked by PINGREQ whether it is there")]
    Silent(u64),
    #[error("the bus does not read what it is sent")]
    Deaf,
}

/// A CONNACK's Reason Code (MQTT 5 section 3.2.2.2), with the remedy where there is one here.
fn refusal(code: ConnectReturnCode) -> String {
    use ConnectReturnCode as Code;
    let text = match code {
        Code::NotAuthorized => {
            "not authorized: does it know the authority of this certificate, and its role and name?"
        }
        Code::BadUserNamePassword => "it wants a user name and password: use its mqtts:// listener",
        Code::ClientIdentifierNotValid | Code::BadClientId => {
            "the Client Identifier is not valid: it must be the certificate's name"
        }
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
            "it does not speak MQTT 5"
        }
        Code::ServerBusy | Code::ServerUnavailable | Code::ServiceUnavailable => {
            "it is busy or not ready"
        }
        Code::ConnectionRateExceeded => "too many connections at a time",
        Code::QuotaExceeded => "it has as many connections as it takes",
        Code::Banned => "this client is banned",
        Code::QoSNotSupported => "it does not take QoS 1",
        Code::RetainNotSupported => "it keeps no retained messages",
        other => return format!("{other:?}"),
    };
    text.to_owned()
}

/// An error with all its causes, in one line.
pub(super) fn in_words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String does not fail.
        write!(text, ": {error}").unwrap_or_default();
        cause = error.source();
    }
    text
}

/// What a failed read or write means.
pub(super) fn lost(error: io::Error) -> ConnectionError {
    match error.kind() {
        // The end of TCP without the one of TLS.
        io::ErrorKind::UnexpectedEof => ConnectionError::Closed,
        _ => ConnectionError::Lost(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_their_causes() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            in_words(&ConnectionError::Unreachable(refused)),
            "the bus can't be reached: connection refused"
        );
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "no close_notify");
        assert_eq!(in_words(&lost(eof)), "the bus closed the connection");
        let taken_over = ConnectionError::Disconnected(DisconnectReasonCode::SessionTakenOver);
        assert_eq!(
            in_words(&taken_over),
            "the bus ended the connection: SessionTakenOver"
        );
    }
}
