//! Who may publish and subscribe to what: a list by role, read from TOML.
//!
//! The list allows and never denies by itself: what no line allows is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::topic::Base;
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;

use crate::identity::{Identity, Role};
use crate::topic;

/// The list in force when no file replaces it.
const BUILT_IN: &str = include_str!("acl.toml");
/// Stands for the name of the identity.
const NAME: &str = "%n";

/// Why an access list can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AclError {
    /// It is not there, or is no TOML of this form.
    #[error("the access list {} can't be used", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<figment::Error>,
    },
    /// It has no line, as a file that is just being written.
    #[error("the access list {} is empty: write the roles into it, or remove bus.acl", .0.display())]
    Empty(PathBuf),
    /// A line of it is no Topic Filter.
    #[error(
        "the access list has {filter:?} for {role}, which is no Topic Filter: see MQTT 5 section 4.7"
    )]
    NoFilter {
        /// Whose line.
        role: Role,
        /// The line.
        filter: String,
    },
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rules {
    publish: Vec<String>,
    publish_except: Vec<String>,
    subscribe: Vec<String>,
}

impl Rules {
    /// The rules with each line as `edit` gives it, without those that it gives nothing for.
    fn edited(&self, edit: impl Fn(&str) -> Option<String>) -> Self {
        let all = |lines: &[String]| lines.iter().filter_map(|line| edit(line)).collect();
        Self {
            publish: all(&self.publish),
            publish_except: all(&self.publish_except),
            subscribe: all(&self.subscribe),
        }
    }
}

/// The lines of one role, with the base of the topic tree in place.
#[derive(Debug, Clone, Default)]
struct Lines {
    /// The same for everybody, and held once.
    common: Arc<Rules>,
    /// Those with `%n`.
    named: Rules,
}

impl Lines {
    fn new(rules: &Rules, base: &Base) -> Self {
        let pick = |is_named| {
            rules.edited(|line| {
                let line = line.replace("%b", base.as_str());
                (line.contains(NAME) == is_named).then_some(line)
            })
        };
        Self {
            common: Arc::new(pick(false)),
            named: pick(true),
        }
    }

    fn access(&self, name: &str) -> Access {
        Access {
            common: self.common.clone(),
            own: self.named.edited(|line| Some(line.replace(NAME, name))),
        }
    }
}

/// The access list.
#[derive(Debug, Clone)]
pub(crate) struct Acl(BTreeMap<Role, Lines>);

/// What one identity may do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    common: Arc<Rules>,
    own: Rules,
}

