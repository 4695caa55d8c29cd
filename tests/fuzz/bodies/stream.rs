//! Any bytes as a TCP stream: however it is cut into reads, the frames are the same, and none is
//! too long.

use stun_wire::channel_data::ChannelData;
use stun_wire::stream::{MAX_FRAME, frame_length};
use stun_wire::{HEADER_LEN, Message};

/// The first byte says how the rest is cut into reads.
pub(crate) fn run(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let whole = frames(stream, usize::MAX);
    assert_eq!(
        whole,
        frames(stream, usize::from(*cut) + 1),
        "reads of {} bytes",
        cut
    );
    for frame in whole {
        // Either parser may refuse a frame; neither may panic.
        let message = Message::parse(&frame).is_ok();
        let channel_data = ChannelData::parse(&frame).is_ok();
        assert!(!(message && channel_data));
    }
}

/// A reader as a server has it: a buffer, and the question after each read.
fn frames(stream: &[u8], read: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = Vec::new();
    for bytes in stream.chunks(read.min(stream.len().max(1))) {
        buffer.extend_from_slice(bytes);
        loop {
            match frame_length(&buffer) {
                Err(_) => return frames,
                Ok(None) => {
                    assert!(buffer.len() < 4, "four bytes tell the length");
                    break;
                }
                Ok(Some(length)) => {
                    assert!((4..=MAX_FRAME.max(HEADER_LEN + 65_532)).contains(&length));
                    assert_eq!(length % 4, 0);
                    if length > buffer.len() {
                        break;
                    }
                    frames.push(buffer.drain(..length).collect());
                }
            }
        }
    }
    frames
}
