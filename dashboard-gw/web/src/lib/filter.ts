// Which nodes a list shows, and what its chips count. Pure; the filter itself lives in the URL.

import type { Presence } from "./node";

/** What a list needs of a node. */
export type Entry = {
  id: string;
  name: string;
  presence: Presence;
  bridge: string;
  protocol: string;
  board: string;
  os: string;
  /** All that a search looks at, in lower case. */
  text: string;
};

export const FACETS = ["state", "bridge", "board"] as const;
export type Facet = (typeof FACETS)[number];

export type Filter = { search: string } & Record<Facet, readonly string[]>;

export const SORTS = ["name", "state", "board", "bridge"] as const;
export type Sort = (typeof SORTS)[number];

/** A chip: one value of a facet, and how many nodes have it among those the rest lets through. */
export type Chip = { value: string; count: number; on: boolean };

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const PRESENCES: readonly Presence[] = ["online", "offline", "unknown"];

export function facetOf(entry: Entry, facet: Facet): string {
  switch (facet) {
    case "state":
      return entry.presence;
    case "bridge":
      return entry.bridge;
    case "board":
      return entry.board;
  }
}

function terms(search: string): string[] {
  return search.toLowerCase().split(/\s+/).filter(Boolean);
}

function matches(entry: Entry, filter: Filter, words: readonly string[], except?: Facet): boolean {
  for (const facet of FACETS) {
    const wanted = filter[facet];
    if (facet === except || wanted.length === 0) continue;
    if (!wanted.includes(facetOf(entry, facet))) return false;
  }
  return words.every((word) => entry.text.includes(word));
}

/** The entries that pass: each word of the search, and one of the values of each facet in use. */
export function select(entries: readonly Entry[], filter: Filter): Entry[] {
  const words = terms(filter.search);
  return entries.filter((entry) => matches(entry, filter, words));
}

/** The chips of a facet. One that is on stays, even when no node has its value any more. */
export function chips(entries: readonly Entry[], filter: Filter, facet: Facet): Chip[] {
  const words = terms(filter.search);
  const counts = new Map<string, number>();
  if (facet === "state") for (const state of PRESENCES) counts.set(state, 0);
  for (const value of filter[facet]) counts.set(value, 0);
  for (const entry of entries) {
    const value = facetOf(entry, facet);
    if (value === "") continue;
    const passes = matches(entry, filter, words, facet) ? 1 : 0;
    counts.set(value, (counts.get(value) ?? 0) + passes);
  }
  const list = [...counts].map(([value, count]) => ({
    value,
    count,
    on: filter[facet].includes(value),
  }));
  return facet === "state" ? list : list.sort((a, b) => collator.compare(a.value, b.value));
}

/** How many filters are in use. */
export function filtersOn(filter: Filter): number {
  const chosen = FACETS.reduce((sum, facet) => sum + filter[facet].length, 0);
  return chosen + (filter.search.trim() === "" ? 0 : 1);
}

/** In the order of a column, equal ones by name. Sorts in place. */
export function sortEntries(entries: Entry[], by: Sort, descending = false): Entry[] {
  const byName = (a: Entry, b: Entry) =>
    collator.compare(a.name, b.name) || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
  const compare = (a: Entry, b: Entry) => {
    switch (by) {
      case "name":
        return byName(a, b);
      case "state":
        return PRESENCES.indexOf(a.presence) - PRESENCES.indexOf(b.presence) || byName(a, b);
      case "board":
        return collator.compare(a.board, b.board) || byName(a, b);
      case "bridge":
        return collator.compare(a.bridge, b.bridge) || byName(a, b);
    }
  };
  return entries.sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
}
