// The bus's time, ticking once a second for the ages on the page; it stands still in a hidden tab.

/** A reading from the future: the bus's clock is ahead, for sure. */
const BEHIND_MS = 2_000;
/** Even the freshest reading looks this old: this machine's clock is ahead. Less may be delay. */
const AHEAD_MS = 60_000;

export class Clock {
  #now = $state(Date.now());
  #wall = $state(Date.now());
  #skew = 0;
  #leastAhead = Number.POSITIVE_INFINITY;
  #timer: ReturnType<typeof setInterval> | undefined;

  /** The time now as the bridges tell it, in Unix milliseconds. */
  get now(): number {
    return this.#now;
  }

  /** The time now as this machine tells it. */
  get wall(): number {
    return this.#wall;
  }

  /** The bus's time, not of the last tick but of this moment; not reactive. */
  exact(): number {
    return Date.now() - this.#skew;
  }

  /** Learns from a reading that came just now how far this machine's clock is ahead of the bus's. */
  observe(ts: string): void {
    const ahead = Date.now() - Date.parse(ts);
    if (!(ahead < this.#leastAhead)) return;
    this.#leastAhead = ahead;
    this.#skew = ahead < -BEHIND_MS || ahead > AHEAD_MS ? ahead : 0;
  }

  start(): void {
    document.addEventListener("visibilitychange", this.#onVisibility);
    this.#onVisibility();
  }

  stop(): void {
    document.removeEventListener("visibilitychange", this.#onVisibility);
    clearInterval(this.#timer);
  }

  readonly #onVisibility = (): void => {
    clearInterval(this.#timer);
    if (document.visibilityState === "hidden") return;
    this.#tick();
    this.#timer = setInterval(() => this.#tick(), 1000);
  };

  #tick(): void {
    this.#now = this.exact();
    this.#wall = Date.now();
  }
}
