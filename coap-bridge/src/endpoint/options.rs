//! Options (RFC 7252 section 5.10) and the block options' value (RFC 7959 section 2.2).

/// Option numbers.
pub mod number {
    /// If-Match, an ETag or nothing.
    pub const IF_MATCH: u16 = 1;
    /// Uri-Host.
    pub const URI_HOST: u16 = 3;
    /// ETag.
    pub const ETAG: u16 = 4;
    /// If-None-Match, empty.
    pub const IF_NONE_MATCH: u16 = 5;
    /// Observe (RFC 7641).
    pub const OBSERVE: u16 = 6;
    /// Uri-Port.
    pub const URI_PORT: u16 = 7;
    /// Location-Path, one for each segment.
    pub const LOCATION_PATH: u16 = 8;
    /// Uri-Path, one for each segment.
    pub const URI_PATH: u16 = 11;
    /// Content-Format.
    pub const CONTENT_FORMAT: u16 = 12;
    /// Max-Age, in seconds.
    pub const MAX_AGE: u16 = 14;
    /// Uri-Query, one for each argument.
    pub const URI_QUERY: u16 = 15;
    /// Accept.
    pub const ACCEPT: u16 = 17;
    /// Location-Query, one for each argument.
    pub const LOCATION_QUERY: u16 = 20;
    /// Block2 (RFC 7959).
    pub const BLOCK2: u16 = 23;
    /// Block1 (RFC 7959).
    pub const BLOCK1: u16 = 27;
    /// Size2, in bytes (RFC 7959).
    pub const SIZE2: u16 = 28;
    /// Proxy-Uri.
    pub const PROXY_URI: u16 = 35;
    /// Proxy-Scheme.
    pub const PROXY_SCHEME: u16 = 39;
    /// Size1, in bytes.
    pub const SIZE1: u16 = 60;
    /// Echo (RFC 9175).
    pub const ECHO: u16 = 252;
}

/// Content-Formats (RFC 7252 section 12.3).
pub mod format {
    /// text/plain; charset=utf-8
    pub const TEXT: u16 = 0;
    /// application/link-format
    pub const LINK: u16 = 40;
    /// application/xml
    pub const XML: u16 = 41;
    /// application/octet-stream
    pub const OCTETS: u16 = 42;
    /// application/json
    pub const JSON: u16 = 50;
    /// application/json-patch+json
    pub const JSON_PATCH: u16 = 51;
    /// application/merge-patch+json
    pub const MERGE_PATCH_JSON: u16 = 52;
    /// application/cbor (RFC 8949)
    pub const CBOR: u16 = 60;
    /// application/senml+json (RFC 8428)
    pub const SENML_JSON: u16 = 110;
    /// application/sensml+json
    pub const SENSML_JSON: u16 = 111;
    /// application/senml+cbor
    pub const SENML_CBOR: u16 = 112;
    /// application/sensml+cbor
    pub const SENSML_CBOR: u16 = 113;
}

/// The options of a message, in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(Vec<(u16, Vec<u8>)>);

impl Options {
    /// Adds a value behind those of the same number.
    pub fn add(&mut self, number: u16, value: impl Into<Vec<u8>>) {
        let at = self.0.partition_point(|(other, _)| *other <= number);
        self.0.insert(at, (number, value.into()));
    }

    /// Adds a number in the least bytes (RFC 7252 section 3.2).
    pub fn add_uint(&mut self, number: u16, value: u32) {
        let bytes = value.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.add(number, bytes.get(zeros..).unwrap_or_default());
    }

    /// Puts a number in the place of all values.
    pub fn set_uint(&mut self, number: u16, value: u32) {
        self.remove(number);
        self.add_uint(number, value);
    }

    /// Removes all values.
    pub fn remove(&mut self, number: u16) {
        self.0.retain(|(other, _)| *other != number);
    }

    /// The first value.
    #[must_use]
    pub fn first(&self, number: u16) -> Option<&[u8]> {
        self.all(number).next()
    }

    /// The first value as a number; none when it has more than 4 bytes.
    #[must_use]
    pub fn uint(&self, number: u16) -> Option<u32> {
        let value = self.first(number).filter(|value| value.len() <= 4)?;
        Some(
            value
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        )
    }

    /// All values, in order.
    pub fn all(&self, number: u16) -> impl Iterator<Item = &[u8]> {
        let of_number = self.0.iter().filter(move |(other, _)| *other == number);
        of_number.map(|(_, value)| value.as_slice())
    }

    /// All options with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.0
            .iter()
            .map(|(number, value)| (*number, value.as_slice()))
    }
}

/// The critical options that a message may have: number, least and greatest length, and whether it
/// may come more than once (RFC 7252 section 5.10, RFC 7959 section 2.1).
const CRITICAL: [(u16, usize, usize, bool); 11] = [
    (number::IF_MATCH, 0, 8, true),
    (number::URI_HOST, 1, 255, false),
    (number::IF_NONE_MATCH, 0, 0, false),
    (number::URI_PORT, 0, 2, false),
    (number::URI_PATH, 0, 255, true),
    (number::URI_QUERY, 0, 255, true),
    (number::ACCEPT, 0, 2, false),
    (number::BLOCK2, 0, 3, false),
    (number::BLOCK1, 0, 3, false),
    (number::PROXY_URI, 1, 1034, false),
    (number::PROXY_SCHEME, 1, 255, false),
];

