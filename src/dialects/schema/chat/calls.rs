//! The tool calls of a stream: which call a piece belongs to, and when a call begins for the client.
//!
//! Clients join the pieces of a call: the first piece has the id and the name, and the later ones add to the arguments. So a call
//! begins for the client when its id and its whole name are known. Vendors may send a name in pieces, so it is known to be whole only
//! at the first arguments, the next call or the finish. Until then nothing of the call is forwarded; a missing id is made then.
//! After that neither id, type nor name are forwarded again.

use super::piece::{more, print, substance, Kept, Piece};
use super::shape::Shape;
use crate::bytes::json::{elements, place};

/// The most tool calls of one answer. What is known of each is remembered to the answer's end.
const MOST_CALLS: usize = 256;
/// The most bytes of one answer that are kept because their calls have not begun for the client.
const MOST_KEPT: usize = 64 << 10;

/// Why the calls of an answer cannot be told to the client.
pub(super) type Unusable = &'static str;
const TOO_MANY: Unusable = "the provider sent too many tool calls";
const TOO_LONG: Unusable = "the provider sent a tool call whose beginning is too long";
const NAMELESS: Unusable = "the provider sent a tool call without a name";

/// The tool calls that an answer has begun so far, in all its choices.
#[derive(Debug, Default)]
pub struct Calls {
    list: Vec<Known>,
    /// The fingerprints of the ids that the client has, of all choices.
    told: Vec<u64>,
    /// The choices whose role was told to the client, as one bit per `index` (0 to 63).
    roles: u64,
    /// The name in the first piece of a call is whole.
    names_are_whole: bool,
}

/// One call.
#[derive(Debug)]
struct Known {
    choice: usize,
    /// The provider's index.
    index: Option<u64>,
    /// The fingerprint of the provider's id; 0 if it has sent none.
    id: u64,
    /// The fingerprint of the name so far; 0 if there is none.
    name: u64,
    /// Some of its arguments have come that are not blank.
    has_arguments: bool,
    /// The fingerprint of its first arguments, if they are whole; 0 otherwise.
    whole: u64,
    /// It is a call of a custom tool, whose input is any text.
    is_custom: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// It has not begun for the client.
    Kept(Box<Kept>),
    /// It has begun for the client, with this index.
    Told { place: usize },
}

/// What the client gets before a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Earlier {
    /// A whole chunk, which was kept.
    Chunk(String),
    /// A piece of a tool call of this choice.
    Piece(usize, String),
}

/// The delta of one choice.
pub(super) struct Delta<'a> {
    /// The number of its choice.
    pub(super) choice: usize,
    /// Its `tool_calls`; empty if there are none.
    pub(super) list: &'a str,
    /// The chunk has the choice's finish reason.
    pub(super) finishes: bool,
    /// The JSON of its chunk, if that follows OpenAI's schema, and has nothing in it but this delta and its calls.
    pub(super) chunk: &'a dyn Fn() -> Option<&'a str>,
}

/// What becomes of the tool calls of one delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Some or all stay in it.
    Stay,
    /// None of them stays in it.
    Gone,
    /// The whole chunk is kept.
    Kept,
}

/// Where the client's pieces are written.
pub(super) struct Output<'a, 'b> {
    /// The changes of the chunk.
    pub(super) shape: &'a mut Shape<'b>,
    /// What comes before the chunk.
    pub(super) earlier: &'a mut Vec<Earlier>,
    /// The end of the last element that stays in the chunk's list.
    pub(super) stays: Option<usize>,
}

impl Output<'_, '_> {
    /// Adds a piece behind what the client has got so far, so that calls begin in the order of their indices.
    fn push(&mut self, choice: usize, piece: String) {
        match self.stays {
            Some(end) => self.shape.splices.insert(end, [",", &piece].concat()),
            None => self.earlier.push(Earlier::Piece(choice, piece)),
        }
    }
}

impl Known {
    fn kept(&self) -> Option<&Kept> {
        match &self.stage {
            Stage::Kept(kept) => Some(kept),
            Stage::Told { .. } => None,
        }
    }

    fn is_kept(&self) -> bool {
        self.kept().is_some()
    }
}

