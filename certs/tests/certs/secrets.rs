//! Passphrases, shared keys and passwords.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;

use crate::command::{certgen, done, folder, json, openssl, refused};

fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    path.display().to_string()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn the_key_of_an_authority_can_be_under_a_passphrase() {
    let dir = folder();
    let path = &dir.path().join("pki");
    let secret = write(&dir.path().join("secret"), "correct horse\n");
    let wrong = write(&dir.path().join("wrong"), "battery staple\n");
    let refusal = refused(path, &["init", "--encrypt"], 1);
    assert!(refusal.contains("no terminal"), "{refusal}");
    done(path, &["init", "--encrypt", "--passphrase-file", &secret]);
    let key = path.join("ca/ca.key");
    let pem = std::fs::read_to_string(&key).unwrap();
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    assert_eq!(mode(&key), 0o600);

    let said = refused(path, &["issue", "viewer", "alice"], 1);
    assert!(said.contains("ca.key"), "{said}");
    let said = refused(
        path,
        &["issue", "viewer", "alice", "--passphrase-file", &wrong],
        1,
    );
    assert!(
        said.contains("ca.key") && said.contains("passphrase"),
        "{said}"
    );
    done(
        path,
        &["issue", "viewer", "alice", "--passphrase-file", &secret],
    );
    // What needs no signature needs no passphrase.
    done(path, &["issue", "viewer", "alice"]);
    done(path, &["list"]);

    // From a descriptor, several signatures with one reading.
    let script = "exec \"$0\" bundle quickstart --quiet --passphrase-fd 7 7< \"$1\"";
    let status = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_certgen"), &secret])
        .env("CERTGEN_DIR", path)
        .status();
    assert!(status.unwrap().success());
    let output = certgen(path, &["revoke", "alice", "--json"])
        .env("CERTGEN_PASSPHRASE_FILE", &secret)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");

    // openssl opens the same key with the same passphrase.
    let (key, pass) = (key.display().to_string(), format!("file:{secret}"));
    let public = openssl(&["pkey", "-in", &key, "-passin", &pass, "-pubout"]);
    let ca = path.join("ca/ca.pem").display().to_string();
    assert_eq!(openssl(&["x509", "-in", &ca, "-noout", "-pubkey"]), public);
}

#[test]
fn a_quickstart_without_the_passphrase_keeps_what_serves() {
    let dir = folder();
    let path = &dir.path().join("pki");
    let secret = write(&dir.path().join("secret"), "correct horse");
    done(path, &["init", "--encrypt", "--passphrase-file", &secret]);
    done(
        path,
        &["bundle", "quickstart", "--passphrase-file", &secret],
    );
    let again = json(
        path,
        &["bundle", "quickstart", "--json", "--san", "new.example"],
    );
    assert_eq!(again["issued"][0]["outcome"], "unchanged");
}

#[test]
fn nodes_get_keys_that_are_never_printed() {
    let dir = folder();
    let path = dir.path();
    let file = path.join("psk");
    let said = done(path, &["psk", "add", "kitchen"]);
    let line = std::fs::read_to_string(&file).unwrap();
    let key = line.trim_end().strip_prefix("kitchen:").unwrap();
    assert!(key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit()));
    assert!(!said.contains(key) && said.contains("psk"), "{said}");
    assert_eq!(mode(&file), 0o600);
    done(path, &["psk", "add", "kitchen"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), line);

    let brought = write(&path.join("brought"), "000102030405060708090A0B0C0D0E0F\n");
    done(path, &["psk", "add", "attic", "--key-file", &brought]);
    let said = refused(path, &["psk", "add", "kitchen", "--key-file", &brought], 3);
    assert!(said.contains("--force") && said.contains("psk"), "{said}");
    done(
        path,
        &["psk", "add", "kitchen", "--key-file", &brought, "--force"],
    );
    let text = std::fs::read_to_string(&file).unwrap();
    let same = "000102030405060708090a0b0c0d0e0f";
    assert_eq!(text, format!("kitchen:{same}\nattic:{same}\n"));
    let short = write(&path.join("short"), "0001");
    let said = refused(path, &["psk", "add", "cellar", "--key-file", &short], 1);
    assert!(said.contains("hex digits"), "{said}");

    assert_eq!(done(path, &["psk", "list"]), "kitchen\nattic\n");
    done(path, &["psk", "remove", "attic"]);
    let said = refused(path, &["psk", "remove", "attic"], 1);
    assert!(said.contains("attic is not in"), "{said}");
    assert_eq!(json(path, &["psk", "list", "--json"])[0]["name"], "kitchen");
}

#[test]
fn passwords_are_hashed_and_lines_of_others_stay() {
    let dir = folder();
    let path = dir.path();
    let file = path.join("passwd");
    write(&file, "# people\nbob:operator:$argon2id$x\n\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let secret = write(&path.join("secret"), "correct horse\n");
    let add = [
        "passwd",
        "add",
        "viewer",
        "alice",
        "--password-file",
        &secret,
    ];
    let said = done(path, &add);
    assert!(said.contains("only read"), "{said}");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# people\nbob:operator:$argon2id$x\n\n"));
    let hash = text.lines().last().unwrap().strip_prefix("alice:viewer:");
    let hash = PasswordHash::new(hash.unwrap()).unwrap();
    let check = |password: &[u8]| Argon2::default().verify_password(password, &hash);
    assert_eq!(hash.algorithm.as_str(), "argon2id");
    check(b"correct horse").unwrap();
    check(b"correct horse\n").unwrap_err();
    assert_eq!(mode(&file), 0o640, "the bus may read it still");

    done(path, &add);
    let again = std::fs::read_to_string(&file).unwrap();
    assert_ne!(again, text, "another salt");
    assert_eq!(again.lines().count(), 4);
    assert_eq!(
        done(path, &["passwd", "list"]),
        "bob  operator\nalice  viewer\n"
    );
    done(path, &["passwd", "remove", "bob"]);
    assert_eq!(done(path, &["passwd", "list"]), "alice  viewer\n");

    let said = refused(path, &["passwd", "add", "viewer", "carol"], 1);
    assert!(said.contains("no terminal"), "{said}");
    let empty = write(&path.join("empty"), "\n");
    let add = [
        "passwd",
        "add",
        "viewer",
        "carol",
        "--password-file",
        &empty,
    ];
    assert!(refused(path, &add, 1).contains("empty"));
    write(&file, "alice:viewer:x\nrubbish\n");
    let said = refused(path, &["passwd", "list"], 1);
    assert!(
        said.contains("line 2 of") && said.contains("passwd"),
        "{said}"
    );
}

#[test]
fn many_at_once_lose_no_line() {
    let dir = folder();
    let children: Vec<_> = (0..8)
        .map(|n| {
            let name = format!("node-{n}");
            let mut command = certgen(dir.path(), &["psk", "add", &name, "--quiet"]);
            command.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(done(dir.path(), &["psk", "list"]).lines().count(), 8);
}

#[test]
fn completions_and_manual_pages_are_made_from_the_command_line() {
    let dir = folder();
    for shell in ["bash", "zsh", "fish"] {
        let script = done(dir.path(), &["completions", shell]);
        assert!(script.contains("needs-renewal"), "{script}");
    }
    let pages = dir.path().join("man");
    done(dir.path(), &["man", "--to", pages.to_str().unwrap()]);
    for page in ["certgen.1", "certgen-renew.1", "certgen-psk-add.1"] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}
