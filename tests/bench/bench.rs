//! `make bench`: how fast the parts are and what they hold, side by side with programs that are not
//! ours, on this machine, in one run.
//!
//! Nothing here passes or fails by a time: it prints tables. Both programs of a pair run at once and
//! are asked in turns, so that what else the machine does hits both; a figure is the median of its
//! pairs, and the ratio is what counts.

#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

mod bus;
mod machine;
mod program;
mod report;

use clap::{Parser, ValueEnum};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The bus: messages per second and the broker's CPU time per message
    Messages,
    /// The bus: connections per second, and memory of idle ones
    Connections,
    /// The bus: memory of retained messages, and how fast they are loaded
    Retained,
}

/// Measures nodebus side by side with programs that are not ours.
#[derive(Debug, Parser)]
struct Args {
    /// What to measure; everything unless named
    what: Vec<What>,
    /// Measurements of each figure, of which the median counts
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// How long each measurement of messages takes, milliseconds
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// Idle connections
    #[arg(long, default_value_t = 5000)]
    connections: usize,
    /// Retained messages
    #[arg(long, default_value_t = 100_000)]
    retained: usize,
    /// Only the cells of the table of messages that contain this text
    #[arg(long, default_value = "")]
    only: String,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn wants(&self, what: What) -> bool {
        self.what.is_empty() || self.what.contains(&what)
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    println!("{}", machine::describe());
    let mut bus = bus::Setting::new()?;
    if args.wants(What::Messages) {
        bus::messages(&mut bus, &args)?;
    }
    if args.wants(What::Connections) {
        bus::connections(&mut bus, &args)?;
    }
    if args.wants(What::Retained) {
        bus::retained(&mut bus, &args)?;
    }
    Ok(())
}
