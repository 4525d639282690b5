//! What a worker's VM remembers between requests on every host: its random generator, what it knows of the providers, the metrics that
//! it has counted, and how many bytes the requests under way keep.

use std::cell::{Cell, RefCell};

use fastrand::Rng;

use crate::record::metrics::Book;
use crate::selection::ledger::Ledger;

thread_local! {
    static KEPT: Cell<usize> = const { Cell::new(0) };
    static BOOK: RefCell<Book> = RefCell::new(Book::default());
    static MEMORY: Cell<Option<(Rng, Ledger)>> = const { Cell::new(None) };
}

/// How many bytes all requests under way together may keep in the VM's memory. A host gives a VM much more, and ends a VM that asks for
/// more than that.
const MOST_KEPT: usize = 192 << 20;

/// How many more bytes may be kept.
pub(super) fn room() -> usize {
    MOST_KEPT.saturating_sub(KEPT.get())
}

/// Counts the bytes that a request keeps, until [`free`].
pub(super) fn keep(bytes: usize) {
    KEPT.set(KEPT.get().saturating_add(bytes));
}

/// The request that kept this many bytes is over.
pub(super) fn free(bytes: usize) {
    KEPT.set(KEPT.get().saturating_sub(bytes));
}

/// Lends the worker's random generator and its memory of the providers.
pub(super) fn with_memory<T>(work: impl FnOnce(&mut Rng, &mut Ledger) -> T) -> T {
    let (mut random, mut ledger) = take_memory();
    let result = work(&mut random, &mut ledger);
    put_memory((random, ledger));
    result
}

// Out of line, because every call of the core needs both.

#[inline(never)]
fn take_memory() -> (Rng, Ledger) {
    MEMORY.take().unwrap_or_default()
}

#[inline(never)]
fn put_memory(memory: (Rng, Ledger)) {
    MEMORY.set(Some(memory));
}

/// Lends the metrics that the worker has counted.
pub(super) fn with_book(work: impl FnOnce(&mut Book)) {
    BOOK.with_borrow_mut(work);
}
