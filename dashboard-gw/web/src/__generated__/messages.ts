// Made by `make generate` from dashboard-gw/src/message.rs and bus/src/payload.rs.

/**
 * `nodes/<n>/res/<r>/ack` and `nodes/<n>/cmd/<op>/ack`: exactly one for each request.
 */
export type Ack = {
/**
 * The id of the request; null when it had none.
 */
id: string | null,
/**
 * `set`, `get`, `rediscover`, `forget` or `ping`.
 */
op: string,
/**
 * How it ended.
 */
status: AckStatus,
/**
 * The node's own answer code, as its protocol writes it (`2.04`).
 */
code?: string,
/**
 * What the resource holds now, as the node said.
 */
v?: JsonValue,
/**
 * From the request's arrival at the bridge to its end, in milliseconds.
 */
ms: number,
/**
 * The reason in words, when it did not end well.
 */
error?: string, };

/**
 * How a request ended.
 */
export type AckStatus = "ok" | "rejected" | "timeout" | "error";

/**
 * A bridge as the page gets it.
 */
export type Bridge = {
/**
 * Its name.
 */
id: string,
/**
 * What it last said, or its Will.
 */
status: BridgeStatus, };

/**
 * `bridges/<b>/status`; the bridge's Will Message says `offline` without a time.
 */
export type BridgeStatus = {
/**
 * Whether the bridge is connected.
 */
state: State,
/**
 * What its nodes speak: `coap`, `websocket`.
 */
protocol: string,
/**
 * The version of the bridge.
 */
version: string,
/**
 * How many nodes it knows.
 */
nodes: number,
/**
 * When this was written.
 */
ts?: string, };

/**
 * `events`: what happened, in order, not retained.
 */
export type BusEvent = {
/**
 * What happened.
 */
type: EventType,
/**
 * The node it happened to.
 */
node?: string,
/**
 * The bridge that saw it.
 */
bridge?: string,
/**
 * When.
 */
ts: string, } & ({ [key in string]: number | string | boolean | Array<JsonValue> | { [key in string]: JsonValue } | null });

/**
 * The gateway's connection to the bus.
 */
export type BusState = {
/**
 * Whether it stands.
 */
connected: boolean,
/**
 * Since when, RFC 3339.
 */
since: string, };

/**
 * One change; a page applies it by replacing what it had under the same key.
 */
export type Change = { "kind": "bus",
/**
 * What it is now.
 */
bus: BusState, } | { "kind": "bridge",
/**
 * What it is now.
 */
bridge: Bridge, } | { "kind": "bridge_gone",
/**
 * Which.
 */
id: string, } | { "kind": "node",
/**
 * What it is now.
 */
node: Node, } | { "kind": "node_gone",
/**
 * Which.
 */
id: string, } | { "kind": "status",
/**
 * Which node.
 */
id: string,
/**
 * What it is now.
 */
status: NodeStatus, } | { "kind": "value",
/**
 * Which node.
 */
id: string,
/**
 * Which resource.
 */
resource: string,
/**
 * The value.
 */
reading: Reading, } | { "kind": "event",
/**
 * What.
 */
event: BusEvent, };

/**
 * From the page to the gateway.
 */
export type ClientMessage = { "type": "resume",
/**
 * The stream that the page's state is from.
 */
stream: string | null,
/**
 * The change it is complete up to.
 */
rev: number | null, } | { "type": "set",
/**
 * The page's own id for it.
 */
request: string,
/**
 * Which node.
 */
node: string,
/**
 * Which resource.
 */
resource: string,
/**
 * What to write.
 */
value: JsonValue, } | { "type": "get",
/**
 * The page's own id for it.
 */
request: string,
/**
 * Which node.
 */
node: string,
/**
 * Which resource.
 */
resource: string, } | { "type": "command",
/**
 * The page's own id for it.
 */
request: string,
/**
 * Which node.
 */
node: string,
/**
 * What to do.
 */
op: string, };

/**
 * `nodes/<n>`: who the node is.
 */
export type Descriptor = {
/**
 * The level `<n>`.
 */
id: string,
/**
 * What the node calls itself, as it was sent.
 */
uid: string,
/**
 * What people call it: its `name` resource, else its uid.
 */
name: string,
/**
 * What it speaks: `coap`, `websocket`.
 */
protocol: string,
/**
 * The bridge that owns it.
 */
bridge: string,
/**
 * Where it is reached, as its protocol writes addresses.
 */
address: string,
/**
 * Its operating system.
 */
os?: string,
/**
 * Its board.
 */
board?: string,
/**
 * Its processor.
 */
mcu?: string,
/**
 * Who made it.
 */
vendor?: string,
/**
 * The version of its firmware.
 */
version?: string,
/**
 * When the bridge first heard of it.
 */
first_seen: string,
/**
 * How often it has started anew since.
 */
epoch: number, };

