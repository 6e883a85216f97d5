// What the strip under the top bar says of the connection. Pure.

import type { BusState } from "../__generated__/messages";
import type { Link } from "./connection";

export type Banner =
  | { kind: "opening" }
  | { kind: "live" }
  /** The gateway answers but has no bus behind it, since then (Unix milliseconds). */
  | { kind: "no-bus"; since: number }
  /** No gateway. `since`: when the data is from; `retryIn`: seconds, null while it tries. */
  | { kind: "disconnected"; since: number | null; retryIn: number | null };

export type Standing = { link: Link; bus: BusState | null; loaded: boolean; now: number };

export function banner({ link, bus, loaded, now }: Standing): Banner {
  switch (link.phase) {
    case "live":
      if (!loaded) return { kind: "opening" };
      if (bus !== null && !bus.connected) return { kind: "no-bus", since: Date.parse(bus.since) };
      return { kind: "live" };
    case "connecting":
      // The first attempt is not yet a failure.
      if (!loaded && link.staleSince === null) return { kind: "opening" };
      return { kind: "disconnected", since: link.staleSince, retryIn: null };
    case "waiting":
      return {
        kind: "disconnected",
        since: link.staleSince,
        retryIn: Math.max(0, Math.ceil((link.retryAt - now) / 1000)),
      };
  }
}
