// The numbers that came since the page was loaded, for the charts. Bounded: the more series there
// are, the fewer samples each of them keeps, oldest dropped first.

import type { Reading } from "../__generated__/messages";

const MAX_SAMPLES = 240;
const MIN_SAMPLES = 30;
/** Of all series together; two numbers of 8 bytes each. */
const MAX_TOTAL = 1_000_000;
/** From this many gaps on, the usual interval of a resource counts as known. */
const MIN_GAPS = 3;

/** The samples of one resource, oldest first, times in Unix milliseconds. */
export type Series = { readonly times: number[]; readonly values: number[] };

type Entry = Series & { last: number; gaps: number[] };

const EMPTY: Series = { times: [], values: [] };

export class History {
  readonly #nodes = new Map<string, Map<string, Entry>>();
  #series = 0;

  /** Takes a reading in; one that isn't newer than the last is left out. */
  add(node: string, resource: string, reading: Reading): void {
    const at = Date.parse(reading.ts);
    if (!Number.isFinite(at)) return;
    const entry = this.#entry(node, resource);
    if (at <= entry.last) return;
    if (entry.last > 0) {
      entry.gaps.push(at - entry.last);
      if (entry.gaps.length > 4) entry.gaps.shift();
    }
    entry.last = at;
    if (typeof reading.v !== "number" || !Number.isFinite(reading.v)) return;
    entry.times.push(at);
    entry.values.push(reading.v);
    const most = Math.max(MIN_SAMPLES, Math.min(MAX_SAMPLES, Math.floor(MAX_TOTAL / this.#series)));
    if (entry.times.length > most) {
      entry.times.splice(0, entry.times.length - most);
      entry.values.splice(0, entry.values.length - most);
    }
  }

  /** The samples of a resource; empty when there are none. */
  series(node: string, resource: string): Series {
    return this.#nodes.get(node)?.get(resource) ?? EMPTY;
  }

  /** The longest of the last gaps between readings, in milliseconds; null until it is known. */
  interval(node: string, resource: string): number | null {
    const gaps = this.#nodes.get(node)?.get(resource)?.gaps ?? [];
    return gaps.length < MIN_GAPS ? null : Math.max(...gaps);
  }

  /** Drops what is kept of a node. */
  forget(node: string): void {
    this.#series -= this.#nodes.get(node)?.size ?? 0;
    this.#nodes.delete(node);
  }

  #entry(node: string, resource: string): Entry {
    let resources = this.#nodes.get(node);
    if (resources === undefined) {
      resources = new Map();
      this.#nodes.set(node, resources);
    }
    let entry = resources.get(resource);
    if (entry === undefined) {
      entry = { times: [], values: [], last: 0, gaps: [] };
      resources.set(resource, entry);
      this.#series += 1;
    }
    return entry;
  }
}
