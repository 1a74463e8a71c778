//! Whether hugepages can be had.
//!
//! EAL must be told before it starts, and does not start over: so a mapping is tried first.

use std::fs;
use std::io;
use std::path::Path;
use std::ptr;

/// What to do about hugepages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hugepages {
    /// Use them if there are enough, else go on with ordinary pages and a warning.
    #[default]
    Auto,
    /// Fail without them.
    Require,
    /// Do not use them.
    Off,
}

/// Hugepages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Free {
    page: usize,
    count: usize,
}

impl Free {
    fn bytes(self) -> usize {
        self.page.saturating_mul(self.count)
    }
}

/// Bytes of hugepages that are free, of the size that has most: what `bytes` must not exceed.
pub(super) fn free_bytes() -> usize {
    free_in(Path::new("/sys/kernel/mm/hugepages"))
        .into_iter()
        .map(Free::bytes)
        .max()
        .unwrap_or(0)
}

/// Whether `bytes` of hugepages of one size are free and can really be mapped.
pub(super) fn available(bytes: usize) -> bool {
    free_in(Path::new("/sys/kernel/mm/hugepages"))
        .into_iter()
        .any(|size| size.bytes() >= bytes && can_map(size.page, bytes))
}

fn free_in(root: &Path) -> Vec<Free> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let kilobytes: usize = name
                .to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            let count = fs::read_to_string(entry.path().join("free_hugepages")).ok()?;
            Some(Free {
                page: kilobytes.checked_mul(1024)?,
                count: count.trim().parse().ok()?,
            })
        })
        .collect()
}

/// A control group may forbid pages that the system has free, which shows only when they are touched.
fn can_map(page: usize, bytes: usize) -> bool {
    let Some(length) = bytes.checked_next_multiple_of(page) else {
        return false;
    };
    let size_flag = (page.trailing_zeros() as i32) << libc::MAP_HUGE_SHIFT;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | size_flag,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the range is exactly the mapping made above. MADV_POPULATE_WRITE reports by error what touching the pages
    // would report by SIGBUS; kernels before 5.14 do not know it and say EINVAL.
    let populated = unsafe { libc::madvise(memory, length, libc::MADV_POPULATE_WRITE) } == 0
        || io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
    // SAFETY: the mapping made above, which nothing refers to any more.
    unsafe { libc::munmap(memory, length) };
    populated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_shows() {
        let root = tempfile::tempdir().unwrap();
        for (name, free) in [
            ("hugepages-2048kB", "12\n"),
            ("hugepages-1048576kB", "0\n"),
            ("hugepages-64kB", "many"),
            ("elsewhere", "1"),
        ] {
            let dir = root.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("free_hugepages"), free).unwrap();
        }
        let mut sizes = free_in(root.path());
        sizes.sort_by_key(|size| size.page);
        assert_eq!(
            sizes,
            [
                Free {
                    page: 2 << 20,
                    count: 12
                },
                Free {
                    page: 1 << 30,
                    count: 0
                }
            ]
        );
        assert_eq!(sizes[0].bytes(), 24 << 20);
        assert!(free_in(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn more_than_there_can_be_is_not_available() {
        assert!(!available(usize::MAX));
        assert!(!can_map(2 << 20, 1 << 46));
    }
}
