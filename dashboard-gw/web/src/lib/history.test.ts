import { expect, it } from "vitest";
import { reading } from "../test/gateway";
import { History } from "./history";

const at = (second: number) => new Date(second * 1000).toISOString();

it("keeps numbers in order and once", () => {
  const history = new History();
  history.add("a", "t", reading(1, "°C", at(1)));
  history.add("a", "t", reading(1, "°C", at(1)));
  history.add("a", "t", reading(9, "°C", at(0)));
  history.add("a", "t", reading("text", undefined, at(2)));
  history.add("a", "t", reading(3, "°C", at(3)));
  expect(history.series("a", "t").values).toEqual([1, 3]);
  history.forget("a");
  expect(history.series("a", "t").values).toEqual([]);
});

it("is bounded", () => {
  const history = new History();
  for (let i = 1; i <= 1000; i++) history.add("a", "t", reading(i, undefined, at(i)));
  const { times, values } = history.series("a", "t");
  expect(values).toHaveLength(240);
  expect(times).toHaveLength(240);
  expect(values.at(-1)).toBe(1000);
});

it("knows the usual interval after a few readings", () => {
  const history = new History();
  for (const second of [10, 20, 30]) history.add("a", "t", reading(1, undefined, at(second)));
  expect(history.interval("a", "t")).toBeNull();
  history.add("a", "t", reading(1, undefined, at(45)));
  expect(history.interval("a", "t")).toBe(15_000);
});
