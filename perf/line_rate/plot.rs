//! Curves as SVG.

use crate::bench::Result;
use crate::samples::Spread;
use plotters::prelude::*;

/// One line of a plot: a name, and points by what is varied.
pub struct Curve {
    pub name: &'static str,
    pub points: Vec<(f64, Spread)>,
}

/// A picture of some curves.
pub struct Plot<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
    pub log_x: bool,
    pub curves: &'a [Curve],
}

const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 88, 160),
    RGBColor(196, 78, 32),
    RGBColor(52, 128, 72),
    RGBColor(120, 80, 150),
];

impl Plot<'_> {
    /// Draws medians as lines, and each median's extremes as a stroke.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (760, 400)).into_drawing_area();
            root.fill(&WHITE)?;
            let points = || self.curves.iter().flat_map(|curve| &curve.points);
            let (mut low, mut high) = (f64::MAX, 1.0f64);
            for (x, _) in points() {
                (low, high) = (low.min(*x), high.max(*x));
            }
            let top = points().map(|(_, s)| s.median).fold(0.0, f64::max) * 1.25;
            let mut chart = ChartBuilder::on(&root);
            chart
                .caption(self.title, ("sans-serif", 18))
                .margin(12)
                .x_label_area_size(44)
                .y_label_area_size(64);
            // The two kinds of axis are types of their own.
            macro_rules! draw {
                ($x:expr) => {{
                    let mut chart = chart.build_cartesian_2d($x, 0.0..top)?;
                    chart
                        .configure_mesh()
                        .light_line_style(WHITE)
                        .x_desc(self.x)
                        .y_desc(self.y)
                        .x_label_formatter(&|x: &f64| crate::report::number(*x))
                        .draw()?;
                    for (curve, colour) in self.curves.iter().zip(COLOURS) {
                        let line = curve.points.iter().map(|(x, s)| (*x, s.median));
                        chart
                            .draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))?
                            .label(curve.name)
                            .legend(move |(x, y)| {
                                PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(2))
                            });
                        chart.draw_series(line.map(|at| Circle::new(at, 3, colour.filled())))?;
                        let strokes = curve
                            .points
                            .iter()
                            .map(|(x, s)| vec![(*x, s.min), (*x, s.max.min(top))]);
                        chart.draw_series(strokes.map(|ends| PathElement::new(ends, colour)))?;
                    }
                    chart
                        .configure_series_labels()
                        .position(SeriesLabelPosition::UpperLeft)
                        .background_style(WHITE.mix(0.8))
                        .border_style(BLACK.mix(0.3))
                        .draw()?;
                }};
            }
            match self.log_x {
                true => draw!((low..high).log_scale()),
                false => draw!(low..high),
            }
            root.present()?;
        }
        Ok(svg)
    }
}
