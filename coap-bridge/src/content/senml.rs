//! SenML packs (RFC 8428) in JSON and CBOR: base fields resolved, one reading for each value.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bus::bridge::Sample;
use bus::time::Timestamp;
use minicbor::Encoder;
use serde_json::{Map, Number, Value, json};

use super::{Unwritable, cbor, unit};

/// The version of SenML that this is (RFC 8428 section 4.4); higher ones are refused.
const VERSION: u64 = 10;
/// A pack with more records is refused.
const MAX_RECORDS: usize = 1024;
/// Longer names are refused, in bytes.
const MAX_NAME: usize = 255;
/// Times below this are relative to now, in seconds (RFC 8428 section 4.5.3).
const ABSOLUTE_FROM: f64 = 268_435_456.0;

/// One value of a pack.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Base Name and Name, which is what the value is of; may be empty where the transport says it.
    pub(crate) full_name: String,
    /// The Name alone; the whole when there is none.
    pub(crate) name: String,
    /// The value with its unit.
    pub(crate) sample: Sample,
    /// When it was measured; never later than it came, for clocks of nodes are often ahead.
    pub(crate) ts: Timestamp,
    /// It is the integral of the value over time, beside the value.
    pub(crate) is_sum: bool,
}

/// Reads a pack out of JSON, or out of CBOR turned to JSON; gives its values, oldest first. None when
/// it is no SenML, has no value, or must not be read: a later version, or a field that ends in `_`.
pub(super) fn decode(pack: Option<Value>, now: Timestamp) -> Option<Vec<Record>> {
    let Some(Value::Array(pack)) = pack else {
        return None;
    };
    if pack.len() > MAX_RECORDS {
        return None;
    }
    let mut base = Base::default();
    let mut records = Vec::new();
    for fields in &pack {
        let fields = Fields(fields.as_object()?);
        fields.check()?;
        base.take(&fields)?;
        records.extend(resolve(&fields, &base, now)?);
    }
    records.sort_by_key(|record| record.ts);
    (!records.is_empty()).then_some(records)
}

/// One record of a pack. CBOR has numbers for the labels (RFC 8428 section 6), which are text by now.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, label: &str, number: &str) -> Option<&Value> {
        self.0.get(label).or_else(|| self.0.get(number))
    }

    /// A field that must be text; the outer none is a pack that is not valid.
    fn text(&self, label: &str, number: &str) -> Option<Option<&str>> {
        match self.get(label, number) {
            None => Some(None),
            Some(value) => value.as_str().map(Some),
        }
    }

    fn number(&self, label: &str, number: &str) -> Option<Option<&Number>> {
        match self.get(label, number) {
            None => Some(None),
            Some(value) => value.as_number().map(Some),
        }
    }

    /// What must be understood and is not (RFC 8428 section 4.4); Update Time must be a number.
    fn check(&self) -> Option<()> {
        self.number("ut", "7")?;
        let version = self.number("bver", "-1")?;
        let known = version.is_none_or(|version| version.as_u64().is_some_and(|v| v <= VERSION));
        (known && !self.0.keys().any(|label| label.ends_with('_'))).then_some(())
    }
}

/// The base fields, which hold for their record and all that follow.
#[derive(Default)]
struct Base {
    name: String,
    time: f64,
    unit: Option<String>,
    value: Option<Number>,
    sum: Option<Number>,
}

impl Base {
    fn take(&mut self, fields: &Fields<'_>) -> Option<()> {
        if let Some(name) = fields.text("bn", "-2")? {
            name.clone_into(&mut self.name);
        }
        if let Some(time) = fields.number("bt", "-3")? {
            self.time = time.as_f64()?;
        }
        if let Some(unit) = fields.text("bu", "-4")? {
            self.unit = Some(unit.to_owned());
        }
        if let Some(value) = fields.number("bv", "-5")? {
            self.value = Some(value.clone());
        }
        if let Some(sum) = fields.number("bs", "-6")? {
            self.sum = Some(sum.clone());
        }
        Some(())
    }
}

