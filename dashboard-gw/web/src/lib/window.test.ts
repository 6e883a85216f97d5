import { expect, it } from "vitest";
import { cardRows, windowOf } from "./window";

it("draws the rows on the screen and two beyond each edge", () => {
  expect(windowOf({ rows: 1000, rowHeight: 100, from: 5000, height: 800 })).toEqual({
    first: 48,
    last: 60,
  });
});

it("stays within the list", () => {
  expect(windowOf({ rows: 5, rowHeight: 100, from: -300, height: 800 })).toEqual({
    first: 0,
    last: 5,
  });
  expect(windowOf({ rows: 5, rowHeight: 100, from: 99_000, height: 800 })).toEqual({
    first: 5,
    last: 5,
  });
  expect(cardRows(9, 4)).toBe(3);
});
