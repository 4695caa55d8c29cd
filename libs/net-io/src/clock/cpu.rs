//! The CPU-time clocks of processes (`clock_getcpuclockid`).

#![expect(
    unsafe_code,
    reason = "system calls the standard library does not have"
)]

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

pub(super) fn time_of(pid: u32) -> io::Result<Duration> {
    // 0 would be the caller, and what is no process id at all is no process.
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the call writes one clock id, into memory that is there. It returns the error and does not leave it.
    match unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes one `timespec`, into memory of that size.
    if unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so that it has written the whole of it.
    let time = unsafe { time.assume_init() };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
    Ok(Duration::new(seconds, nanos))
}
