//! Shuffle sharding: which few of many queues a flow may use.
//!
//! Two flows share all of their queues only by an unlikely accident, so that one that fills its own leaves others
//! at least one that is free.

/// The queues that a flow may use: `hand` of `deck`, all different, always the same for one hash.
pub(super) fn hand(hash: u64, deck: usize, hand: usize) -> impl Iterator<Item = usize> {
    let mut left = hash;
    let mut dealt: Vec<usize> = Vec::with_capacity(hand);
    (0..hand.min(deck)).map(move |index| {
        let remaining = (deck - index) as u64;
        let mut card = (left % remaining) as usize;
        left /= remaining;
        // The card is counted among those that are not dealt yet.
        let mut place = 0;
        while place < dealt.len() && dealt[place] <= card {
            card += 1;
            place += 1;
        }
        dealt.insert(place, card);
        card
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_hand_has_different_cards_of_the_deck() {
        for hash in (0..1000).map(|number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            let cards: Vec<usize> = hand(hash, 64, 8).collect();
            assert_eq!(cards.iter().collect::<BTreeSet<_>>().len(), 8);
            assert!(cards.iter().all(|card| *card < 64));
            assert_eq!(cards, hand(hash, 64, 8).collect::<Vec<_>>());
        }
        assert_eq!(hand(7, 1, 8).collect::<Vec<_>>(), [0]);
        assert_eq!(hand(0, 3, 3).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn every_card_is_dealt_about_as_often() {
        let mut counts = [0; 16];
        for hash in (0..8000).map(|number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            hand(hash, 16, 4).for_each(|card| counts[card] += 1);
        }
        assert!(counts.iter().all(|count| (1500..2500).contains(count)), "{counts:?}");
    }
}
