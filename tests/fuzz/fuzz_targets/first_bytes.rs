//! Runs `fairlead_fuzz::first_bytes` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairlead_fuzz::first_bytes(data));
