#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kubelet::logs::fuzz::read(data));
