//! Sets of nodes by their numbers, one bit each: what labels pick is cut and joined without a look at the nodes.

const BITS: usize = u64::BITS as usize;

/// A set of node numbers.
#[derive(Clone, Debug, Default)]
pub struct NodeSet {
    words: Vec<u64>,
}

impl NodeSet {
    /// Adds a number.
    pub fn insert(&mut self, number: usize) {
        if self.words.len() <= number / BITS {
            self.words.resize(number / BITS + 1, 0);
        }
        self.words[number / BITS] |= 1 << (number % BITS);
    }

    /// Takes a number out.
    pub fn remove(&mut self, number: usize) {
        if let Some(word) = self.words.get_mut(number / BITS) {
            *word &= !(1 << (number % BITS));
        }
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: usize) -> bool {
        self.words.get(number / BITS).is_some_and(|word| word & (1 << (number % BITS)) != 0)
    }

    /// Keeps what is in the other too.
    pub fn intersect(&mut self, other: &NodeSet) {
        self.words.truncate(other.words.len());
        for (word, theirs) in self.words.iter_mut().zip(&other.words) {
            *word &= theirs;
        }
    }

    /// Adds what is in the other.
    pub fn unite(&mut self, other: &NodeSet) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, theirs) in self.words.iter_mut().zip(&other.words) {
            *word |= theirs;
        }
    }

    /// Takes out what is in the other.
    pub fn subtract(&mut self, other: &NodeSet) {
        for (word, theirs) in self.words.iter_mut().zip(&other.words) {
            *word &= !theirs;
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// All of them, upwards from `start` and then, from the lowest, those below it.
    pub fn iter_from(&self, start: usize) -> impl Iterator<Item = usize> {
        let (first, bit) = (start / BITS, start % BITS);
        let below = (1 << bit) - 1;
        let word = move |at: usize, mask: u64| Bits { base: at * BITS, left: self.words[at] & mask };
        let count = self.words.len();
        let above = (first < count).then(|| word(first, !below));
        let rest = (first + 1..count).chain(0..first.min(count)).map(move |at| word(at, !0));
        let last = (first < count).then(|| word(first, below));
        above.into_iter().chain(rest).chain(last).flatten()
    }
}

/// The numbers in one word.
struct Bits {
    base: usize,
    left: u64,
}

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let bit = (self.left != 0).then(|| self.left.trailing_zeros() as usize)?;
        self.left &= self.left - 1;
        Some(self.base + bit)
    }
}

impl FromIterator<usize> for NodeSet {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> NodeSet {
        let mut set = NodeSet::default();
        numbers.into_iter().for_each(|number| set.insert(number));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[usize]) -> NodeSet {
        numbers.iter().copied().collect()
    }

    fn list(set: &NodeSet) -> Vec<usize> {
        set.iter_from(0).collect()
    }

    #[test]
    fn sets_are_cut_joined_and_subtracted_whatever_their_lengths() {
        let (short, long) = (set(&[1, 5, 63]), set(&[5, 64, 200]));
        let with = |act: fn(&mut NodeSet, &NodeSet), one: &NodeSet, other: &NodeSet| {
            let mut result = one.clone();
            act(&mut result, other);
            list(&result)
        };
        assert_eq!(with(NodeSet::intersect, &short, &long), [5]);
        assert_eq!(with(NodeSet::intersect, &long, &short), [5]);
        assert_eq!(with(NodeSet::unite, &short, &long), [1, 5, 63, 64, 200]);
        assert_eq!(with(NodeSet::unite, &long, &short), [1, 5, 63, 64, 200]);
        assert_eq!(with(NodeSet::subtract, &short, &long), [1, 63]);
        assert_eq!(with(NodeSet::subtract, &long, &short), [64, 200]);
    }

    #[test]
    fn a_round_begins_anywhere_and_misses_nobody() {
        let numbers = set(&[0, 3, 63, 64, 130]);
        for (start, round) in [
            (0, [0, 3, 63, 64, 130]),
            (3, [3, 63, 64, 130, 0]),
            (4, [63, 64, 130, 0, 3]),
            (65, [130, 0, 3, 63, 64]),
            (131, [0, 3, 63, 64, 130]),
            (1000, [0, 3, 63, 64, 130]),
        ] {
            assert_eq!(numbers.iter_from(start).collect::<Vec<_>>(), round, "from {start}");
        }
        assert_eq!(set(&[]).iter_from(7).count(), 0);
    }

    #[test]
    fn numbers_come_and_go() {
        let mut numbers = set(&[2, 70]);
        assert!(numbers.contains(70) && !numbers.contains(3) && !numbers.contains(1000));
        assert_eq!(numbers.len(), 2);
        numbers.remove(70);
        numbers.remove(1000);
        assert!(!numbers.contains(70) && !numbers.is_empty());
        numbers.remove(2);
        assert!(numbers.is_empty());
    }
}
