//! Every complaint, as it is: each names what it is about and what to do.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::command::{certgen, done, folder, openssl};

/// Runs certgen at a terminal of its own, at which `typed` is typed.
fn at_a_terminal(dir: &Path, args: &str, typed: &str) -> Output {
    let line = format!("{} {args}", env!("CARGO_BIN_EXE_certgen"));
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("CERTGEN_DIR", dir)
        .env_remove("CERTGEN_PASSPHRASE_FILE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(typed.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_passphrase_is_asked_for_at_the_terminal_and_not_shown() {
    let dir = folder();
    let path = &dir.path().join("pki");
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let mistyped = at_a_terminal(path, "init --encrypt", "correct horse\nbattery staple\n");
    let said = text(&mistyped);
    assert_eq!(mistyped.status.code(), Some(1), "{said}");
    assert!(
        said.contains("not the same both times: run the command again"),
        "{said}"
    );
    assert!(!path.join("ca/ca.key").exists());

    let twice = "correct horse\ncorrect horse\n";
    let made = at_a_terminal(path, "init --encrypt", twice);
    assert!(made.status.success(), "{}", text(&made));
    let once = at_a_terminal(path, "issue viewer alice", "correct horse\n");
    assert!(once.status.success(), "{}", text(&once));
    let said = text(&once);
    assert!(
        said.contains("passphrase of") && said.contains("Made viewer/alice"),
        "{said}"
    );
    let wrong = at_a_terminal(path, "issue viewer bob", "battery staple\n");
    assert!(
        text(&wrong).contains("passphrase is another one"),
        "{}",
        text(&wrong)
    );
    let p12 = at_a_terminal(path, "issue viewer alice --p12", "a b c\na b c\n");
    assert!(p12.status.success(), "{}", text(&p12));
    assert!(path.join("viewer/alice/identity.p12").exists());
}

/// A PKI with everything that can be wrong in it; gives the files to name.
fn troubles(path: &Path) {
    done(path, &["init"]);
    for (role, name) in [("node", "twice"), ("viewer", "alice"), ("viewer", "broken")] {
        done(path, &["issue", role, name]);
    }
    done(path, &["issue", "operator", "twice", "--force"]);
    done(path, &["issue", "viewer", "gone"]);
    done(path, &["revoke", "gone"]);
    std::fs::write(path.join("viewer/broken/..live/key.pem"), "").unwrap();
    std::fs::write(path.join("rubbish"), "rubbish\n").unwrap();
    std::fs::write(path.join("emoji"), "🔑🔑\n").unwrap();
    std::fs::write(path.join("empty"), "\n").unwrap();
    let (key, csr) = (path.join("x.key"), path.join("x.csr"));
    let new = [
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout",
    ];
    let with = [key.to_str().unwrap(), "-out", csr.to_str().unwrap()];
    openssl(&[&new[..], &with].concat());
    done(
        path,
        &["issue", "viewer", "request", "--csr", csr.to_str().unwrap()],
    );
}

#[test]
fn every_complaint_names_what_and_the_remedy() {
    let dir = folder();
    let path = dir.path();
    troubles(path);
    let elsewhere = path.join("elsewhere").display().to_string();
    let file = |name: &str| path.join(name).display().to_string();
    let (csr, rubbish, emoji, empty) =
        (file("x.csr"), file("rubbish"), file("emoji"), file("empty"));
    let commands: &[&[&str]] = &[
        &["issue", "viewer", "Alice"],
        &["issue", "broker", "bus", "--san", "mqtts://localhost"],
        &["issue", "king", "alice"],
        &["issue", "viewer", "alice", "--days", "0"],
        &["issue", "operator", "alice"],
        &["issue", "viewer", "gone"],
        &["issue", "viewer", "broken"],
        &["issue", "viewer", "alice", "--csr", &csr],
        &["issue", "viewer", "carol", "--csr", &rubbish],
        &["issue", "viewer", "carol", "--csr", "nowhere.csr"],
        &["issue", "viewer", "carol", "--owner", "no-such"],
        &[
            "issue",
            "viewer",
            "carol",
            "--p12",
            "--p12-password-file",
            &empty,
        ],
        &[
            "issue",
            "viewer",
            "carol",
            "--p12",
            "--p12-password-file",
            "nowhere",
        ],
        &[
            "issue",
            "viewer",
            "alice",
            "--p12",
            "--p12-password-file",
            &emoji,
        ],
        &[
            "issue",
            "viewer",
            "request",
            "--p12",
            "--p12-password-file",
            &rubbish,
        ],
        &["issue", "viewer", "alice", "--p12"],
        &["init", "--name", "Ünlü"],
        &["init", "--dir", &elsewhere, "--encrypt"],
        &["list", "--expiring", "soon"],
        &["list", "--dir", &elsewhere, "--quiet", "--json"],
        &["show", "nobody"],
        &["show", &rubbish],
        &["show", "localhost:1"],
        &["verify", "nowhere.pem"],
        &["verify", &rubbish],
        &["renew", "nobody"],
        &["renew", "twice"],
        &["renew", "gone"],
        &["renew", "broken"],
        &["renew", "request", "--rekey"],
        &["renew", "alice", "--dir", &elsewhere],
        &["renew"],
        &["revoke", "nobody"],
        &["revoke", "twice"],
        &["revoke", "00000000000000000000000000000000"],
        &["crl", "--dir", &elsewhere],
        &["export", "broken", "--to", &file("carry")],
        &["export", "alice", "--to", &rubbish],
        &["rotate-ca", "--stage", "switch"],
        &["rotate-ca", "--stage", "sideways"],
        &["psk", "add", "kitchen", "--key-file", &rubbish],
        &["psk", "list", "--file", &rubbish],
        &["psk", "remove", "kitchen"],
        &[
            "passwd",
            "add",
            "viewer",
            "carol",
            "--password-file",
            &empty,
        ],
        &["passwd", "add", "viewer", "carol"],
        &["passwd", "remove", "carol"],
        &["man", "--to", &rubbish],
        &["bundle", "everything"],
    ];
    let mut text = String::new();
    let mut complain = |args: &[&str]| {
        let output = certgen(path, args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let line = args.join(" ");
        assert!(!said.trim().is_empty(), "{line}");
        assert_ne!(output.status.code(), Some(0), "{line}");
        let code = output.status.code().unwrap_or(-1);
        text += &format!("$ certgen {line}\n{} ({code})\n\n", said.trim());
    };
    commands.iter().for_each(|args| complain(args));
    std::fs::write(path.join("admin"), "in the way").unwrap();
    complain(&["issue", "admin", "root"]);
    std::fs::remove_file(path.join("admin")).unwrap();
    // What is wrong with the authority itself, from bad to worse.
    std::fs::rename(path.join("ca/ca.key"), path.join("ca.key")).unwrap();
    complain(&["issue", "viewer", "carol"]);
    complain(&["revoke", "alice"]);
    complain(&["rotate-ca", "--stage", "prepare"]);
    std::fs::copy(path.join("x.key"), path.join("ca/ca.key")).unwrap();
    complain(&["issue", "viewer", "carol"]);
    std::fs::write(path.join("ca/ca.key"), "rubbish").unwrap();
    complain(&["issue", "viewer", "carol"]);
    std::fs::rename(path.join("ca.key"), path.join("ca/ca.key")).unwrap();
    std::fs::write(path.join("ca/crl.pem"), "rubbish").unwrap();
    complain(&["rotate-ca", "--stage", "prepare"]);
    std::fs::write(path.join("ca/index.json"), "{}").unwrap();
    complain(&["list"]);
    std::fs::remove_file(path.join("ca/index.json")).unwrap();
    std::fs::create_dir(path.join("ca/index.json")).unwrap();
    complain(&["list"]);
    std::fs::write(path.join("ca/ca.pem"), "rubbish").unwrap();
    complain(&["init"]);

    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let text = text.replace(&path.display().to_string(), "PKI");
    settings.bind(|| insta::assert_snapshot!("complaints", text));
}
