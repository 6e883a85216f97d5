//! Who may talk to the gateway through a browser.
//!
//! A browser sends any page's requests with its user's reach, so two things are checked: that a
//! WebSocket or a write was made by a page of ours (`Origin`, RFC 6454), and, on loopback, that we
//! were asked for by a name of ours (`Host`), since a stranger's name can be made to lead here.
//! It is no login: a program may send whatever it likes.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::metrics::{Metrics, Refusal};

/// Why an entry of the settings is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin: write https://host or https://host:port, without a path")]
pub struct InvalidOrigin(String);

/// An origin: what a browser says about where a page is from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    secure: bool,
    /// `host` or `host:port` in small letters, without the scheme's own port.
    authority: String,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let bad = |c: char| matches!(c, '/' | '?' | '#' | '@' | '\\') || c.is_whitespace();
        if authority.is_empty() || authority.contains(bad) {
            return None;
        }
        Some(Self {
            secure,
            authority: without_default_port(authority, secure).to_owned(),
        })
    }

    fn is_of(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.authority == without_default_port(&host, self.secure)
    }
}

fn without_default_port(authority: &str, secure: bool) -> &str {
    let port = if secure { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// The name or address in `host[:port]`, without brackets.
fn name(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    authority
        .split_once(':')
        .map_or(authority, |(name, _)| name)
}

/// What is let through.
#[derive(Debug)]
pub(crate) struct Guard {
    on_loopback: bool,
    origins: Vec<Origin>,
}

impl Guard {
    pub(crate) fn new(listen: IpAddr, origins: &[String]) -> Result<Self, InvalidOrigin> {
        let parse = |text: &String| Origin::parse(text).ok_or_else(|| InvalidOrigin(text.clone()));
        Ok(Self {
            on_loopback: listen.is_loopback(),
            origins: origins.iter().map(parse).collect::<Result<_, _>>()?,
        })
    }

    /// Checks a request.
    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |header| {
            headers
                .get(header)
                .map(|value| value.to_str().unwrap_or(""))
        };
        let host = text(header::HOST).unwrap_or("");
        if self.on_loopback && !self.is_ours(host) {
            return Err(Refusal::Host);
        }
        let only_reads = matches!(*method, Method::GET | Method::HEAD);
        let is_upgrade = headers.contains_key(header::UPGRADE);
        if only_reads && !is_upgrade {
            return Ok(());
        }
        // Only browsers send an origin, and always.
        let Some(origin) = text(header::ORIGIN) else {
            return Ok(());
        };
        let ours = |origin: &Origin| origin.is_of(host) || self.origins.contains(origin);
        if Origin::parse(origin).is_some_and(|origin| ours(&origin)) {
            Ok(())
        } else {
            Err(Refusal::Origin)
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let name = name(&host);
        name == "localhost"
            || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            || self
                .origins
                .iter()
                .any(|origin| self::name(&origin.authority) == name)
    }
}

/// Refuses what [`Guard`] does not let through, in words.
pub(crate) async fn guard(
    State((guard, metrics)): State<(Arc<Guard>, Metrics)>,
    request: Request,
    next: Next,
) -> Response {
    let Err(refusal) = guard.check(request.method(), request.headers()) else {
        return next.run(request).await;
    };
    metrics.refused(refusal);
    tracing::debug!(?refusal, "a request was refused");
    if refusal == Refusal::Host {
        let words = "The dashboard does not know itself by this name. Open it as localhost, or add \
            the name to dashboard_gw.allowed_origins, as http://name:port.\n";
        return (StatusCode::MISDIRECTED_REQUEST, words).into_response();
    }
    let words = "A page of another site may not connect to this dashboard. If it should, add its \
        origin to dashboard_gw.allowed_origins.\n";
    (StatusCode::FORBIDDEN, words).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1";

    #[track_caller]
    fn check(listen: &str, host: &str, origin: Option<&str>, expected: Result<(), Refusal>) {
        let allowed = ["https://dash.example.org".to_owned()];
        let guard = Guard::new(listen.parse().unwrap(), &allowed).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers.insert(header::UPGRADE, "websocket".parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        assert_eq!(
            guard.check(&Method::GET, &headers),
            expected,
            "{host} {origin:?}"
        );
    }

    #[test]
    fn pages_of_ours_may_connect_and_others_may_not() {
        for (host, origin) in [
            ("localhost:8080", Some("http://localhost:8080")),
            ("LOCALHOST:8080", Some("http://localhost:8080")),
            ("127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("[::1]:8080", Some("http://[::1]:8080")),
            ("localhost", Some("http://localhost:80")),
            ("localhost:8080", Some("https://dash.example.org")),
            ("dash.example.org", Some("https://dash.example.org:443")),
            ("localhost:8080", None),
        ] {
            check(LOOPBACK, host, origin, Ok(()));
        }
        for origin in [
            "http://evil.example",
            "http://localhost:9090",
            "http://localhost.evil.example:8080",
            "null",
            "",
            "http://dash.example.org",
            "file://localhost:8080",
        ] {
            check(
                LOOPBACK,
                "localhost:8080",
                Some(origin),
                Err(Refusal::Origin),
            );
        }
    }

    #[test]
    fn on_loopback_only_names_of_ours_lead_here() {
        let rebound = Some("http://evil.example:8080");
        check(LOOPBACK, "evil.example:8080", rebound, Err(Refusal::Host));
        check(LOOPBACK, "", None, Err(Refusal::Host));
        check(LOOPBACK, "127.0.0.1.evil.example", None, Err(Refusal::Host));
        check(
            "0.0.0.0",
            "raspberrypi:8080",
            Some("http://raspberrypi:8080"),
            Ok(()),
        );
    }

    #[test]
    fn a_plain_read_needs_no_origin() {
        let guard = Guard::new(LOOPBACK.parse().unwrap(), &[]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        headers.insert(header::ORIGIN, "http://evil.example".parse().unwrap());
        assert_eq!(guard.check(&Method::GET, &headers), Ok(()));
        assert_eq!(guard.check(&Method::POST, &headers), Err(Refusal::Origin));
    }

    #[test]
    fn an_entry_that_is_no_origin_is_refused() {
        for bad in [
            "",
            "example.org",
            "ftp://x",
            "https://",
            "https://x/path",
            "https://u@x",
        ] {
            assert!(
                Guard::new(LOOPBACK.parse().unwrap(), &[bad.to_owned()]).is_err(),
                "{bad}"
            );
        }
    }
}
