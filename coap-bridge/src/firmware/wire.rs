//! What nodes say: signs of life, pushes, values.

use bus::bridge::{Sample, Uid};
use bus::time::Timestamp;
use serde_json::{Map, Value};

use crate::content::{self, Content, Flaw, Record};
use crate::endpoint::options::format;

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
}
