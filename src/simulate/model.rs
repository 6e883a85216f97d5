//! What the simulated nodes are and how their values move: pure, and the same for the same seed.
//!
//! The kinds, their resources and the texts of their values are those of Pyaiot's RIOT firmwares;
//! [`Firmware::Old`] adds the firmwares' quirks.

use std::f64::consts::TAU;

use bus::time::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::kinds::Resource::{Imu, Led, Position, Robot, Sensor as S};
use super::kinds::{COAP_KINDS, Kind, PLACES, Resource, Sensor, WS_KINDS};

/// How many kinds of CoAP nodes there are, so that each can be shown once.
pub(crate) const COAP_KIND_COUNT: usize = COAP_KINDS.len();
/// How many kinds of WebSocket nodes there are.
pub(crate) const WS_KIND_COUNT: usize = WS_KINDS.len();

/// Which firmware a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// As one would write it today.
    New,
    /// As RIOT 2019.07 with Pyaiot's firmwares did: padded values, prefixes, short requests.
    Old,
}

/// Why a write is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such resource.
    Unknown,
    /// The resource is only read.
    ReadOnly,
    /// The value is none that the resource takes.
    BadValue,
}

/// One simulated node, without its network.
#[derive(Debug)]
pub(crate) struct Device {
    uid: String,
    kind: &'static Kind,
    os: &'static str,
    name: String,
    firmware: Firmware,
    position: (f64, f64),
    led: bool,
    robot: char,
    /// How far each sensor has wandered, and its own offset, in the order of the kind's resources.
    wandered: Vec<(f64, f64)>,
    /// The phase of its movement, for the inertial sensors.
    phase: f64,
    wall: Timestamp,
    next_push: usize,
    rng: SmallRng,
}

impl Device {
    /// The `index`-th CoAP node of a fleet; kinds take turns.
    pub(crate) fn coap(index: usize, seed: u64, firmware: Firmware, now: Timestamp) -> Self {
        let kind = &COAP_KINDS[index % COAP_KINDS.len()];
        let mut rng = rng(seed, 1, index);
        // The firmwares cut their 16 digits to 15.
        let uid = format!("{:016X}", rng.random::<u64>() | 1 << 63);
        Self::new(
            uid[..15].to_owned(),
            kind,
            "riot",
            index,
            firmware,
            now,
            rng,
        )
    }

