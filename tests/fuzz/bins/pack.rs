#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| moue_fuzz::pack(input));
