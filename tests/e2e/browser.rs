//! The page, in Debian's Chromium.

use std::path::PathBuf;

use crate::harness::{Browser, CoapNode, Distributed, Fleet, System, wait_for};

const LED: &str = "[data-node=\"web\"] [data-resource=\"led\"] [role=switch]";

#[test]
fn a_click_reaches_the_node_and_its_own_answer_appears() {
    let system = System::start(&[]);
    let mut node = CoapNode::start(system.coap(), "web");
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", system.dashboard()));
    browser.wait("[data-node=\"web\"]", "Node web");
    browser.wait("[data-node=\"web\"][data-state=online]", "");
    browser.wait(&format!("{LED}[aria-checked=false]"), "");

    node.push("temperature", "21.5°C");
    browser.wait("[data-node=\"web\"] [data-resource=temperature]", "21.5");
    browser.wait("[data-node=\"web\"] [data-resource=temperature]", "°C");

    browser.click(LED);
    node.wait_for_put("led", "1");
    browser.wait(&format!("{LED}[aria-checked=true]"), "");
    browser.wait("[role=status]", "led");
    node.push("led", "0");
    browser.wait(&format!("{LED}[aria-checked=false]"), "");
}

#[test]
fn a_node_page_shows_every_resource_and_has_its_own_address() {
    let system = System::start(&[]);
    let node = CoapNode::start(system.coap(), "web");
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/?node=web", system.dashboard()));
    for resource in ["board", "led", "mcu", "name", "os", "temperature"] {
        browser.wait(
            &format!("[data-node=\"web\"] [data-resource=\"{resource}\"]"),
            "",
        );
    }
    drop(node);
}

#[test]
fn without_nodes_the_page_teaches_how_to_attach_one() {
    let system = System::start(&[]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", system.dashboard()));
    browser.wait("main", "simulate --coap");
    browser.wait("main", &system.coap().to_string());
}

#[test]
fn the_page_survives_a_restart_of_the_gateway_without_a_reload() {
    let mut parts = Distributed::start();
    let bridge = format!("127.0.0.1:{}", parts.coap).parse().unwrap();
    let mut node = CoapNode::start(bridge, "web");
    let mut browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{}/", parts.dashboard));
    browser.wait("[data-node=\"web\"]", "Node web");
    browser.mark();

    parts.dashboard_gw.kill();
    browser.wait("[data-connection=disconnected]", "Disconnected");
    parts.restart_dashboard_gw();
    browser.wait("[data-connection=live]", "");
    node.push("temperature", "33.5°C");
    browser.wait("[data-node=\"web\"] [data-resource=temperature]", "33.5");
    assert!(browser.is_marked(), "the page was loaded again");
}

/// Also makes the README's pictures, where `NODEBUS_SCREENSHOTS` names a folder.
#[test]
fn the_page_fits_a_wall_and_a_phone() {
    let folder = std::env::var_os("NODEBUS_SCREENSHOTS")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let system = System::start(&[]);
    let fleet = Fleet::start(&system, &["--coap", "7", "--ws", "2", "--rate", "4"]);
    let temperatures = system.subscribe("nodebus/v1/nodes/+/res/temperature");
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", system.dashboard()));
    let opened = temperatures.messages().len();
    wait_for("lines with some points", || {
        (temperatures.messages().len() > opened + 60).then_some(())
    });
    for (name, width, height, dark) in [
        ("overview-light.png", 1280, 800, false),
        ("overview-dark.png", 1280, 800, true),
        ("overview-phone.png", 390, 844, true),
    ] {
        browser.size(width, height, dark);
        browser.wait("[data-state=online] [data-resource=temperature]", "°C");
        assert_eq!(browser.overflow(), 0, "{name} is wider than its window");
        browser.screenshot(&folder.join(name));
    }
    drop(fleet);
}
