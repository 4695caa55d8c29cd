//! The one thread behind an endpoint: sockets, streams, signaling and the machine's timer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use client_sdk_proto::{Node, NodeConfig, PlayerId, SocketId, StreamId, StreamRequest};
use signal_wire::{
    IceServer, LeaveReason, LobbyJoin, LobbyJoined, ServerBody, SignalFrom, Welcome,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant as TokioInstant, sleep, sleep_until, timeout};

use crate::core::Shared;
use crate::error::ConnectError;
use crate::event::{Event, SignalState};
use crate::ice_servers::{self, Server};
use crate::network::{DatagramSocket, Stream};
use crate::signaling::{self, FromServer, Target};

/// Datagrams taken under one lock.
const BATCH: usize = 32;
/// The largest datagram there is.
const DATAGRAM: usize = 65_536;
/// Bytes read from a stream at once.
const STREAM_READ: usize = 16 * 1024;
/// Writes that wait for a stream to a relay; beyond it datagrams are lost, as on a full link.
const STREAM_QUEUE: usize = 512;
/// How long a relay's stream may take to open.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait for signaling to take them.
const SIGNAL_QUEUE: usize = 1024;
/// How long the farewells may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the endpoint asks of its driver.
pub(crate) enum Command {
    Join(LobbyJoin),
    Shutdown,
}

