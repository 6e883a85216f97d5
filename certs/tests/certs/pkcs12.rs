//! Certificate, key and authority in one file for phones and browsers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::command::{done, folder, json, openssl, peer, refused};
use crate::peers::Server;

fn password(dir: &Path, text: &str) -> String {
    let path = dir.join("secret");
    std::fs::write(&path, format!("{text}\n")).unwrap();
    path.display().to_string()
}

#[test]
fn openssl_imports_it_and_finds_nothing_old_in_it() {
    let dir = folder();
    let path = &dir.path().join("pki");
    let secret = password(dir.path(), "pässword 1");
    done(path, &["init"]);
    for kind in ["p256", "rsa", "ed25519"] {
        let issue = ["issue", "viewer", kind, "--key-type", kind];
        let p12 = ["--p12", "--p12-password-file", &secret];
        let said = done(path, &[&issue[..], &p12].concat());
        assert!(
            said.contains("identity.p12") && said.contains("import"),
            "{said}"
        );
        let file = |name: &str| {
            path.join("viewer")
                .join(kind)
                .join(name)
                .display()
                .to_string()
        };
        let pass = format!("file:{secret}");
        let p12 = file("identity.p12");
        let mode = Path::new(&p12).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let open = |more: &[&str]| {
            openssl(&[&["pkcs12", "-in", &p12, "-passin", &pass][..], more].concat())
        };
        let public = |pem: &str| {
            let copy = dir.path().join("key.pem");
            std::fs::write(&copy, pem).unwrap();
            openssl(&["pkey", "-in", copy.to_str().unwrap(), "-pubout"])
        };
        let key = std::fs::read_to_string(file("key.pem")).unwrap();
        assert_eq!(public(&open(&["-nocerts", "-nodes"])), public(&key));
        let holder = open(&["-clcerts", "-nokeys"]);
        let cert = std::fs::read_to_string(file("cert.pem")).unwrap();
        assert!(holder.contains(cert.trim_end()), "{holder}");
        let authority = open(&["-cacerts", "-nokeys"]);
        let ca = std::fs::read_to_string(file("ca.pem")).unwrap();
        assert!(authority.contains(ca.trim_end()), "{authority}");

        let info = ["pkcs12", "-in", &p12, "-passin", &pass, "-info", "-noout"];
        let info = String::from_utf8(peer("openssl", &info).stderr).unwrap();
        assert!(info.contains("MAC: sha256, Iteration 100000"), "{info}");
        let modern = "PBES2, PBKDF2, AES-256-CBC, Iteration 100000, PRF hmacWithSHA256";
        assert_eq!(
            info.matches(modern).count(),
            2,
            "key and certificates: {info}"
        );
    }
}

#[test]
fn curl_shows_it_to_a_server() {
    let dir = folder();
    let path = dir.path();
    let secret = password(path, "correct-horse");
    done(path, &["bundle", "quickstart"]);
    let issue = [
        "issue",
        "operator",
        "phone",
        "--p12",
        "--p12-password-file",
        &secret,
    ];
    done(path, &issue);
    let file = |name: &str| path.join(name).display().to_string();
    let (ca, p12) = (file("ca/ca.pem"), file("operator/phone/identity.p12"));
    let server = Server::openssl(path, "broker/bus");
    let get = |password: &str| {
        let url = format!("https://localhost:{}/", server.port());
        let with = format!("{p12}:{password}");
        let args = [
            "-sS",
            "--max-time",
            "20",
            "--cacert",
            &ca,
            "--cert-type",
            "P12",
            "--cert",
        ];
        peer("curl", &[&args[..], &[&with, &url]].concat())
            .status
            .success()
    };
    assert!(get("correct-horse"));
    assert!(!get("battery-staple"));
}

#[test]
fn it_is_of_the_certificate_it_was_asked_for() {
    let dir = folder();
    let path = dir.path();
    let secret = password(path, "correct horse");
    done(path, &["init"]);
    done(path, &["issue", "viewer", "alice"]);
    let serial = || json(path, &["show", "--json", "alice"])[0]["serial"].clone();
    let before = serial();
    let p12 = path.join("viewer/alice/identity.p12");
    let ask = [
        "issue",
        "viewer",
        "alice",
        "--p12",
        "--p12-password-file",
        &secret,
    ];
    let said = done(path, &ask);
    assert!(said.contains("wrote its PKCS#12 file"), "{said}");
    assert_eq!(serial(), before, "the certificate that exists is in it");
    done(path, &ask);

    // It is carried with the rest, and gone once it would be an old one.
    let to = path.join("carry");
    done(path, &["export", "alice", "--to", to.to_str().unwrap()]);
    assert!(to.join("identity.p12").is_file());
    let mode = to
        .join("identity.p12")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = done(path, &["renew", "alice"]);
    assert!(said.contains("certgen issue viewer alice --p12"), "{said}");
    assert!(p12.symlink_metadata().is_err());
    done(path, &ask);
    let said = done(path, &["renew", "--all", "--within", "0%"]);
    assert!(said.contains("certgen issue viewer alice --p12"), "{said}");
    assert!(p12.symlink_metadata().is_err());
}

#[test]
fn its_password_comes_from_a_file_or_a_descriptor_and_is_no_argument() {
    let dir = folder();
    let path = dir.path();
    let secret = password(path, "correct horse");
    done(path, &["init"]);
    let said = refused(path, &["issue", "viewer", "alice", "--p12"], 1);
    assert!(
        said.contains("no terminal") && said.contains("PKCS#12"),
        "{said}"
    );
    let empty = path.join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let with = ["--p12-password-file", empty.to_str().unwrap()];
    let said = refused(
        path,
        &[&["issue", "viewer", "alice", "--p12"][..], &with].concat(),
        1,
    );
    assert!(said.contains("is empty"), "{said}");
    assert!(!path.join("viewer").exists(), "nothing is made without it");
    let script = "exec \"$0\" issue viewer alice --p12 --p12-password-fd 7 --quiet 7< \"$1\"";
    let status = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_certgen"), &secret])
        .env("CERTGEN_DIR", path)
        .status();
    assert!(status.unwrap().success());
    assert!(path.join("viewer/alice/identity.p12").exists());

    // Who keeps the key has to make the file.
    let (key, csr) = (path.join("k"), path.join("csr"));
    let (key, csr) = (key.to_str().unwrap(), csr.to_str().unwrap());
    let new = [
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x",
    ];
    openssl(&[&new[..], &["-keyout", key, "-out", csr]].concat());
    done(path, &["issue", "viewer", "bob", "--csr", csr]);
    let ask = [
        "issue",
        "viewer",
        "bob",
        "--p12",
        "--p12-password-file",
        &secret,
    ];
    let said = refused(path, &ask, 1);
    assert!(
        said.contains("csr.pem") && said.contains("PKCS#12"),
        "{said}"
    );
}
