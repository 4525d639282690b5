//! The token counts as a provider reports them, and the rules that make a [`Usage`] of them.
//!
//! In a usage each part is contained in its whole. Not every vendor counts in this way: some tell the reasoning beside the output,
//! or the cached tokens beside the input, and some tell a part only within the total. The total shows which of these it is.

use super::usage::{Details, Usage};

/// The counts of one provider. In a stream they are those of all its reports together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The tokens of the request.
    pub input: u64,
    /// Tokens that were read from the provider's prompt cache.
    pub cached: u64,
    /// Tokens that were written into the provider's prompt cache.
    pub cache_write: u64,
    /// The tokens of the answer.
    pub output: u64,
    /// Tokens of reasoning.
    pub reasoning: u64,
    /// All tokens; `None` if the provider does not report them.
    pub total: Option<u64>,
    /// What only some price lists tell apart.
    pub details: Details,
    /// The tokens of the answer are not told, by no count of them and by no total.
    pub lacks_output: bool,
}

/// How counts that did not fit together were reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// Parts were told beside their wholes, and were added to them.
    PartsAdded,
    /// What the total had beyond input and output was added to the output, as reasoning.
    RestIsOutput,
    /// What the total had beyond the input was added to the input, because there is no output.
    RestIsInput,
    /// The total was smaller than its parts, and was ignored.
    TotalIgnored,
    /// A part was larger than its whole, which the total confirmed, and counts only as much as the whole.
    PartsCut,
}

impl Reconciled {
    /// The name in the audit record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PartsAdded => "parts_added",
            Self::RestIsOutput => "rest_is_output",
            Self::RestIsInput => "rest_is_input",
            Self::TotalIgnored => "total_ignored",
            Self::PartsCut => "parts_cut",
        }
    }
}

impl Reported {
    /// The counts of this report and of a later one of the same answer. Counts only grow: a later report may lack some of them, or
    /// tell zeros.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let all = |one: &Self| one.total.unwrap_or(one.input.saturating_add(one.output));
        let has_total = self.total.is_some() || later.total.is_some();
        Self {
            input: self.input.max(later.input),
            cached: self.cached.max(later.cached),
            cache_write: self.cache_write.max(later.cache_write),
            output: self.output.max(later.output),
            reasoning: self.reasoning.max(later.reasoning),
            total: has_total.then(|| all(&self).max(all(&later))),
            details: self.details.max(later.details),
            lacks_output: self.lacks_output && later.lacks_output,
        }
    }

    /// All that they tell of the output, wherever it is told.
    pub fn told_output(&self) -> u64 {
        let rest = self.total.unwrap_or_default().saturating_sub(self.input);
        self.output.saturating_add(self.reasoning).max(rest)
    }

    /// The usage that these counts mean, and how they were reconciled if they did not fit together. The rules, in this order:
    ///
    /// 1. A total that is smaller than what it contains is ignored.
    /// 2. Parts that, added to input and output, give the total were told beside them, and are added. Without a total, a part that is
    ///    larger than its whole was told beside it.
    /// 3. Otherwise what the total has beyond input and output is output, and is priced as reasoning.
    pub fn reconcile(&self) -> (Usage, Option<Reconciled>) {
        let Self { input, cached, cache_write, output, reasoning, total, details, .. } = *self;
        let mut usage = Usage { input, cached, cache_write, output, reasoning, details };
        let (known, of_input) = (input.saturating_add(output), cached.saturating_add(cache_write));
        let least = known.max(of_input).max(reasoning);
        let how = match total {
            Some(total) if total == known && total >= least => None,
            Some(total) if total >= least => Some(fill(&mut usage, total.saturating_sub(known))),
            _ => {
                let beside = Parts {
                    input: if of_input > input { of_input } else { 0 },
                    reasoning: if reasoning > output { reasoning } else { 0 },
                };
                beside.add_to(&mut usage);
                let added = (beside.sum() > 0).then_some(Reconciled::PartsAdded);
                total.map(|_| Reconciled::TotalIgnored).or(added)
            }
        };
        let cached = usage.cached.min(usage.input);
        let cache_write = usage.cache_write.min(usage.input.saturating_sub(cached));
        let fitting = Usage {
            cached,
            cache_write,
            reasoning: usage.reasoning.min(usage.output),
            details: Details {
                cache_write_1h: details.cache_write_1h.min(cache_write),
                audio_input: details.audio_input.min(usage.input),
                audio_output: details.audio_output.min(usage.output),
                ..details
            },
            ..usage
        };
        let cut = (fitting != usage).then_some(Reconciled::PartsCut);
        (fitting, how.or(cut))
    }
}

