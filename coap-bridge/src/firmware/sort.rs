//! What a datagram is about, told before it is decoded: under load it may never be.

use crate::endpoint::options::number;

/// `POST` (RFC 7252 section 12.1.1).
const POST: u8 = 2;
const HEADER: usize = 4;

/// Whether a datagram pushes a value, as `POST /server`. Of rubbish it says no.
pub(crate) fn is_push(datagram: &[u8]) -> bool {
    datagram.get(1) == Some(&POST) && path(datagram) == Some(b"server")
}

/// The first segment of the path (RFC 7252 section 3.1).
fn path(datagram: &[u8]) -> Option<&[u8]> {
    let token = usize::from(datagram.first()? & 0x0F);
    let mut rest = datagram.get(HEADER + token..)?;
    let mut option = 0;
    while option <= usize::from(number::URI_PATH) {
        let (&first, after) = rest.split_first()?;
        let (delta, after) = extended(first >> 4, after)?;
        let (length, after) = extended(first & 0x0F, after)?;
        option += delta;
        let (value, after) = after.split_at_checked(length)?;
        if option == usize::from(number::URI_PATH) {
            return Some(value);
        }
        rest = after;
    }
    None
}

/// A delta or a length with what extends it; none for the payload marker.
fn extended(nibble: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    match nibble {
        13 => {
            let (&byte, rest) = rest.split_first()?;
            Some((usize::from(byte) + 13, rest))
        }
        14 => {
            let (&bytes, rest) = rest.split_first_chunk()?;
            Some((usize::from(u16::from_be_bytes(bytes)) + 269, rest))
        }
        15 => None,
        small => Some((usize::from(small), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_told_from_everything_else() {
        for (datagram, expected) in [
            (&b"\x40\x02\x00\x01\xb6server\xfft:1"[..], true),
            (b"\x52\x02\x00\x01ab\xb6server\x10\xfft:1", true),
            // After a Uri-Host of 13 bytes, and after If-Match and Uri-Port.
            (b"\x40\x02\x00\x01\x3d\x00bus.localhost\x86server", true),
            (b"\x40\x02\x00\x01\x11x\x62\x16\x33\x46server", true),
            (b"\x40\x01\x00\x01\xb6server", false),
            (b"\x40\x02\x00\x01\xb5alive\xffalive:1", false),
            (b"\x40\x02\x00\x01\xc0\xb6server", false),
            (b"\x40\x02\x00\x01\xff\xb6server", false),
            (b"\x40\x02\x00\x01\xb7server", false),
            (b"\x4f\x02\x00\x01", false),
            (b"\x40\x02\x00\x01\xe0\xff", false),
            (b"\x40\x02", false),
            (b"", false),
        ] {
            assert_eq!(is_push(datagram), expected, "{datagram:x?}");
        }
    }
}
