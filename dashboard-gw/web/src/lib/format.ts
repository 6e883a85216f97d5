// Values, ages and times as words. Pure: the time is a parameter.

import type { JsonValue } from "../__generated__/messages";

const MINUS = "\u2212";

/** How long ago something was, in its one greatest unit: `3 s`, `2 min`, `5 h`, `3 d`. */
export function age(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

/** The decimals that a number is worth showing with: at most five significant digits. */
export function decimals(value: number): number {
  const magnitude = Math.abs(value);
  const most = magnitude >= 1000 ? 1 : magnitude >= 1 ? 2 : 3;
  const text = Number(value.toFixed(most)).toString();
  const point = text.indexOf(".");
  return point < 0 || text.includes("e") ? 0 : text.length - point - 1;
}

/** A number with a fixed count of decimals, so that a live value keeps its width. */
export function number(value: number, digits = decimals(value)): string {
  if (!Number.isFinite(value)) return String(value);
  const magnitude = Math.abs(value);
  if (magnitude >= 1e9 || (magnitude > 0 && magnitude < 1e-3)) {
    return value.toExponential(2).replace(/-/g, MINUS);
  }
  return value.toFixed(digits).replace("-", MINUS);
}

/** Any value as one line of text. */
export function value(v: JsonValue, digits?: number): string {
  switch (typeof v) {
    case "number":
      return number(v, digits);
    case "boolean":
      return v ? "on" : "off";
    case "string":
      return v;
    default:
      return v === null ? "nothing" : brief(v, 4);
  }
}

/** The most of a structured value that is shown in one line. */
const BRIEF_CHARS = 400;

/** A structured value as a person would note it: `lat 48.5, lng 7.7`; `acc −250, 4, 950`. */
function brief(v: JsonValue, depth: number): string {
  // Coordinates are worth more digits than a measured value.
  if (typeof v === "number") return `${Number(v.toPrecision(8))}`.replace("-", MINUS);
  if (typeof v !== "object" || v === null) return value(v);
  if (depth === 0) return "…";
  const text = Array.isArray(v)
    ? v.map((one) => brief(one, depth - 1)).join(v.some(isStructured) ? " · " : ", ")
    : briefObject(v, depth - 1);
  return text.length > BRIEF_CHARS ? `${text.slice(0, BRIEF_CHARS)}…` : text;
}

function briefObject(v: { [key: string]: JsonValue }, depth: number): string {
  // As Pyaiot's firmwares write the axes of a sensor.
  const { type, values, ...rest } = v;
  if (typeof type === "string" && values !== undefined && Object.keys(rest).length === 0) {
    return `${type} ${brief(values, depth)}`;
  }
  const parts = Object.entries(v).map(([key, one]) => `${key} ${brief(one, depth)}`);
  return parts.join(", ");
}

function isStructured(v: JsonValue): boolean {
  return typeof v === "object" && v !== null;
}

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
});

/** The time of day, `12:03:05`, in the reader's time zone. */
export function timeOfDay(ms: number): string {
  return clock.format(ms);
}

/** The time of day, with the date in front when it is not today's. */
export function dateTime(ms: number, now: number): string {
  if (!Number.isFinite(ms)) return "at an unknown time";
  if (day.format(ms) === day.format(now) && Math.abs(now - ms) < 86_400_000)
    return clock.format(ms);
  const sameYear = new Date(ms).getFullYear() === new Date(now).getFullYear();
  return `${(sameYear ? day : dayOfYear).format(ms)}, ${clock.format(ms)}`;
}

/** What a protocol is called by people. */
export function protocolName(protocol: string): string {
  switch (protocol) {
    case "coap":
      return "CoAP";
    case "websocket":
    case "ws":
      return "WebSocket";
    case "mqtt":
      return "MQTT";
    default:
      return protocol;
  }
}

const SYSTEMS: Readonly<Record<string, string>> = {
  arduino: "Arduino",
  contiki: "Contiki",
  "contiki-ng": "Contiki-NG",
  freertos: "FreeRTOS",
  linux: "Linux",
  micropython: "MicroPython",
  riot: "RIOT",
  zephyr: "Zephyr",
};

/** What an operating system is called by people. */
export function systemName(os: string): string {
  return SYSTEMS[os.toLowerCase()] ?? os;
}

/** The bridge and the protocol, in one word where both say the same. */
export function wayName(bridge: string, protocol: string): string {
  const name = protocolName(protocol);
  return name === protocolName(bridge) ? name : `${bridge} · ${name}`;
}

/** `1 node`, `2 nodes`. */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** Text as one word of a POSIX shell. */
export function shellWord(text: string): string {
  return `'${text.replace(/'/g, `'\\''`)}'`;
}
