//! How a value is written to a node, in what it can take.

use bus::payload::{Resource, SetMethod};
use bytes::Bytes;
use serde_json::Value;

use crate::content;
use crate::endpoint::options::format;
use crate::endpoint::{Method, Request};

/// The largest request that old firmwares take, in bytes: others are dropped without a word.
const MAX_LIMITED_REQUEST: usize = 128;

/// What is known of how much a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// An old firmware: its links are bare, requests over 128 bytes are lost, and `led` has a buffer
    /// without a bound.
    Limited,
    /// Anything else.
    Full,
}

impl Profile {
    /// A node that says anything about any resource is no old firmware; an unknown one may be.
    pub(super) fn of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        let bare = resources.into_iter().all(|resource| {
            let Resource {
                rt,
                interfaces,
                ct,
                obs,
                sz,
                title,
                ..
            } = resource;
            rt.is_empty()
                && interfaces.is_empty()
                && ct.is_empty()
                && !obs
                && sz.is_none()
                && title.is_none()
        });
        if bare { Self::Limited } else { Self::Full }
    }
}

/// Why a value can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unwritable {
    #[error("led takes 0, 1, true or false")]
    Led,
    #[error("the value is too long: this node takes requests of {MAX_LIMITED_REQUEST} bytes")]
    TooLong,
    #[error(transparent)]
    Format(#[from] content::Unwritable),
}

/// The request that writes a value. `formats` are the Content-Formats that the node's list names,
/// `last` is the one in which the value was last read.
pub(super) fn write(
    path: &str,
    formats: &[u16],
    last: Option<u16>,
    value: &Value,
    profile: Profile,
) -> Result<Request, Unwritable> {
    let request = Request::new(Method::Put, path);
    if profile == Profile::Limited && last.is_none_or(|last| last == format::TEXT) {
        let text = if path == "led" {
            led(value)?.to_owned()
        } else {
            content::text(value)
        };
        let request = request.with_payload(text);
        let fits = request.encoded_len() <= MAX_LIMITED_REQUEST;
        return if fits {
            Ok(request)
        } else {
            Err(Unwritable::TooLong)
        };
    }
    let content_format = content::format_for(formats, last);
    let payload = content::encode(content_format, path, value)?;
    let request = request.with_payload(payload);
    Ok(match content_format {
        // Firmwares expect text without an option that says so.
        None | Some(format::TEXT) => request,
        Some(other) => request.with_format(other),
    })
}

fn led(value: &Value) -> Result<&'static str, Unwritable> {
    match value {
        Value::Bool(false) => Ok("0"),
        Value::Bool(true) => Ok("1"),
        Value::Number(number) if number.as_i64() == Some(0) => Ok("0"),
        Value::Number(number) if number.as_i64() == Some(1) => Ok("1"),
        Value::String(text) if matches!(text.as_str(), "0" | "false") => Ok("0"),
        Value::String(text) if matches!(text.as_str(), "1" | "true") => Ok("1"),
        _ => Err(Unwritable::Led),
    }
}

/// The same request with the method that the bus asks for. A change to JSON says of which kind it is:
/// an object is merged (RFC 7396), an array is a list of operations (RFC 6902).
pub(super) fn with_method(request: Request, method: SetMethod, value: &Value) -> Request {
    let patch = match value {
        Value::Object(_) => Some(format::MERGE_PATCH_JSON),
        Value::Array(_) => Some(format::JSON_PATCH),
        _ => None,
    };
    let (method, patch) = match method {
        SetMethod::Put => (Method::Put, None),
        SetMethod::Post => (Method::Post, None),
        SetMethod::Fetch => (Method::Fetch, None),
        SetMethod::Patch => (Method::Patch, patch),
        SetMethod::IPatch => (Method::IPatch, patch),
    };
    let request = Request { method, ..request };
    match patch {
        Some(format) => {
            let json = Bytes::from(value.to_string());
            request.with_payload(json).with_format(format)
        }
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::endpoint::options::number;

    fn led_node() -> Resource {
        Resource {
            path: "led".into(),
            ..Resource::default()
        }
    }

    #[test]
    fn old_firmwares_get_only_what_they_survive() {
        let led = |value| write("led", &[], None, &value, Profile::Limited);
        assert_eq!(&led(json!(1)).unwrap().payload[..], b"1");
        assert_eq!(&led(json!(false)).unwrap().payload[..], b"0");
        assert_eq!(&led(json!("true")).unwrap().payload[..], b"1");
        for bad in [
            json!(2),
            json!("x"),
            json!("1".repeat(85)),
            json!({}),
            json!(1.5),
        ] {
            assert_eq!(led(bad), Err(Unwritable::Led));
        }
        let longest = MAX_LIMITED_REQUEST - (4 + 4 + 3 + 1);
        let js = |len| write("js", &[], None, &json!("x".repeat(len)), Profile::Limited);
        assert!(js(longest).is_ok());
        assert_eq!(js(longest + 1), Err(Unwritable::TooLong));
    }

    #[test]
    fn other_nodes_get_the_value_in_the_format_they_name() {
        let write = |ct: &[u16], last, value| {
            let request = write("p", ct, last, &value, Profile::Full)?;
            let content_format = request.options.uint(number::CONTENT_FORMAT);
            Ok((content_format, request.payload.to_vec()))
        };
        let text = |text: &str| Ok((None, text.as_bytes().to_vec()));
        assert_eq!(write(&[], None, json!("0:0:0\n")), text("0:0:0\n"));
        assert_eq!(write(&[], Some(0), json!(21.5)), text("21.5"));
        assert_eq!(write(&[50, 0], None, json!(1)), text("1"));
        assert_eq!(write(&[11542], Some(11542), json!(1)), text("1"));
        let in_format = |ct: u32, bytes: &[u8]| Ok((Some(ct), bytes.to_vec()));
        assert_eq!(
            write(&[50], None, json!({"a": 1})),
            in_format(50, b"{\"a\":1}")
        );
        assert_eq!(write(&[], Some(50), json!("x")), in_format(50, b"\"x\""));
        assert_eq!(
            write(&[60], Some(0), json!([1])),
            in_format(60, b"\x81\x01")
        );
        assert_eq!(write(&[42], None, json!("AAE=")), in_format(42, &[0, 1]));
        let senml = br#"[{"n":"p","v":1}]"#;
        assert_eq!(write(&[110], None, json!(1)), in_format(110, senml));
        let senml = b"\x81\xa2\x00\x61p\x04\xf5";
        assert_eq!(write(&[112], None, json!(true)), in_format(112, senml));
        for (ct, value) in [
            (42, json!(1)),
            (42, json!("?")),
            (110, json!({})),
            (112, json!([])),
        ] {
            assert!(matches!(
                write(&[ct], None, value),
                Err(Unwritable::Format(_))
            ));
        }
    }

    #[test]
    fn an_old_firmware_does_not_answer_in_cbor() {
        let write = |last| write("led", &[], last, &json!(7), Profile::Limited);
        assert_eq!(write(Some(0)), Err(Unwritable::Led));
        assert_eq!(&write(Some(60)).unwrap().payload[..], b"\x07");
    }

    #[test]
    fn bare_links_are_an_old_firmware() {
        assert_eq!(Profile::of(&[led_node()]), Profile::Limited);
        assert_eq!(Profile::of(&[]), Profile::Limited);
        let modern = Resource {
            obs: true,
            ..led_node()
        };
        assert_eq!(Profile::of(&[led_node(), modern]), Profile::Full);
    }
}
