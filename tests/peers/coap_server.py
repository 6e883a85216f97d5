"""A CoAP server of one resource, `/time`, on aiocoap: `coap_server.py HOST PORT`; says `ready`."""

import asyncio
import sys

import aiocoap
import aiocoap.resource as resource


class Time(resource.Resource):
    async def render_get(self, request):
        return aiocoap.Message(payload=b"Nov 25 12:00:00", content_format=0)


async def main():
    site = resource.Site()
    site.add_resource(["time"], Time())
    bind = (sys.argv[1], int(sys.argv[2]))
    await aiocoap.Context.create_server_context(site, bind=bind)
    print("ready", flush=True)
    await asyncio.get_running_loop().create_future()


asyncio.run(main())
