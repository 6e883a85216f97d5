use std::collections::BTreeSet;

use bus::bridge::Sample;

use super::*;

const NOON: i64 = 1_795_435_200_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

/// All that a node says over an hour.
fn story(mut device: Device) -> Vec<String> {
    let mut said = vec![device.uid().to_owned(), device.links()];
    for minute in 0..60 {
        device.advance(at(NOON + minute * 60_000));
        let (path, text) = device.next_push();
        said.push(format!("{path}:{text}"));
    }
    said
}

#[test]
fn the_same_seed_makes_the_same_nodes() {
    for index in 0..COAP_KIND_COUNT {
        let device = |seed| Device::coap(index, seed, Firmware::New, at(NOON));
        assert_eq!(story(device(7)), story(device(7)));
        assert_ne!(device(7).uid(), device(8).uid());
    }
    let device = |seed| Device::ws(0, seed, Firmware::New, at(NOON));
    assert_eq!(story(device(7)), story(device(7)));
}

#[test]
fn no_two_nodes_of_a_fleet_are_alike() {
    let coap = (0..2000).map(|n| Device::coap(n, 1, Firmware::New, at(NOON)).uid);
    let ws = (0..2000).map(|n| Device::ws(n, 1, Firmware::New, at(NOON)).uid);
    assert_eq!(coap.chain(ws).collect::<BTreeSet<_>>().len(), 4000);
}

#[test]
fn values_read_as_numbers_with_units_and_move_gently() {
    let mut device = Device::coap(1, 1, Firmware::New, at(NOON));
    let mut last: Option<f64> = None;
    let mut seen = BTreeSet::new();
    for second in 0..3600 {
        device.advance(at(NOON + second * 1000));
        let text = device.read("temperature").unwrap();
        let sample = Sample::from_text(&text);
        assert_eq!(sample.u.as_deref(), Some("°C"), "{text}");
        let v = sample.v.as_f64().unwrap();
        assert!((0.0..40.0).contains(&v), "{text}");
        assert!(last.is_none_or(|last| (v - last).abs() < 1.0), "{text}");
        last = Some(v);
        seen.insert(text);
    }
    assert!(seen.len() > 5, "it moves");
}

#[test]
fn night_differs_from_day() {
    let light = |millis| {
        let device = Device::coap(5, 1, Firmware::New, at(millis));
        Sample::from_text(&device.read("illuminance").unwrap())
            .v
            .as_f64()
            .unwrap()
    };
    assert!(light(NOON) > light(NOON + 12 * 3600 * 1000) + 300.0);
}

#[test]
fn every_resource_can_be_read_as_it_is_linked() {
    for firmware in [Firmware::New, Firmware::Old] {
        for index in 0..COAP_KIND_COUNT {
            let mut device = Device::coap(index, 1, firmware, at(NOON));
            let links = device.links();
            for path in device.paths() {
                assert!(links.contains(&format!("</{path}>")));
                assert!(device.read(path).is_some_and(|text| !text.is_empty()));
            }
            let (path, text) = device.next_push();
            assert!(device.paths().contains(&path));
            assert!(!text.is_empty());
        }
    }
    let device = Device::coap(0, 1, Firmware::Old, at(NOON));
    assert_eq!(device.links(), "</board>,</led>,</mcu>,</name>,</os>");
    assert_eq!(device.read("nothing"), None);
}

#[test]
fn only_actuators_take_writes_and_only_their_values() {
    let mut device = Device::coap(0, 1, Firmware::New, at(NOON));
    assert_eq!(device.write("led", "1"), Ok("1".to_owned()));
    assert_eq!(device.read("led").as_deref(), Some("1"));
    assert_eq!(device.write("led", "x"), Err(Refusal::BadValue));
    assert_eq!(device.read("led").as_deref(), Some("1"));
    assert_eq!(device.write("name", "x"), Err(Refusal::ReadOnly));
    assert_eq!(device.write("robot", "s"), Err(Refusal::Unknown));
    let mut robot = Device::coap(6, 1, Firmware::New, at(NOON));
    assert_eq!(robot.write("robot", "l"), Ok("l".to_owned()));
    assert_eq!(robot.write("robot", "lr"), Err(Refusal::BadValue));
}

#[test]
fn an_old_firmware_has_its_quirks() {
    let mut imu = Device::coap(2, 1, Firmware::Old, at(NOON));
    let types: Vec<_> = (0..2)
        .map(|_| {
            let v: Value = serde_json::from_str(&imu.next_push().1).unwrap();
            assert_eq!(v.as_array().unwrap().len(), 1);
            v[0]["type"].clone()
        })
        .collect();
    assert_eq!(types, ["acc", "gyro"]);
    assert_eq!(imu.uid().len(), 15);
}
