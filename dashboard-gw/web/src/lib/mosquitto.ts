// Lines for a terminal that do with mosquitto's clients what the page does.

import type { JsonValue } from "../__generated__/messages";
import { shellWord } from "./format";

const CERTIFICATE = "--cafile ca.pem --cert cert.pem --key key.pem";

/** The bus, as a person at a terminal reaches it. */
export type Bus = { host: string; port: number };

/** Shows all messages of a Topic Filter, with their topics. */
export function subscribeLine({ host, port }: Bus, filter: string): string {
  return `mosquitto_sub -h ${shellWord(host)} -p ${port} ${CERTIFICATE} -v -t ${shellWord(filter)}`;
}

/** Publishes a value; `current` is what the resource holds now, as an example of its form. */
export function publishLine(
  { host, port }: Bus,
  topic: string,
  current: JsonValue | undefined,
): string {
  const example = JSON.stringify({ v: current ?? 1 });
  return `mosquitto_pub -h ${shellWord(host)} -p ${port} ${CERTIFICATE} -q 1 -t ${shellWord(topic)} -m ${shellWord(example)}`;
}
