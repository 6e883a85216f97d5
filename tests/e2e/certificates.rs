//! Certificates are renewed, revoked and replaced while everything runs.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{CoapNode, Identity, Subscriber, System, http_get, publish, wait_for};

const EXPIRY: &str = "nodebus_certificate_expiry_seconds";
const DAY: f64 = 86_400.0;

/// The parts that show a certificate to others.
const PARTS: [(&str, &str); 4] = [
    ("broker", "bus"),
    ("bridge", "coap"),
    ("bridge", "ws"),
    ("dashboard", "dashboard"),
];

fn labels(role: &str, name: &str) -> String {
    format!("role=\"{role}\",name=\"{name}\"")
}

/// Waits until every part says that its certificate ends in so many days, give or take one.
#[track_caller]
fn wait_for_days(system: &System, days: f64) {
    for (role, name) in PARTS {
        wait_for(&format!("{role}/{name} to take up its certificate"), || {
            let left = system.metric(EXPIRY, &labels(role, name)) / DAY;
            (left > days - 1.0 && left <= days).then_some(())
        });
    }
}

fn reloads(system: &System) -> f64 {
    system.metric(
        "bus_broker_reloads_total",
        "what=\"certificates\",result=\"ok\"",
    )
}

/// Does something that changes the bus's files, and waits until it has read them.
#[track_caller]
fn and_wait_for_the_bus(system: &System, change: impl FnOnce()) {
    let before = reloads(system);
    change();
    wait_for("the bus to read its certificates again", || {
        (reloads(system) > before).then_some(())
    });
}

#[track_caller]
fn assert_reading_arrives(node: &mut CoapNode, all: &Subscriber, value: f64) {
    node.push("temperature", &format!("{value}°C"));
    all.wait_for_member("nodes/lab/res/temperature", "v", &json!(value));
}

/// Nobody was told that a bridge was away, and nobody was shut out.
#[track_caller]
fn assert_no_outage(system: &System, all: &Subscriber) {
    for (topic, _, payload) in all.messages() {
        let payload: Value = serde_json::from_str(&payload).unwrap_or_default();
        let is_bridge = topic.starts_with("bridges/");
        assert!(
            !is_bridge || payload["state"] == "online",
            "{topic}: {payload}"
        );
    }
    assert_eq!(
        system.metric("bus_broker_refused_total", "certificate"),
        0.0
    );
    let refused = system.metric("bus_broker_handshakes_total", "certificate_");
    assert_eq!(refused, 0.0);
}

#[test]
fn every_part_takes_up_its_renewed_certificate_before_the_old_one_is_void() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "lab");
    all.wait_for_member("nodes/lab/res/led", "v", &json!(0));
    let serial = |name: &str| {
        let shown = system.certgen(&["show", "--json", name]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown[0]["serial"].as_str().unwrap().to_owned()
    };
    let old = ["coap", "ws", "dashboard"].map(|name| {
        let what = if name == "dashboard" {
            "dashboard/dashboard"
        } else {
            name
        };
        serial(what)
    });
    for (role, name) in PARTS {
        system.certgen(&["issue", role, name, "--days", "20", "--force"]);
    }
    wait_for_days(&system, 20.0);
    assert_reading_arrives(&mut node, &all, 1.5);

    // Whoever still used the old ones would be put out now.
    and_wait_for_the_bus(&system, || {
        for serial in &old {
            system.certgen(&["revoke", serial]);
        }
    });
    assert_reading_arrives(&mut node, &all, 2.5);
    let operator = system.identity("operator", "operator");
    let (code, err) = publish(&operator, "nodebus/v1/nodes/lab/res/led/set", "1", &[]);
    assert_eq!(code, 0, "{err}");
    all.wait_for_member("nodes/lab/res/led", "v", &json!(1));
    wait_for("the dashboard to show it", || {
        let (_, nodes) = http_get(system.dashboard(), "/api/v1/nodes")?;
        let nodes: Value = serde_json::from_str(&nodes).ok()?;
        (nodes[0]["values"]["led"]["v"] == 1).then_some(())
    });
    assert_no_outage(&system, &all);
}

