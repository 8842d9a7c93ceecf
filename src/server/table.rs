//! The connections of one loop, by token. The token of a connection that has gone never finds its successor.

use std::ops::{Index, IndexMut};

/// Low half: the index of a slot. High half: how often that slot has been freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u64);

impl Token {
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    pub(crate) fn index(self) -> u32 {
        // Truncates on purpose: the low half is the index.
        (self.0 & 0xffff_ffff) as u32
    }
}

impl Token {
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    /// The count for the connection that is here, or else for the next one.
    generation: u32,
    taken: Option<T>,
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn insert(&mut self, value: T) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, taken: None });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.taken = Some(value);
        token(slot.generation, index)
    }

    pub(crate) fn get(&self, token: Token) -> Option<&T> {
        let slot = self.slots.get(token.index() as usize).filter(|slot| slot.generation == token.generation())?;
        slot.taken.as_ref()
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.slot(token).and_then(|slot| slot.taken.as_mut())
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slot(token)?;
        let value = slot.taken.take()?;
        // Tokens repeat after 2^31 connections in one slot. The highest bit stays clear, so that no token looks like a
        // listener's.
        slot.generation = (slot.generation + 1) & 0x7fff_ffff;
        self.free.push(token.index());
        Some(value)
    }

    /// The token of the connection at an index.
    pub(crate) fn token_at(&self, index: u32) -> Option<Token> {
        let slot = self.slots.get(index as usize)?;
        slot.taken.as_ref().map(|_| token(slot.generation, index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.taken.as_ref())
    }

    pub(crate) fn tokens(&self) -> Vec<Token> {
        (0..)
            .map_while(|index| self.slots.get(index as usize).map(|_| index))
            .filter_map(|i| self.token_at(i))
            .collect()
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot<T>> {
        self.slots.get_mut(token.index() as usize).filter(|slot| slot.generation == token.generation())
    }
}

/// For whoever knows that it is there. Panics if it has gone.
impl<T> Index<Token> for Table<T> {
    type Output = T;

    fn index(&self, token: Token) -> &T {
        let slot = &self.slots[token.index() as usize];
        match &slot.taken {
            Some(value) if slot.generation == token.generation() => value,
            _ => gone(),
        }
    }
}

impl<T> IndexMut<Token> for Table<T> {
    fn index_mut(&mut self, token: Token) -> &mut T {
        match self.get_mut(token) {
            Some(value) => value,
            None => gone(),
        }
    }
}

#[cold]
fn gone() -> ! {
    panic!("a connection that has gone is looked for")
}

fn token(generation: u32, index: u32) -> Token {
    Token(u64::from(generation) << 32 | u64::from(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_finds_nothing() {
        let mut table = Table::new();
        let (one, two) = (table.insert("one"), table.insert("two"));
        assert_eq!(table.remove(one), Some("one"));
        assert_eq!(table.remove(one), None);
        let three = table.insert("three");
        assert_eq!(three.index(), one.index());
        assert_eq!(table.get_mut(one), None);
        assert_eq!(table.get_mut(three), Some(&mut "three"));
        assert_eq!(table.tokens(), [three, two]);
        assert_eq!(table.token_at(9), None);
        assert_eq!(table.len(), 2);
    }
}
