// The page against a gateway that the test plays, found by what a person would look for.

import { cleanup, fireEvent, render, screen, within } from "@testing-library/svelte";
import { tick } from "svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ServerMessage } from "./__generated__/messages";
import App from "./App.svelte";
import { Router } from "./lib/router.svelte";
import { Store } from "./lib/store.svelte";
import { Theme } from "./lib/theme.svelte";
import { loadParts } from "./parts";
import { FakeGateway, hello, node, reading, snapshot, TS } from "./test/gateway";

let gateway: FakeGateway;

async function says(...messages: ServerMessage[]): Promise<void> {
  for (const message of messages) gateway.socket.says(message);
  await vi.advanceTimersByTimeAsync(50);
  await tick();
}

async function open(...messages: ServerMessage[]): Promise<void> {
  const app = { store: new Store(gateway.open), router: new Router(), theme: new Theme() };
  render(App, { props: { app } });
  await says(...messages);
}

beforeEach(async () => {
  await loadParts();
  vi.useFakeTimers({ now: Date.parse(TS) + 3_000 });
  gateway = new FakeGateway();
});

afterEach(() => {
  cleanup();
});

describe("a node's card", () => {
  it("shows state, age and values, and follows them", async () => {
    await open(hello(), snapshot([node("lamp")]));
    const card = screen.getByRole("article", { name: "lamp" });
    expect(card.dataset.state).toBe("online");
    expect(card.textContent).toContain("online");
    expect(card.textContent).toContain("3 s");
    expect(card.querySelector('[data-resource="temperature"]')?.textContent).toContain("21.5");

    const fresh = reading(22.25, "°C", "2026-01-02T03:04:07.000Z");
    const change = { kind: "value", id: "lamp", resource: "temperature", reading: fresh } as const;
    await says({ type: "delta", rev: 2, changes: [change] });
    expect(card.textContent).toContain("22.25\u00a0°C");
  });

  it("says unknown when its bridge goes", async () => {
    await open(hello(), snapshot([node("lamp")]));
    const status = { state: "offline", protocol: "coap", version: "0.1.0", nodes: 1 } as const;
    const change = { kind: "bridge", bridge: { id: "coap-1", status } } as const;
    await says({ type: "delta", rev: 2, changes: [change] });
    const card = screen.getByRole("article", { name: "lamp" });
    expect(card.dataset.state).toBe("unknown");
    expect(within(card).getByRole("switch", { name: "led" })).toHaveProperty("disabled", true);
  });

  it("shows what a device wrote as text", async () => {
    const name = "<img src=x onerror=alert(1)>";
    const values = { note: reading("<b>bold</b>") };
    const descriptor = { ...node("x").descriptor, name } as NonNullable<
      ReturnType<typeof node>["descriptor"]
    >;
    await open(hello(), snapshot([node("x", { descriptor, values, resources: [] })]));
    const card = screen.getByRole("article", { name });
    expect(card.querySelector("img, b")).toBeNull();
    expect(card.textContent).toContain("<b>bold</b>");
  });
});

describe("the led's switch", () => {
  const led = () =>
    within(screen.getByRole("article", { name: "lamp" })).getByRole("switch", { name: "led" });

  async function press(): Promise<string> {
    await fireEvent.click(led());
    const message = gateway.socket.sent.at(-1);
    expect(message).toMatchObject({ type: "set", node: "lamp", resource: "led", value: 1 });
    return message?.type === "set" ? message.request : "";
  }

  it("stays where it is until the node confirmed", async () => {
    await open(hello(), snapshot([node("lamp")]));
    const request = await press();
    expect(led().getAttribute("aria-checked")).toBe("false");
    expect(led().getAttribute("aria-busy")).toBe("true");
    expect(led().dataset.command).toBe("pending");

    await says({ type: "ack", request, ack: { id: null, op: "set", status: "ok", v: 1, ms: 42 } });
    expect(led().getAttribute("aria-checked")).toBe("true");
    expect(led().dataset.command).toBe("confirmed");
    expect(screen.getByRole("article").textContent).toContain("42 ms");
    const result = screen.getByRole("status", { name: "Last command" });
    expect(result.textContent).toBe("led of lamp: confirmed in 42 ms");
  });

  it("shows the node's words when it fails, and asks again on retry", async () => {
    await open(hello(), snapshot([node("lamp")]));
    const request = await press();
    const ack = { id: null, op: "set", status: "rejected", ms: 5, error: "no such lamp" } as const;
    await says({ type: "ack", request, ack });
    expect(led().getAttribute("aria-checked")).toBe("false");
    expect(screen.getByText("No such lamp")).toBeTruthy();
    const before = gateway.socket.sent.length;
    await fireEvent.click(screen.getByRole("button", { name: "Retry" }));
    expect(gateway.socket.sent.slice(before)).toMatchObject([{ type: "set", value: 1 }]);
  });

  it("is disabled with the reason for who may only look", async () => {
    await open(hello({ can_write: false }), snapshot([node("lamp")]));
    expect(led()).toHaveProperty("disabled", true);
    expect(led().title).toContain("View only");
  });
});

