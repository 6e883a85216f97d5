import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ServerMessage } from "../__generated__/messages";
import { FakeGateway, hello, snapshot } from "../test/gateway";
import { backoff } from "./backoff";
import { Connection, type Link, type Position } from "./connection";

let gateway: FakeGateway;
let links: Link[];
let messages: ServerMessage[];
let position: Position | null;
let connection: Connection;

function link(): Link | undefined {
  return links.at(-1);
}

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
  gateway = new FakeGateway();
  links = [];
  messages = [];
  position = null;
  connection = new Connection({
    open: gateway.open,
    onLink: (next) => links.push(next),
    onMessage: (message) => messages.push(message),
    position: () => position,
    random: () => 1,
  });
  connection.start();
});

afterEach(() => {
  connection.stop();
});

describe("the wait before the next attempt", () => {
  it("doubles from half a second to fifteen, for ever", () => {
    const waits = [0, 1, 2, 3, 4, 5, 6, 1000].map((attempt) => backoff(attempt, 1));
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
  });

  it("is spread over its upper half", () => {
    expect(backoff(10, 0)).toBe(7_500);
    expect(backoff(10, 0.5)).toBe(11_250);
  });
});

describe("connecting", () => {
  it("is live with hello, and asks for all when it knows nothing", () => {
    expect(link()?.phase).toBe("connecting");
    gateway.socket.says(hello());
    expect(link()?.phase).toBe("live");
    expect(gateway.socket.sent).toEqual([{ type: "resume", stream: null, rev: null }]);
  });

  it("hands messages on, and leaves out what is none", () => {
    gateway.socket.says(hello());
    for (const rubbish of ["", "{", "null", "[]", '"x"', '{"type":7}', '{"type":"later"}']) {
      gateway.socket.says(rubbish);
    }
    gateway.socket.says(snapshot());
    expect(messages.map((message) => message.type)).toEqual(["hello", "snapshot"]);
  });

  it("gives an attempt up that never opens", () => {
    vi.advanceTimersByTime(10_000);
    expect(link()).toEqual({ phase: "waiting", retryAt: Date.now() + 500, staleSince: null });
  });

  it("sends only while it is live", () => {
    const ping = { type: "command", request: "1", node: "a", op: "ping" } as const;
    expect(connection.send(ping)).toBe(false);
    gateway.socket.says(hello());
    expect(connection.send(ping)).toBe(true);
    gateway.socket.breaks();
    expect(connection.send(ping)).toBe(false);
  });
});

describe("losing the connection", () => {
  it("tells since when the data is old and when it tries again, waiting longer each time", () => {
    gateway.socket.says(hello());
    const last = Date.now();
    vi.advanceTimersByTime(2_000);
    gateway.socket.breaks();
    expect(link()).toEqual({ phase: "waiting", retryAt: Date.now() + 500, staleSince: last });

    vi.advanceTimersByTime(500);
    expect(link()).toEqual({ phase: "connecting", staleSince: last });
    gateway.socket.breaks();
    expect(link()).toEqual({ phase: "waiting", retryAt: Date.now() + 1000, staleSince: last });
    expect(gateway.sockets).toHaveLength(2);
  });

  it("resumes where the page stands", () => {
    gateway.socket.says(hello());
    position = { stream: "s1", rev: 42 };
    gateway.socket.breaks();
    vi.advanceTimersByTime(500);
    gateway.socket.says(hello());
    expect(gateway.socket.sent).toEqual([{ type: "resume", stream: "s1", rev: 42 }]);
    expect(link()?.phase).toBe("live");
  });

  it("starts with the short wait again after a connection that held, not after one that did not", () => {
    gateway.socket.breaks();
    vi.advanceTimersByTime(500);
    gateway.socket.says(hello());
    gateway.socket.breaks();
    expect(link()).toMatchObject({ retryAt: Date.now() + 1000 });
    vi.advanceTimersByTime(1000);
    gateway.socket.says(hello());
    vi.advanceTimersByTime(5_000);
    gateway.socket.breaks();
    expect(link()).toMatchObject({ retryAt: Date.now() + 500 });
  });

  it.each([
    ["the network comes back", () => window.dispatchEvent(new Event("online"))],
    ["the tab is looked at", () => document.dispatchEvent(new Event("visibilitychange"))],
    ["a person says so", () => connection.retryNow()],
  ])("tries at once when %s", (_, happen) => {
    gateway.socket.breaks();
    happen();
    expect(gateway.sockets).toHaveLength(2);
    happen();
    expect(gateway.sockets).toHaveLength(2);
  });

  it("survives a browser that refuses to open a socket", () => {
    connection.stop();
    const refusing = new Connection({
      open: () => {
        throw new Error("insecure");
      },
      onLink: (next) => links.push(next),
      onMessage: () => {},
      position: () => null,
      random: () => 1,
    });
    refusing.start();
    expect(link()?.phase).toBe("waiting");
    refusing.stop();
  });

  it("stops for good when told to", () => {
    connection.stop();
    vi.advanceTimersByTime(60_000);
    expect(gateway.sockets).toHaveLength(1);
  });
});

describe("silence", () => {
  it("is broken by asking for all there is", () => {
    gateway.socket.says(hello());
    position = { stream: "s1", rev: 7 };
    vi.advanceTimersByTime(30_000);
    expect(gateway.socket.sent.at(-1)).toEqual({ type: "resume", stream: null, rev: null });
    gateway.socket.says(snapshot());
    vi.advanceTimersByTime(29_000);
    expect(link()?.phase).toBe("live");
  });

  it("means that the connection is dead when that brings nothing", () => {
    gateway.socket.says(hello());
    vi.advanceTimersByTime(44_999);
    expect(link()?.phase).toBe("live");
    vi.advanceTimersByTime(1);
    expect(link()?.phase).toBe("waiting");
  });
});
