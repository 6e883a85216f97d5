import { beforeEach, describe, expect, it } from "vitest";
import type { Change } from "../__generated__/messages";
import { hello, node, reading, snapshot, TS } from "../test/gateway";
import { apply, applyConfirmed, MAX_EVENTS, Model, Touched } from "./model";

let model: Model;
let touched: Touched;

function change(...changes: Change[]): void {
  touched.clear();
  apply(model, { type: "delta", rev: (model.position?.rev ?? 0) + 1, changes }, touched);
}

beforeEach(() => {
  model = new Model();
  touched = new Touched();
  apply(model, hello(), touched);
  apply(model, snapshot([node("a"), node("b")]), touched);
});

describe("a snapshot", () => {
  it("replaces all that was known", () => {
    touched.clear();
    apply(model, snapshot([node("c")], { rev: 9, bridges: [] }), touched);
    expect([...model.nodes.keys()]).toEqual(["c"]);
    expect(model.bridges.size).toBe(0);
    expect(model.position).toEqual({ stream: "s1", rev: 9 });
    expect(touched.all).toBe(true);
  });

  it("hands on every reading", () => {
    const seen: string[] = [];
    apply(model, snapshot([node("a")]), touched, (id, name) => seen.push(`${id}/${name}`));
    expect(seen).toEqual(["a/temperature", "a/led"]);
  });
});

describe("a delta", () => {
  it("moves the position on", () => {
    change();
    expect(model.position).toEqual({ stream: "s1", rev: 2 });
  });

  it("is left out when there is nothing it could be a change of", () => {
    const fresh = new Model();
    apply(fresh, { type: "delta", rev: 4, changes: [{ kind: "node", node: node("a") }] }, touched);
    expect(fresh.nodes.size).toBe(0);
    expect(fresh.position).toBeNull();
  });

  it("replaces the node of a value, and only that one", () => {
    const before = { a: model.nodes.get("a"), b: model.nodes.get("b") };
    change({ kind: "value", id: "a", resource: "temperature", reading: reading(22, "°C") });
    expect(model.nodes.get("a")?.values.temperature?.v).toBe(22);
    expect(model.nodes.get("a")?.values.led).toBe(before.a?.values.led);
    expect(before.a?.values.temperature?.v).toBe(21.5);
    expect(model.nodes.get("b")).toBe(before.b);
    expect([...touched.nodes]).toEqual(["a"]);
    expect(touched.listed.size).toBe(0);
  });

  it("lists a node anew when its state changed, not when it was only seen again", () => {
    const status = { state: "online", reason: "alive", last_seen: TS } as const;
    change({ kind: "status", id: "a", status });
    expect(touched.listed.size).toBe(0);
    change({ kind: "status", id: "a", status: { ...status, state: "offline", reason: "timeout" } });
    expect([...touched.listed]).toEqual(["a"]);
  });

  it("takes a value of a node that was never described", () => {
    change({ kind: "value", id: "new", resource: "x", reading: reading(1) });
    expect(model.nodes.get("new")).toMatchObject({ descriptor: null, values: { x: { v: 1 } } });
    expect([...touched.listed]).toEqual(["new"]);
  });

  it("removes nodes and bridges", () => {
    change({ kind: "node_gone", id: "a" }, { kind: "bridge_gone", id: "coap-1" });
    expect([...model.nodes.keys()]).toEqual(["b"]);
    expect(model.bridges.size).toBe(0);
  });

  it("keeps the latest events", () => {
    for (let i = 0; i < MAX_EVENTS + 5; i++) {
      change({ kind: "event", event: { type: "node_new", node: `n${i}`, ts: TS } });
    }
    expect(model.events).toHaveLength(MAX_EVENTS);
    expect(model.events.at(-1)?.node).toBe(`n${MAX_EVENTS + 4}`);
  });

  it("survives a change that a newer gateway knows and this page doesn't", () => {
    // As it would come off the wire.
    const unknown = JSON.parse('{"kind":"weather","sky":"blue"}');
    change(unknown, { kind: "node_gone", id: "a" });
    expect(model.nodes.has("a")).toBe(false);
  });
});

describe("a confirmed value", () => {
  it("takes the place of the last one and keeps its unit", () => {
    applyConfirmed(model, "a", "temperature", 25, "2026-01-02T03:05:00.000Z", touched);
    expect(model.nodes.get("a")?.values.temperature).toEqual({
      v: 25,
      u: "°C",
      ts: "2026-01-02T03:05:00.000Z",
    });
  });

  it("is left out for a resource that never had one", () => {
    applyConfirmed(model, "a", "fan", 1, TS, touched);
    expect(model.nodes.get("a")?.values).not.toHaveProperty("fan");
  });
});
