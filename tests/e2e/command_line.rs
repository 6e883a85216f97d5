//! What a person reads who starts the program wrongly.

use std::net::TcpListener;
use std::process::Command;

use crate::harness::{add_password, run};

fn nodebus(args: &[&str]) -> (i32, String, String) {
    run(Command::new(env!("CARGO_BIN_EXE_nodebus"))
        .args(["--log", "off"])
        .args(args))
}

#[track_caller]
fn one_clear_line(args: &[&str], code: i32, words: &[&str]) {
    let (got, out, err) = nodebus(args);
    assert_eq!(got, code, "{out}{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    for word in words {
        assert!(err.contains(word), "no {word:?} in: {err}");
    }
}

#[test]
fn a_taken_port_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    add_password(&data.path().join("pki"), "viewer", "ann", "secret");
    let data = data.path().to_str().unwrap();
    let free = [
        "bus.listen",
        "bus.password_listen",
        "bus.wss_listen",
        "bus.plain_listen",
        "bus.ws_listen",
        "ws_bridge.listen",
        "dashboard_gw.listen",
    ];
    for key in free.iter().chain(&["admin.listen"]) {
        let mut args = vec!["up".to_owned(), "--data".to_owned(), data.to_owned()];
        let udp = ["coap_bridge.listen", "coap_bridge.dtls_listen"];
        for other in free.iter().chain(&["admin.listen"]).chain(&udp) {
            args.extend(["--set".to_owned(), format!("{other}=127.0.0.1:0")]);
        }
        args.extend(["--set".to_owned(), format!("{key}={taken}")]);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        one_clear_line(&args, 1, &[&taken, "in use", key]);
    }
}

#[test]
fn a_data_folder_that_can_not_be_written() {
    one_clear_line(
        &["up", "--data", "/dev/null/data"],
        1,
        &["/dev/null/data", "--data"],
    );
}

#[test]
fn settings_that_do_not_exist() {
    one_clear_line(
        &["up", "--set", "coap_bridge.listen=x"],
        2,
        &["listen", "listen"],
    );
    one_clear_line(&["bus", "--config", "/nowhere.toml"], 2, &["/nowhere.toml"]);
    one_clear_line(
        &["config", "check", "--set", "coap_bridge.max_time=soon"],
        2,
        &["max_time", "30s"],
    );
}

/// Each part's own checks, which `config check` and the start make alike.
#[test]
fn settings_out_of_range() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    for (part, setting, words) in [
        ("bus", "bus.limits.inflight=0", "bus.limits.inflight leaves"),
        (
            "coap-bridge",
            "coap_bridge.poll_interval=0s",
            "coap_bridge.poll_interval must be 1s to 24h",
        ),
        (
            "ws-bridge",
            "ws_bridge.allowed_origins=['here']",
            "ws_bridge.allowed_origins",
        ),
        (
            "dashboard-gw",
            "dashboard_gw.max_clients=0",
            "dashboard_gw.max_clients must be 1 to 100000",
        ),
    ] {
        let (_, _, said) = nodebus(&["config", "check", "--set", setting]);
        assert!(said.contains(words), "{said}");
        for start in [&[part][..], &["up", "--data", data]] {
            one_clear_line(
                &[start, &["--set", setting]].concat(),
                2,
                &[said.trim_end()],
            );
        }
    }
    // What another part would refuse is no concern of this one.
    one_clear_line(
        &[
            "bus",
            "--pki",
            "/nowhere",
            "--admin",
            "127.0.0.1:0",
            "--set",
            "ws_bridge.max_nodes=0",
        ],
        1,
        &["/nowhere"],
    );
}

/// `up` has a role for clients without a certificate; the bus alone has none.
#[test]
fn settings_as_up_has_them() {
    let setting = "bus.ws_listen=127.0.0.1:0";
    one_clear_line(
        &["config", "check", "--set", setting],
        2,
        &["bus.anonymous"],
    );
    let (code, _, err) = nodebus(&["config", "check", "--data", "d", "--set", setting]);
    assert_eq!(code, 0, "{err}");
    let (_, shown, _) = nodebus(&["config", "show", "--data", "d"]);
    assert!(shown.contains("data = \"d/coap\""), "{shown}");
}

#[test]
fn a_missing_certificate() {
    one_clear_line(
        &[
            "bus",
            "--pki",
            "/nowhere",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ],
        1,
        &["/nowhere", "certgen"],
    );
}

#[test]
fn a_build_without_node_and_npm_says_what_to_install() {
    let tools = tempfile::tempdir().unwrap();
    for tool in [
        "bash", "cargo", "cc", "dirname", "env", "grep", "head", "sed", "sort",
    ] {
        let (_, path, _) = run(Command::new("which").arg(tool));
        std::os::unix::fs::symlink(path.trim(), tools.path().join(tool)).unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/check-tools");
    let (code, _, err) = run(Command::new(tools.path().join("bash"))
        .arg(script)
        .env("PATH", tools.path()));
    assert_eq!(code, 1, "{err}");
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(
        err.contains("node is needed") && err.contains("npm is needed"),
        "{err}"
    );
}

#[test]
fn nobody_to_ask_for_health() {
    one_clear_line(
        &["health", "--admin", "127.0.0.1:1"],
        1,
        &["127.0.0.1:1", "running"],
    );
}

#[test]
fn the_settings_shown_are_settings_that_can_be_used() {
    let (code, shown, err) = nodebus(&["config", "show"]);
    assert_eq!(code, 0, "{err}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &shown).unwrap();
    let (code, _, err) = nodebus(&["config", "check", "--config", file.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
}