/// The values of one record: none when it holds base fields alone, two when it has a sum besides.
fn resolve(fields: &Fields<'_>, base: &Base, now: Timestamp) -> Option<Vec<Record>> {
    let own_name = fields.text("n", "0")?.unwrap_or_default();
    let full_name = format!("{}{own_name}", base.name);
    if full_name.len() > MAX_NAME || full_name.chars().any(char::is_control) {
        return None;
    }
    let time = fields.number("t", "6")?.map_or(Some(0.0), Number::as_f64)?;
    let ts = resolved_time(base.time + time, now);
    let unit = fields.text("u", "1")?.or(base.unit.as_deref());
    let value = value(fields, base)?;
    let own_sum = fields.number("s", "5")?;
    let sum = added(base.sum.as_ref(), own_sum)?;
    if value.is_none() && sum.is_none() {
        let bare = !["n", "0", "t", "6"]
            .iter()
            .any(|label| fields.0.contains_key(*label));
        return bare.then(Vec::new);
    }
    let name = match own_name {
        "" => full_name.clone(),
        own_name => own_name.to_owned(),
    };
    let record = |v: Value, u: Option<String>, is_sum| {
        let u = u.filter(|_| v.is_number());
        Record {
            full_name: full_name.clone(),
            name: name.clone(),
            sample: Sample {
                u,
                ..Sample::plain(v)
            },
            ts,
            is_sum,
        }
    };
    let beside = value.is_some();
    let value = value.map(|v| record(v, unit.map(unit::spelled), false));
    // A sum counts in the unit times seconds (RFC 8428 section 4.2).
    let sum = sum.map(|v| record(v.into(), unit.map(|unit| format!("{unit}.s")), beside));
    Some(value.into_iter().chain(sum).collect())
}

/// The one value of a record; the outer none when there are several, or of a wrong type.
fn value(fields: &Fields<'_>, base: &Base) -> Option<Option<Value>> {
    let number = fields.number("v", "2")?;
    let text = fields.text("vs", "3")?;
    let data = match fields.get("vd", "8") {
        None => None,
        Some(data) => Some(standard(data, fields.0.contains_key("8"))?),
    };
    let flag = match fields.get("vb", "4") {
        None => None,
        Some(flag) => Some(flag.as_bool()?),
    };
    let mut others = [
        text.map(Value::from),
        data.map(Value::from),
        flag.map(Value::from),
    ]
    .into_iter()
    .flatten();
    let other = others.next();
    if others.next().is_some() || (other.is_some() && number.is_some()) {
        return None;
    }
    match other {
        Some(other) => Some(Some(other)),
        None => Some(added(base.value.as_ref(), number)?.map(Value::Number)),
    }
}

/// Bytes in base64 as the bus has them; in JSON they came in the alphabet for URLs.
fn standard(data: &Value, from_cbor: bool) -> Option<String> {
    let text = data.as_str()?;
    if from_cbor {
        return Some(text.to_owned());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    Some(STANDARD.encode(bytes))
}

/// A value on its base; one that is missing counts as 0, both missing is none. The outer none is a
/// number that is none.
fn added(base: Option<&Number>, own: Option<&Number>) -> Option<Option<Number>> {
    let (base, own) = match (base, own) {
        (Some(base), Some(own)) => (base, own),
        (one, other) => return Some(one.or(other).cloned()),
    };
    let whole = base.as_i64().zip(own.as_i64());
    if let Some(sum) = whole.and_then(|(base, own)| base.checked_add(own)) {
        return Some(Some(sum.into()));
    }
    Number::from_f64(base.as_f64()? + own.as_f64()?).map(Some)
}

fn resolved_time(seconds: f64, now: Timestamp) -> Timestamp {
    let since = if seconds < ABSOLUTE_FROM {
        now.unix_millis() as f64
    } else {
        0.0
    };
    // A cast of a float saturates.
    Timestamp::from_unix_millis((since + seconds * 1000.0).round() as i64).min(now)
}

/// One record with this value.
pub(super) fn encode_json(name: &str, value: &Value) -> Result<String, Unwritable> {
    let label = match value {
        Value::Number(_) => "v",
        Value::String(_) => "vs",
        Value::Bool(_) => "vb",
        Value::Null | Value::Array(_) | Value::Object(_) => return Err(Unwritable::NoRecord),
    };
    Ok(json!([{ "n": name, label: value }]).to_string())
}

/// The same in CBOR, with the numbers of the labels.
pub(super) fn encode_cbor(name: &str, value: &Value) -> Result<Vec<u8>, Unwritable> {
    let label = match value {
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Bool(_) => 4,
        Value::Null | Value::Array(_) | Value::Object(_) => return Err(Unwritable::NoRecord),
    };
    let mut to = Encoder::new(Vec::new());
    let head = to.array(1).and_then(|to| to.map(2));
    let named = head.and_then(|to| to.u8(0)).and_then(|to| to.str(name));
    named
        .and_then(|to| to.u8(label))
        .expect("memory takes everything");
    cbor::write(&mut to, value);
    Ok(to.into_writer())
}
