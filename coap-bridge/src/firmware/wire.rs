//! The payloads of firmwares: signs of life, pushes, values, writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bus::bridge::{Sample, Uid};
use bus::payload::Resource;
use bytes::Bytes;
use serde_json::Value;

use crate::endpoint::options::format;
use crate::endpoint::{Method, Request};

/// `POST /alive`: `<word>:<uid>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alive {
    pub(super) uid: Uid,
    /// The node says that it has started anew.
    pub(super) reset: bool,
}

/// `POST /server`: `<resource>:<value>`.
#[derive(Debug, PartialEq)]
pub(super) struct Push {
    pub(super) path: String,
    pub(super) sample: Sample,
}

/// The longest path of a resource, in bytes.
const MAX_PATH: usize = 255;

/// The largest request that old firmwares take, in bytes: others are dropped without a word.
pub(super) const MAX_LIMITED_REQUEST: usize = 128;

impl Alive {
    /// The word in any case, the uid behind the last colon, as in Pyaiot.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(trim_nuls(payload)).ok()?.trim();
        let (word, _) = text.split_once(':')?;
        let (_, uid) = text.rsplit_once(':')?;
        let reset = match word {
            _ if word.eq_ignore_ascii_case("alive") => false,
            _ if word.eq_ignore_ascii_case("reset") => true,
            _ => return None,
        };
        let uid = Uid::new(uid.trim()).ok()?;
        Some(Self { uid, reset })
    }
}

impl Push {
    /// Split at the first colon.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(trim_nuls(payload)).ok()?;
        let (path, value) = text.split_once(':')?;
        let path = path.trim().trim_start_matches('/');
        let usable = (1..=MAX_PATH).contains(&path.len()) && !path.chars().any(char::is_control);
        usable.then(|| Self {
            path: path.to_owned(),
            sample: Sample::from_text(value),
        })
    }
}

fn trim_nuls(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0);
    bytes
        .get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default()
}

/// The value in a response: text without the NULs and the `<path>:` that old firmwares add, JSON as
/// it is, anything else in base64.
pub(super) fn sample(path: &str, content_format: Option<u16>, payload: &[u8]) -> Sample {
    let text = std::str::from_utf8(trim_nuls(payload));
    match (content_format, text) {
        (None | Some(format::TEXT | format::LINK | format::XML), Ok(text)) => {
            let prefix = text
                .strip_prefix(path)
                .and_then(|rest| rest.strip_prefix(':'));
            Sample::from_text(prefix.unwrap_or(text))
        }
        (Some(format::JSON), Ok(text)) => match serde_json::from_str(text) {
            Ok(value) => Sample::from_json(value),
            Err(_) => Sample::from_text(text),
        },
        _ => Sample::plain(Value::String(STANDARD.encode(payload))),
    }
}

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
}

/// The request that writes a value.
pub(super) fn write(
    path: &str,
    resource: Option<&Resource>,
    value: &Value,
    profile: Profile,
) -> Result<Request, Unwritable> {
    let request = Request::new(Method::Put, path);
    if profile == Profile::Limited {
        let text = if path == "led" {
            led(value)?.to_owned()
        } else {
            text(value)
        };
        let request = request.with_payload(text);
        let fits = request.encoded_len() <= MAX_LIMITED_REQUEST;
        return if fits {
            Ok(request)
        } else {
            Err(Unwritable::TooLong)
        };
    }
    let formats = resource.map_or(&[][..], |resource| &resource.ct);
    if formats.contains(&format::JSON) && !formats.contains(&format::TEXT) {
        let json = Bytes::from(value.to_string());
        return Ok(request.with_payload(json).with_format(format::JSON));
    }
    Ok(request.with_payload(text(value)))
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

/// A value as firmwares read it: text as it is, everything else as JSON writes it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "1".to_owned(),
        Value::Bool(false) => "0".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn alive(payload: &str, uid: &str, reset: bool) {
        let uid = Uid::new(uid).unwrap();
        assert_eq!(Alive::parse(payload.as_bytes()), Some(Alive { uid, reset }));
    }

    #[test]
    fn signs_of_life_are_read_in_any_case() {
        alive("alive:FB6D23232323232", "FB6D23232323232", false);
        alive("reset:FB6D23232323232", "FB6D23232323232", true);
        alive("Alive:1234", "1234", false);
        alive("RESET: 1234\0\0", "1234", true);
        alive("alive:a:b", "b", false);
        for bad in [
            "",
            "alive",
            "alive:",
            "hello:1",
            "alive:\u{1}",
            ":1",
            "1:alive",
        ] {
            assert_eq!(Alive::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Alive::parse(b"alive:\xff"), None);
    }

    #[test]
    fn pushes_are_split_at_the_first_colon() {
        let push = Push::parse("temperature:21.5°C".as_bytes()).unwrap();
        assert_eq!(push.path, "temperature");
        assert_eq!(
            (push.sample.v, push.sample.u.as_deref()),
            (json!(21.5), Some("°C"))
        );
        let imu = br#"imu:[{"type":"acc","values":[1,-2,3]}]"#;
        let push = Push::parse(imu).unwrap();
        assert_eq!(
            push.sample.v,
            json!([{"type": "acc", "values": [1, -2, 3]}])
        );
        for bad in ["", "temperature", ":21", "a\nb:1"] {
            assert_eq!(Push::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn values_lose_what_old_firmwares_add() {
        let padded = [b"1013.2hPa".to_vec(), vec![0; 55]].concat();
        assert_eq!(sample("pressure", Some(0), &padded).v, json!(1013.2));
        let imu = br#"imu:[{"type":"acc","values":[0,0,1]}]"#;
        assert_eq!(sample("imu", Some(0), imu).v[0]["type"], json!("acc"));
        assert_eq!(sample("led", None, b"0").v, json!(0));
        assert_eq!(sample("os", Some(0), b"riot").v, json!("riot"));
    }

    #[test]
    fn the_content_format_says_how_a_value_is_read() {
        assert_eq!(
            sample("p", Some(format::JSON), b"{\"a\":1}").v,
            json!({"a": 1})
        );
        assert_eq!(
            sample("p", Some(format::JSON), b"{broken").v,
            json!("{broken")
        );
        assert_eq!(
            sample("p", Some(format::OCTETS), b"\x00\x01").v,
            json!("AAE=")
        );
        assert_eq!(sample("p", Some(60), b"\xa0").v, json!("oA=="));
        assert_eq!(sample("p", None, b"\xff\xfe").v, json!("//4="));
    }

    fn led_node() -> Resource {
        Resource {
            path: "led".into(),
            ..Resource::default()
        }
    }

    #[test]
    fn old_firmwares_get_only_what_they_survive() {
        let led = |value| write("led", Some(&led_node()), &value, Profile::Limited);
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
        let js = |len| write("js", None, &json!("x".repeat(len)), Profile::Limited);
        assert!(js(longest).is_ok());
        assert_eq!(js(longest + 1), Err(Unwritable::TooLong));
    }

    #[test]
    fn other_nodes_get_the_value_in_the_format_they_name() {
        let resource = Resource {
            ct: vec![format::JSON],
            ..Resource::default()
        };
        let request = write("p", Some(&resource), &json!({"a": 1}), Profile::Full).unwrap();
        assert_eq!(&request.payload[..], b"{\"a\":1}");
        let request = write("p", None, &json!("0:0:0\n"), Profile::Full).unwrap();
        assert_eq!(&request.payload[..], b"0:0:0\n");
        let request = write("p", None, &json!(21.5), Profile::Full).unwrap();
        assert_eq!(&request.payload[..], b"21.5");
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
