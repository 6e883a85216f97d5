//! Topic Names and Topic Filters: which are valid, and what they match (MQTT 5 section 4.7).

/// The most levels of a name or a filter; what is deeper is refused.
///
/// Deviation: MQTT knows no such bound. It keeps the work per message bounded.
pub(crate) const MAX_LEVELS: usize = 200;

fn is_bounded(text: &str) -> bool {
    (1..=usize::from(u16::MAX)).contains(&text.len())
        && !text.contains('\0')
        && text.bytes().filter(|&b| b == b'/').count() < MAX_LEVELS
}

/// Whether a text can be published to: no wildcards, at least one character (MQTT-3.3.2-2).
pub(crate) fn is_topic_name(text: &str) -> bool {
    is_bounded(text) && !text.contains(['+', '#'])
}

/// Whether wildcards stand only where they may (MQTT-4.7.1-1, MQTT-4.7.1-2).
pub(crate) fn is_topic_filter(text: &str) -> bool {
    if !is_bounded(text) {
        return false;
    }
    let mut levels = text.split('/').peekable();
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
pub(crate) fn matches(filter: &str, name: &str) -> bool {
    if hides_dollar(filter, name) {
        return false;
    }
    let mut names = name.split('/');
    for level in filter.split('/') {
        match (level, names.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (literal, Some(name)) if literal == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
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
        for bad in ["", "a/#", "+", "a\0b", &"/".repeat(MAX_LEVELS)] {
            assert!(!is_topic_name(bad), "{bad}");
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
