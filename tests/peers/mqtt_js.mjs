// Goes through what an MQTT client does, with MQTT.js: QoS 0 to 2 there and back, retained messages,
// a Will. Ends with "ok", or with what went wrong.
//
// mqtt_js.mjs URL OPTIONS, where OPTIONS is JSON: version (4 or 5), name, and what of ca, cert, key
// (files), username and password is needed.

import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const [url, json] = process.argv.slice(2);
const { version, name, ca, cert, key, username, password } = JSON.parse(json);
const file = (path) => (path ? readFileSync(path) : undefined);
const tree = `nodebus/v1/js/${name}/${version}`;

setTimeout(() => fail("it took too long"), 20_000).unref();
process.on("unhandledRejection", fail);

function fail(error) {
  console.log(`failed: ${error?.message ?? error}`);
  process.exit(1);
}

function connect(suffix, more = {}) {
  return mqtt.connectAsync(
    url,
    {
      clientId: `${name}:${suffix}`,
      protocolVersion: version,
      ca: file(ca),
      cert: file(cert),
      key: file(key),
      username,
      password,
      reconnectPeriod: 0,
      ...more,
    },
    false,
  );
}

/** Subscribes, and gives a function that waits for the next message. */
async function messages(client, filter) {
  const [came, waiting] = [[], []];
  client.on("message", (topic, payload, { qos, retain }) => {
    const message = { topic, text: payload.toString(), qos, retain };
    const next = waiting.shift();
    next ? next(message) : came.push(message);
  });
  await client.subscribeAsync(filter, { qos: 2 });
  return () => (came.length ? came.shift() : new Promise((next) => waiting.push(next)));
}

function check(message, expected) {
  for (const [member, value] of Object.entries(expected)) {
    if (message[member] !== value) {
      fail(`${JSON.stringify(message)} instead of ${JSON.stringify(expected)}`);
    }
  }
}

const one = await connect("one");
const next = await messages(one, `${tree}/+`);
for (const qos of [0, 1, 2]) {
  const text = "x".repeat(qos === 2 ? 200_000 : 10);
  await one.publishAsync(`${tree}/live`, text, { qos });
  check(await next(), { topic: `${tree}/live`, text, qos, retain: false });
}

await one.publishAsync(`${tree}/kept`, "kept", { qos: 1, retain: true });
check(await next(), { text: "kept", retain: false });
const two = await connect("two", {
  will: { topic: `${tree}/will`, payload: "gone", qos: 1, retain: false },
});
const nextOfTwo = await messages(two, `${tree}/kept`);
check(await nextOfTwo(), { text: "kept", qos: 1, retain: true });

two.on("error", () => {});
two.stream.destroy();
check(await next(), { topic: `${tree}/will`, text: "gone" });
await one.publishAsync(`${tree}/kept`, "", { qos: 1, retain: true });
await one.endAsync();
console.log("ok");
process.exit(0);
