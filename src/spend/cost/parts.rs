//! The parts of an answer's cost for which a price list may have no price.

use crate::spend::usage::Calls;

impl Calls {
    /// The names of the tools in the price list and in the audit record.
    pub const NAMES: [&'static str; 4] =
        ["web_search", "file_search", "code_interpreter", "image_generation"];

    /// The counts in the order of their names.
    pub const fn counts(self) -> [u32; 4] {
        [self.web_search, self.file_search, self.code_interpreter, self.image_generation]
    }
}

/// Something that was told of an answer, and that vendors charge apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Tokens that were written into a cache for an hour.
    CacheWrite1h,
    /// Audio in the request.
    AudioInput,
    /// Audio in the answer.
    AudioOutput,
    /// Searches in the web.
    WebSearch,
    /// Searches in stored files.
    FileSearch,
    /// Sessions of a code interpreter.
    CodeInterpreter,
    /// Pictures drawn.
    ImageGeneration,
    /// The service tier: the tokens cost as much as usual, or more, or less.
    ServiceTier,
    /// The model that answered: the price is that of the model that was asked.
    Model,
}

impl Part {
    const ALL: [Self; 9] = [
        Self::CacheWrite1h,
        Self::AudioInput,
        Self::AudioOutput,
        Self::WebSearch,
        Self::FileSearch,
        Self::CodeInterpreter,
        Self::ImageGeneration,
        Self::ServiceTier,
        Self::Model,
    ];

    /// The parts that are calls, in the order of [`Calls::NAMES`].
    pub(super) const CALLS: [Self; 4] =
        [Self::WebSearch, Self::FileSearch, Self::CodeInterpreter, Self::ImageGeneration];

    /// The name in the audit record.
    pub const fn name(self) -> &'static str {
        let [web_search, file_search, code_interpreter, image_generation] = Calls::NAMES;
        match self {
            Self::CacheWrite1h => "cache_write_1h",
            Self::AudioInput => "audio_input",
            Self::AudioOutput => "audio_output",
            Self::WebSearch => web_search,
            Self::FileSearch => file_search,
            Self::CodeInterpreter => code_interpreter,
            Self::ImageGeneration => image_generation,
            Self::ServiceTier => "service_tier",
            Self::Model => "model",
        }
    }
}

/// A set of parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts(u16);

impl Parts {
    /// Adds a part, if the condition holds.
    pub fn add_if(&mut self, condition: bool, part: Part) {
        self.0 |= u16::from(condition) << part as u16;
    }

    /// The parts of both sets.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is no part.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The parts in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |part| self.0 & 1 << *part as u16 != 0)
    }
}
