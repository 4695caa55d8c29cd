//! Any bytes as a TCP connection to the relay, read by the relay's own deframer: however the reads
//! fall, the frames are the same and so is where a fault ends them, and nothing is invented, lost or
//! too long. (Which fault of two is seen first may depend on the reads.)

#[path = "../../../turn-relay/src/frame.rs"]
mod frame;

use frame::{Deframer, LONGEST_FRAME, LONGEST_OF_STRANGERS};

/// The first byte says how the rest is cut into reads, its lowest bit who sends it.
pub(crate) fn run(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let longest = if cut % 2 == 0 {
        LONGEST_FRAME
    } else {
        LONGEST_OF_STRANGERS
    };
    let whole = frames(stream, usize::MAX, longest);
    let read = usize::from(*cut) + 1;
    assert_eq!(
        whole,
        frames(stream, read, longest),
        "reads of {read} bytes"
    );
    let (frames, _) = whole;
    assert!(
        frames
            .iter()
            .all(|frame| frame.len() <= longest && frame.len() % 4 == 0)
    );
    assert!(stream.starts_with(&frames.concat()));
}

/// The frames, and whether a fault ended them.
fn frames(stream: &[u8], read: usize, longest: usize) -> (Vec<Vec<u8>>, bool) {
    let mut deframer = Deframer::default();
    let mut frames = Vec::new();
    for chunk in stream.chunks(read.min(stream.len().max(1))) {
        let mut input = chunk;
        loop {
            match deframer.next(&mut input, longest) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(input.is_empty(), "what was read is used");
    }
    (frames, false)
}
