//! First packets that were changed at random: nothing panics, and what is read is written back.

use fairlead_tests::fuzz::rdp;
use fairlead_tests::mutated::{Dice, count, mutate, seeds};

#[test]
fn mutated_requests_make_nothing_panic() {
    let (packets, mut dice) = (seeds("rdp"), Dice::default());
    for _ in 0..count() {
        let packet = &packets[dice.throw(packets.len())];
        rdp(&mutate(&mut dice, packet));
    }
}
