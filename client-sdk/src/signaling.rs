//! The WebSocket to the signaling server: one task that connects, greets, keeps the connection and takes it up again.
//!
//! Before the room is joined every fault is final and told as a [`ConnectError`]. Afterwards a lost connection is tried
//! again with growing pauses for as long as the server's grace lasts; the sessions between players do not depend on it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use signal_wire::{
    ClientBody, ClientMessage, Hello, LobbyJoin, Resume, SUBPROTOCOL, ServerBody, ServerMessage,
    Welcome, split_frame,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::error::ConnectError;
use crate::network::{Network, Stream};
use crate::tls::Connector;
use crate::url::SignalUrl;

/// How long connecting and greeting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a word of the server for this long the connection counts as lost; it pings every 20 s.
const SILENCE: Duration = Duration::from_secs(45);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
const READ_BUFFER: usize = 4 * 1024;
/// Longest frame taken: a batch of signals, with room.
const MAX_FRAME: usize = 256 * 1024;
/// The request ids used; replies to anything else are of no interest.
const HELLO_ID: u64 = 1;
const JOIN_ID: u64 = 2;

/// What the task tells the driver.
#[derive(Debug)]
pub(crate) enum FromServer {
    /// Connected and greeted, at first or again.
    Welcome(Welcome),
    /// A message.
    Message(ServerBody),
    /// The connection was lost; the next attempt starts after `retry_in`.
    Lost { reason: String, retry_in: Duration },
    /// It is over: nothing more comes.
    Failed(ConnectError),
}

/// What is needed to connect.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) url: SignalUrl,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) tls: Connector,
    pub(crate) hello: Hello,
    pub(crate) join: LobbyJoin,
}

type Socket = WebSocketStream<Box<dyn Stream>>;

/// How one connection ended.
enum Ended {
    /// The driver has gone: the endpoint is shut down.
    ByUs,
    Lost(String),
    Refused(ConnectError),
}

/// State that outlives one connection.
struct Session {
    welcome: Option<Welcome>,
    joined: bool,
    last_seq: u64,
}

