"""A WebSocket peer on Python's websockets: prints each message, sends each line of standard input.

The line `close` ends the connection. Standard output: `open`, `< <message>`, `closed <code> <reason>`.
"""

import asyncio
import sys

import websockets


async def main(url):
    async with websockets.connect(url) as socket:
        print("open", flush=True)

        async def show():
            try:
                async for message in socket:
                    print(f"< {message}", flush=True)
            except websockets.ConnectionClosed:
                pass
            print(f"closed {socket.close_code} {socket.close_reason}", flush=True)

        shown = asyncio.create_task(show())
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if line.strip() == "close":
                break
            try:
                await socket.send(line.rstrip("\n"))
            except websockets.ConnectionClosed:
                pass
        await socket.close()
        await shown


asyncio.run(main(sys.argv[1]))
