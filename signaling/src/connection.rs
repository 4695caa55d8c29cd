//! One WebSocket: frames in to the hub, the outbox out to the client, and pings in between.

use crate::counters::{Counters, DisconnectReason, LimiterLabel};
use crate::hub::Hub;
use crate::outbox::{Outbox, Taken};
use futures_util::{SinkExt as _, StreamExt as _};
use signal_wire::{CloseCode, ParseError, limits, split_frame};
use signaling_lobby::{ClientMessage, ConnId, Door};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WireCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error};

/// What is read at once. The library's default of 128 KiB would be kept for every idle player.
const READ_BUFFER: usize = 4 * 1024;
/// Small frames are joined up to this before they are written.
const WRITE_BUFFER: usize = 4 * 1024;
/// Frames written and not taken by the system: one message and what is joined with it.
const WRITE_BUFFER_MOST: usize = 64 * 1024;
/// How long a client may take to read what is written at once.
const WRITE_TIME: Duration = Duration::from_secs(20);
/// How long a client may take to answer a close frame.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Pings without an answer, or anything else, after which a connection is dead.
const MISSED_PINGS: u8 = 2;
/// Pings and pongs a client may send between two of ours.
const CONTROL_FRAMES: u32 = 200;

pub(crate) struct Connection<S> {
    pub(crate) socket: WebSocketStream<S>,
    pub(crate) conn: ConnId,
    pub(crate) door: Door,
    pub(crate) hub: Hub,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) ping_interval: Duration,
}

/// A WebSocket on a stream whose handshake is done; `read` is what came after it already.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    read: Vec<u8>,
) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MOST)
        .max_message_size(Some(limits::MESSAGE_BYTES))
        .max_frame_size(Some(limits::MESSAGE_BYTES));
    WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await
}

/// How a connection ends: with which close frame, if one can still be sent.
struct End {
    reason: DisconnectReason,
    frame: Option<WireCode>,
}

impl End {
    const fn silent(reason: DisconnectReason) -> Self {
        Self {
            reason,
            frame: None,
        }
    }

