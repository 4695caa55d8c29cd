//! SipHash-1-3 of two words: a keyed hash, so that nobody outside can choose who shares a bucket.
//!
//! The standard library has it, but neither with a key of ours nor without building a hasher first.

/// The secret of a hash function.
#[derive(Clone, Copy)]
pub(crate) struct Key(u64, u64);

impl Key {
    pub(crate) fn new(bytes: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(bytes);
        let [high, low] = [both >> 64, both & u128::from(u64::MAX)];
        let word = |half| u64::try_from(half).expect("half of 128 bits are 64");
        Self(word(low), word(high))
    }

    /// The hash of `first` and `second` as 16 little-endian bytes.
    pub(crate) fn hash(self, first: u64, second: u64) -> u64 {
        let mut state = State {
            v0: self.0 ^ 0x736f_6d65_7073_6575,
            v1: self.1 ^ 0x646f_7261_6e64_6f6d,
            v2: self.0 ^ 0x6c79_6765_6e65_7261,
            v3: self.1 ^ 0x7465_6462_7974_6573,
        };
        state.absorb(first);
        state.absorb(second);
        // The last word holds what is left of the input (nothing) and its length in the top byte.
        state.absorb(16 << 56);
        state.v2 ^= 0xff;
        for _ in 0..3 {
            state.round();
        }
        state.v0 ^ state.v1 ^ state.v2 ^ state.v3
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The standard library's hasher is SipHash-1-3 with the key 0, and an oracle for that key.
        #[test]
        fn it_is_the_standard_librarys_hash(first: u64, second: u64) {
            let mut oracle = DefaultHasher::new();
            oracle.write(&first.to_le_bytes());
            oracle.write(&second.to_le_bytes());
            prop_assert_eq!(Key::new([0; 16]).hash(first, second), oracle.finish());
        }

        #[test]
        fn every_bit_of_the_key_matters(bit in 0..128_u32, first: u64) {
            let key = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128;
            let other = key ^ (1 << bit);
            let hash = |key: u128| Key::new(key.to_le_bytes()).hash(first, 0);
            prop_assert_ne!(hash(key), hash(other));
        }
    }
}
