import { describe, expect, it } from "vitest";
import { chips, type Entry, type Filter, filtersOn, select, sortEntries } from "./filter";

function entry(id: string, change: Partial<Entry> = {}): Entry {
  const all = { presence: "online", bridge: "b1", protocol: "coap", board: "", os: "" } as const;
  return { id, name: id, ...all, text: id, ...change };
}

const ENTRIES = [
  entry("n1", { board: "samr21" }),
  entry("n2", { board: "samr21", presence: "offline" }),
  entry("n10", { board: "m3", bridge: "b2" }),
];
const NONE: Filter = { search: "", state: [], bridge: [], board: [] };
const ids = (entries: Entry[]) => entries.map(({ id }) => id);

describe("a filter", () => {
  it("lets through what has one of the values of each facet", () => {
    expect(ids(select(ENTRIES, { ...NONE, board: ["samr21", "m3"], state: ["online"] }))).toEqual([
      "n1",
      "n10",
    ]);
  });

  it("searches for each word, in any case", () => {
    expect(ids(select(ENTRIES, { ...NONE, search: " N1 0 " }))).toEqual(["n10"]);
  });

  it("counts how many are in use", () => {
    expect(filtersOn({ ...NONE, search: " " })).toBe(0);
    expect(filtersOn({ ...NONE, search: "x", board: ["a", "b"] })).toBe(3);
  });
});

describe("chips", () => {
  it("count what the other facets let through", () => {
    expect(chips(ENTRIES, { ...NONE, bridge: ["b1"] }, "board")).toEqual([
      { value: "m3", count: 0, on: false },
      { value: "samr21", count: 2, on: false },
    ]);
  });

  it("always show the three states, and what is chosen", () => {
    expect(chips([], NONE, "state").map(({ value }) => value)).toEqual([
      "online",
      "offline",
      "unknown",
    ]);
    expect(chips([], { ...NONE, board: ["gone"] }, "board")).toEqual([
      { value: "gone", count: 0, on: true },
    ]);
  });
});

it("sorts as people count", () => {
  expect(ids(sortEntries([...ENTRIES].reverse(), "name"))).toEqual(["n1", "n2", "n10"]);
  expect(ids(sortEntries([...ENTRIES], "state", true))[0]).toBe("n2");
});
