//! The outer object of every message, and what is wrong with one that cannot be read.

use crate::limits;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Longer than [`limits::MESSAGE_BYTES`], or a batch of too many.
    TooLarge,
    /// Not JSON.
    NotJson,
    /// JSON, and not an object with a `type`.
    NotAMessage,
    /// A `type` this version does not know.
    UnknownType,
    /// The `data` of a known type lacks a member, or one has the wrong type.
    BadData,
}

/// A message that cannot be read, with what is needed to answer or acknowledge it all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub fault: Fault,
    /// The `id` of a request or the `re` of a reply, when that much could be read.
    pub id: Option<u64>,
    /// The `seq` of an event, when that much could be read.
    pub seq: Option<u64>,
}

impl ParseError {
    pub(crate) const fn new(fault: Fault) -> Self {
        Self {
            fault,
            id: None,
            seq: None,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.fault {
            Fault::TooLarge => "message too large",
            Fault::NotJson => "not JSON",
            Fault::NotAMessage => "not an object with a type",
            Fault::UnknownType => "unknown type",
            Fault::BadData => "data does not fit the type",
        })
    }
}

impl std::error::Error for ParseError {}

/// The members around `data`. One shape reads both directions; each side looks at its own.
#[derive(Deserialize)]
pub(crate) struct Envelope<'a> {
    #[serde(default)]
    pub(crate) id: Option<u64>,
    #[serde(default)]
    pub(crate) re: Option<u64>,
    #[serde(default)]
    pub(crate) ack: Option<u64>,
    #[serde(default)]
    pub(crate) seq: Option<u64>,
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, ParseError> {
        if text.len() > limits::MESSAGE_BYTES {
            return Err(ParseError::new(Fault::TooLarge));
        }
        serde_json::from_str(text).map_err(|error| {
            ParseError::new(if error.is_data() {
                Fault::NotAMessage
            } else {
                Fault::NotJson
            })
        })
    }

    /// The typed `data`; left out, it reads as `{}`.
    pub(crate) fn data<T: DeserializeOwned>(&self) -> Result<T, ParseError> {
        let text = self.data.map_or("{}", RawValue::get);
        serde_json::from_str(text).map_err(|_| self.fault(Fault::BadData))
    }

    pub(crate) fn fault(&self, fault: Fault) -> ParseError {
        ParseError {
            fault,
            id: self.id.or(self.re),
            seq: self.seq,
        }
    }
}

/// Writes the `data` of a message whose type has none.
#[derive(Serialize)]
pub(crate) struct Empty {}

/// Writes the last two members of a message.
pub(crate) fn finish<M: SerializeMap>(
    mut map: M,
    kind: &'static str,
    data: &impl Serialize,
) -> Result<M::Ok, M::Error> {
    map.serialize_entry("type", kind)?;
    map.serialize_entry("data", data)?;
    map.end()
}

/// The messages of a frame: the frame itself, or the elements of the array it is.
///
/// # Errors
/// When the frame is too long, holds too many messages, or is an array that is not JSON.
pub fn split_frame(frame: &str) -> Result<Vec<&str>, ParseError> {
    if frame.len() > limits::MESSAGE_BYTES {
        return Err(ParseError::new(Fault::TooLarge));
    }
    if !frame.trim_start().starts_with('[') {
        return Ok(vec![frame]);
    }
    let messages: Vec<&RawValue> =
        serde_json::from_str(frame).map_err(|_| ParseError::new(Fault::NotJson))?;
    if messages.len() > limits::BATCH_MESSAGES {
        return Err(ParseError::new(Fault::TooLarge));
    }
    Ok(messages.into_iter().map(RawValue::get).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_message_or_a_bounded_batch() {
        assert_eq!(split_frame("{}"), Ok(vec!["{}"]));
        assert_eq!(
            split_frame(" [ {\"a\":[1]} , 2 ]"),
            Ok(vec!["{\"a\":[1]}", "2"])
        );
        assert_eq!(split_frame("[]"), Ok(vec![]));
        assert_eq!(split_frame("[{}"), Err(ParseError::new(Fault::NotJson)));

        let batch = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        assert_eq!(
            split_frame(&batch(limits::BATCH_MESSAGES)).map(|all| all.len()),
            Ok(32)
        );
        let many = batch(limits::BATCH_MESSAGES + 1);
        assert_eq!(split_frame(&many), Err(ParseError::new(Fault::TooLarge)));
        let long = " ".repeat(limits::MESSAGE_BYTES + 1);
        assert_eq!(split_frame(&long), Err(ParseError::new(Fault::TooLarge)));
    }
}
