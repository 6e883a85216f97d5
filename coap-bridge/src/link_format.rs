//! Lists of resources as nodes give them (RFC 6690).
//!
//! Reading is lenient in one way only: a list that is cut off or goes wrong somewhere gives the links
//! before that, for old firmwares cut theirs where their packet ends. It is bounded in links and
//! attributes.

use std::fmt;

use bus::payload::Resource;

/// Further links are not read.
const MAX_LINKS: usize = 256;
/// Further attributes of a link are not read.
const MAX_ATTRIBUTES: usize = 32;
/// A longer target is no path of a resource, in bytes; nor is a title longer.
const MAX_TEXT: usize = 255;

/// A link and its attributes, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The target, as it stands between `<` and `>`.
    pub target: String,
    /// Names and values; a flag such as `obs` has no value.
    pub attributes: Vec<(String, Option<String>)>,
}

/// Reads a list.
#[must_use]
pub fn parse(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let mut rest = text;
    while links.len() < MAX_LINKS {
        let Some((link, after)) = read_link(rest) else {
            break;
        };
        links.push(link);
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    links
}

fn read_link(text: &str) -> Option<(Link, &str)> {
    let (target, mut rest) = text.trim_start().strip_prefix('<')?.split_once('>')?;
    let mut attributes = Vec::new();
    while let Some(after) = rest.trim_start().strip_prefix(';') {
        let (attribute, after) = read_attribute(after.trim_start())?;
        if attributes.len() < MAX_ATTRIBUTES {
            attributes.push(attribute);
        }
        rest = after;
    }
    let target = target.to_owned();
    Some((Link { target, attributes }, rest))
}

type Attribute = (String, Option<String>);

fn read_attribute(text: &str) -> Option<(Attribute, &str)> {
    let end = text
        .find(|c: char| matches!(c, '=' | ';' | ',') || c.is_whitespace())
        .unwrap_or(text.len());
    let (name, rest) = text
        .split_at_checked(end)
        .filter(|(name, _)| !name.is_empty())?;
    let Some(value) = rest.strip_prefix('=') else {
        return Some(((name.to_owned(), None), rest));
    };
    let (value, rest) = match value.strip_prefix('"') {
        Some(quoted) => read_quoted(quoted)?,
        None => {
            let end = value.find([';', ',']).unwrap_or(value.len());
            let (value, rest) = value.split_at_checked(end)?;
            (value.trim_end().to_owned(), rest)
        }
    };
    Some(((name.to_owned(), Some(value)), rest))
}

/// Reads up to the closing quote; a backslash takes the next character as it is.
fn read_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.target)?;
        for (name, value) in &self.attributes {
            write!(f, ";{name}")?;
            let Some(value) = value else { continue };
            if is_bare(name, value) {
                write!(f, "={value}")?;
            } else {
                let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
                write!(f, "=\"{escaped}\"")?;
            }
        }
        Ok(())
    }
}

/// Whether a value is written without quotes: the grammar has none around one number and around the
/// value of `title*`.
fn is_bare(name: &str, value: &str) -> bool {
    let number = matches!(name, "ct" | "sz") && value.bytes().all(|byte| byte.is_ascii_digit());
    let extended = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !value.is_empty() && (number || name.ends_with('*') && value.bytes().all(extended))
}

/// Writes a list.
#[must_use]
pub fn write<'a>(links: impl IntoIterator<Item = &'a Link>) -> String {
    let links: Vec<String> = links.into_iter().map(Link::to_string).collect();
    links.join(",")
}

