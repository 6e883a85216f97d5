//! One authority takes the place of another, and nobody is shut out meanwhile.

use std::path::Path;

use crate::command::{certgen, done, folder, json, openssl, peer, refused, run};
use crate::handshake::handshake;
use crate::peers::Server;

fn rotate(path: &Path, stage: &str) -> String {
    done(path, &["rotate-ca", "--stage", stage])
}

/// Everyone in `who` and the bus as it is now and as it was in `earlier` take each other.
#[track_caller]
fn assert_all_connect(path: &Path, who: &[&str]) {
    let bus = path.join("broker/bus");
    for who in who {
        let shaken = handshake(&bus, &path.join(who), "localhost");
        assert!(shaken.is_ok(), "{who}: {shaken:?}");
    }
}

/// openssl takes the certificate for what it is for, and finds it in no list of revocations.
#[track_caller]
fn openssl_verifies(path: &Path, who: &str, purpose: &str) -> bool {
    let file = |name: &str| path.join(name).display().to_string();
    let (ca, crl) = (file("broker/bus/ca.pem"), file("broker/bus/crl.pem"));
    let flags = ["verify", "-x509_strict", "-purpose", purpose, "-crl_check"];
    let with = ["-CRLfile", &crl, "-CAfile", &ca];
    let cert = file(&format!("{who}/cert.pem"));
    peer("openssl", &[&flags[..], &with, &[&cert]].concat())
        .status
        .success()
}

#[test]
fn every_client_renewed_or_not_connects_at_every_stage() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    done(path, &["issue", "node", "sold"]);
    done(path, &["revoke", "sold"]);
    let everyone = [
        "bridge/coap",
        "bridge/ws",
        "dashboard/dashboard",
        "operator/operator",
        "viewer/viewer",
    ];
    let check = || {
        assert_all_connect(path, &everyone);
        assert!(openssl_verifies(path, "broker/bus", "sslserver"));
        assert!(
            everyone
                .iter()
                .all(|who| openssl_verifies(path, who, "sslclient"))
        );
        assert!(
            !openssl_verifies(path, "node/sold", "sslclient"),
            "stays revoked"
        );
    };
    let issuer = |who: &str| json(path, &["show", "--json", who])[0]["issuer"].clone();
    let old = issuer("coap");
    check();

    rotate(path, "prepare");
    check();
    done(path, &["renew", "ws"]);
    assert_eq!(issuer("ws"), old, "the old one signs");
    check();

    rotate(path, "switch");
    check();
    // Some are renewed and some not, and the bus is either.
    done(path, &["renew", "operator", "--rekey"]);
    assert_ne!(issuer("operator"), old);
    check();
    done(path, &["renew", "bus"]);
    check();
    // Of both authorities one can be revoked.
    done(path, &["issue", "viewer", "mallory"]);
    done(path, &["revoke", "mallory"]);
    done(path, &["revoke", "viewer"]);
    assert!(!openssl_verifies(path, "viewer/mallory", "sslclient"));
    assert!(!openssl_verifies(path, "viewer/viewer", "sslclient"));
    done(path, &["issue", "viewer", "viewer", "--force"]);
    check();

    let said = refused(path, &["rotate-ca", "--stage", "finish"], 1);
    for part in [
        "bridge/coap",
        "dashboard/dashboard",
        "certgen renew --all",
        "--force",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("operator/operator"), "{said}");
    check();
    // The timer of every day renews what is left.
    done(path, &["renew", "--all"]);
    check();
    rotate(path, "finish");
    assert_all_connect(path, &everyone);
    assert!(
        everyone
            .iter()
            .all(|who| openssl_verifies(path, who, "sslclient"))
    );
    let anchors = std::fs::read_to_string(path.join("viewer/viewer/ca.pem")).unwrap();
    assert_eq!(
        anchors.matches("BEGIN").count(),
        1,
        "only the new one is trusted"
    );
    let list = std::fs::read_to_string(path.join("broker/bus/crl.pem")).unwrap();
    assert_eq!(list.matches("BEGIN").count(), 1);
    done(path, &["issue", "viewer", "late"]);
    assert_all_connect(path, &["viewer/late"]);
}

#[test]
fn who_is_left_behind_is_shut_out_only_at_the_end_and_when_asked_for() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    rotate(path, "prepare");
    rotate(path, "switch");
    done(path, &["renew", "bus"]);
    assert_all_connect(path, &["viewer/viewer"]);
    done(path, &["rotate-ca", "--stage", "finish", "--force"]);
    let bus = path.join("broker/bus");
    handshake(&bus, &path.join("viewer/viewer"), "localhost").unwrap_err();
    let cert = path.join("viewer/viewer/cert.pem").display().to_string();
    assert_eq!(run(path, &["verify", &cert]).status.code(), Some(1));
    done(path, &["bundle", "quickstart"]);
    assert_all_connect(path, &["viewer/viewer"]);
}

