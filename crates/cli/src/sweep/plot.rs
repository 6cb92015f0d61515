//! The plots of a sweep: a chart for each figure over its axis, as a page of their own or as one image.
//!
//! **Invariants.** As `html/`: no other resource is named, nothing of a scenario is markup, the same sweep is the same text.

use super::axis::AxisKind;
use super::figure::{Figure, Scale};
use super::result::Sweep;
use crate::command_line::{CommandLine, OUTPUTS};
use crate::error::Result;
use crate::html::svg::{Axis, Chart, escape, figure, legend, numbers};
use crate::html::{STYLE, line_class};
use crate::outputs;
use crate::units::{show_bytes, show_us};
use std::path::Path;

const HEIGHT: f64 = 300.0;
/// Width of a chart in its own units.
const WIDTH: f64 = 560.0;
/// One line of an image's legend.
const LEGEND_LINE: f64 = 20.0;
const TITLE: f64 = 34.0;

/// Writes it.
///
/// # Errors
/// What the file system answers, with the option that has to change.
pub fn write(option: &str, path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| outputs::refused(option, path, e))?;
    say!("plot: {}", path.display());
    Ok(())
}

/// So many ticks have room for their text.
const TICKS: usize = 9;

/// What changes from point to point.
fn point_axis(sweep: &Sweep) -> Axis {
    let axis = sweep.axis();
    let place = |p: &f64| axis.place(*p);
    let (first, last) = (axis.points.first(), axis.points.last());
    let (min, max) = (first.map_or(0.0, place), last.map_or(1.0, place));
    let every = axis.points.len().div_ceil(TICKS).max(1);
    Axis {
        min,
        max: if max > min { max } else { min + 1.0 },
        ticks: (axis.points.iter().step_by(every))
            .map(|p| (place(p), axis.show(*p)))
            .collect(),
        name: axis.title().into(),
    }
}

/// Values of a figure, and where each lies.
fn value_axis(sweep: &Sweep, figure: &Figure) -> (Axis, Box<dyn Fn(f64) -> f64>) {
    let values = || {
        sweep
            .lines(figure)
            .into_iter()
            .flat_map(|l| l.values)
            .map(|v| v.median)
    };
    let max = values().fold(0.0, f64::max);
    if let Scale::Linear(factor, unit) = figure.scale {
        let max = max * factor;
        let show = |v: f64| match max {
            m if m > 0.0 && m < 10.0 => format!("{v:.3}"),
            _ => format!("{v:.0}"),
        };
        let name = match unit {
            "" => figure.title.to_string(),
            unit => format!("{}, {unit}", figure.title),
        };
        let axis = Axis::linear(0.0, max, &name, show);
        return (axis, Box::new(move |v| v * factor));
    }
    let log = |v: f64| v.max(0.01).log10();
    let low = values().map(log).fold(f64::INFINITY, f64::min).floor();
    let high = log(max).ceil().max(low + 1.0);
    let decades = (high - low) as i32;
    let axis = Axis {
        min: low,
        max: high,
        ticks: (0..=decades)
            .map(|d| low + f64::from(d))
            .map(|at| (at, show_us(10f64.powf(at))))
            .collect(),
        name: format!("{} of {}", figure.title, sweep.task),
    };
    (axis, Box::new(log))
}

fn chart(sweep: &Sweep, which: &Figure) -> String {
    let (y, scale) = value_axis(sweep, which);
    let lines = sweep.lines(which);
    let about = lines
        .iter()
        .map(|l| {
            let values: Vec<String> = l.values.iter().map(|v| (which.show)(v.median)).collect();
            format!("{}: {}", l.name, values.join(", "))
        })
        .collect::<Vec<_>>()
        .join("; ");
    let axis = sweep.axis();
    let title = format!("{} against {}", which.title, axis.head());
    let mut chart = Chart::new(which.name, &title, &about, HEIGHT, point_axis(sweep), y);
    for (i, line) in lines.iter().enumerate() {
        let points = sweep.points.iter().zip(&line.values);
        chart.curve(
            &line_class(i),
            points.map(|(p, v)| (axis.place(*p), scale(v.median))),
        );
    }
    chart.finish()
}

