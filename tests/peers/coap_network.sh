#!/bin/sh
# Runs a command in a network of its own with an interface v0, on the other side of which libcoap's server
# is a member of a group and says nothing by itself. OTHER is a process on that side.
#
#     unshare --map-root-user --net tests/peers/coap_network.sh GROUP COMMAND...
set -eu
group=$1
shift
ip link set lo up
ip link add v0 type veth peer name v1
unshare --net sleep 60 </dev/null >/dev/null 2>&1 &
other=$!
trap 'kill $other $server' EXIT
server=$other
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
ip link set v1 netns $other
there() { nsenter --target $other --net "$@"; }

# Addresses are used at once, without a search for others that have them.
echo 0 >/proc/sys/net/ipv6/conf/v0/accept_dad
there sh -c 'echo 0 >/proc/sys/net/ipv6/conf/v1/accept_dad'
ip addr add 10.9.0.1/24 dev v0
there ip addr add 10.9.0.2/24 dev v1
ip link set v0 up
there ip link set v1 up
there ip link set lo up
there ip route add 224.0.0.0/4 dev v1

case $group in
  *:*) any=:: ;;
  *) any=0.0.0.0 ;;
esac
nsenter --target $other --net coap-server-notls -A $any -g "$group" -G v1 </dev/null >/dev/null 2>&1 &
server=$!
until there coap-client-notls -B 1 coap://10.9.0.2/ >/dev/null 2>&1 ||
  there coap-client-notls -B 1 'coap://[::1]/' >/dev/null 2>&1; do :; done
OTHER=$other "$@"
