#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| dtls_channel::testing::fuzz::endpoint(input));
