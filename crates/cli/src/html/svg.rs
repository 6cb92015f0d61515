//! Charts as SVG text: axes with units, areas, curves and bars, coloured by classes of the page's style.
//!
//! Every text that comes from a scenario goes through [`escape`]; every number is written with a fixed count of digits,
//! so that the same report gives the same text.

use std::fmt::Write;

/// Width of a chart in its own units; the page scales it.
const WIDTH: f64 = 560.0;
const LEFT: f64 = 98.0;
/// The same of a chart that has a row to itself, with names beside its bars.
const WIDE: f64 = 1120.0;
const WIDE_LEFT: f64 = 190.0;
const RIGHT: f64 = 14.0;
/// At most so wide is a character of a tick, in the size that it has in a narrow window and in the usual one (16 and 12 px,
/// in `style.css`).
const TICK_CHAR: f64 = 9.0;
const TICK_CHAR_USUAL: f64 = 6.75;
/// Ticks next to each other have so many characters' width between them.
const TICK_GAP: f64 = 0.7;
const TOP: f64 = 12.0;
/// The same below the name of the upward axis: it lies, as none but the shortest would fit upright.
const TOP_NAMED: f64 = 30.0;
const BOTTOM: f64 = 40.0;

/// `text` as it may stand in HTML, in an attribute too.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No control character but white space is allowed in HTML.
            c if c.is_control() && !c.is_whitespace() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// One axis: its range, where it has ticks, and what it is called.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The least value.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Places and texts of ticks.
    pub ticks: Vec<(f64, String)>,
    /// Its name, with the unit.
    pub name: String,
}

impl Axis {
    /// From `min` to `max` with four to eight ticks at round numbers.
    pub fn linear(min: f64, max: f64, name: &str, show: impl Fn(f64) -> String) -> Axis {
        let max = if max > min { max } else { min + 1.0 };
        let rough = (max - min) / 5.0;
        let ten = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|m| m * ten)
            .into_iter()
            .find(|s| *s >= rough * 0.8)
            .unwrap_or(rough);
        let first = (min / step - 1e-9).ceil() as i64;
        let last = (max / step + 1e-9).floor() as i64;
        let ticks = (first..=last)
            .map(|i| i as f64 * step)
            .map(|v| (v, show(v)));
        Axis {
            min,
            max,
            ticks: ticks.collect(),
            name: name.into(),
        }
    }

    fn share(&self, v: f64) -> f64 {
        ((v - self.min) / (self.max - self.min)).clamp(0.0, 1.0)
    }
}

/// A chart in the making.
pub struct Chart {
    x: Axis,
    y: Axis,
    width: f64,
    left: f64,
    height: f64,
    body: String,
    title: String,
    about: String,
    id: String,
}

impl Chart {
    /// With its text alternatives; `id` is unique on the page.
    pub fn new(id: &str, title: &str, about: &str, height: f64, x: Axis, y: Axis) -> Chart {
        Chart {
            x,
            y,
            width: WIDTH,
            left: LEFT,
            height,
            body: String::new(),
            title: title.into(),
            about: about.into(),
            id: id.into(),
        }
    }

    /// As [`Chart::new`], for a row to itself.
    pub fn wide(id: &str, title: &str, about: &str, height: f64, x: Axis, y: Axis) -> Chart {
        Chart {
            width: WIDE,
            left: WIDE_LEFT,
            ..Chart::new(id, title, about, height, x, y)
        }
    }

