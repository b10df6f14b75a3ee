//! Runs `fairlead_fuzz::postgres_login` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fairlead_fuzz::postgres_login(data));
