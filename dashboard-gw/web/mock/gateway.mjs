// A gateway to develop the page against: serves dist/ as the real one does, with its headers, and
// speaks the protocol of /api/stream for a made-up fleet. Not a test double of the real one.
//
//   node mock/gateway.mjs [--port 8080] [--nodes 12] [--share 0.3] [--read-only]
//
// While it runs: /mock/bus?up=0, /mock/bridge?id=coap-1&up=0, /mock/drop, /mock/refuse?seconds=20
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";
import { WebSocketServer } from "ws";
import { at, Fleet } from "./fleet.mjs";

/** @typedef {import("../src/__generated__/messages").ServerMessage} ServerMessage */
/** @typedef {import("../src/__generated__/messages").ClientMessage} ClientMessage */
/** @typedef {import("../src/__generated__/messages").Change} Change */
/** @typedef {import("../src/__generated__/messages").Ack} Ack */

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "8080" },
    nodes: { type: "string", default: "12" },
    share: { type: "string", default: "0.3" },
    "read-only": { type: "boolean", default: false },
  },
});

const DIST = new URL("../dist/", import.meta.url).pathname;
const TYPES = /** @type {Record<string, string>} */ ({
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
});
const CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const fleet = new Fleet(Number(options.nodes));
const stream = Math.random().toString(36).slice(2);
let rev = 1;
let bus = { connected: true, since: at(3_600_000) };
let refuseUntil = 0;
/** @type {{ rev: number, change: Change }[]} */
const log = [];
/** @type {import("../src/__generated__/messages").BusEvent[]} */
const events = [
  { type: "node_new", node: "greenhouse", bridge: "coap-1", ts: at(26 * 3600_000) },
  { type: "node_lost", node: "cellar", bridge: "coap-1", ts: at(39 * 60_000), reason: "timeout" },
  { type: "node_reset", node: "greenhouse", bridge: "coap-1", ts: at(22 * 60_000) },
  { type: "auth_failed", ts: at(9 * 60_000), identity: "sensor-9", reason: "certificate revoked" },
];
if (fleet.nodes.size === 0) events.length = 0;

const server = createServer((request, response) => {
  const url = new URL(request.url ?? "/", "http://mock");
  if (url.pathname.startsWith("/mock/")) {
    response.end(control(url));
    return;
  }
  serve(url.pathname, response).catch(() => {
    response.writeHead(404).end("not found\n");
  });
});
const sockets = new WebSocketServer({ noServer: true });

server.on("upgrade", (request, socket, head) => {
  if (request.url !== "/api/stream" || Date.now() < refuseUntil) {
    socket.destroy();
    return;
  }
  sockets.handleUpgrade(request, socket, head, (client) => open(client));
});

/**
 * @param {string} path
 * @param {import("node:http").ServerResponse} response
 */
async function serve(path, response) {
  const file = normalize(path === "/" ? "/index.html" : path);
  const body = await readFile(join(DIST, file));
  response.writeHead(200, {
    "content-type": TYPES[extname(file)] ?? "application/octet-stream",
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "cache-control": file === "/index.html" ? "no-store" : "max-age=31536000, immutable",
  });
  response.end(body);
}

/** @param {import("ws").WebSocket} client */
function open(client) {
  send(client, {
    type: "hello",
    stream,
    version: "0.1.0",
    base: "nodebus/v1",
    can_write: !options["read-only"],
    demo_command: "nodebus simulate --coap 3 --ws 1",
    coap_address: "coap://[2001:db8::1]:5683",
    mqtt_port: 8883,
  });
  client.on("message", (data) => {
    /** @type {ClientMessage} */
    const message = JSON.parse(String(data));
    if (message.type === "resume") resume(client, message);
    else answer(client, message);
  });
}

/**
 * @param {import("ws").WebSocket} client
 * @param {Extract<ClientMessage, { type: "resume" }>} message
 */
