//! The later life of a certificate: renewed, revoked, looked at and carried elsewhere.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use certs::{Error, Existing, Flaw, Outcome, Reason, RevocationReason, Revoked, State, Within};

use crate::bench::{Bench, identity};
use crate::command::{certgen, done, folder, json, openssl, peer, refused, run};

#[test]
fn renewing_keeps_the_key_unless_told_otherwise() {
    let mut bench = Bench::initialised();
    let first = bench
        .ask("broker/bus", &["a.example"], Existing::Keep)
        .unwrap();
    let key = std::fs::read(bench.path("broker/bus/key.pem")).unwrap();
    let who = identity("broker/bus");

    bench.pass(100);
    let (pki, surroundings) = (&bench.pki, &mut bench.surroundings);
    let early = pki
        .renew(&who, Some(Within::default()), false, surroundings)
        .unwrap();
    assert_eq!(early.outcome, Outcome::Unchanged);
    let renewed = pki.renew(&who, None, false, surroundings).unwrap();
    assert_eq!(renewed.outcome, Outcome::Replaced(Reason::Renewed));
    assert_eq!(renewed.certificate.sans, first.certificate.sans);
    assert!(renewed.certificate.not_after > first.certificate.not_after);
    assert_eq!(
        std::fs::read(bench.path("broker/bus/key.pem")).unwrap(),
        key
    );
    bench
        .pki
        .renew(&who, None, true, &mut bench.surroundings)
        .unwrap();
    assert_ne!(
        std::fs::read(bench.path("broker/bus/key.pem")).unwrap(),
        key
    );
}

#[test]
fn all_is_renewed_in_time_and_nothing_else() {
    let mut bench = Bench::new();
    bench.quickstart(&[]);
    bench.issue("node/kitchen");
    bench.pass(245);
    let renewals = bench
        .pki
        .renew_all(Within::default(), false, &mut bench.surroundings)
        .unwrap();
    let renewed: Vec<String> = renewals
        .iter()
        .filter(|one| one.result.as_ref().unwrap().outcome != Outcome::Unchanged)
        .map(|one| one.identity.to_string())
        .collect();
    let expected = [
        "bridge/coap",
        "bridge/ws",
        "dashboard/dashboard",
        "operator/operator",
        "viewer/viewer",
    ];
    assert_eq!(renewed, expected);
}

#[test]
fn one_that_cannot_be_renewed_hinders_no_other() {
    let mut bench = Bench::initialised();
    bench.issue("viewer/alice");
    bench.issue("viewer/bob");
    std::fs::write(bench.path("viewer/alice/..live/key.pem"), "").unwrap();
    let renewals = bench
        .pki
        .renew_all(Within::Over(0), false, &mut bench.surroundings)
        .unwrap();
    let error = renewals[0].result.as_ref().unwrap_err();
    assert!(error.to_string().contains("viewer/alice"), "{error}");
    let renewed = renewals[1].result.as_ref().unwrap();
    assert_eq!(renewed.outcome, Outcome::Replaced(Reason::Renewed));
}

