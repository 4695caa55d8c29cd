//! The face games see: build an endpoint, join a room, poll events once a frame, send.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use client_sdk_proto::{
    ChannelId, Identity, Mode, Node, NodeConfig, PathDiary, PlayerId, SendError, Stats,
};
use signal_wire::{Hello, LobbyJoin};
use tokio::sync::mpsc;

use crate::core::Shared;
use crate::driver::{Command, Driver};
use crate::error::ConfigError;
use crate::event::Event;
use crate::network::{Network, SystemNetwork};
use crate::signaling::Target;
use crate::tls::Connector;
use crate::url::SignalUrl;

/// Commands that wait for the driver.
const COMMANDS: usize = 16;

/// Which addresses other players learn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Privacy {
    /// All that help to connect directly.
    #[default]
    Default,
    /// None of ours: everything goes over a relay, and the others see its address only.
    RelayOnly,
}

/// Which room to join.
#[derive(Debug, Clone)]
pub struct Join(LobbyJoin);

impl Join {
    /// The room of a passphrase, which must be there already; see [`Self::create`].
    #[must_use]
    pub fn passphrase(passphrase: &str) -> Self {
        Self(LobbyJoin {
            passphrase: passphrase.to_owned(),
            create: false,
            max: 2,
        })
    }

    /// Opens the room for `max` players (2 to 256) when it is not there yet.
    #[must_use]
    pub fn create(mut self, max: u16) -> Self {
        self.0.create = true;
        self.0.max = max;
        self
    }
}

/// Settings of an [`Endpoint`], all with defaults.
pub struct EndpointBuilder {
    url: String,
    game: String,
    build: String,
    name: String,
    identity: Option<Identity>,
    privacy: Privacy,
    network: Arc<dyn Network>,
    certificates: Vec<Vec<u8>>,
}

impl EndpointBuilder {
    /// The game's name; players meet only within one. Lower-case letters, digits, `.`, `-`, `_`. Default: `game`.
    #[must_use]
    pub fn game(mut self, game: &str) -> Self {
        game.clone_into(&mut self.game);
        self
    }

    /// The game's build, for the server's statistics and minimum version.
    #[must_use]
    pub fn build(mut self, build: &str) -> Self {
        build.clone_into(&mut self.build);
        self
    }

    /// The player's name as the others see it, unique in the room. Default: the server makes one.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The player's key. Default: a new one, known to nobody.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Which addresses other players learn.
    #[must_use]
    pub fn privacy(mut self, privacy: Privacy) -> Self {
        self.privacy = privacy;
        self
    }

    /// Where sockets come from. Default: the operating system.
    #[must_use]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// Trusts a certificate (DER) beside the public roots, for `wss://` and `turns:` servers of one's own.
    #[must_use]
    pub fn trust_certificate(mut self, der: &[u8]) -> Self {
        self.certificates.push(der.to_vec());
        self
    }

    /// Starts the endpoint's thread. Nothing is sent until [`Endpoint::join`].
    ///
    /// # Errors
    /// [`ConfigError`] names the setting at fault.
    pub fn start(self) -> Result<Endpoint, ConfigError> {
        let system = |reason: String| ConfigError::System { reason };
        let identity = match self.identity {
            Some(identity) => identity,
            None => new_identity().map_err(|error| system(error.to_string()))?,
        };
        let target = Target {
            url: SignalUrl::parse(&self.url)?,
            network: self.network,
            tls: Connector::new(&self.certificates)?,
            hello: Hello {
                game: self.game,
                build: self.build,
                sdk: concat!("rallypoint-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
                name: self.name,
                resume: None,
            },
            join: Join::passphrase("").0,
        };
        let node = NodeConfig {
            identity,
            relay_only: self.privacy == Privacy::RelayOnly,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| system(error.to_string()))?;
        let shared = Arc::new(Shared::default());
        let channels = Arc::new(Mutex::new(Vec::new()));
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let driver = Driver::new(Arc::clone(&shared), target, node, Arc::clone(&channels));
        let thread = std::thread::Builder::new()
            .name("rallypoint".to_owned())
            .spawn(move || runtime.block_on(driver.run(receiver)))
            .map_err(|error| system(error.to_string()))?;
        Ok(Endpoint {
            shared,
            channels,
            commands,
            thread: Some(thread),
        })
    }
}

fn new_identity() -> Result<Identity, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(Identity::from_seed(seed))
}

/// One player's end of everything: signaling, the room, the sessions with the other players.
///
/// All methods may be called from any thread; none of them blocks but [`Self::wait`] and [`Self::shutdown`].
pub struct Endpoint {
    shared: Arc<Shared>,
    channels: Arc<Mutex<Vec<(ChannelId, Mode)>>>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// An endpoint on the signaling server at `url`: `wss://host/v1/ws`, or `ws://...` where encryption is done elsewhere.
    #[must_use]
    pub fn builder(url: impl Into<String>) -> EndpointBuilder {
        EndpointBuilder {
            url: url.into(),
            game: "game".to_owned(),
            build: String::new(),
            name: String::new(),
            identity: None,
            privacy: Privacy::Default,
            network: Arc::new(SystemNetwork),
            certificates: Vec::new(),
        }
    }

    /// Joins a room: [`Event::RoomJoined`] or [`Event::Failed`] follows. One room an endpoint.
    pub fn join(&self, join: Join) {
        // A full queue means sixteen joins have not been looked at yet; the first decides anyway.
        self.commands.try_send(Command::Join(join.0)).ok();
    }

    /// What happened since the last call. Never blocks; call it once a frame.
    #[must_use]
    pub fn poll(&self) -> Vec<Event> {
        self.shared.take_events(Duration::ZERO)
    }

    /// Like [`Self::poll`], but waits up to `patience` for the first event. For servers, bots and tests.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> Vec<Event> {
        self.shared.take_events(patience)
    }

    /// Declares a channel. Both players declare it with the same mode before using it.
    #[must_use]
    pub fn channel(&self, id: ChannelId, mode: Mode) -> Channel {
        self.channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((id, mode));
        self.shared.with(|core| {
            if let Some(node) = &mut core.node {
                node.declare_channel(id, mode);
            }
        });
        Channel {
            shared: Arc::clone(&self.shared),
            id,
        }
    }

    /// Figures of the session with a player, once it is open.
    #[must_use]
    pub fn stats(&self, player: PlayerId) -> Option<Stats> {
        self.shared
            .with(|core| core.node.as_ref().and_then(|node| node.stats(player)))
    }

    /// What was tried on the way to a player so far.
    #[must_use]
    pub fn diary(&self, player: PlayerId) -> Option<PathDiary> {
        self.shared.with(|core| {
            core.node
                .as_ref()
                .and_then(|node| node.diary(player).cloned())
        })
    }

    /// Leaves the room, says goodbye to everybody and waits until that is done, half a second at most. Dropping the endpoint
    /// does the same.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // The driver is gone already when this fails.
        self.commands.try_send(Command::Shutdown).ok();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the endpoint's thread panicked");
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

/// A channel to all players of the room.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    id: ChannelId,
}

impl Channel {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Sends a message to one player: sealed and handed to the socket before this returns.
    ///
    /// # Errors
    /// [`SendError`]: nothing was sent.
    pub fn send(&self, player: PlayerId, message: &[u8]) -> Result<(), SendError> {
        self.shared.with(|core| {
            let now = core.now();
            if core.closed {
                return Err(SendError::Closed);
            }
            match &mut core.node {
                Some(node) => Node::send(node, now, player, self.id, message),
                None => Err(SendError::NotConnected),
            }
        })
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({})", self.id)
    }
}