fn number_table(sweep: &Sweep, which: &Figure) -> String {
    let axis = sweep.axis();
    let head = [axis.head().to_string()].into_iter();
    let head: Vec<String> = head
        .chain(sweep.arms.iter().map(|a| a.preset.clone()))
        .collect();
    let lines = sweep.lines(which);
    let rows: Vec<Vec<String>> = sweep
        .points
        .iter()
        .enumerate()
        .map(|(at, p)| {
            let values = lines.iter().map(|l| {
                let v = l.values[at];
                let show = which.show;
                format!("{} ({} to {})", show(v.median), show(v.min), show(v.max))
            });
            [axis.show(*p)].into_iter().chain(values).collect()
        })
        .collect();
    numbers(&head, &rows)
}

fn arm_legend(sweep: &Sweep) -> String {
    let items: Vec<(String, String)> = sweep
        .arms
        .iter()
        .enumerate()
        .map(|(i, a)| (line_class(i), a.preset.clone()))
        .collect();
    legend(&items, false)
}

/// The page.
pub fn page(sweep: &Sweep) -> String {
    let axis = sweep.axis();
    let name = match sweep.axis {
        AxisKind::Pressure => format!("{} under pressure", sweep.scenario),
        _ => format!("{} over {}", sweep.scenario, axis.head()),
    };
    let says_what = match sweep.axis {
        AxisKind::Pressure => "Where lines cross",
        _ => "How much is enough",
    };
    let memory = match sweep.memory_bytes {
        Some(bytes) => show_bytes(bytes),
        None => {
            let ends = [sweep.points.first(), sweep.points.last()];
            ends.map(|p| p.map_or(String::new(), |p| axis.show(*p)))
                .join(" to ")
        }
    };
    let over_seeds = if sweep.seeds.len() > 1 {
        "medians over the seeds"
    } else {
        ""
    };
    let charts: String = (sweep.figures().iter())
        .map(|f| {
            figure(
                f.title,
                over_seeds,
                &chart(sweep, f),
                &number_table(sweep, f),
            )
        })
        .collect();
    let says: String = sweep
        .sentences()
        .iter()
        .map(|s| format!("<p>{}</p>\n", escape(s.trim())))
        .collect();
    let seeds: Vec<String> = sweep.seeds.iter().map(u64::to_string).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0} - highwater</title><style>\n{STYLE}</style></head>\n<body>\n\
         <header><h1>{0}</h1><p>{7}</p>\
         <dl><dt>Memory</dt><dd>{1}</dd><dt>Disk</dt><dd>{10}</dd><dt>World</dt><dd>{2}</dd><dt>Seeds</dt><dd>{3}</dd></dl>\
         <p class=\"soft\">To repeat it:</p><pre>{4}</pre></header>\n\
         <section><h2>{8}</h2>\n{says}</section>\n\
         <section><h2>Against {9}</h2>{5}<div class=\"grid\">\n{charts}</div></section>\n\
         <section><h2>Numbers</h2><pre>{6}</pre></section></body></html>\n",
        escape(&name),
        memory,
        sweep.world,
        seeds.join(", "),
        escape(&CommandLine::here().without(&OUTPUTS).to_string()),
        arm_legend(sweep),
        escape(&sweep.table().render(crate::console::WIDTH)),
        axis.about(),
        says_what,
        axis.head(),
        escape(&sweep.disk),
    )
}

/// Colours for an image that stands alone: viewers of images know no variables.
const IMAGE_STYLE: &str = "text{font:12px sans-serif;fill:#1b1f24}.tick{fill:#5b6470}.axis{stroke:#5b6470;fill:none}\
.rule{stroke:#d5dae0;fill:none}.curve{fill:none;stroke-width:1.8}.d1{stroke-dasharray:7 3}.d2{stroke-dasharray:2 3}\
.s-c0{stroke:#0072b2}.s-c1{stroke:#d55e00}.s-c2{stroke:#009e73}.s-c3{stroke:#b5548a}.s-c4{stroke:#b88600}.s-c5{stroke:#3a9bd0}";

