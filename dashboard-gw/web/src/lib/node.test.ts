import { describe, expect, it } from "vitest";
import type { Bridge, JsonValue, Resource } from "../__generated__/messages";
import { node, reading, TS } from "../test/gateway";
import { absence, isOn, lastSeen, leading, presence, resourcesOf, switched, widget } from "./node";

function bridge(state: "online" | "offline"): Bridge {
  return { id: "coap-1", status: { state, protocol: "coap", version: "1", nodes: 1 } };
}

describe("a node's state", () => {
  it("is its own while its bridge is online", () => {
    expect(presence(node("a"), bridge("online"))).toBe("online");
    const lost = node("a", { status: { state: "offline", reason: "timeout", last_seen: TS } });
    expect(presence(lost, bridge("online"))).toBe("offline");
  });

  it("is unknown without its bridge, whatever it said last", () => {
    expect(presence(node("a"), bridge("offline"))).toBe("unknown");
    expect(presence(node("a"), undefined)).toBe("unknown");
    expect(presence(node("a", { status: null }), bridge("online"))).toBe("unknown");
  });

  it("says in words why it is offline", () => {
    const lost = (reason: string) =>
      absence(node("a", { status: { state: "offline", reason, last_seen: TS } }));
    expect(lost("restarted")).toBe("not heard since its bridge started");
    expect(lost("stopping")).toBe("stopping");
  });

  it("was last seen when its latest value came", () => {
    const later = "2026-01-02T03:05:00.000Z";
    const values = { temperature: reading(1, "°C", later) };
    expect(lastSeen(node("a", { values }))).toBe(Date.parse(later));
    expect(lastSeen(node("a", { status: null, values: {} }))).toBeNull();
  });
});

describe("a widget", () => {
  const check = (resource: Partial<Resource>, v: JsonValue | undefined) =>
    widget({ name: "x", path: "/x", ...resource }, v);

  it("is a switch for what can only be on or off", () => {
    expect(check({ name: "led", methods: ["get", "set"] }, 0)).toBe("switch");
    expect(check({ name: "led", methods: ["set"] }, undefined)).toBe("switch");
    expect(check({ methods: ["set"] }, true)).toBe("switch");
    expect(check({ name: "led" }, "1")).toBe("switch");
  });

  it("is a field for any other that can be written", () => {
    expect(check({ methods: ["set"] }, 1)).toBe("field");
    expect(check({ methods: ["set"] }, "hello")).toBe("field");
    expect(check({ name: "led", methods: ["set"] }, 128)).toBe("field");
  });

  it("is for whoever knows better when nothing is known of the resource", () => {
    expect(check({}, true)).toBe("maybe");
    expect(check({}, 5)).toBe("maybe");
  });

  it("is none for what can only be read, and for what says who the node is", () => {
    expect(check({ name: "led", methods: ["get"] }, 0)).toBe("none");
    expect(check({ name: "board" }, "samr21")).toBe("none");
  });
});

describe("switching", () => {
  it.each([
    [0, 1],
    [1, 0],
    [true, false],
    ["0", "1"],
    ["on", "off"],
    [undefined, 1],
  ])("%o over gives %o", (before, after) => {
    expect(switched(before)).toBe(after);
  });

  it("knows what says neither on nor off", () => {
    expect(isOn(2)).toBeNull();
    expect(isOn("blink")).toBeNull();
  });
});

describe("leading values", () => {
  const mixed = node("a", {
    resources: [],
    values: {
      name: reading("a"),
      led: reading(1),
      imu: reading([1, 2]),
      note: reading("hello"),
      weight: reading(3),
      humidity: reading(40, "%"),
      temperature: reading(21, "°C"),
    },
  });

  const names = (of: typeof mixed) => leading(of, 4).map(({ resource }) => resource.name);

  it("are the numbers, without what says who it is and what is a switch", () => {
    expect(names(mixed)).toEqual(["temperature", "humidity", "weight"]);
  });

  it("are the others when there is no number", () => {
    const { name, led, imu, note } = mixed.values;
    expect(names({ ...mixed, values: { name, led, imu, note } as typeof mixed.values })).toEqual([
      "imu",
      "note",
    ]);
  });

  it("count what no list of resources told of", () => {
    expect(resourcesOf(mixed)).toHaveLength(7);
  });
});
