//! The automaton of a pattern: a state is a set of places between tokens, one bit for each.

use super::{MAX_PATH, SLASH};

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// This character.
    Unit(u32),
    /// Any but a slash.
    One,
    /// One of a set.
    Class(Class),
    /// Any number of them, no slash among them.
    Star,
    /// Anything.
    Any,
    /// Nothing, or anything up to a slash.
    Dirs,
}

impl Token {
    fn takes_one(&self) -> bool {
        matches!(self, Self::Unit(_) | Self::One | Self::Class(_))
    }
}

/// A bracket expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    negated: bool,
    /// In order, apart from each other.
    ranges: Vec<(u32, u32)>,
}

impl Class {
    /// A range whose end is before its start is empty.
    pub(super) fn new(negated: bool, mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.retain(|(low, high)| low <= high);
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let joins = next.0 <= kept.1;
            kept.1 = if joins { kept.1.max(next.1) } else { kept.1 };
            joins
        });
        Self { negated, ranges }
    }

    fn contains(&self, unit: u32) -> bool {
        let at = self.ranges.partition_point(|(_, high)| *high < unit);
        self.ranges.get(at).is_some_and(|(low, _)| *low <= unit) != self.negated
    }
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Nfa {
    /// The words of a state; none for a pattern that matches no path.
    words: usize,
    /// The bit of the end.
    end: usize,
    start: Vec<u64>,
    /// The tokens that a character of ASCII satisfies: `words` words for each of 128.
    ascii: Vec<u64>,
    /// The places of other characters, in their order.
    others: Vec<(u32, usize)>,
    one: Vec<u64>,
    classes: Vec<(Class, usize)>,
    star: Vec<u64>,
    any: Vec<u64>,
    dirs: Vec<u64>,
}

const ASCII: u32 = 128;

fn set(words: &mut [u64], bit: usize) {
    if let Some(word) = words.get_mut(bit / 64) {
        *word |= 1 << (bit % 64);
    }
}

impl Nfa {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        let never = tokens.iter().filter(|t| t.takes_one()).count() > MAX_PATH;
        let tokens = if never { Vec::new() } else { tokens };
        let words = if never { 0 } else { tokens.len() / 64 + 1 };
        let empty = vec![0; words];
        let mut nfa = Self {
            words,
            end: tokens.len(),
            start: empty.clone(),
            ascii: vec![0; words * ASCII as usize],
            others: Vec::new(),
            one: empty.clone(),
            classes: Vec::new(),
            star: empty.clone(),
            any: empty.clone(),
            dirs: empty,
        };
        for (at, token) in tokens.into_iter().enumerate() {
            nfa.place(at, token);
        }
        nfa.others.sort_unstable();
        nfa.begin();
        nfa
    }

    fn place(&mut self, at: usize, token: Token) {
        match token {
            Token::Unit(unit) if unit >= ASCII => self.others.push((unit, at)),
            Token::Unit(unit) => self.place_ascii(at, |u| u == unit),
            Token::One => {
                set(&mut self.one, at);
                self.place_ascii(at, |u| u != SLASH);
            }
            Token::Class(class) => {
                self.place_ascii(at, |u| class.contains(u));
                self.classes.push((class, at));
            }
            Token::Star => set(&mut self.star, at),
            Token::Any => set(&mut self.any, at),
            Token::Dirs => set(&mut self.dirs, at),
        }
    }

    fn place_ascii(&mut self, at: usize, is: impl Fn(u32) -> bool) {
        if self.words == 0 {
            return;
        }
        for (unit, mask) in (0..ASCII).zip(self.ascii.chunks_exact_mut(self.words)) {
            if is(unit) {
                set(mask, at);
            }
        }
    }

    /// The first place, and those that wildcards for nothing lead to.
    fn begin(&mut self) {
        let mut start = std::mem::take(&mut self.start);
        set(&mut start, 0);
        let mut at = 0;
        let wild = |at: usize| {
            [&self.star, &self.any, &self.dirs]
                .iter()
                .any(|mask| mask.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0))
        };
        while wild(at) {
            at += 1;
            set(&mut start, at);
        }
        self.start = start;
    }

    /// The state before the first character.
    pub(super) fn start(&self) -> &[u64] {
        &self.start
    }

    /// The words of a state.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    pub(super) fn accepts(&self, state: &[u64]) -> bool {
        state.get(self.end / 64).is_some_and(|word| word & (1 << (self.end % 64)) != 0)
    }

    /// Goes on by a character; whether something can still come of it.
    pub(super) fn step(&self, state: &mut [u64], unit: u32) -> bool {
        if unit < ASCII {
            let at = unit as usize * self.words;
            let takes = self.ascii.get(at..at + self.words).unwrap_or_default();
            return self.advance(state, takes, unit == SLASH);
        }
        let mut takes = self.one.clone();
        let from = self.others.partition_point(|(other, _)| *other < unit);
        let same = self.others.iter().skip(from).take_while(|(other, _)| *other == unit);
        same.for_each(|(_, at)| set(&mut takes, *at));
        let hit = self.classes.iter().filter(|(class, _)| class.contains(unit));
        hit.for_each(|(_, at)| set(&mut takes, *at));
        self.advance(state, &takes, false)
    }

    fn advance(&self, state: &mut [u64], takes: &[u64], slash: bool) -> bool {
        // Bits that go from one word to the next: by a character, by a wildcard for nothing, by a second one.
        let mut carry = [0u64; 3];
        let mut all = 0;
        let (star, any, dirs) = (self.star.iter(), self.any.iter(), self.dirs.iter());
        for ((((now, takes), star), any), dirs) in state.iter_mut().zip(takes).zip(star).zip(any).zip(dirs) {
            let taken = *now & takes;
            let in_dirs = *now & dirs;
            let mut here = (taken << 1) | carry[0] | (*now & any);
            here |= if slash { in_dirs } else { *now & star };
            // Wildcards stand next to each other at most by two: `**/` and then `*` or `**` at the end.
            let wild = star | any | dirs;
            let first = ((here & wild) << 1) | carry[1];
            let second = ((first & wild) << 1) | carry[2];
            carry = [taken >> 63, (here & wild) >> 63, (first & wild) >> 63];
            *now = here | in_dirs | first | second;
            all |= *now;
        }
        all != 0
    }
}
