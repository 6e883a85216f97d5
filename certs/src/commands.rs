//! What each command does, and what it has to say about it.

use std::io;
use std::path::PathBuf;

use certs::{
    Certificate, Error, Existing, Identity, Name, NewAuthority, Passphrase, Pki, Renewal, Request,
    Revoked, Rights, Surroundings, Within,
};
use serde::Serialize;
use time::OffsetDateTime;

use crate::cli::{Args, Command, Set, Who};
use crate::{output, pages, report, secrets};

/// There is no such certificate; of `needs-renewal`.
const EXIT_MISSING: u8 = 2;

/// What a command has to say.
pub(crate) struct Said {
    /// For people.
    text: String,
    /// For programs.
    json: serde_json::Value,
    /// The exit code.
    pub(crate) code: u8,
}

impl Said {
    pub(crate) fn new(answer: &impl Serialize, text: String) -> Result<Self, Error> {
        let json = serde_json::to_value(answer).map_err(|source| Error::File {
            action: "made",
            path: PathBuf::from("JSON"),
            remedy: "leave out --json",
            source: source.into(),
        })?;
        Ok(Self {
            text,
            json,
            code: 0,
        })
    }

    fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// The answer as it is printed.
    pub(crate) fn render(&self, json: bool) -> String {
        if json {
            format!("{:#}\n", self.json)
        } else {
            self.text.clone()
        }
    }
}

pub(crate) fn run(args: Args, surroundings: &mut Surroundings) -> Result<Said, Error> {
    let passphrase = secret(args.passphrase_file, args.passphrase_fd);
    let pki = Pki::new(args.dir).with_passphrase(passphrase);
    let now = surroundings.now;
    match args.command {
        Command::Init {
            name,
            years,
            encrypt: sealed,
        } => {
            let order = NewAuthority {
                name,
                years,
                sealed,
            };
            let answer = pki.init_as(&order, surroundings)?;
            Said::new(&answer, output::initialised(&answer, now))
        }
        Command::Issue {
            role,
            name,
            san,
            days,
            key_type,
            csr,
            p12,
            p12_password_file,
            p12_password_fd,
            owner,
            group,
            force,
        } => {
            let request = Request {
                identity: Identity { role, name },
                sans: san,
                days,
                key_type,
                csr,
                pkcs12: p12.then(|| secret(p12_password_file, p12_password_fd)),
                rights: Rights { owner, group },
                existing: if force {
                    Existing::Replace
                } else {
                    Existing::Keep
                },
            };
            let answer = pki.issue(&request, surroundings)?;
            Said::new(&answer, output::issued(&answer, now))
        }
        Command::Bundle {
            set: Set::Quickstart,
            san,
        } => {
            let answer = certs::quickstart_in(&pki, &san, surroundings)?;
            Said::new(&answer, output::bundle(&answer, now))
        }
        Command::Show { what } => {
            let answer = show(&pki, &what)?;
            Said::new(&answer, output::shown(&answer, now))
        }
        Command::Verify { file } => {
            let answer = pki.verify(&file, now)?;
            let code = u8::from(!answer.flaws.is_empty());
            Ok(Said::new(&answer, report::verified(&answer, now))?.with_code(code))
        }
        Command::List { expiring } => list(&pki, expiring, surroundings),
        Command::Renew {
            who: Some(who),
            within,
            rekey,
            ..
        } => {
            let answer = pki.renew(&identity(&pki, who)?, within, rekey, surroundings)?;
            Said::new(&answer, output::issued(&answer, now))
        }
        Command::Renew { within, rekey, .. } => {
            let renewals = pki.renew_all(within.unwrap_or_default(), rekey, surroundings)?;
            renewed(&pki, &renewals, now)
        }
        Command::NeedsRenewal { who, within } => needs_renewal(&pki, who, within, surroundings),
        Command::Revoke { what, reason } => {
            let answer = pki.revoke(&revoked(&what)?, reason, surroundings)?;
            Said::new(&answer, report::revocations(&answer, now))
        }
        Command::Crl { days } => {
            let answer = pki.crl(days, surroundings)?;
            Said::new(&answer, report::revocations(&answer, now))
        }
        Command::Export { who, to, format } => {
            let answer = pki.export(&identity(&pki, who)?, &to, format)?;
            Said::new(&answer, report::exported(&answer, now))
        }
        Command::RotateCa { stage, force } => {
            let answer = pki.rotate(stage, force, surroundings)?;
            Said::new(&answer, report::rotated(&answer, now))
        }
        Command::Psk { file, command } => {
            let file = file.unwrap_or_else(|| pki.dir().join("psk"));
            secrets::psk(&file, command, surroundings)
        }
        Command::Passwd { file, command } => {
            let file = file.unwrap_or_else(|| pki.dir().join("passwd"));
            secrets::passwd(&file, command, surroundings)
        }
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { to } => pages::man(&to),
    }
}

