//! The brokers under test: started once, ended with the test's process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::Duration;

use super::client;

pub(crate) struct Broker {
    pub(crate) name: &'static str,
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
        "coap_bridge.dtls_listen=127.0.0.1:0",
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
        "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n",
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

fn brokers() -> &'static [Broker] {
    static BROKERS: OnceLock<Vec<Broker>> = OnceLock::new();
    BROKERS.get_or_init(|| match std::env::var("MQTT_BROKER") {
        Ok(address) => vec![Broker {
            name: "MQTT_BROKER",
            address,
            _keeper: None,
        }],
        Err(_) => vec![ours(), mosquitto()],
    })
}

/// The names of brokers that passed.
type Passed = Arc<OnceLock<Vec<&'static str>>>;

/// The outcome of a check, to come; a check that shows several statements is made once.
fn outcome(check: &'static str) -> Passed {
    static OUTCOMES: Mutex<BTreeMap<&str, Passed>> = Mutex::new(BTreeMap::new());
    OUTCOMES.lock().unwrap().entry(check).or_default().clone()
}

/// Makes a check of each broker at a time, unless it was made; gives who passed. Who is `hopeless`
/// fails, and need not be waited for.
fn make(
    check: &'static str,
    hopeless: Option<&str>,
    body: impl Fn(&Broker) + Sync,
) -> Vec<&'static str> {
    let passes = |broker: &Broker| {
        client::be_patient(hopeless != Some(broker.name));
        catch_unwind(AssertUnwindSafe(|| body(broker))).is_ok()
    };
    let outcome = outcome(check);
    let passed = outcome.get_or_init(|| {
        std::thread::scope(|scope| {
            let start = |broker| (broker, scope.spawn(move || passes(broker)));
            let checks: Vec<(&Broker, _)> = brokers().iter().map(start).collect();
            let done = checks.into_iter();
            done.filter_map(|(broker, check)| check.join().unwrap().then_some(broker.name))
                .collect()
        })
    });
    passed.clone()
}

/// Begins the slow checks, once. What a hopeless check says is not worth reading.
fn begin() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if client::is_patient() {
                loud(panic);
            }
        }));
        for &(check, body, version) in super::SLOW {
            std::thread::spawn(move || make(check, None, |broker| body(broker, version)));
        }
    });
}

/// Makes a check of each broker, and fails if one fails that shouldn't, or mosquitto passes although
/// `defect` says that it can't.
pub(crate) fn on_each(check: &'static str, defect: Option<&str>, body: impl Fn(&Broker) + Sync) {
    begin();
    let hopeless = defect.map(|_| "mosquitto");
    let passed = make(check, hopeless, body);
    for Broker { name, .. } in brokers() {
        let has_passed = passed.contains(name);
        if hopeless == Some(name) {
            let defect = defect.unwrap_or_default();
            assert!(!has_passed, "{name} passes, although it {defect}");
        } else {
            assert!(has_passed, "{name} fails");
        }
    }
}
