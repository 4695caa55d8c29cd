//! SIGTERM and SIGINT: the first asks the process to end, the second ends it.

use tokio::sync::watch;

/// Waits for SIGTERM or SIGINT (Ctrl-C elsewhere than on Unix).
///
/// From then on a second signal ends the process at once, with 128 + its number as the exit code, even
/// if every task of the caller hangs: signals are watched by a thread of their own.
pub async fn signal() {
    let mut received = watcher();
    // The sender lives in the watching thread for ever; if that thread could not start, nobody can
    // ask for an orderly end and the system's own handling of signals stays in force.
    if received.wait_for(|received| *received).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn watcher() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let thread = std::thread::Builder::new().name("signals".to_owned());
    if let Err(error) = thread.spawn(move || watch_signals(&sender)) {
        tracing::error!(%error, "signals are not watched");
    }
    receiver
}

fn watch_signals(received: &watch::Sender<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut signals = Signals::new()?;
            let name = signals.next().await.name;
            tracing::info!(signal = name, "asked to end; a second signal ends at once");
            received.send_replace(true);
            let second = signals.next().await;
            tracing::warn!(signal = second.name, "ended at once");
            std::process::exit(second.exit_code);
        })
    });
    let outcome: Result<(), std::io::Error> = outcome;
    if let Err(error) = outcome {
        tracing::error!(%error, "signals are not watched");
    }
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
    fn new() -> std::io::Result<Self> {
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
    fn new() -> std::io::Result<Self> {
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
