//! The plots of the page, as SVG.

use std::{error::Error, path::Path};

use plotters::prelude::*;
use snapring_bench::results::{Pair, Paired, Set};

use crate::{measured::Group, tables::time};

/// What a line is called, its colour and its points.
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

type Drawn = Result<(), Box<dyn Error>>;

/// States on the first plot, from small to large.
const STATES: [&str; 4] = ["small", "room", "world", "cells"];

/// What is drawn of each, on tmpfs or where it is: the row's start, what it is called, its colour.
const LINES: [(&str, &str, RGBColor); 9] = [
    ("limit, ring of", "limit: copy + CRC", RGBColor(0, 0, 0)),
    ("snapring map-free", "snapring, map-free", RGBColor(0, 110, 200)),
    ("snapring sorted", "snapring, sorted maps", RGBColor(90, 170, 235)),
    ("Clone, map-free", "Clone", RGBColor(150, 150, 150)),
    ("mmap-sync write_raw", "mmap-sync, ready bytes", RGBColor(250, 170, 90)),
    ("mmap-sync write", "mmap-sync, typed", RGBColor(215, 95, 0)),
    ("LMDB put, by", "LMDB, by wincode", RGBColor(0, 140, 80)),
    ("redb insert, by", "redb, by wincode", RGBColor(180, 60, 60)),
    ("wincode to a file", "wincode to a file", RGBColor(140, 80, 170)),
];

/// The time of such a row in a group.
fn find(group: &Group, row: &str) -> Option<f64> {
    let cells = group.cells.iter().filter(|c| c.column == "tmpfs" || c.column == "heap");
    let fits = |name: &str| {
        let typed = row == "mmap-sync write" && name.starts_with("mmap-sync write_raw");
        name.starts_with(row) && !typed
    };
    cells.filter(|c| fits(&c.row)).map(|c| c.nanos).next()
}

/// Times of saves by state, on a logarithmic scale.
pub(crate) fn saves(path: &Path, groups: &[Group]) -> Drawn {
    let group = |state: &str| groups.iter().find(|group| group.name == format!("save {state}"));
    let lines: Vec<Line> = LINES
        .iter()
        .map(|(row, name, colour)| {
            let point = |(at, state): (usize, &&str)| Some((at as f64, find(group(state)?, row)?));
            (*name, *colour, STATES.iter().enumerate().filter_map(point).collect())
        })
        .collect();
    draw(path, "One save on tmpfs, by state", &STATES, lines)
}

/// States on the plot of durable saves.
const DURABLE: [&str; 3] = ["small", "room", "world"];

/// What is drawn of each: the row, what it is called, its colour.
const DURABLE_LINES: [(&str, &str, RGBColor); 6] = [
    ("snapring map-free", "snapring, map-free", RGBColor(0, 110, 200)),
    ("snapring sorted", "snapring, sorted maps", RGBColor(90, 170, 235)),
    ("LMDB put, by wincode", "LMDB, by wincode", RGBColor(0, 140, 80)),
    ("LMDB put into its map, by wincode", "LMDB's map, by wincode", RGBColor(120, 190, 150)),
    ("redb insert, by wincode", "redb, by wincode", RGBColor(180, 60, 60)),
    ("wincode to a file, flushed, renamed", "wincode to a file", RGBColor(140, 80, 170)),
];

/// Times of durable saves by state, from the rows that ran by turns.
pub(crate) fn durable(path: &Path, sets: &[Set]) -> Drawn {
    let nanos = |state: &str, row: &str| {
        let set = sets.iter().find(|set| set.name == format!("durable {state}, ext4"))?;
        set.rows.iter().find(|r| r.name == row).map(|r| r.median)
    };
    let lines = DURABLE_LINES.map(|(row, name, colour)| {
        let point = |(at, state): (usize, &&str)| Some((at as f64, nanos(state, row)?));
        (name, colour, DURABLE.iter().enumerate().filter_map(point).collect())
    });
    draw(path, "One save on ext4, on the disk when it returns", &DURABLE, lines.to_vec())
}

/// A line for each, over the states, on a logarithmic scale.
fn draw(path: &Path, caption: &str, states: &[&str], lines: Vec<Line>) -> Drawn {
    let times = || lines.iter().flat_map(|(_, _, points)| points).map(|(_, nanos)| *nanos);
    let (low, high) = (times().fold(f64::MAX, f64::min), times().fold(0.0, f64::max));
    if low > high {
        return Ok(());
    }
    let root = SVGBackend::new(path, (860, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(72)
        .build_cartesian_2d(-0.2..states.len() as f64 + 0.4, (low / 2.0..high * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(20)
        .x_label_formatter(&|at| {
            let state =
                states.get(at.round().max(0.0) as usize).filter(|_| at.fract().abs() < 0.01);
            state.map_or_else(String::new, |state| (*state).to_owned())
        })
        .y_label_formatter(&|nanos| time(*nanos))
        .draw()?;
    for (name, colour, points) in lines {
        if points.is_empty() {
            continue;
        }
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    root.present()?;
    Ok(())
}

/// Room for the names, in units of the scale.
const NAMES: f64 = 1.4;

/// Where the scale ends: bars that would be longer are cut, their numbers tell.
const FARTHEST: f64 = 2.0;

/// How far each pair is from what it must reach: a bar up to the line reaches it.
pub(crate) fn ratios(path: &Path, paired: &Paired) -> Drawn {
    let pairs: Vec<(String, &Pair)> = paired
        .sets
        .iter()
        .flat_map(|set| set.pairs.iter().map(move |pair| (set.name.clone(), pair)))
        .collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let height = 70 + 22 * pairs.len();
    let root = SVGBackend::new(path, (960, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let rows = pairs.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption("Ratio to the reference, by what it may be at most", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(24)
        .build_cartesian_2d(-NAMES..FARTHEST + 0.2, rows..0.0_f64)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .disable_y_axis()
        .x_labels(20)
        .x_label_formatter(&|x| if *x < 0.0 { String::new() } else { format!("{x:.1}") })
        .draw()?;
    for (at, (set, pair)) in pairs.iter().enumerate() {
        let (top, share) = (at as f64, pair.ratio / pair.most);
        let colour = if share <= 1.0 { RGBColor(0, 130, 90) } else { RGBColor(200, 70, 40) };
        let bar =
            Rectangle::new([(0.0, top + 0.2), (share.min(FARTHEST), top + 0.8)], colour.filled());
        let name = format!("{}  {} / {}", pair.target, pair.row, pair.reference);
        let place = set.split_once(", ").map_or("", |(_, place)| place);
        let text = |text: String, x: f64| Text::new(text, (x, top + 0.25), ("sans-serif", 12));
        chart.draw_series([bar])?;
        chart.draw_series([text(format!("{name} {place}"), -NAMES)])?;
        chart.draw_series([text(format!("{:.2}", pair.ratio), -0.14)])?;
    }
    chart.draw_series([PathElement::new([(1.0, 0.0), (1.0, rows)], BLACK.stroke_width(2))])?;
    root.present()?;
    Ok(())
}