    /// The same node under another name.
    pub(crate) fn named(self, uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            ..self
        }
    }

    /// The `index`-th WebSocket node of a fleet; kinds take turns.
    pub(crate) fn ws(index: usize, seed: u64, firmware: Firmware, now: Timestamp) -> Self {
        let kind = &WS_KINDS[index % WS_KINDS.len()];
        let mut rng = rng(seed, 2, index);
        let uid = format!("esp-{:012x}", rng.random::<u64>() >> 16);
        Self::new(uid, kind, "micropython", index, firmware, now, rng)
    }

    fn new(
        uid: String,
        kind: &'static Kind,
        os: &'static str,
        index: usize,
        firmware: Firmware,
        wall: Timestamp,
        mut rng: SmallRng,
    ) -> Self {
        let (lat, lng) = PLACES[index % PLACES.len()];
        let mut near = || rng.random_range(-0.002..0.002);
        let position = (lat + near(), lng + near());
        let wandered = kind.resources.iter().map(|resource| match resource {
            S(sensor) => (
                noise(&mut rng) * sensor.wander,
                noise(&mut rng) * sensor.wander,
            ),
            _ => (0.0, 0.0),
        });
        let wandered = wandered.collect();
        Self {
            uid,
            kind,
            os,
            name: format!("{} {}", kind.name, index + 1),
            firmware,
            position,
            led: false,
            robot: 's',
            wandered,
            phase: rng.random_range(0.0..TAU),
            wall,
            next_push: 0,
            rng,
        }
    }

    /// What the node calls itself.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// What it runs.
    pub(crate) fn firmware(&self) -> Firmware {
        self.firmware
    }

    /// Whether `path` is a measurement.
    pub(crate) fn is_measured(&self, path: &str) -> bool {
        let mut own = self.kind.resources.iter();
        own.any(|resource| matches!(resource, S(sensor) if sensor.path == path))
    }

    /// Everything that can be read, in the order of the firmwares: by name.
    pub(crate) fn paths(&self) -> Vec<&'static str> {
        let own = self.kind.resources.iter().map(|resource| resource.path());
        let mut paths: Vec<_> = ["board", "mcu", "name", "os"]
            .into_iter()
            .chain(own)
            .collect();
        paths.sort_unstable();
        paths
    }

    /// `/.well-known/core` (RFC 6690).
    pub(crate) fn links(&self) -> String {
        let attributes = |path: &str| match self.firmware {
            Firmware::New => format!(";rt=\"{path}\";ct=0"),
            Firmware::Old => String::new(),
        };
        let links = self.paths().into_iter();
        let links: Vec<_> = links
            .map(|path| format!("</{path}>{}", attributes(path)))
            .collect();
        links.join(",")
    }

    /// The text that a read of `path` gives.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        Some(match path {
            "board" => self.kind.board.to_owned(),
            "mcu" => self.kind.mcu.to_owned(),
            "name" => self.name.clone(),
            "os" => self.os.to_owned(),
            _ => {
                let index = self.kind.resources.iter().position(|r| r.path() == path)?;
                self.text(index)
            }
        })
    }

    /// The same as JSON, as a WebSocket node sends it: the LED as a number, the position as an
    /// object, everything else as text.
    pub(crate) fn read_json(&self, path: &str) -> Option<Value> {
        let text = self.read(path)?;
        Some(match path {
            "led" => json!(u8::from(self.led)),
            "position" => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            _ => Value::String(text),
        })
    }

    /// Takes a write and gives what the resource holds now.
    pub(crate) fn write(&mut self, path: &str, text: &str) -> Result<String, Refusal> {
        match path {
            "led" if self.has(Led) => match text {
                "0" | "1" => self.led = text == "1",
                _ => return Err(Refusal::BadValue),
            },
            "robot" if self.has(Robot) => match text.chars().next() {
                Some(c @ ('s' | 'l' | 'r' | 'u' | 'd')) if text.len() == 1 => self.robot = c,
                _ => return Err(Refusal::BadValue),
            },
            _ if self.paths().contains(&path) => return Err(Refusal::ReadOnly),
            _ => return Err(Refusal::Unknown),
        }
        self.read(path).ok_or(Refusal::Unknown)
    }

    /// Lets the time from the last call to `now` pass over the values.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let elapsed = now.saturating_since(self.wall).as_secs_f64();
        self.wall = now;
        self.phase = (self.phase + elapsed * 0.7) % TAU;
        for (resource, (wandered, _)) in self.kind.resources.iter().zip(&mut self.wandered) {
            if let S(sensor) = resource {
                // It forgets exponentially and is kicked just so that its deviation stays.
                let kept = (-elapsed / sensor.memory.as_secs_f64()).exp();
                let kick = sensor.wander * (1.0 - kept * kept).sqrt();
                *wandered = *wandered * kept + noise(&mut self.rng) * kick;
            }
        }
    }

    /// The next value to push: the moving ones take turns, else the state of the node.
    pub(crate) fn next_push(&mut self) -> (&'static str, String) {
        let moves = |resource: &&Resource| matches!(resource, S(_) | Imu);
        let moving = self.kind.resources.iter().filter(moves).count();
        let mut of_kind = self.kind.resources.iter().enumerate();
        let turn = self.next_push;
        self.next_push = self.next_push.wrapping_add(1);
        let chosen = if moving > 0 {
            of_kind.filter(|(_, r)| moves(r)).nth(turn % moving)
        } else {
            of_kind.next()
        };
        match chosen {
            Some((_, Imu)) if self.firmware == Firmware::Old => {
                let part = ["acc", "gyro"][turn % 2];
                ("imu", self.inertial(&[part]))
            }
            Some((index, resource)) => (resource.path(), self.text(index)),
            None => ("name", self.name.clone()),
        }
    }

    fn has(&self, resource: Resource) -> bool {
        self.kind.resources.contains(&resource)
    }

    fn text(&self, index: usize) -> String {
        let (lat, lng) = self.position;
        match self.kind.resources[index] {
            Led => u8::from(self.led).to_string(),
            Position => format!("{{\"lat\":{lat:.6},\"lng\":{lng:.6}}}"),
            Robot => self.robot.to_string(),
            // Three would not fit the old firmwares' buffer.
            Imu if self.firmware == Firmware::Old => self.inertial(&["acc", "gyro"]),
            Imu => self.inertial(&["acc", "mag", "gyro"]),
            S(sensor) => self.sensor_text(sensor, self.wandered[index]),
        }
    }

    fn sensor_text(&self, sensor: &Sensor, (wandered, offset): (f64, f64)) -> String {
        const DAY_MS: i64 = 24 * 3600 * 1000;
        let of_day = self.wall.unix_millis().rem_euclid(DAY_MS) as f64 / DAY_MS as f64;
        let sun = -(of_day * TAU).cos();
        let (low, high) = sensor.range;
        let value = (sensor.mean + sensor.day * sun + wandered + offset).clamp(low, high);
        let unit = sensor.unit;
        if self.firmware == Firmware::Old && sensor.path == "pressure" {
            // The firmware forgets to pad the hundredths: 1013.02 is written 1013.2.
            let hundredths = (value * 100.0).round() as i64;
            return format!("{}.{}{unit}", hundredths / 100, hundredths % 100);
        }
        format!("{value:.*}{unit}", sensor.decimals)
    }

    /// A board that sways slowly: acceleration in mg, rotation in degrees a second, field in mG.
    fn inertial(&self, parts: &[&str]) -> String {
        let (sin, cos) = self.phase.sin_cos();
        let whole = |x: f64| x.round() as i64;
        let values = |part: &str| match part {
            "acc" => [
                whole(250.0 * sin),
                whole(120.0 * cos),
                whole(970.0 + 20.0 * sin),
            ],
            "mag" => [whole(300.0 * cos), whole(300.0 * sin), -410],
            _ => [whole(14.0 * cos), whole(-7.0 * sin), 0],
        };
        let list: Vec<Value> = parts
            .iter()
            .map(|part| json!({"type": part, "values": values(part)}))
            .collect();
        Value::from(list).to_string()
    }
}

/// The generator of one node: of its own, so that a node does not depend on how many there are.
fn rng(seed: u64, protocol: u64, index: usize) -> SmallRng {
    let node = (protocol << 32) | index as u64;
    SmallRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ node)
}

/// Roughly normal, with deviation 1.
fn noise(rng: &mut SmallRng) -> f64 {
    (0..12).map(|_| rng.random_range(-0.5..0.5)).sum()
}

#[cfg(test)]
mod tests;
