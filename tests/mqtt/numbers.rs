//! That the statements exist which the tests are called after.

/// The sections of MQTT 3.1.1 (OASIS Standard, 29 October 2014) with normative statements, and how many
/// each has. Statement `[MQTT-3-8.3-4]` is spelt so in the standard.
const MQTT_311: &str = "\
    1_5_3:3 2_2_2:2 2_3_1:7 3_1_0:2 3_1_2:24 3_1_3:11 3_1_4:5 3_2_0:1 3_2_2:6 3_3_1:12 3_3_2:3 \
    3_3_4:1 3_3_5:2 3_6_1:1 3_8_1:1 3_8_3:4 3_8_4:6 3_9_3:2 3_10_1:1 3_10_3:2 3_10_4:6 \
    3_12_4:1 3_14_1:1 3_14_4:3 4_1_0:2 4_3_1:1 4_3_2:2 4_3_3:2 4_4_0:1 4_5_0:2 4_6_0:6 4_7_1:3 \
    4_7_2:1 4_7_3:4 4_8_0:2";

/// The same of MQTT 5 (OASIS Standard, 7 March 2019).
const MQTT_5: &str = "\
    1_5_4:3 1_5_5:1 1_5_7:1 2_1_3:1 2_2_1:6 2_2_2:1 3_1_0:2 3_1_2:30 3_1_3:12 3_1_4:6 3_2_0:2 \
    3_2_2:22 3_3_1:13 3_3_2:20 3_3_4:10 3_4_2:3 3_5_2:3 3_6_1:1 3_6_2:3 3_7_2:3 3_8_1:1 \
    3_8_3:5 3_8_4:8 3_9_2:2 3_9_3:2 3_10_1:1 3_10_3:2 3_10_4:6 3_11_2:2 3_11_3:2 3_12_4:1 \
    3_14_0:1 3_14_1:1 3_14_2:4 3_14_4:3 3_15_1:1 3_15_2:3 4_1_0:2 4_3_1:1 4_3_2:5 4_3_3:13 \
    4_4_0:2 4_5_0:2 4_6_0:6 4_7_0:1 4_7_1:2 4_7_2:1 4_7_3:4 4_8_2:6 4_9_0:3 4_12_0:7 4_12_1:2 \
    4_13_1:1 4_13_2:1";

const SOURCES: &[&str] = &[
    include_str!("connecting.rs"),
    include_str!("flows.rs"),
    include_str!("properties.rs"),
    include_str!("publishing.rs"),
    include_str!("sessions.rs"),
    include_str!("shared.rs"),
    include_str!("subscribing.rs"),
    include_str!("wills.rs"),
    include_str!("wire.rs"),
];

/// What the tests are called after: the words of the sources that look like a test's name, cut behind
/// their four numbers.
fn checked() -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = SOURCES
        .iter()
        .flat_map(|source| source.split(|c| !is_word(c)));
    let named = words.filter(|word| word.starts_with("mqtt311_") || word.starts_with("mqtt5_"));
    let mut checked: Vec<String> = named
        .map(|word| word.split('_').take(5).collect::<Vec<_>>().join("_"))
        .collect();
    checked.sort();
    checked.dedup();
    checked
}

#[test]
fn each_statement_exists() {
    let checked = checked();
    for statement in &checked {
        let (standard, rest) = statement.split_once('_').unwrap();
        let (section, number) = rest.rsplit_once('_').unwrap();
        let table = if standard == "mqtt5" {
            MQTT_5
        } else {
            MQTT_311
        };
        let mut sections = table
            .split_whitespace()
            .filter_map(|word| word.split_once(':'));
        let last = sections.find(|(name, _)| *name == section);
        let last: u32 = last.map_or(0, |(_, last)| last.parse().unwrap());
        let number: u32 = number.parse().unwrap();
        assert!(
            (1..=last).contains(&number),
            "no such statement: {statement}"
        );
    }
    let of = |standard: &str| {
        checked
            .iter()
            .filter(|name| name.starts_with(standard))
            .count()
    };
    println!(
        "statements of MQTT 3.1.1: {}, of MQTT 5: {}",
        of("mqtt311"),
        of("mqtt5")
    );
    assert!(checked.len() >= 140, "{} statements", checked.len());
}
