//! What a worker's VM remembers between requests, whatever the host: its random generator, the providers' records, its counts,
//! and how many bytes the requests under way keep.

use std::cell::{Cell, RefCell};

use fastrand::Rng;

use crate::record::metrics::Book;
use crate::selection::ledger::Ledger;

thread_local! {
    static KEPT: Cell<usize> = const { Cell::new(0) };
    static BOOK: RefCell<Book> = RefCell::new(Book::default());
    static MEMORY: Cell<Option<(Rng, Ledger)>> = const { Cell::new(None) };
}

/// Bytes that all requests under way may keep in the VM's memory: far below what a host gives a VM, which ends when it asks
/// for more.
const MOST_KEPT: usize = 192 << 20;

/// How many bytes more may be kept.
pub(super) fn room() -> usize {
    MOST_KEPT.saturating_sub(KEPT.get())
}

/// Notes that a request keeps so many bytes, until [`let_go`].
pub(super) fn keep(bytes: usize) {
    KEPT.set(KEPT.get().saturating_add(bytes));
}

/// The request that kept so many bytes is over.
pub(super) fn let_go(bytes: usize) {
    KEPT.set(KEPT.get().saturating_sub(bytes));
}

/// Lends the worker's generator and its memory of the records.
pub(super) fn with_memory<T>(work: impl FnOnce(&mut Rng, &mut Ledger) -> T) -> T {
    let (mut random, mut ledger) = MEMORY.take().unwrap_or_default();
    let result = work(&mut random, &mut ledger);
    MEMORY.set(Some((random, ledger)));
    result
}

/// Lends the worker's sums.
pub(super) fn with_book(work: impl FnOnce(&mut Book)) {
    BOOK.with_borrow_mut(work);
}
