//! RFC 3489, the STUN of 2003: no magic cookie, a transaction id of 16 bytes, addresses in the clear.
//!
//! Such a message is read and written as one of RFC 8489 whose cookie is exchanged on the way in and on
//! the way out; the four bytes of its place are the first of the old transaction id.

use std::net::SocketAddr;

use stun_wire::attribute::{ChangeRequest, MappedAddress};
use stun_wire::{
    Attribute, AttributeType, MAGIC_COOKIE, Message, MessageWriter, UnknownAttributes,
};

use crate::behavior::{Endpoint, Refusal, Wishes};

/// Where the answer comes from (section 11.2.5).
const SOURCE_ADDRESS: AttributeType = AttributeType(0x0004);
/// Where it would come from with both flags of CHANGE-REQUEST (section 11.2.3).
const CHANGED_ADDRESS: AttributeType = AttributeType(0x0005);
const PASSWORD: AttributeType = AttributeType(0x0007);
const REFLECTED_FROM: AttributeType = AttributeType(0x000B);

/// The mandatory attributes of section 11.2 but one: RESPONSE-ADDRESS would have answers sent to whom
/// the client names, and is refused like an unknown one.
const KNOWN: [AttributeType; 10] = [
    AttributeType::MAPPED_ADDRESS,
    AttributeType::CHANGE_REQUEST,
    SOURCE_ADDRESS,
    CHANGED_ADDRESS,
    AttributeType::USERNAME,
    PASSWORD,
    AttributeType::MESSAGE_INTEGRITY,
    AttributeType::ERROR_CODE,
    AttributeType::UNKNOWN_ATTRIBUTES,
    REFLECTED_FROM,
];

/// The bytes where RFC 8489 has its cookie.
pub(crate) type Cookie = [u8; 4];

/// Puts a copy of `bytes` with the magic cookie into `copy`, and tells what stood there.
pub(crate) fn modernize(bytes: &[u8], copy: &mut Vec<u8>) -> Option<Cookie> {
    copy.clear();
    copy.extend_from_slice(bytes);
    exchange_cookie(copy, MAGIC_COOKIE.to_be_bytes())
}

/// Writes `cookie` into a message, and tells what stood there.
pub(crate) fn exchange_cookie(message: &mut [u8], cookie: Cookie) -> Option<Cookie> {
    let (_, rest) = message.split_first_chunk_mut::<4>()?;
    let (place, _) = rest.split_first_chunk_mut::<4>()?;
    Some(std::mem::replace(place, cookie))
}

/// What a request asks for; `asked` is the endpoint it came to where there are several.
pub(crate) fn read(request: &Message<'_>, asked: Option<&Endpoint>) -> Result<Wishes, Refusal> {
    let mut unknown = request.unknown_required(&KNOWN);
    let change = request.attribute::<ChangeRequest>()?.unwrap_or_default();
    // Old clients always send CHANGE-REQUEST; without a flag it asks for nothing.
    if asked.is_none() && change != ChangeRequest::default() {
        unknown.push(AttributeType::CHANGE_REQUEST);
    }
    if !unknown.is_empty() {
        return Err(Refusal::Unknown(unknown));
    }
    Ok(Wishes {
        change,
        ..Wishes::default()
    })
}

/// MAPPED-ADDRESS, SOURCE-ADDRESS, and CHANGED-ADDRESS if there is another one (section 8.1).
pub(crate) fn write_success(
    writer: &mut MessageWriter<'_>,
    source: SocketAddr,
    from: SocketAddr,
    asked: Option<&Endpoint>,
) {
    writer.attribute(&MappedAddress(source));
    write_address(writer, SOURCE_ADDRESS, from);
    if let Some(asked) = asked {
        write_address(writer, CHANGED_ADDRESS, asked.other);
    }
}

/// An attribute in the form of MAPPED-ADDRESS under another name: 8 bytes, since RFC 3489 knows IPv4
/// alone (section 11.2.1).
fn write_address(writer: &mut MessageWriter<'_>, kind: AttributeType, address: SocketAddr) {
    let mut value = [0; 8];
    let attribute = MappedAddress(address);
    if attribute.len() == value.len() {
        // The transaction matters to XORed addresses only.
        attribute.write(&mut value, &stun_wire::TransactionId([0; 12]));
        writer.raw(kind, &value);
    }
}

/// The list of a 420, of an even number of names: section 11.2.10 has one repeated rather than padding.
pub(crate) fn write_unknown(writer: &mut MessageWriter<'_>, unknown: &UnknownAttributes) {
    const NAME_LEN: usize = 2;
    let mut value = [0; UnknownAttributes::MAX * NAME_LEN];
    let count = unknown.iter().count();
    let first = unknown.iter().next();
    let names = unknown.iter().chain(first);
    for (place, name) in value.chunks_exact_mut(NAME_LEN).zip(names) {
        place.copy_from_slice(&name.0.to_be_bytes());
    }
    let length = count.next_multiple_of(2) * NAME_LEN;
    let names = value.get(..length).unwrap_or(&value);
    writer.raw(AttributeType::UNKNOWN_ATTRIBUTES, names);
}