describe("the state of the connection", () => {
  const strip = () => screen.getByRole("status", { name: "Connection" });

  it("is live, or the bus is missing", async () => {
    await open(hello(), snapshot([node("lamp")]));
    expect(strip().textContent).toContain("Live");
    const bus = { connected: false, since: "2026-01-02T03:04:06.000Z" };
    await says({ type: "delta", rev: 2, changes: [{ kind: "bus", bus }] });
    expect(strip().textContent).toContain("The gateway has lost the bus");
  });

  it("says since when the data is old, counts down, and tries when told to", async () => {
    await open(hello(), snapshot([node("lamp")]));
    gateway.socket.breaks();
    await tick();
    expect(strip().textContent).toMatch(/Disconnected\s+- data as of \d\d:\d\d:\d\d/);
    expect(screen.getByText(/retrying in \d+ s/)).toBeTruthy();
    await fireEvent.click(screen.getByRole("button", { name: "Retry now" }));
    expect(gateway.sockets).toHaveLength(2);
    await says(hello());
    expect(strip().textContent).toContain("Live");
    expect(screen.getByRole("article", { name: "lamp" })).toBeTruthy();
  });
});

describe("the views", () => {
  it("teach when there are no nodes", async () => {
    await open(hello(), snapshot());
    expect(screen.getByRole("heading", { name: "No nodes yet" })).toBeTruthy();
    expect(screen.getByText("nodebus simulate --coap 3")).toBeTruthy();
    expect(screen.getByText("coap://[2001:db8::1]:5683")).toBeTruthy();
  });

  it("open a node from its card, with all it has, and close it with Escape", async () => {
    await open(hello(), snapshot([node("lamp"), node("other")]));
    await fireEvent.click(screen.getByRole("link", { name: "lamp" }));
    await tick();
    expect(location.search).toBe("?node=lamp");
    expect(screen.getByRole("heading", { level: 1, name: "lamp" })).toBeTruthy();
    expect(screen.getByRole("row", { name: /temperature 21.5/ })).toBeTruthy();
    expect(screen.getByText(/mosquitto_sub .*'nodebus\/v1\/nodes\/lamp\/#'/)).toBeTruthy();

    await fireEvent.click(screen.getByRole("button", { name: "Refresh" }));
    const gets = gateway.socket.sent.filter((message) => message.type === "get");
    expect(gets.map((message) => message.type === "get" && message.resource)).toEqual([
      "temperature",
      "led",
    ]);

    await fireEvent.keyDown(document.body, { key: "Escape" });
    await tick();
    expect(screen.getAllByRole("article")).toHaveLength(2);
  });

  it("filter by search and chips", async () => {
    await open(hello(), snapshot([node("lamp"), node("pump", { status: null })]));
    await fireEvent.input(screen.getByRole("searchbox", { name: "Search nodes" }), {
      target: { value: "pu" },
    });
    expect(screen.getAllByRole("article").map((card) => card.dataset.node)).toEqual(["pump"]);
    await fireEvent.click(screen.getByRole("button", { name: "1 filter active – clear" }));
    await fireEvent.click(screen.getByRole("button", { name: /^online 1/ }));
    expect(screen.getAllByRole("article").map((card) => card.dataset.node)).toEqual(["lamp"]);
  });

  it("list events in words", async () => {
    history.replaceState(null, "", "/?view=events");
    const events = [{ type: "node_lost", node: "lamp", reason: "timeout", ts: TS } as const];
    await open(hello(), snapshot([node("lamp")], { events }));
    expect(screen.getByRole("listitem").textContent).toMatch(/lamp\s+was lost \(timeout\)/);
  });
});
