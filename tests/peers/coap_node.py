"""A node as a person would write one for Pyaiot, on aiocoap.

It serves its resources on its own CoAP server, says that it is alive every second from a new port
each time, and pushes what it is told to. Standard input: `push <resource> <value>`, `reset`, `quiet` (no
more signs of life), `talk`. Standard output: `ready`, and `put <resource> <value>` for each write.
"""

import argparse
import asyncio
import sys

import aiocoap
import aiocoap.resource as resource


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


def site(args):
    root = resource.Site()
    listed = lambda: root.get_resources_as_linkheader()
    root.add_resource([".well-known", "core"], resource.WKCResource(listed))
    facts = {"name": args.name, "board": "native", "os": "riot", "mcu": "amd64"}
    for name, value in facts.items():
        root.add_resource([name], Text(value))
    root.add_resource(["temperature"], Text("20.0°C"))
    root.add_resource(["led"], Actuator("led", "0"))
    return root


async def post(args, path, payload):
    # A new context means a new source port, as the node of Pyaiot's own examples has it.
    context = await aiocoap.Context.create_server_context(resource.Site(), bind=(args.bind, 0))
    try:
        uri = f"coap://{args.bridge}/{path}"
        message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=payload.encode())
        response = await asyncio.wait_for(context.request(message).response, 10)
        print(f"answer {path} {response.code.dotted}", flush=True)
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
    args = parser.parse_args()

    server = await aiocoap.Context.create_server_context(site(args), bind=(args.bind, 5683))
    talking = True

    async def beat():
        while True:
            if talking:
                await post(args, "alive", f"Alive:{args.uid}")
            await asyncio.sleep(1)

    alive = asyncio.create_task(beat())
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, _, rest = line.strip().partition(" ")
        if command == "push":
            name, _, value = rest.partition(" ")
            await post(args, "server", f"{name}:{value}")
        elif command == "reset":
            await post(args, "alive", f"reset:{args.uid}")
        elif command in ("quiet", "talk"):
            talking = command == "talk"
    alive.cancel()
    await server.shutdown()


asyncio.run(main())
