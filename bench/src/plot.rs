//! Line charts with logarithmic axes, as SVG and PNG.
//!
//! Invariant: the same chart gives the same files on every machine. So no font of the machine is
//! used: the viewer of an SVG sets its text, and that of a PNG is drawn from a font of 8x8 points
//! that comes with the program.

mod letters;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Text};
use plotters::prelude::{DrawingBackend, IntoLogRange};
use plotters::series::LineSeries;
use plotters::style::{Color, Palette, Palette99, WHITE};

use crate::error::Error;
use letters::Lettered;

/// Size of a chart, points.
const SIZE: (u32, u32) = (1800, 1000);
/// Width of the strip at the right that says which line is what, points.
const LEGEND_WIDTH: u32 = 560;
/// Text but for the title: a font's name, for the SVG, and its size.
const LETTERS: (&str, u32) = ("sans-serif", 20);
/// Bytes of a point of the bitmap.
const POINT_BYTES: usize = 3;

/// One line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// What is on the horizontal axis, with its unit.
    pub x: String,
    /// What is on the vertical axis, with its unit.
    pub y: String,
    /// The lines; points that are not above 0 are left out.
    pub lines: Vec<Line>,
}

impl Chart {
    /// Writes DIR/NAME.svg and DIR/NAME.png, unless there is nothing to show.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(), Error> {
        if self.ranges().is_none() {
            return Ok(());
        }
        let file = |ending: &str| dir.join(format!("{name}.{ending}"));
        let save = |path: &Path, bytes: &[u8]| {
            fs::write(path, bytes).map_err(Error::io(format!("writing {}", path.display())))
        };
        save(&file("svg"), self.svg()?.as_bytes())?;
        save(&file("png"), &self.png()?)
    }

    fn svg(&self) -> Result<String, Error> {
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area())
            .map_err(|error| Error::Failed(format!("drawing '{}': {error}", self.title)))?;
        Ok(text)
    }

    fn png(&self) -> Result<Vec<u8>, Error> {
        let mut points = vec![0; SIZE.0 as usize * SIZE.1 as usize * POINT_BYTES];
        let backend = Lettered(BitMapBackend::with_buffer(&mut points, SIZE));
        self.draw(&backend.into_drawing_area())
            .map_err(|error| Error::Failed(format!("drawing '{}': {error}", self.title)))?;
        encode(&points).map_err(Error::io(format!("encoding '{}'", self.title)))
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.lines.iter().flat_map(shown)
    }

    /// What the axes must show, with some room; `None` without any point.
    fn ranges(&self) -> Option<(Range<f64>, Range<f64>)> {
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (min, max) =
                values.fold((f64::MAX, 0.0_f64), |(min, max), v| (min.min(v), max.max(v)));
            (max > 0.0).then(|| min / 1.2..max * 1.2)
        };
        let x = range(&mut self.points().map(|(x, _)| x))?;
        let y = range(&mut self.points().map(|(_, y)| y))?;
        Some((x, y))
    }

    fn draw<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        let Some((x, y)) = self.ranges() else { return Ok(()) };
        area.fill(&WHITE)?;
        let (left, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        let mut chart = ChartBuilder::on(&left)
            .caption(&self.title, ("sans-serif", 30))
            .margin(20)
            .x_label_area_size(80)
            .y_label_area_size(120)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .label_style(LETTERS)
            .axis_desc_style(LETTERS)
            .x_label_formatter(&|value| compact(*value))
            .y_label_formatter(&|value| compact(*value))
            .max_light_lines(0)
            .draw()?;
        for (number, line) in self.lines.iter().enumerate() {
            let color = Palette99::pick(number).to_rgba();
            chart.draw_series(LineSeries::new(shown(line), color.stroke_width(3)))?;
            let points = shown(line).map(|point| Circle::new(point, 5, color.filled()));
            chart.draw_series(points)?;
            // Beside the chart: inside, it hides a line wherever it is.
            let y = 80 + 36 * i32::try_from(number).unwrap_or(i32::MAX / 36 - 80);
            let sample = [(0, y + 8), (30, y + 8)];
            legend.draw(&PathElement::new(sample, color.stroke_width(3)))?;
            legend.draw(&Text::new(line.name.as_str(), (40, y), LETTERS))?;
        }
        area.present()
    }
}

/// The points of a line that a logarithmic axis can show.
fn shown(line: &Line) -> impl Iterator<Item = (f64, f64)> + '_ {
    line.points.iter().copied().filter(|&(x, y)| x > 0.0 && y > 0.0 && y.is_finite())
}

/// A number for an axis: 1500 is 1.5k.
fn compact(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    // Three digits, without zeros that say nothing.
    let digits = (2.0 - scaled.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{scaled:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}

fn encode(points: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(io::Error::from)?;
    writer.write_image_data(points).map_err(io::Error::from)?;
    drop(writer);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let line =
            |name: &str, points: &[(f64, f64)]| Line { name: name.into(), points: points.into() };
        Chart {
            title: "throughput".into(),
            x: "connections".into(),
            y: "bytes/s".into(),
            lines: vec![
                line("4 KiB", &[(1.0, 1e6), (2.0, 2.5e6), (16.0, 9e6)]),
                line("1 GiB", &[(1.0, 1e9), (2.0, f64::NAN), (4.0, 0.0)]),
            ],
        }
    }

    #[test]
    fn both_files_show_the_chart() {
        let dir = tempfile::tempdir().expect("a directory");
        chart().write(dir.path(), "chart").expect("written");
        let svg = fs::read_to_string(dir.path().join("chart.svg")).expect("an SVG");
        for text in ["throughput", "connections", "bytes/s", "4 KiB", "1 GiB"] {
            assert!(svg.contains(text), "{text}");
        }
        let png = fs::read(dir.path().join("chart.png")).expect("a PNG");
        let mut reader =
            png::Decoder::new(io::Cursor::new(png)).read_info().expect("a readable PNG");
        let size = reader.output_buffer_size().expect("a size that fits the memory");
        let mut points = vec![0; size];
        reader.next_frame(&mut points).expect("an image");
        let is_ink = |point: &[u8]| point != [255, 255, 255];
        let ink = points.chunks(POINT_BYTES).filter(|point| is_ink(point)).count();
        // Lines and letters, on much white.
        assert!((5_000..200_000).contains(&ink), "{ink} points of ink");
    }

    #[test]
    fn nothing_to_show_writes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let empty = Chart { lines: Vec::new(), ..chart() };
        empty.write(dir.path(), "chart").expect("nothing to do");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn axes_have_short_numbers() {
        let shown = [0.001, 0.5, 1.0, 20.0, 1500.0, 2e6, 3.25e9].map(compact);
        assert_eq!(shown, ["0.001", "0.5", "1", "20", "1.5k", "2M", "3.25G"]);
    }
}
