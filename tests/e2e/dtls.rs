//! Nodes that speak CoAP over DTLS: libcoap's client, in both of its builds, against the bridge.
//!
//! TD_COAP_DTLS_01 to 03 are the cases of that name in ETSI's CoAP plugtests.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{Process, System, certgen, coap_post, publish, run, wait_for};

/// libcoap over OpenSSL and over GnuTLS.
const BUILDS: [&str; 2] = ["coap-client-openssl", "coap-client-gnutls"];
/// What libcoap's client takes on its command line; certgen takes it in hex digits.
pub(crate) const KEY: &str = "secret-kitchen-1";
pub(crate) const OTHER: &str = "another-key-here";

/// Gives a node a key.
pub(crate) fn give(pki: &Path, name: &str, key: &str) {
    let digits: String = key.bytes().map(|b| format!("{b:02x}")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), digits).unwrap();
    let file = file.path().to_str().unwrap();
    let (code, out, err) = certgen(pki, &["psk", "add", name, "--key-file", file, "--force"]);
    assert_eq!(code, 0, "{out}{err}");
}

/// A system whose bridge knows the key of `kitchen`.
pub(crate) fn start(args: &[&str]) -> System {
    System::start_after(|pki| give(pki, "kitchen", KEY), args)
}

/// A POST over DTLS: what came back, or what the client complained of.
fn post(build: &str, system: &System, credentials: &[&str], path: &str, payload: &str) -> String {
    let mut command = Command::new(build);
    command.args(["-m", "post", "-e", payload, "-B", "10"]);
    command.args(credentials);
    let (_, out, err) = run(command.arg(format!("coaps://{}/{path}", system.coaps())));
    format!("{out}{err}")
}

fn psk<'a>(name: &'a str, key: &'a str) -> [&'a str; 4] {
    ["-u", name, "-k", key]
}

#[track_caller]
fn works(build: &str, system: &System) {
    let answer = post(
        build,
        system,
        &psk("kitchen", KEY),
        "alive",
        "alive:kitchen",
    );
    assert!(
        answer.contains("Received 'alive:kitchen'"),
        "{build}: {answer}"
    );
}

fn refused(system: &System, reason: &str) -> f64 {
    let name = "coap_bridge_dtls_handshakes_refused_total";
    system.metric(name, &format!("\"{reason}\""))
}

#[test]
fn td_coap_dtls_01_a_shared_key() {
    let system = start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    for build in BUILDS {
        works(build, &system);
        let payload = format!("name:{build}");
        let answer = post(build, &system, &psk("kitchen", KEY), "server", &payload);
        assert!(answer.contains(&payload), "{answer}");
        all.wait_for_member("nodes/kitchen/res/name", "v", &json!(build));
    }
    let node = all.wait_for_member("nodes/kitchen", "uid", &json!("kitchen"));
    let address = node["address"].as_str().unwrap();
    assert!(address.starts_with("coaps://127.0.0.1:"), "{address}");
}

#[test]
fn td_coap_dtls_02_a_wrong_key() {
    let system = start(&[]);
    for build in BUILDS {
        let before = refused(&system, "wrong_key");
        let answer = post(
            build,
            &system,
            &psk("kitchen", OTHER),
            "alive",
            "alive:kitchen",
        );
        assert!(!answer.contains("Received"), "{answer}");
        assert!(answer.to_lowercase().contains("decrypt error"), "{answer}");
        assert!(refused(&system, "wrong_key") > before);
        let answer = post(build, &system, &psk("cellar", KEY), "alive", "alive:cellar");
        assert!(answer.to_lowercase().contains("decrypt error"), "{answer}");
        // Nobody else is hurt: the listener goes on.
        works(build, &system);
    }
    assert!(refused(&system, "unknown_identity") >= 2.0);
    assert_eq!(system.metric("coap_bridge_dtls_handshakes", ""), 0.0);
}

#[test]
fn td_coap_dtls_03_a_shared_key_on_a_lossy_link() {
    let system = start(&[]);
    for build in BUILDS {
        // Of what the client sends: its first word, the one with the cookie, and its last flight.
        for lost in ["1", "2", "3", "1,3"] {
            let credentials = [&psk("kitchen", KEY)[..], &["-l", lost]].concat();
            let answer = post(build, &system, &credentials, "alive", "alive:kitchen");
            assert!(
                answer.contains("Received"),
                "{build} loses {lost}: {answer}"
            );
        }
    }
}

