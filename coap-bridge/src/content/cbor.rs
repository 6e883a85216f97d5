//! CBOR (RFC 8949) as JSON, and back.
//!
//! Bytes become base64, keys text, what JSON has no number for `null` (RFC 8949 section 6.1); decimal
//! fractions and big numbers are numbers. Other tags are left out, what they mark stays.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minicbor::data::{Tag, Type};
use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Number, Value};

/// Arrays, maps and tags within each other; deeper ones are refused, as serde_json does for JSON.
const MAX_DEPTH: usize = 64;

/// A big number (RFC 8949 section 3.4.3), and a negative one.
const BIG: u64 = 2;
const NEGATIVE_BIG: u64 = 3;
/// A decimal fraction (RFC 8949 section 3.4.4): an exponent of ten and a mantissa.
const DECIMAL: u64 = 4;

/// Reads one item and nothing behind it.
pub(super) fn decode(payload: &[u8]) -> Result<Value, Error> {
    let mut decoder = Decoder::new(payload);
    let value = item(&mut decoder, MAX_DEPTH)?;
    if decoder.position() < payload.len() {
        return Err(Error::message("bytes follow the item"));
    }
    Ok(value)
}

fn item(decoder: &mut Decoder<'_>, depth: usize) -> Result<Value, Error> {
    let inner = depth
        .checked_sub(1)
        .ok_or_else(|| Error::message("nested too deep"))?;
    Ok(match decoder.datatype()? {
        Type::Bool => decoder.bool()?.into(),
        Type::Null => decoder.null().map(|()| Value::Null)?,
        Type::Undefined => decoder.undefined().map(|()| Value::Null)?,
        Type::Simple => decoder.simple().map(|_| Value::Null)?,
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => decoder.u64()?.into(),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => decoder.i64()?.into(),
        Type::Int => float(i128::from(decoder.int()?) as f64),
        Type::F16 => float(decoder.f16()?.into()),
        Type::F32 => float(single(decoder.f32()?)),
        Type::F64 => float(decoder.f64()?),
        Type::Bytes | Type::BytesIndef => STANDARD.encode(bytes(decoder)?).into(),
        Type::String | Type::StringIndef => text(decoder)?.into(),
        Type::Array | Type::ArrayIndef => {
            let length = decoder.array()?;
            let mut array = Vec::new();
            while more(decoder, length, array.len())? {
                array.push(item(decoder, inner)?);
            }
            array.into()
        }
        Type::Map | Type::MapIndef => {
            let length = decoder.map()?;
            let (mut map, mut count) = (Map::new(), 0);
            while more(decoder, length, count)? {
                let key = match item(decoder, inner)? {
                    Value::String(text) => text,
                    key => key.to_string(),
                };
                map.insert(key, item(decoder, inner)?);
                count += 1;
            }
            map.into()
        }
        Type::Tag => {
            let tag = decoder.tag()?;
            tagged(decoder, tag, inner)?
        }
        Type::Break | Type::Unknown(_) => return Err(Error::message("no item starts like this")),
    })
}

/// Whether an array or a map goes on; takes the break that ends one without a length.
fn more(decoder: &mut Decoder<'_>, length: Option<u64>, count: usize) -> Result<bool, Error> {
    match length {
        Some(length) => Ok((count as u64) < length),
        None if decoder.datatype()? == Type::Break => {
            decoder.set_position(decoder.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

fn bytes(decoder: &mut Decoder<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    for chunk in decoder.bytes_iter()? {
        bytes.extend_from_slice(chunk?);
    }
    Ok(bytes)
}

fn text(decoder: &mut Decoder<'_>) -> Result<String, Error> {
    let mut text = String::new();
    for chunk in decoder.str_iter()? {
        text.push_str(chunk?);
    }
    Ok(text)
}

fn tagged(decoder: &mut Decoder<'_>, tag: Tag, depth: usize) -> Result<Value, Error> {
    let tag = tag.as_u64();
    let holds_bytes = matches!(decoder.datatype()?, Type::Bytes | Type::BytesIndef);
    if matches!(tag, BIG | NEGATIVE_BIG) && holds_bytes {
        let number = bytes(decoder)?
            .iter()
            .fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte));
        return Ok(float(if tag == BIG { number } else { -1.0 - number }));
    }
    let value = item(decoder, depth)?;
    Ok(match value.as_array().map(Vec::as_slice) {
        Some([exponent, mantissa]) if tag == DECIMAL => {
            decimal(exponent, mantissa).unwrap_or(value)
        }
        _ => value,
    })
}

/// Through its text, so that 273.15 is 273.15.
fn decimal(exponent: &Value, mantissa: &Value) -> Option<Value> {
    let (exponent, mantissa) = (exponent.as_i64()?, mantissa.as_number()?);
    let number: f64 = format!("{mantissa}e{exponent}").parse().ok()?;
    Some(float(number))
}

/// A single as people write it: 21.3 and not 21.299999237060547.
fn single(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// Writes a value in the shortest form that holds it.
pub(super) fn encode(value: &Value) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder, value);
    encoder.into_writer()
}

/// Writing to memory can't fail.
pub(super) fn write(to: &mut Encoder<Vec<u8>>, value: &Value) {
    let written = match value {
        Value::Null => to.null(),
        Value::Bool(bool) => to.bool(*bool),
        Value::Number(number) => return write_number(to, number),
        Value::String(text) => to.str(text),
        Value::Array(items) => to.array(items.len() as u64),
        Value::Object(members) => to.map(members.len() as u64),
    };
    written.expect("memory takes everything");
    match value {
        Value::Array(items) => items.iter().for_each(|item| write(to, item)),
        Value::Object(members) => {
            for (key, member) in members {
                to.str(key).expect("memory takes everything");
                write(to, member);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn write_number(to: &mut Encoder<Vec<u8>>, number: &Number) {
    let float = number.as_f64().unwrap_or(f64::NAN);
    let short = float as f32;
    let written = match (number.as_u64(), number.as_i64()) {
        (Some(number), _) => to.u64(number),
        (None, Some(number)) => to.i64(number),
        // Exact, or the same when it is read as people write it.
        _ if f64::from(short) == float || single(short) == float => to.f32(short),
        _ => to.f64(float),
    };
    written.expect("memory takes everything");
}
