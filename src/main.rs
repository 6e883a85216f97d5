//! The binary `nodebus`: a thin table of sub-commands over the parts.
//!
//! Exit codes: 0 for a clean end, 1 for a failure, 2 for wrong usage or configuration.

mod health;
mod part;
mod process;
mod settings;
mod simulate;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::{Failure, Process};

/// Brings constrained IoT nodes to MQTT, to a browser and to people.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,coap_bridge=debug
    #[arg(long, global = true, env = "NODEBUS_LOG", default_value = process::DEFAULT_LOG)]
    log: String,
    /// How it is logged
    #[arg(
        long,
        global = true,
        env = "NODEBUS_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: process::LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything in one process: bus, bridges and dashboard
    Up(up::Args),
    /// Runs the MQTT broker
    Bus(part::Args),
    /// Runs the bridge for CoAP nodes
    CoapBridge(part::Args),
    /// Runs the bridge for WebSocket nodes
    WsBridge(part::Args),
    /// Runs the dashboard's gateway
    DashboardGw(part::Args),
    /// Attaches simulated nodes to a running system
    Simulate(simulate::Args),
    /// Tells whether a running process can do its work: exit code 0 if so
    Health(health::Args),
    /// Shows the settings, or checks them
    Config(settings::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            process::complain(&failure);
            failure.exit_code()
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    process::start_logging(&cli.log, cli.log_format)?;
    match cli.command {
        Command::Up(args) => up::run(args, Process::new()?).await,
        Command::Bus(args) => part::run(part::Part::Bus, args, Process::new()?).await,
        Command::CoapBridge(args) => part::run(part::Part::CoapBridge, args, Process::new()?).await,
        Command::WsBridge(args) => part::run(part::Part::WsBridge, args, Process::new()?).await,
        Command::DashboardGw(args) => {
            part::run(part::Part::DashboardGw, args, Process::new()?).await
        }
        Command::Simulate(args) => {
            let process = Process::new()?;
            simulate::run(args, &process.shutdown).await?;
            Ok(())
        }
        Command::Health(args) => health::run(&args).await,
        Command::Config(args) => settings::run(args),
    }
}
