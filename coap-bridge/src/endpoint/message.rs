//! Requests and responses as the users of the endpoint see them: no mid, no token.

use bytes::Bytes;

use super::code::{Code, Method};
use super::options::{Options, number};

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

    /// The payload's Content-Format, known here or not.
    #[must_use]
    pub fn format(&self) -> Option<u16> {
        u16::try_from(self.options.uint(number::CONTENT_FORMAT)?).ok()
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
