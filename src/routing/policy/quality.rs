//! The best first: by a score of each model, which the configuration gives, or an evaluation at run time.

use super::Ranked;
use crate::routing::provider::Score;

/// What is known of a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rating {
    /// Its score, if it has one.
    pub score: Option<Score>,
    /// The score is that of an evaluation.
    pub evaluated: bool,
}

/// The best first, equals as they stand, whose score nobody knows last.
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

/// Whether this score is not good enough.
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
    fn the_best_is_first_equals_stay_and_the_unknown_is_last() {
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
    fn who_is_at_the_floor_is_good_enough_and_who_is_unknown_is_not() {
        let scores = [Some(Score::new(0.8)), Some(Score::new(0.79)), None];
        assert_eq!(scores.map(|score| is_below(Score::new(0.8), score)), [false, true, true]);
    }
}
