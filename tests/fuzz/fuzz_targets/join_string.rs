//! Runs `fairlead_fuzz::join_string` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairlead_fuzz::join_string(data));
