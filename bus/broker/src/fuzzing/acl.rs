//! Filters, names and the access list, against models that are slow and plain.

use std::cell::OnceCell;

use bus::topic::Base;

use super::Script;
use crate::acl::Acl;
use crate::filters::Filters;
use crate::identity::{Identity, Role};
use crate::message::{Draft, Parts};
use crate::retained::Retained;
use crate::topic;
use crate::wire::Qos;

fn levels(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

/// MQTT 5 section 4.7, as it reads.
fn is_filter(text: &str) -> bool {
    let filter = if text.starts_with("$share/") {
        let parts: Vec<&str> = text.splitn(3, '/').collect();
        let [_, name, filter] = parts[..] else {
            return false;
        };
        if name.is_empty() || name.contains('+') || name.contains('#') {
            return false;
        }
        filter
    } else {
        text
    };
    let levels = levels(filter);
    let last = levels.len() - 1;
    !filter.is_empty()
        && text.len() < 65_536
        && !text.contains('\0')
        && levels.iter().enumerate().all(|(at, level)| {
            let has_wildcard = level.contains('+') || level.contains('#');
            !has_wildcard || *level == "+" || (*level == "#" && at == last)
        })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() < 65_536 && !text.contains(['+', '#', '\0'])
}

fn model_matches(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, name @ ..]) => model_matches(filter, name),
        ([one, filter @ ..], [other, name @ ..]) => one == other && model_matches(filter, name),
        _ => false,
    }
}

fn model(filter: &str, name: &str) -> bool {
    let is_hidden = name.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'));
    !is_hidden && model_matches(&levels(filter), &levels(name))
}

/// Names that a filter matches, which between them look like all that it does.
fn names_of(filter: &str) -> Vec<String> {
    let (trunk, tails) = match filter.strip_suffix('#') {
        Some(trunk) => (trunk.to_owned(), vec!["", "t", "t/u", "/"]),
        None => (filter.to_owned(), vec![""]),
    };
    let mut names = Vec::new();
    for tail in tails {
        for level in ["p", "", "set", "me"] {
            let filled: Vec<&str> = levels(&trunk)
                .into_iter()
                .map(|known| if known == "+" { level } else { known })
                .collect();
            names.push(filled.join("/") + tail);
        }
    }
    // `a/#` matches `a`.
    if let Some(parent) = trunk.strip_suffix('/').filter(|_| filter.ends_with('#')) {
        names.push(parent.replace('+', "p"));
    }
    names.retain(|name| is_name(name));
    names
}

/// DESIGN, the table of roles, in code: which topics below the base `b` a role may publish to.
fn may_publish(role: Role, name: &str) -> bool {
    let is_command = |rest: &[&str]| matches!(rest, [_, "res", _, "set" | "get"] | [_, "cmd", _]);
    match (role, &levels(name)[..]) {
        (_, [first, ..]) if first.starts_with('$') => false,
        (Role::Admin, _) => true,
        (Role::Bridge, ["b", "bridges", "me", ..] | ["b", "events"] | ["b", "replies", ..]) => true,
        (Role::Bridge, ["homeassistant", ..]) => true,
        (Role::Bridge, ["b", "nodes", rest @ ..]) => !is_command(rest),
        (Role::Dashboard | Role::Operator, ["b", "nodes", rest @ ..]) => is_command(rest),
        (Role::Node, ["b", "nodes", "me", rest @ ..]) => !is_command(&[&["me"], rest].concat()),
        _ => false,
    }
}

/// And which topics reach it by a subscription.
fn may_receive(role: Role, name: &str) -> bool {
    match (role, &levels(name)[..]) {
        (Role::Admin, [first, ..]) => !first.starts_with('$') || *first == "$SYS",
        (Role::Dashboard | Role::Operator | Role::Viewer, ["b", ..]) => true,
        (Role::Bridge, ["b", "nodes", ..] | ["b", "bridges", _, "status"]) => true,
        (Role::Bridge, ["homeassistant", "status"]) => true,
        (Role::Node, ["b", "nodes", "me", "res", _, "set" | "get"]) => true,
        (Role::Node, ["b", "nodes", "me", "cmd", _]) => true,
        _ => false,
    }
}