impl Acl {
    /// Reads the built-in list, or the file that replaces it.
    pub(crate) fn load(file: Option<&Path>, base: &Base) -> Result<Self, AclError> {
        let (source, path) = match file {
            Some(path) => (Figment::from(Toml::file_exact(path)), path),
            None => (
                Figment::from(Toml::string(BUILT_IN)),
                Path::new("(built in)"),
            ),
        };
        let roles: BTreeMap<Role, Rules> =
            source.extract().map_err(|source| AclError::Unusable {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        if roles.is_empty() {
            return Err(AclError::Empty(path.to_owned()));
        }
        let lines = roles
            .iter()
            .map(|(&role, rules)| (role, Lines::new(rules, base)));
        let acl = Self(lines.collect());
        acl.check()?;
        Ok(acl)
    }

    fn check(&self) -> Result<(), AclError> {
        for (&role, lines) in &self.0 {
            let Access { common, own } = lines.access("name");
            for rules in [&*common, &own] {
                let lines = [&rules.publish, &rules.publish_except, &rules.subscribe];
                for filter in lines.into_iter().flatten() {
                    if !topic::is_topic_filter(filter) {
                        let filter = filter.clone();
                        return Err(AclError::NoFilter { role, filter });
                    }
                }
            }
        }
        Ok(())
    }

    /// What this identity may do.
    pub(crate) fn access(&self, identity: &Identity) -> Access {
        let lines = self.0.get(&identity.role);
        lines.map_or_else(Access::default, |lines| lines.access(&identity.name))
    }
}

impl Access {
    fn any(&self, lines: fn(&Rules) -> &[String], fits: impl Fn(&str) -> bool) -> bool {
        let mut lines = lines(&self.common).iter().chain(lines(&self.own));
        lines.any(|line| fits(line))
    }

    /// Whether it may publish to this valid Topic Name.
    pub(crate) fn may_publish(&self, name: &str) -> bool {
        let matches = |filter: &str| topic::matches(filter, name);
        !name.starts_with('$')
            && self.any(|rules| &rules.publish, matches)
            && !self.any(|rules| &rules.publish_except, matches)
    }

    /// Whether it may subscribe to this valid Topic Filter; of a Shared Subscription, what it is of
    /// counts.
    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        let filter = topic::unshared(filter);
        self.any(
            |rules| &rules.subscribe,
            |outer| topic::covers(outer, filter),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn access(role: Role) -> Access {
        let acl = Acl::load(None, &Base::new("b").unwrap()).unwrap();
        acl.access(&Identity {
            role,
            name: "me".to_owned(),
            is_proven: true,
        })
    }

    #[track_caller]
    fn publish(role: Role, yes: &[&str], no: &[&str]) {
        let access = access(role);
        for name in yes {
            assert!(access.may_publish(name), "{role} publishes {name}");
        }
        for name in no {
            assert!(!access.may_publish(name), "{role} publishes {name}");
        }
    }

    #[track_caller]
    fn subscribe(role: Role, yes: &[&str], no: &[&str]) {
        let access = access(role);
        for filter in yes {
            assert!(access.may_subscribe(filter), "{role} subscribes {filter}");
        }
        for filter in no {
            assert!(!access.may_subscribe(filter), "{role} subscribes {filter}");
        }
    }

    const COMMANDS: [&str; 3] = [
        "b/nodes/n/res/led/set",
        "b/nodes/n/res/led/get",
        "b/nodes/n/cmd/ping",
    ];

    #[test]
    fn a_bridge_speaks_for_itself_and_its_nodes() {
        publish(
            Role::Bridge,
            &[
                "b/bridges/me/status",
                "b/nodes/n",
                "b/nodes/n/res/led",
                "b/nodes/n/res/led/ack",
                "b/nodes/n/cmd/ping/ack",
                "b/events",
                "b/replies/x/1",
                "homeassistant/device/n/config",
            ],
            &["b/bridges/other/status", "b/events/x", "x", "$SYS/x"],
        );
        publish(Role::Bridge, &[], &COMMANDS);
        subscribe(
            Role::Bridge,
            &[
                "b/nodes/+/res/+/set",
                "b/nodes/n/cmd/+",
                "b/nodes/#",
                "b/bridges/+/status",
                "homeassistant/status",
            ],
            &["#", "b/#", "b/bridges/#", "b/events", "homeassistant/#"],
        );
    }

    #[test]
    fn dashboards_and_operators_command_and_see_all() {
        for role in [Role::Dashboard, Role::Operator] {
            publish(
                role,
                &COMMANDS,
                &["b/nodes/n/res/led", "b/events", "b/bridges/me/status"],
            );
            subscribe(role, &["b/#", "b/replies/me"], &["#", "$SYS/#", "other/#"]);
        }
    }

    #[test]
    fn a_viewer_only_sees() {
        publish(Role::Viewer, &[], &COMMANDS);
        publish(Role::Viewer, &[], &["b/nodes/me/status", "b/events", "x"]);
        subscribe(
            Role::Viewer,
            &["b/#", "b/nodes/+/status"],
            &["#", "$SYS/#", "+/#"],
        );
    }

    #[test]
    fn a_node_is_only_itself() {
        publish(
            Role::Node,
            &["b/nodes/me", "b/nodes/me/res/led", "b/nodes/me/res/led/ack"],
            &[
                "b/nodes/other/status",
                "b/nodes/me/res/led/set",
                "b/nodes/me/cmd/ping",
                "b/events",
            ],
        );
        subscribe(
            Role::Node,
            &["b/nodes/me/res/+/set", "b/nodes/me/cmd/ping"],
            &["b/nodes/+/cmd/ping", "b/nodes/me/#", "b/#"],
        );
    }

    #[test]
    fn an_admin_may_all_but_speak_for_the_broker() {
        publish(Role::Admin, &["x", "b/nodes/n/res/led/set"], &["$SYS/x"]);
        subscribe(Role::Admin, &["#", "$SYS/#"], &["$other/#"]);
    }

    #[test]
    fn a_file_replaces_the_list_wholly() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[viewer]\nsubscribe = [\"x/%n/#\"]\n")
            .unwrap();
        let acl = Acl::load(Some(file.path()), &Base::default()).unwrap();
        let viewer = acl.access(&Identity::anonymous(Role::Viewer));
        assert!(viewer.may_subscribe("x/anonymous/a") && !viewer.may_subscribe("nodebus/v1/#"));
        assert!(
            !acl.access(&Identity::anonymous(Role::Admin))
                .may_publish("x")
        );
    }

    #[test]
    fn mistakes_in_a_list_are_named() {
        let error = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let acl = Acl::load(Some(file.path()), &Base::default());
            // With its cause, as an operator sees it.
            let error = acl.unwrap_err();
            let cause = error.source().map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        };
        assert!(error("").contains("empty"));
        assert!(error("[root]\npublish = []\n").contains("root"));
        assert!(error("[viewer]\nwrite = []\n").contains("write"));
        assert!(error("[viewer]\nsubscribe = [\"a/#/b\"]\n").contains("a/#/b"));
    }

    fn level() -> impl Strategy<Value = String> {
        "b|nodes|bridges|n|me|res|set|cmd|events|\\+|#"
    }

    proptest! {
        /// What may be subscribed to never brings a topic that a narrower question would refuse.
        #[test]
        fn a_subscription_is_no_wider_than_its_names(levels in proptest::collection::vec(level(), 1..6)) {
            let filter = levels.join("/");
            prop_assume!(topic::is_topic_filter(&filter));
            for role in Role::ALL {
                let access = access(role);
                let name = filter.replace(['+', '#'], "n");
                if access.may_subscribe(&filter) {
                    prop_assert!(access.may_subscribe(&name), "{} {}", role, filter);
                }
            }
        }
    }
}
