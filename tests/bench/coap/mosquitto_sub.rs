//! A subscriber that is not ours: when mosquitto_sub had each reading, by its own clock.

use std::path::PathBuf;
use std::process::Command;

use super::Bridge;
use crate::bus::Setting;
use crate::program::Program;

pub(super) struct MosquittoSub {
    program: Program,
    /// What it printed.
    lines: PathBuf,
}

impl MosquittoSub {
    /// Subscribes with mTLS and QoS 1 to what nodes push as `t`, and waits until it has something.
    pub(super) fn start(setting: &Setting, bridge: &Bridge) -> anyhow::Result<Self> {
        let lines = setting.file("mosquitto_sub");
        let pki = setting.pki("viewer/viewer");
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "localhost", "-p", &bridge.bus.tls.port().to_string()]);
        for (option, file) in [
            ("--cafile", "ca.pem"),
            ("--cert", "cert.pem"),
            ("--key", "key.pem"),
        ] {
            command.arg(option).arg(pki.join(file));
        }
        command.args(["-i", "viewer:load", "-q", "1"]);
        command.args(["-t", "nodebus/v1/nodes/+/res/t", "-F", "%r %U %p"]);
        let mut program = Program::start("mosquitto_sub", &mut command, &lines)?;
        program.wait_for(|| {
            std::fs::metadata(&lines)
                .is_ok_and(|file| file.len() > 0)
                .then_some(())
        })?;
        Ok(Self { program, lines })
    }

    /// Each payload that was not retained from before, with the time at which it was there, in seconds
    /// since 1970.
    pub(super) fn end(self) -> anyhow::Result<Vec<(f64, String)>> {
        self.program.stop()?;
        let text = std::fs::read_to_string(&self.lines)?;
        let live = text.lines().filter_map(|line| line.strip_prefix("0 "));
        let read = live.filter_map(|line| {
            let (at, payload) = line.split_once(' ')?;
            Some((at.parse().ok()?, payload.to_owned()))
        });
        Ok(read.collect())
    }
}
