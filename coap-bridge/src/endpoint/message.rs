//! Requests and responses as the users of the endpoint see them: no mid, no token.

use bytes::Bytes;

use super::code::{Code, Method};
use super::options::{Block, MAX_SZX, Options, number};

/// A request, sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Whether it is sent until it is acknowledged (CON), or once (NON).
    pub confirmable: bool,
    /// Its options.
    pub options: Options,
    /// What comes with it.
    pub payload: Bytes,
}

impl Request {
    /// A Confirmable request to a path such as `sensors/temp?unit=c`. Percent-encoded octets are
    /// decoded; a leading slash is not part of the path.
    #[must_use]
    pub fn new(method: Method, path: &str) -> Self {
        let mut options = Options::default();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let path = path.strip_prefix('/').unwrap_or(path);
        if !path.is_empty() {
            for segment in path.split('/') {
                options.add(number::URI_PATH, percent_decoded(segment));
            }
        }
        for argument in query.into_iter().flat_map(|query| query.split('&')) {
            options.add(number::URI_QUERY, percent_decoded(argument));
        }
        Self {
            method,
            confirmable: true,
            options,
            payload: Bytes::new(),
        }
    }

    /// The same with a payload.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The same with the payload's Content-Format.
    #[must_use]
    pub fn with_format(mut self, format: u16) -> Self {
        self.options
            .set_uint(number::CONTENT_FORMAT, u32::from(format));
        self
    }

    /// The same with a further option.
    #[must_use]
    pub fn with_option(mut self, number: u16, value: impl Into<Vec<u8>>) -> Self {
        self.options.add(number, value);
        self
    }

    /// The same with the Content-Format that the response is to have.
    #[must_use]
    pub fn with_accept(mut self, format: u16) -> Self {
        self.options.set_uint(number::ACCEPT, u32::from(format));
        self
    }

    /// The same, asking for the response in blocks of 2^(4 + `szx`) bytes from the start (RFC 7959
    /// section 2.4, early negotiation).
    #[must_use]
    pub fn with_block_size(mut self, szx: u8) -> Self {
        let block = Block {
            num: 0,
            more: false,
            szx: szx.min(MAX_SZX),
        };
        block.write(&mut self.options, number::BLOCK2);
        self
    }

    /// The same, Non-confirmable.
    #[must_use]
    pub fn non_confirmable(mut self) -> Self {
        self.confirmable = false;
        self
    }

    /// How many bytes the request takes on the wire, sent by this endpoint in one piece.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        super::client::encoded_len(self)
    }

    /// The path, its segments joined by `/`; none when a segment is not UTF-8 or holds a `/`, which
    /// no path here does.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        let mut path = String::new();
        for (index, segment) in self.options.all(number::URI_PATH).enumerate() {
            let segment = std::str::from_utf8(segment).ok()?;
            if segment.contains('/') {
                return None;
            }
            if index > 0 {
                path.push('/');
            }
            path.push_str(segment);
        }
        Some(path)
    }

    /// The value of an argument `<name>=<value>` of the query, when it is UTF-8.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.queries().find_map(|argument| {
            let value = argument.strip_prefix(name)?.strip_prefix('=')?;
            Some(value)
        })
    }

    /// All arguments of the query that are UTF-8.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        let arguments = self.options.all(number::URI_QUERY);
        arguments.filter_map(|argument| std::str::from_utf8(argument).ok())
    }

    /// The payload's Content-Format, known here or not.
    #[must_use]
    pub fn format(&self) -> Option<u16> {
        u16::try_from(self.options.uint(number::CONTENT_FORMAT)?).ok()
    }

    /// The Content-Format that the client wants.
    #[must_use]
    pub fn accept(&self) -> Option<u16> {
        u16::try_from(self.options.uint(number::ACCEPT)?).ok()
    }

    /// Whether If-Match and If-None-Match let the request be carried out on a resource with this
    /// ETag (empty: it has none), or on none (RFC 7252 section 5.10.8). If not, the answer is
    /// [`Code::PRECONDITION_FAILED`].
    #[must_use]
    pub fn conditions_hold(&self, current: Option<&[u8]>) -> bool {
        let mut wanted = self.options.all(number::IF_MATCH).peekable();
        let matches = wanted.peek().is_none()
            || current.is_some_and(|etag| wanted.any(|one| one.is_empty() || one == etag));
        let must_be_new = self.options.first(number::IF_NONE_MATCH).is_some();
        matches && !(must_be_new && current.is_some())
    }

    /// Whether the client has the representation with this ETag already: the answer is then
    /// [`Code::VALID`] with the ETag and without payload (RFC 7252 section 5.10.6.2).
    #[must_use]
    pub fn has_etag(&self, etag: &[u8]) -> bool {
        self.options.all(number::ETAG).any(|one| one == etag)
    }
}

