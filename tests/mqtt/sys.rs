//! `$SYS/broker/...`: our names are mosquitto's.

use std::collections::BTreeSet;

use super::brokers::on_each;
use super::client::Client;

/// All that our broker tells.
const NAMES: &[&str] = &[
    "$SYS/broker/clients/connected",
    "$SYS/broker/clients/disconnected",
    "$SYS/broker/clients/expired",
    "$SYS/broker/clients/total",
    "$SYS/broker/publish/messages/dropped",
    "$SYS/broker/publish/messages/received",
    "$SYS/broker/publish/messages/sent",
    "$SYS/broker/retained messages/count",
    "$SYS/broker/uptime",
    "$SYS/broker/version",
];

#[test]
fn every_topic_has_the_name_that_mosquitto_gave_it() {
    on_each("sys", None, |broker| {
        let mut client = Client::new(broker, 5);
        client.subscribe("$SYS/#", 0);
        let (mut missing, mut others) = (BTreeSet::from_iter(NAMES.iter().copied()), Vec::new());
        while !missing.is_empty() {
            let topic = client.message().topic;
            if !missing.remove(topic.as_str()) && !NAMES.contains(&topic.as_str()) {
                others.push(topic);
            }
        }
        assert!(
            broker.name == "mosquitto" || others.is_empty(),
            "{others:?}"
        );
    });
}
