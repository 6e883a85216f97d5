//! Topic Names and Topic Filters: which are valid, and what they match (MQTT 5 section 4.7).

/// The most levels of a name or a filter; what is deeper is refused.
///
/// Deviation: MQTT knows no such bound. It keeps the work per message bounded.
pub(crate) const MAX_LEVELS: usize = 200;

/// What a Shared Subscription begins with (MQTT-4.8.2-1).
const SHARE: &str = "$share/";

fn is_well_formed(text: &str) -> bool {
    (1..=usize::from(u16::MAX)).contains(&text.len()) && !text.contains('\0')
}

/// Whether a name or a filter has few enough levels to be served.
pub(crate) fn is_bounded(text: &str) -> bool {
    text.bytes().filter(|&b| b == b'/').count() < MAX_LEVELS
}

/// Whether a text can be published to: no wildcards, at least one character (MQTT-3.3.2-2,
/// MQTT-4.7.3-1).
pub(crate) fn is_topic_name(text: &str) -> bool {
    is_well_formed(text) && !text.contains(['+', '#'])
}

/// Name and Topic Filter of a Shared Subscription; none of another filter (MQTT 5 section 4.8.2).
pub(crate) fn shared(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix(SHARE)?.split_once('/')
}

/// The Topic Filter of a Shared Subscription, or of another one the whole.
pub(crate) fn unshared(filter: &str) -> &str {
    shared(filter).map_or(filter, |(_, filter)| filter)
}

/// Whether wildcards stand only where they may, and a Shared Subscription has a name and a filter
/// (MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.8.2-1, MQTT-4.8.2-2).
pub(crate) fn is_topic_filter(text: &str) -> bool {
    let filter = match shared(text) {
        Some(("", _)) => return false,
        Some((name, _)) if name.contains(['+', '#']) => return false,
        Some((_, filter)) => filter,
        None if text.starts_with(SHARE) => return false,
        None => text,
    };
    if !is_well_formed(text) || filter.is_empty() {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fits = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            other => !other.contains(['+', '#']),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// A filter that begins with a wildcard says nothing about `$` topics (MQTT-4.7.2-1).
fn hides_dollar(filter: &str, name: &str) -> bool {
    name.starts_with('$') && filter.starts_with(['+', '#'])
}

/// Whether the Topic Name is one that the filter asks for. Both must be valid.
///
/// It is asked for every message and every filter, so it goes once over the bytes.
pub(crate) fn matches(filter: &str, name: &str) -> bool {
    if hides_dollar(filter, name) {
        return false;
    }
    let (mut filter, mut name) = (filter.as_bytes(), name.as_bytes());
    // Both begin a level at each turn.
    loop {
        match filter {
            [b'#', ..] => return true,
            [b'+', rest @ ..] => {
                let end = name.iter().position(|&byte| byte == b'/');
                (filter, name) = (rest, &name[end.unwrap_or(name.len())..]);
            }
            _ => {
                let pairs = filter.iter().zip(name);
                let same = pairs.take_while(|(f, n)| f == n && **f != b'/').count();
                (filter, name) = (&filter[same..], &name[same..]);
            }
        }
        // Both must have ended the level.
        match (filter, name) {
            ([], []) | ([b'/', b'#'], []) => return true,
            ([b'/', filters @ ..], [b'/', names @ ..]) => (filter, name) = (filters, names),
            _ => return false,
        }
    }
}

/// Whether every name that `inner` matches is matched by `outer` too. Both must be valid.
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    if hides_dollar(outer, inner) {
        return false;
    }
    let mut inners = inner.split('/');
    for level in outer.split('/') {
        match (level, inners.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (literal, Some(inner)) if literal == inner => {}
            _ => return false,
        }
    }
    inners.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_no_wildcards() {
        for good in ["a", "/", "a//b", "é/x", "$SYS/x", " "] {
            assert!(is_topic_name(good), "{good}");
        }
        for bad in ["", "a/#", "+", "a\0b"] {
            assert!(!is_topic_name(bad), "{bad}");
        }
        assert!(is_bounded(&"/".repeat(MAX_LEVELS - 1)));
        assert!(!is_bounded(&"/".repeat(MAX_LEVELS)));
    }

    #[test]
    fn a_shared_subscription_has_a_name_and_a_filter() {
        assert_eq!(shared("$share/g/a/#"), Some(("g", "a/#")));
        assert_eq!(shared("$share/g//"), Some(("g", "/")));
        assert_eq!(unshared("$share/g/a/#"), "a/#");
        assert_eq!(unshared("a/$share/g"), "a/$share/g");
        for good in ["$share/g/#", "$share/g//", "$share/$/$SYS/+", "$shared/x"] {
            assert!(is_topic_filter(good), "{good}");
        }
        for bad in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/a#/b",
            "$share/g/a#",
        ] {
            assert!(!is_topic_filter(bad), "{bad}");
        }
    }

    #[test]
    fn wildcards_fill_a_level() {
        for good in ["#", "+", "a/#", "+/+/#", "/", "+/a/+", "$SYS/#"] {
            assert!(is_topic_filter(good), "{good}");
        }
        for bad in ["", "a/#/b", "a+", "#a", "a/b#", "++", "a\0"] {
            assert!(!is_topic_filter(bad), "{bad}");
        }
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        let yes = [
            ("a/b", "a/b"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("+", "a"),
            ("+/+", "/x"),
            ("/+", "/x"),
            ("#", "a/b"),
            ("$SYS/#", "$SYS/x"),
        ];
        let no = [
            ("a/b", "a/b/c"),
            ("a/+", "a"),
            ("+", "a/b"),
            ("+", "/a"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("a/b/#", "a"),
        ];
        for (filter, name) in yes {
            assert!(matches(filter, name), "{filter} {name}");
        }
        for (filter, name) in no {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }

    #[test]
    fn covering_is_matching_of_filters() {
        let yes = [
            ("#", "a/#"),
            ("#", "+/b"),
            ("a/#", "a"),
            ("a/#", "a/+/c"),
            ("a/+", "a/+"),
            ("a/+/#", "a/b/#"),
        ];
        let no = [
            ("a/+", "a/#"),
            ("a/b", "a/+"),
            ("#", "$SYS/#"),
            ("+/#", "#"),
            ("a/+", "a/b/c"),
            ("a/b/#", "a/#"),
        ];
        for (outer, inner) in yes {
            assert!(covers(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in no {
            assert!(!covers(outer, inner), "{outer} {inner}");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab$]{0,2}", 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a name", |name| is_topic_name(name))
    }

    fn filter() -> impl Strategy<Value = String> {
        (
            proptest::collection::vec("[ab$]{0,2}|\\+", 1..4),
            any::<bool>(),
        )
            .prop_map(|(levels, hash)| levels.join("/") + if hash { "/#" } else { "" })
            .prop_filter("a filter", |filter| is_topic_filter(filter))
    }

    proptest! {
        #[test]
        fn what_is_covered_matches_no_more(outer in filter(), inner in filter(), name in name()) {
            if covers(&outer, &inner) && matches(&inner, &name) {
                prop_assert!(matches(&outer, &name), "{outer} {inner} {name}");
            }
        }

        #[test]
        fn a_name_covers_and_matches_alike(filter in filter(), name in name()) {
            prop_assert_eq!(covers(&filter, &name), matches(&filter, &name));
        }
    }
}
