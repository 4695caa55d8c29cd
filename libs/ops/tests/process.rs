//! What only a whole process shows: signals, aborts, and what logs look like on its stderr.
//!
//! The test program starts itself again as the process under test (`harness = false`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test in whole, though without the test harness"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

const ROLE: &str = "RALLYPOINT_OPS_TEST_ROLE";

fn main() -> ExitCode {
    match std::env::var(ROLE).as_deref() {
        Ok("hang") => return hang(),
        Ok("panic") => return panic_in_a_thread(),
        Ok(format) => return log(format),
        Err(_) => {}
    }
    if !cfg!(unix) {
        println!("skipped: signals are sent with kill");
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 5] = [
        (
            "the_first_signal_asks_and_the_second_ends",
            the_first_signal_asks_and_the_second_ends,
        ),
        ("interrupt_is_heard_too", interrupt_is_heard_too),
        (
            "a_panic_in_any_thread_ends_the_process",
            a_panic_in_any_thread_ends_the_process,
        ),
        (
            "text_logs_have_no_colours_in_a_pipe",
            text_logs_have_no_colours_in_a_pipe,
        ),
        (
            "json_logs_are_one_object_a_line",
            json_logs_are_one_object_a_line,
        ),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

fn the_first_signal_asks_and_the_second_ends() {
    let mut process = start("hang");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "started");
    send(&process, "TERM");
    assert_eq!(lines.next().unwrap().unwrap(), "asked to end");
    send(&process, "TERM");
    assert_eq!(process.wait().unwrap().code(), Some(143));
}

fn interrupt_is_heard_too() {
    let mut process = start("hang");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "started");
    send(&process, "INT");
    assert_eq!(lines.next().unwrap().unwrap(), "asked to end");
    send(&process, "INT");
    assert_eq!(process.wait().unwrap().code(), Some(130));
}

fn a_panic_in_any_thread_ends_the_process() {
    let (status, stderr) = finish(start("panic"));
    assert_eq!(signal_of(status), Some(6), "{stderr}");
    assert!(stderr.contains("a fault of the test"), "{stderr}");
}

fn text_logs_have_no_colours_in_a_pipe() {
    let (status, stderr) = finish(start("text"));
    assert!(status.success());
    assert!(
        stderr.contains("INFO") && stderr.contains("port=3478"),
        "{stderr}"
    );
    assert!(
        !stderr.contains('\u{1b}') && !stderr.contains("hidden"),
        "{stderr}"
    );
}

fn json_logs_are_one_object_a_line() {
    let (status, stderr) = finish(start("json"));
    assert!(status.success());
    let lines: Vec<serde_json::Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(lines[0]["message"], "listening");
    assert_eq!(lines[0]["port"], 3478);
    assert_eq!(lines[1]["level"], "WARN");
}

/// The process under test: says what it hears and never ends by itself.
fn hang() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut heard = std::pin::pin!(ops::shutdown::signal());
        tokio::select! {
            biased;
            () = &mut heard => println!("not asked yet"),
            () = async {} => println!("started"),
        }
        heard.await;
        println!("asked to end");
        loop {
            // Blocks the runtime, as a shutdown that hangs would.
            std::thread::sleep(Duration::from_secs(60));
        }
    })
}

fn panic_in_a_thread() -> ExitCode {
    ops::daemon::abort_on_panic();
    let _ = std::thread::spawn(|| panic!("a fault of the test")).join();
    ExitCode::SUCCESS
}

fn log(format: &str) -> ExitCode {
    let text = format!("format = '{format}'\nlevel = 'info,noisy=off'");
    ops::logging::init(&ops::config::parse(&text).unwrap()).unwrap();
    tracing::debug!("hidden: below the level");
    tracing::error!(target: "noisy", "hidden: of a part that is off");
    tracing::info!(port = 3478, "listening");
    tracing::warn!("plain HTTP");
    let counts: Vec<_> = ops::logging::message_counts().collect();
    let expected = [
        ("error", 0),
        ("warn", 1),
        ("info", 1),
        ("debug", 0),
        ("trace", 0),
    ];
    assert_eq!(counts, expected);
    ExitCode::SUCCESS
}

fn start(role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env(ROLE, role)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(mut process: Child) -> (ExitStatus, String) {
    let mut stderr = String::new();
    process
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    (process.wait().unwrap(), stderr)
}

fn send(process: &Child, signal: &str) {
    let kill = format!("kill -{signal} {}", process.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal_of(_: ExitStatus) -> Option<i32> {
    None
}
