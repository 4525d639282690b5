//! Draws the day: what each policy spent per hour, and how long clients waited.

use std::fmt::Write;

use super::day::{hour, Kind, NAMES, PEAK, TROUBLES};
use super::run::Served;
use super::{percentile, usd, Results, CHEAPEST, QUICKEST};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 150.0;
const HEIGHT: f64 = 190.0;
/// The number of half hours.
const STEPS: usize = 48;

/// A line of a chart.
struct Line<'a> {
    name: &'a str,
    colour: &'a str,
    values: Vec<f64>,
}

/// One value per half hour, computed from the requests of one policy in it.
fn by_time(served: &[Served], measure: impl Fn(&[Served]) -> f64) -> Vec<f64> {
    let of = |step: usize| -> Vec<Served> {
        served.iter().filter(|one| (hour(one.at) * 2.0) as usize == step).cloned().collect()
    };
    (0..STEPS).map(|step| measure(&of(step))).collect()
}

fn x(hour: f64) -> f64 {
    LEFT + hour / 24.0 * (WIDTH - LEFT - RIGHT)
}

pub(crate) fn draw(results: &Results) -> String {
    const COLOURS: [(&str, &str); 7] = [
        ("round robin", "#9a9a9a"),
        ("priority", "#c98a2b"),
        ("cost", "#2b7a4b"),
        ("latency", "#2b5fa8"),
        ("quality", "#d4577a"),
        ("cost, good enough", "#7bbf6a"),
        ("balanced", "#8e3b8e"),
    ];
    let lines = |best: usize, measure: &dyn Fn(&[Served]) -> f64| -> Vec<Line<'_>> {
        let ways =
            COLOURS.map(|(name, colour)| Line { name, colour, values: by_time(results.way(name), measure) });
        let hindsight =
            Line { name: "hindsight", colour: "#000000", values: by_time(&results.hindsight[best], measure) };
        ways.into_iter().chain([hindsight]).collect()
    };
    let height = 2.0 * HEIGHT + 250.0;
    let mut out = String::new();
    write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>A simulated day</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    )
    .unwrap();
    troubles(&mut out, 30.0);
    chart(&mut out, 145.0, "USD an hour", &lines(CHEAPEST, &|served| 2.0 * usd(served)));
    chart(
        &mut out,
        145.0 + HEIGHT + 55.0,
        "first token, p95, seconds",
        &lines(QUICKEST, &|served| percentile(served, 95) as f64 / 1000.0),
    );
    out.push_str("</svg>\n");
    out
}

/// A row for each provider, with its bad hours.
fn troubles(out: &mut String, top: f64) {
    for (provider, name) in NAMES.iter().enumerate() {
        let y = top + provider as f64 * 24.0;
        writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", LEFT - 8.0, y + 12.0)
            .unwrap();
        bar(out, y, 0.0, 24.0, "#e8eee8");
        if provider == 1 {
            bar(out, y, PEAK.0, PEAK.1, "#d9c27a");
        }
        for trouble in TROUBLES.iter().filter(|trouble| trouble.provider == provider) {
            let colour = if matches!(trouble.kind, Kind::BrownOut(_)) { "#c59ad6" } else { "#c0392b" };
            bar(out, y, trouble.from, trouble.to, colour);
        }
    }
    for (line, (colour, text)) in
        [("#c0392b", "fails"), ("#c59ad6", "slow"), ("#d9c27a", "peak price")].into_iter().enumerate()
    {
        let y = top + line as f64 * 24.0;
        let left = WIDTH - RIGHT + 12.0;
        writeln!(
            out,
            "<rect x=\"{left}\" y=\"{y}\" width=\"14\" height=\"16\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{text}</text>",
            left + 20.0,
            y + 12.0
        )
        .unwrap();
    }
}

fn bar(out: &mut String, y: f64, from: f64, to: f64, colour: &str) {
    let (left, width) = (x(from), x(to) - x(from));
    writeln!(
        out,
        "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>"
    )
    .unwrap();
}

fn chart(out: &mut String, top: f64, title: &str, lines: &[Line<'_>]) {
    let most = lines.iter().flat_map(|line| &line.values).copied().fold(0.1, f64::max);
    let y = |value: f64| top + HEIGHT * (1.0 - value / most);
    writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>", top - 8.0).unwrap();
    for quarter in 0..5 {
        let value = most * f64::from(quarter) / 4.0;
        writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>",
            x(24.0),
            y(value),
            y(value),
            LEFT - 8.0,
            y(value) + 4.0
        )
        .unwrap();
    }
    for hour in (0..=24).step_by(3) {
        let at = x(f64::from(hour));
        writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{hour}:00</text>",
            top + HEIGHT + 18.0
        )
        .unwrap();
    }
    for (place, line) in lines.iter().enumerate() {
        let point =
            |(step, value): (usize, &f64)| format!("{:.1},{:.1}", x((step as f64 + 0.5) / 2.0), y(*value));
        let points: Vec<String> = line.values.iter().enumerate().map(point).collect();
        let dashes = if line.name == "hindsight" { " stroke-dasharray=\"4 3\"" } else { "" };
        let (left, at) = (WIDTH - RIGHT + 12.0, top + 12.0 + place as f64 * 18.0);
        writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"{dashes}/>\n\
             <line x1=\"{left}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\" stroke=\"{}\" stroke-width=\"2\"{dashes}/><text x=\"{}\" y=\"{}\">{}</text>",
            points.join(" "),
            line.colour,
            left + 18.0,
            line.colour,
            left + 24.0,
            at + 4.0,
            line.name
        )
        .unwrap();
    }
}
