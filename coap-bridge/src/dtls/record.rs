//! Records, and the first message of a handshake, as far as the door must read them (RFC 6347
//! sections 4.1 and 4.2): everything else is dimpl's.

/// The header of a record.
const HEADER: usize = 13;
/// The header of a handshake message.
const HANDSHAKE_HEADER: usize = 12;
/// More records in one datagram are not taken.
const MAX_RECORDS: usize = 8;
/// The longest fragment (section 4.1): 2^14 bytes and what protection may add.
const MAX_FRAGMENT: usize = (1 << 14) + 2048;

const DTLS_1_0: [u8; 2] = [0xfe, 0xff];
pub(super) const DTLS_1_2: [u8; 2] = [0xfe, 0xfd];

pub(super) const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentType {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
}

/// A record in a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: ContentType,
    pub(super) epoch: u16,
    pub(super) sequence: u64,
    pub(super) fragment: &'a [u8],
}

impl Record<'_> {
    /// Whether it begins or continues a ClientHello in the clear.
    pub(super) fn is_client_hello(&self) -> bool {
        self.kind == ContentType::Handshake
            && self.epoch == 0
            && self.fragment.first() == Some(&CLIENT_HELLO)
    }
}

/// The records of a datagram; none unless it is made of whole records of DTLS 1.0 or 1.2.
pub(super) fn records(mut datagram: &[u8]) -> Option<Vec<Record<'_>>> {
    let mut records = Vec::with_capacity(2);
    while !datagram.is_empty() {
        let (header, rest) = datagram.split_first_chunk::<HEADER>()?;
        let [kind, major, minor, e1, e0, s5, s4, s3, s2, s1, s0, l1, l0] = *header;
        let length = usize::from(u16::from_be_bytes([l1, l0]));
        let fragment = rest.get(..length)?;
        let is_known = [DTLS_1_0, DTLS_1_2].contains(&[major, minor]);
        if !is_known || length > MAX_FRAGMENT || records.len() == MAX_RECORDS {
            return None;
        }
        records.push(Record {
            kind: match kind {
                20 => ContentType::ChangeCipherSpec,
                21 => ContentType::Alert,
                22 => ContentType::Handshake,
                23 => ContentType::ApplicationData,
                _ => return None,
            },
            epoch: u16::from_be_bytes([e1, e0]),
            sequence: u64::from_be_bytes([0, 0, s5, s4, s3, s2, s1, s0]),
            fragment,
        });
        datagram = rest.get(length..)?;
    }
    (!records.is_empty()).then_some(records)
}

/// Adds `offset` to the sequence numbers of the records in the clear; gives the last of them.
pub(super) fn renumber(datagram: &mut [u8], offset: u64) -> Option<u64> {
    let mut last = None;
    let mut rest = datagram;
    while let Some((header, tail)) = rest.split_first_chunk_mut::<HEADER>() {
        let [_, _, _, e1, e0, s @ .., l1, l0] = header;
        if [*e1, *e0] == [0, 0] {
            let [s5, s4, s3, s2, s1, s0] = *s;
            let sequence = u64::from_be_bytes([0, 0, s5, s4, s3, s2, s1, s0]);
            let sequence = sequence.wrapping_add(offset);
            let [_, _, new @ ..] = sequence.to_be_bytes();
            *s = new;
            last = Some(sequence);
        }
        let length = usize::from(u16::from_be_bytes([*l1, *l0]));
        rest = tail.get_mut(length..).unwrap_or_default();
    }
    last
}