    fn with(code: CloseCode) -> Self {
        Self {
            reason: code.into(),
            frame: Some(WireCode::from(code.code())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Serves until the connection ends.
    pub(crate) async fn run(mut self) {
        let end = self.serve().await;
        self.counters.disconnects.with(end.reason).inc();
        // The seat is freed, or kept for a resume, before the goodbye that may take long.
        self.hub.disconnect(self.conn).await;
        if let Some(code) = end.frame {
            let _ = timeout(CLOSE_TIME, self.say_goodbye(code)).await;
        }
    }

    async fn serve(&mut self) -> End {
        let outbox = Arc::clone(&self.outbox);
        let mut ping = pings(self.ping_interval);
        let mut unanswered = 0;
        let mut control_frames = 0;
        loop {
            tokio::select! {
                taken = outbox.take() => {
                    if let ControlFlow::Break(end) = self.send(taken).await {
                        return end;
                    }
                }
                frame = self.socket.next() => {
                    unanswered = 0;
                    control_frames += u32::from(matches!(frame, Some(Ok(Message::Ping(_) | Message::Pong(_)))));
                    if control_frames > CONTROL_FRAMES {
                        self.counters.rate_limited.with(LimiterLabel::Pings).inc();
                        return End::with(CloseCode::RateLimited);
                    }
                    if let ControlFlow::Break(end) = self.receive(frame).await {
                        return end;
                    }
                }
                _ = ping.tick() => {
                    if unanswered >= MISSED_PINGS {
                        return End::with(CloseCode::Idle);
                    }
                    unanswered += 1;
                    control_frames = 0;
                    if let ControlFlow::Break(end) = self.write(Message::Ping(Bytes::new())).await {
                        return end;
                    }
                }
            }
        }
    }

    async fn receive(&self, frame: Option<Result<Message, Error>>) -> ControlFlow<End> {
        match frame {
            Some(Ok(Message::Text(text))) => match self.door {
                Door::Native => self.receive_native(&text).await,
                Door::Tank => self.hub.text(self.conn, text.as_str().to_owned()).await,
            },
            Some(Ok(Message::Binary(bytes))) => self.hub.binary(self.conn, bytes.len()).await,
            // The library answers pings, and closes when the client does.
            Some(Ok(
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_),
            )) => {}
            Some(Err(error)) => return ControlFlow::Break(end_of(&error)),
            None => return ControlFlow::Break(End::silent(DisconnectReason::Closed)),
        }
        ControlFlow::Continue(())
    }

    async fn receive_native(&self, frame: &str) {
        match split_frame(frame) {
            Ok(messages) => {
                for text in messages {
                    let message = ClientMessage::from_json(text);
                    self.hub.message(self.conn, text.len(), message).await;
                }
            }
            Err(error) => self.unreadable(frame.len(), error).await,
        }
    }

    async fn unreadable(&self, length: usize, error: ParseError) {
        self.hub.message(self.conn, length, Err(error)).await;
    }

    /// Sends what was taken from the outbox, and gives its room back.
    async fn send(&mut self, taken: Taken) -> ControlFlow<End> {
        let Taken { texts, end } = taken;
        if end == Some(CloseCode::SlowConsumer) {
            return ControlFlow::Break(End::with(CloseCode::SlowConsumer));
        }
        let outbox = Arc::clone(&self.outbox);
        let bytes = texts.iter().map(String::len).sum();
        let sent = tokio::select! {
            sent = timeout(WRITE_TIME, self.write_all(texts)) => sent,
            () = outbox.cut_off() => return ControlFlow::Break(End::with(CloseCode::SlowConsumer)),
        };
        match sent {
            Err(_) => ControlFlow::Break(End::with(CloseCode::SlowConsumer)),
            Ok(Err(error)) => ControlFlow::Break(end_of(&error)),
            Ok(Ok(())) => {
                outbox.sent(bytes);
                end.map_or(ControlFlow::Continue(()), |code| {
                    ControlFlow::Break(End::with(code))
                })
            }
        }
    }

    async fn write_all(&mut self, texts: VecDeque<String>) -> Result<(), Error> {
        for text in texts {
            self.socket
                .feed(Message::Text(Utf8Bytes::from(text)))
                .await?;
        }
        self.socket.flush().await
    }

    async fn write(&mut self, message: Message) -> ControlFlow<End> {
        match timeout(WRITE_TIME, self.socket.send(message)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(error)) => ControlFlow::Break(end_of(&error)),
            Err(_) => ControlFlow::Break(End::with(CloseCode::SlowConsumer)),
        }
    }

    /// RFC 6455 §7.1.1: the close frame, and then the client's own.
    async fn say_goodbye(&mut self, code: WireCode) {
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::default(),
        };
        if self.socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = self.socket.next().await {}
        }
    }
}

/// The first ping comes somewhere within the interval, so that those of a crowd do not coincide.
fn pings(every: Duration) -> Interval {
    let mut random = [0; 2];
    let share = match getrandom::fill(&mut random) {
        Ok(()) => u32::from(u16::from_be_bytes(random)),
        Err(_) => 0,
    };
    let early = every / 2 * share / u32::from(u16::MAX);
    let mut ping = interval_at(Instant::now() + every - early, every);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping
}

fn end_of(error: &Error) -> End {
    if matches!(error, Error::Capacity(_)) {
        return End::with(CloseCode::TooBig);
    }
    if matches!(error, Error::Utf8(_)) {
        return End {
            reason: DisconnectReason::Protocol,
            frame: Some(WireCode::Invalid),
        };
    }
    if matches!(
        error,
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake
        ) | Error::Io(_)
    ) {
        return End::silent(DisconnectReason::Lost);
    }
    if matches!(error, Error::Protocol(_)) {
        return End {
            reason: DisconnectReason::Protocol,
            frame: Some(WireCode::Protocol),
        };
    }
    End::silent(DisconnectReason::Closed)
}
