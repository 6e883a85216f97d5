"""Many nodes on aiocoap that count what they send, and what of it reaches the bus.

Run by scripts/test-lossy, which loses datagrams between these nodes and the bridge, has
mosquitto_sub write down what is on the bus, and runs this a second time beside the bridge, to write
down which readings arrived there. Prints a table; exits with 1 when a reading that arrived is not on
the bus, or is there twice, or when more was lost than RFC 7252 makes of such a network.
"""

import argparse
import asyncio
import json
import math
import random
import re
import socket
import subprocess
import sys
import time

import aiocoap
import aiocoap.error
import aiocoap.resource as resource

# RFC 7252 section 4.8.
TRANSMISSIONS = 5

PUSHED = re.compile(r"nodebus/v1/nodes/([^/]+)/res/t (.+)")
KNOWN = re.compile(r"nodebus/v1/nodes/([^/]+) (.+)")


def address(number):
    """Of the node with this number."""
    return f"10.77.{128 + number // 250}.{number % 250 + 2}"


class Bus:
    """What mosquitto_sub has written down."""

    def __init__(self, path):
        self.path = path

    def lines(self):
        with open(self.path, encoding="utf-8") as file:
            return [line for line in file.read().split("\n")[:-1] if line]

    def nodes(self):
        known = (KNOWN.fullmatch(line) for line in self.lines())
        return {json.loads(match[2])["uid"] for match in known if match}

    def readings(self):
        """How often each number has come."""
        counts = {}
        for match in map(PUSHED.fullmatch, self.lines()):
            if match:
                number = json.loads(match[2])["v"]
                counts[number] = counts.get(number, 0) + 1
        return counts

    async def wait_for(self, done, seconds):
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            await asyncio.sleep(0.2)


