"""aiocoap as a plugtest client and as plugtest servers, on the bidding of a test.

Standard input is one JSON object a line, with an `id` that the answer carries: `serve` starts a server
at an address and port 5683, `change`, `forget` and `put` do something to its observed resource, `ask`
sends a request, `observe` keeps an observation and tells what it gets.
"""

import asyncio
import json
import sys

import aiocoap
import aiocoap.resource as resource
from aiocoap.numbers.codes import Code

LARGE = "".join(f"line {n:02} of forty in a large text\n" for n in range(1, 41))


def text(payload, code=aiocoap.CONTENT, content_format=0):
    if isinstance(payload, str):
        payload = payload.encode()
    return aiocoap.Message(code=code, payload=payload, content_format=content_format)


class Text(resource.Resource):
    def __init__(self, payload, **attributes):
        super().__init__()
        self.payload = payload
        self.attributes = attributes

    def get_link_description(self):
        return dict(**super().get_link_description(), **self.attributes)

    async def render_get(self, request):
        return text(self.payload)


class Stored(resource.Resource):
    """Written, removed, created, under conditions, with an ETag."""

    def __init__(self, payload):
        super().__init__()
        self.payload = payload
        self.version = 1

    def etag(self):
        return None if self.payload is None else bytes([self.version])

    async def render_get(self, request):
        if self.payload is None:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        if self.etag() in request.opt.etags:
            response = aiocoap.Message(code=aiocoap.VALID)
        else:
            response = text(self.payload)
        response.opt.etag = self.etag()
        return response

    async def render_put(self, request):
        wanted = list(request.opt.if_match)
        if wanted and self.etag() not in wanted and b"" not in wanted:
            return aiocoap.Message(code=aiocoap.PRECONDITION_FAILED)
        if request.opt.if_none_match and self.payload is not None:
            return aiocoap.Message(code=aiocoap.PRECONDITION_FAILED)
        new = self.payload is None
        self.payload = request.payload
        self.version += 1
        return aiocoap.Message(code=aiocoap.CREATED if new else aiocoap.CHANGED)

    async def render_delete(self, request):
        self.payload = None
        return aiocoap.Message(code=aiocoap.DELETED)


class Test(Stored):
    async def render_post(self, request):
        response = aiocoap.Message(code=aiocoap.CREATED)
        response.opt.location_path = ("location1", "location2", "location3")
        return response


class LocationQuery(resource.Resource):
    async def render_post(self, request):
        response = aiocoap.Message(code=aiocoap.CREATED)
        response.opt.location_path = ("location-query",)
        response.opt.location_query = ("first=1", "second=2")
        return response


class Separate(resource.Resource):
    async def render_get(self, request):
        await asyncio.sleep(0.3)
        return text("that took a while")


class Query(resource.Resource):
    async def render_get(self, request):
        return text("\n".join(request.opt.uri_query))


class MultiFormat(resource.Resource):
    async def render_get(self, request):
        formats = {0: "text", 41: "<xml/>"}
        wanted = 0 if request.opt.accept is None else int(request.opt.accept)
        if wanted not in formats:
            return aiocoap.Message(code=aiocoap.NOT_ACCEPTABLE)
        return text(formats[wanted], content_format=wanted)


class LargeCreate(resource.Resource):
    def __init__(self, site):
        super().__init__()
        self.site = site

    async def render_post(self, request):
        self.site.add_resource(["large-create", "1"], Text(request.payload))
        response = aiocoap.Message(code=aiocoap.CREATED)
        response.opt.location_path = ("large-create", "1")
        return response


class LargePost(resource.Resource):
    async def render_post(self, request):
        return text(request.payload.decode().upper(), aiocoap.CHANGED)


class Observed(resource.ObservableResource):
    max_age = None

    def __init__(self, tail=""):
        super().__init__()
        self.tail = tail
        self.payload = "change 0\n" + tail
        self.changes = 0

    def change(self, payload=None):
        self.changes += 1
        self.payload = payload or f"change {self.changes}\n" + self.tail
        self.updated_state()

    async def render_get(self, request):
        response = text(self.payload)
        response.opt.max_age = self.max_age
        return response


class Path(resource.Resource):
    ct = 40

    async def render_get(self, request):
        links = ",".join(f"</path/sub{n}>" for n in (1, 2, 3))
        return text(links, content_format=40)


servers = {}


