//! The STUN and TURN servers a member is told of, with credentials minted for that member.

use crate::config::{Config, Relay};
use crate::counters::Counters;
use signal_wire::IceServer;
use signaling_lobby::IceSubject;
use std::sync::Arc;
use std::time::Duration;

/// The servers of the configuration.
#[derive(Debug)]
pub(crate) struct IceServers {
    stun: Vec<IceServer>,
    relays: Vec<Relay>,
    life: Duration,
    counters: Arc<Counters>,
}

impl IceServers {
    pub(crate) fn new(config: &Config, counters: Arc<Counters>) -> Self {
        let stun = config.stun.iter().map(|stun| IceServer {
            urls: stun.urls.clone(),
            username: None,
            credential: None,
        });
        Self {
            stun: stun.collect(),
            relays: config.relays.clone(),
            life: config.credential_life,
            counters,
        }
    }

    /// All servers, good until `unix` plus [`IceServers::life_secs`] for this subject. The subject
    /// is `session.member`, so that relays count quotas by player.
    pub(crate) fn mint(&self, subject: IceSubject, unix: u64) -> Vec<IceServer> {
        let subject = format!("{}.{}", subject.session, subject.member);
        let expiry = unix.saturating_add(self.life_secs());
        let turn = self.relays.iter().enumerate().map(|(index, relay)| {
            self.counters.credential_issued(index);
            let credential = credentials::mint(&relay.secret, &subject, expiry);
            IceServer {
                urls: relay.urls.clone(),
                username: Some(credential.username),
                credential: Some(credential.password),
            }
        });
        self.stun.iter().cloned().chain(turn).collect()
    }

    pub(crate) const fn life_secs(&self) -> u64 {
        self.life.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use credentials::{Secret, Secrets};
    use ops::metrics::Registry;
    use signal_wire::{MemberId, SessionId};

    #[test]
    fn credentials_are_good_for_the_member_until_their_end() {
        let secret = Secret {
            id: Some("k1".into()),
            key: b"9f86d081884c7d659a2feaa0c55ad015".to_vec(),
        };
        let relay = Relay {
            region: "eu".into(),
            urls: vec!["turn:203.0.113.10:3478".into()],
            secret: secret.clone(),
        };
        let config = Config {
            relays: vec![relay],
            credential_life: Duration::from_secs(3600),
            ..Config::default()
        };
        let counters = Arc::new(Counters::new(&Registry::new(), &config).unwrap());
        let ice = IceServers::new(&config, counters);
        let subject = IceSubject {
            session: SessionId(10),
            member: MemberId(2),
        };
        let servers = ice.mint(subject, 1_000_000);
        let [turn] = servers.as_slice() else {
            panic!("{servers:?}")
        };
        let username = turn.username.as_deref().unwrap();
        assert_eq!(username, "1003600:k1:0000000000000000000000000A.2");
        let secrets = Secrets::new(vec![secret]);
        let candidates = secrets.password_for(username, 1_003_599).unwrap();
        let password = turn.credential.as_deref().unwrap();
        assert!(candidates.passwords().any(|good| good.as_str() == password));
        assert!(secrets.password_for(username, 1_003_601).is_err());
    }
}
