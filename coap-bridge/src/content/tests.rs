use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: i64 = 1_700_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_unix_millis(NOW)
}

#[track_caller]
fn sample(content_format: Option<u16>, payload: &[u8]) -> (Sample, Option<Flaw>) {
    match decode(content_format, payload, now()) {
        (Content::One(sample), flaw) => (sample, flaw),
        (Content::Records(records), _) => panic!("{records:?}"),
    }
}

#[track_caller]
fn value(content_format: u16, payload: &[u8], expected: Value) {
    let (sample, flaw) = sample(Some(content_format), payload);
    assert_eq!((sample.v, flaw), (expected, None), "{payload:02x?}");
}

#[test]
fn the_content_format_says_how_a_value_is_read() {
    value(format::TEXT, "21.5°C".as_bytes(), json!(21.5));
    value(format::JSON, b"{\"a\":1}", json!({"a": 1}));
    value(format::XML, b"<a/>", json!("<a/>"));
    value(format::OCTETS, b"\x00\x01", json!("AAE="));
    value(format::CBOR, b"\xa1\x61a\x01", json!({"a": 1}));
    value(
        format::LINK,
        br#"</a>;rt="x";ct=0;ct=50;obs,</b>"#,
        json!([{"href": "/a", "rt": "x", "ct": ["0", "50"], "obs": true}, {"href": "/b"}]),
    );
    assert_eq!(
        sample(Some(format::OCTETS), b"x").0.ct,
        Some(format::OCTETS)
    );
    assert_eq!(sample(None, b"\xff").0.ct, Some(format::OCTETS));
    assert_eq!(sample(Some(format::TEXT), b"riot").0.ct, None);
}

#[test]
fn what_can_not_be_read_is_kept_and_said() {
    let kept = |content_format, payload: &[u8]| {
        let (sample, flaw) = sample(Some(content_format), payload);
        (sample.v, sample.ct, flaw)
    };
    assert_eq!(
        kept(11542, b"\xc8"),
        (json!("yA=="), Some(11542), Some(Flaw::UnknownFormat))
    );
    assert_eq!(
        kept(format::CBOR, b"\xa1"),
        (json!("oQ=="), Some(60), Some(Flaw::Malformed))
    );
    assert_eq!(
        kept(format::SENML_CBOR, b"\x80"),
        (json!("gA=="), Some(112), Some(Flaw::Malformed))
    );
    assert_eq!(
        kept(format::TEXT, b"\xff"),
        (json!("/w=="), Some(0), Some(Flaw::Malformed))
    );
    assert_eq!(
        kept(format::JSON, b"{broken"),
        (json!("{broken"), None, Some(Flaw::Malformed))
    );
}