def make_site():
    site = resource.Site()
    listed = lambda: site.get_resources_as_linkheader()
    # The filter of aiocoap itself.
    site.add_resource([".well-known", "core"], resource.WKCResource(listed))
    site.add_resource(["test"], Test(b"a test"))
    site.add_resource(["separate"], Separate())
    site.add_resource(["seg1", "seg2", "seg3"], Text("three segments"))
    site.add_resource(["query"], Query())
    site.add_resource(["location-query"], LocationQuery())
    site.add_resource(["multi-format"], MultiFormat())
    site.add_resource(["validate"], Stored(b"version 1"))
    site.add_resource(["create1"], Stored(None))
    site.add_resource(["large"], Text(LARGE, sz=str(len(LARGE))))
    site.add_resource(["large-update"], Stored(b"nothing yet"))
    site.add_resource(["large-create"], LargeCreate(site))
    site.add_resource(["large-post"], LargePost())
    site.add_resource(["obs"], Observed())
    site.add_resource(["obs-non"], Observed())
    site.add_resource(["obs-large"], Observed(LARGE))
    site.add_resource(["link1"], Text("/link1", **{"rt": "Type1 Type2", "if": "If1"}))
    site.add_resource(["link2"], Text("/link2", **{"rt": "Type2 Type3", "if": "If2"}))
    site.add_resource(["link3"], Text("/link3", **{"rt": "Type1 Type3", "if": "foo"}))
    site.add_resource(["path"], Path())
    for n in (1, 2, 3):
        site.add_resource(["path", f"sub{n}"], Text(f"/path/sub{n}"))
    return site


def described(message):
    options = {}
    for option in message.opt.option_list():
        options.setdefault(str(int(option.number)), []).append(option.encode().hex())
    return {
        "code": message.code.dotted,
        "payload": message.payload.decode("utf-8", "replace"),
        "options": options,
    }


def made(command):
    message = aiocoap.Message(
        code=Code[command["method"]], uri=command["uri"], payload=command.get("payload", "").encode()
    )
    if command.get("non"):
        message.transport_tuning = aiocoap.numbers.constants.TransportTuning()
        message.mtype = aiocoap.NON
    for name, value in command.get("options", {}).items():
        if isinstance(value, str) and value.startswith("hex:"):
            value = bytes.fromhex(value[4:])
        if name in ("etags", "if_match"):
            value = [value]
        setattr(message.opt, name, value)
    return message


contexts = {}


async def ask(command):
    context = await aiocoap.Context.create_client_context()
    try:
        request = context.request(made(command))
        return described(await asyncio.wait_for(request.response, 40))
    finally:
        # With `stay` it hears what is sent again.
        if command.get("stay"):
            contexts[command["id"]] = (context, request)
        else:
            await context.shutdown()


async def observe(command, say):
    context = await aiocoap.Context.create_client_context()
    message = made(command)
    message.opt.observe = 0
    request = context.request(message)
    contexts[command["id"]] = (context, request)
    say(described(await asyncio.wait_for(request.response, 40)))
    request.observation.register_callback(lambda response: say(described(response)))
    request.observation.register_errback(lambda error: say({"ended": repr(error)}))


async def carry_out(command, say):
    do = command["do"]
    if do == "serve":
        site = make_site()
        context = await aiocoap.Context.create_server_context(
            site, bind=(command["address"], 5683)
        )
        servers[command["address"]] = (context, site)
        say({})
    elif do in ("change", "forget"):
        _, site = servers[command["address"]]
        observed = site._resources[(command["path"],)]
        if do == "change":
            observed.max_age = command.get("max_age")
            observed.change(command.get("payload"))
        else:
            for observation in list(observed._observations):
                observation._cancellation_callback = None
                observed._observations.discard(observation)
        say({"observers": len(observed._observations)})
    elif do == "ask":
        say(await ask(command))
    elif do == "observe":
        await observe(command, say)
    elif do == "cancel":
        _, request = contexts[command["observation"]]
        request.observation.cancel()
        say({})
    elif do == "off":
        context, _ = contexts[command["observation"]]
        await context.shutdown()
        say({})


async def main():
    loop = asyncio.get_running_loop()
    tasks = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)

        def say(answer, identity=command["id"]):
            print(json.dumps({"id": identity, **answer}), flush=True)

        async def run(command=command, say=say):
            try:
                await carry_out(command, say)
            except Exception as error:
                say({"error": repr(error)})

        task = asyncio.create_task(run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
