//! The command certgen: certificates for nodebus, without openssl.

mod cli;
mod commands;
mod output;
mod pages;
mod report;
mod secrets;

use std::io::{self, Write as _};
use std::process::ExitCode;

use certs::{Error, Surroundings};
use clap::Parser as _;

use crate::cli::{Args, Command};

/// What exists differs from what was asked for.
const EXIT_DIFFERS: u8 = 3;
/// `needs-renewal` can't tell; its smaller codes are answers.
const EXIT_UNTOLD: u8 = 4;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() && std::env::args().any(|arg| arg == "needs-renewal") => {
            report(&anyhow::Error::new(error));
            return ExitCode::from(EXIT_UNTOLD);
        }
        Err(error) => error.exit(),
    };
    let mut surroundings = Surroundings::of_this_machine();
    let (json, quiet) = (args.json, args.quiet);
    let asks = matches!(args.command, Command::NeedsRenewal { .. });
    let said = match commands::run(args, &mut surroundings) {
        Ok(said) => said,
        Err(error) => {
            let code = match error {
                _ if asks => EXIT_UNTOLD,
                Error::Differs { .. } => EXIT_DIFFERS,
                _ => 1,
            };
            report(&anyhow::Error::new(error));
            return ExitCode::from(code);
        }
    };
    let printed = if quiet {
        Ok(())
    } else {
        io::stdout().lock().write_all(said.render(json).as_bytes())
    };
    match printed {
        // Whoever reads has read enough, as `head` does.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report(&anyhow::Error::new(error));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(said.code),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "this is where a command reports failure"
)]
fn report(error: &anyhow::Error) {
    eprintln!("certgen: {error:#}");
}
