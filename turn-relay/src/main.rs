//! The `rallypoint-turn` daemon: configuration, logs, metrics, the relay, and the wait for its end.

use std::process::ExitCode;

use anyhow::Context as _;
use ops::Health;
use ops::admin::Admin;
use ops::daemon::{self, Program, Start};
use ops::metrics::{self, BuildInfo, Registry};
use turn_relay::{Config, EXAMPLE, Server};

const PROGRAM: Program = Program {
    name: "rallypoint-turn",
    about: "Relays packets for players who cannot connect directly",
    version: env!("CARGO_PKG_VERSION"),
    default_config: EXAMPLE,
};

fn main() -> ExitCode {
    let config = match daemon::start::<Config>(PROGRAM) {
        Start::Run(config) => config,
        Start::Exit(code) => return code,
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    ops::logging::init(&config.log)?;
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
        let signal = ops::shutdown::signal();
        let admin = match config.admin {
            Some(addr) => {
                let bound = Admin::bind(addr, registry.clone(), health.clone()).await;
                Some(bound.context("admin.listen")?)
            }
            None => None,
        };
        let server = Server::bind(config, &registry)?;
        for (scheme, addr) in server.local_addrs() {
            tracing::info!("listening on {}://{addr}", scheme.as_str());
        }
        health.set_ready(true);
        signal.await;
        health.set_draining(true);
        server.shutdown();
        if let Some(admin) = admin {
            admin.shutdown().await;
        }
        tracing::info!("ended");
        Ok(())
    })
}
