//! The command certgen: certificates for nodebus, without openssl.

mod cli;
mod output;

use std::io::{self, Write as _};
use std::process::ExitCode;

use certs::{
    Bundle, Certificate, Error, Existing, Identity, Initialised, Issued, Name, Pki, Request,
    Surroundings,
};
use clap::Parser as _;
use time::OffsetDateTime;

use crate::cli::{Args, Command, Set};

/// What exists differs from what was asked for.
const EXIT_DIFFERS: u8 = 3;

/// What a command has to say.
enum Answer {
    Initialised(Initialised),
    Issued(Box<Issued>),
    Bundle(Bundle),
    Shown(Vec<output::Shown>),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut surroundings = Surroundings::of_this_machine();
    let now = surroundings.now;
    let (json, quiet) = (args.json, args.quiet);
    let answer = match run(args, &mut surroundings) {
        Ok(answer) => answer,
        Err(error) => {
            let differs = matches!(error, Error::Differs { .. });
            report(&anyhow::Error::new(error));
            return ExitCode::from(if differs { EXIT_DIFFERS } else { 1 });
        }
    };
    if quiet {
        return ExitCode::SUCCESS;
    }
    match print(&answer, json, now) {
        // Whoever reads has read enough, as `head` does.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report(&anyhow::Error::new(error));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "this is where a command reports failure"
)]
fn report(error: &anyhow::Error) {
    eprintln!("certgen: {error:#}");
}

fn run(args: Args, surroundings: &mut Surroundings) -> Result<Answer, Error> {
    let pki = Pki::new(args.dir);
    match args.command {
        Command::Init => Ok(Answer::Initialised(pki.init(surroundings)?)),
        Command::Issue {
            role,
            name,
            san,
            days,
            force,
        } => {
            let request = Request {
                identity: Identity { role, name },
                sans: san,
                days,
                existing: if force {
                    Existing::Replace
                } else {
                    Existing::Keep
                },
            };
            let issued = pki.issue(&request, surroundings)?;
            Ok(Answer::Issued(Box::new(issued)))
        }
        Command::Bundle {
            set: Set::Quickstart,
            san,
        } => certs::quickstart_in(&pki, &san, surroundings).map(Answer::Bundle),
        Command::Show { what } => show(&pki, &what).map(Answer::Shown),
    }
}

/// Finds what `what` names: an identity of the PKI, its authority, or any file.
fn show(pki: &Pki, what: &str) -> Result<Vec<output::Shown>, Error> {
    let mut paths = Vec::new();
    if let Ok(name) = what.parse::<Name>() {
        for identity in pki.find(&name)? {
            paths.push(pki.folder(&identity).join("cert.pem"));
        }
        if what == "ca" {
            paths.push(pki.authority_folder().join("ca.pem"));
        }
    } else if let Some(identity) = what.split_once('/').and_then(identity) {
        let path = pki.folder(&identity).join("cert.pem");
        if path.exists() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        paths.push(what.into());
    }
    let mut shown = Vec::new();
    for path in paths {
        let pem = match std::fs::read_to_string(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound {
                    what: what.to_owned(),
                    dir: pki.dir().to_owned(),
                });
            }
            Err(source) => {
                return Err(Error::File {
                    action: "read",
                    path,
                    remedy: "name a PEM file that you may read",
                    source,
                });
            }
        };
        for certificate in Certificate::all_from_pem(&pem, &path)? {
            shown.push(output::Shown {
                path: path.clone(),
                certificate,
            });
        }
    }
    Ok(shown)
}

fn identity((role, name): (&str, &str)) -> Option<Identity> {
    Identity::from_uri(&format!("urn:nodebus:{role}:{name}"))
}

fn print(answer: &Answer, json: bool, now: OffsetDateTime) -> io::Result<()> {
    let text = match (answer, json) {
        (Answer::Initialised(answer), false) => output::initialised(answer, now),
        (Answer::Issued(answer), false) => output::issued(answer, now),
        (Answer::Bundle(answer), false) => output::bundle(answer, now),
        (Answer::Shown(answer), false) => output::shown(answer, now),
        (Answer::Initialised(answer), true) => output::json(answer)?,
        (Answer::Issued(answer), true) => output::json(answer)?,
        (Answer::Bundle(answer), true) => output::json(answer)?,
        (Answer::Shown(answer), true) => output::json(answer)?,
    };
    io::stdout().lock().write_all(text.as_bytes())
}