def witness():
    """Writes down the number of each reading that comes in. Unlike tools that capture packets, a raw
    socket sees what has passed the rules of the network, and so what the bridge can see."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        while True:
            packet = raw.recv(65535)
            datagram = packet[4 * (packet[0] & 15) + 8 :]
            if (at := datagram.find(b"\xfft:")) > 0:
                print(datagram[at + 3 :].decode(), flush=True)


class Failures(list):
    def check(self, holds, text):
        if not holds:
            self.append(text)


async def burst(args, bus, failures):
    """Firmwares that start at one moment: one Non-confirmable datagram each, never sent again."""
    count = args.burst
    sockets = []
    for number in range(count):
        node = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        node.bind((address(number), 49152))
        node.connect((args.bridge, 5683))
        sockets.append(node)
    uids = [f"BURST{number}" for number in range(count)]
    path = b"\xb5alive"
    start = time.monotonic()
    for number, (node, uid) in enumerate(zip(sockets, uids)):
        node.send(b"\x50\x02" + number.to_bytes(2, "big") + path + b"\xffalive:" + uid.encode())
    took = time.monotonic() - start
    await bus.wait_for(lambda: bus.nodes() >= set(uids), 60)
    missing = set(uids) - bus.nodes()
    print(f"burst, NON, nothing lost on the way: {count} first alives in {1000 * took:.0f} ms, "
          f"{count - len(missing)} nodes on the bus")
    failures.check(not missing, f"{len(missing)} nodes of the burst are missing")
    for node in sockets:
        node.close()


class Node:
    def __init__(self, number, bridge):
        self.number, self.bridge = number, bridge
        self.uid = f"LOSSY{number}"
        self.context = None

    async def start(self):
        site = resource.Site()
        core = resource.WKCResource(site.get_resources_as_linkheader)
        site.add_resource([".well-known", "core"], core)
        bind = (address(self.number), 5683)
        self.context = await aiocoap.Context.create_server_context(site, bind=bind)

    async def post(self, path, text):
        """True when it was acknowledged, false when it was given up."""
        uri = f"coap://{self.bridge}/{path}"
        message = aiocoap.Message(code=aiocoap.POST, uri=uri, payload=text.encode())
        try:
            response = await self.context.request(message).response
        except aiocoap.error.TimeoutError:
            return False
        if response.code != aiocoap.CHANGED:
            raise RuntimeError(f"{self.uid}: {path} was answered {response.code}")
        return True

    async def push(self, numbers, sent, interval, end):
        """One reading after the other, as a node with one sensor does."""
        await asyncio.sleep(random.uniform(0, interval))
        while (begun := time.monotonic()) < end:
            number = next(numbers)
            sent[number] = await self.post("server", f"t:{number}")
            await asyncio.sleep(max(0, begun + interval - time.monotonic()))


async def lossy_burst(nodes, bus, failures):
    """Their first alive, Confirmable, all at one moment."""
    start = time.monotonic()
    acknowledged = await asyncio.gather(*(node.post("alive", f"alive:{node.uid}") for node in nodes))
    took = time.monotonic() - start
    certain = {node.uid for node, ack in zip(nodes, acknowledged) if ack}
    await bus.wait_for(lambda: bus.nodes() >= certain, 60)
    there = bus.nodes() & {node.uid for node in nodes}
    print(f"burst, CON, with loss: {len(nodes)} first alives, {len(certain)} acknowledged within "
          f"{took:.0f} s, {len(there)} nodes on the bus, {len(certain - there)} lost")
    failures.check(certain <= there, "alives were acknowledged and lost")
    failures.check(len(nodes) - len(there) <= limit(len(nodes), (args.loss / 100) ** TRANSMISSIONS),
                   "more alives were lost than by chance")


def limit(count, probability):
    """No binomial count is above this but once in 30,000 times."""
    mean = count * probability
    return mean + 4 * math.sqrt(mean) + 1


async def readings(nodes, bus, failures):
    sent, numbers = {}, iter(range(1, sys.maxsize))
    end = time.monotonic() + args.seconds
    await asyncio.gather(*(node.push(numbers, sent, args.interval, end) for node in nodes))
    acknowledged = {number for number, ack in sent.items() if ack}
    await bus.wait_for(lambda: bus.readings().keys() >= acknowledged, 30)
    await asyncio.sleep(2)
    came = bus.readings()
    with open(args.arrived, encoding="utf-8") as file:
        arrivals = [int(line) for line in file.read().split("\n")[:-1]]
    arrived = set(arrivals)
    given_up = sent.keys() - acknowledged
    lost = sent.keys() - came.keys()
    twice = [number for number, count in came.items() if count > 1]
    drop = args.loss / 100
    p_given_up, p_lost = (1 - (1 - drop) ** 2) ** TRANSMISSIONS, drop ** TRANSMISSIONS
    rows = [
        ("readings sent (CON)", len(sent), ""),
        ("acknowledged", len(acknowledged), ""),
        ("given up by the sender", len(given_up), f"{len(sent) * p_given_up:.1f} expected"),
        ("arrived at the bridge", len(arrived), f"with {len(arrivals) - len(arrived)} duplicates"),
        ("lost on the way", len(sent.keys() - arrived), f"{len(sent) * p_lost:.1f} expected"),
        ("on the bus", len(came), ""),
        ("lost though arrived", len(lost & arrived), "0 allowed"),
        ("lost though acknowledged", len(lost & acknowledged), "0 allowed"),
        ("twice on the bus", len(twice), "0 allowed"),
    ]
    print(f"\n{len(nodes)} nodes, {args.seconds} s, {args.loss} % lost each way")
    for name, count, note in rows:
        print(f"  {name:26}{count:8}  {note}".rstrip())
    failures.check(len(sent) > len(nodes), "next to nothing was sent")
    failures.check(not lost & acknowledged, f"acknowledged and lost: {sorted(lost & acknowledged)[:9]}")
    failures.check(not lost & arrived, f"arrived and lost: {sorted(lost & arrived)[:9]}")
    failures.check(len(arrivals) > len(arrived), "no reading was sent again")
    failures.check(not twice, f"twice on the bus: {twice[:9]}")
    failures.check(not came.keys() - sent.keys(), "readings that nobody sent")
    failures.check(len(lost) <= limit(len(sent), p_lost), "more was lost than by chance")
    failures.check(len(given_up) <= limit(len(sent), p_given_up), "more was given up than by chance")


def lose(percent):
    subprocess.run([args.lose, str(percent)], check=True)


async def main():
    bus, failures = Bus(args.seen), Failures()
    lose(0)
    await burst(args, bus, failures)
    lose(args.loss)
    nodes = [Node(args.burst + number, args.bridge) for number in range(args.burst)]
    for node in nodes:
        await node.start()
    await lossy_burst(nodes, bus, failures)
    await readings(nodes[: args.nodes], bus, failures)
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


parser = argparse.ArgumentParser(prog="scripts/test-lossy", description=__doc__.split("\n")[0])
for internal in ("--bridge", "--seen", "--arrived", "--lose"):
    parser.add_argument(internal, help=argparse.SUPPRESS)
parser.add_argument("--witness", action="store_true", help=argparse.SUPPRESS)
parser.add_argument("--nodes", type=int, default=200, help="that push readings [200]")
parser.add_argument("--burst", type=int, default=1000, help="nodes that start at once [1000]")
parser.add_argument("--seconds", type=int, default=300, help="for which readings are pushed [300]")
parser.add_argument("--interval", type=float, default=5, help="of a node's readings, seconds [5]")
parser.add_argument("--loss", type=int, default=20, help="of 100 datagrams each way [20]")
args = parser.parse_args()
if args.witness:
    witness()
sys.exit(asyncio.run(main()))
