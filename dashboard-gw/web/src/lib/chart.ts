// Samples as the geometry of a line chart. Pure.

import type { Series } from "./history";

export type Point = { x: number; y: number };
export type Range = { from: number; to: number };

/** The range of the values with some air around; never empty, so that a flat line lies in the middle. */
export function valueRange(values: readonly number[]): Range {
  let from = Number.POSITIVE_INFINITY;
  let to = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (value < from) from = value;
    if (value > to) to = value;
  }
  if (from > to) return { from: 0, to: 1 };
  const span = Math.max(to - from, Math.abs(to) * 5e-3, 1e-6);
  const middle = (from + to) / 2;
  return { from: middle - span * 0.6, to: middle + span * 0.6 };
}

/** The points of a series in a box of the given size; y grows downwards as on the screen. */
export function points(
  { times, values }: Series,
  time: Range,
  range: Range,
  width: number,
  height: number,
): Point[] {
  const wide = Math.max(1, time.to - time.from);
  const high = range.to - range.from;
  return times.map((at, i) => ({
    x: ((at - time.from) / wide) * width,
    y: height - (((values[i] ?? 0) - range.from) / high) * height,
  }));
}

/** The points as an SVG path. */
export function linePath(list: readonly Point[]): string {
  return list
    .map(({ x, y }, i) => `${i === 0 ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`)
    .join("");
}

/** The area between the line and the ground. */
export function areaPath(list: readonly Point[], height: number): string {
  const first = list[0];
  const last = list.at(-1);
  if (first === undefined || last === undefined) return "";
  return `${linePath(list)}L${last.x.toFixed(1)} ${height}L${first.x.toFixed(1)} ${height}Z`;
}

/** The index of the sample nearest to a time; -1 when there is none. */
export function nearest(times: readonly number[], at: number): number {
  let best = -1;
  for (let i = 0; i < times.length; i++) {
    const distance = Math.abs((times[i] ?? 0) - at);
    if (best < 0 || distance <= Math.abs((times[best] ?? 0) - at)) best = i;
    else break;
  }
  return best;
}
