//! A new configuration for a relay that runs: checked whole, then in force everywhere, or refused
//! whole while the old one stays.
//!
//! Each shard gets its machine's part as a message and takes it over between two batches: no packet
//! waits for a lock, and none is lost. What sockets and threads were made from stays as it was
//! started; the keys are named in the log.

use std::path::Path;

use ops::logging::LogConfig;
use ops::reload::{self, Reloaded};

use super::{BindError, Server, check};
use crate::config::{Config, Shared, host_addresses, relay_config};
use crate::shard::{Command, NewConfig};

/// Why a configuration was refused; the one before stays in force.
pub type ReloadError = reload::ReloadError<BindError>;

impl Server {
    /// Takes over the configuration file at `path`, whole or not at all, and logs what came of it. The certificate is read
    /// again too.
    ///
    /// # Errors
    /// Every fault of the file. The configuration in force stays.
    pub fn reload_file(&mut self, path: &Path) -> Result<Reloaded, ReloadError> {
        let loaded = ops::config::load::<Config>(path).map_err(ReloadError::File);
        let outcome = loaded.and_then(|config| self.take_over(config).map_err(ReloadError::Config));
        self.tell(outcome)
    }

    /// Takes over a configuration that is in no file, whole or not at all, and logs what came of it.
    ///
    /// # Errors
    /// The first thing that is missing or wrong. The configuration in force stays.
    pub fn reload(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        let outcome = self.take_over(config).map_err(ReloadError::Config);
        self.tell(outcome)
    }

    fn tell(&self, outcome: Result<Reloaded, ReloadError>) -> Result<Reloaded, ReloadError> {
        reload::log(&outcome);
        if outcome.is_err() {
            self.setup.gauges.refused();
        }
        outcome
    }

    /// Everything that can fail comes first.
    fn take_over(&mut self, new: Config) -> Result<Reloaded, BindError> {
        let reloaded = compare(&new, &self.setup.config);
        let config = keep_started(new, &self.setup.config);
        check(&config)?;
        let setup = &mut self.setup;
        if let (Some(serving), Some(files)) = (&mut setup.serving, &config.tls) {
            serving.take_over(files)?;
        }

        setup.shared = Shared {
            secrets: Shared::secrets(&config),
            host: host_addresses(),
            ..setup.shared.clone()
        };
        setup.connections.set_limits(config.streams.clone());
        for shard in &self.shards {
            let ports = shard.ports.clone();
            let new = NewConfig {
                relay: relay_config(&config, &setup.shared, ports),
                streams: config.streams.clone(),
                connected_sockets: config.connected_sockets,
            };
            shard.handle.tell(Command::Reload(Box::new(new)));
        }
        setup.gauges.taken_over(&config);
        setup.config = config;
        Ok(reloaded)
    }
}

/// The new configuration with what sockets, threads and the process were made from.
fn keep_started(new: Config, started: &Config) -> Config {
    let tls = match (new.tls, &started.tls) {
        (Some(files), Some(_)) => Some(files),
        // TLS listeners were opened with a certificate, or there are none.
        (_, tls) => tls.clone(),
    };
    Config {
        listen: started.listen.clone(),
        proxy: started.proxy.clone(),
        relay_addresses: started.relay_addresses.clone(),
        relay_ports: started.relay_ports,
        external_addresses: started.external_addresses.clone(),
        threads: started.threads,
        io_uring: started.io_uring,
        admin: started.admin,
        log: LogConfig {
            format: started.log.format,
            level: new.log.level,
        },
        tls,
        ..new
    }
}

/// Which keys differ, and which of them need a restart.
fn compare(new: &Config, running: &Config) -> Reloaded {
    let has_tls_changed = new.tls.is_some() != running.tls.is_some();
    let fixed = [
        ("listen", new.listen != running.listen),
        ("proxy", new.proxy != running.proxy),
        (
            "relay-addresses",
            new.relay_addresses != running.relay_addresses,
        ),
        ("relay-ports", new.relay_ports != running.relay_ports),
        (
            "external-addresses",
            new.external_addresses != running.external_addresses,
        ),
        ("threads", new.threads != running.threads),
        ("io-uring", new.io_uring != running.io_uring),
        ("tls", has_tls_changed),
        ("admin.listen", new.admin != running.admin),
        ("log.format", new.log.format != running.log.format),
    ];
    let live = [
        ("realm", new.realm != running.realm),
        ("spare-sockets", new.spare_sockets != running.spare_sockets),
        (
            "connected-sockets",
            new.connected_sockets != running.connected_sockets,
        ),
        ("tls", !has_tls_changed && new.tls != running.tls),
        ("credentials", new.secrets != running.secrets),
        ("test-user", new.test_users != running.test_users),
        ("peers", new.peers != running.peers),
        ("quota", new.quota != running.quota),
        ("lifetime", new.lifetime != running.lifetime),
        ("limits", new.limits != running.limits),
        ("streams", new.streams != running.streams),
        ("protocol", new.protocol != running.protocol),
        ("drain", new.drain != running.drain),
        ("admin.token", new.admin_token != running.admin_token),
        ("log.level", new.log.level != running.log.level),
    ];
    Reloaded::of(&live, &fixed)
}
