//! What certgen says to people: what was written, where, for whom, until when, and the next step.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use certs::{Bundle, Certificate, Identity, Initialised, Issued, Outcome, Pkcs12, Reason, Role};
use serde::Serialize;
use time::OffsetDateTime;

/// A certificate and the file it was found in.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) path: PathBuf,
    #[serde(flatten)]
    pub(crate) certificate: Certificate,
}

pub(crate) fn initialised(answer: &Initialised, now: OffsetDateTime) -> String {
    let folder = answer.folder.display();
    let what = &answer.certificate.subject;
    let mut text = match answer.outcome {
        Outcome::Unchanged => format!("{what} exists in {folder}, nothing changed.\n"),
        _ => format!("Made {what} in {folder}.\n"),
    };
    text += "  ca.pem  the trust anchor: give it to every client\n";
    text += if answer.has_key {
        "  ca.key  the key that signs: keep it secret and back it up\n"
    } else {
        "  ca.key  is not here, so nothing can be signed here\n"
    };
    lines(
        &mut text,
        &[format!("Valid until {}.", until(&answer.certificate, now))],
    );
    text += "Next: `certgen bundle quickstart` for everything, or `certgen issue <role> <name>`.\n";
    text
}

pub(crate) fn issued(answer: &Issued, now: OffsetDateTime) -> String {
    let Issued {
        outcome,
        identity,
        folder,
        certificate,
        pkcs12,
    } = answer;
    let (name, place) = (identity, folder.display());
    let mut text = match outcome {
        Outcome::Created => format!("Made {name} in {place}, for {}.\n", identity.role.holder()),
        Outcome::Unchanged if *pkcs12 == Some(Pkcs12::Written) => {
            format!("{name} exists in {place}; wrote its PKCS#12 file.\n")
        }
        Outcome::Unchanged => format!("{name} exists in {place}, nothing changed.\n"),
        Outcome::Revoked => format!("{name} in {place} is revoked, nothing changed.\n"),
        Outcome::Replaced(reason) => {
            format!("Made {name} in {place} anew: {}.\n", why(*reason))
        }
    };
    text += "  cert.pem  the certificate\n";
    text += if folder.join("csr.pem").exists() {
        "  csr.pem   the request of whoever has its key\n"
    } else {
        "  key.pem   its key: secret\n"
    };
    text += "  ca.pem    whom its holder trusts\n";
    if *pkcs12 == Some(Pkcs12::Written) {
        text += "  identity.p12  all three for phones and browsers, under the password: secret\n";
    }
    if !certificate.sans.is_empty() {
        lines(&mut text, &[format!("Reached as {}.", list(certificate))]);
    }
    lines(
        &mut text,
        &[format!("Valid until {}.", until(certificate, now))],
    );
    match pkcs12 {
        Some(Pkcs12::Written) => {
            text +=
                "Next: carry identity.p12 to where it is used and import it with its password.\n";
            return text;
        }
        Some(Pkcs12::Outdated) => {
            text += &format!(
                "identity.p12 held the certificate before and is gone: write it anew with\n  \
                 certgen issue {} {} --p12\n",
                identity.role, identity.name
            );
        }
        None => {}
    }
    text += &next(identity, folder);
    text
}

/// What to do with the certificate.
fn next(identity: &Identity, folder: &Path) -> String {
    let place = folder.display();
    match identity.role {
        Role::Broker => format!("Next: start it with `nodebus bus --pki {place}`.\n"),
        Role::DashboardServer => {
            format!("Next: start the dashboard with `--set dashboard_gw.https_pki={place}`.\n")
        }
        Role::CoapServer => {
            format!("Next: start the bridge with `--set coap_bridge.dtls_pki={place}`.\n")
        }
        Role::Bridge => format!("Next: start the bridge with `--pki {place}`.\n"),
        Role::Dashboard => format!("Next: start it with `nodebus dashboard-gw --pki {place}`.\n"),
        Role::Operator | Role::Viewer | Role::Admin => use_it(&mosquitto_sub(folder, "#")),
        // It hears what is written to it, and nothing else.
        Role::Node => {
            let own = format!("nodes/{}/res/+/set", identity.name);
            use_it(&mosquitto_sub(folder, &own))
        }
    }
}