/// Tokens that stand beside the input and beside the output.
#[derive(Clone, Copy)]
struct Parts {
    input: u64,
    reasoning: u64,
}

impl Parts {
    const fn sum(self) -> u64 {
        self.input.saturating_add(self.reasoning)
    }

    fn add_to(self, usage: &mut Usage) {
        usage.input = usage.input.saturating_add(self.input);
        usage.output = usage.output.saturating_add(self.reasoning);
    }
}

/// Adds to the usage what the total has beyond its input and output, which is `rest`.
fn fill(usage: &mut Usage, rest: u64) -> Reconciled {
    let Usage { cached, cache_write, reasoning, .. } = *usage;
    // The parts that a vendor tells beside their wholes; those of the input are told in the same way.
    let both = cached.saturating_add(cache_write);
    let (input, output) = (usage.input, usage.output);
    let mut best: Option<(Parts, u8)> = None;
    for beside in [reasoning, 0] {
        for of_input in [0, both, cached, cache_write] {
            let parts = Parts { input: of_input, reasoning: beside };
            // If several fit, a part that is larger than its whole decides, because it cannot be contained in it.
            let contained =
                u8::from(both > input && of_input == 0) + u8::from(reasoning > output && beside == 0);
            if parts.sum() == rest && best.is_none_or(|(_, least)| contained < least) {
                best = Some((parts, contained));
            }
        }
    }
    if let Some((parts, _)) = best {
        parts.add_to(usage);
        return Reconciled::PartsAdded;
    }
    // A reasoning that the output cannot contain is within the rest.
    usage.reasoning = if reasoning > output { reasoning.max(rest) } else { reasoning.saturating_add(rest) };
    usage.output = output.saturating_add(rest);
    Reconciled::RestIsOutput
}

#[cfg(test)]
mod tests {
    use super::*;

    type Counts = [u64; 5];

    /// The counts are `input`, `cached`, `cache_write`, `output` and `reasoning`.
    fn reported([input, cached, cache_write, output, reasoning]: Counts, total: Option<u64>) -> Reported {
        Reported { input, cached, cache_write, output, reasoning, total, ..Reported::default() }
    }

    fn reconciled(counts: Counts, total: Option<u64>) -> (Counts, Option<&'static str>) {
        let (usage, how) = reported(counts, total).reconcile();
        let Usage { input, cached, cache_write, output, reasoning, .. } = usage;
        ([input, cached, cache_write, output, reasoning], how.map(Reconciled::name))
    }

    #[test]
    fn counts_that_fit_together_stay_as_they_are() {
        for (counts, total) in [
            ([9, 4, 0, 5, 2], Some(14)),
            ([9, 4, 5, 5, 5], Some(14)),
            ([9, 4, 0, 5, 2], None),
            ([0, 0, 0, 0, 0], Some(0)),
        ] {
            assert_eq!(reconciled(counts, total), (counts, None));
        }
    }

    #[test]
    fn parts_that_give_the_total_were_told_beside_their_wholes() {
        for (vendor, counts, total, expected) in [
            ("xAI", [32, 6, 0, 9, 94], 135, [32, 6, 0, 103, 94]),
            ("a relay", [3, 4000, 0, 5, 0], 4008, [4003, 4000, 0, 5, 0]),
            ("a relay that writes a cache", [3, 4000, 50, 5, 0], 4058, [4053, 4000, 50, 5, 0]),
            (
                "a relay whose input contains what is written",
                [53, 4000, 50, 5, 0],
                4058,
                [4053, 4000, 50, 5, 0],
            ),
            ("both", [3, 4000, 0, 5, 7], 4015, [4003, 4000, 0, 12, 7]),
            ("only reasoning", [21, 0, 0, 0, 60], 81, [21, 0, 0, 60, 60]),
            ("either, but only one cannot be contained", [3, 50, 0, 100, 50], 153, [53, 50, 0, 100, 50]),
            ("either, and both can be contained", [100, 50, 0, 100, 50], 250, [100, 50, 0, 150, 50]),
        ] {
            assert_eq!(reconciled(counts, Some(total)), (expected, Some("parts_added")), "{vendor}");
        }
    }

