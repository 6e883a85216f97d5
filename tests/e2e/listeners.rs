//! Every way into the bus, with clients that others wrote.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Identity, System, add_password, http_get, run, wait_for};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// MQTT.js and paho go through the same steps.
#[derive(Debug, Clone, Copy)]
enum Client {
    MqttJs,
    Paho,
}

impl Client {
    fn command(self) -> Command {
        match self {
            Self::MqttJs => {
                let mut command = Command::new("node");
                command.arg(root().join("tests/peers/mqtt_js.mjs"));
                command
            }
            Self::Paho => {
                let mut command = Command::new(root().join(".venv/bin/python"));
                command.arg(root().join("tests/peers/mqtt_paho.py"));
                command
            }
        }
    }

    /// What it says at its end, with MQTT 3.1.1 and then with 5.
    fn goes_through(self, url: &str, options: &Value) -> [String; 2] {
        [4, 5].map(|version| {
            let mut options = options.clone();
            options["version"] = json!(version);
            let (_, out, err) = run(self.command().arg(url).arg(options.to_string()));
            format!("{out}{err}").trim().to_owned()
        })
    }

    #[track_caller]
    fn works(self, url: &str, options: &Value) {
        let said = self.goes_through(url, options);
        assert_eq!(said, ["ok", "ok"], "{self:?} at {url} with {options}");
    }
}

fn url(scheme: &str, address: SocketAddr) -> String {
    format!("{scheme}://localhost:{}", address.port())
}

/// What an identity shows, and trusts.
fn certificate(identity: &Identity, name: &str) -> Value {
    let file = |file: &str| identity.folder.join(file);
    json!({"name": name, "ca": file("ca.pem"), "cert": file("cert.pem"), "key": file("key.pem")})
}

fn password(system: &System, password: &str) -> Value {
    let ca = system.identity("viewer", "viewer").folder.join("ca.pem");
    json!({"name": "root", "ca": ca, "username": "root", "password": password})
}

#[test]
fn mqtt_js_over_websocket() {
    let open = [
        "--set",
        "bus.ws_listen=127.0.0.1:0",
        "--set",
        "bus.anonymous=admin",
    ];
    let system = System::with_password(&open);
    let admin = system.issue("admin", "ann");
    let (ws, wss) = (url("ws", system.mqtt_ws()), url("wss", system.mqtt_wss()));
    Client::MqttJs.works(&ws, &json!({"name": "anybody"}));
    Client::MqttJs.works(&wss, &password(&system, "secret"));
    Client::MqttJs.works(&wss, &certificate(&admin, "ann"));
    let [old, new] = Client::MqttJs.goes_through(&wss, &password(&system, "wrong"));
    assert!(old.contains("Bad username or password"), "{old}");
    assert!(new.contains("Bad User Name or Password"), "{new}");
    assert!(system.metric("bus_broker_upgrades_total", "ok") >= 12.0);
}

#[test]
fn paho_with_a_password_and_with_a_certificate() {
    let system = System::with_password(&[]);
    let admin = system.issue("admin", "ann");
    let tls = url("mqtts", system.password());
    Client::Paho.works(&tls, &password(&system, "secret"));
    let mtls = url("mqtts", system.mqtts());
    Client::Paho.works(&mtls, &certificate(&admin, "ann"));
    // It says where the page would be from, as a browser does.
    let wss = url("wss", system.mqtt_wss());
    Client::Paho.works(&wss, &password(&system, "secret"));
    for said in Client::Paho.goes_through(&tls, &password(&system, "wrong")) {
        assert!(
            said.to_lowercase().contains("bad user name or password"),
            "{said}"
        );
    }
}

fn mosquitto(program: &str, system: &System, name: &str, password: &str) -> Command {
    let mut command = Command::new(program);
    let ca = system.identity("viewer", "viewer").folder.join("ca.pem");
    let port = system.password().port().to_string();
    command
        .args(["-h", "localhost", "-p", &port, "--cafile"])
        .arg(ca);
    command.args(["-u", name, "-P", password, "-q", "1"]);
    command
}

