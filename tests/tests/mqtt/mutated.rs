//! Packets that were changed at random: nothing panics, and nothing that is not the client's own reaches the broker.

use fairlead_tests::clients::asks_for_all;
use fairlead_tests::fuzz::mqtt::{guard, readers};

/// With FAIRLEAD_TESTS_ALL.
const MANY: u32 = 3_000_000;
const SOME: u32 = 60_000;

/// The inputs that are committed for the fuzzer.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files = std::fs::read_dir(corpus).unwrap();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

/// Marsaglia's xorshift, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % sides.max(1)
    }
}

fn mutate(dice: &mut Dice, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.throw(4) {
        let at = dice.throw(bytes.len());
        match dice.throw(4) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.throw(8),
            1 if !bytes.is_empty() => bytes[at] = u8::try_from(dice.throw(256)).unwrap(),
            2 => bytes.insert(at.min(bytes.len()), u8::try_from(dice.throw(256)).unwrap()),
            _ => drop(bytes.drain(at.min(bytes.len())..(at + dice.throw(4)).min(bytes.len()))),
        }
    }
    bytes
}

#[test]
fn mutated_packets_make_nothing_panic_and_nothing_pass() {
    let count = if asks_for_all() { MANY } else { SOME };
    let (packets, talks) = (seeds("mqtt"), seeds("mqtt_guard"));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..count / 2 {
        let packet = &packets[dice.throw(packets.len())];
        readers(&mutate(&mut dice, packet));
        let talk = &talks[dice.throw(talks.len())];
        guard(&mutate(&mut dice, talk));
    }
}
