//! `signal`: what two members of one lobby tell each other to find a path, relayed unread.

use crate::ids::MemberId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// What a signal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// A [`crate::SignedDescription`] (or a W3C `{type, sdp}`) that opens a connection.
    Offer,
    /// The description that answers an offer.
    Answer,
    /// One [`crate::CandidateData`].
    Candidate,
    /// No more candidates; `data` is `{}`.
    CandidatesEnd,
    /// New ICE credentials for the same connection.
    Restart,
    /// The connection is over.
    Bye,
}

/// `signal` as a client sends it, its `data` held as `D`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalToWith<D> {
    /// The member it is for.
    pub to: MemberId,
    /// What it is.
    pub kind: SignalKind,
    /// The connection between the two that it belongs to, named by who opened it.
    pub conn: String,
    /// What the two agree on; the server does not read it.
    pub data: D,
}

/// `signal` as a client receives it, its `data` held as `D`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalFromWith<D> {
    /// The member who sent it, as the server knows it.
    pub from: MemberId,
    /// What it is.
    pub kind: SignalKind,
    /// The connection between the two that it belongs to.
    pub conn: String,
    /// What the two agree on; the server does not read it.
    pub data: D,
}

/// [`SignalToWith`] with parsed data: the form a client uses.
pub type SignalTo = SignalToWith<Value>;
/// [`SignalFromWith`] with parsed data: the form a client uses.
pub type SignalFrom = SignalFromWith<Value>;

/// `data` as the JSON text it came in: relayed without being read, exactly as long as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawData(Box<RawValue>);

impl RawData {
    /// Holds `text`, if it is JSON.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        RawValue::from_string(text).ok().map(Self)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RawData {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for RawData {}
