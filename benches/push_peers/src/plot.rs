//! Line plots as SVG, both axes logarithmic unless told.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
/// Room for labels: left, right (the names of the lines), top, bottom.
const MARGINS: [f64; 4] = [70.0, 150.0, 40.0, 50.0];
/// Of the lines in turn; told apart by people who see no red or no green, and by markers' places in the legend.
const COLOURS: [&str; 5] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555"];

/// What is drawn.
pub(crate) struct Plot {
    pub(crate) title: String,
    /// What is to the right, with its unit.
    pub(crate) x: Axis,
    /// What is upwards, with its unit.
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// What is along one side.
pub(crate) struct Axis {
    pub(crate) label: String,
    /// Logarithmic; otherwise from zero.
    pub(crate) log: bool,
    /// Where marks are, and what they say; empty: at round numbers.
    pub(crate) marks: Vec<(f64, String)>,
}

/// Points that belong together.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// An axis with the values that it shows.
struct Scale<'a> {
    axis: &'a Axis,
    low: f64,
    high: f64,
}

impl<'a> Scale<'a> {
    fn of(axis: &'a Axis, values: impl Iterator<Item = f64>) -> Self {
        let values = values.filter(|value| !axis.log || *value > 0.0);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if !axis.marks.is_empty() {
            return Self { axis, low, high };
        }
        if axis.log {
            let (low, high) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
            return Self { axis, low, high: if high > low { high } else { low * 10.0 } };
        }
        Self { axis, low: 0.0, high: if high > 0.0 { high * 1.05 } else { 1.0 } }
    }

    /// From 0 to 1; what is too low for a logarithm is at 0.
    fn place(&self, value: f64) -> f64 {
        if self.axis.log {
            let value = value.max(self.low);
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    fn marks(&self) -> Vec<(f64, String)> {
        if !self.axis.marks.is_empty() {
            return self.axis.marks.clone();
        }
        if self.axis.log {
            let (first, last) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            return (first..=last)
                .map(|power| 10_f64.powi(power))
                .map(|at| (at, text(at)))
                .collect();
        }
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|digit| digit * 10_f64.powf((self.high / 5.0).log10().floor()));
        let step = step.into_iter().find(|step| self.high / step <= 6.0).unwrap_or(self.high);
        (0..=6)
            .map(|n| f64::from(n) * step)
            .filter(|at| *at <= self.high)
            .map(|at| (at, text(at)))
            .collect()
    }
}

fn text(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value}") }
}

impl Plot {
    /// The whole file.
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let across = Scale::of(&self.x, points().map(|point| point.0));
        let up = Scale::of(&self.y, points().map(|point| point.1));
        let [left, right, top, bottom] = MARGINS;
        let (wide, high) = (WIDTH - left - right, HEIGHT - top - bottom);
        let at_x = |value| left + wide * across.place(value);
        let at_y = |value| top + high * (1.0 - up.place(value));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"22\" font-size=\"14\">{}</text>\n",
            escaped(&self.title)
        );
        let end = top + high;
        for (value, label) in across.marks() {
            let x = at_x(value);
            add(&mut svg, format_args!("<path d=\"M{x:.1} {top}V{end}\" stroke=\"#ddd\"/>"));
            add(
                &mut svg,
                format_args!(
                    "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                    end + 18.0,
                    escaped(&label)
                ),
            );
        }
        for (value, label) in up.marks() {
            let y = at_y(value);
            let to = left + wide;
            add(&mut svg, format_args!("<path d=\"M{left} {y:.1}H{to}\" stroke=\"#ddd\"/>"));
            add(
                &mut svg,
                format_args!(
                    "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    left - 6.0,
                    y + 4.0,
                    escaped(&label)
                ),
            );
        }
        let (middle, below) = (left + wide / 2.0, HEIGHT - 12.0);
        let label = escaped(&self.x.label);
        add(
            &mut svg,
            format_args!(
                "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>"
            ),
        );
        let (middle, label) = (top + high / 2.0, escaped(&self.y.label));
        add(
            &mut svg,
            format_args!(
                "<text transform=\"translate(16 {middle}) rotate(-90)\" text-anchor=\"middle\">{label}</text>"
            ),
        );
        for (number, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let places: Vec<String> = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y)))
                .collect();
            add(
                &mut svg,
                format_args!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                    places.join(" ")
                ),
            );
            for place in &places {
                let (x, y) = place.split_once(',').unwrap_or_default();
                add(
                    &mut svg,
                    format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>"),
                );
            }
            let (x, y) = (left + wide + 12.0, top + 10.0 + 20.0 * number as f64);
            add(
                &mut svg,
                format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/>"),
            );
            let name = escaped(&line.name);
            add(&mut svg, format_args!("<text x=\"{}\" y=\"{}\">{name}</text>", x + 10.0, y + 4.0));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn add(svg: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(svg, "{line}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(log: bool) -> String {
        let axis = |label: &str| Axis { label: label.into(), log, marks: Vec::new() };
        let points = vec![(10.0, 1.0), (100.0, 30.0), (1_000.0, 100.0)];
        let lines = vec![Line { name: "a < b".into(), points }];
        Plot { title: "t".into(), x: axis("x"), y: axis("y"), lines }.svg()
    }

    #[test]
    fn powers_of_ten_are_evenly_spaced_and_names_are_escaped() {
        let svg = plot(true);
        assert!(svg.contains("points=\"70.0,350.0 280.0,121.0 490.0,40.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains(">1000<"), "{svg}");
    }

    #[test]
    fn a_linear_axis_begins_at_zero() {
        let svg = plot(false);
        assert!(svg.contains(">0<") && svg.contains(">20<"), "{svg}");
    }
}