impl Link {
    /// A link to a path of this server, such as `/led`, without attributes.
    #[must_use]
    pub fn new(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            attributes: Vec::new(),
        }
    }

    /// The same with a further attribute; one with an empty value is a flag such as `obs`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let value = (!value.is_empty()).then(|| value.to_owned());
        self.attributes.push((name.to_owned(), value));
        self
    }

    /// Whether the link is wanted by an argument of a query (RFC 6690 section 4.1): `rt=light` one of
    /// the words of `rt`, `rt=li*` one that begins so, `href=/led` the target, `obs` that it has the
    /// attribute. An argument that says nothing about links (no `=`, unknown name) wants none of them.
    #[must_use]
    pub fn matches(&self, argument: &str) -> bool {
        let Some((name, wanted)) = argument.split_once('=') else {
            return self.attributes.iter().any(|(n, _)| n == argument);
        };
        let fits = |value: &str| match wanted.strip_suffix('*') {
            Some(prefix) => value.starts_with(prefix),
            None => value == wanted,
        };
        match name {
            "href" => fits(&self.target),
            // Lists of words.
            "rt" | "if" | "rel" | "rev" | "ct" => self
                .values(name)
                .any(|value| fits(value) || value.split_whitespace().any(fits)),
            _ => self.values(name).any(fits),
        }
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.attributes.iter().filter(move |(n, _)| n == name);
        named.filter_map(|(_, value)| value.as_deref())
    }

    /// Words of all values, each once: `rt="a b"` and `rt=a;rt=b` say the same here.
    fn words(&self, name: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        for word in self.values(name).flat_map(str::split_whitespace) {
            if words.len() < MAX_ATTRIBUTES && !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        }
        words
    }

    /// The title, from `title*` (RFC 8187) when it has one.
    fn title(&self) -> Option<String> {
        let extended = self.values("title*").find_map(|value| {
            let (charset, rest) = value.split_once('\'')?;
            let (_, text) = rest.split_once('\'')?;
            let utf8 = charset.eq_ignore_ascii_case("utf-8");
            String::from_utf8(crate::endpoint::percent_decoded(text))
                .ok()
                .filter(|_| utf8)
        });
        let title = extended.or_else(|| self.values("title").next().map(str::to_owned));
        title.filter(|title| title.len() <= MAX_TEXT)
    }

    /// Whether the link says how something else is related to its target, and not that the node has
    /// the target: it has an anchor, which is not the node itself or is not its host (section 2.1).
    fn is_about_another(&self) -> bool {
        let mut anchors = self.values("anchor").peekable();
        if anchors.peek().is_none() {
            return false;
        }
        let relations = self.words("rel");
        let hosts = relations.is_empty() || relations.iter().any(|rel| rel == "hosts");
        !hosts || anchors.any(|anchor| anchor != "/")
    }

    /// The resource that the link is about; none when it is about something elsewhere, about
    /// `/.well-known`, or has an unusable path.
    #[must_use]
    pub fn resource(&self) -> Option<Resource> {
        let target = &self.target;
        let elsewhere = target.starts_with("//")
            || target
                .split('/')
                .next()
                .is_some_and(|first| first.contains(':'))
            || self.is_about_another();
        let path = target.strip_prefix('/').unwrap_or(target);
        let usable = (1..=MAX_TEXT).contains(&path.len())
            && !path.chars().any(char::is_control)
            && path != ".well-known"
            && !path.starts_with(".well-known/");
        if elsewhere || !usable {
            return None;
        }
        Some(Resource {
            name: String::new(),
            path: path.to_owned(),
            rt: self.words("rt"),
            interfaces: self.words("if"),
            ct: self
                .words("ct")
                .iter()
                .filter_map(|word| word.parse().ok())
                .collect(),
            obs: self.attributes.iter().any(|(name, _)| name == "obs"),
            sz: self.values("sz").next().and_then(|size| size.parse().ok()),
            title: self.title(),
            methods: Vec::new(),
        })
    }
}