/// Nothing of the bridge can be observed; [`crate::dtls_nodes`] has it the other way round.
#[test]
fn blocks_go_both_ways_over_dtls() {
    let system = start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    for build in BUILDS {
        works(build, &system);
        let credentials = [&psk("kitchen", KEY)[..], &["-b", "32"]].concat();
        let text: String = ('a'..='z').cycle().take(300).collect();
        let payload = format!("{}:{text}", &build[12..]);
        post(build, &system, &credentials, "server", &payload);
        let topic = format!("nodes/kitchen/res/{}", &build[12..]);
        all.wait_for_member(&topic, "v", &json!(text));
        let mut get = Command::new(build);
        get.args(&credentials).args(["-v", "7"]);
        let (_, out, err) = run(get.arg(format!("coaps://{}/.well-known/core", system.coaps())));
        let shown = format!("{out}{err}");
        for part in ["Block2:0/M/32", "</alive>", "Block2:1/_/32", ";ct=40"] {
            assert!(shown.contains(part), "{build}, {part}: {shown}");
        }
    }
}

#[test]
fn a_name_that_has_a_key_is_believed_over_dtls_only() {
    let system = start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    works(BUILDS[0], &system);
    for uid in ["kitchen", "KITCHEN"] {
        let answer = coap_post(system.coap(), "alive", &format!("reset:{uid}"));
        assert!(
            answer.contains("4.01") && answer.contains("coaps"),
            "{answer}"
        );
    }
    let answer = post(
        BUILDS[0],
        &system,
        &psk("kitchen", KEY),
        "alive",
        "alive:attic",
    );
    assert!(answer.contains("4.03"), "{answer}");
    let reasons = ["bound_to_dtls", "wrong_identity"];
    let counts = reasons.map(|reason| {
        system.metric(
            "coap_bridge_requests_refused_total",
            &format!("\"{reason}\""),
        )
    });
    assert_eq!(counts, [2.0, 1.0]);
    // Others may still do without.
    let answer = coap_post(system.coap(), "alive", "alive:garage");
    assert!(answer.contains("Received"), "{answer}");
    all.wait_for_member("nodes/garage/status", "state", &json!("online"));
    let topics = all.messages();
    assert!(topics.iter().all(|(topic, _, _)| !topic.contains("attic")));
}

#[test]
fn where_dtls_is_required_nothing_else_is_taken() {
    let system = start(&["--set", "coap_bridge.plain_from=[]"]);
    for (path, payload) in [("alive", "alive:garage"), ("server", "led:1")] {
        let answer = coap_post(system.coap(), path, payload);
        assert!(answer.contains("4.01"), "{answer}");
    }
    works(BUILDS[0], &system);
}

#[test]
fn the_first_key_and_certificate_need_no_restart() {
    let system = System::start(&[]);
    let unanswered = || {
        let name = "coap_bridge_dtls_datagrams_dropped_total";
        system.metric(name, "\"no_credentials\"")
    };
    std::thread::scope(|scope| {
        // A node that was switched on before anybody gave it a key: it is told nothing, and goes on.
        let early = scope.spawn(|| {
            let credentials = [&psk("kitchen", KEY)[..], &["-B", "60"]].concat();
            post(BUILDS[0], &system, &credentials, "alive", "alive:kitchen")
        });
        wait_for("its first word", || (unanswered() >= 1.0).then_some(()));
        assert_eq!(
            system.metric("coap_bridge_dtls_datagrams_sent_total", ""),
            0.0
        );
        give(&system.pki(), "kitchen", KEY);
        let answer = early.join().unwrap();
        assert!(answer.contains("Received"), "{answer}");
    });
    works(BUILDS[1], &system);
    let answer = coap_post(system.coap(), "alive", "alive:kitchen");
    assert!(answer.contains("4.01"), "{answer}");

    system.certgen(&["issue", "coap-server", "coap"]);
    system.certgen(&["issue", "node", "attic"]);
    wait_for("the certificate", || {
        let labels = "\"certificates\",result=\"ok\"";
        let reads = system.metric("coap_bridge_reloads_total", labels);
        (reads >= 1.0).then_some(())
    });
    let attic = identity(&system.pki(), "node", "attic");
    let attic: Vec<&str> = attic.iter().map(String::as_str).collect();
    let answer = post(BUILDS[0], &system, &attic, "alive", "alive:attic");
    assert!(answer.contains("Received"), "{answer}");
}

