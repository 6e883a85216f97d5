//! From what a node sent to a value with its unit.

use serde_json::{Number, Value};

/// One value of a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Number, boolean, string or JSON value.
    pub v: Value,
    /// The unit of a number.
    pub u: Option<String>,
    /// The text it was read from, when that is not the value itself.
    pub raw: Option<String>,
    /// The Content-Format of the bytes, when `v` is bytes in base64.
    pub ct: Option<u16>,
}

/// Units longer than this are no units, in bytes.
const MAX_UNIT: usize = 16;

impl Sample {
    /// A value as it is, without a unit.
    #[must_use]
    pub fn plain(v: Value) -> Self {
        Self {
            v,
            u: None,
            raw: None,
            ct: None,
        }
    }

    /// Reads text: a number with its unit (`21.5°C`), JSON (`{"lat":48.7}`), else the text itself.
    ///
    /// Text that starts like a number but goes on differently (`192.168.0.1`, `2026-11-23`,
    /// `0:0:0`) stays text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let trimmed = text.trim();
        let parsed = |v, u| Self {
            v,
            u,
            raw: Some(text.to_owned()),
            ct: None,
        };
        if let Some((number, unit)) = number_with_unit(trimmed) {
            return parsed(Value::Number(number), unit);
        }
        let looks_like_json =
            trimmed.starts_with(['{', '[']) || matches!(trimmed, "true" | "false");
        if looks_like_json && let Ok(v) = serde_json::from_str(trimmed) {
            return parsed(v, None);
        }
        Self::plain(Value::String(text.to_owned()))
    }

    /// Takes a JSON value: strings are read as text, everything else is as it is.
    #[must_use]
    pub fn from_json(value: Value) -> Self {
        match value {
            Value::String(text) => Self::from_text(&text),
            value => Self::plain(value),
        }
    }
}

/// The length of the JSON number at the start of `text`, if one is there.
fn number_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count()
    };
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 {
        return None;
    }
    at += whole;
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    // An exponent only where digits follow: `5e` may be a unit, `5e3` is a number.
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = bytes
            .get(at + 1 + sign)
            .map_or(0, |_| digits(at + 1 + sign));
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    Some(at)
}

fn number_with_unit(text: &str) -> Option<(Number, Option<String>)> {
    let at = number_length(text)?;
    let number = text[..at].trim_start_matches('-');
    // 007 is a name, not the number seven.
    if number.len() > 1 && number.starts_with('0') && number.as_bytes()[1].is_ascii_digit() {
        return None;
    }
    let unit = text[at..].trim_start();
    let looks_like_a_unit = unit.len() <= MAX_UNIT
        && unit
            .chars()
            .all(|c| c.is_alphabetic() || matches!(c, '°' | '%' | '/' | '²' | '³' | 'µ'));
    if !looks_like_a_unit {
        return None;
    }
    let number: Number = serde_json::from_str(&text[..at]).ok()?;
    Some((number, (!unit.is_empty()).then(|| unit.to_owned())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn number(text: &str, v: Value, u: Option<&str>) {
        let sample = Sample::from_text(text);
        assert_eq!((sample.v, sample.u.as_deref()), (v, u));
        assert_eq!(sample.raw.as_deref(), Some(text));
    }

    #[track_caller]
    fn text(text: &str) {
        assert_eq!(Sample::from_text(text), Sample::plain(json!(text)));
    }

    #[test]
    fn numbers_get_their_units() {
        number("21.5°C", json!(21.5), Some("°C"));
        number("-3 °C", json!(-3), Some("°C"));
        number("1013.2hPa", json!(1013.2), Some("hPa"));
        number("45.02%", json!(45.02), Some("%"));
        number("400ppm", json!(400), Some("ppm"));
        number("0", json!(0), None);
        number("1", json!(1), None);
        number("1.5e3", json!(1500.0), None);
        number("9.81m/s²", json!(9.81), Some("m/s²"));
    }

    #[test]
    fn what_only_starts_like_a_number_stays_text() {
        for t in [
            "192.168.0.1",
            "2026-11-23",
            "0:0:0",
            "007",
            "-",
            "5.",
            "",
            "riot",
            "1 2 3",
            "3 blind mice",
        ] {
            text(t);
        }
        text(&format!("1{}", "x".repeat(MAX_UNIT + 1)));
    }

    #[test]
    fn json_is_a_value() {
        assert_eq!(Sample::from_text("{\"lat\":48.7}").v, json!({"lat": 48.7}));
        assert_eq!(Sample::from_text("true").v, json!(true));
        text("[not json");
        text(&"[".repeat(10_000));
    }

    #[test]
    fn numbers_out_of_range_stay_text() {
        text(&format!("1{}", "0".repeat(400)));
    }

    #[test]
    fn json_values_are_kept() {
        assert_eq!(Sample::from_json(json!(24.5)), Sample::plain(json!(24.5)));
        assert_eq!(Sample::from_json(json!("24.5%")).v, json!(24.5));
    }
}
