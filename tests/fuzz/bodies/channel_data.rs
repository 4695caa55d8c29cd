//! Any bytes as ChannelData: the payload lies inside, and header and parser agree.

use stun_wire::channel_data::{ChannelData, ChannelNumber, HEADER_LEN, is_channel_data};
use stun_wire::{Message, stream};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(parsed) = ChannelData::parse(bytes) else {
        return;
    };
    let payload = bytes
        .get(parsed.payload.clone())
        .expect("the payload lies in the input");
    assert_eq!(parsed.payload.start, HEADER_LEN);
    let header = ChannelData::header(parsed.channel, payload.len()).expect("as long as it came");
    assert_eq!(bytes.first_chunk(), Some(&header));

    // The two ranges of channel numbers, and what the first byte tells.
    assert!(is_channel_data(bytes, true));
    let strict = ChannelNumber::new(parsed.channel.as_u16()).is_some();
    assert_eq!(is_channel_data(bytes, false), strict);
    assert_eq!(parsed.channel.in_rfc5766_range(), !strict);
    assert!(
        Message::parse(bytes).is_err(),
        "nothing is both ChannelData and STUN"
    );

    // On a stream the frame is the header, the payload, and the padding.
    let padding = ChannelData::stream_padding(payload.len());
    let frame = HEADER_LEN + payload.len() + padding.len();
    assert_eq!(stream::frame_length(bytes), Ok(Some(frame)));
    assert_eq!(frame % 4, 0);
}