/// The image: the charts below one another, with one legend.
pub fn image(sweep: &Sweep) -> String {
    let legend_height = LEGEND_LINE * sweep.arms.len() as f64;
    let height = TITLE + legend_height + HEIGHT * sweep.figures().len() as f64;
    let mut body = String::new();
    for (i, arm) in sweep.arms.iter().enumerate() {
        let y = TITLE + LEGEND_LINE * i as f64;
        body.push_str(&format!(
            "<path class=\"curve {}\" d=\"M20 {y:.1}H60\"/><text x=\"70\" y=\"{:.1}\">{}</text>",
            line_class(i),
            y + 4.0,
            escape(&arm.preset)
        ));
    }
    for (i, f) in sweep.figures().iter().enumerate() {
        let y = TITLE + legend_height + HEIGHT * i as f64;
        body.push_str(&format!(
            "<svg x=\"0\" y=\"{y:.1}\" width=\"{WIDTH:.0}\" height=\"{HEIGHT:.0}\">{}</svg>",
            chart(sweep, f)
        ));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" height=\"{height:.0}\">\
         <style>{IMAGE_STYLE}</style><rect width=\"{WIDTH:.0}\" height=\"{height:.0}\" fill=\"#fff\"/>\
         <text x=\"20\" y=\"18\">{}{}</text>{body}</svg>\n",
        escape(&sweep.scenario),
        sweep
            .memory_bytes
            .map_or(String::new(), |m| format!(", memory {}", show_bytes(m)))
    )
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::{over_memory, sweep};
    use super::*;

    #[test]
    fn a_page_has_a_chart_for_each_figure_a_line_for_each_arm_and_names_nothing_outside() {
        let sweep = sweep();
        let (page, figures) = (page(&sweep), sweep.figures().len());
        assert_eq!(page.matches("<svg class=\"chart\"").count(), figures);
        assert_eq!(
            page.matches("<path class=\"curve s-c1 d0\" d=\"M").count(),
            figures + 1,
            "the charts and the legend"
        );
        assert!(page.contains("rfc &lt;2010&gt;") && !page.contains("rfc <2010>"));
        assert!(page.contains("cross between 0.8 x and 8 x"));
        let addresses = page.matches("http").count();
        assert_eq!(
            addresses,
            page.matches("http://www.w3.org/2000/svg").count()
        );
    }

    #[test]
    fn a_page_over_memory_has_sizes_on_its_axis() {
        let sweep = over_memory();
        let page = page(&sweep);
        assert_eq!(
            page.matches("<svg class=\"chart\"").count(),
            sweep.figures().len()
        );
        for text in [
            "rfc over memory",
            "How much is enough",
            ">64 MiB</text>",
            ">256 MiB</text>",
            "16 MiB to 256 MiB",
            "a disk",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(
            !page.contains("under pressure") && !page.contains("NaN"),
            "{page}"
        );
    }

    #[test]
    fn an_image_is_balanced_and_stands_alone() {
        let image = image(&sweep());
        assert_eq!(
            image.matches("<svg").count(),
            image.matches("</svg>").count()
        );
        assert!(!image.contains("var("), "no style of the page");
        assert!(image.contains("rfc &lt;2010&gt;"));
    }

    #[test]
    fn one_pressure_and_no_value_still_have_axes() {
        let mut sweep = sweep();
        sweep.points.truncate(1);
        for arm in &mut sweep.arms {
            arm.points.truncate(1);
        }
        let page = page(&sweep);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_before_the_run() {
        let e = write("--html", Path::new("/no/such/directory/x.html"), "").unwrap_err();
        assert!(e.message.contains("/no/such/directory"), "{e}");
        assert!(e.remedy.contains("--html"), "{e}");
    }
}
