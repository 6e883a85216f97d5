//! Method and response codes (RFC 7252 section 12.1).

use std::fmt;

/// A code as it stands in the header: class and detail, written `2.04`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u8);

impl Code {
    /// The code of messages without request or response.
    pub const EMPTY: Self = Self::new(0, 0);
    /// A resource was created.
    pub const CREATED: Self = Self::new(2, 1);
    /// A resource is gone as asked.
    pub const DELETED: Self = Self::new(2, 2);
    /// The representation the client has is still valid.
    pub const VALID: Self = Self::new(2, 3);
    /// A write or an action is done.
    pub const CHANGED: Self = Self::new(2, 4);
    /// Here is the representation.
    pub const CONTENT: Self = Self::new(2, 5);
    /// Send the next block (RFC 7959 section 2.9.1).
    pub const CONTINUE: Self = Self::new(2, 31);
    /// The request can't be understood.
    pub const BAD_REQUEST: Self = Self::new(4, 0);
    /// Not without an Echo option that shows where the client is (RFC 9175 section 2.3).
    pub const UNAUTHORIZED: Self = Self::new(4, 1);
    /// The request has a critical option that is not known here.
    pub const BAD_OPTION: Self = Self::new(4, 2);
    /// Not for this client.
    pub const FORBIDDEN: Self = Self::new(4, 3);
    /// Nothing is at this path.
    pub const NOT_FOUND: Self = Self::new(4, 4);
    /// The resource does not take this method.
    pub const METHOD_NOT_ALLOWED: Self = Self::new(4, 5);
    /// The resource has no such Content-Format.
    pub const NOT_ACCEPTABLE: Self = Self::new(4, 6);
    /// Blocks are missing (RFC 7959 section 2.9.2).
    pub const REQUEST_ENTITY_INCOMPLETE: Self = Self::new(4, 8);
    /// The resource is not as If-Match or If-None-Match want it.
    pub const PRECONDITION_FAILED: Self = Self::new(4, 12);
    /// The payload is too large.
    pub const REQUEST_ENTITY_TOO_LARGE: Self = Self::new(4, 13);
    /// The payload's Content-Format is not taken here.
    pub const UNSUPPORTED_CONTENT_FORMAT: Self = Self::new(4, 15);
    /// The server failed.
    pub const INTERNAL_SERVER_ERROR: Self = Self::new(5, 0);
    /// The server is overloaded; Max-Age says when to try again.
    pub const SERVICE_UNAVAILABLE: Self = Self::new(5, 3);
    /// No proxy is here.
    pub const PROXYING_NOT_SUPPORTED: Self = Self::new(5, 5);

    /// A code from its class (0 to 7) and detail (0 to 31).
    #[must_use]
    pub const fn new(class: u8, detail: u8) -> Self {
        Self((class & 7) << 5 | (detail & 31))
    }

    /// A code from its byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// The digit before the point.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0 >> 5
    }

    /// Whether it is a response of class 2.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.class() == 2
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.class(), self.0 & 31)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a request asks for (RFC 7252 section 5.8, RFC 8132).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Act on the payload.
    Post,
    /// Write.
    Put,
    /// Remove.
    Delete,
    /// Read with a payload as the question.
    Fetch,
    /// Change a part.
    Patch,
    /// Change a part; repeating it does nothing more.
    IPatch,
}

impl Method {
    const ALL: [Self; 7] = [
        Self::Get,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Fetch,
        Self::Patch,
        Self::IPatch,
    ];

    /// The method of a code; none when it is no method or an unknown one.
    #[must_use]
    pub fn from_code(code: Code) -> Option<Self> {
        let index = usize::from(code.byte()).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Whether it changes nothing (RFC 7252 section 5.1, RFC 8132 section 2).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Fetch)
    }

    /// Its code.
    #[must_use]
    pub const fn code(self) -> Code {
        Code(self as u8 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_the_rfc_does() {
        assert_eq!(Code::CHANGED.to_string(), "2.04");
        assert_eq!(Code::REQUEST_ENTITY_TOO_LARGE.to_string(), "4.13");
        assert_eq!(Code::from_byte(0xA3), Code::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn methods_are_their_codes() {
        assert_eq!(Method::IPatch.code().to_string(), "0.07");
        assert_eq!(Method::from_code(Code::from_byte(3)), Some(Method::Put));
        assert_eq!(Method::from_code(Code::EMPTY), None);
        assert_eq!(Method::from_code(Code::from_byte(8)), None);
    }
}