#[test]
fn a_stage_is_done_once_and_in_its_order() {
    let dir = folder();
    let path = dir.path();
    let said = refused(path, &["rotate-ca", "--stage", "prepare"], 1);
    assert!(said.contains("certgen init"), "{said}");
    done(path, &["bundle", "quickstart"]);
    let first = |what: &str, said: String| {
        let command = format!("run `certgen rotate-ca --stage {what}` first");
        assert!(said.contains(&command), "{said}");
    };
    first(
        "prepare",
        refused(path, &["rotate-ca", "--stage", "switch"], 1),
    );
    let key = std::fs::read(path.join("ca/ca.key")).unwrap();
    assert!(rotate(path, "finish").contains("nothing changed"));
    rotate(path, "prepare");
    let new = std::fs::read(path.join("ca/rotation/new.key")).unwrap();
    first(
        "switch",
        refused(path, &["rotate-ca", "--stage", "finish"], 1),
    );
    assert!(rotate(path, "prepare").contains("nothing changed"));
    rotate(path, "switch");
    for stage in ["switch", "prepare"] {
        let said = rotate(path, stage);
        assert!(
            said.contains("nothing changed") && said.contains("renew --all"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read(path.join("ca/ca.key")).unwrap(), key);
    done(path, &["renew", "--all"]);
    rotate(path, "finish");
    assert!(rotate(path, "finish").contains("nothing changed"));
    assert_eq!(
        std::fs::read(path.join("ca/ca.key")).unwrap(),
        new,
        "no key is lost"
    );
}

#[test]
fn what_was_left_out_is_mended_by_doing_a_stage_again() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    let copy = std::fs::read(path.join("viewer/viewer/ca.pem")).unwrap();
    rotate(path, "prepare");
    // As from a backup of yesterday.
    std::fs::write(path.join("viewer/viewer/..live/ca.pem"), copy).unwrap();
    rotate(path, "switch");
    done(path, &["renew", "bus"]);
    assert_all_connect(path, &["viewer/viewer"]);
}

#[test]
fn a_new_authority_is_under_the_passphrase_of_the_old_one() {
    let dir = folder();
    let path = &dir.path().join("pki");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "correct horse\n").unwrap();
    let secret = secret.display().to_string();
    let with = |args: &[&str]| done(path, &[args, &["--passphrase-file", &secret]].concat());
    with(&["init", "--name", "The lab's", "--years", "3", "--encrypt"]);
    with(&["bundle", "quickstart"]);
    let said = refused(path, &["rotate-ca", "--stage", "prepare"], 1);
    assert!(said.contains("ca.key"), "{said}");
    with(&["rotate-ca", "--stage", "prepare"]);
    let key = path.join("ca/rotation/new.key");
    let (pass, key) = (format!("file:{secret}"), key.display().to_string());
    assert!(std::fs::read_to_string(&key).unwrap().contains("ENCRYPTED"));
    openssl(&["pkey", "-in", &key, "-passin", &pass, "-noout"]);
    with(&["rotate-ca", "--stage", "switch"]);
    with(&["renew", "--all"]);
    with(&["rotate-ca", "--stage", "finish"]);
    let shown = done(path, &["show", "ca"]);
    assert!(
        shown.contains("The lab's") && shown.contains("in 3 years"),
        "{shown}"
    );
}

#[test]
fn an_authority_that_ends_soon_is_noticed() {
    let dir = folder();
    let path = dir.path();
    done(path, &["init", "--years", "1"]);
    for args in [&["list"][..], &["renew", "--all"]] {
        let said = done(path, args);
        assert!(said.contains("rotate-ca --stage prepare"), "{said}");
    }
    let said = json(path, &["renew", "--all", "--json"]);
    assert_eq!(said["ending_authority"]["is_ca"], true);
    rotate(path, "prepare");
    assert!(!done(path, &["list"]).contains("rotate-ca"));
}

#[test]
fn two_at_once_make_one_new_authority() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    let args = ["rotate-ca", "--stage", "prepare", "--quiet"];
    let children: Vec<_> = (0..4)
        .map(|_| certgen(path, &args).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let anchors = std::fs::read_to_string(path.join("ca/ca.pem")).unwrap();
    assert_eq!(anchors.matches("BEGIN").count(), 2);
}

#[test]
fn mosquitto_goes_through_all_stages_with_its_clients() {
    let dir = folder();
    let path = dir.path();
    done(path, &["bundle", "quickstart"]);
    done(path, &["crl"]);
    let server = Server::mosquitto(path);
    let check = || {
        for who in ["operator/operator", "viewer/viewer", "bridge/coap"] {
            let output = server.publish(path, who, "localhost");
            assert!(output.status.success(), "{who}: {output:?}");
        }
    };
    check();
    let check = || {
        server.reload();
        check();
    };
    rotate(path, "prepare");
    check();
    rotate(path, "switch");
    check();
    done(path, &["renew", "operator"]);
    check();
    done(path, &["renew", "bus"]);
    check();
    done(path, &["renew", "--all"]);
    check();
    rotate(path, "finish");
    check();
}
