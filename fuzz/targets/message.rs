//! Whatever is read as a message is written as one that means the same, once and for all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pdmgate::registration::message::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::decode(bytes) else {
        return;
    };
    let once = message.encode();
    let again = Message::decode(&once).expect("what is written is read");
    assert_eq!(again.kind(), message.kind());
    assert_eq!(*again.encode(), *once);
});