pub(crate) fn bundle(answer: &Bundle, now: OffsetDateTime) -> String {
    let authority = &answer.authority;
    let mut rows = vec![
        ["What", "State", "Where", "For", "Valid until"].map(str::to_owned),
        [
            "ca".to_owned(),
            state(authority.outcome).to_owned(),
            authority.folder.display().to_string(),
            "everyone's trust anchor".to_owned(),
            until(&authority.certificate, now),
        ],
    ];
    for one in &answer.issued {
        rows.push([
            one.identity.to_string(),
            state(one.outcome).to_owned(),
            one.folder.display().to_string(),
            one.identity.role.holder().to_owned(),
            until(&one.certificate, now),
        ]);
    }
    let mut text = table(&rows);
    for one in &answer.issued {
        if let Outcome::Replaced(reason) = one.outcome {
            lines(
                &mut text,
                &[format!("{} was made anew: {}.", one.identity, why(reason))],
            );
        }
        if one.outcome == Outcome::Revoked {
            let Identity { role, name } = &one.identity;
            lines(
                &mut text,
                &[format!(
                    "{role}/{name} was revoked and stays so, until `certgen issue {role} {name} \
                     --force` makes a new one."
                )],
            );
        }
        if one.identity.role.is_server() {
            lines(
                &mut text,
                &[format!(
                    "{} is reached as {}.",
                    one.identity,
                    list(&one.certificate)
                )],
            );
        }
    }
    let viewer = answer
        .issued
        .iter()
        .find(|one| one.identity.role == Role::Viewer);
    if let Some(viewer) = viewer {
        lines(
            &mut text,
            &[
                "Next: start the parts with these folders as --pki, then watch:".to_owned(),
                format!("  {}", mosquitto_sub(&viewer.folder, "#")),
            ],
        );
    }
    text
}

pub(crate) fn shown(answer: &[Shown], now: OffsetDateTime) -> String {
    let mut text = String::new();
    for Shown { path, certificate } in answer {
        let or_none = |list: String| {
            if list.is_empty() {
                "none".to_owned()
            } else {
                list
            }
        };
        let identity = certificate.identity.as_ref();
        lines(
            &mut text,
            &[
                path.display().to_string(),
                format!("  subject    {}", certificate.subject),
                format!(
                    "  identity   {}",
                    identity.map_or("none: the bus refuses it".to_owned(), |identity| format!(
                        "{}, {}",
                        identity.uri(),
                        identity.role.holder()
                    ))
                ),
                format!("  addresses  {}", or_none(list(certificate))),
                format!("  use        {}", or_none(certificate.usages.join(", "))),
                format!(
                    "  valid      {} to {}",
                    date(certificate.not_before),
                    until(certificate, now)
                ),
                format!("  serial     {}", certificate.serial),
                format!("  signed by  {}", certificate.issuer),
            ],
        );
    }
    text
}

fn lines(text: &mut String, lines: &[String]) {
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
}

fn list(certificate: &Certificate) -> String {
    let texts: Vec<String> = certificate.sans.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn use_it(command: &str) -> String {
    format!("Next: use it, for instance so:\n  {command}\n")
}

/// A command that subscribes to this filter below the base.
fn mosquitto_sub(folder: &Path, filter: &str) -> String {
    let folder = folder.display();
    format!(
        "mosquitto_sub -h localhost -p 8883 --cafile {folder}/ca.pem --cert {folder}/cert.pem \
         --key {folder}/key.pem -t 'nodebus/v1/{filter}' -v"
    )
}

fn state(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Created => "made",
        Outcome::Unchanged => "unchanged",
        Outcome::Replaced(_) => "made anew",
        Outcome::Revoked => "REVOKED",
    }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Damaged => "its files were incomplete or didn't fit each other",
        Reason::OtherAuthority => "another authority than the one here had signed it",
        Reason::Expired => "it had expired",
        Reason::Renewed => "as asked; the old one stays valid until it ends",
        Reason::Superseded => "another authority takes the place of the one that had signed it",
        Reason::Due => "it would have expired soon",
        Reason::Address => "it lacked an address of this machine",
        Reason::Forced => "as asked; the old one stays valid until it ends",
    }
}

pub(crate) fn table(rows: &[[String; 5]]) -> String {
    let mut widths = [0; 5];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a String can't fail.
            if write!(line, "{cell:<width$}  ").is_err() {
                break;
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(crate) fn date(at: OffsetDateTime) -> String {
    format!("{} {} {}", at.day(), at.month(), at.year())
}

/// The end of a certificate: the date, how far away it is, and what to do when it is near.
pub(crate) fn until(certificate: &Certificate, now: OffsetDateTime) -> String {
    let left = certificate.not_after - now;
    let end = date(certificate.not_after);
    let hours = left.whole_hours();
    match left.whole_days() {
        _ if left.is_negative() && hours > -48 => format!("{end} (EXPIRED)"),
        days if left.is_negative() => format!("{end} (EXPIRED {} days ago)", -days),
        ..2 => format!("{end} (EXPIRES in {hours} hours)"),
        days @ 2..=30 => format!("{end} (EXPIRES in {days} days)"),
        days @ 31..=91 => format!("{end} (in {days} days)"),
        days @ 92..=729 => format!("{end} (in {} months)", (days * 12 + 182) / 365),
        days => format!("{end} (in {} years)", (days * 100 + 18262) / 36525),
    }
}