/// A copy of an identity's files, as somebody carried them elsewhere.
fn carry(identity: &Identity, to: &Path) -> Identity {
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::copy(identity.folder.join(name), to.join(name)).unwrap();
    }
    Identity {
        folder: to.to_owned(),
        ..identity.clone()
    }
}

#[test]
fn an_authority_is_replaced_under_running_clients() {
    let system = System::start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    let mut node = CoapNode::start(system.coap(), "lab");
    all.wait_for_member("nodes/lab/res/led", "v", &json!(0));
    let operator = system.identity("operator", "operator");
    let elsewhere = tempfile::tempdir().unwrap();
    let old = carry(&operator, elsewhere.path());
    let mut value = 0.5;
    // Who was renewed and who was not can connect; what is connected stays so.
    let mut check = |who: &[&Identity]| {
        for identity in who {
            let topic = "nodebus/v1/nodes/lab/res/led/get";
            let (code, err) = publish(identity, topic, "", &[]);
            assert_eq!(code, 0, "{err}");
        }
        value += 1.0;
        assert_reading_arrives(&mut node, &all, value);
        assert_no_outage(&system, &all);
    };
    let rotate = |stage| system.certgen(&["rotate-ca", "--stage", stage]);

    check(&[&operator, &old]);
    and_wait_for_the_bus(&system, || drop(rotate("prepare")));
    check(&[&operator, &old]);
    // What runs elsewhere gets its new ca.pem before the switch.
    std::fs::copy(operator.folder.join("ca.pem"), old.folder.join("ca.pem")).unwrap();
    rotate("switch");
    check(&[&operator, &old]);
    system.certgen(&["renew", "operator/operator"]);
    check(&[&operator, &old]);
    and_wait_for_the_bus(&system, || drop(system.certgen(&["renew", "bus"])));
    check(&[&operator, &old]);
    for part in ["coap", "ws", "dashboard/dashboard"] {
        // Something that the metric shows.
        let (role, name) = match part {
            "dashboard/dashboard" => ("dashboard", "dashboard"),
            bridge => ("bridge", bridge),
        };
        system.certgen(&["issue", role, name, "--days", "20", "--force"]);
        wait_for("the part to take up its certificate", || {
            let left = system.metric(EXPIRY, &labels(role, name));
            (left <= 20.0 * DAY).then_some(())
        });
        check(&[&operator, &old]);
    }
    system.certgen(&["renew", "--all"]);
    check(&[&operator, &old]);
    let operators_next = Subscriber::start(&operator, "nodebus/v1/#", &[]);
    and_wait_for_the_bus(&system, || drop(rotate("finish")));
    // Only now is the old one of no use.
    let (code, _) = publish(&old, "nodebus/v1/nodes/lab/res/led/get", "", &[]);
    assert_ne!(code, 0);
    let (code, err) = publish(&operator, "nodebus/v1/nodes/lab/res/led/get", "", &[]);
    assert_eq!(code, 0, "{err}");
    assert_reading_arrives(&mut node, &operators_next, 99.5);
    let state = |(topic, _, payload): &(String, bool, String)| {
        !topic.starts_with("bridges/") || payload.contains("online")
    };
    assert!(operators_next.messages().iter().all(state));
}

#[test]
fn the_dashboard_is_served_over_https_with_a_certificate_of_its_own() {
    let pki = tempfile::tempdir().unwrap();
    let pki = pki.path();
    for args in [&["init"][..], &["issue", "dashboard-server", "page"]] {
        let (code, out, err) = crate::harness::certgen(pki, args);
        assert_eq!(code, 0, "{out}{err}");
    }
    let folder = pki.join("dashboard-server/page");
    let set = format!("dashboard_gw.https_pki={}", folder.display());
    let system = System::start(&["--set", &set]);
    let days = system.metric(EXPIRY, &labels("dashboard-server", "page")) / DAY;
    assert!((396.0..=397.0).contains(&days), "{days}");
    let url = format!("https://{}/api/v1/nodes", system.dashboard());
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--fail", "--max-time", "20", "--cacert"]);
    let (code, out, err) = crate::harness::run(curl.arg(folder.join("ca.pem")).arg(url));
    assert_eq!((code, out.as_str()), (0, "[]"), "{err}");
}