pub(super) fn record(kind: u8, sequence: u64, fragment: &[u8]) -> Vec<u8> {
    let [_, _, sequence @ ..] = sequence.to_be_bytes();
    let length = u16::try_from(fragment.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(HEADER + fragment.len());
    bytes.push(kind);
    bytes.extend(DTLS_1_2);
    bytes.extend([0, 0]);
    bytes.extend(sequence);
    bytes.extend(length.to_be_bytes());
    bytes.extend(fragment);
    bytes
}

/// A whole handshake message in one record.
pub(super) fn handshake(kind: u8, sequence: u64, message: u16, body: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut fragment = Vec::with_capacity(HANDSHAKE_HEADER + body.len());
    fragment.push(kind);
    fragment.extend(length);
    fragment.extend(message.to_be_bytes());
    fragment.extend([0; 3]);
    fragment.extend(length);
    fragment.extend(body);
    record(22, sequence, &fragment)
}

/// A fatal alert in the clear.
pub(super) fn fatal_alert(sequence: u64, description: u8) -> Vec<u8> {
    record(21, sequence, &[2, description])
}

/// A ClientHello (section 4.2.1) that came in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientHello<'a> {
    /// Of the record it came in: our answer takes it over.
    pub(super) sequence: u64,
    /// Its number among the client's handshake messages.
    pub(super) message: u16,
    pub(super) random: &'a [u8; 32],
    version: &'a [u8; 2],
    /// With its length, as the other parts.
    session_id: &'a [u8],
    pub(super) cookie: &'a [u8],
    suites: &'a [u8],
    /// Compression methods and extensions.
    rest: &'a [u8],
}

/// Why a ClientHello can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHello {
    Malformed,
    /// It came in pieces, which would have to be kept before the address is verified.
    Fragmented,
    /// It offers no DTLS 1.2.
    Version,
}

/// Takes so many bytes from the front.
fn take<'a>(from: &mut &'a [u8], length: usize) -> Result<&'a [u8], BadHello> {
    let (taken, rest) = from.split_at_checked(length).ok_or(BadHello::Malformed)?;
    *from = rest;
    Ok(taken)
}

/// Takes a vector whose length stands in its first byte.
fn vector<'a>(from: &mut &'a [u8]) -> Result<&'a [u8], BadHello> {
    let length = *from.first().ok_or(BadHello::Malformed)?;
    take(from, 1 + usize::from(length))
}

impl<'a> ClientHello<'a> {
    pub(super) fn read(record: &Record<'a>) -> Result<Self, BadHello> {
        let (header, mut body) = record
            .fragment
            .split_first_chunk::<HANDSHAKE_HEADER>()
            .ok_or(BadHello::Malformed)?;
        let [_, length @ .., m1, m0, o2, o1, o0, f2, f1, f0] = *header;
        if [o2, o1, o0] != [0; 3] || [f2, f1, f0] != length {
            return Err(BadHello::Fragmented);
        }
        let [l2, l1, l0] = length;
        if body.len() != u32::from_be_bytes([0, l2, l1, l0]) as usize {
            return Err(BadHello::Malformed);
        }
        let malformed = |_| BadHello::Malformed;
        let version: &[u8; 2] = take(&mut body, 2)?.try_into().map_err(malformed)?;
        let random = take(&mut body, 32)?.try_into().map_err(malformed)?;
        let session_id = vector(&mut body)?;
        let cookie = vector(&mut body)?.get(1..).unwrap_or_default();
        let length = body.first_chunk().ok_or(BadHello::Malformed)?;
        let suites = take(&mut body, 2 + usize::from(u16::from_be_bytes(*length)))?;
        let suites = suites.get(2..).unwrap_or_default();
        if session_id.len() > 33 || suites.is_empty() || suites.len() % 2 != 0 {
            return Err(BadHello::Malformed);
        }
        let [major, minor] = *version;
        if major != 0xfe || minor > 0xfd {
            return Err(BadHello::Version);
        }
        Ok(Self {
            sequence: record.sequence,
            message: u16::from_be_bytes([m1, m0]),
            random,
            version,
            session_id,
            cookie,
            suites,
            rest: body,
        })
    }

    /// The cipher suites that it offers, in the client's order.
    pub(super) fn suites(&self) -> impl Iterator<Item = u16> {
        let (pairs, _) = self.suites.as_chunks::<2>();
        pairs.iter().map(|pair| u16::from_be_bytes(*pair))
    }

