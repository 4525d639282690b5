//! What the generations of Claude accept, known by the model's name.
//!
//! They differ in what they answer with a 400: sampling parameters and thinking budgets (gone after 4.6), an answer begun
//! by the client (gone with 4.6), a tool that must be called (gone with 5.5 and where thinking is always on).

/// A model's generation. A name without a version is taken for the newest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    /// Major and minor: `claude-opus-4-6` is (4, 6), `claude-sonnet-5` is (5, 0).
    version: (u32, u32),
    /// Thinking cannot be turned off in any version of the family.
    always_thinks: bool,
}

/// How a request asks for thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Thought {
    pub(super) thinking: Option<Thinking>,
    /// `output_config.effort`.
    pub(super) effort: Option<&'static str>,
}

/// `thinking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinking {
    Adaptive,
    Disabled,
    /// So many tokens at most.
    Budget(u64),
}

/// The smallest budget that is accepted, in tokens.
const LEAST_BUDGET: u64 = 1024;

impl Model {
    pub(super) fn of(name: &str) -> Self {
        // One or two digits; what is longer is a date.
        let number = |word: &str| word.parse::<u32>().ok().filter(|_| word.len() <= 2);
        let mut words = name.split(|character: char| !character.is_ascii_alphanumeric());
        let major = words.by_ref().find_map(number);
        let minor = words.next().and_then(number).unwrap_or(0);
        Self {
            version: major.map_or((u32::MAX, 0), |major| (major, minor)),
            always_thinks: name.contains("fable") || name.contains("mythos"),
        }
    }

    /// Whether it accepts `temperature` or `top_p`, one of them.
    pub(super) fn samples(self) -> bool {
        self.version <= (4, 6)
    }

    /// Whether it goes on where a last message of the assistant ends.
    pub(super) fn takes_prefill(self) -> bool {
        self.version < (4, 6)
    }

    /// Whether it accepts `output_config.format`.
    pub(super) fn takes_schema(self) -> bool {
        self.version >= (4, 5)
    }

    /// Whether it can be made to call a tool.
    pub(super) fn can_be_forced(self) -> bool {
        self.version <= (5, 0) && !self.always_thinks
    }

    /// `max_tokens` for a request without one: it is required, and OpenAI's default is no limit. The smallest of the
    /// limits of all models since Claude 4; before that, of all. Thinking counts against it.
    pub(super) fn max_tokens(self) -> u64 {
        if self.version >= (4, 0) {
            32_000
        } else {
            4096
        }
    }

    /// How OpenAI's `reasoning_effort` is asked of it. `forced`: a tool must be called, which no model can think
    /// about. `bare`: the answer would begin in the middle of a turn whose thoughts are not there, which budgets forbid.
    pub(super) fn thought(self, effort: &str, forced: bool, bare: bool, max_tokens: u64) -> Thought {
        let rank = ["none", "minimal", "low", "medium", "high", "xhigh", "max"]
            .iter()
            .position(|name| *name == effort);
        if self.version < (4, 6) {
            let budget = match rank {
                Some(1 | 2) => LEAST_BUDGET,
                Some(3) => 4096,
                Some(4..) => 16_384,
                _ => return Thought::default(),
            };
            // Half of the room stays for the answer.
            let budget = budget.min(max_tokens / 2);
            let can = self.version >= (3, 7) && !forced && !bare && budget >= LEAST_BUDGET;
            return Thought { thinking: can.then_some(Thinking::Budget(budget)), effort: None };
        }
        let thinks_unasked = self.version >= (5, 0) || self.always_thinks;
        let thinking = match (thinks_unasked, forced) {
            (true, true) => Some(Thinking::Disabled),
            (false, false) if rank.is_some_and(|rank| rank > 0) => Some(Thinking::Adaptive),
            _ => None,
        };
        let effort = match rank {
            // Where thinking cannot be turned off, little is the nearest.
            Some(0) if thinks_unasked => Some("low"),
            Some(1 | 2) => Some("low"),
            Some(3) => Some("medium"),
            Some(4) => Some("high"),
            // Without thinking, no more is accepted.
            Some(5 | 6) if thinking == Some(Thinking::Disabled) => Some("high"),
            Some(5) => Some(if self.version >= (4, 7) { "xhigh" } else { "high" }),
            Some(6) => Some("max"),
            _ => None,
        };
        Thought { thinking, effort }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_every_form_of_a_name() {
        for (name, version) in [
            ("claude-3-5-sonnet-20241022", (3, 5)),
            ("claude-3-haiku-20240307", (3, 0)),
            ("claude-sonnet-4-20250514", (4, 0)),
            ("claude-haiku-4-5-20251001", (4, 5)),
            ("anthropic.claude-opus-4-6-v1:0", (4, 6)),
            ("anthropic/claude-sonnet-4.6", (4, 6)),
            ("claude-opus-5", (5, 0)),
            ("claude-sonnet-5-5", (5, 5)),
            ("claude-mythos-preview", (u32::MAX, 0)),
        ] {
            assert_eq!(Model::of(name).version, version, "{name}");
        }
    }

    #[test]
    fn effort_is_a_budget_for_old_models_and_a_word_for_new_ones() {
        let thought = |name, effort, forced| Model::of(name).thought(effort, forced, false, 8192);
        let is = |thinking, effort| Thought { thinking, effort };
        for (name, effort, forced, expected) in [
            ("claude-3-5-haiku", "high", false, is(None, None)),
            ("claude-haiku-4-5", "low", false, is(Some(Thinking::Budget(1024)), None)),
            ("claude-haiku-4-5", "max", false, is(Some(Thinking::Budget(4096)), None)),
            ("claude-haiku-4-5", "high", true, is(None, None)),
            ("claude-haiku-4-5", "none", false, is(None, None)),
            ("claude-opus-4-6", "none", false, is(None, None)),
            ("claude-opus-4-6", "xhigh", false, is(Some(Thinking::Adaptive), Some("high"))),
            ("claude-opus-4-7", "xhigh", false, is(Some(Thinking::Adaptive), Some("xhigh"))),
            ("claude-opus-4-7", "medium", true, is(None, Some("medium"))),
            ("claude-opus-5", "none", false, is(None, Some("low"))),
            ("claude-opus-5", "max", true, is(Some(Thinking::Disabled), Some("high"))),
            ("claude-opus-5", "", true, is(Some(Thinking::Disabled), None)),
            ("claude-sonnet-5-5", "high", false, is(None, Some("high"))),
            ("claude-sonnet-5-5", "immense", false, is(None, None)),
        ] {
            assert_eq!(thought(name, effort, forced), expected, "{name} {effort} {forced}");
        }
    }

    #[test]
    fn a_budget_leaves_room_for_the_answer() {
        let model = Model::of("claude-sonnet-4-5");
        assert_eq!(model.thought("high", false, false, 2047).thinking, None);
        assert_eq!(model.thought("high", false, false, 2048).thinking, Some(Thinking::Budget(1024)));
        assert_eq!(model.thought("high", false, true, 32_000).thinking, None);
    }
}
