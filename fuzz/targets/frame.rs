//! A stream of frames: each message comes with its own bytes, and nothing is read twice or left out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pdmgate::registration::frame::{MAX_LENGTH, Reader};
use std::cell::RefCell;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().build().unwrap());
}

fuzz_target!(|bytes: &[u8]| {
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let mut reader = Reader::new(bytes);
            let mut at = 0;
            while let Ok(received) = reader.next().await {
                let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
                assert!((1..=MAX_LENGTH).contains(&length));
                assert_eq!(*received.bytes, bytes[at + 4..at + 4 + length]);
                at += 4 + length;
            }
        });
    });
});
