//! The bodies of the fuzz targets: the same files that `tests/fuzz` builds.

#[path = "../../../tests/fuzz/bodies/attributes.rs"]
pub(crate) mod attributes;
#[path = "../../../tests/fuzz/bodies/channel_data.rs"]
pub(crate) mod channel_data;
#[path = "../../../tests/fuzz/bodies/message.rs"]
pub(crate) mod message;
#[path = "../../../tests/fuzz/bodies/stream.rs"]
pub(crate) mod stream;