#[test]
fn what_is_revoked_stays_so() {
    let mut bench = Bench::initialised();
    bench.issue("broker/bus");
    let old = bench.issue("viewer/alice").certificate;
    let live = bench
        .ask("viewer/alice", &[], Existing::Replace)
        .unwrap()
        .certificate;
    let what = Revoked::Name("alice".parse().unwrap());
    let reason = RevocationReason::KeyCompromise;
    let done = bench
        .pki
        .revoke(&what, reason, &bench.surroundings)
        .unwrap();
    let serials: Vec<&String> = done.revoked.iter().map(|one| &one.serial).collect();
    assert_eq!(serials, [&old.serial, &live.serial], "every one of alice's");
    assert_eq!(done.copies, [bench.path("broker/bus/crl.pem")]);
    let again = bench
        .pki
        .revoke(&what, reason, &bench.surroundings)
        .unwrap();
    assert!(again.revoked.is_empty() && again.listed == 2 && again.number == 2);

    let listed = bench.pki.list(bench.surroundings.now).unwrap();
    assert_eq!(listed[1].state, State::Revoked);
    let verdict = bench
        .pki
        .verify(&bench.path("viewer/alice/cert.pem"), bench.surroundings.now)
        .unwrap();
    assert_eq!(verdict.flaws, [Flaw::Revoked]);
    let who = identity("viewer/alice");
    let refused = bench
        .pki
        .renew(&who, None, false, &mut bench.surroundings)
        .unwrap_err();
    assert!(matches!(refused, Error::Revoked { .. }), "{refused}");
    let refused = bench.ask("viewer/alice", &[], Existing::Keep).unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");
    bench.ask("viewer/alice", &[], Existing::Replace).unwrap();
    assert_eq!(
        bench.pki.list(bench.surroundings.now).unwrap()[1].state,
        State::Valid
    );
    // A bus that comes later gets the list too.
    bench.issue("broker/second");
    assert!(bench.path("broker/second/crl.pem").exists());
}

#[test]
fn a_quickstart_does_not_bring_back_what_was_revoked() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    done(path, &["revoke", "viewer"]);
    let serial = || json(path, &["show", "--json", "viewer"])[0]["serial"].clone();
    let revoked = serial();
    let said = done(path, &["bundle", "quickstart"]);
    assert!(
        said.contains("viewer/viewer was revoked and stays so")
            && said.contains("certgen issue viewer viewer --force"),
        "{said}"
    );
    let again = json(path, &["bundle", "quickstart", "--json"]);
    assert_eq!(again["issued"][5]["outcome"], "revoked");
    assert_eq!(serial(), revoked);
    done(path, &["issue", "viewer", "viewer", "--force"]);
    let again = json(path, &["bundle", "quickstart", "--json"]);
    assert_eq!(again["issued"][5]["outcome"], "unchanged");
}

#[test]
fn the_list_is_made_anew_before_it_ends() {
    let mut bench = Bench::initialised();
    bench.issue("broker/bus");
    let made = bench.pki.crl(90, &bench.surroundings).unwrap();
    let list = || std::fs::read(&made.path).unwrap();
    let first = list();
    let mut pass = |days| {
        bench.pass(days);
        let (pki, surroundings) = (&bench.pki, &mut bench.surroundings);
        pki.renew_all(Within::default(), false, surroundings)
            .unwrap();
    };
    pass(44);
    assert_eq!(list(), first);
    pass(2);
    assert_ne!(list(), first);
}

#[test]
fn every_flaw_is_found() {
    let mut bench = Bench::initialised();
    let mut other = Bench::initialised();
    bench.issue("viewer/alice");
    other.issue("viewer/mallory");
    fn flaws(bench: &Bench, path: &Path) -> Vec<Flaw> {
        let verdict = bench.pki.verify(path, bench.surroundings.now);
        verdict.unwrap().flaws
    }
    let alice = bench.path("viewer/alice/cert.pem");
    assert_eq!(flaws(&bench, &alice), []);
    assert_eq!(flaws(&bench, &bench.path("ca/ca.pem")), []);
    let mallory = other.path("viewer/mallory/cert.pem");
    assert_eq!(flaws(&bench, &mallory), [Flaw::OtherAuthority]);
    let foreign = std::fs::read(other.path("viewer/mallory/key.pem")).unwrap();
    std::fs::write(bench.path("viewer/alice/..live/key.pem"), foreign).unwrap();
    assert_eq!(flaws(&bench, &alice), [Flaw::OtherKey]);
    bench.pass(-1);
    assert_eq!(flaws(&bench, &alice), [Flaw::NotYetValid, Flaw::OtherKey]);
    bench.pass(400);
    assert_eq!(flaws(&bench, &alice), [Flaw::Expired, Flaw::OtherKey]);
    std::fs::remove_file(bench.path("ca/index.json")).unwrap();
    assert!(flaws(&bench, &alice).contains(&Flaw::Unlisted));
}

