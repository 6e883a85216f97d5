// Plausible nodes for the mock gateway: values that wander, switches that answer late, refuse or never do.

/** @typedef {import("../src/__generated__/messages").Node} Node */
/** @typedef {import("../src/__generated__/messages").Bridge} Bridge */
/** @typedef {import("../src/__generated__/messages").Reading} Reading */
/** @typedef {import("../src/__generated__/messages").Resource} Resource */
/** @typedef {{ name: string, u: string, mean: number, swing: number, digits: number }} Sensor */

const NAMES = [
  "greenhouse",
  "kitchen",
  "roof",
  "server room",
  "window 2.14",
  "lobby",
  "lab bench 3",
  "weather mast",
  "cellar",
  "stairwell",
  "drone",
  "corridor west",
];
const BOARDS = ["samr21-xpro", "iotlab-m3", "nrf52840dk", "esp32-wroom-32", "arduino-mkr1000"];
const MCUS = ["samd21", "stm32f1", "nrf52", "esp32", "samd21"];

/** @type {Sensor[]} */
const SENSORS = [
  { name: "temperature", u: "°C", mean: 21.4, swing: 4, digits: 2 },
  { name: "humidity", u: "%", mean: 46, swing: 12, digits: 1 },
  { name: "pressure", u: "hPa", mean: 1008.6, swing: 6, digits: 1 },
  { name: "illuminance", u: "lx", mean: 320, swing: 200, digits: 0 },
];

export class Fleet {
  /** @param {number} size */
  constructor(size) {
    /** @type {Map<string, Node>} */
    this.nodes = new Map();
    /** @type {Map<string, Bridge>} */
    this.bridges = new Map();
    /** @type {Map<string, Sensor[]>} */
    this.sensors = new Map();
    this.bridges.set("coap-1", bridge("coap-1", "coap", Math.ceil((size * 2) / 3)));
    this.bridges.set("ws-1", bridge("ws-1", "websocket", Math.floor(size / 3)));
    for (let i = 0; i < size; i++) this.#add(i);
  }

  /** @param {number} i */
  #add(i) {
    const round = Math.floor(i / NAMES.length);
    const name = `${NAMES[i % NAMES.length]}${round === 0 ? "" : ` ${round + 1}`}`;
    const id = name.replace(/[^a-z0-9]+/g, "-");
    const coap = i % 3 !== 2;
    const sensors = SENSORS.slice(0, [4, 2, 3, 1][i % 4]);
    if (name === "drone") sensors.length = 0;
    this.sensors.set(id, sensors);
    const lost = i % 12 === 8;
    const ago = lost ? 41 * 60_000 : 2_000;
    /** @type {Resource[]} */
    const resources = [
      ...["name", "os", "board", "mcu"].map((one) => resource(one, ["get"])),
      ...sensors.map((sensor) => ({ ...resource(sensor.name, ["get"]), obs: true })),
      resource("led", ["get", "set"]),
    ];
    /** @type {Record<string, Reading>} */
    const values = {
      name: reading(name, ago),
      os: reading("riot", ago),
      board: reading(BOARDS[i % 5] ?? "", ago),
      mcu: reading(MCUS[i % 5] ?? "", ago),
      led: reading(i % 2, ago),
    };
    for (const sensor of sensors) values[sensor.name] = measure(sensor, i, ago);
    if (name === "drone") {
      resources.push(
        resource("imu", ["get"]),
        resource("position", ["get"]),
        resource("target", ["get", "set"]),
      );
      values.imu = reading(
        [
          { type: "acc", values: [0.01, -0.02, 0.98] },
          { type: "gyr", values: [1.2, 0, -0.4] },
        ],
        ago,
      );
      values.position = reading("48.7146,2.2059", ago);
      values.target = reading("<b>home</b>", ago);
    }
    if (name === "lobby") {
      resources.push(resource("setpoint", ["get", "set"]));
      values.setpoint = { ...reading(20.5, ago), u: "°C" };
    }
    this.nodes.set(id, {
      id,
      descriptor: {
        id,
        uid: coap ? `0x${(0x3a7f00 + i).toString(16)}` : id,
        name,
        protocol: coap ? "coap" : "websocket",
        bridge: coap ? "coap-1" : "ws-1",
        address: coap
          ? `[2001:db8::3a7f:${i.toString(16)}]:5683`
          : `192.0.2.${(i % 250) + 1}:51234`,
        ...(coap ? { os: "RIOT" } : i % 2 ? { os: "MicroPython" } : {}),
        board: BOARDS[i % 5] ?? "",
        mcu: MCUS[i % 5] ?? "",
        ...(coap ? { version: "2026.10" } : {}),
        first_seen: at(26 * 3600_000),
        epoch: i % 4 === 0 ? 2 : 0,
      },
      status: {
        state: lost ? "offline" : "online",
        reason: lost ? "timeout" : "alive",
        last_seen: at(ago),
      },
      resources,
      values,
    });
  }

  /**
   * New values of a share of the nodes.
   * @param {number} share
   * @returns {import("../src/__generated__/messages").Change[]}
   */
  tick(share) {
    /** @type {import("../src/__generated__/messages").Change[]} */
    const changes = [];
    for (const [id, node] of this.nodes) {
      if (node.status?.state !== "online" || !this.alive(node)) continue;
      for (const sensor of this.sensors.get(id) ?? []) {
        if (Math.random() > share) continue;
        const fresh = wander(sensor, node.values[sensor.name]);
        node.values[sensor.name] = fresh;
        changes.push({ kind: "value", id, resource: sensor.name, reading: fresh });
      }
    }
    return changes;
  }

  /** @param {Node} node */
  alive(node) {
    return this.bridges.get(node.descriptor?.bridge ?? "")?.status.state === "online";
  }
}

/** @param {number} ago */
export function at(ago) {
  return new Date(Date.now() - ago).toISOString();
}

/**
 * @param {Reading["v"]} v
 * @param {number} ago
 * @returns {Reading}
 */
function reading(v, ago) {
  return { v, ts: at(ago) };
}

/**
 * @param {string} name
 * @param {("get" | "set")[]} methods
 * @returns {Resource}
 */
function resource(name, methods) {
  return { name, path: `/${name}`, methods };
}

/**
 * @param {string} id
 * @param {string} protocol
 * @param {number} nodes
 * @returns {Bridge}
 */
function bridge(id, protocol, nodes) {
  return { id, status: { state: "online", protocol, version: "0.1.0", nodes, ts: at(3_600_000) } };
}

/**
 * @param {Sensor} sensor
 * @param {number} i
 * @param {number} ago
 * @returns {Reading}
 */
function measure(sensor, i, ago) {
  const v = sensor.mean + Math.sin(i * 2.4) * sensor.swing;
  return { v: Number(v.toFixed(sensor.digits)), u: sensor.u, ts: at(ago) };
}

/**
 * @param {Sensor} sensor
 * @param {Reading | undefined} last
 * @returns {Reading}
 */
function wander(sensor, last) {
  const before = typeof last?.v === "number" ? last.v : sensor.mean;
  const v = before + (Math.random() - 0.5) * sensor.swing * 0.15 + (sensor.mean - before) * 0.02;
  return { v: Number(v.toFixed(sensor.digits)), u: sensor.u, ts: at(0) };
}