/**
 * What happened.
 */
export type EventType = "node_new" | "node_lost" | "node_reset" | "node_forgotten" | "command" | "auth_failed";

export type JsonValue = number | string | boolean | Array<JsonValue> | { [key in string]: JsonValue } | null;

/**
 * What can be done to a resource or to a node.
 */
export type Method = "get" | "set";

/**
 * A node as the page gets it. A node whose bridge is offline is in an unknown state, whatever
 * `status` says.
 */
export type Node = {
/**
 * The level of its topics.
 */
id: string,
/**
 * Who it is; none until its descriptor came.
 */
descriptor: Descriptor | null,
/**
 * Whether it is there; none until its status came.
 */
status: NodeStatus | null,
/**
 * What it has.
 */
resources: Array<Resource>,
/**
 * The last value of each resource, by the resource's name.
 */
values: { [key in string]: Reading }, };

/**
 * `nodes/<n>/status`.
 */
export type NodeStatus = {
/**
 * Whether the node gave a sign of life lately.
 */
state: State,
/**
 * Why the state is what it is: `alive`, `timeout`, `closed`, `restored` ...
 */
reason: string,
/**
 * The last sign of life.
 */
last_seen: string, };

/**
 * `nodes/<n>/res/<r>`: the last value that the node gave.
 */
export type Reading = {
/**
 * Number, boolean, string or JSON value.
 */
v: JsonValue,
/**
 * The unit of a number.
 */
u?: string,
/**
 * When the bridge got it.
 */
ts: string,
/**
 * The text that `v` and `u` were read from, when they are not the text itself.
 */
raw?: string,
/**
 * When `v` is bytes in base64: their Content-Format (RFC 7252 section 12.3).
 */
ct?: number, };

/**
 * One entry of `nodes/<n>/resources`.
 */
export type Resource = {
/**
 * The level `<r>`.
 */
name: string,
/**
 * What the node calls it: its path, or its key.
 */
path: string,
/**
 * Resource types (RFC 6690 section 3.1).
 */
rt?: Array<string>,
/**
 * Interface descriptions (RFC 6690 section 3.2).
 */
if?: Array<string>,
/**
 * Content formats (RFC 7252 section 7.2.1).
 */
ct?: Array<number>,
/**
 * Whether it says that it can be observed (RFC 7641 section 6).
 */
obs?: boolean,
/**
 * The greatest size of its representation, in bytes (RFC 6690 section 3.3).
 */
sz?: number,
/**
 * A title for people (RFC 8288 section 3.4.1).
 */
title?: string,
/**
 * What it takes, as far as is known: `get`, `set`.
 */
methods?: Array<Method>, };

/**
 * From the gateway to the page.
 */
export type ServerMessage = { "type": "hello",
/**
 * Names this run of the gateway.
 */
stream: string,
/**
 * The gateway's version.
 */
version: string,
/**
 * The base of the topics, for showing raw topics.
 */
base: string,
/**
 * Whether this client may write.
 */
can_write: boolean,
/**
 * The command that attaches a simulated node, as a person would type it.
 */
demo_command: string,
/**
 * Where a CoAP node must send, as a person would configure it; empty when unknown.
 */
coap_address: string,
/**
 * The bus's port for MQTT over mTLS, for showing lines for a terminal.
 */
mqtt_port: number, } | { "type": "snapshot",
/**
 * The change it is complete up to.
 */
rev: number,
/**
 * The gateway's connection to the bus.
 */
bus: BusState,
/**
 * All bridges.
 */
bridges: Array<Bridge>,
/**
 * All nodes.
 */
nodes: Array<Node>,
/**
 * The latest events, oldest first, at most 200.
 */
events: Array<BusEvent>, } | { "type": "delta",
/**
 * The change the page is now complete up to.
 */
rev: number,
/**
 * In order; per resource only the latest value.
 */
changes: Array<Change>, } | { "type": "ack",
/**
 * The page's own id for it.
 */
request: string,
/**
 * How it ended.
 */
ack: Ack, };

/**
 * Whether something is there.
 */
export type State = "online" | "offline";