#[test]
fn needs_renewal_answers_by_its_exit_code() {
    let dir = folder();
    let code = |args: &[&str]| run(dir.path(), args).status.code().unwrap();
    assert_eq!(code(&["needs-renewal", "alice"]), 2);
    done(dir.path(), &["init"]);
    done(dir.path(), &["issue", "viewer", "alice", "--days", "20"]);
    assert_eq!(code(&["needs-renewal", "alice"]), 1);
    assert_eq!(code(&["needs-renewal", "alice", "--within", "30d"]), 0);
    assert_eq!(
        code(&["needs-renewal", "viewer/alice", "--within", "0%"]),
        0
    );
    assert_eq!(code(&["needs-renewal", "nobody"]), 2);
    assert_eq!(code(&["needs-renewal", "alice", "--within", "soon"]), 4);
    assert_eq!(code(&["needs-renewal"]), 4);
    std::fs::write(dir.path().join("viewer/alice/..live/cert.pem"), "").unwrap();
    assert_eq!(code(&["needs-renewal", "alice"]), 4);
    assert_eq!(code(&["needs-renewal", "--help"]), 0);
}

#[test]
fn lists_and_copies_are_for_people_and_programs() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    done(path, &["issue", "node", "kitchen", "--days", "20"]);
    let all = done(path, &["list"]);
    assert!(all.contains("broker/bus") && all.contains("valid"), "{all}");
    let soon = json(path, &["list", "--json", "--expiring", "30d"]);
    assert_eq!(soon.as_array().unwrap().len(), 1);
    assert_eq!(soon[0]["name"], "kitchen");

    let to = path.join("carry/kitchen");
    let said = done(path, &["export", "kitchen", "--to", to.to_str().unwrap()]);
    assert!(said.contains("key.pem"), "{said}");
    for (name, mode) in [("ca.pem", 0o644), ("cert.pem", 0o644), ("key.pem", 0o600)] {
        let meta = to.join(name).symlink_metadata().unwrap();
        assert!(meta.is_file());
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
    }
    assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o700);

    done(path, &["issue", "operator", "kitchen", "--force"]);
    let said = refused(path, &["export", "kitchen", "--to", "x"], 1);
    assert!(said.contains("node/kitchen"), "{said}");
    let said = refused(path, &["renew", "nobody"], 1);
    assert!(said.contains("certgen list"), "{said}");
    let cert = path.join("viewer/viewer/cert.pem").display().to_string();
    assert!(done(path, &["verify", &cert]).contains("is good"));
    done(path, &["revoke", "viewer"]);
    let output = run(path, &["verify", &cert]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("was revoked"));
}

