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
        Ok("flood") => return flood(),
        Ok("full") => return log_to_a_full_disk(),
        Ok(format) => return log(format),
        Err(_) => {}
    }
    if !cfg!(unix) {
        println!("skipped: signals are sent with kill");
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, fn()); 7] = [
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
        (
            "ten_lines_a_second_of_a_kind_and_a_count_of_the_rest",
            ten_lines_a_second_of_a_kind_and_a_count_of_the_rest,
        ),
        (
            "a_full_disk_stops_nothing_and_is_counted",
            a_full_disk_stops_nothing_and_is_counted,
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
    assert!(
        stderr.contains("thread turn-7") && stderr.contains("a fault of the test"),
        "{stderr}"
    );
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

fn ten_lines_a_second_of_a_kind_and_a_count_of_the_rest() {
    let (status, stderr) = finish(start("flood"));
    assert!(status.success(), "{stderr}");
    let count = |text: &str| stderr.lines().filter(|line| line.contains(text)).count();
    assert_eq!(
        count("INFO rallypoint::log: more lines of one kind of=\"process:"),
        1,
        "{stderr}"
    );
    assert_eq!(count("suppressed=90"), 1, "{stderr}");
    // Each kind has its own bound, and what the operator caused has none.
    let kinds = ["one kind, line", "another kind", "a fault of the file"].map(count);
    assert_eq!(kinds, [10, 1, 100], "{stderr}");
}

fn a_full_disk_stops_nothing_and_is_counted() {
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full");
        return;
    }
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.env(ROLE, "full").stderr(full).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "3 writes failed, 3 messages\n"
    );
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
    let thread = std::thread::Builder::new().name("turn-7".to_owned());
    let _ = thread
        .spawn(|| panic!("a fault of the test"))
        .unwrap()
        .join();
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

/// Ends when the summary has been written.
fn flood() -> ExitCode {
    // The levels of the configuration are not about summaries.
    let text = "level = 'off,process=info'";
    ops::logging::init(&ops::config::parse(text).unwrap()).unwrap();
    for line in 0..100 {
        tracing::info!("one kind, line {line}");
        tracing::warn!(name: ops::logging::OPERATOR, "a fault of the file");
    }
    tracing::warn!("another kind");
    let logged = || -> u64 { ops::logging::message_counts().map(|(_, count)| count).sum() };
    while logged() < 112 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let held_back: Vec<_> = ops::logging::suppressed_counts().collect();
    assert_eq!(held_back[2], ("info", 90));
    ExitCode::SUCCESS
}

fn log_to_a_full_disk() -> ExitCode {
    ops::logging::init(&ops::config::parse("").unwrap()).unwrap();
    for level in 0..3 {
        tracing::error!(level, "nobody reads this");
    }
    let messages: u64 = ops::logging::message_counts().map(|(_, count)| count).sum();
    println!(
        "{} writes failed, {messages} messages",
        ops::logging::failed_writes()
    );
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