/// A response, sent or received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub code: Code,
    /// Its options.
    pub options: Options,
    /// The representation, or a diagnostic text.
    pub payload: Bytes,
}

impl Response {
    /// A response without options and payload.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            options: Options::default(),
            payload: Bytes::new(),
        }
    }

    /// 2.05 with a representation.
    #[must_use]
    pub fn content(format: u16, payload: impl Into<Bytes>) -> Self {
        let mut response = Self::new(Code::CONTENT).with_payload(payload);
        let format = u32::from(format);
        response.options.add_uint(number::CONTENT_FORMAT, format);
        response
    }

    /// The same with a payload.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The same with Max-Age, in seconds.
    #[must_use]
    pub fn with_max_age(mut self, seconds: u32) -> Self {
        self.options.set_uint(number::MAX_AGE, seconds);
        self
    }

    /// The same with an ETag, 1 to 8 bytes.
    #[must_use]
    pub fn with_etag(mut self, etag: impl Into<Vec<u8>>) -> Self {
        self.options.remove(number::ETAG);
        self.options.add(number::ETAG, etag);
        self
    }

    /// The same with the place of what was created, such as `rd/7?x=1`.
    #[must_use]
    pub fn with_location(mut self, location: &str) -> Self {
        let (path, query) = match location.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (location, None),
        };
        for segment in path.trim_start_matches('/').split('/') {
            self.options.add(number::LOCATION_PATH, segment);
        }
        for argument in query.into_iter().flat_map(|query| query.split('&')) {
            self.options.add(number::LOCATION_QUERY, argument);
        }
        self
    }

    /// The place of what was created, as `/rd/7?x=1`; none when the response names none.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        let joined = |option, by: &str| {
            let parts: Vec<_> = self
                .options
                .all(option)
                .map(String::from_utf8_lossy)
                .collect();
            (!parts.is_empty()).then(|| parts.join(by))
        };
        let path = joined(number::LOCATION_PATH, "/");
        let query = joined(number::LOCATION_QUERY, "&").map(|query| format!("?{query}"));
        (path.is_some() || query.is_some())
            .then(|| format!("/{}{}", path.unwrap_or_default(), query.unwrap_or_default()))
    }

    /// The payload's Content-Format, known here or not.
    #[must_use]
    pub fn format(&self) -> Option<u16> {
        u16::try_from(self.options.uint(number::CONTENT_FORMAT)?).ok()
    }

    /// For how many seconds the representation is fresh: Max-Age, 60 without it (RFC 7252 section
    /// 5.10.5).
    #[must_use]
    pub fn max_age(&self) -> u32 {
        self.options.uint(number::MAX_AGE).unwrap_or(60)
    }
}

/// Text with its percent-encoded octets decoded (RFC 3986 section 2.1); what is no encoding stays.
pub(crate) fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let octet = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(octet.unwrap_or(byte));
        at += if octet.is_some() { 3 } else { 1 };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_options() {
        let request = Request::new(Method::Get, "/sensors/t%2Femp%zz?unit=c&n=1");
        let path: Vec<&[u8]> = request.options.all(number::URI_PATH).collect();
        assert_eq!(path, [&b"sensors"[..], b"t/emp%zz"]);
        let query: Vec<&[u8]> = request.options.all(number::URI_QUERY).collect();
        assert_eq!(query, [&b"unit=c"[..], b"n=1"]);
        assert_eq!(request.path(), None, "a segment with a slash is no path");
        assert_eq!(
            Request::new(Method::Get, ".well-known/core")
                .path()
                .as_deref(),
            Some(".well-known/core")
        );
        assert_eq!(Request::new(Method::Get, "/").path().as_deref(), Some(""));
    }
}
