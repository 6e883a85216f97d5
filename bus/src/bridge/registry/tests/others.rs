//! Several bridges that hear one node.

use serde_json::json;

use super::super::*;
use super::sim::{MAX_TIME, Sim, uid_of};
use crate::id::BridgeId;

#[test]
fn another_bridges_node_keeps_its_level() {
    let mut sim = Sim::new();
    let mut other = Sim::new();
    other.announce("n");
    let mut descriptor = other.retained["nodes/n"].clone();
    descriptor["bridge"] = "ws".into();
    descriptor["protocol"] = "websocket".into();
    sim.message("nodes/n", &descriptor.to_string(), true);
    sim.announce("n");
    assert!(sim.retained.contains_key("nodes/n-2"));
    assert!(!sim.retained.contains_key("nodes/n"));
}

/// Two bridges on one bus.
struct Pair {
    bridges: [Sim; 2],
    /// Who published the descriptor, each time.
    claims: Vec<String>,
}

impl Pair {
    fn new() -> Self {
        let sim = |name| {
            let mut sim = Sim::new();
            sim.registry.config.name = BridgeId::new(name).unwrap();
            sim
        };
        let mut pair = Self {
            bridges: [sim("attic"), sim("cellar")],
            claims: Vec::new(),
        };
        pair.status(0, "online");
        pair.status(1, "online");
        pair
    }

    fn status(&mut self, of: usize, state: &str) {
        let name = self.bridges[of].registry.config.name.clone();
        let payload = json!({"state": state, "protocol": "coap", "version": "0"}).to_string();
        self.bridges[1 - of].message(&format!("bridges/{name}/status"), &payload, false);
    }

    /// Each sees what the other has published since the last time.
    fn exchange(&mut self) {
        loop {
            let mut any = false;
            for from in [0, 1] {
                for topic in ["nodes/n", "nodes/n/status"] {
                    let sim = &mut self.bridges[from];
                    let Some(payload) = sim.retained.remove(topic) else {
                        continue;
                    };
                    any = true;
                    if topic == "nodes/n" {
                        self.claims
                            .push(payload["bridge"].as_str().unwrap().to_owned());
                    }
                    self.bridges[1 - from].message(topic, &payload.to_string(), false);
                }
            }
            if !any {
                return;
            }
        }
    }

    /// The node says that it is alive, and these bridges hear it.
    fn alive(&mut self, heard_by: &[usize]) {
        for bridge in &mut self.bridges {
            bridge.pass_time(Duration::from_secs(30));
        }
        for &bridge in heard_by {
            self.exchange();
            self.bridges[bridge].announce("n");
            self.bridges[bridge].reading("n", "t", "1");
        }
        self.exchange();
    }

    fn holders(&self) -> [usize; 2] {
        [0, 1].map(|bridge| self.bridges[bridge].registry.nodes.len())
    }
}

#[test]
fn two_bridges_that_hear_one_node_do_not_fight_over_it() {
    let mut pair = Pair::new();
    for _ in 0..50 {
        pair.alive(&[1, 0]);
    }
    assert_eq!(pair.claims, ["cellar"], "who was first keeps it");
    assert_eq!(pair.holders(), [0, 1]);
    assert!(pair.bridges[0].registry.wants_all_statuses());
    assert!(
        pair.bridges[0].readings.is_empty(),
        "one voice for one node"
    );

    // The holder goes: the other takes over, and keeps it when that comes back.
    pair.status(1, "offline");
    pair.alive(&[0]);
    pair.status(1, "online");
    for _ in 0..50 {
        pair.alive(&[1, 0]);
    }
    assert_eq!(pair.claims, ["cellar", "attic"]);
    assert_eq!(pair.holders(), [1, 0]);

    // The node moves out of the holder's reach.
    for _ in 0..10 {
        pair.alive(&[1]);
    }
    assert_eq!(pair.claims, ["cellar", "attic", "cellar"]);
    assert_eq!(pair.bridges[0].events(), ["node_lost"], "never new there");
    assert_eq!(pair.holders(), [0, 1]);
}

#[test]
fn two_bridges_that_took_a_node_at_once_agree() {
    let mut pair = Pair::new();
    for bridge in &mut pair.bridges {
        bridge.announce("n");
    }
    for _ in 0..50 {
        pair.alive(&[0, 1]);
    }
    assert_eq!(pair.holders(), [1, 0], "the first name keeps it");
    assert!(pair.claims.len() <= 3, "{:?}", pair.claims);
    assert_eq!(pair.claims.last().unwrap(), "attic");
}

#[test]
fn a_node_that_moves_to_another_bridge_is_let_go() {
    let mut sim = Sim::new();
    sim.announce("n");
    let mut descriptor = sim.retained["nodes/n"].clone();
    descriptor["bridge"] = "attic".into();
    sim.pass_time(MAX_TIME);
    sim.message("nodes/n", &descriptor.to_string(), false);
    assert_eq!(
        sim.registry.poll_order(),
        Some(Order::Forget { uid: uid_of("n") })
    );
    assert!(
        sim.retained.contains_key("nodes/n"),
        "its topics are the other bridge's now"
    );
}