impl Calls {
    /// No calls. `names_are_whole` says that the provider never sends a name in pieces.
    pub fn new(names_are_whole: bool) -> Self {
        Self { names_are_whole, ..Self::default() }
    }

    /// Notes that the role of a choice is told. Returns whether it was told before.
    pub(super) fn tell_role(&mut self, choice: usize) -> bool {
        let bit = u32::try_from(choice).ok().and_then(|choice| 1_u64.checked_shl(choice)).unwrap_or(0);
        let told = self.roles & bit != 0;
        self.roles |= bit;
        told
    }

    /// Whether a call has not begun for the client. Without a name and arguments it is none.
    #[inline(never)]
    pub fn are_kept(&self) -> bool {
        self.list.iter().any(|call| call.is_kept() && (call.name != 0 || call.has_arguments))
    }

    /// Whether a choice has calls.
    pub(super) fn are_in(&self, choice: usize) -> bool {
        self.list.iter().any(|call| call.choice == choice)
    }

    /// Reads the tool calls of a delta, and writes the changes that they need.
    pub(super) fn read(&mut self, delta: &Delta<'_>, mut out: Output<'_, '_>) -> Result<Fate, Unusable> {
        let list = elements(delta.list).unwrap_or_default();
        let mut items = Vec::with_capacity(list.len());
        // The call whose name the element before this one had.
        let mut named = None;
        for raw in &list {
            let piece = Piece::read(raw);
            let found = self.find(delta.choice, &piece, named);
            let at = match found {
                Some(at) => at,
                None => self.begin(delta.choice, &piece, &mut out)?,
            };
            let stays = self.add(at, found.is_none(), &piece, delta, &mut out)?;
            let begins = !stays && found.is_none() && list.len() == 1;
            if begins && (delta.chunk)().is_some_and(|chunk| self.keep_chunk(at, &piece, chunk)) {
                return Ok(Fate::Kept);
            }
            let place = out.shape.place(raw);
            out.stays = if stays { Some(place.end) } else { out.stays };
            items.push((place, !stays));
            named = (!piece.name.is_empty()).then_some(at);
        }
        if delta.finishes {
            self.finish(delta.choice, &mut out)?;
        }
        if out.stays.is_none() && !items.is_empty() {
            return Ok(Fate::Gone);
        }
        out.shape.drop_items(&items);
        Ok(Fate::Stay)
    }

    /// The call that a piece belongs to; `None` if it begins a new one. `named` is the call whose name stands in the element before.
    fn find(&self, choice: usize, piece: &Piece<'_>, named: Option<usize>) -> Option<usize> {
        let last = |is: &dyn Fn(&Known) -> bool| {
            self.list.iter().rposition(|call| call.choice == choice && is(call))
        };
        let is_at = |call: &Known| match (piece.index, call.index) {
            (Some(index), Some(known)) => index == known,
            _ => true,
        };
        let (id, is_named) = (piece.id_print(), !piece.name.is_empty());
        if id != 0 {
            // Some vendors do not count, but repeat the id. A name at an index of its own begins a call, whatever its id.
            let is_free = is_named && last(&is_at).is_none();
            let same = last(&|call| call.id == id && is_at(call)).or_else(|| last(&|call| call.id == id));
            if let Some(at) = same.filter(|_| !is_free) {
                return Some(at);
            }
        }
        let goes_on = !is_named && piece.has_arguments();
        // Arguments belong to a call that has its name, if there is one.
        let with_name = last(&|call| call.name != 0 && is_at(call)).filter(|_| goes_on);
        let at = with_name.or_else(|| last(&is_at))?;
        let call = self.list.get(at)?;
        let is_same = if id != 0 && call.id != 0 {
            // Some vLLM servers send another id with each piece. What begins a call has a name, or comes before its arguments.
            goes_on && call.name != 0
        } else if !is_named || call.name == 0 {
            true
        } else if named == Some(at) {
            // Two elements of one list, each with a name.
            false
        } else if !call.has_arguments {
            // Another piece of the name, or the name again. With a name that came with an empty object nothing is missing.
            call.kept().is_some_and(|kept| kept.announced().is_empty()) || call.name == print(piece.name)
        } else {
            // The name again, unless the arguments were whole and there are more.
            id == 0 && call.name == print(piece.name) && !(call.whole != 0 && piece.has_arguments())
        };
        is_same.then_some(at)
    }

