//! aiocoap as client and servers: one process for all tests, for it starts slowly.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex};

use serde_json::{Value, json};

use crate::{DEADLINE, own_address};

struct Process {
    /// It ends when its standard input does: with this process.
    _child: Child,
    stdin: Mutex<ChildStdin>,
    waiting: Mutex<HashMap<u64, SyncSender<Value>>>,
    next: AtomicU64,
}

static PROCESS: LazyLock<Process> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(root.join(".venv/bin/python"));
    command.arg("-u").arg(root.join("tests/peers/plugtest.py"));
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child
        .unwrap_or_else(|error| panic!("{error} ({command:?}); run scripts/install-test-deps"));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let Ok(answer) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let waiting = PROCESS.waiting.lock().unwrap();
            if let Some(sender) = answer["id"].as_u64().and_then(|id| waiting.get(&id)) {
                // Nobody may be waiting any more.
                sender.try_send(answer).ok();
            }
        }
    });
    Process {
        stdin: Mutex::new(child.stdin.take().unwrap()),
        _child: child,
        waiting: Mutex::default(),
        next: AtomicU64::new(1),
    }
});

/// What was begun, and what comes of it.
pub(crate) struct Begun {
    id: u64,
    answers: Receiver<Value>,
}

/// How much may be said of one observation before it is looked at.
const ANSWERS: usize = 1000;

impl Begun {
    fn new(mut command: Value) -> Self {
        let id = PROCESS.next.fetch_add(1, Ordering::Relaxed);
        command["id"] = id.into();
        let (sender, answers) = sync_channel(ANSWERS);
        PROCESS.waiting.lock().unwrap().insert(id, sender);
        let mut stdin = PROCESS.stdin.lock().unwrap();
        writeln!(stdin, "{command}").unwrap();
        stdin.flush().unwrap();
        Self { id, answers }
    }

    /// The next thing that is said.
    #[track_caller]
    pub(crate) fn next(&self) -> Value {
        let answer = self.answers.recv_timeout(DEADLINE).expect("no answer");
        assert_eq!(answer["error"], Value::Null, "{answer}");
        answer
    }

    /// An observation is cancelled, with a word to the server.
    pub(crate) fn cancel(&self) {
        Self::new(json!({"do": "cancel", "observation": self.id})).next();
    }
}

/// Sends a request with these options; gives what came back.
#[track_caller]
pub(crate) fn ask(
    server: SocketAddr,
    method: &str,
    path: &str,
    payload: &str,
    options: Value,
) -> Value {
    let uri = format!("coap://{server}/{path}");
    Begun::new(json!({
        "do": "ask", "method": method, "uri": uri, "payload": payload, "options": options,
    }))
    .next()
}

/// Reads a resource, and stays to hear what is sent again; gives the payload.
#[track_caller]
pub(crate) fn ask_and_stay(server: SocketAddr, path: &str) -> String {
    let uri = format!("coap://{server}/{path}");
    let asked = Begun::new(json!({"do": "ask", "method": "GET", "uri": uri, "stay": true}));
    asked.next()["payload"].as_str().unwrap().to_owned()
}

/// Observes a resource.
pub(crate) fn observe(server: SocketAddr, path: &str) -> Begun {
    let uri = format!("coap://{server}/{path}");
    Begun::new(json!({"do": "observe", "method": "GET", "uri": uri}))
}

/// A server with the plugtest resources.
pub(crate) struct Server {
    host: String,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Self {
        let host = own_address();
        Begun::new(json!({"do": "serve", "address": host})).next();
        let address = format!("{host}:5683").parse().unwrap();
        Self { host, address }
    }

    /// An observed resource changes, to this when it is not empty. Gives how many observe it.
    pub(crate) fn change(&self, path: &str, payload: &str, max_age: Option<u32>) -> u64 {
        let payload = (!payload.is_empty()).then_some(payload);
        let done = Begun::new(json!({
            "do": "change", "address": self.host, "path": path, "payload": payload,
            "max_age": max_age,
        }));
        done.next()["observers"].as_u64().unwrap()
    }

    /// The server loses its observers, as by a restart.
    pub(crate) fn forget(&self, path: &str) {
        Begun::new(json!({"do": "forget", "address": self.host, "path": path})).next();
    }
}