impl Options {
    /// Whether there is a critical option that is not known here, has an impossible length or comes
    /// more often than it may (RFC 7252 sections 5.4.1, 5.4.3 and 5.4.5).
    pub(super) fn has_bad_critical(&self) -> bool {
        let mut last = None;
        self.iter().any(|(option, value)| {
            let again = last.replace(option) == Some(option);
            option & 1 == 1
                && !CRITICAL.iter().any(|&(number, min, max, repeatable)| {
                    number == option && (min..=max).contains(&value.len()) && (repeatable || !again)
                })
        })
    }

    /// Whether an option does not tell one request from another (RFC 7252 section 5.4.6): NoCacheKey,
    /// and what differs between the blocks of one transfer.
    pub(super) fn is_no_key(option: u16) -> bool {
        option & 0x1E == 0x1C
            || matches!(
                option,
                number::BLOCK1 | number::BLOCK2 | number::OBSERVE | number::CONTENT_FORMAT
            )
    }
}

/// The greatest size exponent: blocks of 1024 bytes.
pub const MAX_SZX: u8 = 6;

/// The value of Block1 and Block2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Which block, 0 to 2^20 - 1.
    pub(crate) num: u32,
    /// Whether others follow.
    pub(crate) more: bool,
    /// A block has 2^(4 + szx) bytes; 0 to [`MAX_SZX`].
    pub(crate) szx: u8,
}

/// A Block option that can't be: longer than 3 bytes, or the reserved size exponent 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block option is not valid")]
pub(crate) struct InvalidBlock;

impl Block {
    /// The greatest block number.
    pub(crate) const MAX_NUM: u32 = (1 << 20) - 1;

    /// How many bytes a block has, but the last.
    pub(crate) fn size(self) -> usize {
        block_size(self.szx)
    }

    /// Where it starts in the body.
    pub(crate) fn offset(self) -> usize {
        (self.num as usize) << (4 + self.szx)
    }

    /// Reads Block1 or Block2.
    pub(crate) fn read(options: &Options, number: u16) -> Result<Option<Self>, InvalidBlock> {
        let Some(value) = options.first(number) else {
            return Ok(None);
        };
        let value = (value.len() <= 3)
            .then(|| options.uint(number))
            .flatten()
            .ok_or(InvalidBlock)?;
        let szx = (value & 7) as u8;
        if szx > MAX_SZX {
            return Err(InvalidBlock);
        }
        Ok(Some(Self {
            num: value >> 4,
            more: value & 8 != 0,
            szx,
        }))
    }

    /// Writes Block1 or Block2.
    pub(crate) fn write(self, options: &mut Options, number: u16) {
        let value = self.num << 4 | u32::from(self.more) << 3 | u32::from(self.szx);
        options.set_uint(number, value);
    }
}

/// How many bytes a block of this size exponent has.
pub(crate) fn block_size(szx: u8) -> usize {
    16 << szx.min(MAX_SZX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_keep_the_order_of_numbers_and_of_values() {
        let mut options = Options::default();
        options.add_uint(number::BLOCK2, 6);
        options.add(number::URI_PATH, "a");
        options.add(number::URI_PATH, "b");
        options.add_uint(number::OBSERVE, 0);
        let numbers: Vec<u16> = options.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [6, 11, 11, 23]);
        assert_eq!(options.first(number::OBSERVE), Some(&[][..]));
        assert_eq!(options.uint(number::OBSERVE), Some(0));
        let path: Vec<&[u8]> = options.all(number::URI_PATH).collect();
        assert_eq!(path, [b"a", b"b"]);
    }

    #[test]
    fn numbers_take_the_least_bytes() {
        let mut options = Options::default();
        for (value, length) in [(0, 0), (1, 1), (255, 1), (256, 2), (0x0100_0000, 4)] {
            options.set_uint(number::MAX_AGE, value);
            assert_eq!(options.first(number::MAX_AGE).unwrap().len(), length);
            assert_eq!(options.uint(number::MAX_AGE), Some(value));
        }
        options.remove(number::MAX_AGE);
        options.add(number::MAX_AGE, vec![0; 5]);
        assert_eq!(options.uint(number::MAX_AGE), None);
    }

    #[test]
    fn block_numbers_have_20_bits_and_size_exponent_7_is_refused() {
        let mut options = Options::default();
        let block = Block {
            num: Block::MAX_NUM,
            more: true,
            szx: 6,
        };
        block.write(&mut options, number::BLOCK1);
        assert_eq!(options.first(number::BLOCK1).unwrap().len(), 3);
        assert_eq!(Block::read(&options, number::BLOCK1), Ok(Some(block)));
        assert_eq!(Block::read(&options, number::BLOCK2), Ok(None));
        options.set_uint(number::BLOCK1, 7);
        assert_eq!(Block::read(&options, number::BLOCK1), Err(InvalidBlock));
        options.set_uint(number::BLOCK1, 1 << 24);
        assert_eq!(Block::read(&options, number::BLOCK1), Err(InvalidBlock));
    }
}
