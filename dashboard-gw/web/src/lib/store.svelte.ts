// The model, as components see it. Messages change plain data at once; what they touched is shown
// once per animation frame, so a hidden tab does no work, and a value redraws only its own node.

import { SvelteMap } from "svelte/reactivity";
import type {
  Bridge,
  BusEvent,
  BusState,
  Node,
  Reading,
  ServerMessage,
} from "../__generated__/messages";
import { Clock } from "./clock.svelte";
import { Commands } from "./commands.svelte";
import { Connection, type Link, type Socket } from "./connection";
import { type Entry, sortEntries } from "./filter";
import { History, type Series } from "./history";
import { apply, applyConfirmed, type Hello, Model, Touched } from "./model";
import { nodeName, type Presence, presence } from "./node";

/** One node, as the components that show it see it. */
class Cell {
  node: Node = $state.raw({ id: "", descriptor: null, status: null, resources: [], values: {} });

  constructor(node: Node) {
    this.node = node;
  }
}

/** Over how many seconds the rate of updates is averaged. */
const RATE_WINDOW = 5;

export class Store {
  link: Link = $state.raw({ phase: "connecting", staleSince: null });
  hello: Hello | null = $state.raw(null);
  bus: BusState | null = $state.raw(null);
  events: readonly BusEvent[] = $state.raw([]);
  /** One entry for each node, by name. Changes with who is there and how, not with values. */
  entries: readonly Entry[] = $state.raw([]);
  /** Whether a snapshot came, so that no nodes means that there are none. */
  loaded = $state(false);
  /** Updates a second, lately. */
  rate = $state(0);
  /** The end of the last request, in one sentence. */
  announcement = $state("");
  readonly bridges = new SvelteMap<string, Bridge>();
  readonly clock = new Clock();
  readonly commands: Commands;

  readonly #model = new Model();
  readonly #touched = new Touched();
  readonly #history = new History();
  readonly #cells = new SvelteMap<string, Cell>();
  readonly #entryOf = new Map<string, Entry>();
  readonly #connection: Connection;
  #frame: number | null = null;
  #received = 0;
  #perSecond: number[] = [];
  #rateTimer: ReturnType<typeof setInterval> | undefined;

