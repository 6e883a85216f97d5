// Lines for a terminal that do with mosquitto's clients what the page does.

import type { JsonValue } from "../__generated__/messages";
import { shellWord } from "./format";

const CERTIFICATE = "--cafile ca.pem --cert cert.pem --key key.pem";
const PORT = 8883;

/** Shows all messages of a Topic Filter, with their topics. */
export function subscribeLine(host: string, filter: string): string {
  return `mosquitto_sub -h ${shellWord(host)} -p ${PORT} ${CERTIFICATE} -v -t ${shellWord(filter)}`;
}

/** Publishes a value; `current` is what the resource holds now, as an example of its form. */
export function publishLine(host: string, topic: string, current: JsonValue | undefined): string {
  const example = JSON.stringify({ v: current ?? 1 });
  return `mosquitto_pub -h ${shellWord(host)} -p ${PORT} ${CERTIFICATE} -q 1 -t ${shellWord(topic)} -m ${shellWord(example)}`;
}