/// Where a secret comes from.
pub(crate) fn secret(file: Option<PathBuf>, descriptor: Option<u32>) -> Passphrase {
    match (file, descriptor) {
        (Some(file), _) => Passphrase::from_file(file),
        (None, Some(number)) => Passphrase::from_descriptor(number),
        (None, None) => Passphrase::default(),
    }
}

fn identity(pki: &Pki, who: Who) -> Result<Identity, Error> {
    match who {
        Who::Identity(identity) => Ok(identity),
        Who::Name(name) => pki.only(&name),
    }
}

fn list(pki: &Pki, expiring: Option<Within>, surroundings: &Surroundings) -> Result<Said, Error> {
    let now = surroundings.now;
    let mut listed = pki.list(now)?;
    if let Some(within) = expiring {
        listed.retain(|one| {
            let certificate = one.certificate.as_ref();
            certificate.is_some_and(|certificate| within.covers(certificate, now))
        });
    }
    let text = report::list(&listed, now) + &report::ending(&pki.ending_authority(now)?, now);
    Said::new(&listed, text)
}

fn renewed(pki: &Pki, renewals: &[Renewal], now: OffsetDateTime) -> Result<Said, Error> {
    #[derive(Serialize)]
    struct Answer<'a> {
        renewed: Vec<&'a certs::Issued>,
        failed: Vec<Failure<'a>>,
        /// The authority, when it is time to replace it.
        ending_authority: Option<Certificate>,
    }
    #[derive(Serialize)]
    struct Failure<'a> {
        #[serde(flatten)]
        identity: &'a Identity,
        error: String,
    }
    let mut answer = Answer {
        renewed: Vec::new(),
        failed: Vec::new(),
        ending_authority: pki.ending_authority(now)?,
    };
    for Renewal { identity, result } in renewals {
        match result {
            Ok(issued) => answer.renewed.push(issued),
            Err(error) => answer.failed.push(Failure {
                identity,
                error: error.to_string(),
            }),
        }
    }
    let code = u8::from(!answer.failed.is_empty());
    let text = report::renewals(renewals, now) + &report::ending(&answer.ending_authority, now);
    Ok(Said::new(&answer, text)?.with_code(code))
}

fn needs_renewal(
    pki: &Pki,
    who: Who,
    within: Option<Within>,
    surroundings: &Surroundings,
) -> Result<Said, Error> {
    #[derive(Serialize)]
    struct Answer {
        needs_renewal: Option<bool>,
    }
    let now = surroundings.now;
    let told =
        identity(pki, who).and_then(|who| pki.needs_renewal(&who, within.unwrap_or_default(), now));
    let (answer, text, code) = match told {
        Ok(true) => (Some(true), "It should be renewed.\n".to_owned(), 0),
        Ok(false) => (Some(false), "It need not be renewed yet.\n".to_owned(), 1),
        Err(error @ Error::NotFound { .. }) => (None, format!("{error}\n"), EXIT_MISSING),
        Err(error) => return Err(error),
    };
    let answer = Answer {
        needs_renewal: answer,
    };
    Ok(Said::new(&answer, text)?.with_code(code))
}

fn revoked(what: &str) -> Result<Revoked, Error> {
    // A name of 32 hex digits is taken for what it looks like.
    if what.len() == 32 && what.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Revoked::Serial(what.to_ascii_lowercase()));
    }
    Ok(match what.parse()? {
        Who::Identity(identity) => Revoked::Identity(identity),
        Who::Name(name) => Revoked::Name(name),
    })
}

/// Finds what `what` names: an identity of the PKI, its authority, any file, or a server.
fn show(pki: &Pki, what: &str) -> Result<Vec<output::Shown>, Error> {
    let mut paths = Vec::new();
    if let Ok(name) = what.parse::<Name>() {
        for identity in pki.find(&name)? {
            paths.push(pki.folder(&identity).join("cert.pem"));
        }
        if what == "ca" {
            paths.push(pki.authority_folder().join("ca.pem"));
        }
    } else if let Ok(Who::Identity(identity)) = what.parse() {
        let path = pki.folder(&identity).join("cert.pem");
        if path.exists() {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let path = PathBuf::from(what);
        if let Some((host, port)) = certs::host_and_port(what).filter(|_| !path.exists()) {
            let certificates = certs::certificates_of(host, port)?;
            let shown = certificates.into_iter().map(|certificate| output::Shown {
                path: path.clone(),
                certificate,
            });
            return Ok(shown.collect());
        }
        paths.push(path);
    }
    let mut shown = Vec::new();
    for path in paths {
        for certificate in Certificate::all_from_pem(&read(pki, what, &path)?, &path)? {
            shown.push(output::Shown {
                path: path.clone(),
                certificate,
            });
        }
    }
    Ok(shown)
}

fn read(pki: &Pki, what: &str, path: &std::path::Path) -> Result<String, Error> {
    match std::fs::read_to_string(path) {
        Ok(pem) => Ok(pem),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound {
            what: what.to_owned(),
            dir: pki.dir().to_owned(),
        }),
        Err(source) => Err(Error::File {
            action: "read",
            path: path.to_owned(),
            remedy: "name a PEM file that you may read",
            source,
        }),
    }
}
