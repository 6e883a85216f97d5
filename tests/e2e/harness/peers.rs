//! Nodes, clients and a browser that are not ours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};

use super::{Process, run, wait_for};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python(script: &str) -> Command {
    let mut command = Command::new(root().join(".venv/bin/python"));
    command
        .arg("-u")
        .arg(root().join("tests/peers").join(script));
    command
}

/// An address of this machine that no other node of this run has.
pub(super) fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(2);
    let [_, high, low, _] = (std::process::id() | 0x0001_0000)
        .to_le_bytes()
        .map(|b| b.max(1));
    format!("127.{high}.{low}.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A node on Python's aiocoap.
pub(crate) struct CoapNode(Process);

impl CoapNode {
    /// Starts the node; it says at once that it is alive.
    pub(crate) fn start(bridge: SocketAddr, uid: &str) -> Self {
        Self::start_with(bridge, uid, &[])
    }

    /// The same with further arguments of the script.
    pub(crate) fn start_with(bridge: SocketAddr, uid: &str, args: &[&str]) -> Self {
        let mut command = python("coap_node.py");
        command.args(args);
        command.args(["--bridge", &bridge.to_string(), "--bind", &own_address()]);
        command.args(["--uid", uid, "--name", &format!("Node {uid}")]);
        let mut process = Process::start("aiocoap node", &mut command);
        process.wait_for_line("ready", |line| (line == "ready").then_some(()));
        Self(process)
    }

    pub(crate) fn push(&mut self, resource: &str, value: &str) {
        self.0.tell(&format!("push {resource} {value}"));
    }

    /// Pushes JSON in this format: `json`, `cbor`, `senml-json` or `senml-cbor`.
    pub(crate) fn push_as(&mut self, format: &str, value: &Value) {
        self.0.tell(&format!("push-as {format} {value}"));
    }

    /// Waits until the bridge has answered so many signs of life, which are a second apart.
    pub(crate) fn wait_for_beats(&self, count: usize) {
        wait_for("signs of life", || {
            let lines = self.0.lines();
            let answered = lines.iter().filter(|line| *line == "answer alive 2.04");
            (answered.count() >= count).then_some(())
        });
    }

    /// Waits until the bridge has answered so often like this: `server 2.04`.
    #[track_caller]
    pub(crate) fn wait_for_answers(&self, answer: &str, count: usize) {
        let line = format!("answer {answer}");
        wait_for(&format!("{count} times {line}"), || {
            let lines = self.0.lines();
            (lines.iter().filter(|l| **l == line).count() >= count).then_some(())
        });
    }

    /// Says that it has started anew.
    pub(crate) fn reset(&mut self) {
        self.0.tell("reset");
    }

    /// Ends its registration.
    pub(crate) fn leave(&mut self) {
        self.0.tell("leave");
    }

    /// No more signs of life.
    pub(crate) fn quiet(&mut self) {
        self.0.tell("quiet");
    }

    pub(crate) fn talk(&mut self) {
        self.0.tell("talk");
    }

    /// Waits until the node has got a write.
    pub(crate) fn wait_for_put(&mut self, resource: &str, value: &str) {
        let expected = format!("put {resource} {value}");
        self.0
            .wait_for_line(&expected, |line| (line == expected).then_some(()));
    }
}

/// A node on libcoap that opens one DTLS session and is client and server over it.
pub(crate) struct LibcoapNode(Process);

impl LibcoapNode {
    pub(crate) fn start(bridge: SocketAddr, identity: &str, key: &str, uid: &str) -> Self {
        let mut command = Command::new(libcoap_node());
        command.args([bridge.ip().to_string(), bridge.port().to_string()]);
        command.args([identity, key, uid]);
        Self(Process::start("libcoap node", &mut command))
    }

    /// Waits until it has said this: `alive 2.04` for an answer, `observed`, or `put led 1`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, expected: &str) {
        self.0
            .wait_for_line(expected, |line| (line == expected).then_some(()));
    }

    /// Waits until it has given up, and tells whether it was ever answered.
    #[track_caller]
    pub(crate) fn was_answered(&mut self) -> bool {
        self.0.wait();
        !self.0.lines().is_empty()
    }
}

/// The program, compiled once in a run.
fn libcoap_node() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("coap_dtls_node");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O1", "-Wall", "-Wextra", "-o"])
            .arg(&binary);
        compiler.arg(root().join("tests/peers/coap_dtls_node.c"));
        let (code, out, err) = run(compiler.arg("-lcoap-3-openssl"));
        assert_eq!(code, 0, "{out}{err}; run scripts/install-test-deps");
        binary
    })
}

