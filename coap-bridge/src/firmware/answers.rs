//! How requests of the bus end, in words.

use bus::bridge::Answer;
use bus::payload::AckStatus;
use serde_json::Value;

use crate::endpoint::{Code, RequestError};

pub(super) fn ok(code: Code, v: Option<Value>) -> Answer {
    Answer {
        status: AckStatus::Ok,
        code: Some(code.to_string()),
        v,
        error: None,
    }
}

pub(super) fn rejected(error: &str) -> Answer {
    Answer {
        status: AckStatus::Rejected,
        code: None,
        v: None,
        error: Some(error.to_owned()),
    }
}

pub(super) fn no_server() -> Answer {
    Answer {
        status: AckStatus::Error,
        ..rejected("the node has not answered at its address yet, so it can't be asked")
    }
}

/// To a node whose session has ended nothing can be sent.
pub(super) fn session_ended() -> Answer {
    rejected("the node's DTLS session has ended: it can be asked when it has connected again")
}

/// The answer to a request that got no response, in these words.
pub(super) fn failed(error: RequestError, words: &str) -> Answer {
    Answer {
        status: match error {
            RequestError::Timeout => AckStatus::Timeout,
            _ => AckStatus::Error,
        },
        ..rejected(words)
    }
}

/// The answer to a request that got a response (RFC 7252 section 5.9).
pub(super) fn answered(code: Code, v: Option<Value>) -> Answer {
    if code.is_success() {
        return ok(code, v);
    }
    let words = match code {
        Code::BAD_REQUEST => "the node does not take this value",
        Code::NOT_FOUND => "the node has no such resource",
        Code::METHOD_NOT_ALLOWED => "the node does not allow this on the resource",
        Code::NOT_ACCEPTABLE | Code::UNSUPPORTED_CONTENT_FORMAT => {
            "the node does not know the format"
        }
        Code::REQUEST_ENTITY_TOO_LARGE => "the value is too large for the node",
        Code::FORBIDDEN => "the node forbids it",
        Code::SERVICE_UNAVAILABLE => "the node is busy",
        code if code.class() == 4 => "the node refused the request",
        _ => "the node failed",
    };
    let status = match code.class() {
        4 => AckStatus::Rejected,
        _ => AckStatus::Error,
    };
    Answer {
        status,
        code: Some(code.to_string()),
        ..rejected(words)
    }
}