    /// What a client must repeat when it brings the cookie back (section 4.2.1).
    pub(super) fn parameters(&self) -> [&'a [u8]; 5] {
        let compression = match self.rest.split_first() {
            Some((length, rest)) => rest.get(..usize::from(*length)).unwrap_or_default(),
            None => &[],
        };
        [
            self.version,
            self.random,
            self.session_id,
            self.suites,
            compression,
        ]
    }

    /// The first ClientHello of this handshake, as it was before the client had a cookie.
    pub(super) fn first(&self) -> Vec<u8> {
        let suites = u16::try_from(self.suites.len()).unwrap_or(u16::MAX);
        let body = [
            &self.version[..],
            self.random,
            self.session_id,
            &[0],
            &suites.to_be_bytes(),
            self.suites,
            self.rest,
        ]
        .concat();
        handshake(CLIENT_HELLO, 0, 0, &body)
    }

    /// The question for the cookie (section 4.2.1). It is shorter than any ClientHello.
    pub(super) fn verify_request(&self, cookie: &[u8; 32]) -> Vec<u8> {
        // The version is 1.0 whatever will be spoken.
        let body = [&DTLS_1_0[..], &[32], cookie].concat();
        handshake(HELLO_VERIFY_REQUEST, self.sequence, 0, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtls::client::hello;

    #[test]
    fn a_client_hello_is_read_and_written() {
        let datagram = hello(7, &[9; 32]);
        let all = records(&datagram).unwrap();
        let [record] = all[..] else {
            panic!("one record");
        };
        assert!(record.is_client_hello());
        let read = ClientHello::read(&record).unwrap();
        assert_eq!((read.sequence, read.message), (1, 1));
        assert_eq!((read.random, read.cookie), (&[7; 32], &[9; 32][..]));
        assert_eq!(read.suites().collect::<Vec<_>>(), [0xc0a8]);
        assert_eq!(read.first(), hello(7, &[]));
        let question = read.verify_request(&[3; 32]);
        assert_eq!(question.len(), 60);
        assert!(question.len() < hello(7, &[]).len());
        assert_eq!(records(&question).unwrap()[0].sequence, 1);
    }

    #[test]
    fn what_is_cut_or_changed_is_no_client_hello() {
        let datagram = hello(7, &[9; 32]);
        for end in 0..datagram.len() {
            assert_eq!(records(&datagram[..end]), None, "cut at {end}");
        }
        let changed = |at: usize, to: u8| {
            let mut datagram = datagram.clone();
            datagram[at] = to;
            let all = records(&datagram)?;
            Some(ClientHello::read(&all[0]).map(|_| ()))
        };
        assert_eq!(changed(0, 24), None, "content type");
        assert_eq!(changed(1, 3), None, "TLS");
        assert_eq!(changed(15, 200), Some(Err(BadHello::Fragmented)), "length");
        assert_eq!(changed(21, 4), Some(Err(BadHello::Fragmented)), "offset");
        assert_eq!(changed(26, 0xff), Some(Err(BadHello::Version)), "DTLS 1.0");
        assert_eq!(changed(59, 40), Some(Err(BadHello::Malformed)), "session");
        assert_eq!(changed(60, 200), Some(Err(BadHello::Malformed)), "cookie");
    }

    #[test]
    fn records_are_told_apart_and_renumbered() {
        let mut datagram = [fatal_alert(5, 40), hello(1, &[])].concat();
        let mut protected = fatal_alert(6, 0);
        protected[4] = 1;
        datagram.extend(&protected);
        let kinds = |datagram: &[u8]| -> Vec<_> {
            let all = records(datagram).unwrap();
            all.iter().map(|r| (r.kind, r.epoch, r.sequence)).collect()
        };
        assert_eq!(renumber(&mut datagram, 10), Some(10));
        assert_eq!(
            kinds(&datagram),
            [
                (ContentType::Alert, 0, 15),
                (ContentType::Handshake, 0, 10),
                (ContentType::Alert, 1, 6)
            ]
        );
        assert_eq!(records(&fatal_alert(0, 0).repeat(9)), None, "too many");
        assert_eq!(records(b""), None);
    }
}
