//! Which parameters each generation of Claude accepts, according to the model's name.
//!
//! The generations differ in what they refuse with a status 400: sampling parameters and thinking budgets (refused after
//! version 4.6), prefill (refused from 4.6 on), and forcing a tool call (refused from 5.5 on and where thinking is always on).

/// A model's generation. A name without a version counts as the newest generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    /// The major and minor version: `claude-opus-4-6` is (4, 6), `claude-sonnet-5` is (5, 0).
    version: (u32, u32),
    /// The model belongs to a family in which thinking is always on.
    always_thinks: bool,
}

/// The parameters of a request that control thinking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ThinkingParams {
    pub(super) thinking: Option<Thinking>,
    /// `output_config.effort`.
    pub(super) effort: Option<&'static str>,
}

/// The parameter `thinking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinking {
    Adaptive,
    Disabled,
    /// At most this number of tokens.
    Budget(u64),
}

/// The smallest budget that is accepted, in tokens.
const MIN_BUDGET: u64 = 1024;

impl Model {
    /// The generation of the model with this name.
    pub(super) fn of(name: &str) -> Self {
        // A version has one or two digits; a longer number is a date.
        let number = |word: &str| word.parse::<u32>().ok().filter(|_| word.len() <= 2);
        let mut words = name.split(|character: char| !character.is_ascii_alphanumeric());
        let major = words.by_ref().find_map(number);
        let minor = words.next().and_then(number).unwrap_or(0);
        Self {
            version: major.map_or((u32::MAX, 0), |major| (major, minor)),
            always_thinks: name.contains("fable") || name.contains("mythos"),
        }
    }

    /// Whether it accepts `temperature` or `top_p` (never both).
    pub(super) fn accepts_sampling(self) -> bool {
        self.version <= (4, 6)
    }

    /// Whether it continues a last message of the assistant.
    pub(super) fn accepts_prefill(self) -> bool {
        self.version < (4, 6)
    }

    /// Whether it accepts `output_config.format`.
    pub(super) fn accepts_schema(self) -> bool {
        self.version >= (4, 5)
    }

    /// Whether a tool call can be forced.
    pub(super) fn accepts_forced_call(self) -> bool {
        self.version <= (5, 0) && !self.always_thinks
    }

    /// The `max_tokens` for a request without one, since Anthropic requires it while OpenAI's default is no limit. It is the
    /// smallest limit of all models since Claude 4 or, for older models, of all models. Thinking counts against it.
    pub(super) fn max_tokens(self) -> u64 {
        if self.version >= (4, 0) {
            32_000
        } else {
            4096
        }
    }

    /// The parameters for OpenAI's `reasoning_effort`. `forced`: a tool call is forced, which excludes thinking. `mid_turn`: the
    /// answer continues a turn whose thinking is missing in the history, which excludes a thinking budget.
    pub(super) fn thinking_params(
        self,
        effort: &str,
        forced: bool,
        mid_turn: bool,
        max_tokens: u64,
    ) -> ThinkingParams {
        let rank = ["none", "minimal", "low", "medium", "high", "xhigh", "max"]
            .iter()
            .position(|name| *name == effort);
        if self.version < (4, 6) {
            let budget = match rank {
                Some(1 | 2) => MIN_BUDGET,
                Some(3) => 4096,
                Some(4..) => 16_384,
                _ => return ThinkingParams::default(),
            };
            // At least half of the limit remains for the answer.
            let budget = budget.min(max_tokens / 2);
            let can = self.version >= (3, 7) && !forced && !mid_turn && budget >= MIN_BUDGET;
            return ThinkingParams { thinking: can.then_some(Thinking::Budget(budget)), effort: None };
        }
        let thinks_by_default = self.version >= (5, 0) || self.always_thinks;
        let thinking = match (thinks_by_default, forced) {
            (true, true) => Some(Thinking::Disabled),
            (false, false) if rank.is_some_and(|rank| rank > 0) => Some(Thinking::Adaptive),
            _ => None,
        };
        let effort = match rank {
            // `low` is the nearest to none for a model that thinks by default.
            Some(0) if thinks_by_default => Some("low"),
            Some(1 | 2) => Some("low"),
            Some(3) => Some("medium"),
            Some(4) => Some("high"),
            // With thinking disabled, `high` is the highest that is accepted.
            Some(5 | 6) if thinking == Some(Thinking::Disabled) => Some("high"),
            Some(5) => Some(if self.version >= (4, 7) { "xhigh" } else { "high" }),
            Some(6) => Some("max"),
            _ => None,
        };
        ThinkingParams { thinking, effort }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_names_of_every_form() {
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
    fn effort_becomes_a_budget_for_old_models_and_a_level_for_new_ones() {
        let params = |name, effort, forced| Model::of(name).thinking_params(effort, forced, false, 8192);
        let is = |thinking, effort| ThinkingParams { thinking, effort };
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
            assert_eq!(params(name, effort, forced), expected, "{name} {effort} {forced}");
        }
    }

    #[test]
    fn a_budget_leaves_room_for_the_answer() {
        let model = Model::of("claude-sonnet-4-5");
        assert_eq!(model.thinking_params("high", false, false, 2047).thinking, None);
        assert_eq!(model.thinking_params("high", false, false, 2048).thinking, Some(Thinking::Budget(1024)));
        assert_eq!(model.thinking_params("high", false, true, 32_000).thinking, None);
    }
}
