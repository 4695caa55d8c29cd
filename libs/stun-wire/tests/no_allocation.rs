//! Reading a message allocates nothing: parsing, attributes, unknown names, signatures.

#![allow(
    unsafe_code,
    reason = "a counting allocator is only to be had by `GlobalAlloc`"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use stun_wire::attribute::{
    ErrorCode, Nonce, PasswordAlgorithms, Realm, Username, XorMappedAddress, XorPeerAddress,
};
use stun_wire::channel_data::ChannelData;
use stun_wire::{IntegrityKind, Message, stream};

use crate::support::samples;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; a counter is all that is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The counter may be gone while the thread ends.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates on this thread.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn counter_counts() {
    assert_eq!(allocations(|| drop(black_box(vec![1_u8; 100]))), 1);
}

#[test]
fn reading_a_message_allocates_nothing() {
    let key = samples::md5_key();
    for (name, bytes) in samples::messages() {
        let mut read = 0;
        let count = allocations(|| {
            let message = Message::parse(black_box(&bytes)).expect("a sample is well formed");
            read += message.attributes().count();
            let _ = black_box(message.attribute::<Username<'_>>());
            let _ = black_box(message.attribute::<Realm<'_>>());
            let _ = black_box(message.attribute::<Nonce<'_>>());
            let _ = black_box(message.attribute::<ErrorCode<'_>>());
            let _ = black_box(message.attribute::<XorMappedAddress>());
            let _ = black_box(message.attribute::<XorPeerAddress>());
            if let Ok(Some(list)) = message.attribute::<PasswordAlgorithms<'_>>() {
                read += list.iter().count();
            }
            read += message.unknown_required(&[]).iter().count();
            let _ = black_box(message.verify_integrity(&key, IntegrityKind::Sha1));
            let _ = black_box(message.verify_integrity(&key, IntegrityKind::Sha256));
            let _ = black_box(stream::frame_length(&bytes));
        });
        assert_eq!(count, 0, "{name}, {read} things read");
    }
}

#[test]
fn refusing_a_message_allocates_nothing() {
    for (name, bytes) in samples::messages() {
        for length in 0..bytes.len() {
            let count = allocations(|| {
                let cut = black_box(bytes.get(..length).expect("shorter"));
                assert!(Message::parse(cut).is_err());
                let _ = black_box(ChannelData::parse(cut));
                let _ = black_box(stream::frame_length(cut));
            });
            assert_eq!(count, 0, "{name}, cut to {length}");
        }
    }
}

#[test]
fn reading_channel_data_allocates_nothing() {
    for (name, bytes) in samples::channel_data() {
        let count = allocations(|| {
            let parsed = ChannelData::parse(black_box(&bytes)).expect("a sample is well formed");
            let _ = black_box(ChannelData::header(parsed.channel, parsed.payload.len()));
        });
        assert_eq!(count, 0, "{name}");
    }
}
