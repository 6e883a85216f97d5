// A gateway for tests: sockets that a test opens, feeds and closes by hand.

import type { ClientMessage, Node, Reading, ServerMessage } from "../__generated__/messages";
import type { Socket } from "../lib/connection";

export class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;
  onerror: (() => void) | null = null;
  readyState: Socket["readyState"] = 0;
  readonly sent: ClientMessage[] = [];

  send(data: string): void {
    this.sent.push(JSON.parse(data));
  }

  close(): void {
    this.readyState = 3;
  }

  /** The gateway says something. */
  says(message: ServerMessage | string): void {
    this.readyState = 1;
    const data = typeof message === "string" ? message : JSON.stringify(message);
    this.onmessage?.({ data });
  }

  /** The connection breaks. */
  breaks(): void {
    this.readyState = 3;
    this.onclose?.();
  }
}

export class FakeGateway {
  readonly sockets: FakeSocket[] = [];

  readonly open = (): Socket => {
    const socket = new FakeSocket();
    this.sockets.push(socket);
    return socket;
  };

  /** The socket opened last. */
  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (socket === undefined) throw new Error("no socket was opened");
    return socket;
  }
}

export const TS = "2026-01-02T03:04:05.000Z";

export function hello(change: Partial<Extract<ServerMessage, { type: "hello" }>> = {}) {
  return {
    type: "hello",
    stream: "s1",
    version: "0.1.0",
    base: "nodebus/v1",
    can_write: true,
    demo_command: "nodebus simulate --coap 3",
    coap_address: "coap://[2001:db8::1]:5683",
    mqtt_port: 8883,
    ...change,
  } satisfies ServerMessage;
}

export function snapshot(
  nodes: Node[] = [],
  change: Partial<Extract<ServerMessage, { type: "snapshot" }>> = {},
) {
  return {
    type: "snapshot",
    rev: 1,
    bus: { connected: true, since: TS },
    bridges: [
      {
        id: "coap-1",
        status: { state: "online", protocol: "coap", version: "0.1.0", nodes: nodes.length },
      },
    ],
    nodes,
    events: [],
    ...change,
  } satisfies ServerMessage;
}

export function node(id: string, change: Partial<Node> = {}): Node {
  return {
    id,
    descriptor: {
      id,
      uid: id,
      name: id,
      protocol: "coap",
      bridge: "coap-1",
      address: "[2001:db8::2]:5683",
      first_seen: TS,
      epoch: 0,
    },
    status: { state: "online", reason: "alive", last_seen: TS },
    resources: [
      { name: "temperature", path: "/temperature", methods: ["get"] },
      { name: "led", path: "/led", methods: ["get", "set"] },
    ],
    values: { temperature: reading(21.5, "°C"), led: reading(0) },
    ...change,
  };
}

export function reading(v: Reading["v"], u?: string, ts = TS): Reading {
  return u === undefined ? { v, ts } : { v, u, ts };
}
