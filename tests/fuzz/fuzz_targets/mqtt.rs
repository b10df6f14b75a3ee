//! Runs `fairlead_fuzz::mqtt::readers` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairlead_fuzz::mqtt::readers(data));
