// What the page knows, and how a message changes it. Plain data and no framework: the store shows it.

import type {
  Bridge,
  BusEvent,
  BusState,
  Change,
  JsonValue,
  Node,
  Reading,
  ServerMessage,
} from "../__generated__/messages";

/** The events that the page keeps; the oldest are dropped. */
export const MAX_EVENTS = 500;

export type Hello = Extract<ServerMessage, { type: "hello" }>;

/** All that the page knows of the bus. */
export class Model {
  /** The stream and the change that all of it is complete up to; null before the first snapshot. */
  position: { stream: string; rev: number } | null = null;
  hello: Hello | null = null;
  bus: BusState | null = null;
  readonly bridges = new Map<string, Bridge>();
  /** Nodes are replaced, never changed, so that who holds one sees no half of a change. */
  readonly nodes = new Map<string, Node>();
  events: readonly BusEvent[] = [];
}

/** What a message changed, for whoever shows it. */
export class Touched {
  hello = false;
  bus = false;
  bridges = false;
  events = false;
  /** Nodes that are all new. */
  all = false;
  readonly nodes = new Set<string>();
  /** Those of them whose place or word in a list may have changed, not only a value. */
  readonly listed = new Set<string>();
  /** Values that came, in order. */
  values = 0;

  clear(): void {
    this.hello = this.bus = this.bridges = this.events = this.all = false;
    this.nodes.clear();
    this.listed.clear();
    this.values = 0;
  }
}

/** Called for each reading that becomes the node's last. */
export type OnReading = (node: string, resource: string, reading: Reading) => void;

/** Applies a message; an `ack` changes nothing here. */
export function apply(
  model: Model,
  message: ServerMessage,
  touched: Touched,
  onReading: OnReading = () => {},
): void {
  switch (message.type) {
    case "hello":
      model.hello = message;
      touched.hello = true;
      return;
    case "snapshot":
      applySnapshot(model, message, touched, onReading);
      return;
    case "delta":
      if (model.position === null) return;
      for (const change of message.changes) applyChange(model, change, touched, onReading);
      model.position = { stream: model.position.stream, rev: message.rev };
      return;
    case "ack":
      return;
    default:
      unreachable(message);
  }
}

function applySnapshot(
  model: Model,
  snapshot: Extract<ServerMessage, { type: "snapshot" }>,
  touched: Touched,
  onReading: OnReading,
): void {
  model.position = { stream: model.hello?.stream ?? "", rev: snapshot.rev };
  model.bus = snapshot.bus;
  model.bridges.clear();
  for (const bridge of snapshot.bridges) model.bridges.set(bridge.id, bridge);
  model.nodes.clear();
  for (const node of snapshot.nodes) {
    model.nodes.set(node.id, node);
    for (const [resource, reading] of Object.entries(node.values)) {
      onReading(node.id, resource, reading);
    }
  }
  model.events = snapshot.events.slice(-MAX_EVENTS);
  touched.bus = touched.bridges = touched.events = touched.all = true;
}

function applyChange(model: Model, change: Change, touched: Touched, onReading: OnReading): void {
  switch (change.kind) {
    case "bus":
      model.bus = change.bus;
      touched.bus = true;
      return;
    case "bridge":
      model.bridges.set(change.bridge.id, change.bridge);
      touched.bridges = true;
      return;
    case "bridge_gone":
      model.bridges.delete(change.id);
      touched.bridges = true;
      return;
    case "node":
      model.nodes.set(change.node.id, change.node);
      touch(touched, change.node.id, true);
      for (const [resource, reading] of Object.entries(change.node.values)) {
        onReading(change.node.id, resource, reading);
      }
      return;
    case "node_gone":
      model.nodes.delete(change.id);
      touch(touched, change.id, true);
      return;
    case "status": {
      const node = model.nodes.get(change.id) ?? emptyNode(change.id);
      model.nodes.set(change.id, { ...node, status: change.status });
      touch(touched, change.id, node.status?.state !== change.status.state);
      return;
    }
    case "value":
      setValue(model, change.id, change.resource, change.reading, touched);
      onReading(change.id, change.resource, change.reading);
      return;
    case "event":
      model.events = [...model.events.slice(1 - MAX_EVENTS), change.event];
      touched.events = true;
      return;
    default:
      unreachable(change);
  }
}

/** What a node confirmed that a resource now holds, before the reading itself comes. */
export function applyConfirmed(
  model: Model,
  id: string,
  resource: string,
  v: JsonValue,
  ts: string,
  touched: Touched,
): void {
  const before = model.nodes.get(id)?.values[resource];
  if (before === undefined) return;
  const { raw: _, ...rest } = before;
  setValue(model, id, resource, { ...rest, v, ts }, touched);
}

function setValue(
  model: Model,
  id: string,
  resource: string,
  reading: Reading,
  touched: Touched,
): void {
  const known = model.nodes.get(id);
  const node = known ?? emptyNode(id);
  model.nodes.set(id, { ...node, values: { ...node.values, [resource]: reading } });
  touch(touched, id, known === undefined);
  touched.values += 1;
}

function touch(touched: Touched, id: string, listed: boolean): void {
  touched.nodes.add(id);
  if (listed) touched.listed.add(id);
}

function emptyNode(id: string): Node {
  return { id, descriptor: null, status: null, resources: [], values: {} };
}

/** A gateway newer than the page may say what the page doesn't know: that is left out. */
function unreachable(_: never): void {}
