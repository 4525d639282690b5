//! The metrics that a host gets for finished requests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::base::clock::Timestamp;
use crate::health::outcome::Outcome;
use crate::record::audit::AttemptFacts;
use crate::spend::cost::{Money, Part};
use crate::spend::usage::Usage;

/// A host that keeps every value it gets.
#[derive(Default)]
struct Host {
    names: Vec<String>,
    values: BTreeMap<String, Vec<u64>>,
}

impl Sink for Host {
    fn define(&mut self, _: Kind, name: &str) -> Option<u32> {
        let place = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        u32::try_from(place).ok()
    }
    fn add(&mut self, id: u32, by: u64) {
        let values = self.values.entry(self.names[id as usize].clone()).or_insert_with(|| vec![0]);
        values[0] += by;
    }
    fn record(&mut self, id: u32, value: u64) {
        self.values.entry(self.names[id as usize].clone()).or_default().push(value);
    }
}

fn facts(cost_pico: Option<u64>) -> Facts<'static> {
    let usage = Usage { input: 10, cached: 4, output: 3, ..Usage::default() };
    let cost = cost_pico.map(Money::from_pico);
    let attempt = |provider, outcome, bill| AttemptFacts {
        provider,
        model: "m",
        model_label: "m",
        outcome,
        status: Some(200),
        took: Duration::from_millis(5),
        bill,
    };
    Facts {
        route: "chat",
        operation: "chat",
        outcome: "answered",
        answered: true,
        took: Duration::from_millis(7),
        attempts: vec![
            attempt("one", Outcome::Overloaded, None),
            attempt(
                "two|x",
                Outcome::Answered,
                Some(Bill {
                    usage,
                    served: Default::default(),
                    source: Source::Reported,
                    reconciled: None,
                    cost,
                    unpriced: Default::default(),
                }),
            ),
        ],
        ..Facts::rejected(Timestamp::ZERO, String::new(), None, false)
    }
}

#[test]
fn counts_wait_for_the_flush_and_distributions_do_not() {
    let (mut book, mut host) = (Book::default(), Host::default());
    book.count(&facts(Some(1500)), &mut host);
    book.count(&facts(Some(1500)), &mut host);
    let name = |metric: &str, provider: &str, outcome: &str, own: &str| {
        format!("{metric}|gen_ai.operation.name=chat|gen_ai.provider.name={provider}|gen_ai.request.model=m|shunt.route=chat|shunt.tenant=none|shunt.outcome={outcome}{own}")
    };
    let tokens = name("gen_ai.client.token.usage", "two_x", "answered", "|gen_ai.token.type=input");
    assert_eq!(host.values[&tokens], [10, 10]);
    let requests = name("shunt.requests", "two_x", "answered", "");
    assert_eq!(host.values.get(&requests), None);
    book.flush(&mut host);
    assert_eq!(host.values[&requests], [2]);
    assert_eq!(host.values[&name("shunt.attempts", "one", "overloaded", "")], [2]);
    // Half a nano-dollar twice is one: nothing is rounded away.
    assert_eq!(host.values[&name("shunt.cost_nano_usd", "two_x", "answered", "")], [3]);
    let cached = "|gen_ai.token.type=cached|shunt.usage.source=reported";
    assert_eq!(host.values[&name("shunt.tokens", "two_x", "answered", cached)], [8]);
    let before = host.values.clone();
    book.flush(&mut host);
    assert_eq!(host.values, before, "nothing is counted twice");
    book.count(&facts(None), &mut host);
    book.flush(&mut host);
    assert_eq!(host.values[&name("shunt.unpriced", "two_x", "answered", "")], [1]);
}

#[test]
fn an_attempt_with_a_part_without_a_price_counts_as_unpriced_and_its_cost_counts() {
    let (mut book, mut host) = (Book::default(), Host::default());
    let mut facts = facts(Some(5000));
    facts.attempts[1].bill.as_mut().unwrap().unpriced.add_if(true, Part::WebSearch);
    book.count(&facts, &mut host);
    book.flush(&mut host);
    let of = |metric: &str| {
        let found = host.values.iter().filter(|(name, _)| name.starts_with(metric));
        found.map(|(_, values)| values[0]).collect::<Vec<_>>()
    };
    assert_eq!((of("shunt.unpriced"), of("shunt.cost_nano_usd")), (vec![1], vec![5]));
}

#[test]
fn the_number_of_series_is_bounded() {
    let (mut book, mut host) = (Book::default(), Host::default());
    let names: Vec<String> = (0..MOST * 2).map(|number| format!("route-{number}")).collect();
    for name in &names {
        let facts = Facts { route: name, attempts: Vec::new(), ..facts(None) };
        book.count(&facts, &mut host);
    }
    assert!(book.cells.len() <= MOST + 1);
    book.flush(&mut host);
    let total: u64 = host
        .values
        .iter()
        .filter(|(name, _)| name.starts_with("shunt.requests"))
        .map(|(_, values)| values[0])
        .sum();
    assert_eq!(total, names.len() as u64);
}
