//! A program under measurement: its start, its end, and what the system says of it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// Clock ticks per second of `/proc/<pid>/stat`; the same on every Linux that nodebus runs on.
const TICKS: f64 = 100.0;

/// A running program; ended when dropped.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    child: Child,
}

impl Program {
    /// Starts it; what it says goes to `log`.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let log = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} can't be started: run scripts/install-test-deps"))?;
        Ok(Self { name, child })
    }

    /// Waits until `ready` gives something.
    pub(crate) fn wait_for<T>(
        &mut self,
        mut ready: impl FnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        for _ in 0..60_000 {
            if let Some(ready) = ready() {
                return Ok(ready);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once: {status}", self.name);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("{} did not get ready within a minute", self.name)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(format!(
            "/proc/{}/{file}",
            self.child.id()
        ))?)
    }

    /// CPU time that all its threads used so far, in user and kernel mode, seconds.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        cpu_of(&self.proc("stat")?)
    }

    /// Resident memory, KiB.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// The most memory that was ever resident, KiB.
    pub(crate) fn peak(&self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &'static str) -> anyhow::Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib
            .with_context(|| format!("a process without {field}"))?
            .parse()?)
    }

    /// Ends it as an operator would, and waits for that.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status()?;
        ensure!(told.success(), "{} can't be told to end", self.name);
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn cpu_of(stat: &str) -> anyhow::Result<f64> {
    // The name in parentheses may hold anything; user and system time are the fields 14 and 15.
    let fields = stat.rsplit_once(')').context("no /proc/<pid>/stat")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<f64>, _> = ticks.map(str::parse).collect();
    Ok(ticks?.iter().sum::<f64>() / TICKS)
}

/// CPU time that this program used so far, seconds.
pub(crate) fn own_cpu() -> anyhow::Result<f64> {
    cpu_of(&fs::read_to_string("/proc/self/stat")?)
}
