//! The `rallypoint-turn` daemon: configuration, logs, metrics, the relay, and the wait for its end.

use std::pin::pin;
use std::process::ExitCode;

use anyhow::Context as _;
use ops::Health;
use ops::admin::Admin;
use ops::admin::api::ApiToken;
use ops::daemon::{self, Program, Start};
use ops::logging::{self, OPERATOR};
use ops::metrics::{self, BuildInfo, Registry};
use ops::reload::{ConfigFile, ReloadRequests};
use turn_relay::admin::Operator;
use turn_relay::{Config, EXAMPLE, Server};

const PROGRAM: Program = Program {
    name: "rallypoint-turn",
    about: "Relays packets for players who cannot connect directly",
    version: env!("CARGO_PKG_VERSION"),
    default_config: EXAMPLE,
};

fn main() -> ExitCode {
    let file = ConfigFile::of(std::env::args_os());
    let config = match daemon::start::<Config>(PROGRAM) {
        Start::Run(config) => config,
        Start::Exit(code) => return code,
    };
    match run(config, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, file: Option<ConfigFile>) -> anyhow::Result<()> {
    logging::init(&config.log)?;
    daemon::abort_on_panic();
    let registry = Registry::new();
    let revision = option_env!("RALLYPOINT_REVISION").unwrap_or("unknown");
    metrics::register_process(
        &registry,
        BuildInfo {
            version: PROGRAM.version,
            revision,
        },
    )?;
    let health = Health::new(&registry)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signal = pin!(ops::shutdown::signal());
        let path = file.as_ref().map(|file| file.path().to_owned());
        let token = ApiToken::new(config.admin_token.clone());
        let (mut operator, api) = Operator::new(health.clone(), token, path);
        let mut reloads = ReloadRequests::new(file)?;
        let admin = match config.admin {
            Some(addr) => {
                let bound = Admin::bind_with_api(addr, registry.clone(), health.clone(), api).await;
                Some(bound.context("admin.listen")?)
            }
            None => None,
        };
        let mut server = Server::bind(config, &registry)?;
        operator.serves(&server);
        for (scheme, addr) in server.local_addrs() {
            tracing::info!(name: OPERATOR, "listening on {}://{addr}", scheme.as_str());
        }
        health.set_ready(true);
        loop {
            tokio::select! {
                () = &mut signal => break,
                // The supervisor starts it again (systemd: Restart=on-failure).
                failure = server.failure() => return Err(failure.into()),
                file = reloads.next() => {
                    // What came of it is in the log and the metrics.
                    if server.reload_file(file).is_ok() {
                        operator.reloaded(&server);
                    }
                }
                task = operator.next() => operator.carry_out(task, &mut server),
            }
        }
        health.set_stopping();
        drop(operator);
        drain(server).await?;
        if let Some(admin) = admin {
            admin.shutdown().await;
        }
        tracing::info!("ended");
        Ok(())
    })
}

/// Meanwhile metrics and probes are answered.
async fn drain(server: Server) -> anyhow::Result<()> {
    let deadline = server.config().drain.deadline;
    tracing::info!(
        deadline_seconds = deadline.as_secs(),
        "draining: no new allocations"
    );
    let is_empty = tokio::task::spawn_blocking(move || server.drain(deadline)).await?;
    if !is_empty {
        tracing::warn!("the deadline has passed: the allocations that were left are ended");
    }
    Ok(())
}
