//! What was prepared for tensors at certain places, found again by their shapes and then by their addresses.

use std::collections::HashMap;

use sightline_core::{DType, Shape};

/// A tensor's type and size.
pub(crate) type Form = (DType, Shape);

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For tensors of the same forms.
    pub(crate) of_forms: usize,
    /// In all.
    pub(crate) total: usize,
}

/// Whatever is kept for sets of addresses. Each set of forms (a batch's size, slots in use) has room of its own, so that one
/// does not push out another's. Where more is wanted than there is room for, what goes is drawn by lot: of addresses
/// that go round, whoever goes oldest first would lose every one just before its turn.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    groups: Vec<Group<T>>,
    limits: Limits,
    clock: u64,
    lot: u64,
}

#[derive(Debug)]
struct Group<T> {
    forms: Vec<Form>,
    at: HashMap<Box<[u64]>, Entry<T>>,
    used: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    stays: bool,
}

impl<T> Kept<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { groups: Vec::new(), limits, clock: 0, lot: 0x9e37_79b9_7f4a_7c15 }
    }

    /// What is kept for tensors of these forms at these addresses.
    pub(crate) fn get(
        &mut self,
        forms: impl Iterator<Item = Form> + Clone,
        addresses: &[u64],
    ) -> Option<&mut T> {
        self.clock += 1;
        let group = self.groups.iter_mut().find(|group| group.is_of(forms.clone()))?;
        group.used = self.clock;
        group.at.get_mut(addresses).map(|entry| &mut entry.value)
    }

    /// Lets go of what is of no use to anybody, if there is no room for more of these forms.
    pub(crate) fn make_room(
        &mut self,
        forms: impl Iterator<Item = Form> + Clone,
        useless: impl Fn(&T) -> bool,
    ) {
        let own = self.groups.iter().find(|group| group.is_of(forms.clone()));
        let full = own.is_some_and(|group| group.at.len() >= self.limits.of_forms);
        if full || self.len() >= self.limits.total {
            for group in &mut self.groups {
                group.at.retain(|_, entry| !useless(&entry.value));
            }
            self.groups.retain(|group| !group.at.is_empty());
        }
    }

    /// Keeps something, and if it `stays` for good.
    pub(crate) fn put(
        &mut self,
        forms: impl Iterator<Item = Form> + Clone,
        addresses: &[u64],
        value: T,
        stays: bool,
    ) {
        let own = self.groups.iter().position(|group| group.is_of(forms.clone()));
        let own = own.unwrap_or_else(|| {
            self.groups.push(Group { forms: forms.collect(), at: HashMap::new(), used: self.clock });
            self.groups.len() - 1
        });
        let lot = self.draw();
        if self.groups[own].at.len() >= self.limits.of_forms {
            self.groups[own].drop_one(lot);
        } else if self.len() >= self.limits.total {
            let oldest = self.groups.iter_mut().filter(|group| group.droppable().next().is_some());
            if let Some(oldest) = oldest.min_by_key(|group| group.used) {
                oldest.drop_one(lot);
            }
        }
        self.groups[own].at.insert(addresses.into(), Entry { value, stays });
        self.groups.retain(|group| !group.at.is_empty());
    }

    fn len(&self) -> usize {
        self.groups.iter().map(|group| group.at.len()).sum()
    }

    /// xorshift64
    fn draw(&mut self) -> u64 {
        self.lot ^= self.lot << 13;
        self.lot ^= self.lot >> 7;
        self.lot ^= self.lot << 17;
        self.lot
    }
}

impl<T> Group<T> {
    fn is_of(&self, forms: impl Iterator<Item = Form>) -> bool {
        self.forms.iter().copied().eq(forms)
    }

    fn droppable(&self) -> impl Iterator<Item = &Box<[u64]>> {
        self.at.iter().filter(|(_, entry)| !entry.stays).map(|(addresses, _)| addresses)
    }

    fn drop_one(&mut self, lot: u64) {
        let count = self.droppable().count().max(1);
        let drawn = self.droppable().nth((lot % count as u64) as usize).cloned();
        if let Some(drawn) = drawn {
            self.at.remove(&drawn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { of_forms: 200, total: 700 };

    fn of(batch: usize) -> impl Iterator<Item = Form> + Clone {
        let form = (DType::F32, Shape::new(&[batch, 4]).unwrap());
        std::iter::repeat_n(form, 2)
    }

    /// Whether it was there; if not, it is now.
    fn meet(kept: &mut Kept<u64>, batch: usize, address: u64) -> bool {
        let addresses = [address, 7];
        if let Some(found) = kept.get(of(batch), &addresses) {
            assert_eq!(*found, address + batch as u64, "its own");
            return true;
        }
        kept.put(of(batch), &addresses, address + batch as u64, false);
        assert!(kept.len() <= LIMITS.total);
        false
    }

    #[test]
    fn four_batch_sizes_whose_addresses_go_round_are_prepared_once() {
        let mut kept = Kept::new(LIMITS);
        let mut missed = 0;
        for _ in 0..4 {
            for address in 0..165 {
                missed += [1, 2, 4, 8].iter().filter(|batch| !meet(&mut kept, **batch, address)).count();
            }
        }
        assert_eq!(missed, 4 * 165);
    }

    #[test]
    fn more_addresses_than_there_is_room_for_are_mostly_found_all_the_same() {
        let mut kept = Kept::new(LIMITS);
        (0..250).for_each(|address| _ = meet(&mut kept, 1, address));
        let found = (0..10 * 250).filter(|round| meet(&mut kept, 1, round % 250)).count();
        // Oldest first would find none.
        assert!(found > 10 * 250 / 2, "{found}");
        assert_eq!(kept.len(), LIMITS.of_forms);
    }

    #[test]
    fn forms_that_are_not_met_any_more_make_room() {
        let mut kept = Kept::new(LIMITS);
        for batch in 1..60 {
            (0..100).for_each(|address| _ = meet(&mut kept, batch, address));
            (0..50).for_each(|address| assert!(batch == 1 || meet(&mut kept, 1, address), "in use"));
        }
        assert_eq!(kept.len(), LIMITS.total);
        assert!(kept.groups.len() < 12, "{} groups", kept.groups.len());
    }

    #[test]
    fn what_is_of_no_use_goes_before_lots_are_drawn() {
        let mut kept = Kept::new(LIMITS);
        (0..200).for_each(|address| _ = meet(&mut kept, 1, address));
        // The feed whose addresses were even is gone.
        kept.make_room(of(2), |value| value % 2 == 1);
        assert_eq!(kept.len(), 200, "there is room for others");
        kept.make_room(of(1), |value| value % 2 == 1);
        assert_eq!(kept.len(), 100);
        (0..100).for_each(|address| assert!(meet(&mut kept, 1, 2 * address + 1), "the others stay"));
    }

    #[test]
    fn what_is_to_stay_stays() {
        let mut kept = Kept::new(LIMITS);
        (0..64).for_each(|address| kept.put(of(1), &[address], address, true));
        for batch in 1..40 {
            (100..350).for_each(|address| _ = meet(&mut kept, batch, address));
        }
        assert!((0..64).all(|address| kept.get(of(1), &[address]).copied() == Some(address)));
    }
}