    /// Begins a call. Those before it in the same choice begin for the client, as far as they have a name.
    fn begin(
        &mut self,
        choice: usize,
        piece: &Piece<'_>,
        out: &mut Output<'_, '_>,
    ) -> Result<usize, Unusable> {
        let at = self.list.len();
        if at >= MOST_CALLS {
            return Err(TOO_MANY);
        }
        for before in 0..at {
            if self.list.get(before).is_some_and(|call| call.choice == choice && call.name != 0) {
                let arguments = self.list.get(before).and_then(Known::kept).map_or("", Kept::announced);
                self.tell(before, arguments, out);
            }
        }
        let stage = Stage::Kept(Box::default());
        let is_custom = piece.is_custom;
        let (has_arguments, whole) = (false, 0);
        self.list.push(Known { choice, index: None, id: 0, name: 0, has_arguments, whole, is_custom, stage });
        Ok(at)
    }

    /// Adds a piece to its call. Returns whether it stays in its list.
    fn add(
        &mut self,
        at: usize,
        is_new: bool,
        piece: &Piece<'_>,
        delta: &Delta<'_>,
        out: &mut Output<'_, '_>,
    ) -> Result<bool, Unusable> {
        let Some(call) = self.list.get_mut(at) else { return Ok(true) };
        if call.whole != 0 && piece.id_print() == call.id && print(&piece.arguments) == call.whole {
            // Some vendors end with all calls once more.
            return Ok(false);
        }
        call.index = call.index.or(piece.index);
        call.is_custom |= piece.is_custom;
        let has_id = call.id != 0;
        call.id = if has_id { call.id } else { piece.id_print() };
        // Some relays of Anthropic's answers begin with an empty object, and send the arguments after it.
        let announces =
            is_new && !delta.finishes && !piece.name.is_empty() && substance(&piece.arguments) == "{}";
        let is_first = !call.has_arguments && !announces;
        call.has_arguments |= piece.has_arguments() && !announces;
        if is_first && call.has_arguments && piece.is_whole() {
            call.whole = print(&piece.arguments);
        }
        if let Stage::Kept(kept) = &mut call.stage {
            if !has_id {
                piece.id.clone_into(&mut kept.id);
            }
            kept.add_name(piece.name);
            call.name = print(&kept.name);
            let is_due = call.has_arguments || (self.names_are_whole && call.id != 0);
            if call.name == 0 || !is_due {
                kept.add(piece, announces);
                let bytes: usize = self.list.iter().filter_map(Known::kept).map(Kept::bytes).sum();
                return if bytes > MOST_KEPT { Err(TOO_LONG) } else { Ok(false) };
            }
            if is_new {
                // Its first piece has all that the client needs, so it stays where it is.
                let (place, id, _) = self.place(at);
                let other_id = Some(id.as_str()).filter(|id| piece.call.id.word() != Some(id));
                out.shape.call(&piece.call, &piece.function, place, other_id);
                return Ok(true);
            }
            self.tell(at, "", out);
        }
        Ok(match self.list.get(at).map(|call| &call.stage) {
            Some(Stage::Told { place }) => out.shape.later_piece(piece, *place),
            _ => true,
        })
    }

    /// Keeps the whole chunk that began a call, if nothing in it has to be changed. Returns whether it is kept.
    fn keep_chunk(&mut self, at: usize, piece: &Piece<'_>, chunk: &str) -> bool {
        let index = self.told_in(at);
        let Some(Stage::Kept(kept)) = self.list.get_mut(at).map(|call| &mut call.stage) else { return false };
        let keeps = piece.begins_as_openais()
            && piece.index == Some(index as u64)
            && chunk.len().saturating_add(kept.bytes()) <= MOST_KEPT;
        if keeps {
            kept.set_chunk(chunk, place(chunk.as_bytes(), piece.raw), index, piece);
        }
        keeps
    }

