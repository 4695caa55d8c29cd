//! The `rallypoint-signal` daemon.

use ops::admin::Admin;
use ops::daemon::{self, Program, Start};
use ops::metrics::{BuildInfo, Registry, register_process};
use ops::{Health, logging, shutdown};
use signaling::{Config, DEFAULT_CONFIG, Server};
use std::process::ExitCode;

const PROGRAM: Program = Program {
    name: "rallypoint-signal",
    about: "The signaling and matchmaking server of Rallypoint",
    version: env!("CARGO_PKG_VERSION"),
    default_config: DEFAULT_CONFIG,
};

fn main() -> ExitCode {
    let config = match daemon::start::<Config>(PROGRAM) {
        Start::Run(config) => config,
        Start::Exit(code) => return code,
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(config: Config) -> anyhow::Result<()> {
    logging::init(&config.log)?;
    daemon::abort_on_panic();
    let registry = Registry::new();
    register_process(
        &registry,
        BuildInfo {
            version: PROGRAM.version,
            revision: "unknown",
        },
    )?;
    let health = Health::new(&registry)?;
    let admin = match config.admin {
        Some(address) => Some(Admin::bind(address, registry.clone(), health.clone()).await?),
        None => None,
    };
    let server = Server::bind(config, &registry).await?;
    for (scheme, address) in server.local_addrs() {
        tracing::info!(name: logging::OPERATOR, "listening on {}://{address}", scheme.as_str());
    }
    health.set_ready(true);
    shutdown::signal().await;
    health.set_stopping();
    server.shutdown().await;
    if let Some(admin) = admin {
        admin.shutdown().await;
    }
    tracing::info!("ended");
    Ok(())
}
