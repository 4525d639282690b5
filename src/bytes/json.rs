//! JSON without a tree: values are read where they stand in the text, and written into one text.
//!
//! A text is checked once ([`object`], [`Fields::read`]). Everything else here runs over text that is known to be valid, and
//! so can skip what does not matter by its quotes and brackets alone.
//!
//! A tree would be slower, and it would sort the fields of a schema: models write the fields of an answer in the order of
//! the schema, so that a reasoning which is asked for before a verdict must stay before it.

mod cursor;
mod fields;
mod mend;
mod raw;
mod scan;
mod surrogates;
mod writer;

pub use cursor::{elements, object, place, Cursor};
pub(crate) use fields::raw_object;
pub use fields::{fields, members, plausible_fields, Fields};
pub use mend::{mend, Mended};
pub use raw::Raw;
pub use scan::Scanner;
pub use surrogates::{lossy, split_half};
pub use writer::{quoted, Writer};
