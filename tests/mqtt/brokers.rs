//! The brokers under test: started once, ended with the test's process.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// What mosquitto 2.0.11 itself fails, and why.
const MOSQUITTO_FAILS: &[(&str, &str)] = &[
    (
        "mqtt311_2_2_2_2_reserved_flags",
        "takes a PINGREQ with reserved flags",
    ),
    (
        "mqtt5_2_1_3_1_reserved_flags",
        "takes a PINGREQ with reserved flags",
    ),
    (
        "mqtt5_3_3_2_14_wildcard_response_topic",
        "does not look into the Response Topic",
    ),
    (
        "mqtt5_3_3_4_6_subscription_id",
        "takes a Subscription Identifier from a client",
    ),
];

pub(crate) struct Broker {
    name: &'static str,
    pub(crate) address: String,
    /// Its end of input ends the broker.
    _keeper: Option<Child>,
}

/// Starts a program that ends, and whose folder goes, when this process ends, however it ends.
fn kept(dir: tempfile::TempDir, command: &[&str]) -> Child {
    Command::new("sh")
        .args([
            "-c",
            r#""$@" & pid=$!; read _; kill $pid; wait; rm -rf "$0""#,
        ])
        .arg(dir.keep())
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn ours() -> Broker {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").to_str().unwrap().to_owned();
    let mut command = vec![env!("CARGO_BIN_EXE_nodebus"), "up", "--data", &data];
    for setting in [
        "admin.listen=127.0.0.1:0",
        "bus.listen=127.0.0.1:0",
        "bus.plain_listen=127.0.0.1:0",
        "coap_bridge.listen=127.0.0.1:0",
        "ws_bridge.listen=127.0.0.1:0",
        "dashboard_gw.listen=127.0.0.1:0",
        "bus.anonymous=admin",
    ] {
        command.extend(["--set", setting]);
    }
    let mut child = kept(dir, &command);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut address = None;
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once(" mqtt://") {
            address = Some(rest.split(['/', ' ']).next().unwrap().to_owned());
        }
        if line.contains("Stop:") {
            break;
        }
    }
    std::thread::spawn(move || lines.count());
    Broker {
        name: "nodebus",
        address: address.expect("nodebus names its plain listener"),
        _keeper: Some(child),
    }
}

fn mosquitto() -> Broker {
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let file = dir.path().join("mosquitto.conf");
    let text = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\n",
        address.port()
    );
    std::fs::write(&file, text).unwrap();
    let program = if std::path::Path::new("/usr/sbin/mosquitto").exists() {
        "/usr/sbin/mosquitto"
    } else {
        "mosquitto"
    };
    let keeper = kept(dir, &[program, "-c", file.to_str().unwrap()]);
    let pause = Duration::from_millis(20);
    let up = (0..1000).any(|_| {
        let up = TcpStream::connect(address).is_ok();
        if !up {
            std::thread::sleep(pause);
        }
        up
    });
    assert!(up, "mosquitto: run scripts/install-test-deps");
    Broker {
        name: "mosquitto",
        address: address.to_string(),
        _keeper: Some(keeper),
    }
}

/// Runs a test against each broker and fails if one fails that shouldn't.
pub(crate) fn on_each(test: &str, body: impl Fn(&Broker)) {
    static BROKERS: OnceLock<Vec<Broker>> = OnceLock::new();
    let brokers = BROKERS.get_or_init(|| match std::env::var("MQTT_BROKER") {
        Ok(address) => vec![Broker {
            name: "MQTT_BROKER",
            address,
            _keeper: None,
        }],
        Err(_) => vec![ours(), mosquitto()],
    });
    let mut failed = Vec::new();
    for broker in brokers {
        let known = MOSQUITTO_FAILS.iter().find(|(name, _)| *name == test);
        if let (Some((_, reason)), "mosquitto") = (known, broker.name) {
            eprintln!("mosquitto is left out: {reason}");
        } else if catch_unwind(AssertUnwindSafe(|| body(broker))).is_err() {
            failed.push(broker.name);
        }
    }
    assert!(failed.is_empty(), "{test}: failed by {failed:?}");
}
