//! Tools that the provider itself ran for an answer, and charges by the call.
//!
//! OpenAI charges a search in the web (an opened page is none), a search in stored files, a drawn picture, and a session of the code
//! interpreter, which all calls in one container share. Its search models in chat completions search once for each request.

use crate::base::store::fingerprint;
use crate::bytes::json::{raw_object, Raw};
use crate::spend::usage::{Calls, Served};

raw_object! {
    /// An item of the output of the Responses API.
    struct Item {
        id: "id",
        kind: "type",
        status: "status",
        action: "action",
        container: "container_id",
    }
}

raw_object! {
    /// What a search in the web did.
    struct Action {
        kind: "type",
    }
}

/// The calls in the items of an answer. The items of a stream come one by one, and all of them again at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToolCalls {
    /// Those of the items that came one by one.
    each: Calls,
    /// The fingerprint of the last of these items.
    last: u64,
    /// Those of the list of all items, which is right if an item came twice, or not at all.
    all: Calls,
    /// Those that the provider counted itself.
    told: Calls,
    /// The fingerprint of the last container in which code ran; 0 if none did.
    container: u64,
}

impl ToolCalls {
    /// Those of one item.
    pub(super) fn of_item(item: &str) -> Option<Box<Self>> {
        let mut found = Self::default();
        found.each = found.count(item);
        found.last = Item::read(item).id.word().map_or(0, |id| fingerprint([id]));
        (found.each != Calls::default()).then(|| Box::new(found))
    }

    /// Those of a list of items, and those that the provider counted.
    pub(super) fn of_all(items: &[&str], told: Calls) -> Option<Box<Self>> {
        let mut found = Self { told, ..Self::default() };
        for item in items {
            found.all = found.count(item).plus(found.all);
        }
        found.if_any()
    }

    /// Those of a chat completion whose model is told only `now`: one if it is one of OpenAI's search models.
    #[inline(never)]
    pub(super) fn of_model(before: &Served, now: &Served) -> Option<Box<Self>> {
        let model = now.model.as_deref().filter(|_| before.model != now.model)?;
        let mut words = model.split('-');
        let searches = words.any(|word| word == "search") && matches!(words.next(), Some("preview" | "api"));
        let all = Calls { web_search: u32::from(searches), ..Calls::default() };
        Self { all, ..Self::default() }.if_any()
    }

    #[inline(never)]
    fn if_any(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }

    /// Adds what was read later.
    #[inline(never)]
    pub(super) fn add(&mut self, later: &Self) {
        let is_again = later.last != 0 && later.last == self.last;
        let mut each = if is_again { Calls::default() } else { later.each };
        self.last = later.last;
        if later.container != 0 {
            if later.container == self.container {
                each.code_interpreter = 0;
            }
            self.container = later.container;
        }
        self.each = self.each.plus(each);
        self.all = self.all.max(later.all);
        self.told = self.told.max(later.told);
    }

    /// How often each tool was run: what the provider counted, or else what the items say.
    #[inline(never)]
    pub fn calls(&self) -> Calls {
        let mut calls = if self.all == Calls::default() { self.each } else { self.all };
        if self.told.web_search > 0 {
            calls.web_search = self.told.web_search;
        }
        calls
    }

    #[inline(never)]
    fn count(&mut self, item: &str) -> Calls {
        let item = Item::read(item);
        let mut calls = Calls::default();
        let is_done = matches!(item.status.word(), None | Some("completed"));
        match item.kind.word().unwrap_or_default() {
            "web_search_call" => calls.web_search = u32::from(is_done && searched(&item.action)),
            "file_search_call" => calls.file_search = u32::from(is_done),
            "image_generation_call" => calls.image_generation = u32::from(is_done),
            // The session is charged whatever became of the code.
            "code_interpreter_call" => {
                let container = fingerprint([item.container.word().unwrap_or("?")]);
                calls.code_interpreter = u32::from(container != self.container);
                self.container = container;
            }
            _ => {}
        }
        calls
    }
}

/// Whether a call of the web search was a search. Older tools do not say what they did.
fn searched(action: &Raw<'_>) -> bool {
    let kind = action.value().map(|action| Action::read(action).kind);
    kind.and_then(|kind| kind.word()).is_none_or(|kind| kind == "search")
}
