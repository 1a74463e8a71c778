//! DPDK's log as `tracing` events of target `dpdk`.
//!
//! What DPDK calls notice and info is about its own start and of no use in daily work: it becomes `debug`.

use std::ffi::c_char;
use std::slice;

use super::Errno;
use super::ffi;

/// Sends all that DPDK logs from now on to `tracing`.
pub(super) fn route() -> Result<(), Errno> {
    // SAFETY: `sink` has the type the shim expects and may be called from any thread at any time.
    let failed = unsafe { ffi::pdmgate_log_to(Some(sink)) } != 0;
    if failed {
        return Err(Errno(libc::ENOMEM));
    }
    Ok(())
}

unsafe extern "C" fn sink(level: u32, text: *const c_char, length: usize) {
    if text.is_null() || length == 0 {
        return;
    }
    // SAFETY: stdio hands the shim a buffer of `length` bytes that stays as it is until the shim returns.
    let text = unsafe { slice::from_raw_parts(text.cast::<u8>(), length) };
    for line in String::from_utf8_lossy(text).lines() {
        let line = line.trim();
        if !line.is_empty() {
            event(level, line);
        }
    }
}

fn event(level: u32, line: &str) {
    if level <= ffi::RTE_LOG_ERR {
        tracing::error!(target: "dpdk", "{line}");
    } else if level <= ffi::RTE_LOG_WARNING {
        tracing::warn!(target: "dpdk", "{line}");
    } else if level <= ffi::RTE_LOG_INFO {
        tracing::debug!(target: "dpdk", "{line}");
    } else {
        tracing::trace!(target: "dpdk", "{line}");
    }
}
