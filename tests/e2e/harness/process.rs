//! A child process whose output is kept, line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::wait_for;

/// A running program; killed when dropped, and its output shown when the test fails.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

fn collect(stream: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    lines
}

impl Process {
    /// Starts `command` with all its streams piped.
    #[track_caller]
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{name}: {error} ({command:?}); run scripts/install-test-deps")
            });
        let lines = collect(child.stdout.take().unwrap());
        let errors = collect(child.stderr.take().unwrap());
        Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            lines,
            errors,
        }
    }

    /// What it wrote to its standard output so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// What it wrote to its standard error so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap().clone()
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .unwrap();
    }

    /// Waits for a line of its standard output for which `pick` gives something.
    #[track_caller]
    pub(crate) fn wait_for_line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        wait_for(&format!("{what} from {}", self.name), || {
            if let Some(found) = self.lines().iter().find_map(|line| pick(line)) {
                return Some(found);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended ({status}) before {what}", self.name);
            }
            None
        })
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.stdin.take();
        wait_for(&format!("{} to end", self.name), || {
            self.child.try_wait().unwrap()
        })
    }

    /// Asks it to end, as an operator or a supervisor would.
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&self) {
        self.signal("-KILL");
    }

    /// Asks it to read its files again.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        Command::new("kill").args([signal, &pid]).status().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (out, err) = (self.lines(), self.errors());
            let tail = |lines: &[String]| lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!(
                "--- {} stdout\n{}\n--- {} stderr\n{}",
                self.name,
                tail(&out),
                self.name,
                tail(&err)
            );
        }
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a program to its end: exit code, standard output, standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{error} ({command:?}); run scripts/install-test-deps"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}
