#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coap_bridge::fuzzing::dtls(data));
