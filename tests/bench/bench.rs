//! `make bench`: how fast the parts are and what they hold, side by side with programs that are not
//! ours, on this machine, in one run.
//!
//! Nothing here passes or fails by a time: it prints tables. Both programs of a pair run at once and
//! are asked in turns, so that what else the machine does hits both; a figure is the median of its
//! pairs, and the ratio is what counts.

#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

mod bus;
mod coap;
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
    /// CoAP: requests per second and the CPU time of each
    Requests,
    /// CoAP: readings at a fixed rate, and far too many
    Load,
    /// CoAP: memory and CPU time of many quiet nodes
    Fleet,
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
    /// Quiet CoAP nodes
    #[arg(long, default_value_t = 10_000)]
    nodes: u64,
    /// How long CoAP readings are sent at the lower fixed rate
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only the cells of the table of messages that contain this text
    #[arg(long, default_value = "")]
    only: String,
    /// Serves CoAP requests, to be measured
    #[arg(long, hide = true)]
    serve_endpoint: bool,
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
    if args.serve_endpoint {
        return coap::serve();
    }
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
    let mut nodes = coap::Addresses::default();
    if args.wants(What::Requests) {
        coap::requests(&mut bus, &mut nodes, &args)?;
    }
    if args.wants(What::Load) {
        coap::load(&mut bus, &mut nodes, &args)?;
    }
    if args.wants(What::Fleet) {
        coap::fleet(&mut bus, &mut nodes, &args)?;
    }
    Ok(())
}
