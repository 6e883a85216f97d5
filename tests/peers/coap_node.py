"""A node as a person would write one for Pyaiot, on aiocoap.

It serves its resources on its own CoAP server, says that it is alive every second from a new port
each time, and pushes what it is told to. Standard input: `push <resource> <value>`, `push-as <format>
<JSON>` (json, cbor, senml-json or senml-cbor), `reset`, `quiet` (no more signs of life), `talk`. Standard
output: `ready`, and `put <resource> <value>` for each write. With `--formats` it has a resource in each
Content-Format.
"""

import argparse
import asyncio
import datetime
import decimal
import json
import sys

import aiocoap
import aiocoap.resource as resource
from aiocoap.resourcedirectory.client.register import Registerer
import cbor2

# Content-Formats (RFC 7252 section 12.3, RFC 8428 section 12.3.1).
FORMATS = {"json": 50, "cbor": 60, "senml-json": 110, "senml-cbor": 112}

# The labels of SenML in CBOR (RFC 8428 section 6).
LABELS = {"bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6, "n": 0, "u": 1, "v": 2,
          "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8}


def encoded(kind, value):
    if kind in ("json", "senml-json"):
        return json.dumps(value).encode()
    if kind == "senml-cbor":
        value = [{LABELS[label]: v for label, v in record.items()} for record in value]
    return cbor2.dumps(value)


def decoded(kind, payload):
    if kind in ("json", "senml-json"):
        return json.loads(payload)
    return cbor2.loads(payload)


class Text(resource.Resource):
    def __init__(self, value):
        super().__init__()
        self.value = value

    async def render_get(self, request):
        return aiocoap.Message(payload=self.value.encode(), content_format=0)


class Actuator(Text):
    def __init__(self, name, value):
        super().__init__(value)
        self.name = name

    async def render_put(self, request):
        value = request.payload.decode()
        print(f"put {self.name} {value}", flush=True)
        if value not in ("0", "1"):
            return aiocoap.Message(code=aiocoap.BAD_REQUEST)
        self.value = value
        return aiocoap.Message(code=aiocoap.CHANGED)


class Formatted(resource.Resource):
    """A resource in one Content-Format; it takes writes in that one only."""

    def __init__(self, name, kind, payload):
        super().__init__()
        self.name = name
        self.kind = kind
        self.ct = FORMATS.get(kind, kind)
        self.payload = payload

    def get_link_description(self):
        return {"ct": str(self.ct)}

    async def render_get(self, request):
        return aiocoap.Message(payload=self.payload, content_format=self.ct)

    async def render_put(self, request):
        if request.opt.content_format != self.ct:
            return aiocoap.Message(code=aiocoap.UNSUPPORTED_CONTENT_FORMAT)
        print(f"put {self.name} {json.dumps(decoded(self.kind, request.payload))}", flush=True)
        self.payload = request.payload
        return aiocoap.Message(code=aiocoap.CHANGED)


def formatted():
    pack = [{"bn": "urn:dev:mac:0024befffe804ff1:", "bt": 1.7e9, "n": "t", "u": "Cel", "v": 21.5},
            {"n": "h", "u": "%RH", "t": -1, "v": 40}]
    everything = {"int": -3, "half": 1.5, "bytes": b"\x00\x01", 7: [True, None],
                  "decimal": decimal.Decimal("273.15"), "big": 2**64,
                  "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)}
    yield "in-json", "json", encoded("json", {"a": [1, "x"]})
    yield "in-cbor", "cbor", encoded("cbor", everything)
    yield "target", "cbor", encoded("cbor", 20)
    yield "env", "senml-json", encoded("senml-json", pack)
    yield "env-cbor", "senml-cbor", encoded("senml-cbor", pack)
    yield "setpoint", "senml-cbor", encoded("senml-cbor", [{"n": "setpoint", "u": "Cel", "v": 19}])
    yield "in-bytes", 42, b"\xff\x00"
    yield "in-lwm2m-tlv", 11542, b"\xc1\x00\x01"
    yield "links", 40, b'</a>;rt="x"'
    yield "broken", "cbor", b"\xa1"


def site(args):
    root = resource.Site()
    listed = lambda: root.get_resources_as_linkheader()
    root.add_resource([".well-known", "core"], resource.WKCResource(listed))
    facts = {"name": args.name, "board": "native", "os": "riot", "mcu": "amd64"}
    for name, value in facts.items():
        root.add_resource([name], Text(value))
    root.add_resource(["temperature"], Text("20.0°C"))
    root.add_resource(["led"], Actuator("led", "0"))
    if args.formats:
        for name, kind, payload in formatted():
            root.add_resource([name], Formatted(name, kind, payload))
    return root


async def post(args, path, payload, content_format=None):
    # A new context means a new source port, as the node of Pyaiot's own examples has it.
    context = await aiocoap.Context.create_server_context(resource.Site(), bind=(args.bind, 0))
    try:
        uri = f"coap://{args.bridge}/{path}"
        message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload)
        message.opt.content_format = content_format
        response = await asyncio.wait_for(context.request(message).response, 10)
        busy = response.code == aiocoap.SERVICE_UNAVAILABLE
        wait = f" Max-Age {response.opt.max_age}" if busy else ""
        print(f"answer {path} {response.code.dotted}{wait}", flush=True)
    except Exception as error:
        print(f"error {path} {error!r}", flush=True)
    finally:
        await context.shutdown()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--uid", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--formats", action="store_true")
    parser.add_argument("--port", type=int, default=5683)
    parser.add_argument("--register", action="store_true")
    args = parser.parse_args()

    server = await aiocoap.Context.create_server_context(site(args), bind=(args.bind, args.port))
    talking = not args.register
    registration = None
    if args.register:
        # It looks for the directory, registers what it serves, and renews that.
        registration = Registerer(
            server, rd=f"coap://{args.bridge}", lt=60, registration_parameters={"ep": args.uid}
        )

    async def beat():
        while True:
            if talking:
                await post(args, "alive", f"Alive:{args.uid}".encode())
            await asyncio.sleep(1)

    alive = asyncio.create_task(beat())
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, _, rest = line.strip().partition(" ")
        if command == "push":
            name, _, value = rest.partition(" ")
            await post(args, "server", f"{name}:{value}".encode())
        elif command == "push-as":
            kind, _, value = rest.partition(" ")
            await post(args, "server", encoded(kind, json.loads(value)), FORMATS[kind])
        elif command == "reset":
            await post(args, "alive", f"reset:{args.uid}".encode())
        elif command == "leave":
            await registration.shutdown()
        elif command in ("quiet", "talk"):
            talking = command == "talk"
    alive.cancel()
    await server.shutdown()


asyncio.run(main())
