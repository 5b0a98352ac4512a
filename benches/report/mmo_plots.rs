//! The plots of what captures add, over the share of pages written and over the size of the state.

use std::{error::Error, ops::Range, path::Path};

use plotters::prelude::*;
use snapring_bench::results::Point;

use crate::tables::time;

type Drawn = Result<(), Box<dyn Error>>;

/// A line of somebody else's: its name, its colour and its points.
type Other<'a> = (&'a str, RGBColor, Vec<(f64, f64)>);

/// What a line is called and its colour.
type Line = (&'static str, RGBColor);

const SHARES: [Line; 8] = [
    ("plain copy, players", RGBColor(120, 120, 120)),
    ("fork and its page faults, players", RGBColor(180, 60, 60)),
    ("pause and copies, players", RGBColor(0, 110, 200)),
    ("pause, players", RGBColor(90, 170, 235)),
    ("plain copy, cells", RGBColor(190, 190, 190)),
    ("fork and its page faults, cells", RGBColor(230, 150, 140)),
    ("pause and copies, cells", RGBColor(0, 140, 80)),
    ("pause, cells", RGBColor(120, 200, 150)),
];

const SIZES: [Line; 5] = [
    ("Clone of a Vec", RGBColor(120, 120, 120)),
    ("fork, its child gone at once", RGBColor(180, 60, 60)),
    ("pause and copies, 1 % of pages written", RGBColor(0, 110, 200)),
    ("pause, all pages written", RGBColor(0, 140, 80)),
    ("pause, 1 % of pages written", RGBColor(90, 170, 235)),
];

/// Pauses at 1, 2, 4 and 8 GB in the data sheet of Li et al., in microseconds.
const LITERATURE: [(&str, RGBColor, [f64; 4]); 5] = [
    ("naive copy", RGBColor(170, 170, 170), [642e3, 975e3, 1_672e3, 3_232e3]),
    ("fork", RGBColor(230, 150, 140), [14.6e3, 25.8e3, 224e3, 568e3]),
    ("copy-on-update", RGBColor(200, 150, 60), [2.0e3, 4.3e3, 8.0e3, 15.7e3]),
    ("Zigzag", RGBColor(150, 110, 190), [1.0e3, 1.8e3, 3.6e3, 7.2e3]),
    ("Ping-Pong", RGBColor(90, 90, 160), [0.7, 0.5, 0.2, 0.6]),
];

/// By the share of pages written.
pub(crate) fn by_share(path: &Path, points: &[Point]) -> Drawn {
    let caption = "What one capture of 64 MiB adds to its thread";
    let about = |x: &f64| format!("{x} %");
    draw(
        path,
        caption,
        "pages written between two captures",
        (0.08..130.0, 10.0),
        SeriesLabelPosition::LowerRight,
        &about,
        &SHARES,
        points,
        &[],
    )
}

/// By the size of the state, with the literature's figures.
pub(crate) fn by_size(path: &Path, points: &[Point]) -> Drawn {
    let caption = "How long the thread stands still, by the size of the state";
    let about = |x: &f64| {
        if *x < 1024.0 { format!("{x} MiB") } else { format!("{} GiB", x / 1024.0) }
    };
    let others = LITERATURE.map(|(name, colour, times)| {
        let at = [1024.0, 2048.0, 4096.0, 8192.0].into_iter();
        (name, colour, at.zip(times.map(|micros| micros * 1e3)).collect())
    });
    draw(
        path,
        caption,
        "state",
        (16.0..10_000.0, 2.0),
        SeriesLabelPosition::UpperLeft,
        &about,
        &SIZES,
        points,
        &others,
    )
}

#[expect(clippy::too_many_arguments, reason = "what differs between two plots")]
fn draw(
    path: &Path,
    caption: &str,
    what: &str,
    (wide, base): (Range<f64>, f64),
    legend: SeriesLabelPosition,
    about: &dyn Fn(&f64) -> String,
    lines: &[Line],
    points: &[Point],
    others: &[Other<'_>],
) -> Drawn {
    let ours = points.iter().map(|point| point.y);
    let all = ours.chain(others.iter().flat_map(|(_, _, points)| points).map(|(_, y)| *y));
    let (low, high) = all.fold((f64::MAX, 0.0_f64), |(low, high), y| (low.min(y), high.max(y)));
    if points.is_empty() {
        return Ok(());
    }
    let root = SVGBackend::new(path, (900, 600)).into_drawing_area();
    root.fill(&WHITE)?;
    let (low, high) = ((low / 2.0).max(50.0), high * 4.0);
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(wide.log_scale().base(base), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(what)
        .x_label_formatter(&|x| about(x))
        .y_label_formatter(&|nanos| time(*nanos))
        .draw()?;
    for (name, colour) in lines {
        let mut line: Vec<(f64, f64)> = points
            .iter()
            .filter(|point| point.line == *name)
            .map(|p| (p.x, p.y.max(1.0)))
            .collect();
        line.sort_by(|a, b| a.0.total_cmp(&b.0));
        chart.draw_series(line.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    for (name, colour, line) in others {
        chart
            .draw_series(line.iter().map(|point| Circle::new(*point, 4, colour.stroke_width(1))))?;
        let colour = *colour;
        chart
            .draw_series(DashedLineSeries::new(line.iter().copied(), 4, 4, colour.stroke_width(1)))?
            .label(format!("Li et al., other hardware: {name}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(1)));
    }
    chart
        .configure_series_labels()
        .position(legend)
        .label_font(("sans-serif", 11))
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    root.present()?;
    Ok(())
}
