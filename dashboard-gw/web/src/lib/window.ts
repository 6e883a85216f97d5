// Which rows of a long list are near the screen. Pure.

/** Rows kept ready beyond each edge of the screen. */
const OVERSCAN = 2;

export type Extent = {
  rows: number;
  /** Of one row with its gap, in pixels. */
  rowHeight: number;
  /** How far the screen's upper edge is below the list's start, in pixels; negative when above. */
  from: number;
  /** Of the screen, in pixels. */
  height: number;
};

/** The rows to draw, `first` up to but without `last`. */
export function windowOf({ rows, rowHeight, from, height }: Extent): {
  first: number;
  last: number;
} {
  const first = Math.floor(from / rowHeight) - OVERSCAN;
  const last = Math.ceil((from + height) / rowHeight) + OVERSCAN;
  const clamp = (row: number) => Math.max(0, Math.min(rows, row));
  return { first: clamp(first), last: clamp(last) };
}

/** How many rows that many cards take. */
export function cardRows(cards: number, columns: number): number {
  return Math.ceil(cards / columns);
}