/// The thread's state.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    /// Where to connect; the room to join is filled in by [`Command::Join`].
    pub(crate) target: Target,
    pub(crate) node: NodeConfig,
    pub(crate) channels: Arc<std::sync::Mutex<Vec<(u8, client_sdk_proto::Mode)>>>,
    signaling: Option<JoinHandle<()>>,
    from_server: Option<mpsc::Receiver<FromServer>>,
    requests: mpsc::Receiver<StreamRequest>,
    tasks: Vec<JoinHandle<()>>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        target: Target,
        node: NodeConfig,
        channels: Arc<std::sync::Mutex<Vec<(u8, client_sdk_proto::Mode)>>>,
    ) -> Self {
        let (sender, requests) = mpsc::channel(client_sdk_proto::MAX_RELAY_SERVERS * 2);
        shared.with(|core| core.requests = Some(sender));
        let (signaling, from_server, tasks) = (None, None, Vec::new());
        Self {
            shared,
            target,
            node,
            channels,
            signaling,
            from_server,
            requests,
            tasks,
        }
    }

    /// Runs until [`Command::Shutdown`], or until the endpoint is gone.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let wake = self.shared.schedule().map(TokioInstant::from_std);
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Join(join)) => self.join(join),
                    Some(Command::Shutdown) | None => break,
                },
                told = next(&mut self.from_server) => self.handle_server(told),
                request = self.requests.recv() => self.handle_request(request),
                () = self.shared.wake.notified() => {}
                () = timer => self.shared.with(crate::core::Core::handle_timeout),
            }
        }
        self.farewell().await;
    }

    /// One room an endpoint: a second join is told as refused.
    fn join(&mut self, join: LobbyJoin) {
        if self.signaling.is_some() {
            self.fail(ConnectError::Refused {
                code: "already_member".to_owned(),
                message: "this endpoint has joined a room already".to_owned(),
                retry_after: None,
            });
            return;
        }
        let (outgoing, outgoing_end) = mpsc::channel(SIGNAL_QUEUE);
        let (incoming_end, incoming) = mpsc::channel(SIGNAL_QUEUE);
        let target = Target {
            join,
            ..self.target.clone()
        };
        self.shared.with(|core| core.signals = Some(outgoing));
        self.signaling = Some(tokio::spawn(signaling::run(
            target,
            outgoing_end,
            incoming_end,
        )));
        self.from_server = Some(incoming);
    }

    fn handle_server(&mut self, told: Option<FromServer>) {
        match told {
            Some(FromServer::Welcome(welcome)) => self.welcome(&welcome),
            Some(FromServer::Message(body)) => self.handle_message(body),
            Some(FromServer::Lost { reason, retry_in }) => {
                let state = SignalState::Lost { reason, retry_in };
                self.shared.with(|core| core.push(Event::Signaling(state)));
            }
            Some(FromServer::Failed(error)) => {
                self.from_server = None;
                self.fail(error);
            }
            None => self.from_server = None,
        }
    }

    fn welcome(&self, welcome: &Welcome) {
        let server = i64::try_from(welcome.server_time.unix_millis() / 1000).unwrap_or(i64::MAX);
        let own = i64::try_from(net_io::clock::unix()).unwrap_or(i64::MAX);
        let encrypted = self.target.url.is_encrypted();
        self.shared.with(|core| {
            core.clock_offset = server.saturating_sub(own);
            core.push(Event::Signaling(SignalState::Connected { encrypted }));
        });
    }

    fn handle_message(&mut self, body: ServerBody) {
        match body {
            ServerBody::LobbyJoined(joined) => self.joined(joined),
            ServerBody::MemberJoined(event) => {
                let player = PlayerId(event.member.id.0);
                self.shared.with(|core| {
                    let now = core.now();
                    core.push(Event::PlayerJoined {
                        player,
                        name: event.member.name,
                    });
                    if let Some(node) = &mut core.node {
                        node.add_player(now, player);
                    }
                });
            }
            ServerBody::MemberLeft(event) => self.shared.with(|core| {
                let now = core.now();
                let player = PlayerId(event.member.0);
                if let Some(node) = &mut core.node {
                    // Who only lost the signaling server is still there if the session is.
                    if event.reason == LeaveReason::Left || node.stats(player).is_none() {
                        node.remove_player(now, player);
                    }
                }
            }),
            ServerBody::LobbyReady(_) => self.shared.with(|core| core.push(Event::RoomReady)),
            ServerBody::Signal(SignalFrom {
                from,
                kind,
                conn,
                data,
            }) => self.shared.with(|core| {
                let now = core.now();
                if let Some(node) = &mut core.node {
                    node.handle_signal(now, PlayerId(from.0), kind, &conn, &data);
                }
            }),
            ServerBody::Error(error) => {
                tracing::debug!(code = %error.code, error.message, "the signaling server refused");
            }
            ServerBody::Welcome(_)
            | ServerBody::LobbyLeft
            | ServerBody::IceServers(_)
            | ServerBody::Pong(_)
            | ServerBody::ServerDrain(_) => {}
        }
    }

    /// In the room: bind sockets, offer sessions to those who are there, gather.
    fn joined(&mut self, joined: LobbyJoined) {
        let you = PlayerId(joined.you.0);
        let others: Vec<_> = joined
            .lobby
            .members
            .iter()
            .filter(|member| member.id != joined.you)
            .map(|member| (PlayerId(member.id.0), member.name.clone()))
            .collect();
        if self.shared.with(|core| core.node.is_some()) {
            // The state of the room after a cut that lost events.
            self.shared.with(|core| {
                let now = core.now();
                for (player, _) in &others {
                    core.node
                        .iter_mut()
                        .for_each(|node| node.add_player(now, *player));
                }
            });
            return;
        }
        let sockets = match self.bind() {
            Ok(sockets) => sockets,
            Err(error) => return self.fail(error),
        };
        let mut seed = [0; 32];
        if let Err(error) = getrandom::fill(&mut seed) {
            return self.fail(ConnectError::Network {
                reason: error.to_string(),
            });
        }
        let config = self.node.clone();
        let channels = self
            .channels
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        self.shared.with(|core| {
            let now = core.now();
            let mut node = Node::new(now, config, joined.lobby.id, you, seed);
            for (channel, mode) in channels {
                node.declare_channel(channel, mode);
            }
            core.push(Event::RoomJoined {
                room: joined.lobby.id.to_string(),
                you,
                players: others.clone(),
            });
            for (id, socket) in (0_u32..).zip(&sockets) {
                node.add_socket(now, SocketId(id), socket.local_addr());
            }
            for (player, _) in &others {
                node.add_player(now, *player);
            }
            core.sockets.clone_from(&sockets);
            core.node = Some(node);
        });
        for (id, socket) in (0_u32..).zip(sockets) {
            let shared = Arc::clone(&self.shared);
            self.tasks
                .push(tokio::spawn(receive(shared, SocketId(id), socket)));
        }
        self.gather(joined.ice_servers);
    }

    /// One socket on each address datagrams can leave from.
    fn bind(&self) -> Result<Vec<Arc<dyn DatagramSocket>>, ConnectError> {
        let network = &self.target.network;
        let fault = |error: io::Error| ConnectError::Network {
            reason: error.to_string(),
        };
        let mut sockets: Vec<Arc<dyn DatagramSocket>> = Vec::new();
        let mut last = None;
        for address in network.addresses().map_err(fault)? {
            if address.is_loopback() && !self.target.url.is_loopback() {
                continue;
            }
            if sockets.len() >= client_sdk_proto::MAX_SOCKETS {
                break;
            }
            match network.bind_udp(address) {
                Ok(socket) => sockets.push(Arc::from(socket)),
                Err(error) => {
                    tracing::debug!(%address, %error, "cannot bind a socket");
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if sockets.is_empty() => Err(fault(error)),
            _ => Ok(sockets),
        }
    }

    fn gather(&mut self, servers: Vec<IceServer>) {
        let (shared, network) = (Arc::clone(&self.shared), Arc::clone(&self.target.network));
        self.tasks.push(tokio::spawn(async move {
            let resolved = ice_servers::resolve(&servers, network.as_ref()).await;
            shared.with(|core| {
                let now = core.now();
                let Some(node) = &mut core.node else { return };
                for server in resolved {
                    match server {
                        Server::Stun { url, address } => node.add_stun_server(now, address, url),
                        Server::Relay(server) => node.add_relay_server(server),
                    }
                }
                node.start_gathering(now);
            });
        }));
    }

    fn handle_request(&mut self, request: Option<StreamRequest>) {
        match request {
            Some(StreamRequest::Open { stream, to, tls }) => {
                let (shared, target) = (Arc::clone(&self.shared), self.target.clone());
                self.tasks
                    .push(tokio::spawn(carry(shared, target, stream, to, tls)));
            }
            Some(StreamRequest::Close { stream }) => {
                self.shared.with(|core| core.streams.remove(&stream));
            }
            None => {}
        }
    }

    fn fail(&self, error: ConnectError) {
        self.shared.with(|core| core.push(Event::Failed(error)));
    }

    /// Says goodbye to the players, the relays and the signaling server, and ends.
    async fn farewell(mut self) {
        self.shared.with(|core| {
            let now = core.now();
            if let Some(node) = &mut core.node {
                node.close(now);
            }
        });
        // The streams' writers and the signaling task end when their queues are empty.
        self.shared.with(|core| {
            core.signals = None;
            core.streams.clear();
        });
        self.from_server = None;
        if let Some(signaling) = self.signaling.take() {
            // The server notices a missing farewell by itself.
            timeout(FAREWELL, signaling).await.ok();
        }
        for task in &self.tasks {
            task.abort();
        }
        self.shared.with(|core| {
            core.node = None;
            core.sockets.clear();
            core.closed = true;
        });
        self.shared.close();
    }
}

async fn next(receiver: &mut Option<mpsc::Receiver<FromServer>>) -> Option<FromServer> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// Hands a socket's datagrams to the machine, a batch under one lock.
async fn receive(shared: Arc<Shared>, id: SocketId, socket: Arc<dyn DatagramSocket>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let batch = poll_fn(|context| {
            let first = {
                let mut read = ReadBuf::new(&mut buffer);
                let from = ready!(socket.poll_recv_from(context, &mut read));
                from.map(|from| (from, read.filled().len()))
            };
            let (from, length) = match first {
                Ok(first) => first,
                Err(error) => return Poll::Ready(Err(error)),
            };
            shared.with(|core| {
                core.handle_datagram(id, from, &buffer[..length]);
                for _ in 1..BATCH {
                    let mut read = ReadBuf::new(&mut buffer);
                    let Poll::Ready(Ok(from)) = socket.poll_recv_from(context, &mut read) else {
                        break;
                    };
                    let length = read.filled().len();
                    core.handle_datagram(id, from, &buffer[..length]);
                }
            });
            Poll::Ready(Ok(()))
        });
        match batch.await {
            Ok(()) => tokio::task::yield_now().await,
            // An ICMP error of an earlier datagram: nothing is wrong with the socket.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => {
                tracing::debug!(%error, "receiving failed");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Opens a stream to a relay and carries bytes both ways until it ends.
async fn carry(
    shared: Arc<Shared>,
    target: Target,
    stream: StreamId,
    to: SocketAddr,
    tls: Option<String>,
) {
    match timeout(STREAM_TIMEOUT, dial(&target, to, tls)).await {
        Ok(Ok((connection, local))) => {
            let (sender, writes) = mpsc::channel(STREAM_QUEUE);
            shared.with(|core| {
                core.streams.insert(stream, sender);
                let now = core.now();
                if let Some(node) = &mut core.node {
                    node.handle_stream_opened(now, stream, local);
                }
            });
            converse(&shared, stream, connection, writes).await;
        }
        Ok(Err(reason)) => tracing::debug!(%to, reason, "no stream to the relay"),
        Err(_) => tracing::debug!(%to, "the relay's stream did not open in time"),
    }
    shared.with(|core| {
        core.streams.remove(&stream);
        let now = core.now();
        if let Some(node) = &mut core.node {
            node.handle_stream_closed(now, stream);
        }
    });
}

async fn dial(
    target: &Target,
    to: SocketAddr,
    tls: Option<String>,
) -> Result<(Box<dyn Stream>, SocketAddr), String> {
    let (stream, local) = target
        .network
        .connect_tcp(to)
        .await
        .map_err(|error| error.to_string())?;
    match tls {
        Some(name) => Ok((target.tls.connect_relay(&name, stream).await?, local)),
        None => Ok((stream, local)),
    }
}

async fn converse(
    shared: &Shared,
    stream: StreamId,
    connection: Box<dyn Stream>,
    mut writes: mpsc::Receiver<Vec<u8>>,
) {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let write = async {
        while let Some(bytes) = writes.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The farewell has been written; the relay learns of the end.
        writer.shutdown().await.ok();
    };
    let read = async {
        let mut buffer = vec![0; STREAM_READ];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            shared.with(|core| {
                let now = core.now();
                if let Some(node) = &mut core.node {
                    node.handle_stream_data(now, stream, &buffer[..length]);
                }
            });
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
}