    /// How many calls have begun for the client in the choice of this one.
    fn told_in(&self, at: usize) -> usize {
        let choice = self.list.get(at).map(|call| call.choice);
        self.list.iter().filter(|call| Some(call.choice) == choice && !call.is_kept()).count()
    }

    /// A call begins for the client. Returns its index and id there, and what was kept of it.
    fn place(&mut self, at: usize) -> (usize, String, Box<Kept>) {
        let place = self.told_in(at);
        let own = self.list.get(at).and_then(Known::kept).map(|kept| kept.id.clone()).unwrap_or_default();
        let known: Vec<u64> = self.list.iter().map(|call| call.id).collect();
        let id = self.id_in_place_of(&own, place, &known).unwrap_or(own);
        let stage =
            self.list.get_mut(at).map(|call| std::mem::replace(&mut call.stage, Stage::Told { place }));
        let kept = match stage {
            Some(Stage::Kept(kept)) => kept,
            _ => Box::default(),
        };
        (place, id, kept)
    }

    /// The id that the client gets in place of a call's own id, which is missing or that of another call; `None` if its own stays.
    /// `place` is the call's place among those of its choice. `known` are the fingerprints of ids that may still be told.
    fn id_in_place_of(&mut self, own: &str, place: usize, known: &[u64]) -> Option<String> {
        let id = print(own);
        if id != 0 && !self.told.contains(&id) {
            self.told.push(id);
            return None;
        }
        let made = (place..).map(call_id).find(|made| {
            let made = print(made);
            !self.told.contains(&made) && !known.contains(&made)
        });
        self.told.extend(made.as_deref().map(print));
        made
    }

    /// The ids that the calls of one choice get in a whole answer, in place of their own ids; `None` for one that stays.
    pub(super) fn ids_in_place_of(&mut self, own: &[&str]) -> Vec<Option<String>> {
        let each = own.iter().enumerate();
        if own.len() > MOST_CALLS {
            return each.map(|(place, own)| own.is_empty().then(|| call_id(place))).collect();
        }
        let known: Vec<u64> = own.iter().map(|own| print(own)).collect();
        each.map(|(place, own)| self.id_in_place_of(own, place, &known)).collect()
    }

    /// A call that was kept begins for the client: with the arguments that were kept, or with `arguments` if there are none.
    fn tell(&mut self, at: usize, arguments: &str, out: &mut Output<'_, '_>) {
        let Some(call) = self.list.get(at).filter(|call| call.is_kept()) else { return };
        let (choice, is_custom) = (call.choice, call.is_custom);
        if let Some(call) = self.list.get_mut(at) {
            call.has_arguments |= !arguments.is_empty();
        }
        let (place, id, kept) = self.place(at);
        let piece = kept.written(place, &id, arguments, is_custom);
        match kept.into_chunk(&piece) {
            Some(chunk) => out.earlier.push(Earlier::Chunk(chunk)),
            None => out.push(choice, piece),
        }
    }

    /// A choice is finished: what was kept begins for the client, and arguments that are blank to the end are an empty object.
    fn finish(&mut self, choice: usize, out: &mut Output<'_, '_>) -> Result<(), Unusable> {
        let is_nameless = |call: &Known| call.choice == choice && call.name == 0 && call.is_kept();
        if self.list.iter().any(|call| is_nameless(call) && call.has_arguments) {
            return Err(NAMELESS);
        }
        // Without a name and arguments it is no call.
        self.list.retain(|call| !is_nameless(call));
        for at in 0..self.list.len() {
            let Some(call) = self.list.get_mut(at).filter(|call| call.choice == choice) else { continue };
            let arguments = if call.has_arguments || call.is_custom { "" } else { "{}" };
            call.has_arguments = true;
            match call.stage {
                Stage::Told { place } if !arguments.is_empty() => {
                    out.push(choice, more(place, arguments));
                }
                Stage::Told { .. } => {}
                Stage::Kept(_) => self.tell(at, arguments, out),
            }
        }
        Ok(())
    }
}

/// The id of a tool call to which its provider gave none. The client sends it back with the tool's result.
fn call_id(place: usize) -> String {
    ["call_", itoa::Buffer::new().format(place)].concat()
}

#[cfg(test)]
mod tests;
