//! Cuts a byte stream into STUN messages and ChannelData (RFC 8656 §12.5, RFC 8489 §6.2.2).
//!
//! Whole frames are handed out where they were read; only an unfinished one is kept, so a quiet
//! connection holds no buffer.

use stun_wire::stream::frame_length;

/// The longest frame of a client that owns an allocation: a STUN message of 65,532 bytes of
/// attributes; ChannelData is shorter.
pub(crate) const LONGEST_FRAME: usize = 65_552;

/// The longest frame of anybody else. A signed Allocate is a quarter of it.
pub(crate) const LONGEST_OF_STRANGERS: usize = 2048;

/// What is kept of a frame that anybody else has not finished: the buffer doubles as it grows.
#[cfg(test)]
pub(crate) const MOST_KEPT_OF_STRANGERS: usize = 2 * LONGEST_OF_STRANGERS;

/// Why a stream cannot be read on; there is nothing to synchronise on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// Neither STUN nor ChannelData.
    NotTurn,
    /// Longer than this client may send.
    TooLong,
}

/// The unfinished frame at the end of what was read.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    partial: Vec<u8>,
}

impl Deframer {
    /// The next whole frame, padding included, from what is kept and then from `input`, which is
    /// shortened by what was used. `None`: all of `input` is used and a frame is unfinished, or none
    /// has begun.
    pub(crate) fn next<'f, 'i: 'f>(
        &'f mut self,
        input: &mut &'i [u8],
        longest: usize,
    ) -> Result<Option<&'f [u8]>, FrameError> {
        if self.is_handed_out() {
            self.partial = Vec::new();
        }
        if self.partial.is_empty() {
            return self.next_in_place(input, longest);
        }
        loop {
            let wanted = checked_length(&self.partial, longest)?.unwrap_or(self.partial.len() + 1);
            let missing = wanted.saturating_sub(self.partial.len());
            if missing == 0 {
                return Ok(Some(&self.partial));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.partial.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// True if `partial` is a whole frame, which the last call handed out.
    fn is_handed_out(&self) -> bool {
        matches!(frame_length(&self.partial), Ok(Some(length)) if length == self.partial.len())
    }

    fn next_in_place<'i>(
        &mut self,
        input: &mut &'i [u8],
        longest: usize,
    ) -> Result<Option<&'i [u8]>, FrameError> {
        match checked_length(input, longest)? {
            Some(length) if length <= input.len() => {
                let (frame, rest) = input.split_at(length);
                *input = rest;
                Ok(Some(frame))
            }
            Some(_) | None => {
                self.partial.extend_from_slice(input);
                *input = &[];
                Ok(None)
            }
        }
    }

    /// Bytes kept.
    #[cfg(test)]
    fn kept(&self) -> usize {
        self.partial.capacity()
    }
}

fn checked_length(bytes: &[u8], longest: usize) -> Result<Option<usize>, FrameError> {
    match frame_length(bytes) {
        Ok(Some(length)) if length > longest => Err(FrameError::TooLong),
        Ok(length) => Ok(length),
        Err(_) => Err(FrameError::NotTurn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: [u8; 20] = [
        0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];

    fn channel_data(payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let mut frame = vec![0x40, 0x00];
        frame.extend(length.to_be_bytes());
        frame.extend(payload);
        frame.resize(frame.len().next_multiple_of(4), 0);
        frame
    }

    fn frames(chunks: &[&[u8]], longest: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut deframer = Deframer::default();
        let mut frames = Vec::new();
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(frame) = deframer.next(&mut input, longest)? {
                frames.push(frame.to_vec());
            }
            assert!(input.is_empty());
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut() {
        let sent = [
            BINDING.to_vec(),
            channel_data(b"hello"),
            channel_data(b""),
            BINDING.to_vec(),
        ];
        let stream = sent.concat();
        for size in 1..=stream.len() {
            let chunks: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(
                frames(&chunks, LONGEST_FRAME).unwrap(),
                sent,
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn twenty_five_thousand_frames_arrive_each_as_it_was_sent() {
        // Goal F4: no payload is wrong and none is lost, wherever the reads end.
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        let sent: Vec<Vec<u8>> = (0..25_000_u32)
            .map(|n| match random(50) {
                0 => BINDING.to_vec(),
                // Bytes that look like frames, and frames as long as they get (coturn c85248fb).
                1 if n % 40 == 0 => channel_data(&BINDING.repeat(3_276)),
                _ => channel_data(&n.to_be_bytes().repeat(random(40))),
            })
            .collect();
        let stream = sent.concat();
        let mut chunks = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at((random(3_000) + 1).min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        let got = frames(&chunks, LONGEST_FRAME).unwrap();
        assert_eq!(got.len(), sent.len());
        assert!(got == sent);
    }

    #[test]
    fn the_longest_channel_data_passes() {
        let sent = channel_data(&vec![7; 65_535]);
        let chunks: Vec<&[u8]> = sent.chunks(1448).collect();
        assert_eq!(frames(&chunks, LONGEST_FRAME).unwrap().concat(), sent);
    }

    #[test]
    fn a_stranger_may_not_send_long_frames() {
        let long = channel_data(&vec![7; LONGEST_OF_STRANGERS]);
        assert_eq!(
            frames(&[&long[..4]], LONGEST_OF_STRANGERS),
            Err(FrameError::TooLong)
        );
        assert_eq!(
            frames(&[&long], LONGEST_OF_STRANGERS),
            Err(FrameError::TooLong)
        );
    }

    #[test]
    fn another_protocol_is_an_error() {
        assert_eq!(
            frames(&[b"GET / HTTP/1.1\r\n"], LONGEST_FRAME).map(|f| f.len()),
            Ok(0)
        );
        assert_eq!(
            frames(&[&[0xFF, 0, 0, 0]], LONGEST_FRAME),
            Err(FrameError::NotTurn)
        );
        assert_eq!(
            frames(&[&[0x16, 3, 1, 2, 0, 1, 0, 1]], 2048),
            Err(FrameError::NotTurn)
        );
    }

    #[test]
    fn a_stranger_is_kept_little_of_however_it_drips() {
        let long = channel_data(&vec![7; LONGEST_OF_STRANGERS - 4]);
        for size in [1, 3, 1000, long.len() - 1] {
            let mut deframer = Deframer::default();
            for chunk in long[..long.len() - 1].chunks(size) {
                let mut input = chunk;
                assert_eq!(deframer.next(&mut input, LONGEST_OF_STRANGERS), Ok(None));
            }
            assert!(deframer.kept() <= MOST_KEPT_OF_STRANGERS, "{size}");
        }
    }

    #[test]
    fn nothing_is_kept_between_whole_frames() {
        let mut deframer = Deframer::default();
        let (head, tail) = BINDING.split_at(7);
        let mut input = head;
        assert_eq!(deframer.next(&mut input, 2048), Ok(None));
        assert!(deframer.kept() >= 7);
        let mut input = tail;
        assert_eq!(deframer.next(&mut input, 2048), Ok(Some(&BINDING[..])));
        assert_eq!(deframer.next(&mut input, 2048), Ok(None));
        assert_eq!(deframer.kept(), 0);
    }
}
