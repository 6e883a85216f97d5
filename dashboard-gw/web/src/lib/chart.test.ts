import { expect, it } from "vitest";
import { areaPath, linePath, nearest, points, valueRange } from "./chart";

it("leaves air around the values, and room for a flat line", () => {
  const { from, to } = valueRange([10, 20]);
  expect(from).toBeLessThan(10);
  expect(to).toBeGreaterThan(20);
  const flat = valueRange([5, 5]);
  expect(flat.to).toBeGreaterThan(flat.from);
  expect(valueRange([])).toEqual({ from: 0, to: 1 });
});

it("draws from left to right, greater values higher", () => {
  const line = points(
    { times: [0, 10], values: [0, 1] },
    { from: 0, to: 10 },
    { from: 0, to: 1 },
    100,
    50,
  );
  expect(line).toEqual([
    { x: 0, y: 50 },
    { x: 100, y: 0 },
  ]);
  expect(linePath(line)).toBe("M0.0 50.0L100.0 0.0");
  expect(areaPath(line, 50)).toBe("M0.0 50.0L100.0 0.0L100.0 50L0.0 50Z");
  expect(areaPath([], 50)).toBe("");
});

it("finds the sample under the pointer", () => {
  expect(nearest([0, 10, 20], 14)).toBe(1);
  expect(nearest([0, 10, 20], 99)).toBe(2);
  expect(nearest([], 1)).toBe(-1);
});
