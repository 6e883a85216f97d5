//! From a payload to values and back, by its Content-Format (RFC 7252 section 12.3).
//!
//! [`decode`] gives one value, or the records of a SenML pack; nothing a node sends makes it fail: what
//! is in no known format, or not in the one that it claims, is kept in base64 with the number of the
//! format, and the flaw is said. [`encode`] writes a value in a format that the resource takes.
//!
//! What it refuses to do: it knows no node and no path; nesting, records and sizes are bounded.

mod cbor;
mod senml;
mod unit;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bus::bridge::Sample;
use bus::time::Timestamp;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::endpoint::options::format;
use crate::link_format;
pub(crate) use senml::Record;

/// What a payload says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// One value.
    One(Sample),
    /// The records of a SenML pack, resolved, oldest first; one at least.
    Records(Vec<Record>),
}

/// Why a payload was not read as its sender meant it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A Content-Format that nothing here reads.
    UnknownFormat,
    /// It is not what its Content-Format says.
    Malformed,
}

/// Reads a payload that came at `now`. Without a Content-Format it is text, or else bytes.
pub(crate) fn decode(
    content_format: Option<u16>,
    payload: &[u8],
    now: Timestamp,
) -> (Content, Option<Flaw>) {
    let text = std::str::from_utf8(payload);
    let read = match (content_format, text) {
        (None | Some(format::TEXT | format::XML), Ok(text)) => Some(Sample::from_text(text)),
        (Some(format::JSON), Ok(text)) => match serde_json::from_str(text) {
            Ok(value) => Some(Sample::from_json(value)),
            Err(_) => return (one(Sample::from_text(text)), Some(Flaw::Malformed)),
        },
        (Some(format::LINK), Ok(text)) => Some(links(text)),
        (Some(format::CBOR), _) => cbor::decode(payload).ok().map(Sample::from_json),
        (Some(format::SENML_JSON | format::SENSML_JSON), Ok(text)) => {
            match senml::decode(serde_json::from_str(text).ok(), now) {
                Some(records) => return (Content::Records(records), None),
                None => return (one(Sample::from_text(text)), Some(Flaw::Malformed)),
            }
        }
        (Some(format::SENML_CBOR | format::SENSML_CBOR), _) => {
            match senml::decode(cbor::decode(payload).ok(), now) {
                Some(records) => return (Content::Records(records), None),
                None => None,
            }
        }
        (None | Some(format::OCTETS), _) => Some(bytes(content_format, payload)),
        _ => None,
    };
    match read {
        Some(sample) => (one(sample), None),
        None => {
            let flaw = match content_format.is_some_and(is_known) {
                true => Flaw::Malformed,
                false => Flaw::UnknownFormat,
            };
            (one(bytes(content_format, payload)), Some(flaw))
        }
    }
}

fn one(sample: Sample) -> Content {
    Content::One(sample)
}

fn is_known(content_format: u16) -> bool {
    WRITABLE.contains(&content_format)
        || matches!(
            content_format,
            format::LINK | format::XML | format::SENSML_JSON | format::SENSML_CBOR
        )
}

/// What is no text and no value: in base64, with the number of its format.
fn bytes(content_format: Option<u16>, payload: &[u8]) -> Sample {
    let v = Value::String(STANDARD.encode(payload));
    let ct = Some(content_format.unwrap_or(format::OCTETS));
    Sample {
        ct,
        ..Sample::plain(v)
    }
}

/// A list of links as JSON: the target in `href`, a flag is `true`, what comes more than once a list.
fn links(text: &str) -> Sample {
    let links = link_format::parse(text).into_iter().map(|link| {
        let mut object = Map::new();
        object.insert("href".to_owned(), link.target.into());
        for (name, value) in link.attributes {
            let value = value.map_or(Value::Bool(true), Value::String);
            match object.get_mut(&name) {
                None => {
                    object.insert(name, value);
                }
                Some(Value::Array(all)) => all.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        Value::Object(object)
    });
    Sample {
        raw: Some(text.to_owned()),
        ..Sample::plain(links.collect())
    }
}

/// The formats that a value can be written in, the plainest first.
const WRITABLE: [u16; 6] = [
    format::TEXT,
    format::JSON,
    format::CBOR,
    format::SENML_JSON,
    format::SENML_CBOR,
    format::OCTETS,
];

/// Why a value can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unwritable {
    #[error("the resource takes SenML: a number, a text or a boolean")]
    NoRecord,
    #[error("the resource takes bytes: send them as text in base64")]
    NoBytes,
}

/// The format for a write: of those that a resource's list names the plainest, else the one that it
/// was last read in, else none, which is text.
pub(crate) fn format_for(listed: &[u16], last: Option<u16>) -> Option<u16> {
    let listed = WRITABLE.into_iter().find(|known| listed.contains(known));
    listed.or(last.filter(|last| WRITABLE.contains(last) && *last != format::TEXT))
}

/// Writes a value for the resource called `name`.
///
/// # Errors
/// The format has no such value.
pub(crate) fn encode(
    content_format: Option<u16>,
    name: &str,
    value: &Value,
) -> Result<Bytes, Unwritable> {
    Ok(match content_format {
        Some(format::JSON) => value.to_string().into(),
        Some(format::CBOR) => cbor::encode(value).into(),
        Some(format::SENML_JSON) => senml::encode_json(name, value)?.into(),
        Some(format::SENML_CBOR) => senml::encode_cbor(name, value)?.into(),
        Some(format::OCTETS) => {
            let text = value.as_str().ok_or(Unwritable::NoBytes)?;
            let bytes = STANDARD.decode(text).map_err(|_| Unwritable::NoBytes)?;
            bytes.into()
        }
        _ => text(value).into(),
    })
}

/// A value as firmwares read it: text as it is, a boolean as 0 or 1, everything else as JSON writes it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "1".to_owned(),
        Value::Bool(false) => "0".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests;
