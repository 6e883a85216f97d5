//! The commands for shared keys and passwords.

use std::path::Path;

use certs::{Entered, Error, Login, Outcome, Surroundings};

use crate::cli::{Passwd, Psk};
use crate::commands::{Said, secret};

pub(crate) fn psk(
    file: &Path,
    command: Psk,
    surroundings: &mut Surroundings,
) -> Result<Said, Error> {
    match command {
        Psk::Add {
            name,
            key_file,
            force,
        } => {
            let rng = &mut surroundings.rng;
            let answer = certs::add_psk(file, &name, key_file.as_deref(), force, rng)?;
            let next = "Next: put the key of its line into the node; it is secret.\n";
            Said::new(&answer, entered(&answer, "key", next))
        }
        Psk::List => list(file),
        Psk::Remove { name } => {
            certs::remove_login(file, &name)?;
            removed(file, &name, "key")
        }
    }
}

pub(crate) fn passwd(
    file: &Path,
    command: Passwd,
    surroundings: &mut Surroundings,
) -> Result<Said, Error> {
    match command {
        Passwd::Add {
            role,
            name,
            password_file,
            password_fd,
        } => {
            let password = secret(password_file, password_fd);
            let rng = &mut surroundings.rng;
            let answer = certs::add_password(file, role, &name, &password, rng)?;
            let next = format!("Next: log in as {name}, {}, over TLS.\n", role.holder());
            Said::new(&answer, entered(&answer, "password", &next))
        }
        Passwd::List => list(file),
        Passwd::Remove { name } => {
            certs::remove_login(file, &name)?;
            removed(file, &name, "password")
        }
    }
}

fn entered(answer: &Entered, what: &str, next: &str) -> String {
    let (name, path) = (&answer.name, answer.path.display());
    match answer.outcome {
        Outcome::Unchanged => format!("{name} has a {what} in {path}, nothing changed.\n"),
        Outcome::Created => format!("Gave {name} a {what} in {path}.\n{next}"),
        Outcome::Replaced(_) | Outcome::Revoked => {
            format!("Gave {name} another {what} in {path}.\n{next}")
        }
    }
}

fn removed(file: &Path, name: &certs::Name, what: &str) -> Result<Said, Error> {
    let text = format!("Took the {what} of {name} out of {}.\n", file.display());
    Said::new(&serde_json::json!({ "removed": name }), text)
}

fn list(file: &Path) -> Result<Said, Error> {
    let logins = certs::logins(file)?;
    let mut text = String::new();
    for Login { name, role } in &logins {
        text += &match role {
            Some(role) => format!("{name}  {role}\n"),
            None => format!("{name}\n"),
        };
    }
    if text.is_empty() {
        text = format!("There is none in {}.\n", file.display());
    }
    Said::new(&logins, text)
}
