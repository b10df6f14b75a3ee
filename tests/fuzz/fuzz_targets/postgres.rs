//! Runs `fairlead_fuzz::postgres` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairlead_fuzz::postgres(data));
