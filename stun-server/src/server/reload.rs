//! A new configuration for a server that runs: checked whole, then in force everywhere, or refused whole while the old one
//! stays.
//!
//! Each thread takes its part over between two batches: no datagram waits for a lock, and none is lost. What sockets and
//! threads were made from stays as it was started. New rates begin with full buckets for everybody.

use std::path::Path;
use std::sync::Arc;

use net_io::clock;
use ops::config::ProxyListeners;
use ops::logging::LogConfig;
use ops::reload::{self, Reloaded};

use super::{BindError, Server, form, source_limits};
use crate::config::Config;
use crate::{shard, stream};

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
    /// What is wrong with it. The configuration in force stays.
    pub fn reload(&mut self, config: Config) -> Result<Reloaded, ReloadError> {
        let outcome = self.take_over(config).map_err(ReloadError::Config);
        self.tell(outcome)
    }

    fn tell(&self, outcome: Result<Reloaded, ReloadError>) -> Result<Reloaded, ReloadError> {
        reload::log(&outcome);
        match outcome {
            Ok(_) => self.gauges.taken_over(clock::unix()),
            Err(_) => self.gauges.refused(),
        }
        outcome
    }

    /// Everything that can fail comes first.
    fn take_over(&mut self, new: Config) -> Result<Reloaded, BindError> {
        let reloaded = compare(&new, &self.config);
        let config = keep_started(new, &self.config);
        if let Some(reason) = config.proxy.fault(&config.listen) {
            let key = "proxy";
            return Err(BindError::Config { key, reason });
        }
        let limits = if config.limits == self.config.limits {
            Arc::clone(&self.limits)
        } else {
            Arc::new(source_limits(&config.limits)?)
        };
        if let (Some(serving), Some(files)) = (&mut self.serving, &config.tls) {
            serving.take_over(files)?;
        }

        self.limits = limits;
        self.config = config;
        for index in 0..self.shards.len() {
            let change = shard::Change {
                responder: self.datagram_responder(),
                form: form(self.config.protocol.rfc3489),
            };
            if let Some(shard) = self.shards.get(index) {
                shard.tell(change);
            }
        }
        if let Some(streams) = &self.streams {
            streams.tell(stream::Change {
                responder: self.responder(),
                limits: self.config.limits.clone(),
                proxies: self.config.proxy.trusted.clone(),
            });
        }
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
        proxy: ProxyListeners {
            listeners: started.proxy.listeners.clone(),
            trusted: new.proxy.trusted,
        },
        alternate: started.alternate,
        threads: started.threads,
        receive_buffer: started.receive_buffer,
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
        (
            "proxy.listeners",
            new.proxy.listeners != running.proxy.listeners,
        ),
        ("alternate", new.alternate != running.alternate),
        ("threads", new.threads != running.threads),
        (
            "receive-buffer",
            new.receive_buffer != running.receive_buffer,
        ),
        ("tls", has_tls_changed),
        ("admin.listen", new.admin != running.admin),
        ("log.format", new.log.format != running.log.format),
    ];
    let live = [
        ("tls", !has_tls_changed && new.tls != running.tls),
        ("proxy.trusted", new.proxy.trusted != running.proxy.trusted),
        ("limits", new.limits != running.limits),
        ("protocol", new.protocol != running.protocol),
        ("log.level", new.log.level != running.log.level),
    ];
    Reloaded::of(&live, &fixed)
}
