//! What the instructions of classic BPF are called (linux/bpf_common.h, linux/filter.h). A load beyond the end of the packet ends
//! the program with 0.

/// Four bytes of the packet, in network order, into the accumulator.
pub(crate) const LOAD_WORD: u16 = 0x20;
/// Two bytes.
pub(crate) const LOAD_HALF: u16 = 0x28;
/// One byte.
pub(crate) const LOAD_BYTE: u16 = 0x30;
/// How long the packet is.
pub(crate) const LOAD_LENGTH: u16 = 0x80;
/// The accumulator, A, into X.
pub(crate) const STORE_IN_X: u16 = 0x07;
pub(crate) const XOR_X: u16 = 0xac;
pub(crate) const MULTIPLY: u16 = 0x24;
pub(crate) const SHIFT_RIGHT: u16 = 0x74;
pub(crate) const MODULO: u16 = 0x94;
pub(crate) const IF_EQUAL: u16 = 0x15;
pub(crate) const IF_GREATER: u16 = 0x25;
pub(crate) const IF_GREATER_OR_EQUAL: u16 = 0x35;
pub(crate) const IF_ANY_BIT: u16 = 0x45;
/// A constant: how much of the packet is taken, 0 drops it.
pub(crate) const RETURN: u16 = 0x06;
/// As much as A says.
pub(crate) const RETURN_A: u16 = 0x16;
