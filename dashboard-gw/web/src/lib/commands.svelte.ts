// Requests to nodes, each from asked to confirmed or failed. A control shows what stands here and the
// node's own value, never what was asked for.

import { SvelteMap } from "svelte/reactivity";
import type { Ack, ClientMessage, JsonValue } from "../__generated__/messages";

/** Where a request stands. */
export type Command =
  | { phase: "pending" }
  | { phase: "confirmed"; ms: number }
  | { phase: "failed"; words: string; technical: string; ask: Ask };

/** What is asked of a node. */
export type Ask =
  | { op: "set"; node: string; resource: string; value: JsonValue }
  | { op: "get"; node: string; resource: string }
  | { op: "ping" | "rediscover" | "forget"; node: string };

export type CommandOptions = {
  /** Sends; false when there is no connection. */
  send: (message: ClientMessage) => boolean;
  /** A request ended: what to say of it, in one sentence. */
  announce: (sentence: string) => void;
  /** The node confirmed that a resource holds this. */
  confirmed: (node: string, resource: string, v: JsonValue) => void;
  /** What people call a node. */
  name: (node: string) => string;
};

/** The gateway promises an answer to each request; this is for when it breaks the promise. */
export const ANSWER_TIMEOUT_MS = 20_000;
/** How long a confirmation stays beside its control. */
export const SHOWN_MS = 4_000;

/** Requests under way at once; more wait here, since the gateway closes on who floods it. */
export const MAX_UNDER_WAY = 16;

type Pending = { key: string; ask: Ask; timer: ReturnType<typeof setTimeout> };

/** Names one control: two requests of it are never under way at once. */
export function commandKey(ask: Pick<Ask, "op" | "node"> & { resource?: string }): string {
  return `${ask.op} ${ask.node} ${ask.resource ?? ""}`;
}

export class Commands {
  readonly #options: CommandOptions;
  readonly #states = new SvelteMap<string, Command>();
  readonly #pending = new Map<string, Pending>();
  /** Bounded by the controls on the page: each is in it once at most. */
  readonly #waiting: Ask[] = [];
  #next = 1;

  constructor(options: CommandOptions) {
    this.#options = options;
  }

  /** Where the last request of a control stands; undefined when there is nothing to show. */
  state(key: string): Command | undefined {
    return this.#states.get(key);
  }

  /** Sends a request, unless one of the same control is under way. */
  ask(ask: Ask): void {
    const key = commandKey(ask);
    if (this.#states.get(key)?.phase === "pending") return;
    this.#states.set(key, { phase: "pending" });
    if (this.#pending.size < MAX_UNDER_WAY) this.#send(ask);
    else this.#waiting.push(ask);
  }

  #send(ask: Ask): void {
    const request = `${this.#next++}`;
    const timer = setTimeout(
      () => this.#fail(request, "No answer came", "the gateway sent no ack"),
      ANSWER_TIMEOUT_MS,
    );
    this.#pending.set(request, { key: commandKey(ask), ask, timer });
    if (!this.#options.send(toMessage(request, ask))) {
      this.#fail(request, "Not connected", "there is no connection to the gateway");
    }
  }

  /** Takes the end of a request in; one that isn't of this page is left out. */
  onAck(request: string, ack: Ack): void {
    const pending = this.#pending.get(request);
    if (pending === undefined) return;
    if (ack.status !== "ok") {
      this.#fail(request, words(ack), technical(ack));
      return;
    }
    this.#end(request, pending);
    if (ack.v !== undefined && "resource" in pending.ask) {
      this.#options.confirmed(pending.ask.node, pending.ask.resource, ack.v);
    }
    this.#settle(pending.key, { phase: "confirmed", ms: ack.ms });
    this.#options.announce(`${this.#what(pending.ask)}: confirmed in ${ack.ms} ms`);
  }

  /** The connection went: no answer can come any more. */
  onDisconnected(): void {
    for (const ask of this.#waiting.splice(0)) {
      this.#show(ask, "The connection was lost", "it was not sent");
    }
    for (const request of [...this.#pending.keys()]) {
      const detail = "it may have been carried out: look at the value";
      this.#fail(request, "The connection was lost before the answer came", detail);
    }
  }

  /** Asks the same again after it failed. */
  retry(key: string): void {
    const state = this.#states.get(key);
    if (state?.phase === "failed") this.ask(state.ask);
  }

  /** Takes a message away that was read. */
  dismiss(key: string): void {
    if (this.#states.get(key)?.phase !== "pending") this.#states.delete(key);
  }

  #fail(request: string, failure: string, detail: string): void {
    const pending = this.#pending.get(request);
    if (pending === undefined) return;
    this.#end(request, pending);
    this.#show(pending.ask, failure, detail);
  }

  #show(ask: Ask, failure: string, detail: string): void {
    this.#states.set(commandKey(ask), { phase: "failed", words: failure, technical: detail, ask });
    this.#options.announce(`${this.#what(ask)}: ${failure}`);
  }

  #settle(key: string, state: Command): void {
    this.#states.set(key, state);
    setTimeout(() => {
      if (this.#states.get(key) === state) this.#states.delete(key);
    }, SHOWN_MS);
  }

  #end(request: string, pending: Pending): void {
    clearTimeout(pending.timer);
    this.#pending.delete(request);
    const next = this.#waiting.shift();
    if (next !== undefined) this.#send(next);
  }

  #what(ask: Ask): string {
    const name = this.#options.name(ask.node);
    switch (ask.op) {
      case "set":
        return `${ask.resource} of ${name}`;
      case "get":
        return `Reading ${ask.resource} of ${name}`;
      case "ping":
      case "rediscover":
      case "forget":
        return `${ask.op} ${name}`;
    }
  }
}

function toMessage(request: string, ask: Ask): ClientMessage {
  switch (ask.op) {
    case "set":
      return {
        type: "set",
        request,
        node: ask.node,
        resource: ask.resource,
        value: ask.value,
      };
    case "get":
      return { type: "get", request, node: ask.node, resource: ask.resource };
    case "ping":
    case "rediscover":
    case "forget":
      return { type: "command", request, node: ask.node, op: ask.op };
  }
}

/** The failure as a visitor understands it, in the node's words when it gave some. */
function words(ack: Ack): string {
  if (ack.error) return ack.error.charAt(0).toUpperCase() + ack.error.slice(1);
  switch (ack.status) {
    case "ok":
      return "Confirmed";
    case "rejected":
      return "The node refused";
    case "timeout":
      return "The node did not answer in time";
    case "error":
      return "The node could not do it";
  }
}

function technical(ack: Ack): string {
  const parts = [`${ack.op}: ${ack.status}`, `after ${ack.ms} ms`];
  if (ack.code !== undefined) parts.push(`code ${ack.code}`);
  return parts.join(", ");
}
