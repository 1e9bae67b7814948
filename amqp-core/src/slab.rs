//! A vector whose slots are reused. Each key contains a generation, so that a stale key finds nothing.

use crate::costs::count;

/// The position of a value in a [`Slab`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Key {
    pub(crate) const MIN: Self = Self { index: 0, generation: 0 };
    pub(crate) const MAX: Self = Self { index: u32::MAX, generation: u32::MAX };
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        count(1);
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.value = Some(value);
            return Key { index, generation: place.generation };
        }
        let index = self.places.len() as u32;
        self.places.push(Place { generation: 0, value: Some(value) });
        Key { index, generation: 0 }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        count(1);
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(value)
    }

    #[inline]
    pub(crate) fn find(&self, key: Key) -> Option<&T> {
        count(1);
        let place = self.places.get(key.index as usize)?;
        if place.generation == key.generation { place.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, key: Key) -> Option<&mut T> {
        count(1);
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        count(self.places.len());
        let places = self.places.iter().enumerate();
        let occupied = places.filter(|(_, place)| place.value.is_some());
        occupied
            .map(|(index, place)| Key { index: index as u32, generation: place.generation })
            .collect()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        count(self.places.len());
        self.places.iter_mut().filter_map(|place| place.value.as_mut())
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        count(self.places.len());
        self.places.iter().filter_map(|place| place.value.as_ref())
    }

    /// Returns the index of the first value for which `wanted` returns `true`. The search begins at `start`
    /// and wraps around.
    pub(crate) fn index_from(&self, start: usize, wanted: impl Fn(&T) -> bool) -> Option<usize> {
        let length = self.places.len();
        let mut indices = (start.min(length)..length).chain(0..start.min(length));
        indices.find(|index| {
            count(1);
            self.places.get(*index).and_then(|place| place.value.as_ref()).is_some_and(&wanted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(second.index, first.index);
        assert_eq!(slab.find(first), None);
        assert_eq!(slab.find_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.find(second), Some(&'b'));
        assert_eq!(slab.find_mut(second), Some(&mut 'b'));
        assert_eq!(slab.keys(), [second]);
        // A key that is removed twice frees its slot once.
        assert_eq!((slab.remove(second), slab.remove(second)), (Some('b'), None));
        let (third, fourth) = (slab.insert('c'), slab.insert('d'));
        assert_ne!(third.index, fourth.index);
        assert!(third != first && third != second && second != first);
        assert_eq!(slab.values().copied().collect::<String>(), "cd");
    }

    #[test]
    fn a_search_goes_around_the_end() {
        let mut slab = Slab::new();
        let keys: Vec<_> = (0..4).map(|number| slab.insert(number)).collect();
        slab.remove(keys[2]);
        assert_eq!(slab.index_from(1, |number| *number != 1), Some(3));
        assert_eq!(slab.index_from(3, |number| *number < 3), Some(0));
        assert_eq!(slab.index_from(9, |number| *number == 1), Some(1));
        assert_eq!(slab.index_from(0, |number| *number == 2), None);
    }
}
