//! Seeded damage to messages: the same seed gives the same bytes on every machine.

/// A small generator (splitmix64): reproducible without a dependency.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).expect("64 bits")).expect("below")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// One to four random changes, of the kinds that break parsers.
pub(crate) fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        match random.below(10) {
            0 | 1 => flip(bytes, random),
            2 => set(bytes, random),
            3 => {
                let end = random.below(bytes.len() + 1);
                bytes.truncate(end);
            }
            4 => (0..=random.below(9)).for_each(|_| bytes.push(random.byte())),
            5 => attribute_header(bytes, random),
            6 => insert_attribute(bytes, random),
            7 => remove_word(bytes, random),
            8 => repeat(bytes, random),
            _ => fix_length(bytes),
        }
    }
    // Half of them get a plausible header, that the damage inside is reached.
    if random.below(2) == 0 {
        fix_length(bytes);
    }
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn set(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte = [0, 1, 0x7F, 0x80, 0xFF, random.byte()][random.below(6)];
    }
}

/// Writes a type or length that means something over a random word.
fn attribute_header(bytes: &mut [u8], random: &mut Random) {
    const TYPES: [u16; 10] = [
        0x0001, 0x0006, 0x0008, 0x0009, 0x0014, 0x0015, 0x001C, 0x0020, 0x8028, 0x7FFF,
    ];
    const LENGTHS: [u16; 10] = [0, 1, 4, 8, 16, 20, 32, 36, 0xFFFC, 0xFFFF];
    let at = 20 + random.below(bytes.len() / 4) * 4;
    let pick = random.below(10);
    let (offset, value) = if random.below(2) == 0 {
        (0, TYPES[pick])
    } else {
        (2, LENGTHS[pick])
    };
    if let Some(field) = bytes.get_mut(at + offset..at + offset + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

fn insert_attribute(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = (20 + random.below(bytes.len() / 4) * 4).min(bytes.len());
    let length = random.below(12);
    let mut attribute = vec![
        random.byte(),
        random.byte(),
        0,
        u8::try_from(length).expect("small"),
    ];
    attribute.resize(4 + length.next_multiple_of(4), random.byte());
    bytes.splice(at..at, attribute);
}

fn remove_word(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() / 4) * 4;
    if at + 4 <= bytes.len() {
        bytes.drain(at..at + 4);
    }
}

fn repeat(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() / 4) * 4;
    let end = (at + random.below(10) * 4).min(bytes.len());
    let copy = bytes.get(at..end).unwrap_or_default().to_vec();
    bytes.extend_from_slice(&copy);
}

/// Makes the length field of a message what it should be, if there is one.
pub(crate) fn fix_length(bytes: &mut [u8]) {
    let body = bytes.len().saturating_sub(20);
    if let (Some(field), Ok(length)) = (bytes.get_mut(2..4), u16::try_from(body)) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}
