// The one owner of the WebSocket: connects for ever, resumes where the page stands, and tells since
// when the data is old. It refuses to know what the messages mean beyond their type.

import type { ClientMessage, ServerMessage } from "../__generated__/messages";
import { backoff } from "./backoff";

/** How the page is connected to the gateway. `staleSince` is when the last frame came. */
export type Link =
  | { phase: "connecting"; staleSince: number | null }
  | { phase: "live"; since: number }
  | { phase: "waiting"; retryAt: number; staleSince: number | null };

export type Position = { stream: string; rev: number };

/** What of a WebSocket is used. */
export type Socket = Pick<WebSocket, "send" | "close" | "readyState"> & {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: (() => void) | null;
  onerror: (() => void) | null;
};

export type Options = {
  /** Opens a socket to the gateway. */
  open: () => Socket;
  onMessage: (message: ServerMessage) => void;
  onLink: (link: Link) => void;
  /** Where the page's data stands; asked after each `hello`. */
  position: () => Position | null;
  random?: () => number;
};

/** An attempt that neither opened nor failed by now is given up. */
const CONNECT_TIMEOUT_MS = 10_000;
/** After so long without a frame the page asks for all there is, which a living gateway answers. */
const PROBE_MS = 30_000;
/** After so long without a frame the socket is taken for dead. */
const SILENCE_MS = 45_000;
/** A connection that stood for so long was a good one: the next wait is the shortest again. */
const STABLE_MS = 5_000;
const OPEN = 1;

const TYPES: ReadonlySet<string> = new Set<ServerMessage["type"]>([
  "hello",
  "snapshot",
  "delta",
  "ack",
]);

export class Connection {
  readonly #options: Options;
  readonly #random: () => number;
  #socket: Socket | null = null;
  #link: Link = { phase: "connecting", staleSince: null };
  #attempt = 0;
  #lastFrame: number | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #probe: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #stable: ReturnType<typeof setTimeout> | undefined;
  #stopped = true;

  constructor(options: Options) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
  }

  start(): void {
    this.#stopped = false;
    window.addEventListener("online", this.retryNow);
    document.addEventListener("visibilitychange", this.#onVisible);
    this.#connect();
  }

  stop(): void {
    this.#stopped = true;
    window.removeEventListener("online", this.retryNow);
    document.removeEventListener("visibilitychange", this.#onVisible);
    this.#drop();
  }

  /** Sends a message; false when there is no connection to send it on. */
  send(message: ClientMessage): boolean {
    if (this.#link.phase !== "live" || this.#socket?.readyState !== OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Tries at once when it was waiting to. */
  readonly retryNow = (): void => {
    if (this.#stopped || this.#link.phase !== "waiting") return;
    this.#connect();
  };

  readonly #onVisible = (): void => {
    if (document.visibilityState === "visible") this.retryNow();
  };

  #connect(): void {
    this.#drop();
    this.#setLink({ phase: "connecting", staleSince: this.#lastFrame });
    this.#timer = setTimeout(() => this.#lost(), CONNECT_TIMEOUT_MS);
    let socket: Socket;
    try {
      socket = this.#options.open();
    } catch {
      this.#lost();
      return;
    }
    this.#socket = socket;
    socket.onmessage = (event) => this.#onFrame(event.data);
    socket.onclose = () => this.#lost();
    socket.onerror = () => this.#lost();
  }

  #onFrame(data: unknown): void {
    this.#lastFrame = Date.now();
    this.#listen();
    const message = parse(data);
    if (message === null) return;
    this.#options.onMessage(message);
    if (message.type === "hello") this.#onHello();
  }

  /** The gateway is there: what the page missed follows, if it missed anything. */
  #onHello(): void {
    clearTimeout(this.#timer);
    this.#stable = setTimeout(() => {
      this.#attempt = 0;
    }, STABLE_MS);
    this.#resume(this.#options.position());
    this.#setLink({ phase: "live", since: Date.now() });
  }

  /** Waits for the next frame; pings of the WebSocket itself don't reach a page. */
  #listen(): void {
    clearTimeout(this.#probe);
    clearTimeout(this.#silence);
    this.#probe = setTimeout(() => this.#resume(null), PROBE_MS);
    this.#silence = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  #resume(position: Position | null): void {
    const message: ClientMessage = {
      type: "resume",
      stream: position?.stream ?? null,
      rev: position?.rev ?? null,
    };
    if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(message));
  }

  #lost(): void {
    this.#drop();
    if (this.#stopped) return;
    const wait = backoff(this.#attempt, this.#random());
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#setLink({
      phase: "waiting",
      retryAt: Date.now() + wait,
      staleSince: this.#lastFrame,
    });
  }

  #drop(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#probe);
    clearTimeout(this.#silence);
    clearTimeout(this.#stable);
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
  }

  #setLink(link: Link): void {
    this.#link = link;
    this.#options.onLink(link);
  }
}

/** A frame as a message; null when it is none, or of a type that this page doesn't know. */
function parse(data: unknown): ServerMessage | null {
  if (typeof data !== "string") return null;
  try {
    const message: unknown = JSON.parse(data);
    if (typeof message !== "object" || message === null || !("type" in message)) return null;
    if (typeof message.type !== "string" || !TYPES.has(message.type)) return null;
    // The gateway is trusted to keep to the generated types: both are built and served together.
    return message as ServerMessage;
  } catch {
    return null;
  }
}

/** Opens the gateway's stream, relative to where the page was served from. */
export function openStream(): Socket {
  const url = new URL("api/stream", document.baseURI);
  url.search = "";
  url.hash = "";
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  // A WebSocket passes more to its handlers than Socket asks for.
  return new WebSocket(url) as Socket;
}