/// The resources of a list, each path once.
#[must_use]
pub fn resources(text: &str) -> Vec<Resource> {
    let mut resources: Vec<Resource> = Vec::new();
    for resource in parse(text).iter().filter_map(Link::resource) {
        if !resources.iter().any(|known| known.path == resource.path) {
            resources.push(resource);
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn paths(text: &str, expected: &[&str]) {
        let resources = resources(text);
        let paths: Vec<&str> = resources.iter().map(|r| r.path.as_str()).collect();
        assert_eq!(paths, expected, "{text}");
    }

    #[test]
    fn lists_of_old_firmwares_are_bare_and_may_be_cut() {
        paths(
            "</board>,</led>,</mcu>,</name>,</os>",
            &["board", "led", "mcu", "name", "os"],
        );
        paths("</board>,</led>,</mc", &["board", "led"]);
        paths("</board>,", &["board"]);
        paths("", &[]);
    }

    #[test]
    fn attributes_are_read_as_the_rfc_says() {
        let all = resources(
            r#"</sensors/temp>;rt="temperature-c ucum:Cel";if="sensor core.s";ct="0 50";obs;sz=64;title="Office, \"north\"", </x>;ct=0;ct=41;title*=UTF-8'de'T%C3%BCr"#,
        );
        let [temp, x] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!(temp.path, "sensors/temp");
        assert_eq!(temp.rt, ["temperature-c", "ucum:Cel"]);
        assert_eq!(temp.interfaces, ["sensor", "core.s"]);
        assert_eq!(temp.ct, [0, 50]);
        assert!(temp.obs);
        assert_eq!(temp.sz, Some(64));
        assert_eq!(temp.title.as_deref(), Some("Office, \"north\""));
        assert_eq!(x.ct, [0, 41]);
        assert_eq!(x.title.as_deref(), Some("Tür"));
        assert!(!x.obs);
    }

    #[test]
    fn what_aiocoap_and_libcoap_write_is_read() {
        paths(
            r#"</.well-known/core>; ct=40, </time>; obs, </led>, <https://christian.amsuess.com/tools/aiocoap/#version-0.4.17>; rel=impl-info"#,
            &["time", "led"],
        );
        paths(
            r#"</>;title="General Info";ct=0,</time>;if="clock";rt="ticks";title="Internal Clock";ct=0;obs,</async>;ct=0"#,
            &["time", "async"],
        );
    }

    #[test]
    fn links_to_elsewhere_are_not_resources_of_the_node() {
        paths(
            r#"<coap://[::1]/x>,<//h/x>,</t>;anchor="/u";rel="x",</v>;anchor="/";rel="x",</y>,</z>;anchor="/""#,
            &["y", "z"],
        );
        paths("</a>,</a>;obs,</b\u{7}>,<>", &["a"]);
    }

    #[test]
    fn what_makes_other_parsers_panic_is_cut_here() {
        for text in [
            "</a>;rt=\"",
            "</a>;rt=\"temp",
            "</a>;rt=\"é",
            "</a>;=",
            "</a>;rt=\"\\",
        ] {
            paths(&format!("</ok>,{text}"), &["ok"]);
        }
        assert_eq!(parse(&"</a>,".repeat(10_000)).len(), MAX_LINKS);
        assert_eq!(
            parse(&format!("</a>{}", ";x".repeat(10_000)))[0]
                .attributes
                .len(),
            MAX_ATTRIBUTES
        );
    }

    #[test]
    fn queries_choose_links() {
        let links = parse(
            r#"</a>;rt="one two";if="If1";sz=64,</b>;rt="two";title="B";obs,</c>;ct="0 50",</ab>;rt="""#,
        );
        let chosen = |argument: &str| {
            let links = links.iter().filter(|link| link.matches(argument));
            links.map(|link| link.target.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(chosen("rt=two"), ["/a", "/b"]);
        assert_eq!(chosen("rt=tw"), [""; 0]);
        assert_eq!(chosen("rt=tw*"), ["/a", "/b"]);
        assert_eq!(chosen("rt=*"), ["/a", "/b", "/ab"]);
        assert_eq!(chosen("rt=one two"), ["/a"]);
        assert_eq!(chosen("if=If*"), ["/a"]);
        assert_eq!(chosen("sz=*"), ["/a"]);
        assert_eq!(chosen("ct=50"), ["/c"]);
        assert_eq!(chosen("title=B"), ["/b"]);
        assert_eq!(chosen("obs"), ["/b"]);
        assert_eq!(chosen("href=/a"), ["/a"]);
        assert_eq!(chosen("href=/a*"), ["/a", "/ab"]);
        assert_eq!(chosen("x=y"), [""; 0]);
    }

    #[test]
    fn links_are_written_as_the_grammar_says() {
        let link = Link::new("/x")
            .with("rt", "a b")
            .with("ct", "40")
            .with("sz", "1280")
            .with("obs", "")
            .with("title", "Tür \"1\"")
            .with("title*", "UTF-8'de'T%C3%BCr");
        let text = r#"</x>;rt="a b";ct=40;sz=1280;obs;title="Tür \"1\"";title*=UTF-8'de'T%C3%BCr"#;
        assert_eq!(link.to_string(), text);
        let many = link.clone().with("ct", "0 50");
        assert!(many.to_string().ends_with(r#";ct="0 50""#));
        assert_eq!(parse(&write([&link, &many])), [link, many]);
    }

    fn any_link() -> impl Strategy<Value = Link> {
        let value = proptest::option::of("[^\u{0}]{0,12}");
        let attributes = proptest::collection::vec(("[a-z*]{1,6}", value), 0..4);
        ("[^<>]{0,20}", attributes).prop_map(|(target, attributes)| Link { target, attributes })
    }

    proptest! {
        #[test]
        fn links_survive_writing_and_reading(links in proptest::collection::vec(any_link(), 1..5)) {
            let text: Vec<String> = links.iter().map(ToString::to_string).collect();
            prop_assert_eq!(parse(&text.join(",")), links);
        }

        #[test]
        fn no_text_panics(text in "[<>/a;=\",\\\\ é*']{0,60}") {
            prop_assert!(resources(&text).len() <= MAX_LINKS);
        }
    }
}