fn check_access(filter: &str, name: &str) {
    thread_local! {
        static ACL: OnceCell<Acl> = const { OnceCell::new() };
    }
    ACL.with(|acl| {
        let acl = acl.get_or_init(|| {
            let base = Base::new("b").expect("a base");
            Acl::load(None, &base).expect("the built-in list")
        });
        for role in Role::ALL {
            let access = acl.access(&Identity {
                role,
                name: "me".to_owned(),
                is_proven: true,
            });
            if is_name(name) {
                let allowed = access.may_publish(name);
                assert_eq!(
                    allowed,
                    may_publish(role, name),
                    "{role} publishes {name:?}"
                );
                // As a filter, such a name asks for something else.
                let is_share = name.starts_with("$share/");
                let allowed = access.may_subscribe(name);
                assert!(
                    is_share || allowed == may_receive(role, name),
                    "{role} receives {name:?}: {allowed}"
                );
            }
            let is_allowed = topic::shared(filter).is_none() && access.may_subscribe(filter);
            if is_allowed {
                for name in names_of(filter).iter().filter(|name| model(filter, name)) {
                    assert!(
                        may_receive(role, name),
                        "{role} gets {name:?} by {filter:?}"
                    );
                }
            }
        }
    });
}

/// What is found in a tree is what a look at each finds.
fn check_trees(filters: &[&str], names: &[&str]) {
    let (mut tree, mut retained) = (Filters::default(), Retained::default());
    for (at, filter) in filters.iter().enumerate() {
        tree.edit(filter, |here| here.push(at));
    }
    for (seq, name) in (1..).zip(names) {
        let draft = Draft::new(&Parts {
            topic: name,
            payload: b"x",
            qos: Qos::AtMostOnce,
            retain: true,
            origin: 0,
            expires: None,
            properties: &[],
        });
        retained.apply(draft.seal(seq, 0));
    }
    for name in names {
        let mut found: Vec<usize> = tree.matching(name).into_iter().copied().collect();
        found.sort_unstable();
        let each = (0..filters.len()).filter(|&at| model(filters[at], name));
        assert_eq!(found, each.collect::<Vec<_>>(), "{filters:?} for {name:?}");
    }
    for filter in filters {
        let found = retained.matching(filter, 0);
        let mut found: Vec<&str> = found.iter().map(|message| message.topic()).collect();
        found.sort_unstable();
        let mut each: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| model(filter, name))
            .collect();
        each.sort_unstable();
        each.dedup();
        assert_eq!(found, each, "retained for {filter:?}");
    }
    for (at, filter) in filters.iter().enumerate() {
        tree.edit(filter, |here| here.retain(|known| *known != at));
    }
    for name in names {
        assert!(tree.matching(name).is_empty());
    }
}

/// Lines of text, each a filter or a name or neither.
///
/// # Panics
/// When the broker and a model are of different minds, or something panics.
pub fn acl(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(Script(data).bytes(4096)) else {
        return;
    };
    let lines: Vec<&str> = text.split('\n').take(8).collect();
    for line in &lines {
        assert_eq!(topic::is_topic_filter(line), is_filter(line), "{line:?}");
        assert_eq!(topic::is_topic_name(line), is_name(line), "{line:?}");
    }
    let is_plain = |line: &&str| is_filter(line) && !line.starts_with("$share/");
    let filters: Vec<&str> = lines.iter().copied().filter(is_plain).collect();
    let names: Vec<&str> = lines.iter().copied().filter(|line| is_name(line)).collect();
    for filter in &filters {
        for name in &names {
            assert_eq!(
                topic::matches(filter, name),
                model(filter, name),
                "{filter:?} {name:?}"
            );
        }
        for outer in &filters {
            if topic::covers(outer, filter) {
                for name in names_of(filter).iter().filter(|name| model(filter, name)) {
                    assert!(
                        model(outer, name),
                        "{outer:?} covers {filter:?}, not {name:?}"
                    );
                }
            }
        }
    }
    check_trees(&filters, &names);
    for line in &lines {
        check_access(if is_filter(line) { line } else { "x" }, line);
    }
}
