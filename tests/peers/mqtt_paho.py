"""Goes through what an MQTT client does, with Eclipse paho: QoS 0 to 2 there and back, retained
messages, a Will. Ends with "ok", or with what went wrong.

mqtt_paho.py URL OPTIONS, where OPTIONS is JSON: version (4 or 5), name, and what of ca, cert, key
(files), username and password is needed.
"""

import json
import queue
import sys
import urllib.parse

import paho.mqtt.client as mqtt

url = urllib.parse.urlsplit(sys.argv[1])
options = json.loads(sys.argv[2])
name, version = options["name"], options["version"]
tree = f"nodebus/v1/paho/{name}/{version}"
PATIENCE = 20


def fail(reason):
    print(f"failed: {reason}")
    sys.exit(1)


class Client:
    """A client that is connected, and what comes to it."""

    def __init__(self, suffix, will=None):
        self.messages, self.answers = queue.Queue(), queue.Queue()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"{name}:{suffix}",
            protocol=mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311,
            transport="websockets" if url.scheme in ("ws", "wss") else "tcp",
        )
        if options.get("ca"):
            self.client.tls_set(options["ca"], options.get("cert"), options.get("key"))
        if options.get("username"):
            self.client.username_pw_set(options["username"], options.get("password"))
        if will:
            self.client.will_set(will, "gone", qos=1)
        self.client.on_connect = lambda _c, _u, _f, reason, _p: self.answers.put(reason)
        self.client.on_subscribe = lambda *_: self.answers.put(None)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.connect(url.hostname, url.port)
        self.client.loop_start()
        reason = self.answers.get(timeout=PATIENCE)
        if reason.is_failure:
            fail(reason)

    def subscribe(self, topic):
        self.client.subscribe(topic, qos=2)
        self.answers.get(timeout=PATIENCE)

    def publish(self, topic, text, qos, retain=False):
        self.client.publish(topic, text, qos=qos, retain=retain).wait_for_publish(PATIENCE)

    def expect(self, topic, text, qos, retain):
        message = self.messages.get(timeout=PATIENCE)
        got = (message.topic, message.payload.decode(), message.qos, bool(message.retain))
        if got != (topic, text, qos, retain):
            fail(f"{got} instead of {(topic, text, qos, retain)}")


one = Client("one")
one.subscribe(f"{tree}/+")
for qos in (0, 1, 2):
    text = "x" * (200_000 if qos == 2 else 10)
    one.publish(f"{tree}/live", text, qos)
    one.expect(f"{tree}/live", text, qos, False)

one.publish(f"{tree}/kept", "kept", 1, retain=True)
one.expect(f"{tree}/kept", "kept", 1, False)
two = Client("two", will=f"{tree}/will")
two.subscribe(f"{tree}/kept")
two.expect(f"{tree}/kept", "kept", 1, True)

two.client.loop_stop()
two.client.socket().close()
one.expect(f"{tree}/will", "gone", 1, False)
one.publish(f"{tree}/kept", "", 1, retain=True)
one.client.disconnect()
print("ok")
