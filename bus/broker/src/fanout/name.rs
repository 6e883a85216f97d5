//! Internal topics: what the Router sees in place of topics.
//!
//! Each level becomes one of 64 characters, by its hash. So whatever peers call their topics, the
//! Router sees short ASCII without `$`, and its tables, which never shrink, hold a bounded number
//! of names for each position. Two topics may share an internal one; sessions match for
//! themselves, so that costs a look and changes nothing.

/// Levels that are told apart; deeper ones share one name.
const DEPTH: usize = 8;

const ALPHABET: [char; 64] = {
    let mut alphabet = ['_'; 64];
    let mut i = 0;
    while i < 62 {
        alphabet[i] = match i as u8 {
            n @ 0..=25 => (b'a' + n) as char,
            n @ 26..=51 => (b'A' + n - 26) as char,
            n => (b'0' + n - 52) as char,
        };
        i += 1;
    }
    alphabet[62] = '-';
    alphabet
};

/// FNV-1a, folded to six bits: equal everywhere and for ever.
fn level_name(level: &str) -> char {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in level.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash ^= hash >> 16;
    ALPHABET[(hash & 63) as usize]
}

/// Topics that begin with `$` have their own root, which wildcards in front never reach.
fn root(text: &str) -> char {
    if text.starts_with('$') { 's' } else { 'm' }
}

/// The internal topic of a valid Topic Name.
pub(super) fn internal_topic(name: &str) -> String {
    let mut internal = String::with_capacity(2 * DEPTH + 3);
    internal.push(root(name));
    for (i, level) in name.split('/').enumerate() {
        internal.push('/');
        if i == DEPTH {
            internal.push('~');
            break;
        }
        internal.push(level_name(level));
    }
    internal
}

/// An internal filter that matches the internal topic of every name that `filter` matches.
pub(super) fn internal_filter(filter: &str) -> String {
    let mut internal = String::with_capacity(2 * DEPTH + 3);
    internal.push(root(filter));
    for (i, level) in filter.split('/').enumerate() {
        internal.push('/');
        match level {
            _ if i == DEPTH => {
                internal.push('#');
                break;
            }
            "+" | "#" => internal.push_str(level),
            literal => internal.push(level_name(literal)),
        }
    }
    internal
}

/// Whether some internal topic matches both internal filters.
pub(super) fn overlaps(one: &str, other: &str) -> bool {
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    loop {
        match (ones.next(), others.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (None, _) | (_, None) => return false,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic;

    #[test]
    fn internal_topics_are_plain() {
        for name in ["$SYS/x", "é/日本", "/", "a/b/c/d/e/f/g/h/i/j", " $/~", "+x"] {
            let internal = internal_topic(name);
            assert!(
                internal.is_ascii() && !internal.contains(['$', '+', '#']),
                "{internal}"
            );
            assert!(internal.len() <= 2 * DEPTH + 3);
        }
        assert!(!topic::matches(
            &internal_filter("#"),
            &internal_topic("$SYS/x")
        ));
        assert!(topic::matches(
            &internal_filter("$SYS/#"),
            &internal_topic("$SYS/x")
        ));
    }

    fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab$é]{0,2}", 1..12)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a name", |name| topic::is_topic_name(name))
    }

    fn filter() -> impl Strategy<Value = String> {
        (
            proptest::collection::vec("[ab$é]{0,2}|\\+|\\+", 1..12),
            any::<bool>(),
        )
            .prop_map(|(levels, hash)| levels.join("/") + if hash { "/#" } else { "" })
            .prop_filter("a filter", |filter| topic::is_topic_filter(filter))
    }

    proptest! {
        #[test]
        fn no_match_is_lost(filter in filter(), name in name()) {
            if topic::matches(&filter, &name) {
                prop_assert!(topic::matches(&internal_filter(&filter), &internal_topic(&name)));
            }
        }

        #[test]
        fn filters_with_a_name_in_common_overlap(one in filter(), other in filter(), name in name()) {
            let (one, other) = (internal_filter(&one), internal_filter(&other));
            let name = internal_topic(&name);
            if topic::matches(&one, &name) && topic::matches(&other, &name) {
                prop_assert!(overlaps(&one, &other));
            }
        }
    }
}
