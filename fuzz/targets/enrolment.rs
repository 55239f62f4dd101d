#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| certs::testing::fuzz::enrolment(input));
