//! The command as people and scripts use it.

use std::process::{Child, Command, Stdio};

use crate::command::{certgen, done, folder, json, openssl, refused};

#[test]
fn a_person_is_told_what_where_for_whom_and_until_when() {
    let dir = folder();
    let path = dir.path().display().to_string();
    let said = done(dir.path(), &["init"]);
    for part in [
        &format!("{path}/ca"),
        "ca.key",
        "10 years",
        "certgen bundle quickstart",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = done(dir.path(), &["issue", "viewer", "alice"]);
    for part in [
        &format!("Made viewer/alice in {path}/viewer/alice"),
        "only read",
        "12 months",
        &format!("--cert {path}/viewer/alice/cert.pem"),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = done(dir.path(), &["issue", "viewer", "alice"]);
    assert!(
        said.contains("exists") && said.contains("nothing changed"),
        "{said}"
    );
    let said = done(dir.path(), &["issue", "node", "kitchen", "--days", "1"]);
    assert!(
        said.contains("EXPIRES in 23 hours") || said.contains("EXPIRES in 24 hours"),
        "{said}"
    );

    let said = done(dir.path(), &["bundle", "quickstart"]);
    for part in [
        "broker/bus",
        "bridge/coap",
        "dashboard/dashboard",
        "viewer/viewer",
        "localhost",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(done(dir.path(), &["bundle", "quickstart", "--quiet"]), "");
}

#[test]
fn a_program_gets_json() {
    let dir = folder();
    let bundle = json(
        dir.path(),
        &[
            "bundle",
            "quickstart",
            "--json",
            "--san",
            "10.0.0.7,b.example",
        ],
    );
    assert_eq!(bundle["authority"]["outcome"], "created");
    assert_eq!(bundle["issued"].as_array().unwrap().len(), 6);
    let bus = &bundle["issued"][0];
    assert_eq!(
        (&bus["role"], &bus["name"]),
        (&"broker".into(), &"bus".into())
    );
    let sans = bus["certificate"]["sans"].as_array().unwrap();
    assert!(
        sans.contains(&"10.0.0.7".into()) && sans.contains(&"b.example".into()),
        "{sans:?}"
    );

    let again = json(dir.path(), &["issue", "--json", "bridge", "coap"]);
    assert_eq!(again["outcome"], "unchanged");
    assert_eq!(again["certificate"], bundle["issued"][1]["certificate"]);
    let forced = json(
        dir.path(),
        &["issue", "--json", "bridge", "coap", "--force"],
    );
    assert_eq!(forced["outcome"]["replaced"], "forced");

    let shown = json(dir.path(), &["show", "--json", "coap"]);
    assert_eq!(shown[0]["serial"], forced["certificate"]["serial"]);
    assert_eq!(shown[0]["identity"]["role"], "bridge");
}

#[test]
fn every_command_answers_in_json_or_not_at_all() {
    let (dir, carry) = (folder(), folder());
    let path = dir.path();
    let to = carry.path().display().to_string();
    let secret = carry.path().join("secret").display().to_string();
    std::fs::write(&secret, "correct horse\n").unwrap();
    let cert = path.join("ca/ca.pem").display().to_string();
    for args in [
        &["init"][..],
        &["bundle", "quickstart"],
        &["issue", "node", "kitchen"],
        &[
            "issue",
            "viewer",
            "alice",
            "--p12",
            "--p12-password-file",
            &secret,
        ],
        &["show", "alice"],
        &["list"],
        &["list", "--expiring", "30d"],
        &["verify", &cert],
        &["needs-renewal", "alice", "--within", "0%"],
        &["renew", "alice", "--rekey"],
        &["renew", "alice", "--within", "66%"],
        &["renew", "--all", "--within", "30d"],
        &["revoke", "kitchen", "--reason", "superseded"],
        &["crl", "--days", "30"],
        &["export", "alice", "--to", &to],
        &["export", "alice", "--to", &to, "--format", "c"],
        &["psk", "add", "kitchen"],
        &["psk", "list"],
        &["psk", "remove", "kitchen"],
        &[
            "passwd",
            "add",
            "viewer",
            "carol",
            "--password-file",
            &secret,
        ],
        &["passwd", "list"],
        &["passwd", "remove", "carol"],
        &["rotate-ca", "--stage", "prepare"],
        &["rotate-ca", "--stage", "switch"],
        &["rotate-ca", "--stage", "finish", "--force"],
        &["completions", "bash"],
        &["man", "--to", &to],
    ] {
        let answer = json(path, &[args, &["--json"]].concat());
        assert!(answer.is_object() || answer.is_array(), "{args:?}");
        // What was taken out once can't be a second time.
        if args.get(1) != Some(&"remove") {
            assert_eq!(done(path, &[args, &["--quiet"]].concat()), "", "{args:?}");
        }
    }
}

#[test]
fn certificates_are_shown_by_name_and_by_file() {
    let dir = folder();
    done(dir.path(), &["bundle", "quickstart"]);
    let file = dir.path().join("viewer/viewer/cert.pem");
    let by_name = done(dir.path(), &["show", "viewer"]);
    assert!(by_name.contains("urn:nodebus:viewer:viewer"), "{by_name}");
    assert!(by_name.contains("clientAuth"), "{by_name}");
    assert_eq!(by_name, done(dir.path(), &["show", "viewer/viewer"]));
    assert_eq!(by_name, done(dir.path(), &["show", file.to_str().unwrap()]));
    assert!(done(dir.path(), &["show", "ca"]).contains("keyCertSign"));
}

#[test]
fn every_refusal_names_what_and_the_remedy() {
    let dir = folder();
    let path = dir.path();
    let said = refused(path, &["issue", "viewer", "alice"], 1);
    assert!(said.contains("run `certgen init`"), "{said}");
    done(path, &["init"]);
    done(path, &["issue", "broker", "bus", "--san", "a.example"]);

    let said = refused(path, &["issue", "broker", "bus", "--san", "b.example"], 3);
    assert!(
        said.contains("lacks b.example") && said.contains("--force"),
        "{said}"
    );
    done(
        path,
        &["issue", "broker", "bus", "--san", "b.example", "--force"],
    );
    let said = refused(path, &["issue", "viewer", "bus"], 3);
    assert!(
        said.contains("broker") && said.contains("--force"),
        "{said}"
    );

    let said = refused(path, &["show", "nobody"], 1);
    assert!(said.contains("\"nobody\""), "{said}");
    let key = path.join("broker/bus/key.pem").display().to_string();
    let said = refused(path, &["show", &key], 1);
    assert!(said.contains("no usable certificate"), "{said}");
    let said = refused(path, &["issue", "viewer", "Alice"], 2);
    assert!(said.contains("a-z"), "{said}");

    std::fs::write(path.join("node"), "in the way").unwrap();
    let said = refused(path, &["issue", "node", "kitchen"], 1);
    assert!(
        said.contains("node") && said.contains("move it aside"),
        "{said}"
    );
    std::fs::remove_file(path.join("node")).unwrap();
    std::fs::write(path.join("ca/index.json"), "{}").unwrap();
    let said = refused(path, &["issue", "viewer", "alice"], 1);
    assert!(said.contains("index.json"), "{said}");
    assert!(
        !path.join("viewer/alice/cert.pem").exists(),
        "nothing is issued unlisted"
    );
}

#[test]
fn the_umask_decides_nothing() {
    for umask in ["000", "077"] {
        let dir = folder();
        let script = format!("umask {umask} && exec \"$0\" bundle quickstart --quiet");
        let status = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_certgen")])
            .env("CERTGEN_DIR", dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        let mode = |path: &str| {
            use std::os::unix::fs::MetadataExt as _;
            dir.path().join(path).metadata().unwrap().mode() & 0o777
        };
        assert_eq!(mode("ca/ca.key"), 0o600);
        assert_eq!(mode("ca"), 0o700);
        assert_eq!(mode("broker/bus"), 0o700);
        assert_eq!(mode("broker/bus/key.pem"), 0o600);
        assert_eq!(mode("broker/bus/cert.pem"), 0o644);
    }
}

#[test]
fn many_at_once_lose_nothing() {
    let dir = folder();
    let started: Vec<Child> = (0..8)
        .map(|n| {
            let script = "\"$0\" init --quiet && exec \"$0\" issue node \"node-$1\" --quiet";
            Command::new("sh")
                .args(["-c", script, env!("CARGO_BIN_EXE_certgen"), &n.to_string()])
                .env("CERTGEN_DIR", dir.path())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in started {
        assert!(child.wait().unwrap().success());
    }
    let index = certs::Pki::new(dir.path()).index().unwrap();
    let mut names: Vec<String> = index.iter().map(|one| one.identity.to_string()).collect();
    names.sort();
    let expected: Vec<String> = (0..8).map(|n| format!("node/node-{n}")).collect();
    assert_eq!(names, expected);
    let mut signers: Vec<String> = (0..8)
        .map(|n| json(dir.path(), &["show", "--json", &format!("node-{n}")]))
        .map(|shown| shown[0]["issuer"].to_string())
        .collect();
    signers.dedup();
    assert_eq!(signers.len(), 1, "one authority");
}

#[test]
fn a_kill_at_any_moment_leaves_a_usable_pki() {
    for moment in [
        "ca/.lock",
        "ca/ca.key",
        "ca/ca.pem",
        "ca/index.json",
        "broker/bus",
        "broker/bus/..live",
        "broker/bus/cert.pem",
        "bridge/coap",
        "bridge/coap/..live",
        "operator/operator",
    ] {
        let dir = folder();
        let mut child = certgen(dir.path(), &["bundle", "quickstart"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while dir.path().join(moment).symlink_metadata().is_err() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        done(dir.path(), &["bundle", "quickstart"]);
        let bundle = json(dir.path(), &["bundle", "quickstart", "--json"]);
        for one in bundle["issued"].as_array().unwrap() {
            assert_eq!(one["outcome"], "unchanged", "killed at {moment}");
        }
    }
}

#[test]
fn openssl_agrees() {
    let dir = folder();
    done(
        dir.path(),
        &["bundle", "quickstart", "--san", "192.168.1.20"],
    );
    let path = |path: &str| dir.path().join(path).display().to_string();
    let ca = path("ca/ca.pem");
    for (who, purpose) in [
        ("broker/bus", "sslserver"),
        ("bridge/coap", "sslclient"),
        ("viewer/viewer", "sslclient"),
    ] {
        let cert = path(&format!("{who}/cert.pem"));
        let said = openssl(&[
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            &ca,
            &cert,
        ]);
        assert!(said.trim_end().ends_with(": OK"), "{said}");
        let key = path(&format!("{who}/key.pem"));
        let certified = openssl(&["x509", "-in", &cert, "-noout", "-pubkey"]);
        assert_eq!(openssl(&["pkey", "-in", &key, "-pubout"]), certified);
    }
    let bus = path("broker/bus/cert.pem");
    let verify = |more: [&str; 2]| {
        openssl(&["verify", "-CAfile", &ca, more[0], more[1], &bus]);
    };
    verify(["-verify_hostname", "localhost"]);
    verify(["-verify_hostname", "bus"]);
    verify(["-verify_ip", "::1"]);
    verify(["-verify_ip", "192.168.1.20"]);
    let text = openssl(&["x509", "-in", &bus, "-noout", "-text"]);
    for part in [
        "prime256v1",
        "URI:urn:nodebus:broker:bus",
        "Digital Signature",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
