//! What the server has, and how it answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use coap_bridge::endpoint::options::format;
use coap_bridge::endpoint::{Code, Method, Request, Response};
use coap_bridge::link_format::{self, Link};

/// Observers of this resource get Non-confirmable notifications.
pub(crate) const OBSERVED_NON: &str = "obs-non";
const OBSERVED: [&str; 3] = ["obs", OBSERVED_NON, "obs-large"];
/// How much a client may create.
const MAX_STORED: usize = 64;

/// How a request is answered.
pub(crate) enum Answer {
    Now(Response),
    /// Not at once.
    Later(Response),
    /// Whoever asks may observe the resource at this path.
    Observable(String, Response),
    /// The resource at this path has changed.
    Changed(String, Response),
    /// The resource at this path is gone or another; its observers are told this.
    Ended(String, Response, Response),
}

#[derive(Clone)]
struct Stored {
    format: u16,
    payload: Bytes,
    version: u16,
}

impl Stored {
    fn etag(&self) -> [u8; 2] {
        self.version.to_be_bytes()
    }

    fn response(&self) -> Response {
        Response::content(self.format, self.payload.clone()).with_etag(self.etag())
    }
}

pub(crate) struct Resources {
    links: Vec<Link>,
    /// What can be written and removed.
    stored: BTreeMap<String, Stored>,
    version: u16,
    created: u32,
}

/// So long that it takes several blocks.
fn large() -> String {
    let lines = (1..=40).map(|n| format!("line {n:02} of forty in a large text\n"));
    lines.collect()
}

impl Resources {
    pub(crate) fn new() -> Self {
        let mut resources = Self {
            links: links(),
            stored: BTreeMap::new(),
            version: 0,
            created: 0,
        };
        for (path, text) in [
            ("test", "a test"),
            ("validate", "version 0"),
            ("large-update", "nothing yet"),
        ] {
            resources.store(path, format::TEXT, text.into());
        }
        for path in OBSERVED {
            resources.store(path, format::TEXT, Bytes::new());
        }
        resources.change();
        resources
    }

    fn store(&mut self, path: &str, format: u16, payload: Bytes) {
        self.version = self.version.wrapping_add(1);
        let version = self.version;
        let stored = Stored {
            format,
            payload,
            version,
        };
        self.stored.insert(path.to_owned(), stored);
    }

