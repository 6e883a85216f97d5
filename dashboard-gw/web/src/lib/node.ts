// What follows from a node's data: its state, the values to lead with, the widget of a resource.

import type { Bridge, JsonValue, Node, Reading, Resource } from "../__generated__/messages";

/** The three states in which a node is shown. */
export type Presence = "online" | "offline" | "unknown";

/** Says what a node is, not what it measures; never a leading value. */
const IDENTITY = new Set(["name", "os", "board", "mcu", "vendor", "version"]);
const SWITCHES = new Set(["led", "light", "lamp", "relay", "switch", "power"]);
/** Texts are long: so many fit where four numbers do. */
const MOST_TEXTS = 2;
const LEADING_FIRST = ["temperature", "humidity", "pressure", "illuminance", "battery", "voltage"];

/** A node is only as known as its bridge: without that its own status is hearsay. */
export function presence(node: Node, bridge: Bridge | undefined): Presence {
  if (node.status === null || bridge?.status.state !== "online") return "unknown";
  return node.status.state;
}

const ABSENCES = new Map([
  ["timeout", "no sign of life"],
  ["restarted", "not heard since its bridge started"],
  ["closed", "closed its connection"],
  ["unanswered", "answered no ping"],
  ["invalid", "sent what can't be read"],
  ["deregistered", "signed off"],
]);

/** Why it is offline, in words for people; the bridge's own word when there are none for it. */
export function absence(node: Node): string {
  const reason = node.status?.reason ?? "";
  return ABSENCES.get(reason) ?? reason;
}

/** What people call it. */
export function nodeName(node: Node): string {
  return node.descriptor?.name || node.id;
}

/** Its last sign of life, in Unix milliseconds; null when it never gave one. */
export function lastSeen(node: Node): number | null {
  let latest = node.status === null ? Number.NEGATIVE_INFINITY : Date.parse(node.status.last_seen);
  if (node.status?.state !== "offline") {
    for (const reading of Object.values(node.values)) {
      const at = Date.parse(reading.ts);
      if (at > latest) latest = at;
    }
  }
  return Number.isFinite(latest) ? latest : null;
}

/** A switch is what has the name of one or holds a boolean, and holds nothing but on and off. */
export function isSwitch(resource: Resource, v: JsonValue | undefined): boolean {
  if (v === undefined) return SWITCHES.has(resource.name);
  const binary = typeof v === "boolean" || isOn(v) !== null;
  return binary && (typeof v === "boolean" || SWITCHES.has(resource.name));
}

/** Whether a value says on; null when it says neither on nor off. */
export function isOn(v: JsonValue | undefined): boolean | null {
  switch (v) {
    case true:
    case 1:
    case "1":
    case "on":
      return true;
    case false:
    case 0:
    case "0":
    case "off":
      return false;
    default:
      return null;
  }
}

/** The value that switches over, in the form in which the node writes its own. */
export function switched(v: JsonValue | undefined): JsonValue {
  const on = isOn(v) !== true;
  if (typeof v === "boolean") return on;
  if (v === "on" || v === "off") return on ? "on" : "off";
  if (v === "1" || v === "0") return on ? "1" : "0";
  return on ? 1 : 0;
}

/** How a resource can be written to; `maybe`: it didn't say, so whoever knows better can try. */
export type Widget = "switch" | "field" | "maybe" | "none";

/** Which widget writes to a resource. */
export function widget(resource: Resource, v: JsonValue | undefined): Widget {
  const methods = resource.methods ?? [];
  const onOff = isSwitch(resource, v);
  if (methods.length === 0) {
    if (onOff && SWITCHES.has(resource.name)) return "switch";
    return isIdentity(resource) ? "none" : "maybe";
  }
  if (!methods.includes("set")) return "none";
  return onOff ? "switch" : "field";
}

/** The resources of a node, and those that only a value told of. */
export function resourcesOf(node: Node): Resource[] {
  const known = new Set(node.resources.map((resource) => resource.name));
  const told = Object.keys(node.values).filter((name) => !known.has(name));
  return [...node.resources, ...told.map((name) => ({ name, path: name }))];
}

/** Whether a resource is known to take writes. */
export function isWritable(resource: Resource, v: JsonValue | undefined): boolean {
  const kind = widget(resource, v);
  return kind === "switch" || kind === "field";
}

/** What a resource is called by people. */
export function resourceLabel(resource: Resource): string {
  return resource.title || resource.name;
}

/** A value that leads on a card. */
export type Leading = { resource: Resource; reading: Reading };

/** The values a card leads with: numbers, and others where there are none; in an order that doesn't change with the values. */
export function leading(node: Node, most: number): Leading[] {
  const candidates: Leading[] = [];
  for (const resource of resourcesOf(node)) {
    const reading = node.values[resource.name];
    if (reading === undefined || IDENTITY.has(resource.name)) continue;
    if (isSwitch(resource, reading.v)) continue;
    candidates.push({ resource, reading });
  }
  const numbers = candidates.filter(({ reading }) => typeof reading.v === "number");
  if (numbers.length === 0) return candidates.slice(0, Math.min(most, MOST_TEXTS));
  const rank = ({ resource }: Leading) => {
    const known = LEADING_FIRST.indexOf(resource.name);
    return known < 0 ? LEADING_FIRST.length : known;
  };
  return numbers.sort((a, b) => rank(a) - rank(b)).slice(0, most);
}

/** Whether a resource says what the node is. */
export function isIdentity(resource: Resource): boolean {
  return IDENTITY.has(resource.name);
}
