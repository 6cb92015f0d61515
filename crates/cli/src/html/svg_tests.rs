use super::*;

#[test]
fn nothing_of_a_text_is_markup() {
    assert_eq!(
        escape("<script>\"a\" & 'b'\u{7}"),
        "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;\u{FFFD}"
    );
}

#[test]
fn ticks_are_round_and_within_the_axis() {
    let texts = |a: Axis| a.ticks.into_iter().map(|t| t.1).collect::<Vec<_>>();
    let show = |v: f64| format!("{v}");
    assert_eq!(
        texts(Axis::linear(0.0, 10.0, "", show)),
        ["0", "2", "4", "6", "8", "10"]
    );
    assert_eq!(
        texts(Axis::linear(-0.5, 1.0, "", show)),
        ["-0.5", "0", "0.5", "1"]
    );
    // Nothing to show still has an axis.
    assert!(Axis::linear(0.0, 0.0, "", show).max > 0.0);
}

#[test]
fn the_last_tick_is_not_cut_off_by_the_edge() {
    let ticks = vec![(0.0, "0".to_string()), (1.0, "100 ms".to_string())];
    let axis = Axis {
        min: 0.0,
        max: 1.0,
        ticks,
        name: String::new(),
    };
    let chart = Chart::new("c", "t", "a", 200.0, axis.clone(), axis).finish();
    let at = format!("x=\"{WIDTH:.1}\"");
    let mut texts = chart.split("<text ").filter(|t| t.contains(">100 ms<"));
    assert!(
        texts.any(|t| t.contains(&at) && t.contains("\"end\"")),
        "{chart}"
    );
}

#[test]
fn an_axis_name_as_long_as_a_figure_s_is_not_cut_off() {
    let x = Axis::linear(0.0, 1.0, "time since the measurement began, s", |v| {
        format!("{v}")
    });
    let name = "written to the disk, KiB for each operation";
    let y = Axis::linear(0.0, 1.0, name, |v| format!("{v}"));
    let chart = Chart::new("c", "t", "a", 200.0, x, y);
    // Below its line, and above the highest tick, whose text reaches as far up as it is high.
    assert!(chart.py(1.0) - 16.0 >= 10.0);
    let chart = chart.finish();
    assert!(
        chart.contains(&format!("<text x=\"2\" y=\"17\">{name}</text>")),
        "{chart}"
    );
    assert!(name.chars().count() as f64 * TICK_CHAR <= WIDTH && !chart.contains("rotate"));
}

/// Eight decades, as the latencies from a hit to a stalled write have.
#[test]
fn no_two_ticks_touch_in_a_narrow_window() {
    let names = [
        "1 ns", "10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms",
    ];
    let ticks = names.iter().enumerate();
    let x = Axis {
        min: 0.0,
        max: 8.0,
        ticks: ticks.map(|(i, t)| (i as f64, t.to_string())).collect(),
        name: String::new(),
    };
    let chart = Chart::new("c", "t", "a", 200.0, x.clone(), x).finish();
    let number = |text: &str, key: &str| -> f64 {
        let (_, rest) = text.split_once(key).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    // Left and right end of each label below the chart that a window shows, at the size of its text.
    let spans = |more: bool, char_width: f64| -> Vec<(f64, f64)> {
        let texts = chart.split("<text ").filter(|t| t.contains("y=\"175.0\""));
        let shown = texts.filter(|t| more || !t.contains("tick more"));
        shown
            .map(|t| {
                let (_, rest) = t.split_once('>').unwrap();
                let label = rest.split_once('<').unwrap().0;
                let (at, wide) = (
                    number(t, " x=\""),
                    label.chars().count() as f64 * char_width,
                );
                match t.contains("\"end\"") {
                    true => (at - wide, at),
                    false => (at - wide / 2.0, at + wide / 2.0),
                }
            })
            .collect()
    };
    let (narrow, usual) = (spans(false, TICK_CHAR), spans(true, TICK_CHAR_USUAL));
    assert_eq!((narrow.len(), usual.len()), (5, 9), "{chart}");
    for spans in [narrow, usual] {
        for pair in spans.windows(2) {
            assert!(pair[1].0 - pair[0].1 > 4.0, "{pair:?} of {spans:?}");
        }
    }
    let narrow = "@media (max-width: 540px)";
    let (_, rule) = crate::html::STYLE.split_once(narrow).unwrap();
    let rule = rule.lines().next().unwrap();
    assert!(
        rule.contains("svg.chart .more { display: none; }"),
        "{rule}"
    );
}

/// In CSS pixels, in whatever window: in a narrow one the text is larger in the chart's own units, and a chart that has
/// no room for that scrolls.
#[test]
fn no_text_of_a_chart_gets_smaller_than_ten_pixels() {
    let style = crate::html::STYLE;
    let number = |text: &str, rule: &str, key: &str| -> f64 {
        let (_, rest) = text.split_once(rule).expect(rule);
        let (_, rest) = rest.split_once(key).expect(key);
        let (n, _) = rest.split_once("px").expect("pixels");
        n.trim().parse().expect("a number")
    };
    let text = number(style, "svg text {", "font:");
    let wide = format!("svg.chart[viewBox^=\"0 0 {WIDE:.0} \"]");
    // What the page's edges leave of a window, at the most.
    const EDGES: f64 = 64.0;
    for (rule, chart, width) in [
        ("@media (max-width: 540px)", "svg.chart", WIDTH),
        ("@media (max-width: 1000px)", wide.as_str(), WIDE),
    ] {
        let (_, rest) = style.split_once(rule).expect(rule);
        let narrow = number(rest, &format!("{chart} text"), "font-size:");
        assert!(narrow * number(rest, &format!("{chart} {{"), "min-width:") / width >= 10.0);
        let from = number(rule, "", "max-width:") - EDGES;
        assert!(text * from / width >= 10.0, "{rule}");
    }
    assert!(figure("c", "s", "<svg/>", "").contains("<div class=\"wide\"><svg/></div>"));
}