/// RFC 8949, appendix A.
#[test]
fn cbor_is_read_as_the_rfc_shows() {
    let cases: [(&[u8], Value); 26] = [
        (b"\x00", json!(0)),
        (b"\x18\x64", json!(100)),
        (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", json!(u64::MAX)),
        (
            b"\xc2\x49\x01\0\0\0\0\0\0\0\0",
            json!(18_446_744_073_709_551_616.0),
        ),
        (
            b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
            json!(-18_446_744_073_709_551_616.0),
        ),
        (
            b"\xc3\x49\x01\0\0\0\0\0\0\0\0",
            json!(-18_446_744_073_709_551_617.0),
        ),
        (b"\x20", json!(-1)),
        (b"\x39\x03\xe7", json!(-1000)),
        (b"\xf9\x3c\x00", json!(1.0)),
        (b"\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a", json!(1.1)),
        (b"\xfa\x47\xc3\x50\x00", json!(100_000.0)),
        (b"\xfa\x41\xaa\x66\x66", json!(21.3)),
        (b"\xf9\x7c\x00", json!(null)),
        (b"\xf9\x7e\x00", json!(null)),
        (b"\xf5", json!(true)),
        (b"\xf7", json!(null)),
        (b"\xf0", json!(null)),
        (b"\xc1\x1a\x51\x4b\x67\xb0", json!(1_363_896_240)),
        (b"\xc4\x82\x21\x19\x6a\xb3", json!(273.15)),
        (b"\x44\x01\x02\x03\x04", json!("AQIDBA==")),
        (b"\x64\x49\x45\x54\x46", json!("IETF")),
        (
            b"\x83\x01\x82\x02\x03\x82\x04\x05",
            json!([1, [2, 3], [4, 5]]),
        ),
        (b"\xa2\x01\x02\x03\x04", json!({"1": 2, "3": 4})),
        (b"\x5f\x42\x01\x02\x43\x03\x04\x05\xff", json!("AQIDBAU=")),
        (b"\x7f\x65strea\x64ming\xff", json!("streaming")),
        (
            b"\xbf\x63Fun\xf5\x63Amt\x21\xff",
            json!({"Fun": true, "Amt": -2}),
        ),
    ];
    for (payload, expected) in cases {
        value(format::CBOR, payload, expected);
    }
}

#[test]
fn hostile_cbor_is_refused_in_bounded_space() {
    for bad in [
        &b""[..],
        b"\x00\x00",
        b"\xff",
        b"\x1c",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x61\xff",
        b"\x5f\x61a\xff",
        b"\xa1\x01",
        b"\xbf\x01\xff",
        b"\xc2",
        &[0x81; 65_536],
        &[0x9f; 65_536],
        &[0xa1; 65_536],
        &[0xc1; 65_536],
    ] {
        assert!(
            cbor::decode(bad).is_err(),
            "{:02x?}",
            &bad[..bad.len().min(9)]
        );
    }
}

#[track_caller]
fn records(pack: &str) -> Vec<(String, Value, Option<String>, i64)> {
    match decode(Some(format::SENML_JSON), pack.as_bytes(), now()) {
        (Content::Records(records), None) => records
            .into_iter()
            .map(|r| {
                (
                    r.full_name,
                    r.sample.v,
                    r.sample.u,
                    r.ts.unix_millis() - NOW,
                )
            })
            .collect(),
        other => panic!("{pack}: {other:?}"),
    }
}

fn record(name: &str, v: Value, u: Option<&str>, ms: i64) -> (String, Value, Option<String>, i64) {
    (name.to_owned(), v, u.map(str::to_owned), ms)
}

/// RFC 8428, section 5.1.
#[test]
fn base_fields_hold_for_all_records_that_follow() {
    let pack = r#"[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,
        "n":"voltage","u":"V","v":120.1},{"n":"current","t":-5,"v":1.2},{"n":"current","t":-4,"v":1.3}]"#;
    let at = |ms: i64| 1_276_020_076_001 + ms - NOW;
    let name = |n: &str| format!("urn:dev:ow:10e2073a0108006:{n}");
    assert_eq!(
        records(pack),
        [
            record(&name("current"), json!(1.2), Some("A"), at(-5000)),
            record(&name("current"), json!(1.3), Some("A"), at(-4000)),
            record(&name("voltage"), json!(120.1), Some("V"), at(0)),
        ]
    );
}

