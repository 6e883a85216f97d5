//! mosquitto's clients, with certgen's certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Process, run, wait_for};

/// Who connects where.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) port: u16,
    pub(crate) folder: PathBuf,
}

impl Identity {
    pub(crate) fn new(port: u16, pki: &Path, role: &str, name: &str) -> Self {
        Self {
            port,
            folder: pki.join(role).join(name),
        }
    }

    /// mosquitto's arguments for it.
    pub(crate) fn args(&self) -> Vec<String> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let port = self.port.to_string();
        let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
        let args = [
            "-h",
            "localhost",
            "-p",
            &port,
            "--cafile",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
        ];
        args.map(str::to_owned).to_vec()
    }
}

/// A running mosquitto_sub.
pub(crate) struct Subscriber(Process);

impl Subscriber {
    /// Subscribes and returns once the broker has confirmed it.
    #[track_caller]
    pub(crate) fn start(identity: &Identity, filter: &str, args: &[&str]) -> Self {
        // Into a pipe, mosquitto_sub would keep its lines back until it has many of them.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub"]);
        // -d tells of the SUBACK; its lines don't start with a topic of ours.
        command
            .args(identity.args())
            .args(["-d", "-q", "1", "-F", "%t %r %p", "-t", filter])
            .args(args);
        let mut process = Process::start("mosquitto_sub", &mut command);
        process.wait_for_line("a SUBACK", |line| {
            line.starts_with("Subscribed").then_some(())
        });
        Self(process)
    }

    /// What came, as topic without `nodebus/v1/`, retained or not, and payload.
    pub(crate) fn messages(&self) -> Vec<(String, bool, String)> {
        let parse = |line: &String| {
            let mut parts = line.strip_prefix("nodebus/v1/")?.splitn(3, ' ');
            let (topic, retained) = (parts.next()?, parts.next()?);
            let payload = parts.next().unwrap_or_default();
            Some((topic.to_owned(), retained == "1", payload.to_owned()))
        };
        self.0.lines().iter().filter_map(parse).collect()
    }

    /// Waits for a message on `topic` whose JSON payload `pick`s.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, topic: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        wait_for(&format!("a message on {topic}"), || {
            self.messages()
                .iter()
                .filter(|(t, _, _)| t == topic)
                .find_map(|(_, _, payload)| {
                    pick(&serde_json::from_str(payload).unwrap_or(Value::Null))
                })
        })
    }

    /// Waits for a message on `topic` with `member` being `value`.
    #[track_caller]
    pub(crate) fn wait_for_member(&self, topic: &str, member: &str, value: &Value) -> Value {
        self.wait_for(topic, |payload| {
            (&payload[member] == value).then(|| payload.clone())
        })
    }
}

/// Publishes with mosquitto_pub: exit code and standard error.
pub(crate) fn publish(
    identity: &Identity,
    topic: &str,
    payload: &str,
    args: &[&str],
) -> (i32, String) {
    let mut command = Command::new("mosquitto_pub");
    command
        .args(identity.args())
        .args(["-q", "1", "-t", topic, "-m", payload])
        .args(args);
    let (code, _, err) = run(&mut command);
    (code, err)
}
