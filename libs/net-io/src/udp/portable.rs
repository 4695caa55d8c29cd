//! The back end for every system: one datagram per call.

use std::io;

use super::{UdpSocket, note_refusal};
use crate::batch::{Meta, RecvBatch, SendBatch, SendReport};

pub(super) fn recv(socket: &UdpSocket, batch: &mut RecvBatch) -> io::Result<usize> {
    let mut metas = [Meta::EMPTY; crate::MAX_BATCH];
    let mut received = 0;
    let mut failure = None;
    for (slot, meta) in batch.slots_mut().zip(&mut metas) {
        match receive_one(socket, slot) {
            Ok((len, from)) => {
                *meta = Meta {
                    from,
                    local: socket.local,
                    len,
                    segment: len,
                };
                received += 1;
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    for meta in metas.iter().take(received) {
        batch.push_meta(*meta);
    }
    match failure {
        // What arrived before the error comes first; the error itself has been taken from the
        // socket by reading it, and a failed socket reports again.
        Some(error) if received == 0 => Err(error),
        _ => Ok(received),
    }
}

fn receive_one(socket: &UdpSocket, slot: &mut [u8]) -> io::Result<(usize, std::net::SocketAddr)> {
    loop {
        match socket.inner.recv_from(slot) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

pub(super) fn send(socket: &UdpSocket, batch: &SendBatch) -> SendReport {
    let mut report = SendReport::default();
    let trains = batch.trains().iter();
    let datagrams = trains.flat_map(|train| batch.datagrams(train).map(|bytes| (train.to, bytes)));
    for (to, bytes) in datagrams {
        loop {
            match socket.inner.send_to(bytes, to) {
                Ok(_) => {
                    report.sent += 1;
                    report.sent_bytes += bytes.len();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => note_refusal(&mut report, &error),
            }
            break;
        }
    }
    report
}