/// Runs until the driver drops its ends of the channels.
pub(crate) async fn run(
    target: Target,
    mut outgoing: mpsc::Receiver<ClientBody>,
    incoming: mpsc::Sender<FromServer>,
) {
    let mut session = Session {
        welcome: None,
        joined: false,
        last_seq: 0,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let ended = match connect(&target, &session).await {
            Ok(socket) => {
                pause = FIRST_PAUSE;
                converse(&target, &mut session, socket, &mut outgoing, &incoming).await
            }
            Err(reason) => Ended::Lost(reason),
        };
        let failure = match ended {
            Ended::ByUs => return,
            Ended::Refused(error) => Some(error),
            Ended::Lost(reason) if !session.joined => Some(ConnectError::Signaling {
                url: target.url.to_string(),
                reason,
            }),
            Ended::Lost(reason) => {
                let lost = FromServer::Lost {
                    reason,
                    retry_in: pause,
                };
                if incoming.send(lost).await.is_err() {
                    return;
                }
                None
            }
        };
        if let Some(error) = failure {
            // When the driver has gone too there is nobody to tell.
            incoming.send(FromServer::Failed(error)).await.ok();
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Opens the WebSocket and sends `hello`.
async fn connect(target: &Target, session: &Session) -> Result<Socket, String> {
    let greeting = async {
        let stream = dial(target).await?;
        let mut request = target
            .url
            .to_string()
            .into_client_request()
            .map_err(|error| format!("the URL is not usable: {error}"))?;
        let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", subprotocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let (mut socket, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|error| handshake_fault(&error))?;
        let mut hello = target.hello.clone();
        hello.resume = session.welcome.as_ref().map(|welcome| Resume {
            session_id: welcome.session_id,
            resume_token: welcome.resume_token,
            last_seq: session.last_seq,
        });
        send(&mut socket, Some(HELLO_ID), None, ClientBody::Hello(hello)).await?;
        Ok(socket)
    };
    match timeout(CONNECT_TIMEOUT, greeting).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

async fn dial(target: &Target) -> Result<Box<dyn Stream>, String> {
    let (host, port) = (target.url.host(), target.url.port());
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| format!("cannot resolve {host}: {error}"))?;
    let mut fault = format!("{host} has no address");
    for address in addresses {
        match target.network.connect_tcp(address).await {
            Ok((stream, _)) if target.url.is_encrypted() => {
                return target.tls.connect(host, stream).await;
            }
            Ok((stream, _)) => return Ok(stream),
            Err(error) => fault = format!("cannot connect to {address}: {error}"),
        }
    }
    Err(fault)
}

fn handshake_fault(error: &WsError) -> String {
    if let WsError::Http(response) = error {
        let status = response.status();
        return format!("it answered HTTP {status} instead of a WebSocket");
    }
    format!("the WebSocket handshake failed: {error}")
}

/// Carries messages both ways until one side ends it.
async fn converse(
    target: &Target,
    session: &mut Session,
    mut socket: Socket,
    outgoing: &mut mpsc::Receiver<ClientBody>,
    incoming: &mpsc::Sender<FromServer>,
) -> Ended {
    loop {
        tokio::select! {
            body = outgoing.recv() => {
                let Some(body) = body else {
                    // The server notices the end by itself if the farewell does not get through.
                    socket.close(None).await.ok();
                    return Ended::ByUs;
                };
                let ack = (session.last_seq > 0).then_some(session.last_seq);
                if let Err(reason) = send(&mut socket, None, ack, body).await {
                    return Ended::Lost(reason);
                }
            }
            frame = timeout(SILENCE, socket.next()) => {
                let text = match frame {
                    Ok(Some(Ok(Message::Text(text)))) => text,
                    Ok(Some(Ok(Message::Close(frame)))) => return Ended::Lost(close_reason(frame)),
                    Ok(Some(Ok(_))) => continue,
                    Ok(Some(Err(error))) => return Ended::Lost(error.to_string()),
                    Ok(None) => return Ended::Lost("it closed the connection".to_owned()),
                    Err(_) => return Ended::Lost(format!("silent for {} s", SILENCE.as_secs())),
                };
                if let Err(ended) = take(target, session, &mut socket, text.as_str(), incoming).await {
                    return ended;
                }
            }
        }
    }
}

/// Takes one frame: a message or a batch.
async fn take(
    target: &Target,
    session: &mut Session,
    socket: &mut Socket,
    frame: &str,
    incoming: &mpsc::Sender<FromServer>,
) -> Result<(), Ended> {
    for text in split_frame(frame).unwrap_or_default() {
        let Ok(message) = ServerMessage::from_json(text) else {
            tracing::debug!("a message of the signaling server could not be read");
            continue;
        };
        if let Some(seq) = message.seq {
            session.last_seq = session.last_seq.max(seq);
        }
        if let ServerBody::Error(error) = &message.body
            && !session.joined
        {
            return Err(Ended::Refused(ConnectError::Refused {
                code: error.code.as_str().to_owned(),
                message: error.message.clone(),
                retry_after: error.retry_after_ms.map(Duration::from_millis),
            }));
        }
        session.joined |= matches!(message.body, ServerBody::LobbyJoined(_));
        let told = if let ServerBody::Welcome(welcome) = message.body {
            greeted(target, session, socket, &welcome).await?;
            FromServer::Welcome(welcome)
        } else {
            FromServer::Message(message.body)
        };
        if incoming.send(told).await.is_err() {
            return Err(Ended::ByUs);
        }
    }
    Ok(())
}

/// The first welcome is followed by the join; a later one must still know the room.
async fn greeted(
    target: &Target,
    session: &mut Session,
    socket: &mut Socket,
    welcome: &Welcome,
) -> Result<(), Ended> {
    let again = session.welcome.replace(welcome.clone()).is_some();
    if !again {
        let join = ClientBody::LobbyJoin(target.join.clone());
        return send(socket, Some(JOIN_ID), None, join)
            .await
            .map_err(Ended::Lost);
    }
    if welcome.lobby.is_none() {
        let reason = "it no longer knows this session: the room is gone".to_owned();
        let url = target.url.to_string();
        return Err(Ended::Refused(ConnectError::Signaling { url, reason }));
    }
    Ok(())
}

async fn send(
    socket: &mut Socket,
    id: Option<u64>,
    ack: Option<u64>,
    body: ClientBody,
) -> Result<(), String> {
    let text = ClientMessage { id, ack, body }.to_json();
    socket
        .send(Message::text(text))
        .await
        .map_err(|error| error.to_string())
}

fn close_reason(frame: Option<tokio_tungstenite::tungstenite::protocol::CloseFrame>) -> String {
    match frame {
        Some(frame) if !frame.reason.is_empty() => {
            format!(
                "it closed the connection ({}): {}",
                u16::from(frame.code),
                frame.reason
            )
        }
        Some(frame) => format!("it closed the connection ({})", u16::from(frame.code)),
        None => "it closed the connection".to_owned(),
    }
}
