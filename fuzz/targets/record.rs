//! A Primary's document of a pairing: whatever is read is written, and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pdmgate::registration::primary::record::PairingRecord;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = serde_json::from_slice::<PairingRecord>(bytes) else {
        return;
    };
    let text = serde_json::to_vec(&record).expect("a record is written");
    let again: PairingRecord = serde_json::from_slice(&text).expect("what is written is read");
    assert_eq!(again, record);
    assert_eq!(record.told().len(), record.own.len());
    assert_eq!(record.held().len(), record.own.len());
});
