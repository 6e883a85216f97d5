//! The bus and one bridge, each with its own process and data folder, to be ended and started again.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::system::{certgen, free_port, free_udp_port, http_get, metric, nodebus};
use super::{Identity, Process, Subscriber, wait_for};

/// The two of them.
pub(crate) struct Outage {
    /// `coap` or `ws`.
    bridge: &'static str,
    bus: Option<Process>,
    process: Option<Process>,
    args: Vec<String>,
    /// Runs before the bridge, in its process.
    prelude: &'static str,
    mqtts: u16,
    listen: u16,
    admin: u16,
    folder: tempfile::TempDir,
}

impl Outage {
    /// Starts both; `args` are the bridge's.
    pub(crate) fn start(bridge: &'static str, args: &[&str]) -> Self {
        Self::start_after("true", bridge, args)
    }

    /// The same with a line of shell before the bridge, such as a limit of resources.
    pub(crate) fn start_after(prelude: &'static str, bridge: &'static str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (code, out, err) = certgen(folder.path(), &["bundle", "quickstart"]);
        assert_eq!(code, 0, "{out}{err}");
        let listen = if bridge == "coap" {
            free_udp_port()
        } else {
            free_port()
        };
        let mut outage = Self {
            bridge,
            bus: None,
            process: None,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            prelude,
            mqtts: free_port(),
            listen,
            admin: free_port(),
            folder,
        };
        outage.start_bus();
        outage.start_bridge();
        outage.wait_for_ready();
        outage
    }

    fn data(&self, part: &str) -> String {
        self.folder
            .path()
            .join("data")
            .join(part)
            .display()
            .to_string()
    }

    fn pki(&self, part: &str) -> String {
        self.folder.path().join(part).display().to_string()
    }

    pub(crate) fn start_bus(&mut self) {
        let admin = free_port();
        let mut command = nodebus();
        command.args(["bus", "--pki", &self.pki("broker/bus")]);
        command.args(["--listen", &format!("127.0.0.1:{}", self.mqtts)]);
        command.args(["--admin", &format!("127.0.0.1:{admin}")]);
        command.args(["--set", &format!("bus.data=\"{}\"", self.data("bus"))]);
        self.bus = Some(Process::start("bus", &mut command));
        wait_for("the bus", || ready(admin));
    }

    /// Ends the bus without a warning.
    pub(crate) fn stop_bus(&mut self) {
        let mut bus = self.bus.take().unwrap();
        bus.kill();
        bus.wait();
        wait_for("the bridge to notice", || (!self.is_ready()).then_some(()));
    }

    pub(crate) fn start_bridge(&mut self) {
        let section = format!("{}_bridge", self.bridge);
        let nodebus = nodebus();
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("{}; exec \"$0\" \"$@\"", self.prelude)])
            .arg(nodebus.get_program())
            .arg(format!("{}-bridge", self.bridge))
            .args(["--pki", &self.pki(&format!("bridge/{}", self.bridge))])
            .args(["--bus", &format!("mqtts://localhost:{}", self.mqtts)])
            .args(["--listen", &format!("127.0.0.1:{}", self.listen)])
            .args(["--admin", &format!("127.0.0.1:{}", self.admin)])
            .args([
                "--set",
                &format!("{section}.data=\"{}\"", self.data("bridge")),
            ])
            .args(&self.args);
        for (name, _) in nodebus.get_envs() {
            command.env_remove(name);
        }
        self.process = Some(Process::start("bridge", &mut command));
        wait_for("the bridge to listen", || {
            let (_, listeners) = http_get(([127, 0, 0, 1], self.admin).into(), "/readyz")?;
            listeners.contains(&self.listen.to_string()).then_some(())
        });
    }

    /// Ends the bridge without a warning.
    pub(crate) fn kill_bridge(&mut self) {
        let mut bridge = self.process.take().unwrap();
        bridge.kill();
        bridge.wait();
    }

    fn is_ready(&self) -> bool {
        ready(self.admin).is_some()
    }

    pub(crate) fn wait_for_ready(&self) {
        wait_for("the bridge to be ready", || self.is_ready().then_some(()));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.listen).into()
    }

    pub(crate) fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(([127, 0, 0, 1], self.admin).into(), name, labels)
    }

    /// Waits until so many messages wait for the bus, all of them on disk.
    pub(crate) fn wait_for_written(&self, messages: usize) {
        wait_for("the queue to be written", || {
            let waiting = self.metric("bridge_queue_messages", "");
            let unwritten = self.metric("bridge_queue_unwritten_bytes", "");
            (waiting >= messages as f64 && unwritten == 0.0).then_some(())
        });
    }

    /// A subscriber that stays subscribed, over all that happens.
    pub(crate) fn keeper(&self) -> Keeper {
        Keeper(vec![self.keep()])
    }

    /// mosquitto_sub with a session that is kept while there is no connection.
    fn keep(&self) -> Subscriber {
        let args = ["-c", "-i", "viewer:keeper"];
        Subscriber::start(&self.viewer(), "nodebus/v1/#", &args)
    }

    /// The retained message of a topic.
    pub(crate) fn retained(&self, topic: &str) -> Value {
        let filter = format!("nodebus/v1/{topic}");
        Subscriber::start(&self.viewer(), &filter, &[]).wait_for(topic, |v| Some(v.clone()))
    }

    fn viewer(&self) -> Identity {
        Identity::new(self.mqtts, self.folder.path(), "viewer", "viewer")
    }
}

fn ready(admin: u16) -> Option<()> {
    let (head, _) = http_get(([127, 0, 0, 1], admin).into(), "/readyz")?;
    head.contains(" 200 ").then_some(())
}

/// A mosquitto_sub, and the ones after it: it ends with its connection, its session does not.
pub(crate) struct Keeper(Vec<Subscriber>);

impl Keeper {
    /// Comes back to the session.
    pub(crate) fn come_back(&mut self, outage: &Outage) {
        self.0.push(outage.keep());
    }

    pub(crate) fn now(&self) -> &Subscriber {
        self.0.last().unwrap()
    }

    /// All that came, but for what came as retained: topics, and payloads.
    pub(crate) fn live(&self) -> impl Iterator<Item = (String, String)> {
        let all = self.0.iter().flat_map(Subscriber::messages);
        all.filter_map(|(topic, retained, payload)| (!retained).then_some((topic, payload)))
    }

    /// What came on a topic, but for what came as retained, and for what came a second time: with
    /// QoS 1, what was not acknowledged when the connection was lost.
    fn messages(&self, topic: &str) -> Vec<Value> {
        let mut messages: Vec<Value> = Vec::new();
        for (_, payload) in self.live().filter(|(t, _)| t == topic) {
            let message = serde_json::from_str(&payload).unwrap();
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        messages
    }

    /// The events of this type.
    pub(crate) fn events(&self, kind: &str) -> usize {
        let events = self.messages("events");
        events.iter().filter(|event| event["type"] == kind).count()
    }

    /// The readings of a resource as they came.
    pub(crate) fn readings(&self, resource: &str) -> Vec<Value> {
        self.messages(&format!("nodes/n/res/{resource}"))
    }

    /// Waits for the reading of this value, and gives all readings.
    #[track_caller]
    pub(crate) fn readings_to(&self, resource: &str, last: &Value) -> Vec<Value> {
        wait_for(&format!("the last value of {resource}"), || {
            let readings = self.readings(resource);
            let found = readings.iter().any(|reading| &reading["v"] == last);
            found.then_some(readings)
        })
    }
}
