//! The best candidate first, by the quality score of its model. The score comes from the configuration, or from an evaluation
//! that was posted at run time.

use super::Ranked;
use crate::routing::provider::Score;

/// The quality score of a candidate and its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rating {
    /// The score, if it has one.
    pub score: Option<Score>,
    /// The score comes from an evaluation, not from the configuration.
    pub evaluated: bool,
}

/// The order: highest score first, those without a score last. Equal candidates keep their order.
pub fn order(all: &[Rating]) -> Vec<Ranked> {
    let mut ordered: Vec<usize> = Vec::with_capacity(all.len());
    let score = |place: usize| all.get(place).and_then(|rating| rating.score);
    for place in 0..all.len() {
        ordered.insert(ordered.partition_point(|other| score(*other) >= score(place)), place);
    }
    ordered.into_iter().map(|place| Ranked { place, why: why(all.get(place).copied()) }).collect()
}

fn why(rating: Option<Rating>) -> String {
    match rating.unwrap_or_default() {
        Rating { score: Some(score), evaluated } => {
            ["quality ", &score.to_string(), if evaluated { ", evaluated" } else { "" }].concat()
        }
        Rating { score: None, .. } => "no score".to_owned(),
    }
}

/// Whether a score is below the floor. An unknown score is.
pub fn is_below(floor: Score, score: Option<Score>) -> bool {
    score.is_none_or(|score| score < floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rated(millionths: u32) -> Rating {
        Rating { score: Some(Score::from_millionths(millionths)), evaluated: false }
    }

    #[test]
    fn the_best_is_first_equals_keep_their_order_and_those_without_a_score_are_last() {
        let all = [
            Rating::default(),
            rated(500_000),
            Rating { evaluated: true, ..rated(900_000) },
            rated(500_000),
            rated(0),
            Rating::default(),
            rated(1_000_000),
        ];
        let ranked = order(&all);
        assert_eq!(ranked.iter().map(|ranked| ranked.place).collect::<Vec<_>>(), [6, 2, 1, 3, 4, 0, 5]);
        let whys: Vec<&str> = ranked.iter().map(|ranked| ranked.why.as_str()).collect();
        assert_eq!(whys[..3], ["quality 1", "quality 0.9, evaluated", "quality 0.5"]);
        assert_eq!((whys[4], whys[5]), ("quality 0", "no score"));
    }

    #[test]
    fn a_score_at_the_floor_is_good_enough_and_an_unknown_one_is_not() {
        let scores = [Some(Score::new(0.8)), Some(Score::new(0.79)), None];
        assert_eq!(scores.map(|score| is_below(Score::new(0.8), score)), [false, true, true]);
    }
}