#[test]
fn openssl_agrees_on_the_revoked() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    let serial = json(path, &["show", "--json", "viewer"])[0]["serial"].clone();
    let serial = serial.as_str().unwrap();
    done(path, &["revoke", serial, "--reason", "key-compromise"]);
    let file = |name: &str| path.join(name).display().to_string();
    let crl = file("broker/bus/crl.pem");
    let text = openssl(&["crl", "-in", &crl, "-noout", "-text", "-nameopt", "RFC2253"]);
    for part in [
        "Key Compromise",
        "X509v3 CRL Number",
        &serial.to_uppercase(),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    openssl(&["crl", "-in", &crl, "-noout", "-CAfile", &file("ca/ca.pem")]);
    let verify = |who: &str| {
        let (ca, cert) = (file("ca/ca.pem"), file(who));
        let flags = ["verify", "-x509_strict", "-crl_check", "-CRLfile", &crl];
        let output = peer("openssl", &[&flags[..], &["-CAfile", &ca, &cert]].concat());
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert!(verify("operator/operator/cert.pem").0);
    let (good, said) = verify("viewer/viewer/cert.pem");
    assert!(!good && said.contains("certificate revoked"), "{said}");
}

#[test]
fn a_request_is_certified_and_its_key_stays_where_it_is() {
    let dir = folder();
    let path = dir.path();
    done(path, &["init"]);
    let key = path.join("kitchen.key").display().to_string();
    let csr = path.join("kitchen.csr").display().to_string();
    let new =
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /O=Evil/CN=root";
    let new: Vec<&str> = new.split(' ').collect();
    openssl(&[&new[..], &["-keyout", &key, "-out", &csr]].concat());
    let said = done(path, &["issue", "node", "kitchen", "--csr", &csr]);
    assert!(
        said.contains("csr.pem") && !said.contains("key.pem  "),
        "{said}"
    );
    assert!(!path.join("node/kitchen/key.pem").exists());
    let cert = path.join("node/kitchen/cert.pem").display().to_string();
    let public = openssl(&["pkey", "-in", &key, "-pubout"]);
    let certified = || openssl(&["x509", "-in", &cert, "-noout", "-pubkey"]);
    assert_eq!(certified(), public);
    let shown = json(path, &["show", "--json", "kitchen"]);
    assert_eq!(
        shown[0]["subject"], "CN=kitchen",
        "what it asks for is not heard"
    );

    assert!(done(path, &["issue", "node", "kitchen"]).contains("nothing changed"));
    done(path, &["renew", "kitchen"]);
    assert_eq!(certified(), public);
    let said = refused(path, &["renew", "kitchen", "--rekey"], 1);
    assert!(said.contains("--csr"), "{said}");
    done(path, &["issue", "node", "kitchen", "--csr", &csr]);
    let (key2, csr2) = (format!("{key}.2"), format!("{csr}.2"));
    openssl(&[&new[..], &["-keyout", &key2, "-out", &csr2]].concat());
    let said = refused(path, &["issue", "node", "kitchen", "--csr", &csr2], 3);
    assert!(
        said.contains("another key") && said.contains(&csr2),
        "{said}"
    );
    let said = refused(path, &["issue", "node", "attic", "--csr", &key], 1);
    assert!(
        said.contains("kitchen.key") && said.contains("openssl req"),
        "{said}"
    );
    let said = refused(path, &["issue", "node", "attic", "--csr", "nowhere.csr"], 1);
    assert!(said.contains("nowhere.csr"), "{said}");
}

#[test]
fn keys_of_every_kind_are_certified_and_kept_on_renewal() {
    let dir = folder();
    let path = dir.path();
    done(path, &["init"]);
    for (kind, text) in [
        ("p256", "prime256v1"),
        ("ed25519", "ED25519"),
        ("rsa", "3072 bit"),
    ] {
        done(path, &["issue", "viewer", kind, "--key-type", kind]);
        done(path, &["renew", kind, "--rekey"]);
        let file = |name: &str| {
            path.join("viewer")
                .join(kind)
                .join(name)
                .display()
                .to_string()
        };
        let (ca, cert) = (file("ca.pem"), file("cert.pem"));
        openssl(&["verify", "-purpose", "sslclient", "-CAfile", &ca, &cert]);
        let shown = openssl(&["x509", "-in", &cert, "-noout", "-text"]);
        assert!(shown.contains(text), "{text}: {shown}");
        assert!(done(path, &["verify", &cert]).contains("is good"));
        let certified = openssl(&["x509", "-in", &cert, "-noout", "-pubkey"]);
        let key = file("key.pem");
        assert_eq!(openssl(&["pkey", "-in", &key, "-pubout"]), certified);
    }
}

#[test]
fn a_constrained_node_compiles_its_identity_in() {
    let dir = folder();
    let path = dir.path();
    done(path, &["init"]);
    done(path, &["issue", "node", "kitchen"]);
    let to = path.join("carry");
    let file = |name: &str| to.join(name).display().to_string();
    let args = ["export", "kitchen", "--format", "c", "--to"];
    done(path, &[&args[..], &[to.to_str().unwrap()]].concat());
    let der = std::fs::read(to.join("cert.der")).unwrap();
    assert!(der.len() < 600, "{} bytes", der.len());
    let certified = openssl(&[
        "x509",
        "-inform",
        "DER",
        "-in",
        &file("cert.der"),
        "-noout",
        "-pubkey",
    ]);
    let key = file("key.der");
    assert_eq!(
        openssl(&["pkey", "-inform", "DER", "-in", &key, "-pubout"]),
        certified
    );

    let header = std::fs::read_to_string(to.join("identity.h")).unwrap();
    let (_, array) = header.split_once("nodebus_cert_der[] = {").unwrap();
    let (array, _) = array.split_once("};").unwrap();
    let bytes = array
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty());
    let bytes: Vec<u8> = bytes
        .map(|word| u8::from_str_radix(word.trim_start_matches("0x"), 16).unwrap())
        .collect();
    assert_eq!(bytes, der);
    let program = to.join("node.c");
    let text = format!(
        "#include \"identity.h\"\nint main(void) {{\n  return sizeof nodebus_cert_der == {} \
         && sizeof nodebus_key_der > 32 && nodebus_ca_der[0] == 0x30 ? 0 : 1;\n}}\n",
        der.len()
    );
    std::fs::write(&program, text).unwrap();
    let (program, binary) = (file("node.c"), file("node"));
    let built = peer(
        "cc",
        &["-Wall", "-Wextra", "-Werror", "-o", &binary, &program],
    );
    assert!(built.status.success(), "{built:?}");
    assert!(peer(&binary, &[]).status.success());
    for (name, mode) in [
        ("cert.der", 0o644),
        ("key.der", 0o600),
        ("identity.h", 0o600),
    ] {
        let meta = to.join(name).metadata().unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn a_kill_while_revoking_or_renewing_leaves_a_usable_pki() {
    for (args, moment) in [
        (&["revoke", "viewer"][..], "ca/..index.json.new"),
        (&["revoke", "viewer"], "ca/..crl.pem.new"),
        (&["revoke", "viewer"], "ca/crl.pem"),
        (&["renew", "--all", "--within", "0%"], "ca/..index.json.new"),
        (
            &["renew", "--all", "--within", "0%"],
            "broker/bus/...live.new",
        ),
        (
            &["rotate-ca", "--stage", "prepare"],
            "ca/rotation/..new.pem.new",
        ),
        (&["rotate-ca", "--stage", "prepare"], "ca/..ca.pem.new"),
    ] {
        let dir = folder();
        let path = dir.path();
        done(path, &["bundle", "quickstart"]);
        let mut child = certgen(path, args).stdout(Stdio::null()).spawn().unwrap();
        // Some moments are short: when it is missed, the command is killed later or not at all.
        while path.join(moment).symlink_metadata().is_err() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        for one in json(path, &["list", "--json"]).as_array().unwrap() {
            assert_ne!(one["state"], "damaged", "{args:?} killed at {moment}");
        }
        done(path, args);
        let viewer = path.join("viewer/viewer/cert.pem").display().to_string();
        let verdict = run(path, &["verify", &viewer]).status.code();
        assert_eq!(verdict, Some(i32::from(args[0] == "revoke")));
        if args[0] == "revoke" {
            let copy = std::fs::read(path.join("broker/bus/crl.pem")).unwrap();
            assert_eq!(copy, std::fs::read(path.join("ca/crl.pem")).unwrap());
        }
    }
}

#[test]
fn many_revocations_at_once_are_all_listed() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    let names = ["viewer", "operator", "coap", "ws", "dashboard"];
    let children: Vec<_> = names
        .iter()
        .map(|name| certgen(path, &["revoke", name, "--quiet"]).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let made = json(path, &["crl", "--json"]);
    assert_eq!((&made["listed"], &made["number"]), (&5.into(), &6.into()));
}
