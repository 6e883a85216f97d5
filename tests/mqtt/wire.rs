//! Malformed packets and UTF-8.

use super::brokers::Broker;
use super::client::{Client, field, packet, properties, publish, unique};
use super::statements;

fn closes(broker: &Broker, version: u8, bytes: &[u8]) {
    let mut client = Client::new(broker, version);
    let mut witness = Client::new(broker, version);
    client.send(bytes);
    client.closed();
    witness.nothing_more();
}

fn ill_formed_utf8(broker: &Broker, version: u8) {
    for bad in [&b"a\xed\xa0\x80"[..], b"a\xc0\xaf", b"a\xff", b"a\xe2\x82"] {
        closes(
            broker,
            version,
            &packet(0x30, &[&field(bad), &properties(version, &[])]),
        );
    }
}

fn null_character(broker: &Broker, version: u8) {
    closes(broker, version, &publish(version, 0x30, "a\0b", 0, &[], ""));
}

fn byte_order_mark_is_kept(broker: &Broker, version: u8) {
    let mut client = Client::new(broker, version);
    let topic = format!("\u{feff}{}", unique());
    client.subscribe(&topic, 0);
    client.publish(0x30, &topic, "x");
    assert_eq!(client.message().topic, topic);
}

fn reserved_flags(broker: &Broker, version: u8) {
    let props = properties(version, &[]);
    closes(
        broker,
        version,
        &packet(0x80, &[&[0, 1], &props, &field("a"), &[0]]),
    );
    closes(
        broker,
        version,
        &packet(0xA0, &[&[0, 1], &props, &field("a")]),
    );
    closes(broker, version, &[0xC1, 0]);
}

fn subscribe_flags(broker: &Broker, version: u8) {
    let props = properties(version, &[]);
    closes(
        broker,
        version,
        &packet(0x80, &[&[0, 1], &props, &field("a"), &[0]]),
    );
}

fn unsubscribe_flags(broker: &Broker, version: u8) {
    let props = properties(version, &[]);
    closes(
        broker,
        version,
        &packet(0xA0, &[&[0, 1], &props, &field("a")]),
    );
}

fn pubrel_flags(broker: &Broker, version: u8) {
    closes(broker, version, &[0x60, 2, 0, 1]);
}

fn disconnect_flags(broker: &Broker, version: u8) {
    closes(broker, version, &[0xE1, 0]);
}

fn zero_packet_id(broker: &Broker, version: u8) {
    closes(
        broker,
        version,
        &publish(version, 0x32, &unique(), 0, &[], ""),
    );
}

fn remaining_length_of_five_bytes(broker: &Broker, version: u8) {
    closes(broker, version, &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]);
}

fn zero_in_subscribe(broker: &Broker, version: u8) {
    let props = properties(version, &[]);
    let filter = field("a");
    closes(
        broker,
        version,
        &packet(0x82, &[&[0, 0], &props, &filter, &[0]]),
    );
    closes(broker, version, &packet(0xA2, &[&[0, 0], &props, &filter]));
}

/// A type that there is not, and one that only a server sends.
fn no_packets_of_clients(broker: &Broker, version: u8) {
    closes(broker, version, &[0x00, 0]);
    closes(broker, version, &[0x20, 3, 0, 0, 0]);
}

/// SUBACK, UNSUBACK and PINGRESP.
fn answers_of_servers(broker: &Broker, version: u8) {
    closes(broker, version, &[0x90, 4, 0, 1, 0, 0]);
    closes(broker, version, &[0xB0, 4, 0, 1, 0, 0]);
    closes(broker, version, &[0xD0, 0]);
}

fn no_authentication_in_311(broker: &Broker, version: u8) {
    closes(broker, version, &[0xF0, 0]);
}

fn bytes_behind_the_end(broker: &Broker, version: u8) {
    closes(broker, version, &[0xC0, 1, 0]);
    closes(broker, version, &[0x62, 7, 0, 1, 0, 0, 0, 0, 0]);
}

fn cut_short(broker: &Broker, version: u8) {
    closes(broker, version, &packet(0x32, &[b"\0\x01a\0"]));
    closes(broker, version, &packet(0x82, &[&[0]]));
    closes(broker, version, &packet(0x40, &[&[0]]));
}

statements! {
    ill_formed_utf8: mqtt311_1_5_3_1_ill_formed_utf8 = 4, mqtt5_1_5_4_1_ill_formed_utf8 = 5;
    null_character: mqtt311_1_5_3_2_null_character = 4, mqtt5_1_5_4_2_null_character = 5;
    byte_order_mark_is_kept: mqtt311_1_5_3_3_byte_order_mark = 4, mqtt5_1_5_4_3_byte_order_mark = 5;
    reserved_flags:
        mqtt311_2_2_2_2_reserved_flags = 4 but "takes a PINGREQ with reserved flags",
        mqtt5_2_1_3_1_reserved_flags = 5 but "takes a PINGREQ with reserved flags";
    subscribe_flags: mqtt311_3_8_1_1_flags = 4, mqtt5_3_8_1_1_flags = 5;
    unsubscribe_flags: mqtt311_3_10_1_1_flags = 4, mqtt5_3_10_1_1_flags = 5;
    pubrel_flags: mqtt311_3_6_1_1_flags = 4, mqtt5_3_6_1_1_flags = 5;
    disconnect_flags: mqtt311_3_14_1_1_flags = 4, mqtt5_3_14_1_1_flags = 5;
    zero_packet_id: mqtt311_2_3_1_1_zero_packet_id = 4, mqtt5_2_2_1_3_zero_packet_id = 5;
    remaining_length_of_five_bytes:
        mqtt311_4_8_0_1_length_of_five_bytes = 4,
        mqtt5_4_13_1_1_length_of_five_bytes = 5;
    zero_in_subscribe: mqtt311_2_3_1_1_zero_in_subscribe = 4, mqtt5_2_2_1_3_zero_in_subscribe = 5;
    no_packets_of_clients:
        mqtt311_4_8_0_1_no_packets_of_clients = 4,
        mqtt5_4_13_1_1_no_packets_of_clients = 5;
    answers_of_servers:
        mqtt311_4_8_0_1_answers_of_servers = 4 but "takes SUBACK, UNSUBACK and PINGRESP",
        mqtt5_4_13_1_1_answers_of_servers = 5 but "takes SUBACK, UNSUBACK and PINGRESP";
    no_authentication_in_311: mqtt311_4_8_0_1_auth = 4;
    bytes_behind_the_end:
        mqtt311_4_8_0_1_bytes_behind_the_end = 4 but "takes a PINGREQ with a body",
        mqtt5_4_13_1_1_bytes_behind_the_end = 5 but "takes a PINGREQ with a body";
    cut_short: mqtt311_4_8_0_1_cut_short = 4, mqtt5_4_13_1_1_cut_short = 5;
}
