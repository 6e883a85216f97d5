//! The payloads of firmwares: signs of life, pushes, values, writes.

use bus::bridge::{Sample, Uid};
use bus::payload::{Resource, SetMethod};
use bus::time::Timestamp;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::content::{self, Content, Flaw, Record};
use crate::endpoint::options::format;
use crate::endpoint::{Method, Request};

/// `POST /alive`: `<word>:<uid>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alive {
    pub(super) uid: Uid,
    /// The node says that it has started anew.
    pub(super) reset: bool,
}

/// One value of one resource.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub(super) path: String,
    pub(super) sample: Sample,
    pub(super) ts: Timestamp,
}

/// Why a push is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is not what its Content-Format says, or names no resource.
    Malformed,
    /// Its Content-Format has no names of resources, or is not known.
    Format,
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

/// What `POST /server` says: `<resource>:<value>` in text, an object of resources in JSON or CBOR, or a
/// SenML pack that names its resources.
pub(super) fn pushed(
    content_format: Option<u16>,
    payload: &[u8],
    now: Timestamp,
) -> Result<Vec<Reading>, Unreadable> {
    match content_format {
        None | Some(format::TEXT) => {
            let reading = pushed_text(payload, now).ok_or(Unreadable::Malformed)?;
            return Ok(vec![reading]);
        }
        Some(
            format::JSON
            | format::CBOR
            | format::SENML_JSON
            | format::SENSML_JSON
            | format::SENML_CBOR
            | format::SENSML_CBOR,
        ) => {}
        Some(_) => return Err(Unreadable::Format),
    }
    let readings = match content::decode(content_format, payload, now) {
        (_, Some(_)) => return Err(Unreadable::Malformed),
        (Content::Records(records), None) => records
            .into_iter()
            .map(|record| record_of(None, record))
            .collect(),
        (Content::One(sample), None) => members(sample, now).ok_or(Unreadable::Malformed)?,
    };
    match readings.iter().all(|reading| is_path(&reading.path)) {
        true => Ok(readings),
        false => Err(Unreadable::Malformed),
    }
}

/// Split at the first colon, as Pyaiot does.
fn pushed_text(payload: &[u8], ts: Timestamp) -> Option<Reading> {
    let text = std::str::from_utf8(trim_nuls(payload)).ok()?;
    let (path, value) = text.split_once(':')?;
    let path = path.trim().trim_start_matches('/');
    is_path(path).then(|| Reading {
        path: path.to_owned(),
        sample: Sample::from_text(value),
        ts,
    })
}

fn is_path(path: &str) -> bool {
    (1..=MAX_PATH).contains(&path.len()) && !path.chars().any(char::is_control)
}

fn members(sample: Sample, ts: Timestamp) -> Option<Vec<Reading>> {
    let Value::Object(members) = sample.v else {
        return None;
    };
    let reading = |(path, value): (String, Value)| Reading {
        path: path.trim_start_matches('/').to_owned(),
        sample: Sample::from_json(value),
        ts,
    };
    Some(members.into_iter().map(reading).collect())
}

/// A record as a reading: under its name if that is a path from the root, else below `of`.
fn record_of(of: Option<&str>, record: Record) -> Reading {
    let Record {
        full_name,
        name,
        sample,
        ts,
        is_sum,
    } = record;
    let mut path = match (full_name.strip_prefix('/'), of) {
        (Some(from_root), _) => from_root.to_owned(),
        (None, Some(of)) => format!("{of}/{}", name.trim_start_matches('/')),
        (None, None) => name.trim_start_matches('/').to_owned(),
    };
    if is_sum {
        path.push_str("/sum");
    }
    Reading { path, sample, ts }
}

fn trim_nuls(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0);
    bytes
        .get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default()
}

/// What a response says about the resource that was read: its value, last, and before it what a SenML
/// pack says of others.
pub(super) fn read(
    path: &str,
    content_format: Option<u16>,
    payload: &[u8],
    now: Timestamp,
) -> (Vec<Reading>, Option<Flaw>) {
    let payload = match content_format {
        None | Some(format::TEXT) => without_additions(path, payload),
        _ => payload,
    };
    let (content, flaw) = content::decode(content_format, payload, now);
    let readings = match content {
        Content::One(sample) => vec![Reading {
            path: path.to_owned(),
            sample,
            ts: now,
        }],
        Content::Records(records) => of_records(path, records),
    };
    (readings, flaw)
}

/// Text without the NULs and the `<path>:` that old firmwares add; bytes that are no text as they are.
fn without_additions<'a>(path: &str, payload: &'a [u8]) -> &'a [u8] {
    let trimmed = trim_nuls(payload);
    match std::str::from_utf8(trimmed) {
        Ok(text) => text
            .strip_prefix(path)
            .and_then(|rest| rest.strip_prefix(':'))
            .map_or(trimmed, str::as_bytes),
        Err(_) => payload,
    }
}

