#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| allout_fuzz::hyper::check(data));
