//! Runs `fairlead_fuzz::frame` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairlead_fuzz::frame(data));