    /// Changes what is observed, as time goes by; gives the paths.
    pub(crate) fn change(&mut self) -> Vec<&'static str> {
        let mut changing = OBSERVED.to_vec();
        changing.retain(|path| {
            let stored = self.stored.get(*path);
            stored.is_some_and(|stored| stored.format == format::TEXT)
        });
        for path in &changing {
            let number = format!("change {}\n", self.version);
            let text = match *path {
                "obs-large" => number + &large(),
                _ => number,
            };
            self.store(path, format::TEXT, text.into());
        }
        changing
    }

    /// What is at a path that can be written.
    pub(crate) fn read(&self, path: &str) -> Option<Response> {
        self.stored.get(path).map(Stored::response)
    }

    pub(crate) fn answer(&mut self, request: &Request) -> Answer {
        let Some(path) = request.path() else {
            return Answer::Now(Response::new(Code::NOT_FOUND));
        };
        let text = |text: &str| Response::content(format::TEXT, text.to_owned());
        let response = match (request.method, path.as_str()) {
            (Method::Get, ".well-known/core") => self.list(request),
            (Method::Get, "path") => sub_resources(),
            (Method::Get, "separate") => return Answer::Later(text("that took a while")),
            (Method::Get, "seg1/seg2/seg3") => text("three segments"),
            (
                Method::Get,
                "path/sub1" | "path/sub2" | "path/sub3" | "link1" | "link2" | "link3",
            ) => text(&format!("/{path}")),
            (Method::Get, "query") => text(&request.queries().collect::<Vec<_>>().join("\n")),
            (Method::Get, "multi-format") => multi_format(request),
            (Method::Get, "large") => text(&large()),
            (Method::Post, "large-post") => {
                let shouted = String::from_utf8_lossy(&request.payload).to_uppercase();
                Response {
                    code: Code::CHANGED,
                    ..text(&shouted)
                }
            }
            (Method::Post, "test") => self.create("location1/location2/location3", request),
            (Method::Post, "location-query") => {
                let location = Response::new(Code::CREATED);
                location.with_location("location-query?first=1&second=2")
            }
            (Method::Post, "large-create") => {
                self.created += 1;
                let path = format!("large-create/{}", self.created);
                self.create(&path, request)
            }
            _ => return self.answer_stored(&path, request),
        };
        Answer::Now(response)
    }

    fn create(&mut self, path: &str, request: &Request) -> Response {
        if self.stored.len() >= MAX_STORED {
            return Response::new(Code::SERVICE_UNAVAILABLE);
        }
        let format = request.format().unwrap_or(format::TEXT);
        self.store(path, format, request.payload.clone());
        Response::new(Code::CREATED).with_location(path)
    }

    fn answer_stored(&mut self, path: &str, request: &Request) -> Answer {
        let old = self.stored.get(path).cloned();
        let etag = old.as_ref().map(Stored::etag);
        if !request.conditions_hold(etag.as_ref().map(|etag| &etag[..])) {
            return Answer::Now(Response::new(Code::PRECONDITION_FAILED));
        }
        match (request.method, old) {
            (Method::Get, Some(old)) => {
                let response = match request.has_etag(&old.etag()) {
                    true => Response::new(Code::VALID).with_etag(old.etag()),
                    false => old.response(),
                };
                match OBSERVED.contains(&path) {
                    true => Answer::Observable(path.to_owned(), response),
                    false => Answer::Now(response),
                }
            }
            (Method::Put, old) => self.put(path, request, old.as_ref()),
            (Method::Delete, old) => {
                self.stored.remove(path);
                let deleted = Response::new(Code::DELETED);
                match old {
                    Some(_) => {
                        let gone = Response::new(Code::NOT_FOUND);
                        Answer::Ended(path.to_owned(), deleted, gone)
                    }
                    None => Answer::Now(deleted),
                }
            }
            (Method::Get, None) => Answer::Now(Response::new(Code::NOT_FOUND)),
            _ => Answer::Now(Response::new(Code::METHOD_NOT_ALLOWED)),
        }
    }

    fn put(&mut self, path: &str, request: &Request, old: Option<&Stored>) -> Answer {
        let listed = ["create1", "test", "validate", "large-update"].contains(&path);
        if old.is_none() && !listed && !OBSERVED.contains(&path) {
            return Answer::Now(Response::new(Code::NOT_FOUND));
        }
        let format = request.format().unwrap_or(format::TEXT);
        self.store(path, format, request.payload.clone());
        let (path, done) = (path.to_owned(), Response::new(Code::CHANGED));
        match old {
            None => Answer::Now(Response::new(Code::CREATED)),
            Some(old) if old.format == format => Answer::Changed(path, done),
            // RFC 7641 section 4.2: an observer has chosen a Content-Format.
            Some(_) => Answer::Ended(path, done, Response::new(Code::NOT_ACCEPTABLE)),
        }
    }

    fn list(&self, request: &Request) -> Response {
        let wanted = |link: &&Link| request.queries().all(|argument| link.matches(argument));
        let list = link_format::write(self.links.iter().filter(wanted));
        Response::content(format::LINK, list)
    }
}

fn multi_format(request: &Request) -> Response {
    match request.accept() {
        None | Some(format::TEXT) => Response::content(format::TEXT, "text"),
        Some(format::XML) => Response::content(format::XML, "<xml/>"),
        Some(_) => Response::new(Code::NOT_ACCEPTABLE),
    }
}

fn sub_resources() -> Response {
    let links = ["/path/sub1", "/path/sub2", "/path/sub3"].map(Link::new);
    Response::content(format::LINK, link_format::write(&links))
}

fn links() -> Vec<Link> {
    let link = Link::new;
    vec![
        link("/test")
            .with("title", "Writes and removes")
            .with("ct", "0"),
        link("/separate").with("title", "Answers later"),
        link("/seg1/seg2/seg3"),
        link("/query"),
        link("/location-query"),
        link("/multi-format").with("ct", "0 41"),
        link("/validate").with("title", "Has an ETag"),
        link("/create1"),
        link("/large").with("sz", &large().len().to_string()),
        link("/large-update"),
        link("/large-create").with("rt", "block"),
        link("/large-post").with("rt", "block"),
        link("/obs").with("obs", "").with("title", "Changes, CON"),
        link("/obs-non")
            .with("obs", "")
            .with("title", "Changes, NON"),
        link("/obs-large").with("obs", "").with("sz", "1500"),
        link("/link1").with("rt", "Type1 Type2").with("if", "If1"),
        link("/link2").with("rt", "Type2 Type3").with("if", "If2"),
        link("/link3").with("rt", "Type1 Type3").with("if", "foo"),
        link("/path").with("ct", "40"),
        link("/path/sub1"),
        link("/path/sub2"),
        link("/path/sub3"),
    ]
}
