//! The ring, by the `io-uring` crate. All that is unsafe here is the promise that what an entry points to lives and stays
//! until the entry has ended: the bytes are in the arena of a batch that `held` owns, the addresses in `names`.

#![expect(
    unsafe_code,
    reason = "an entry of the ring has pointers that the compiler does not follow"
)]

use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;

use io_uring::{IoUring, Probe, opcode, types};

use super::{Departed, MAX_RING};
use crate::batch::SendBatch;
use crate::udp::UdpSocket;
use crate::udp::linux::{name_told, single_datagram, zeroed_name};

pub(super) struct Ring<T> {
    /// Dropped first: with it the system lets go of everything else.
    ring: IoUring,
    /// Where the datagram of the same place in `held` goes. Never grows, so that nothing moves.
    names: Vec<libc::sockaddr_in6>,
    held: Vec<Option<(T, Box<SendBatch>)>>,
    /// Entries that the system has not ended.
    open: usize,
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("open", &self.open).finish()
    }
}

impl<T> Ring<T> {
    pub(super) fn new() -> io::Result<Self> {
        let entries = u32::try_from(MAX_RING).unwrap_or(u32::MAX);
        // Completions are looked for after a call alone, so that none has to interrupt.
        let ring: IoUring = IoUring::builder().setup_coop_taskrun().build(entries)?;
        // An address beside plain SEND came in the same release as this operation.
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::SendMsgZc::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self {
            ring,
            names: vec![zeroed_name(); MAX_RING],
            held: Vec::with_capacity(MAX_RING),
            open: 0,
        })
    }

    pub(super) fn push(
        &mut self,
        tag: T,
        socket: &UdpSocket,
        batch: Box<SendBatch>,
    ) -> Result<(), Box<SendBatch>> {
        let place = self.held.len();
        let (Some(name), Some((to, bytes))) =
            (self.names.get_mut(place), single_datagram(socket, &batch))
        else {
            return Err(batch);
        };
        let Ok(len) = u32::try_from(bytes.len()) else {
            return Err(batch);
        };
        let mut send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        if let Some((name, len)) = name_told(socket, name, to) {
            send = send.dest_addr(name.cast_const().cast()).dest_addr_len(len);
        }
        let entry = send.build().user_data(place as u64);
        // SAFETY: the bytes are on the heap, in the batch's arena, which nobody changes while `held` owns the batch; the name
        // is in memory that never moves. Both are there until `submit` has seen the entry's end. A ring that is dropped
        // before that has entries which the system has not looked at, and never will: it deals with one while it takes it,
        // because MSG_DONTWAIT forbids it to put it off.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            return Err(batch);
        }
        self.held.push(Some((tag, batch)));
        self.open += 1;
        Ok(())
    }

    pub(super) fn submit(&mut self, mut take: impl FnMut(Departed<T>)) -> io::Result<()> {
        while self.open > 0 {
            match self.ring.submit_and_wait(self.open) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for entry in self.ring.completion() {
                let place = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
                let Some((tag, mut batch)) = self.held.get_mut(place).and_then(Option::take) else {
                    continue;
                };
                self.open -= 1;
                let outcome = if entry.result() < 0 {
                    Err(io::Error::from_raw_os_error(-entry.result()))
                } else {
                    batch.clear();
                    Ok(())
                };
                take(Departed {
                    tag,
                    batch,
                    outcome,
                });
            }
        }
        self.held.clear();
        Ok(())
    }
}