/// libcoap's client: a POST with `payload`, and what came back.
pub(crate) fn coap_post(bridge: SocketAddr, path: &str, payload: &str) -> String {
    coap_post_from(bridge, path, payload, 0)
}

/// The same from a port of one's own, so that several requests come from one node.
pub(crate) fn coap_post_from(bridge: SocketAddr, path: &str, payload: &str, port: u16) -> String {
    let port = port.to_string();
    let mut command = Command::new("coap-client-notls");
    command.args(["-m", "post", "-e", payload, "-B", "10", "-p", &port]);
    let (code, out, err) = run(command.arg(format!("coap://{bridge}/{path}")));
    assert_eq!(code, 0, "{out}{err}");
    format!("{out}{err}").trim().to_owned()
}

/// libcoap's client: a PUT for whose answer nobody waits.
pub(crate) fn coap_put(node: SocketAddr, path: &str, payload: &str) {
    let mut command = Command::new("coap-client-notls");
    command.args(["-m", "put", "-e", payload, "-N", "-B", "1"]);
    run(command.arg(format!("coap://{node}/{path}")));
}

/// A WebSocket peer on Python's websockets.
pub(crate) struct WsPeer(Process);

/// The same peer as a node.
pub(crate) type WsNode = WsPeer;
/// The same peer as a client of Pyaiot's broker.
pub(crate) type PyaiotClient = WsPeer;

impl WsPeer {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Self {
        let mut command = python("ws_client.py");
        command.arg(format!("ws://{address}{path}"));
        let mut process = Process::start("websockets peer", &mut command);
        process.wait_for_line("open", |line| (line == "open").then_some(()));
        Self(process)
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.0.tell(&message.to_string());
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.0.tell(text);
    }

    /// Waits for a message that `pick` gives something for.
    #[track_caller]
    pub(crate) fn wait_for<T>(&mut self, what: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        self.0.wait_for_line(what, |line| {
            pick(&serde_json::from_str(line.strip_prefix("< ")?).unwrap_or(Value::Null))
        })
    }

    /// Waits until the other side has closed: code and reason.
    #[track_caller]
    pub(crate) fn wait_for_close(&mut self) -> (u16, String) {
        self.0.wait_for_line("the close", |line| {
            let (code, reason) = line.strip_prefix("closed ")?.split_once(' ')?;
            Some((code.parse().ok()?, reason.to_owned()))
        })
    }
}

/// Debian's Chromium.
pub(crate) struct Browser {
    process: Process,
    answered: usize,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let mut browser = Self {
            process: Process::start("chromium", &mut python("browser.py")),
            answered: 0,
        };
        browser.answer("start");
        browser
    }

    #[track_caller]
    fn answer(&mut self, step: &str) -> Value {
        let line = wait_for(&format!("the browser's answer to {step}"), || {
            self.process.lines().get(self.answered).cloned()
        });
        self.answered += 1;
        let answer: Value = serde_json::from_str(&line).unwrap();
        if let Some(error) = answer["error"].as_str() {
            // What the page showed says more than what it did not.
            let text = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("failed.png");
            self.process
                .tell(&json!({"do": "shot", "path": text}).to_string());
            panic!("browser, {step}: {error}\nscreenshot in {}", text.display());
        }
        answer["ok"].clone()
    }

    #[track_caller]
    fn step(&mut self, step: &Value) -> Value {
        let text = step.to_string();
        self.process.tell(&text);
        self.answer(&text)
    }

    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        self.step(&json!({"do": "open", "url": url}));
    }

    /// Waits until an element is there, with this text in it.
    #[track_caller]
    pub(crate) fn wait(&mut self, selector: &str, text: &str) {
        self.step(&json!({"do": "wait", "selector": selector, "text": text}));
    }

    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        self.step(&json!({"do": "click", "selector": selector}));
    }

    #[track_caller]
    pub(crate) fn size(&mut self, width: u32, height: u32, dark: bool) {
        self.step(&json!({"do": "size", "width": width, "height": height, "dark": dark}));
    }

    #[track_caller]
    pub(crate) fn screenshot(&mut self, path: &Path) {
        self.step(&json!({"do": "shot", "path": path}));
    }

    /// By how many pixels the page is wider than its window.
    #[track_caller]
    pub(crate) fn overflow(&mut self) -> i64 {
        self.step(&json!({"do": "overflow"}))
            .as_i64()
            .unwrap_or(i64::MAX)
    }

    /// Remembers that this very page is loaded.
    #[track_caller]
    pub(crate) fn mark(&mut self) {
        self.step(&json!({"do": "mark"}));
    }

    /// Whether the page is still the marked one, and was not loaded again.
    #[track_caller]
    pub(crate) fn is_marked(&mut self) -> bool {
        self.step(&json!({"do": "marked"})) == json!(true)
    }
}
