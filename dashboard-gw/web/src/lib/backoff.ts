// How long to wait before the next attempt: exponential from 0.5 s to 15 s, jittered, for ever.

const FIRST_MS = 500;
const MOST_MS = 15_000;

/** The wait before attempt `attempt` (0 is the first retry), in milliseconds; `random` in [0, 1). */
export function backoff(attempt: number, random: number): number {
  const ceiling = Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(attempt, 16));
  // At least half of it, so that a crowd spreads out and nobody hammers.
  return Math.round(ceiling * (0.5 + random / 2));
}
