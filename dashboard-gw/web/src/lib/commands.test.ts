import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Ack, ClientMessage } from "../__generated__/messages";
import {
  ANSWER_TIMEOUT_MS,
  type Ask,
  Commands,
  commandKey,
  MAX_UNDER_WAY,
  SHOWN_MS,
} from "./commands.svelte";

const SET: Ask = { op: "set", node: "a", resource: "led", value: 1 };
const KEY = commandKey(SET);

let sent: ClientMessage[];
let announced: string[];
let confirmed: unknown[][];
let connected: boolean;
let commands: Commands;

function ack(change: Partial<Ack> = {}): Ack {
  return { id: "x", op: "set", status: "ok", ms: 42, ...change };
}

beforeEach(() => {
  vi.useFakeTimers();
  sent = [];
  announced = [];
  confirmed = [];
  connected = true;
  commands = new Commands({
    send: (message) => {
      if (connected) sent.push(message);
      return connected;
    },
    announce: (sentence) => announced.push(sentence),
    confirmed: (...all) => confirmed.push(all),
    name: (id) => `node ${id}`,
  });
});

describe("a request", () => {
  it("is pending until the node confirmed it, then shown for a while", () => {
    commands.ask(SET);
    expect(sent).toEqual([{ type: "set", request: "1", node: "a", resource: "led", value: 1 }]);
    expect(commands.state(KEY)).toEqual({ phase: "pending" });
    expect(confirmed).toEqual([]);

    commands.onAck("1", ack({ v: 1 }));
    expect(commands.state(KEY)).toEqual({ phase: "confirmed", ms: 42 });
    expect(confirmed).toEqual([["a", "led", 1]]);
    expect(announced).toEqual(["led of node a: confirmed in 42 ms"]);

    vi.advanceTimersByTime(SHOWN_MS);
    expect(commands.state(KEY)).toBeUndefined();
  });

  it("fails in the node's words and can be asked again", () => {
    commands.ask(SET);
    commands.onAck("1", ack({ status: "rejected", code: "4.05", error: "the node refused" }));
    expect(commands.state(KEY)).toMatchObject({
      phase: "failed",
      words: "The node refused",
      technical: "set: rejected, after 42 ms, code 4.05",
    });
    expect(announced).toEqual(["led of node a: The node refused"]);
    vi.advanceTimersByTime(60_000);
    expect(commands.state(KEY)?.phase).toBe("failed");

    commands.retry(KEY);
    expect(sent.at(-1)).toMatchObject({ type: "set", request: "2", value: 1 });
    expect(commands.state(KEY)?.phase).toBe("pending");
  });

  it.each([
    ["rejected", "The node refused"],
    ["timeout", "The node did not answer in time"],
    ["error", "The node could not do it"],
  ] as const)("that ends with %s and no words is told of as: %s", (status, words) => {
    commands.ask(SET);
    commands.onAck("1", ack({ status }));
    expect(commands.state(KEY)).toMatchObject({ phase: "failed", words });
  });

  it("is not sent twice by a second press", () => {
    commands.ask(SET);
    commands.ask({ ...SET, value: 0 });
    expect(sent).toHaveLength(1);
  });

  it("fails at once without a connection", () => {
    connected = false;
    commands.ask(SET);
    expect(commands.state(KEY)).toMatchObject({ phase: "failed", words: "Not connected" });
  });

  it("fails when the gateway never answers, and a late answer changes nothing", () => {
    commands.ask(SET);
    vi.advanceTimersByTime(ANSWER_TIMEOUT_MS);
    expect(commands.state(KEY)).toMatchObject({ phase: "failed", words: "No answer came" });
    commands.onAck("1", ack({ v: 1 }));
    expect(commands.state(KEY)?.phase).toBe("failed");
    expect(confirmed).toEqual([]);
  });

  it("fails when the connection goes", () => {
    commands.ask(SET);
    commands.onDisconnected();
    expect(commands.state(KEY)).toMatchObject({
      phase: "failed",
      words: "The connection was lost before the answer came",
    });
  });

  it("can be dismissed when it failed, not while it is under way", () => {
    commands.ask(SET);
    commands.dismiss(KEY);
    expect(commands.state(KEY)?.phase).toBe("pending");
    commands.onAck("1", ack({ status: "error" }));
    commands.dismiss(KEY);
    expect(commands.state(KEY)).toBeUndefined();
  });

  it("of a command goes out as one", () => {
    commands.ask({ op: "ping", node: "a" });
    expect(sent).toEqual([{ type: "command", request: "1", node: "a", op: "ping" }]);
  });
});

describe("many requests", () => {
  const gets = Array.from(
    { length: MAX_UNDER_WAY + 3 },
    (_, i): Ask => ({ op: "get", node: "a", resource: `r${i}` }),
  );

  it("wait for their turn", () => {
    for (const get of gets) commands.ask(get);
    expect(sent).toHaveLength(MAX_UNDER_WAY);
    expect(gets.every((get) => commands.state(commandKey(get))?.phase === "pending")).toBe(true);
    commands.onAck("1", ack({ op: "get" }));
    expect(sent).toHaveLength(MAX_UNDER_WAY + 1);
  });

  it("all fail when the connection goes, also those that waited", () => {
    for (const get of gets) commands.ask(get);
    commands.onDisconnected();
    expect(gets.every((get) => commands.state(commandKey(get))?.phase === "failed")).toBe(true);
    expect(sent).toHaveLength(MAX_UNDER_WAY);
  });
});
