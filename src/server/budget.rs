//! The memory that all request bodies together may take: reserved before they come, and given back when they are gone.

use crate::sync::{Arc, AtomicUsize, Ordering};

/// If a body's length is not known beforehand, its reservation grows in steps of this size.
const STEP_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct Budget {
    reserved: AtomicUsize,
    bytes_max: usize,
}

/// A part of a budget. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Reserved {
    of: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { reserved: AtomicUsize::new(0), bytes_max })
    }

    /// Makes `reserved` cover `bytes`. Returns false if the budget has no room for that.
    pub(crate) fn cover(self: &Arc<Self>, reserved: &mut Option<Reserved>, bytes: usize) -> bool {
        let have = reserved.as_ref().map_or(0, |reserved| reserved.bytes);
        let more = bytes.saturating_sub(have).div_ceil(STEP_BYTES).saturating_mul(STEP_BYTES);
        if more == 0 {
            return true;
        }
        let has_room = |before: usize| before.checked_add(more).filter(|sum| *sum <= self.bytes_max);
        if self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).is_err() {
            return false;
        }
        reserved.get_or_insert_with(|| Reserved { of: Arc::clone(self), bytes: 0 }).bytes += more;
        true
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.of.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_comes_back() {
        let budget = Budget::new(4 * STEP_BYTES);
        let (mut one, mut two) = (None, None);
        assert!(budget.cover(&mut one, 0) && one.is_none());
        assert!(budget.cover(&mut one, 1));
        assert!(budget.cover(&mut one, STEP_BYTES));
        assert!(budget.cover(&mut two, 3 * STEP_BYTES));
        assert!(!budget.cover(&mut one, STEP_BYTES + 1));
        assert!(!budget.cover(&mut None, usize::MAX));
        drop(two);
        assert!(budget.cover(&mut one, 4 * STEP_BYTES));
        drop(one);
        assert_eq!(budget.reserved.load(Ordering::Relaxed), 0);
    }
}
