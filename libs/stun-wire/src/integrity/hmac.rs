//! HMAC (RFC 2104) for keys that sign many messages.
//!
//! The `hmac` crate keeps three hash states and a block buffer for each hash, some 350 bytes for
//! our two; a relay keeps a key for each allocation, so here a key is two bare compression states
//! of each. SHA-1 and SHA-256 share block size and padding, so one walk over the blocks serves
//! both. The tests hold it against the `hmac` crate.

use zeroize::Zeroize;

const BLOCK: usize = 64;

/// The hash states behind the key's two padded blocks. `WORDS` is 5 for SHA-1 and 8 for SHA-256.
#[derive(Clone)]
pub(super) struct Hmac<const WORDS: usize> {
    inner: [u32; WORDS],
    outer: [u32; WORDS],
}

impl<const WORDS: usize> Drop for Hmac<WORDS> {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

type Compress<const WORDS: usize> = fn(&mut [u32; WORDS], &[[u8; BLOCK]]);

impl Hmac<5> {
    const INITIAL: [u32; 5] = [
        0x6745_2301,
        0xEFCD_AB89,
        0x98BA_DCFE,
        0x1032_5476,
        0xC3D2_E1F0,
    ];
    const COMPRESS: Compress<5> = sha1::block_api::compress;

    /// The states of an HMAC-SHA1 key.
    pub(super) fn sha1(key: &[u8]) -> Self {
        Self::new(key, Self::INITIAL, Self::COMPRESS)
    }

    /// HMAC-SHA1 of some pieces in a row.
    pub(super) fn of(&self, pieces: &[&[u8]]) -> [u8; 20] {
        bytes(&self.digest(pieces, Self::COMPRESS))
    }
}

impl Hmac<8> {
    const INITIAL: [u32; 8] = [
        0x6A09_E667,
        0xBB67_AE85,
        0x3C6E_F372,
        0xA54F_F53A,
        0x510E_527F,
        0x9B05_688C,
        0x1F83_D9AB,
        0x5BE0_CD19,
    ];
    const COMPRESS: Compress<8> = sha2::block_api::compress256;

    /// The states of an HMAC-SHA256 key.
    pub(super) fn sha256(key: &[u8]) -> Self {
        Self::new(key, Self::INITIAL, Self::COMPRESS)
    }

    /// HMAC-SHA256 of some pieces in a row.
    pub(super) fn of(&self, pieces: &[&[u8]]) -> [u8; 32] {
        bytes(&self.digest(pieces, Self::COMPRESS))
    }
}

impl<const WORDS: usize> Hmac<WORDS> {
    fn new(key: &[u8], initial: [u32; WORDS], compress: Compress<WORDS>) -> Self {
        let mut block = [0; BLOCK];
        if let Some(start) = block.get_mut(..key.len()) {
            start.copy_from_slice(key);
        } else {
            // A key longer than a block is hashed first.
            let mut hashed = Blocks::new(initial, 0, compress).hash(&[key]);
            for (to, from) in block
                .iter_mut()
                .zip(hashed.iter().flat_map(|word| word.to_be_bytes()))
            {
                *to = from;
            }
            hashed.zeroize();
        }
        let keyed = |pad: u8| {
            let mut state = initial;
            compress(&mut state, &[block.map(|byte| byte ^ pad)]);
            state
        };
        let states = Self {
            inner: keyed(0x36),
            outer: keyed(0x5C),
        };
        block.zeroize();
        states
    }

    fn digest(&self, pieces: &[&[u8]], compress: Compress<WORDS>) -> [u32; WORDS] {
        let inner = Blocks::new(self.inner, BLOCK, compress).hash(pieces);
        // What the outer hash eats behind its key always is one block: the inner hash and the padding.
        let mut block = [0; BLOCK];
        let content = inner.iter().flat_map(|word| word.to_be_bytes());
        for (to, from) in block.iter_mut().zip(content.chain([0x80])) {
            *to = from;
        }
        write_length(&mut block, BLOCK + WORDS * 4);
        let mut state = self.outer;
        compress(&mut state, &[block]);
        state
    }
}

/// Cuts bytes into the blocks a compression function eats.
struct Blocks<const WORDS: usize> {
    state: [u32; WORDS],
    compress: Compress<WORDS>,
    block: [u8; BLOCK],
    filled: usize,
    total: usize,
}

impl<const WORDS: usize> Blocks<WORDS> {
    /// From a state that has eaten `before` bytes, a multiple of the block.
    fn new(state: [u32; WORDS], before: usize, compress: Compress<WORDS>) -> Self {
        Self {
            state,
            compress,
            block: [0; BLOCK],
            filled: 0,
            total: before,
        }
    }

    fn hash(mut self, pieces: &[&[u8]]) -> [u32; WORDS] {
        for piece in pieces {
            self.total += piece.len();
            self.update(piece);
        }
        // Padding: a one bit, zeros, and the length in bits at the end of a block. There is room for the bit: a full block
        // is eaten at once.
        let has_room = self.filled < BLOCK - 8;
        if let Some([first, rest @ ..]) = self.block.get_mut(self.filled..) {
            *first = 0x80;
            rest.fill(0);
        }
        if !has_room {
            (self.compress)(&mut self.state, &[self.block]);
            self.block = [0; BLOCK];
        }
        write_length(&mut self.block, self.total);
        (self.compress)(&mut self.state, &[self.block]);
        self.state
    }

    fn update(&mut self, mut bytes: &[u8]) {
        if self.filled > 0 {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.store(now);
            bytes = later;
            if self.filled < BLOCK {
                return;
            }
            (self.compress)(&mut self.state, &[self.block]);
            self.filled = 0;
        }
        let (whole, rest) = bytes.as_chunks::<BLOCK>();
        (self.compress)(&mut self.state, whole);
        self.store(rest);
    }

    fn store(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        if let Some(space) = self.block.get_mut(self.filled..end) {
            space.copy_from_slice(bytes);
        }
        self.filled = end;
    }
}

/// The length of a message in bits, where the last block of its padding has it.
fn write_length(block: &mut [u8; BLOCK], bytes: usize) {
    if let Some(end) = block.last_chunk_mut() {
        *end = (bytes as u64).wrapping_mul(8).to_be_bytes();
    }
}

fn bytes<const WORDS: usize, const LEN: usize>(words: &[u32; WORDS]) -> [u8; LEN] {
    let mut out = [0; LEN];
    for (to, from) in out
        .iter_mut()
        .zip(words.iter().flat_map(|word| word.to_be_bytes()))
    {
        *to = from;
    }
    out
}
