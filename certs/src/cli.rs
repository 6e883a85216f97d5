//! The command line of certgen.

use std::path::PathBuf;

use certs::{Name, Role, San};
use clap::{Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  certgen bundle quickstart              everything that `nodebus up` and compose need
  certgen issue viewer alice             a certificate that may read
  certgen issue node kitchen --days 3650
  certgen issue broker bus --san 192.168.1.20,bus.example.org --force
  certgen show alice                     what is in it and until when it is valid
  certgen show ./some/cert.pem";

const EXIT_CODES: &str = "\
Exit codes: 0 it is there now, 1 it could not be done, 2 the command line is wrong,
3 it exists already but differs (replace it with --force).";

/// Makes and shows the certificates of nodebus.
#[derive(Debug, Parser)]
#[command(
    name = "certgen",
    version,
    before_help = EXAMPLES,
    after_help = EXIT_CODES,
    help_template = "{about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
)]
pub(crate) struct Args {
    /// Folder of the authority and of all it issued
    #[arg(
        long,
        global = true,
        env = "CERTGEN_DIR",
        default_value = "./pki",
        value_name = "DIR"
    )]
    pub(crate) dir: PathBuf,
    /// Prints JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Prints nothing but errors
    #[arg(long, short, global = true, conflicts_with = "json")]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes the certificate authority, unless there is one
    Init,
    /// Makes a certificate with its key, unless there is one
    Issue {
        /// What its holder is to the bus
        #[arg(value_enum)]
        role: Role,
        /// Which of that role: 1 to 64 of a-z, 0-9, _ and -
        name: Name,
        /// DNS names and IP addresses under which a server is reached, beyond localhost, this
        /// machine's name and its own
        #[arg(long, value_delimiter = ',', value_name = "NAME|ADDRESS")]
        san: Vec<San>,
        /// Days of validity, at most until the authority ends [default: 397 for servers, 365 for
        /// clients, 1825 for nodes]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
        /// Replaces a certificate that exists
        #[arg(long)]
        force: bool,
    },
    /// Makes all certificates of a set, and renews those that expire
    Bundle {
        /// Which set
        #[arg(value_enum)]
        set: Set,
        /// DNS names and IP addresses under which the bus is reached, beyond the usual ones
        #[arg(long, value_delimiter = ',', value_name = "NAME|ADDRESS")]
        san: Vec<San>,
    },
    /// Shows what a certificate says and until when it is valid
    Show {
        /// The name of an identity, role/name, ca, or a PEM file
        #[arg(value_name = "NAME|FILE")]
        what: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    /// What `nodebus up` and compose need: bus, bridges, dashboard, an operator and a viewer
    Quickstart,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_is_a_command() {
        let examples: Vec<&str> = EXAMPLES.lines().skip(1).collect();
        assert!(examples.len() > 4);
        for line in examples {
            let command = line.trim().split("   ").next().unwrap();
            let parsed = Args::try_parse_from(command.split_whitespace());
            assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn help_begins_with_examples() {
        let help = Args::command().render_help().to_string();
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text}: {help}"));
        assert!(at("Examples:") < at("Usage:"));
        assert!(at("Usage:") < at("--dir"));
        assert!(at("CERTGEN_DIR") < at("Exit codes"));
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_done() {
        for line in [
            "certgen issue king a",
            "certgen issue viewer Alice",
            "certgen issue broker bus --san localhost:8883",
            "certgen issue viewer a --days 0",
            "certgen bundle everything",
            "certgen show",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