/// A pack about one thing is the resource's own value, or several of it. Of one about several things
/// each has a resource of its own, and the resource that was read holds them all by name.
fn of_records(path: &str, records: Vec<Record>) -> Vec<Reading> {
    let first = records.first().map(|record| record.full_name.clone());
    let alone = records
        .iter()
        .all(|record| Some(&record.full_name) == first.as_ref());
    if alone {
        let own = |record: Record| Reading {
            path: if record.is_sum {
                format!("{path}/sum")
            } else {
                path.to_owned()
            },
            sample: record.sample,
            ts: record.ts,
        };
        let (sums, values): (Vec<_>, Vec<_>) = records.into_iter().partition(|r| r.is_sum);
        return sums.into_iter().chain(values).map(own).collect();
    }
    let mut all = Map::new();
    let mut ts = None;
    let mut readings = Vec::new();
    for record in records {
        if !record.is_sum {
            all.insert(record.name.clone(), record.sample.v.clone());
        }
        ts = Some(record.ts);
        readings.push(record_of(Some(path), record));
    }
    readings.extend(ts.map(|ts| Reading {
        path: path.to_owned(),
        sample: Sample::plain(Value::Object(all)),
        ts,
    }));
    readings
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

    const NOW: Timestamp = Timestamp::EPOCH;

    #[track_caller]
    fn push(content_format: Option<u16>, payload: &[u8]) -> Vec<(String, Value, Option<String>)> {
        let readings = pushed(content_format, payload, NOW).unwrap();
        let plain = |r: Reading| (r.path, r.sample.v, r.sample.u);
        readings.into_iter().map(plain).collect()
    }

    #[test]
    fn pushes_are_split_at_the_first_colon() {
        let unit = Some("°C".to_owned());
        let temperature = ("temperature".to_owned(), json!(21.5), unit);
        assert_eq!(push(None, "temperature:21.5°C".as_bytes()), [temperature]);
        let imu = push(Some(0), br#"imu:[{"type":"acc","values":[1,-2,3]}]"#);
        assert_eq!(imu[0].1, json!([{"type": "acc", "values": [1, -2, 3]}]));
        for bad in ["", "temperature", ":21", "a\nb:1"] {
            let error = pushed(Some(0), bad.as_bytes(), NOW);
            assert_eq!(error, Err(Unreadable::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_push_may_hold_several_resources() {
        let two = [
            ("led".to_owned(), json!(0), None),
            ("t".to_owned(), json!(21.5), Some("°C".to_owned())),
        ];
        let json = r#"{"t":"21.5°C","led":0}"#.as_bytes();
        assert_eq!(push(Some(format::JSON), json), two);
        let senml = br#"[{"bn":"urn:dev:mac:1:","n":"led","v":0},{"n":"t","u":"Cel","v":21.5}]"#;
        assert_eq!(push(Some(format::SENML_JSON), senml), two);
        let lwm2m = br#"[{"bn":"/3303/0/","n":"5700","v":1}]"#;
        assert_eq!(push(Some(format::SENML_JSON), lwm2m)[0].0, "3303/0/5700");
        for (content_format, bad) in [
            (format::JSON, &b"[1]"[..]),
            (format::JSON, b"{"),
            (format::JSON, br#"{"":1}"#),
            (format::CBOR, b"\xa1"),
            (format::SENML_JSON, br#"[{"v":1}]"#),
        ] {
            let error = pushed(Some(content_format), bad, NOW);
            assert_eq!(error, Err(Unreadable::Malformed), "{bad:?}");
        }
        assert_eq!(
            pushed(Some(format::OCTETS), b"x", NOW),
            Err(Unreadable::Format)
        );
        assert_eq!(pushed(Some(11542), b"x", NOW), Err(Unreadable::Format));
    }

    /// The value of a resource that was read.
    fn value(path: &str, content_format: Option<u16>, payload: &[u8]) -> Value {
        let (readings, _) = read(path, content_format, payload, NOW);
        let last = readings.into_iter().next_back().unwrap();
        assert_eq!(last.path, path);
        last.sample.v
    }

    #[test]
    fn values_lose_what_old_firmwares_add() {
        let padded = [b"1013.2hPa".to_vec(), vec![0; 55]].concat();
        assert_eq!(value("pressure", Some(0), &padded), json!(1013.2));
        let imu = br#"imu:[{"type":"acc","values":[0,0,1]}]"#;
        assert_eq!(value("imu", Some(0), imu)[0]["type"], json!("acc"));
        assert_eq!(value("led", None, b"0"), json!(0));
        assert_eq!(value("os", Some(0), b"riot"), json!("riot"));
        assert_eq!(value("p", None, b"\xff\xfe\0"), json!("//4A"));
    }

    #[test]
    fn a_pack_about_one_thing_is_the_value_of_the_resource() {
        let pack = br#"[{"bn":"urn:dev:ow:1:","n":"x","u":"Cel","t":-10,"v":20},{"n":"x","v":21}]"#;
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        let (readings, flaw) = read("temp", Some(format::SENML_JSON), pack, now);
        let told: Vec<_> = readings
            .iter()
            .map(|r| (r.path.as_str(), &r.sample.v, r.ts.unix_millis()))
            .collect();
        assert_eq!(flaw, None);
        assert_eq!(
            told,
            [
                ("temp", &json!(20), 1_699_999_990_000),
                ("temp", &json!(21), 1_700_000_000_000)
            ]
        );
    }

    #[test]
    fn a_pack_about_several_things_gives_each_a_resource() {
        let pack =
            br#"[{"n":"t","u":"Cel","v":20},{"n":"h","u":"%RH","v":40},{"n":"/led","vb":true},
            {"n":"p","u":"W","v":5,"s":100}]"#;
        let (readings, _) = read("env", Some(format::SENML_JSON), pack, NOW);
        let told: Vec<_> = readings
            .iter()
            .map(|r| (r.path.as_str(), r.sample.v.clone(), r.sample.u.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("env/t", json!(20), Some("°C")),
                ("env/h", json!(40), Some("%")),
                ("led", json!(true), None),
                ("env/p", json!(5), Some("W")),
                ("env/p/sum", json!(100), Some("W.s")),
                ("env", json!({"t": 20, "h": 40, "/led": true, "p": 5}), None),
            ]
        );
    }

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
