//! What certgen says to people about what exists: lists, verdicts, revocations and copies.

use certs::{
    Certificate, Exported, Flaw, Listed, Outcome, Pkcs12, Renewal, Revocations, Rotated, Stage,
    State, Verified,
};
use time::OffsetDateTime;

use crate::output::{date, table, until};

pub(crate) fn list(listed: &[Listed], now: OffsetDateTime) -> String {
    if listed.is_empty() {
        return "There are none.\n".to_owned();
    }
    let mut rows = vec![["Who", "State", "Valid until", "For", "Serial"].map(str::to_owned)];
    for one in listed {
        let certificate = one.certificate.as_ref();
        rows.push([
            one.identity.to_string(),
            state(one.state).to_owned(),
            certificate.map_or("unknown".to_owned(), |certificate| until(certificate, now)),
            one.identity.role.holder().to_owned(),
            certificate.map_or(String::new(), |certificate| certificate.serial.clone()),
        ]);
    }
    table(&rows)
}

/// What to do about an authority that ends soon; nothing when none does.
pub(crate) fn ending(authority: &Option<Certificate>, now: OffsetDateTime) -> String {
    authority.as_ref().map_or(String::new(), |authority| {
        format!(
            "The authority itself is valid until {}, and what it signs no longer.\n\
             Next: replace it without an outage; `certgen rotate-ca --stage prepare` begins.\n",
            until(authority, now)
        )
    })
}

fn state(state: State) -> &'static str {
    match state {
        State::Valid => "valid",
        State::Expired => "EXPIRED",
        State::Revoked => "REVOKED",
        State::Damaged => "DAMAGED",
    }
}

pub(crate) fn verified(answer: &Verified, now: OffsetDateTime) -> String {
    let path = answer.path.display();
    let certificate = &answer.certificate;
    if answer.flaws.is_empty() {
        let who = certificate.identity.as_ref().map_or_else(
            || certificate.subject.clone(),
            |identity| format!("{identity}, {}", identity.role.holder()),
        );
        return format!(
            "{path} is good: {who}, valid until {}.\n",
            until(certificate, now)
        );
    }
    let mut text = format!("{path} would be refused:\n");
    for flaw in &answer.flaws {
        text += &format!("  {}\n", why(flaw));
    }
    text
}

fn why(flaw: &Flaw) -> &'static str {
    match flaw {
        Flaw::OtherAuthority => {
            "no authority that is trusted here signed it: issue it here, or name its PKI with --dir"
        }
        Flaw::Unlisted => {
            "it is not in the list of what was issued: restore ca/index.json from a backup"
        }
        Flaw::NotYetValid => "it is not valid yet: set the clock",
        Flaw::Expired => "it has expired: renew it with `certgen renew`",
        Flaw::Revoked => "it was revoked: make a new one with `certgen issue --force`",
        Flaw::NoIdentity => "it names no role: make one with `certgen issue`",
        Flaw::WrongUse => {
            "it allows another use than its role needs: make one with `certgen issue`"
        }
        Flaw::OtherKey => "key.pem beside it belongs to another: make both with `certgen issue`",
    }
}

pub(crate) fn renewals(renewals: &[Renewal], now: OffsetDateTime) -> String {
    let mut text = String::new();
    let mut others = 0;
    for Renewal { identity, result } in renewals {
        match result {
            Ok(issued) if issued.outcome == Outcome::Unchanged => others += 1,
            Ok(issued) => {
                text += &format!(
                    "Renewed {identity} in {}, valid until {}.\n",
                    issued.folder.display(),
                    until(&issued.certificate, now)
                );
                if issued.pkcs12 == Some(Pkcs12::Outdated) {
                    text += &format!(
                        "  Its identity.p12 is gone: `certgen issue {} {} --p12` writes a new one.\n",
                        identity.role, identity.name
                    );
                }
            }
            Err(error) => text += &format!("{identity} can't be renewed: {error}.\n"),
        }
    }
    text += &match others {
        0 if text.is_empty() => "There is nothing to renew.\n".to_owned(),
        0 => String::new(),
        1 => "One needs no renewal yet.\n".to_owned(),
        _ => format!("{others} need no renewal yet.\n"),
    };
    text
}

pub(crate) fn revocations(answer: &Revocations, now: OffsetDateTime) -> String {
    let mut text = String::new();
    for entry in &answer.revoked {
        text += &format!("Revoked {}, serial {}.\n", entry.identity, entry.serial);
    }
    text += &format!(
        "Made list {} of revoked certificates, {} in it, valid until {} (in {} days).\n",
        answer.number,
        answer.listed,
        date(answer.next_update),
        (answer.next_update - now).whole_days(),
    );
    for path in std::iter::once(&answer.path).chain(&answer.copies) {
        text += &format!("  {}\n", path.display());
    }
    text += if answer.copies.is_empty() {
        "Next: give it to whoever checks certificates, as crl.pem beside their cert.pem.\n"
    } else {
        "Next: nothing where the bus runs here; copy it to a bus that runs elsewhere.\n"
    };
    text
}

pub(crate) fn rotated(answer: &Rotated, now: OffsetDateTime) -> String {
    let signs = &answer.signs;
    let mut text = String::new();
    if !answer.changed {
        text += match answer.stage {
            Some(_) => "That was done already, nothing changed.\n",
            None => "No exchange is under way, nothing changed.\n",
        };
    }
    text += &format!(
        "{} signs, valid until {}.\n",
        signs.subject,
        until(signs, now)
    );
    if let Some(other) = &answer.other {
        text += &format!("{} is trusted too.\n", other.subject);
    }
    if !answer.waiting.is_empty() {
        let who: Vec<String> = answer.waiting.iter().map(ToString::to_string).collect();
        text += &format!("Of the old authority yet: {}.\n", who.join(", "));
    }
    if let Some(retired) = &answer.retired {
        text += &format!(
            "The old authority is in {}: delete it when you are sure.\n",
            retired.display()
        );
    }
    text += match answer.stage {
        Some(Stage::Prepare) => {
            "Next: give the new ca.pem to whatever runs elsewhere, restart programs that don't \
             notice new files\n(the parts of nodebus do), then `certgen rotate-ca --stage switch`.\n"
        }
        Some(Stage::Switch) if answer.waiting.is_empty() => {
            "Next: carry the new certificates to whatever runs elsewhere, then \
             `certgen rotate-ca --stage finish`.\n"
        }
        Some(Stage::Switch) => {
            "Next: `certgen renew --all`, carry the new certificates to whatever runs elsewhere, \
             then\n`certgen rotate-ca --stage finish`.\n"
        }
        Some(Stage::Finish) => {
            "Next: nothing; whatever shows a certificate of the old authority is refused now.\n"
        }
        None => "Next: `certgen rotate-ca --stage prepare` begins one.\n",
    };
    text
}

pub(crate) fn exported(answer: &Exported, now: OffsetDateTime) -> String {
    let mut text = format!(
        "Copied {} into {}.\n",
        answer.identity,
        answer.folder.display()
    );
    for name in &answer.files {
        text += &format!("  {name}\n");
    }
    text += &format!("Valid until {}.\n", until(&answer.certificate, now));
    text += "Next: carry the folder over a channel that keeps it secret, then delete the copy.\n";
    text
}
