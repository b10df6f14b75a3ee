//! Packets changed at random, from the inputs that are committed for the fuzzer.

use crate::clients::asks_for_all;

/// With FAIRLEAD_TESTS_ALL.
const MANY: u32 = 3_000_000;
const SOME: u32 = 60_000;

/// How many packets a test is to make.
pub fn count() -> u32 {
    if asks_for_all() { MANY } else { SOME }
}

/// The inputs that are committed for the fuzzer.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files = std::fs::read_dir(corpus).expect("a corpus");
    files
        .map(|file| std::fs::read(file.expect("a file").path()).expect("an input"))
        .collect()
}

/// Marsaglia's xorshift, so that a failure can be had again.
pub struct Dice(u64);

impl Default for Dice {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Dice {
    /// A number below `sides`.
    pub fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % sides.max(1)
    }
}

/// A packet with up to five changes.
pub fn mutate(dice: &mut Dice, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.throw(4) {
        let at = dice.throw(bytes.len());
        match dice.throw(4) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.throw(8),
            1 if !bytes.is_empty() => bytes[at] = u8::try_from(dice.throw(256)).expect("a byte"),
            2 => bytes.insert(at.min(bytes.len()), u8::try_from(dice.throw(256)).expect("a byte")),
            _ => drop(bytes.drain(at.min(bytes.len())..(at + dice.throw(4)).min(bytes.len()))),
        }
    }
    bytes
}
