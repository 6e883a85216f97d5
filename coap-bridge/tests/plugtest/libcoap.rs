//! libcoap's programs.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use coap_bridge::endpoint::{Method, Request};

use crate::client::Client;
use crate::{own_address, wait_for};

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

fn spawn(mut command: Command) -> Child {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    child.unwrap_or_else(|error| panic!("{error} ({command:?}); run scripts/install-test-deps"))
}

fn client(server: SocketAddr, path: &str, arguments: &[&str]) -> Command {
    let mut command = command("coap-client-notls");
    command.args(["-w", "-B", "40"]).args(arguments);
    command.arg(format!("coap://{server}/{path}"));
    command
}

/// What `coap-client` displays when it has asked.
pub(crate) fn ask(server: SocketAddr, path: &str, arguments: &[&str]) -> String {
    let output = spawn(client(server, path, arguments))
        .wait_with_output()
        .unwrap();
    let (shown, said) = (output.stdout, output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(&shown),
        String::from_utf8_lossy(&said)
    )
    .trim()
    .to_owned()
}

/// A `coap-client` that runs; ended when dropped.
pub(crate) struct Running(Option<Child>);

impl Running {
    /// It observes.
    pub(crate) fn observe(server: SocketAddr, path: &str, arguments: &[&str]) -> Self {
        let arguments = [&["-s", "60"], arguments].concat();
        Self(Some(spawn(client(server, path, &arguments))))
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().ok();
        }
    }

    /// Asks it to end, as a person would; gives what it has displayed.
    pub(crate) fn interrupt(mut self) -> String {
        let child = self.0.take().unwrap();
        let pid = child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut child) = self.0.take() {
            child.wait().ok();
        }
    }
}

/// libcoap's `coap-server`; what does not exist can be created by writing it.
pub(crate) struct Server {
    _process: Running,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let host = own_address();
        let mut command = command("coap-server-notls");
        command.args(["-A", &host, "-d", "20"]).args(arguments);
        let process = Running(Some(spawn(command)));
        let address = format!("{host}:5683").parse().unwrap();
        wait_for("coap-server", || {
            let mut client = Client::of(address);
            client.try_ask(Request::new(Method::Get, "/")).ok()
        });
        Self {
            _process: process,
            address,
        }
    }
}
