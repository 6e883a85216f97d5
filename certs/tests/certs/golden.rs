//! The words people read, as they are: help and answers. What differs from run to run is masked.

use std::path::Path;

use crate::command::{done, folder, refused};

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

fn is_serial(word: &str) -> bool {
    word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The text with everything masked that another run says otherwise: the folder, serial numbers,
/// the tag of the authority, addresses and dates.
fn masked(text: &str, dir: &Path) -> String {
    let text = text.replace(&dir.display().to_string(), "PKI");
    let months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let mut lines = Vec::new();
    for line in text.lines() {
        // This machine's name is among them.
        let line = match line.to_lowercase().split_once("reached as ") {
            Some((who, _)) => &format!("{who}reached as ADDRESSES."),
            None => line,
        };
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 0..words.len() {
            let bare = words[at].trim_end_matches(['.', ',', ':']).to_owned();
            let name = bare.rsplit('/').next().unwrap_or_default();
            if is_serial(name) {
                words[at] = words[at].replace(name, "SERIAL");
            } else if months.contains(&bare.as_str()) && at > 0 && at + 1 < words.len() {
                (words[at - 1], words[at + 1]) = ("DAY".to_owned(), "YEAR".to_owned());
                words[at] = "MONTH".to_owned();
            } else if bare.len() == 8
                && at > 0
                && words[at - 1] == "CA"
                && bare.bytes().all(|b| b.is_ascii_hexdigit())
            {
                words[at] = words[at].replace(&bare, "TAG");
            }
        }
        // The columns of a table are as wide as their content, which was masked.
        words.dedup_by(|one, other| one.is_empty() && other.is_empty());
        lines.push(words.join(" "));
    }
    lines.join("\n")
}

#[test]
fn help_is_as_it_was() {
    let settings = settings();
    let _guard = settings.bind_to_scope();
    for command in [
        "",
        "init",
        "issue",
        "bundle",
        "show",
        "list",
        "verify",
        "renew",
        "needs-renewal",
        "revoke",
        "crl",
        "export",
        "rotate-ca",
        "psk",
        "passwd",
        "completions",
        "man",
    ] {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let name = format!(
            "help-{}",
            if command.is_empty() {
                "certgen"
            } else {
                command
            }
        );
        let text = done(Path::new("pki"), &args);
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn answers_are_as_they_were() {
    let dir = folder();
    let path = dir.path();
    let settings = settings();
    let _guard = settings.bind_to_scope();
    let to = path.join("carry").display().to_string();
    let cert = path.join("ca/ca.pem").display().to_string();
    let secret = path.join("secret").display().to_string();
    std::fs::write(&secret, "correct horse\n").unwrap();
    for (name, args) in [
        ("init", &["init"][..]),
        ("init-again", &["init"]),
        ("issue", &["issue", "viewer", "alice"]),
        ("issue-again", &["issue", "viewer", "alice"]),
        ("list", &["list"]),
        ("show", &["show", "alice"]),
        ("renew", &["renew", "alice"]),
        ("renew-all", &["renew", "--all"]),
        ("export", &["export", "alice", "--to", &to]),
        ("revoke", &["revoke", "alice", "--reason", "superseded"]),
        ("crl", &["crl", "--days", "30"]),
        ("psk", &["psk", "add", "kitchen"]),
        ("bundle", &["bundle", "quickstart"]),
        ("issue-node", &["issue", "node", "porch"]),
        ("verify", &["verify", &cert]),
        (
            "passwd",
            &[
                "passwd",
                "add",
                "viewer",
                "carol",
                "--password-file",
                &secret,
            ],
        ),
        (
            "issue-p12",
            &[
                "issue",
                "viewer",
                "dora",
                "--p12",
                "--p12-password-file",
                &secret,
            ],
        ),
        ("issue-https", &["issue", "dashboard-server", "page"]),
        ("issue-bridge", &["issue", "bridge", "attic"]),
        ("prepare", &["rotate-ca", "--stage", "prepare"]),
        ("switch", &["rotate-ca", "--stage", "switch"]),
        ("renew-superseded", &["renew", "dora"]),
        ("renew-rest", &["renew", "--all"]),
        ("finish", &["rotate-ca", "--stage", "finish"]),
        ("finish-again", &["rotate-ca", "--stage", "finish"]),
    ] {
        insta::assert_snapshot!(name, masked(&done(path, args), path));
    }
    for (name, args, code) in [
        ("refused-unknown", &["renew", "nobody"][..], 1),
        ("refused-role", &["issue", "operator", "alice"], 3),
        ("refused-revoked", &["renew", "alice"], 1),
        ("refused-file", &["verify", "nowhere.pem"], 1),
        ("refused-stage", &["rotate-ca", "--stage", "switch"], 1),
    ] {
        insta::assert_snapshot!(name, masked(&refused(path, args, code), path));
    }
}
