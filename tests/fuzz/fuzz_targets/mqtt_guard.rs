//! Runs `fairlead_fuzz::mqtt::guard` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairlead_fuzz::mqtt::guard(data));