#[test]
fn values_units_and_times_are_resolved() {
    let one = |fields: &str| records(&format!("[{{\"n\":\"a\",{fields}}}]")).remove(0);
    assert_eq!(
        one("\"u\":\"Cel\",\"v\":21.5"),
        record("a", json!(21.5), Some("°C"), 0)
    );
    assert_eq!(
        one("\"u\":\"%RH\",\"v\":40"),
        record("a", json!(40), Some("%"), 0)
    );
    assert_eq!(
        one("\"vb\":false,\"u\":\"x\""),
        record("a", json!(false), None, 0)
    );
    assert_eq!(one("\"vs\":\"on\""), record("a", json!("on"), None, 0));
    assert_eq!(one("\"vd\":\"_-8\""), record("a", json!("/+8="), None, 0));
    assert_eq!(one("\"bv\":20,\"v\":1"), record("a", json!(21), None, 0));
    assert_eq!(one("\"bv\":20.5"), record("a", json!(20.5), None, 0));
    assert_eq!(
        one("\"bs\":20,\"s\":1,\"bu\":\"W\""),
        record("a", json!(21), Some("W.s"), 0)
    );
    assert_eq!(
        one("\"v\":1,\"t\":-1.5,\"ut\":60"),
        record("a", json!(1), None, -1500)
    );
    // Clocks that are ahead, and times that can't be.
    for late in ["5", "1.9e9", "1e300"] {
        assert_eq!(one(&format!("\"v\":1,\"t\":{late}")).3, 0, "{late}");
    }
    assert_eq!(one("\"v\":1,\"t\":-1e300").3, -NOW);
    let both = records(r#"[{"n":"a","u":"W","v":3,"s":7,"ignored":1}]"#);
    assert_eq!(
        both,
        [
            record("a", json!(3), Some("W"), 0),
            record("a", json!(7), Some("W.s"), 0)
        ]
    );
}

#[test]
fn what_is_no_senml_is_refused() {
    for bad in [
        "1",
        "{}",
        "[]",
        "[1]",
        "[{}]",
        r#"[{"n":"a"}]"#,
        r#"[{"n":1,"v":1}]"#,
        r#"[{"n":"a","v":"1"}]"#,
        r#"[{"n":"a","v":1,"vs":"x"}]"#,
        r#"[{"n":"a","vb":true,"vs":"x"}]"#,
        r#"[{"n":"a","vd":"?"}]"#,
        r#"[{"bver":11,"n":"a","v":1}]"#,
        r#"[{"n":"a","v":1,"must_":1}]"#,
        r#"[{"n":"a\u0000","v":1}]"#,
        r#"[{"n":"a","ut":"x","v":1}]"#,
        r#"[{"n":"a","bv":1e308,"v":1.7e308}]"#,
    ] {
        let (content, flaw) = decode(Some(format::SENML_JSON), bad.as_bytes(), now());
        assert_eq!(flaw, Some(Flaw::Malformed), "{bad}: {content:?}");
    }
    let many = format!("[{}]", vec![r#"{"n":"a","v":1}"#; 1025].join(","));
    let (_, flaw) = decode(Some(format::SENML_JSON), many.as_bytes(), now());
    assert_eq!(flaw, Some(Flaw::Malformed));
}

#[test]
fn senml_in_cbor_has_numbers_for_labels() {
    // [{-2: "d:", 0: "t", 1: "Cel", 2: 21.5}, {0: "b", 8: h'fbff'}, {"n": "c", "vb": true}]
    let pack = b"\x83\xa4\x21\x62d:\x00\x61t\x01\x63Cel\x02\xf9\x4d\x60\
        \xa2\x00\x61b\x08\x42\xfb\xff\xa2\x61n\x61c\x62vb\xf5";
    let (Content::Records(records), None) = decode(Some(format::SENML_CBOR), pack, now()) else {
        panic!("not read");
    };
    let told: Vec<_> = records
        .iter()
        .map(|r| {
            (
                r.full_name.as_str(),
                r.name.as_str(),
                &r.sample.v,
                r.sample.u.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("d:t", "t", &json!(21.5), Some("°C")),
            ("d:b", "b", &json!("+/8="), None),
            ("d:c", "c", &json!(true), None)
        ]
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        "[^0-9{\\[]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_value_survives_cbor(value in any_json()) {
        let encoded = encode(Some(format::CBOR), "x", &value).unwrap();
        prop_assert_eq!(cbor::decode(&encoded).unwrap(), value);
    }

    #[test]
    fn a_scalar_survives_senml(value in any_json(), json in any::<bool>()) {
        let content_format = if json { format::SENML_JSON } else { format::SENML_CBOR };
        match encode(Some(content_format), "x", &value) {
            Ok(encoded) => match decode(Some(content_format), &encoded, now()) {
                (Content::Records(records), None) => {
                    let read = &records[0].sample.v;
                    // serde_json reads the last digit of a float as it likes.
                    let near = |read: f64, value: f64| (read / value - 1.0).abs() < 1e-15;
                    let is_near = read.as_f64().zip(value.as_f64()).is_some_and(|(r, v)| near(r, v));
                    prop_assert!(read == &value || is_near, "{read} {value}");
                }
                other => prop_assert!(false, "{other:?}"),
            },
            Err(error) => {
                prop_assert_eq!(error, Unwritable::NoRecord);
                prop_assert!(value.is_null() || value.is_array() || value.is_object());
            }
        }
    }

    /// Whatever comes, there is a value, and it is not much larger than what came.
    #[test]
    fn no_payload_panics(
        content_format in prop_oneof![
            Just(None), any::<u16>().prop_map(Some),
            prop::sample::select(vec![0u16, 40, 41, 42, 50, 60, 110, 111, 112, 113]).prop_map(Some),
        ],
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        match decode(content_format, &payload, now()) {
            (Content::One(sample), _) => {
                prop_assert!(sample.v.to_string().len() <= 16 * payload.len() + 400);
            }
            (Content::Records(records), _) => prop_assert!(!records.is_empty()),
        }
    }

    /// The same with bytes that are SenML as often as not.
    #[test]
    fn no_pack_panics(text in r#"\[(\{("(bn|bt|bu|bv|bs|bver|n|u|v|vs|vb|vd|s|t|ut|-1|2|8)":("[a-z_]{0,4}"|-?[0-9]{1,12}(\.5)?(e[0-9]{1,3})?|true|null),?){0,4}\},?){0,4}\]"#) {
        let (content, flaw) = decode(Some(format::SENML_JSON), text.as_bytes(), now());
        prop_assert!(matches!(content, Content::Records(_)) == flaw.is_none());
    }
}
