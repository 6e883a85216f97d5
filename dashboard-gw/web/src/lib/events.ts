// Events in words. What a device wrote is quoted as it came, as text and nothing else.

import type { BusEvent } from "../__generated__/messages";
import type { IconName } from "../components/Icon.svelte";

export type EventWords = { icon: IconName; tone: "ok" | "warn" | "bad" | "plain"; words: string };

/** What stands in the words already, or says nothing to a person. */
const SAID = new Set([
  "type",
  "node",
  "bridge",
  "ts",
  "reason",
  "id",
  "identity",
  "op",
  "resource",
  "status",
]);

/** What happened, to go after the node's name. */
export function eventWords(event: BusEvent): EventWords {
  const reason = text(event, "reason");
  switch (event.type) {
    case "node_new":
      return { icon: "new", tone: "ok", words: "appeared" };
    case "node_lost":
      return { icon: "offline", tone: "bad", words: `was lost${reason && ` (${reason})`}` };
    case "node_reset":
      return { icon: "refresh", tone: "warn", words: "started anew" };
    case "node_forgotten":
      return { icon: "forget", tone: "plain", words: "was forgotten" };
    case "command": {
      const status = text(event, "status");
      const what = [text(event, "op") || "command", text(event, "resource")]
        .filter(Boolean)
        .join(" ");
      return {
        icon: "command",
        tone: status === "ok" ? "ok" : "warn",
        words: `${what}: ${status || "ended"}`,
      };
    }
    case "auth_failed": {
      const who = text(event, "identity");
      return {
        icon: "lock",
        tone: "bad",
        words: `Refused${who && ` ${who}`}${reason && `: ${reason}`}`,
      };
    }
    default:
      return { icon: "unknown", tone: "plain", words: "did what this page has no word for" };
  }
}

/** All else that the event says, as `key: value`. */
export function eventDetail(event: BusEvent): string[] {
  return Object.entries(event)
    .filter(([key, v]) => !SAID.has(key) && v !== null)
    .map(([key, v]) => `${key}: ${typeof v === "string" ? v : JSON.stringify(v)}`);
}

function text(event: BusEvent, key: string): string {
  const v = event[key];
  return typeof v === "string" ? v : "";
}