    #[test]
    fn what_the_total_has_beyond_input_and_output_is_reasoning() {
        for (vendor, counts, total, expected) in [
            ("Gemini", [20, 0, 0, 198, 0], 623, [20, 0, 0, 603, 405]),
            ("some reasoning is in the output", [20, 0, 0, 198, 30], 623, [20, 0, 0, 603, 435]),
            ("the reasoning is in the rest", [32, 0, 0, 9, 94], 137, [32, 0, 0, 105, 96]),
            ("only the total grows", [20, 0, 0, 0, 0], 30, [20, 0, 0, 10, 10]),
        ] {
            assert_eq!(reconciled(counts, Some(total)), (expected, Some("rest_is_output")), "{vendor}");
        }
    }

    #[test]
    fn a_total_that_is_smaller_than_its_parts_is_ignored() {
        for (counts, total, expected) in [
            ([9, 4, 0, 5, 2], 13, [9, 4, 0, 5, 2]),
            ([9, 0, 0, 5, 0], 0, [9, 0, 0, 5, 0]),
            ([19, 0, 0, 498, 73_997], 517, [19, 0, 0, 74_495, 73_997]),
            ([3, 4000, 0, 5, 0], 8, [4003, 4000, 0, 5, 0]),
        ] {
            assert_eq!(reconciled(counts, Some(total)), (expected, Some("total_ignored")), "{total}");
        }
    }

    #[test]
    fn without_a_total_a_part_that_is_larger_than_its_whole_was_told_beside_it() {
        for (counts, expected) in
            [([32, 0, 0, 9, 94], [32, 0, 0, 103, 94]), ([3, 4000, 0, 5, 2], [4003, 4000, 0, 5, 2])]
        {
            assert_eq!(reconciled(counts, None), (expected, Some("parts_added")));
        }
    }

    #[test]
    fn a_part_that_is_larger_than_a_whole_that_the_total_confirms_is_cut() {
        assert_eq!(reconciled([100, 0, 0, 5, 7], Some(105)), ([100, 0, 0, 5, 5], Some("parts_cut")));
        assert_eq!(reconciled([10, 8, 8, 50, 0], Some(60)), ([10, 8, 2, 50, 0], Some("parts_cut")));
    }

    #[test]
    fn the_counts_of_a_stream_only_grow() {
        let sum = |a: (Counts, Option<u64>), b: (Counts, Option<u64>)| {
            reported(a.0, a.1).and(reported(b.0, b.1)).reconcile()
        };
        let usage = |[input, cached, cache_write, output, reasoning]: Counts| Usage {
            input,
            cached,
            cache_write,
            output,
            reasoning,
            details: Details::default(),
        };
        let zeros = ([0; 5], Some(0));
        let told = ([25, 5, 1, 9, 3], Some(34));
        assert_eq!(sum(told, zeros), (usage(told.0), None));
        assert_eq!(sum(zeros, told), (usage(told.0), None));
        let grown = ([25, 5, 1, 12, 3], None);
        assert_eq!(
            sum(told, grown),
            (usage(grown.0), None),
            "the earlier total is no more than the later counts"
        );
        assert_eq!(sum(([25, 0, 0, 0, 0], None), ([0, 0, 0, 7, 0], None)), (usage([25, 0, 0, 7, 0]), None));
    }

    #[test]
    fn a_part_is_always_contained_in_its_whole_and_nothing_shrinks_a_whole() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let bound = [4, 300, u64::MAX][random.usize(0..3)];
            let counts: Counts = std::array::from_fn(|_| random.u64(0..=bound));
            let total = random.bool().then(|| random.u64(0..=bound));
            let ([input, cached, cache_write, output, reasoning], how) = reconciled(counts, total);
            let [cache_write_1h, audio_input, audio_output] = std::array::from_fn(|_| random.u64(0..=bound));
            let details = Details { cache_write_1h, audio_input, audio_output, ..Details::default() };
            let Details { cache_write_1h, audio_input, audio_output, .. } =
                Reported { details, ..reported(counts, total) }.reconcile().0.details;
            assert!(cache_write_1h <= cache_write && audio_input <= input && audio_output <= output);
            assert!(
                cached.saturating_add(cache_write) <= input && reasoning <= output,
                "{counts:?} {total:?}"
            );
            assert!(input >= counts[0] && output >= counts[3], "{counts:?} {total:?}");
            let known = counts[0].saturating_add(counts[3]);
            if let Some(total) = total.filter(|total| *total > known && how != Some("total_ignored")) {
                assert_eq!(input.saturating_add(output), total, "{counts:?}");
            }
        }
    }
}
