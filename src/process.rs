//! What every sub-command needs: logging, signals, and how a process ends.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use bus::admin::Admin;
use bus::shutdown::{GRACE, Shutdown};
use bus::time::now;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What is logged unless told otherwise; rumqttd and rumqttc tell the same things less clearly.
pub(crate) const DEFAULT_LOG: &str = "info,rumqttd=off,rumqttc=error";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Why the process ends with another code than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not do its work: exit code 1.
    Runtime(anyhow::Error),
    /// It was told something wrong: exit code 2.
    Usage(anyhow::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Runtime(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Runtime(error)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Runtime(error) | Self::Usage(error) => write!(f, "{error:#}"),
        }
    }
}

/// Says why the process ends, on standard error.
pub(crate) fn complain(failure: &Failure) {
    let mut out = std::io::stderr().lock();
    // Nothing is left to be done when even that fails.
    drop(writeln!(out, "nodebus: {failure}"));
}

/// Says something to the person who started the process, on standard output.
pub(crate) fn say(text: impl Display) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        tracing::debug!("nobody reads the standard output");
    }
}

/// Starts logging to standard error.
pub(crate) fn start_logging(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| {
            format!("--log {filter:?} is no filter: try info, or info,coap_bridge=debug")
        })
        .map_err(Failure::Usage)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// A process that ends when it is told to.
pub(crate) struct Process {
    pub(crate) shutdown: Shutdown,
    pub(crate) admin: Admin,
}

impl Process {
    /// Listens for the signals: the first SIGTERM or SIGINT asks to stop, the second ends at once.
    #[expect(
        clippy::disallowed_methods,
        reason = "the listener must outlive the tasks that it ends"
    )]
    pub(crate) fn new() -> Result<Self, Failure> {
        let shutdown = Shutdown::new();
        let mut terminate =
            signal(SignalKind::terminate()).context("no signals can be received")?;
        let mut interrupt =
            signal(SignalKind::interrupt()).context("no signals can be received")?;
        // It must not end the process: each part reads its files again by itself.
        let mut hangup = signal(SignalKind::hangup()).context("no signals can be received")?;
        let target = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hangup.recv() => continue,
                }
                if target.is_stopping() {
                    target.kill();
                } else {
                    tracing::info!("stopping");
                    target.stop();
                }
            }
        });
        Ok(Self {
            shutdown,
            admin: Admin::default(),
        })
    }

    /// Waits for the stop, then ends `parts` one after the other, all within [`GRACE`], and tells how
    /// it went. Each but the last may take half of what is left, so that one that hangs leaves time
    /// for the next.
    pub(crate) async fn run(self, parts: Vec<Shutdown>) -> Result<(), Failure> {
        for part in &parts {
            self.shutdown.watch(part);
        }
        self.shutdown.stopping().await;
        let deadline = now().mono + GRACE;
        for (at, part) in parts.iter().enumerate() {
            part.stop();
            let left = deadline.saturating_duration_since(now().mono);
            let is_last = at + 1 == parts.len();
            if !part.drained(if is_last { left } else { left / 2 }).await {
                tracing::warn!("a part did not stop in time and was ended");
            }
        }
        let left = deadline.saturating_duration_since(now().mono);
        self.shutdown.drained(left).await;
        match self.shutdown.failure() {
            Some(failure) => Err(Failure::Runtime(anyhow::anyhow!(failure))),
            None => Ok(()),
        }
    }
}