  constructor(open: () => Socket) {
    this.#connection = new Connection({
      open,
      onMessage: (message) => this.receive(message),
      onLink: (link) => this.#onLink(link),
      position: () => this.#model.position,
    });
    this.commands = new Commands({
      send: (message) => this.#connection.send(message),
      announce: (sentence) => {
        this.announcement = sentence;
      },
      confirmed: (node, resource, v) => {
        const ts = new Date(this.clock.exact()).toISOString();
        applyConfirmed(this.#model, node, resource, v, ts, this.#touched);
        this.publish();
      },
      name: (id) => {
        const node = this.#model.nodes.get(id);
        return node === undefined ? id : nodeName(node);
      },
    });
  }

  start(): void {
    this.clock.start();
    this.#connection.start();
    this.#rateTimer = setInterval(() => this.#measure(), 1000);
  }

  stop(): void {
    this.#connection.stop();
    this.clock.stop();
    clearInterval(this.#rateTimer);
    if (this.#frame !== null) cancelAnimationFrame(this.#frame);
  }

  /** Connects at once when the page was waiting to. */
  retryNow(): void {
    this.#connection.retryNow();
  }

  /** A node by its id; undefined when it isn't there. */
  node(id: string): Node | undefined {
    return this.#cells.get(id)?.node;
  }

  presence(node: Node): Presence {
    return presence(node, this.bridges.get(node.descriptor?.bridge ?? ""));
  }

  /** Whether what is shown may be behind the nodes: no gateway, or the gateway without the bus. */
  get stale(): boolean {
    return this.link.phase !== "live" || this.bus?.connected === false;
  }

  /** The samples of a resource up to a reading, which is passed so that a new one redraws. */
  series(node: string, resource: string, _latest: Reading | undefined): Series {
    return this.#history.series(node, resource);
  }

  /** Whether a reading is older than twice the usual time between two of them. */
  overdue(node: string, resource: string, reading: Reading): boolean {
    const interval = this.#history.interval(node, resource);
    if (interval === null) return false;
    return this.clock.now - Date.parse(reading.ts) > 2 * interval + 2_000;
  }

  /** Why nothing can be written to a node now, in words; null when it can. */
  whyReadOnly(node: Node): string | null {
    if (this.link.phase !== "live") return "Not connected to the gateway";
    if (this.hello?.can_write === false) return "View only: you may not change anything here";
    if (this.bus?.connected === false) return "The gateway is not connected to the bus";
    switch (this.presence(node)) {
      case "online":
        return null;
      case "offline":
        return "The node is offline";
      case "unknown":
        return node.descriptor === null
          ? "Nothing is known of this node yet"
          : `Its bridge ${node.descriptor.bridge} is offline`;
    }
  }

  /** Takes a message in; it is shown with the next frame. */
  receive(message: ServerMessage): void {
    const live = message.type === "delta";
    apply(this.#model, message, this.#touched, (node, resource, reading) => {
      this.#history.add(node, resource, reading);
      if (live) this.clock.observe(reading.ts);
    });
    if (message.type === "ack") {
      // What came before the ack must not be shown after it.
      this.publish();
      this.commands.onAck(message.request, message.ack);
    }
    this.#frame ??= requestAnimationFrame(() => this.publish());
  }

  /** Shows what was touched. */
  publish(): void {
    if (this.#frame !== null) cancelAnimationFrame(this.#frame);
    this.#frame = null;
    const touched = this.#touched;
    const model = this.#model;
    this.#received += touched.values;
    if (touched.hello) this.hello = model.hello;
    if (touched.bus) this.bus = model.bus;
    if (touched.events) this.events = model.events;
    if (touched.bridges) this.#showBridges();
    if (touched.all) this.#showAll();
    else for (const id of touched.nodes) this.#showNode(id);
    if (touched.all || touched.bridges || touched.listed.size > 0) {
      this.#showEntries(touched.all || touched.bridges ? model.nodes.keys() : touched.listed);
    }
    if (touched.all) this.loaded = true;
    touched.clear();
  }

  #onLink(link: Link): void {
    const before = this.link.phase;
    this.link = link;
    if (before === "live" && link.phase !== "live") this.commands.onDisconnected();
  }

  #showBridges(): void {
    for (const id of [...this.bridges.keys()]) {
      if (!this.#model.bridges.has(id)) this.bridges.delete(id);
    }
    for (const [id, bridge] of this.#model.bridges) this.bridges.set(id, bridge);
  }

  #showAll(): void {
    for (const id of [...this.#cells.keys()]) {
      if (!this.#model.nodes.has(id)) this.#showNode(id);
    }
    for (const id of this.#model.nodes.keys()) this.#showNode(id);
  }

  #showNode(id: string): void {
    const node = this.#model.nodes.get(id);
    const cell = this.#cells.get(id);
    if (node === undefined) {
      this.#cells.delete(id);
      this.#entryOf.delete(id);
      this.#history.forget(id);
    } else if (cell === undefined) {
      this.#cells.set(id, new Cell(node));
    } else {
      cell.node = node;
    }
  }

  #showEntries(changed: Iterable<string>): void {
    for (const id of changed) {
      const node = this.#model.nodes.get(id);
      if (node !== undefined) this.#entryOf.set(id, this.#entry(node));
    }
    this.entries = sortEntries([...this.#entryOf.values()], "name");
  }

  #entry(node: Node): Entry {
    const who = node.descriptor;
    const name = nodeName(node);
    const bridge = who?.bridge ?? "";
    const board = who?.board ?? "";
    const os = who?.os ?? "";
    const protocol = who?.protocol ?? "";
    const text = [name, node.id, who?.uid, who?.address, board, os, who?.mcu, bridge, protocol];
    return {
      id: node.id,
      name,
      presence: presence(node, this.#model.bridges.get(bridge)),
      bridge,
      protocol,
      board,
      os,
      text: text.join("\n").toLowerCase(),
    };
  }

  #measure(): void {
    this.#perSecond = [...this.#perSecond.slice(1 - RATE_WINDOW), this.#received];
    this.#received = 0;
    const sum = this.#perSecond.reduce((total, n) => total + n, 0);
    this.rate = sum / this.#perSecond.length;
  }
}
