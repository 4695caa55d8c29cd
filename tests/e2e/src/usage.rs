//! What the system says that a process uses: `/proc/PID`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Pid;

/// Processor time so far, of the program and of the kernel for it.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: Pid) -> Result<Duration> {
    let number = pid.as_raw_nonzero().get().cast_unsigned();
    net_io::clock::cpu_time_of(number).with_context(|| format!("CPU time of process {number}"))
}

/// Bytes of memory that are really there.
///
/// # Errors
/// When there is no such process.
pub fn resident_bytes(pid: Pid) -> Result<u64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("VmRSS in /proc/PID/status")? * 1024)
}

/// The number of the thread of that name.
///
/// # Errors
/// When there is none.
pub fn thread_named(pid: Pid, name: &str) -> Result<u32> {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let path = task?.path();
        let comm = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        if let Some(number) = number.filter(|_| comm.trim_end() == name) {
            return Ok(number);
        }
    }
    anyhow::bail!("no thread {name} in {tasks}")
}

/// How many descriptors are open.
///
/// # Errors
/// When there is no such process.
pub fn descriptors(pid: Pid) -> Result<usize> {
    let path = format!("/proc/{}/fd", pid.as_raw_nonzero());
    Ok(std::fs::read_dir(&path)
        .with_context(|| path.clone())?
        .count())
}

fn read(pid: Pid, file: &str) -> Result<String> {
    let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
    std::fs::read_to_string(&path).with_context(|| path.clone())
}