#[test]
fn keys_are_read_again_while_the_bridge_runs() {
    let system = start(&[]);
    let build = BUILDS[1];
    works(build, &system);
    let reads = |result: &str| {
        let labels = format!("\"keys\",result=\"{result}\"");
        system.metric("coap_bridge_reloads_total", &labels)
    };
    // One that stays connected, to see its session end.
    let digits: String = KEY.bytes().map(|b| format!("{b:02x}")).collect();
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-dtls1_2",
        "-psk_identity",
        "kitchen",
        "-psk",
        &digits,
    ]);
    command.args(["-cipher", "PSK-AES128-CCM8:@SECLEVEL=0", "-connect"]);
    let mut connected = Process::start("openssl", command.arg(system.coaps().to_string()));
    let sessions = || system.metric("coap_bridge_dtls_sessions", "");
    wait_for("a session", || (sessions() == 1.0).then_some(()));

    give(&system.pki(), "kitchen", OTHER);
    wait_for("the new key", || (reads("ok") == 1.0).then_some(()));
    wait_for("the end of the session", || {
        (sessions() == 0.0).then_some(())
    });
    let ended = system.metric("coap_bridge_dtls_sessions_ended_total", "\"withdrawn\"");
    assert_eq!(ended, 1.0);
    connected.wait_for_line("the goodbye", |line| {
        line.starts_with("closed").then_some(())
    });
    let answer = post(
        build,
        &system,
        &psk("kitchen", KEY),
        "alive",
        "alive:kitchen",
    );
    assert!(!answer.contains("Received"), "{answer}");
    let answer = post(
        build,
        &system,
        &psk("kitchen", OTHER),
        "alive",
        "alive:kitchen",
    );
    assert!(answer.contains("Received"), "{answer}");
    // Rubbish in the file changes nothing.
    std::fs::write(system.pki().join("psk"), "kitchen=1234\n").unwrap();
    wait_for("the rubbish", || (reads("kept") == 1.0).then_some(()));
    let answer = post(
        build,
        &system,
        &psk("kitchen", OTHER),
        "alive",
        "alive:kitchen",
    );
    assert!(answer.contains("Received"), "{answer}");
    // SIGHUP reads at once.
    std::fs::remove_file(system.pki().join("psk")).unwrap();
    give(&system.pki(), "kitchen", KEY);
    system.process.hang_up();
    wait_for("the old key", || (reads("ok") >= 2.0).then_some(()));
    works(build, &system);
}

