#![forbid(unsafe_code)]
//! left-right: two copies of a value and a log of operations between them. Ours has one operation,
//! the whole value anew.

use left_right::{Absorb, ReadHandle, WriteHandle};

/// A value in two copies.
#[derive(Clone, Debug)]
pub struct Copies<T>(pub T);

/// The value anew.
#[derive(Debug)]
pub struct Replace<T>(T);

impl<T: Clone> Absorb<Replace<T>> for Copies<T> {
    fn absorb_first(&mut self, operation: &mut Replace<T>, _: &Self) {
        self.0.clone_from(&operation.0);
    }

    fn absorb_second(&mut self, operation: Replace<T>, _: &Self) {
        self.0 = operation.0;
    }

    fn sync_with(&mut self, first: &Self) {
        self.0.clone_from(&first.0);
    }
}

/// Both ends.
#[derive(Debug)]
pub struct LeftRight<T: Clone> {
    write: WriteHandle<Copies<T>, Replace<T>>,
    /// Where readers enter.
    pub read: ReadHandle<Copies<T>>,
}

impl<T: Clone> LeftRight<T> {
    /// Two copies of a value, published.
    pub fn new(value: T) -> LeftRight<T> {
        let (mut write, read) = left_right::new_from_empty(Copies(value));
        write.publish();
        LeftRight { write, read }
    }

    /// Replaces the value in both copies.
    pub fn save(&mut self, value: &T) {
        self.write.append(Replace(value.clone()));
        self.write.publish();
    }
}
