//! `nodebus health`: what a container's or a service's health check runs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{Failure, say};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Far more than an answer needs.
const MAX_ANSWER: u64 = 64 * 1024;

/// `nodebus health`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The admin port of the process
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "NODEBUS_ADMIN__LISTEN",
        default_value = "127.0.0.1:9090"
    )]
    admin: SocketAddr,
}

/// Asks `/readyz`; an error is a process that is not ready, or none at all.
pub(crate) async fn run(args: &Args) -> Result<(), Failure> {
    let answer = tokio::time::timeout(TIMEOUT, ask(args.admin))
        .await
        .map_err(|_| anyhow!("no answer from {} within {TIMEOUT:?}", args.admin))?
        .with_context(|| format!("nothing answers at {}: is nodebus running?", args.admin))?;
    let status = answer.lines().next().unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if status.contains(" 200 ") {
        say("ready");
        Ok(())
    } else {
        Err(Failure::Runtime(anyhow!("not ready: {body}")))
    }
}

async fn ask(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /readyz HTTP/1.0\r\nHost: {admin}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