/// The arguments for a certificate of certgen.
fn identity(pki: &Path, role: &str, name: &str) -> Vec<String> {
    let file = |file: &str| pki.join(role).join(name).join(file).display().to_string();
    [
        "-C",
        &file("ca.pem"),
        "-c",
        &file("cert.pem"),
        "-j",
        &file("key.pem"),
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn nodes_with_certificates_are_believed_as_the_names_in_them() {
    let issue = |pki: &Path| {
        for (role, name) in [
            ("coap-server", "coap"),
            ("node", "attic"),
            ("node", "cellar"),
        ] {
            let (code, out, err) = certgen(pki, &["issue", role, name]);
            assert_eq!(code, 0, "{out}{err}");
        }
    };
    let init = |pki: &Path| {
        let (code, out, err) = certgen(pki, &["init"]);
        assert_eq!(code, 0, "{out}{err}");
        issue(pki);
    };
    let system = System::start_after(init, &[]);
    let strangers = tempfile::tempdir().unwrap();
    init(strangers.path());
    let all = system.subscribe("nodebus/v1/#");
    let pki = system.pki();
    let alive = |build: &str, credentials: &[String], name: &str| {
        let credentials: Vec<&str> = credentials.iter().map(String::as_str).collect();
        post(
            build,
            &system,
            &credentials,
            "alive",
            &format!("alive:{name}"),
        )
    };
    for build in BUILDS {
        let answer = alive(build, &identity(&pki, "node", "attic"), "attic");
        assert!(answer.contains("Received"), "{build}: {answer}");
        all.wait_for_member("nodes/attic/status", "state", &json!("online"));
        let answer = alive(build, &identity(&pki, "node", "attic"), "cellar");
        assert!(answer.contains("4.03"), "{build}: {answer}");

        // The server is ours; the client's certificate is not what it should be.
        let mut operator = identity(&pki, "operator", "operator");
        let answer = alive(build, &operator, "operator");
        assert!(!answer.contains("Received"), "{build}: {answer}");
        let stranger = identity(strangers.path(), "node", "attic");
        operator.truncate(2);
        let credentials = [&operator[..], &stranger[2..]].concat();
        let answer = alive(build, &credentials, "attic");
        assert!(!answer.contains("Received"), "{build}: {answer}");
        // Who does not believe the bridge goes away.
        let answer = alive(build, &stranger, "attic");
        assert!(!answer.contains("Received"), "{build}: {answer}");
    }
    for reason in ["wrong_role", "unknown_authority", "alert"] {
        assert_eq!(refused(&system, reason), 2.0, "{reason}");
    }

    let cellar = identity(&pki, "node", "cellar");
    assert!(alive(BUILDS[0], &cellar, "cellar").contains("Received"));
    system.certgen(&["revoke", "cellar"]);
    wait_for("the revocation", || {
        let labels = "\"certificates\",result=\"ok\"";
        let reads = system.metric("coap_bridge_reloads_total", labels);
        (reads >= 1.0).then_some(())
    });
    let answer = alive(BUILDS[0], &cellar, "cellar");
    assert!(!answer.contains("Received"), "{answer}");
    assert_eq!(refused(&system, "certificate_revoked"), 1.0);
    let answer = alive(BUILDS[0], &identity(&pki, "node", "attic"), "attic");
    assert!(answer.contains("Received"), "{answer}");
}

#[test]
fn rubbish_and_half_open_handshakes_stop_nobody() {
    let system = start(&[]);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for rubbish in [
        &b""[..],
        b"\x16",
        b"\x16\xfe\xfd",
        &[0x17; 2000],
        b"\x40\x01\x00\x01",
    ] {
        stranger.send_to(rubbish, system.coaps()).unwrap();
    }
    // A client's first word over and over, from many ports.
    let mut hello =
        b"\x16\xfe\xff\0\0\0\0\0\0\0\0\0\x36\x01\0\0\x2a\0\0\0\0\0\0\0\x2a\xfe\xfd".to_vec();
    hello.extend([7; 32]);
    hello.extend(b"\0\0\0\x02\xc0\xa8\x01\0");
    for _ in 0..1000 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&hello, system.coaps()).unwrap();
    }
    for build in BUILDS {
        works(build, &system);
    }
    let cookies = || system.metric("coap_bridge_dtls_cookies_total", "");
    wait_for("all of them", || (cookies() >= 1002.0).then_some(()));
    assert_eq!(system.metric("coap_bridge_dtls_handshakes", ""), 0.0);
    assert!(system.metric("coap_bridge_dtls_datagrams_dropped_total", "malformed") >= 4.0);
}

#[test]
fn a_node_whose_session_is_gone_is_not_asked() {
    let system = start(&[]);
    let all = system.subscribe("nodebus/v1/#");
    works(BUILDS[0], &system);
    let credentials = psk("kitchen", KEY);
    post(BUILDS[0], &system, &credentials, "server", "led:0");
    all.wait_for_member("nodes/kitchen/res/led", "v", &json!(0));
    let operator = system.identity("operator", "operator");
    let topic = "nodebus/v1/nodes/kitchen/res/led/set";
    publish(&operator, topic, r#"{"v":1,"id":"late"}"#, &[]);
    let ack = all.wait_for_member("nodes/kitchen/res/led/ack", "id", &json!("late"));
    assert_eq!(ack["status"], "rejected");
    assert!(
        ack["error"].as_str().unwrap().contains("DTLS session"),
        "{ack}"
    );
}
