"""Publishes many retained messages with Eclipse paho, and ends when all are acknowledged."""

import argparse
import ssl

import paho.mqtt.client as mqtt

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--pki", required=True)
parser.add_argument("--count", type=int, required=True)
parser.add_argument("--prefix", required=True)
parser.add_argument("--v5", action="store_true")
args = parser.parse_args()

client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=args.pki.rstrip("/").rsplit("/", 1)[-1],
    protocol=mqtt.MQTTv5 if args.v5 else mqtt.MQTTv311,
)
client.tls_set(f"{args.pki}/ca.pem", f"{args.pki}/cert.pem", f"{args.pki}/key.pem", cert_reqs=ssl.CERT_REQUIRED)
client.max_inflight_messages_set(1000)
client.connect("localhost", args.port)
client.loop_start()
sent = [client.publish(f"{args.prefix}/{n}", f"value {n}", qos=1, retain=True) for n in range(args.count)]
for info in sent:
    info.wait_for_publish(60)
    if not info.is_published():
        raise SystemExit("a message was not acknowledged")
client.disconnect()
print(f"published {len(sent)}")