#[test]
fn mosquittos_clients_with_a_password() {
    let system = System::with_password(&[]);
    add_password(&system.pki(), "viewer", "bob", "bob's");
    // What was added later is taken up, too.
    let taken_up = "what=\"passwords\",result=\"ok\"";
    wait_for("the file of passwords to be read again", || {
        (system.metric("bus_broker_reloads_total", taken_up) >= 1.0).then_some(())
    });
    for version in ["mqttv311", "mqttv5"] {
        let topic = format!("nodebus/v1/hello/{version}");
        let mut publish = mosquitto("mosquitto_pub", &system, "root", "secret");
        publish.args(["-V", version, "-r", "-t", &topic, "-m", "hello"]);
        let (code, _, err) = run(&mut publish);
        assert_eq!(code, 0, "{err}");
        let mut subscribe = mosquitto("mosquitto_sub", &system, "bob", "bob's");
        subscribe.args(["-V", version, "-C", "1", "-W", "20", "-t", &topic]);
        let (code, out, err) = run(&mut subscribe);
        assert_eq!((code, out.trim()), (0, "hello"), "{err}");
        let mut wrong = mosquitto("mosquitto_pub", &system, "root", "wrong");
        let (code, _, err) = run(wrong.args(["-V", version, "-t", &topic, "-m", "hello"]));
        assert_ne!(code, 0);
        assert!(
            err.to_lowercase().contains("bad user name or password"),
            "{err}"
        );
    }
}

#[test]
fn without_passwords_nothing_asks_for_one() {
    let system = System::start(&[]);
    let (_, body) = http_get(system.admin(), "/readyz").unwrap();
    let report: Value = serde_json::from_str(&body).unwrap();
    let listeners = report["listeners"].as_array().unwrap();
    let mqtt = listeners
        .iter()
        .filter_map(|listener| listener["name"].as_str());
    let mqtt: Vec<_> = mqtt.filter(|name| name.contains("MQTT")).collect();
    assert_eq!(mqtt, ["MQTT over mTLS", "MQTT without TLS"]);
}

#[test]
fn tls_1_1_is_not_spoken() {
    let system = System::with_password(&[]);
    for address in [system.mqtts(), system.password(), system.mqtt_wss()] {
        let handshake = |version: &str| {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &address.to_string(), version]);
            // For TLS 1.1, OpenSSL has to be told that it may.
            let (_, out, err) = run(command.args(["-cipher", "DEFAULT@SECLEVEL=0"]));
            format!("{out}{err}")
        };
        let refused = handshake("-tls1_1");
        assert!(refused.contains("Cipher is (NONE)"), "{refused}");
        assert!(refused.contains("SSL alert number"), "{refused}");
        let spoken = handshake("-tls1_2");
        assert!(spoken.contains("New, TLSv1.2, Cipher is ECDHE"), "{spoken}");
    }
    wait_for("the handshakes to be counted", || {
        (system.metric("bus_broker_handshakes_total", "\"tls\"") >= 3.0).then_some(())
    });
}

#[test]
fn an_operator_can_ask_how_it_is() {
    let system = System::start(&[]);
    let get = |path: &str| http_get(system.admin(), path).unwrap();
    let (head, body) = get("/healthz");
    assert!(head.contains(" 200 ") && body == "ok\n", "{head}\n{body}");
    let (head, body) = get("/readyz");
    assert!(head.contains(" 200 "), "{head}");
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(report["ready"], json!(true));
    assert_eq!(report["parts"]["bus"]["ready"], json!(true));
    let address = system.mqtts().to_string();
    let listeners = report["listeners"].as_array().unwrap();
    let is_bus = |listener: &&Value| listener["address"] == json!(address);
    assert_eq!(
        listeners.iter().find(is_bus).unwrap()["scheme"],
        json!("mqtts")
    );
    let (head, body) = get("/metrics");
    assert!(head.contains("openmetrics-text"), "{head}");
    for line in [
        "# TYPE bus_broker_connections gauge",
        "# TYPE bus_broker_handshakes counter",
        "nodebus_certificate_expiry_seconds{role=\"broker\",name=\"bus\"}",
        "# EOF",
    ] {
        assert!(body.contains(line), "no {line} in {body}");
    }

    // The broker's own topics, under the names that mosquitto gave them.
    let admin = system.issue("admin", "root");
    let mut command = Command::new("mosquitto_sub");
    command
        .args(admin.args())
        .args(["-W", "20", "-C", "3", "-v"]);
    for topic in ["version", "uptime", "clients/connected"] {
        command.args(["-t", &format!("$SYS/broker/{topic}")]);
    }
    let (code, out, err) = run(&mut command);
    assert_eq!(code, 0, "{out}{err}");
    for line in [
        "$SYS/broker/version nodebus ",
        "$SYS/broker/uptime ",
        "$SYS/broker/clients/connected ",
    ] {
        assert!(out.contains(line), "{out}");
    }
}
