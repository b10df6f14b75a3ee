//! Packets that were changed at random: nothing panics, and nothing that is not the client's own reaches the broker.

use fairlead_tests::fuzz::mqtt::{guard, readers};
use fairlead_tests::mutated::{Dice, count, mutate, seeds};

#[test]
fn mutated_packets_make_nothing_panic_and_nothing_pass() {
    let (packets, talks) = (seeds("mqtt"), seeds("mqtt_guard"));
    let mut dice = Dice::default();
    for _ in 0..count() / 2 {
        let packet = &packets[dice.throw(packets.len())];
        readers(&mutate(&mut dice, packet));
        let talk = &talks[dice.throw(talks.len())];
        guard(&mutate(&mut dice, talk));
    }
}
