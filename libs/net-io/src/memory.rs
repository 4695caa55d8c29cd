//! Memory that the process has freed and the allocator keeps.
//!
//! glibc (Linux) keeps a lot: whole pages between blocks in use, whatever is free behind the last of them in threads other than
//! the first, and for each thread a cache of small blocks, each of which may be the last in its page. Other allocators give
//! their pages back by themselves.

/// Gives whole free pages back to the system. For after much was freed: it looks through everything that is free, a
/// millisecond or so, and holds up whoever allocates meanwhile.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    glibc::trim();
}

/// The same with what is cached for this thread, which takes a thread and the time to start it. For when nothing is going on.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_all_back() {
    glibc::drop_cache();
    glibc::trim();
}

/// Nothing has to be done for it here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}

/// Nothing has to be done for it here.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_all_back() {}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::sync::{Mutex, PoisonError};
    use std::thread::Builder;

    /// The thresholds belong to the whole process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// The small sizes of which each thread caches freed blocks, and of each how many: 7 before glibc 2.42, 16 since.
    const CACHED_SIZES: std::ops::Range<usize> = 24..1040;
    const CACHED_STEP: usize = 16;
    const CACHED: usize = 16;

    const STACK: usize = 64 * 1024;

    /// The cache of a thread is freed for good when the thread ends. Without one to be had it stays as it is.
    pub(super) fn drop_cache() {
        let cached = small_blocks();
        let thread = Builder::new().stack_size(STACK);
        if let Ok(thread) = thread.spawn(move || drop(cached)) {
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }

    fn small_blocks() -> Vec<Vec<u8>> {
        let sizes = CACHED_SIZES.step_by(CACHED_STEP);
        let blocks = sizes
            .flat_map(|size| [size; CACHED])
            .map(Vec::with_capacity);
        std::hint::black_box(blocks.collect())
    }

    #[expect(unsafe_code, reason = "functions of the C library")]
    pub(super) fn trim() {
        /// When a block of 64 KiB or more is freed, what is free behind the last block of its arena is looked at.
        const LARGE: usize = 96 * 1024;
        /// Larger blocks have pages of their own. glibc moves this by itself until one of these is set, and batches to be sent
        /// should not be made of new pages each time.
        const OWN_PAGES: libc::c_int = 1 << 20;
        /// What may be free behind the last block before it is given back with no call of ours; twice the other, as glibc has it.
        const BEHIND: libc::c_int = 2 * OWN_PAGES;
        /// glibc's own: what an arena grows by.
        const PAD: libc::c_int = 128 << 10;

        let large = std::hint::black_box(Vec::<u8>::with_capacity(LARGE));
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: they take numbers by value and lock what they touch (mallopt(3), malloc_trim(3): MT-safe).
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
            libc::malloc_trim(0);
            libc::mallopt(libc::M_TOP_PAD, 0);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 0);
        }
        drop(large);
        // SAFETY: as above.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, BEHIND);
            libc::mallopt(libc::M_TOP_PAD, PAD);
        }
    }

    #[cfg(test)]
    mod tests {
        /// Bytes of heap and stacks that are resident.
        fn resident() -> u64 {
            let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("our own");
            let line = rollup
                .lines()
                .find_map(|line| line.strip_prefix("Anonymous:"));
            let value =
                line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            value.expect("a number of kB") * 1024
        }

        #[test]
        fn pages_between_and_behind_what_is_in_use_are_given_back() {
            const BLOCKS: usize = 64 * 1024;
            const BYTES: u64 = 512 * BLOCKS as u64;
            let fill =
                || -> Vec<Box<[u8; 512]>> { (0..BLOCKS).map(|_| Box::new([1; 512])).collect() };
            // Tests have a thread each, so that this is not the first.
            let (below, above) = (fill(), fill());
            let (between, behind) = (Box::new([1_u8; 512]), fill());
            let full = resident();
            drop((below, above, behind));
            crate::memory::give_all_back();
            let left = resident();
            assert!(left + BYTES * 5 / 2 < full, "{left} of {full}");
            drop(std::hint::black_box(between));
        }
    }
}
