//! The kinds of simulated nodes, as Pyaiot's firmwares are, and what they measure.

use std::time::Duration;

use Resource::{Imu, Led, Position, Robot, Sensor as S};

/// A kind of node: what it says of itself, and what it has besides.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) board: &'static str,
    pub(super) mcu: &'static str,
    pub(super) resources: &'static [Resource],
}

/// What a node can have besides its name, board, mcu and os.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Resource {
    Led,
    Position,
    Robot,
    Imu,
    Sensor(&'static Sensor),
}

/// A quantity that moves with the time of day and wanders a little besides.
#[derive(Debug, PartialEq)]
pub(super) struct Sensor {
    pub(super) path: &'static str,
    pub(super) unit: &'static str,
    pub(super) decimals: usize,
    /// At six in the evening and in the morning.
    pub(super) mean: f64,
    /// By how much noon differs from it.
    pub(super) day: f64,
    /// How far it wanders, as a standard deviation.
    pub(super) wander: f64,
    /// How long it takes to wander back.
    pub(super) memory: Duration,
    pub(super) range: (f64, f64),
}

const fn sensor(path: &'static str, unit: &'static str, decimals: usize, mean: f64) -> Sensor {
    Sensor {
        path,
        unit,
        decimals,
        mean,
        day: 0.0,
        wander: 0.0,
        memory: Duration::from_secs(600),
        range: (0.0, f64::MAX),
    }
}

static TEMPERATURE: Sensor = Sensor {
    day: 3.0,
    wander: 0.8,
    range: (-20.0, 50.0),
    ..sensor("temperature", "°C", 1, 21.0)
};
static PRESSURE: Sensor = Sensor {
    wander: 6.0,
    memory: Duration::from_secs(4 * 3600),
    range: (950.0, 1050.0),
    ..sensor("pressure", "hPa", 1, 1013.0)
};
static HUMIDITY: Sensor = Sensor {
    day: -8.0,
    wander: 3.0,
    range: (5.0, 95.0),
    ..sensor("humidity", "%", 2, 48.0)
};
static ILLUMINANCE: Sensor = Sensor {
    day: 400.0,
    wander: 40.0,
    memory: Duration::from_secs(120),
    range: (0.0, 2000.0),
    ..sensor("illuminance", "lx", 0, 320.0)
};
static ECO2: Sensor = Sensor {
    day: 120.0,
    wander: 80.0,
    range: (400.0, 5000.0),
    ..sensor("eco2", "ppm", 0, 620.0)
};
static TVOC: Sensor = Sensor {
    day: 15.0,
    wander: 12.0,
    range: (0.0, 600.0),
    ..sensor("tvoc", "ppb", 0, 40.0)
};

pub(super) static COAP_KINDS: [Kind; 7] = [
    kind("Led Controller", "samr21-xpro", "samd21", &[Led]),
    kind(
        "Weather Sensor",
        "samr21-xpro",
        "samd21",
        &[Position, S(&TEMPERATURE), S(&PRESSURE), S(&HUMIDITY)],
    ),
    kind("IMU Unit", "iotlab-m3", "stm32f1", &[Led, Imu]),
    kind(
        "A8-M3 Node",
        "iotlab-a8-m3",
        "stm32f1",
        &[Led, Position, S(&TEMPERATURE), Imu],
    ),
    kind(
        "Air Quality",
        "nucleo-f411re",
        "stm32f4",
        &[Led, Position, S(&ECO2), S(&TVOC)],
    ),
    kind(
        "Light Sensor",
        "samr21-xpro",
        "samd21",
        &[Led, Position, S(&ILLUMINANCE)],
    ),
    kind("Robot", "pba-d-01-kw2x", "kw2xd", &[Led, Position, Robot]),
];

pub(super) static WS_KINDS: [Kind; 2] = [
    kind(
        "Meeting Room",
        "esp32-wroom-32",
        "esp32",
        &[Led, Position, S(&TEMPERATURE), S(&HUMIDITY), S(&ECO2)],
    ),
    kind(
        "Window",
        "esp8266-esp-12x",
        "esp8266",
        &[Led, Position, S(&ILLUMINANCE), S(&PRESSURE)],
    ),
];

const fn kind(
    name: &'static str,
    board: &'static str,
    mcu: &'static str,
    resources: &'static [Resource],
) -> Kind {
    Kind {
        name,
        board,
        mcu,
        resources,
    }
}

/// Places with testbeds and universities that run RIOT, as latitude and longitude.
pub(super) const PLACES: [(f64, f64); 8] = [
    (48.714_784, 2.205_502),
    (45.218_615, 5.807_199),
    (50.605_833, 3.149_722),
    (48.523_811, 7.736_476),
    (52.455_750, 13.297_050),
    (53.556_900, 10.022_900),
    (50.811_100, 4.382_700),
    (59.404_700, 17.949_100),
];

impl Resource {
    /// What the nodes call it.
    pub(super) fn path(&self) -> &'static str {
        match self {
            Led => "led",
            Position => "position",
            Robot => "robot",
            Imu => "imu",
            S(sensor) => sensor.path,
        }
    }
}