    fn px(&self, x: f64) -> f64 {
        self.left + self.x.share(x) * (self.width - self.left - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        self.height - BOTTOM - self.y.share(y) * (self.height - self.top() - BOTTOM)
    }

    fn top(&self) -> f64 {
        match self.y.name.is_empty() {
            true => TOP,
            false => TOP_NAMED,
        }
    }

    /// Where the text of a tick at `x` stands, and how. One that would be cut off by the chart's edge ends there: "10 ms"
    /// without its end is another time.
    fn tick(&self, x: f64, text: &str, char_width: f64) -> (f64, &'static str) {
        match x + text.chars().count() as f64 * char_width / 2.0 > self.width {
            true => (self.width, "end"),
            false => (x, "middle"),
        }
    }

    /// Of the ticks below the chart each has room for its text, each second, ...: the first of these that is so, with
    /// characters of that width.
    fn every(&self, char_width: f64) -> usize {
        let span = |(v, text): &(f64, String)| {
            // Where it stands does not depend on the window, and is drawn for the larger text.
            let (at, anchor) = self.tick(self.px(*v), text, TICK_CHAR);
            let wide = text.chars().count() as f64 * char_width;
            match anchor {
                "end" => (at - wide, at),
                _ => (at - wide / 2.0, at + wide / 2.0),
            }
        };
        let spans: Vec<(f64, f64)> = self.x.ticks.iter().map(span).collect();
        let apart = |step: &usize| {
            let mut shown = spans.iter().step_by(*step).peekable();
            while let (Some(a), Some(b)) = (shown.next(), shown.peek()) {
                if a.1 + TICK_GAP * char_width > b.0 {
                    return false;
                }
            }
            true
        };
        (1..=spans.len()).find(apart).unwrap_or(1)
    }

    /// Shades the time before zero.
    pub fn settle(&mut self) {
        if self.x.min < 0.0 {
            let (a, b) = (self.px(self.x.min), self.px(0.0));
            let top = self.top();
            let h = self.height - top - BOTTOM;
            let w = b - a;
            let _ = write!(
                self.body,
                "<rect class=\"settle\" x=\"{a:.1}\" y=\"{top:.1}\" width=\"{w:.1}\" height=\"{h:.1}\"/>"
            );
            if w > 44.0 {
                let (x, y) = (a + w / 2.0, self.height - BOTTOM - 6.0);
                let _ = write!(
                    self.body,
                    "<text class=\"halo\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">settling</text>"
                );
            }
        }
    }

    /// A line through `points`.
    pub fn curve(&mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        let mut d = String::new();
        for (x, y) in points {
            let verb = if d.is_empty() { 'M' } else { 'L' };
            let _ = write!(d, "{verb}{:.1} {:.1}", self.px(x), self.py(y));
        }
        if !d.is_empty() {
            let _ = write!(self.body, "<path class=\"curve {class}\" d=\"{d}\"/>");
        }
    }

    /// The area between two lines over the same places.
    pub fn area(&mut self, class: &str, x: &[f64], low: &[f64], high: &[f64]) {
        if x.is_empty() {
            return;
        }
        let mut d = String::new();
        let upper = x.iter().zip(high);
        let lower = x.iter().zip(low).rev();
        for (x, y) in upper.chain(lower) {
            let verb = if d.is_empty() { 'M' } else { 'L' };
            let _ = write!(d, "{verb}{:.1} {:.1}", self.px(*x), self.py(*y));
        }
        let _ = write!(self.body, "<path class=\"{class}\" d=\"{d}Z\"/>");
    }

    /// A horizontal line with its name, which stands above the line or below it.
    pub fn level(&mut self, y: f64, name: &str, above: bool) {
        let at = self.py(y);
        let (a, b) = (self.left, self.width - RIGHT);
        let text = if above { at - 4.0 } else { at + 13.0 };
        let _ = write!(
            self.body,
            "<path class=\"mark\" d=\"M{a:.1} {at:.1}H{b:.1}\"/>\
             <text class=\"halo\" x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>",
            b - 4.0,
            escape(name)
        );
    }

    /// The whole element.
    pub fn finish(self) -> String {
        let (w, h) = (self.width, self.height);
        let (left, right, top, bottom) = (self.left, w - RIGHT, self.top(), h - BOTTOM);
        let id = &self.id;
        let mut out = format!(
            "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w:.0} {h:.0}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>",
            escape(&self.title),
            escape(&self.about)
        );
        for (v, text) in &self.y.ticks {
            let y = self.py(*v);
            let _ = write!(
                out,
                "<path class=\"rule\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                escape(text)
            );
        }
        let (usual, narrow) = (self.every(TICK_CHAR_USUAL), self.every(TICK_CHAR));
        for (i, (v, text)) in self.x.ticks.iter().enumerate() {
            let x = self.px(*v);
            let _ = write!(
                out,
                "<path class=\"rule\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>"
            );
            if !i.is_multiple_of(usual) {
                continue;
            }
            let (at, anchor) = self.tick(x, text, TICK_CHAR);
            let class = match i.is_multiple_of(narrow) {
                true => "tick",
                false => "tick more",
            };
            let _ = write!(
                out,
                "<text class=\"{class}\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                bottom + 15.0,
                escape(text)
            );
        }
        let mx = (left + right) / 2.0;
        let _ = write!(
            out,
            "{}<path class=\"axis\" d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\"/>\
             <text x=\"{mx:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"2\" y=\"17\">{}</text></svg>",
            self.body,
            h - 6.0,
            escape(&self.x.name),
            escape(&self.y.name)
        );
        out
    }
}

/// A list of swatches with their names.
pub fn legend(items: &[(String, String)], filled: bool) -> String {
    let mut out = String::from("<ul class=\"legend\">");
    for (class, name) in items {
        let swatch = match filled {
            true => format!("<rect class=\"{class}\" width=\"26\" height=\"12\"/>"),
            false => format!("<path class=\"curve {class}\" d=\"M0 6H26\"/>"),
        };
        let _ = write!(
            out,
            "<li><svg viewBox=\"0 0 26 12\" aria-hidden=\"true\">{swatch}</svg>{}</li>",
            escape(name)
        );
    }
    out + "</ul>"
}

/// Numbers for those who cannot see the chart, or want them.
pub fn numbers(head: &[String], rows: &[Vec<String>]) -> String {
    let row = |cells: &[String], tag: &str| {
        let cells = cells
            .iter()
            .map(|c| format!("<{tag}>{}</{tag}>", escape(c)))
            .collect::<String>();
        format!("<tr>{cells}</tr>")
    };
    let body: String = rows.iter().map(|r| row(r, "td")).collect();
    format!(
        "<details><summary>Numbers</summary><div class=\"wide\"><table><thead>{}</thead><tbody>{body}</tbody></table></div></details>",
        row(head, "th")
    )
}

/// A figure: caption, chart, numbers. In a window that is too narrow for its text to be read the chart scrolls.
pub fn figure(caption: &str, small: &str, chart: &str, numbers: &str) -> String {
    format!(
        "<figure><figcaption>{} <small>{}</small></figcaption><div class=\"wide\">{chart}</div>{numbers}</figure>\n",
        escape(caption),
        escape(small)
    )
}

#[cfg(test)]
#[path = "svg_tests.rs"]
mod tests;
