//! Line charts as inline SVG.

use super::html::escape;
use super::ticks::{Axis, Unit, number};

/// A line of a chart.
pub struct Series {
    /// Name in the legend.
    pub name: &'static str,
    /// Points (step, value) with ascending steps and finite values.
    pub points: Vec<(f64, f64)>,
}

/// A chart over the steps of a run.
pub struct Chart {
    /// Title of the chart.
    pub title: &'static str,
    /// Number format of the values.
    pub unit: Unit,
    /// Text after a value: ` tokens/s`.
    pub suffix: &'static str,
    /// Whether the axis of values begins at 0.
    pub from_zero: bool,
    /// One to three lines.
    pub series: Vec<Series>,
}

/// Size and margins of the drawing, in SVG units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

/// The most points of a drawn line; longer ones are thinned out.
const MOST_POINTS: usize = 1200;
/// Lines of more points are drawn faintly, with this many means of consecutive points on top.
const STRETCHES: usize = 150;
/// Lines of at most this many points have a dot at each.
const MOST_DOTS: usize = 40;

impl Chart {
    /// The chart as a `<figure>`; `None` without a point. `last` is the last step of all charts of the page.
    pub fn html(&self, last: f64) -> Option<String> {
        let values = || self.series.iter().flat_map(|s| s.points.iter().map(|(_, y)| *y));
        let (mut low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
        values().next()?;
        if self.from_zero {
            low = low.min(0.0);
        }
        let (x_axis, y_axis) = (Axis::steps(last), Axis::new(low, high, 5, self.unit));
        let x = |step: f64| LEFT + (WIDTH - LEFT - RIGHT) * step / x_axis.high();
        let y = |value: f64| {
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - y_axis.low()) / (y_axis.high() - y_axis.low())
        };
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", self.title);
        for tick in &y_axis.ticks {
            let (at, label) = (y(*tick), y_axis.label(*tick));
            svg +=
                &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - RIGHT);
            svg += &format!("<text class=\"y\" x=\"{}\" y=\"{:.1}\">{label}</text>", LEFT - 8.0, at + 4.0);
        }
        for tick in &x_axis.ticks {
            let (at, bottom) = (x(*tick), HEIGHT - BOTTOM);
            svg += &format!(
                "<line class=\"tick\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{}\"/>",
                bottom + 4.0
            );
            svg += &format!("<text class=\"x\" x=\"{at:.1}\" y=\"{}\">{}</text>", bottom + 18.0, x_axis.label(*tick));
        }
        let (end, base) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        svg += &format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{base}\" y2=\"{base}\"/>");
        for (i, series) in self.series.iter().enumerate() {
            svg += &series.svg(i, &x, &y);
        }
        svg += "<line class=\"cursor\" hidden=\"\"/></svg>";
        let legend: String = match &self.series[..] {
            [_] => String::new(),
            all => all.iter().enumerate().map(|(i, s)| format!("<span class=\"key s{i}\">{}</span>", s.name)).collect(),
        };
        let stretch = self.series.iter().map(|s| stretch(&s.points)).max().unwrap_or(1);
        let means = match stretch {
            1 => String::new(),
            n => format!("<small>thick: means of {n} records</small>"),
        };
        let data: Vec<String> = self.series.iter().map(|s| self.data(s, &x, &y)).collect();
        Some(format!(
            "<figure data-series=\"{}\"><figcaption><span>{}{means}</span><span class=\"legend\">{legend}</span></figcaption>{svg}\
             <div class=\"tip\" hidden></div></figure>\n",
            escape(&format!("[{}]", data.join(","))),
            self.title
        ))
    }

    /// The data for the tooltip of a line, as JSON: its name, and the position and text of each point.
    fn data(&self, series: &Series, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
        let text = |value: f64| format!("{}{}", number(value, self.unit), self.suffix);
        let point =
            |(step, value): &(f64, f64)| format!("[{:.1},{:.1},{step},\"{}\"]", x(*step), y(*value), text(*value));
        let points: Vec<String> = thin(&series.points).iter().map(point).collect();
        format!("[\"{}\",[{}]]", series.name, points.join(","))
    }
}

impl Series {
    fn svg(&self, index: usize, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
        let points = thin(&self.points);
        let line = |class: &str, points: &[(f64, f64)]| {
            let places = points.iter().map(|(step, value)| format!("{:.1},{:.1}", x(*step), y(*value)));
            let places: Vec<String> = places.collect();
            format!("<polyline class=\"line {class}s{index}\" points=\"{}\"/>", places.join(" "))
        };
        let mut svg = match stretch(&self.points) {
            1 => line("", &points),
            n => line("raw ", &points) + &line("", &means(&self.points, n)),
        };
        if points.len() <= MOST_DOTS {
            for (step, value) in &points {
                let (cx, cy) = (x(*step), y(*value));
                svg += &format!("<circle class=\"dot s{index}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\"/>");
            }
        }
        svg
    }
}

/// The number of points per mean; 1 if there are few enough to draw each.
fn stretch(points: &[(f64, f64)]) -> usize {
    if points.len() > 2 * STRETCHES { points.len().div_ceil(STRETCHES) } else { 1 }
}

/// Mean step and mean value of each `stretch` of points.
fn means(points: &[(f64, f64)], stretch: usize) -> Vec<(f64, f64)> {
    let mean = |part: &[(f64, f64)]| {
        let (steps, values) = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (steps / part.len() as f64, values / part.len() as f64)
    };
    points.chunks(stretch).map(mean).collect()
}

/// All points, or if there are too many the lowest and the highest of each `stretch`, so that spikes stay visible.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let stretches = points.chunks(points.len().div_ceil(MOST_POINTS / 2));
    stretches
        .flat_map(|stretch| {
            let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let mut ends: Vec<_> = [stretch.iter().min_by(by_value), stretch.iter().max_by(by_value)]
                .into_iter()
                .flatten()
                .copied()
                .collect();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0));
            ends.dedup();
            ends
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_have_means() {
        let points: Vec<_> = (0..400).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert_eq!((stretch(&points), stretch(&points[..300])), (3, 1));
        let means = means(&points, 4);
        assert_eq!((means.len(), means[0], means[99]), (100, (1.5, 0.5), (397.5, 0.5)));
    }

    #[test]
    fn thinning_keeps_the_spikes() {
        let mut points: Vec<_> = (0..100_000).map(|i| (f64::from(i), 1.0 + f64::from(i % 7))).collect();
        points[54_321].1 = 99.0;
        points[77_777].1 = -99.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= MOST_POINTS && thinned.is_sorted_by(|a, b| a.0 < b.0));
        assert!(thinned.contains(&(54_321.0, 99.0)) && thinned.contains(&(77_777.0, -99.0)));
        assert_eq!(thin(&points[..MOST_POINTS]), points[..MOST_POINTS]);
    }
}