function resume(client, message) {
  const from = message.rev ?? -1;
  if (message.stream === stream && from >= (log[0]?.rev ?? rev) - 1) {
    const changes = log.filter((entry) => entry.rev > from).map((entry) => entry.change);
    send(client, { type: "delta", rev, changes });
    return;
  }
  const nodes = [...fleet.nodes.values()];
  send(client, { type: "snapshot", rev, bus, bridges: [...fleet.bridges.values()], nodes, events });
}

/**
 * @param {import("ws").WebSocket} client
 * @param {Exclude<ClientMessage, { type: "resume" }>} message
 */
function answer(client, message) {
  const node = fleet.nodes.get(message.node);
  const op = message.type === "command" ? message.op : message.type;
  const ms = 60 + Math.round(Math.random() * 500);
  /** @type {(ack: Partial<Ack>, after?: number) => void} */
  const end = (ack, after = ms) =>
    void setTimeout(() => {
      send(client, {
        type: "ack",
        request: message.request,
        ack: { id: message.request, op, status: "ok", ms: after, ...ack },
      });
    }, after);
  if (node === undefined || !fleet.alive(node) || node.status?.state !== "online") {
    if (op === "forget" && node) forget(node.id);
    end(op === "forget" ? {} : { status: "rejected", error: "the node is offline" }, 3);
  } else if (message.type === "set") {
    if (node.id === "stairwell")
      end({ status: "rejected", code: "4.05", error: "the node answered 4.05 Method Not Allowed" });
    else if (node.id === "roof")
      end({ status: "timeout", error: "the node did not answer within 5 s" }, 5000);
    else {
      const before = node.values[message.resource];
      const reading = { ...before, v: message.value, ts: at(0) };
      setTimeout(() => {
        node.values[message.resource] = reading;
        publish([{ kind: "value", id: node.id, resource: message.resource, reading }]);
      }, ms + 80);
      end({ code: "2.04", v: message.value });
    }
  } else {
    if (op === "forget") forget(node.id);
    end({ code: "2.05" });
  }
}

/** @param {string} id */
function forget(id) {
  fleet.nodes.delete(id);
  publish([
    { kind: "node_gone", id },
    { kind: "event", event: { type: "node_forgotten", node: id, ts: at(0) } },
  ]);
}

/** @param {Change[]} changes */
function publish(changes) {
  rev += 1;
  for (const change of changes) {
    log.push({ rev, change });
    if (change.kind === "event") events.push(change.event);
  }
  log.splice(0, Math.max(0, log.length - 20_000));
  for (const client of sockets.clients) send(client, { type: "delta", rev, changes });
}

/**
 * @param {import("ws").WebSocket} client
 * @param {ServerMessage} message
 */
function send(client, message) {
  if (client.readyState === client.OPEN) client.send(JSON.stringify(message));
}

/** @param {URL} url */
function control(url) {
  const up = url.searchParams.get("up") !== "0";
  switch (url.pathname) {
    case "/mock/bus":
      bus = { connected: up, since: at(0) };
      publish([{ kind: "bus", bus }]);
      return "ok\n";
    case "/mock/bridge": {
      const bridge = fleet.bridges.get(url.searchParams.get("id") ?? "");
      if (!bridge) return "no such bridge\n";
      bridge.status = { ...bridge.status, state: up ? "online" : "offline" };
      publish([{ kind: "bridge", bridge }]);
      return "ok\n";
    }
    case "/mock/refuse":
      refuseUntil = Date.now() + 1000 * Number(url.searchParams.get("seconds") ?? 20);
      for (const client of sockets.clients) client.terminate();
      return "ok\n";
    case "/mock/drop":
      for (const client of sockets.clients) client.terminate();
      return "ok\n";
    default:
      return "no such control\n";
  }
}

setInterval(() => {
  if (bus.connected) publish(fleet.tick(Number(options.share)));
}, 1000);
server.listen(Number(options.port), "127.0.0.1", () => {
  process.stdout.write(`mock gateway: http://127.0.0.1:${options.port}/\n`);
});
