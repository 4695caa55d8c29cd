//! SIGTERM and SIGINT: the first asks the process to end, the second ends it.

use std::io;

use tokio::sync::watch;

/// Waits for SIGTERM or SIGINT (Ctrl-C elsewhere than on Unix), heard from the first poll on.
///
/// A second signal ends the process at once, with 128 + its number as the exit code, even if every task
/// of the caller hangs: signals are watched by a thread of their own.
pub async fn signal() {
    let asked = match watch_signals() {
        Ok(mut asked) => asked.wait_for(|asked| *asked).await.is_ok(),
        Err(error) => {
            tracing::error!(%error, "signals are not watched");
            false
        }
    };
    // Without a watcher nobody can ask for an orderly end; the system's own handling stays in force.
    if !asked {
        std::future::pending::<()>().await;
    }
}

/// Starts the watching thread and returns once it hears signals.
fn watch_signals() -> io::Result<watch::Receiver<bool>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new()?
    };
    let (asked, receiver) = watch::channel(false);
    let watch = async move {
        let first = signals.next().await;
        tracing::info!(
            signal = first.name,
            "asked to end; a second signal ends at once"
        );
        asked.send_replace(true);
        let second = signals.next().await;
        tracing::warn!(signal = second.name, "ended at once");
        std::process::exit(second.exit_code);
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || runtime.block_on(watch))?;
    Ok(receiver)
}

struct Received {
    name: &'static str,
    exit_code: i32,
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self {
            terminate: signal(terminate)?,
            interrupt: signal(interrupt)?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received { name: "SIGTERM", exit_code: 128 + 15 },
            _ = self.interrupt.recv() => Received { name: "SIGINT", exit_code: 128 + 2 },
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Received {
        let _ = tokio::signal::ctrl_c().await;
        Received {
            name: "Ctrl-C",
            exit_code: 128 + 2,
        }
    }
}
