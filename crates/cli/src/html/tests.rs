use super::*;
use crate::report::{ArmReport, TaskReport};
use crate::samples::{Limits, Samples};

/// Every element that opens also closes, in order. Enough of a parser for what the page uses.
fn well_formed(html: &str) -> std::result::Result<(), String> {
    const VOID: [&str; 1] = ["meta"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').ok_or("a tag without end")?;
        let tag = &rest[..end];
        if tag.contains('<') {
            return Err(format!("a < within a tag: {tag}"));
        }
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            match open.pop() {
                Some(o) if o == name => {}
                o => return Err(format!("</{name}> closes {o:?}")),
            }
        } else if !tag.starts_with('!') && !tag.ends_with('/') {
            let name = tag.split_whitespace().next().unwrap_or("");
            if name == "style" {
                let end = rest.find("</style>").ok_or("style without end")?;
                rest = &rest[end + 8..];
            } else if !VOID.contains(&name) {
                open.push(name);
            }
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("left open: {open:?}"))
    }
}

/// Two arms: one sampled, with a task that did nothing; one that nothing is known of.
fn report(name: &str) -> Report {
    let columns = |names: &[&str], v: u64| {
        names
            .iter()
            .map(|n| ((*n).to_string(), Some(vec![v; 3])))
            .collect()
    };
    let task = |name: &str, percentiles| TaskReport {
        name: name.into(),
        percentiles,
        ..TaskReport::default()
    };
    let sampled = ArmReport {
        world: "lab".into(),
        preset: "6.16".into(),
        tasks: vec![
            task("busy", Some(vec![[0.0, 1.0], [50.0, 2.0], [99.0, 1e5]])),
            task("idle <i>", Some(vec![])),
        ],
        samples: Some(Samples {
            t_s: vec![-0.5, 0.0, 1.0],
            frames: columns(&crate::samples::STATES, 10),
            lists: columns(&["inactive", "active"], 10),
            counts: columns(&crate::samples::COUNTS, 0),
            ops: [
                ("busy".to_string(), vec![0, 5, 9]),
                ("idle <i>".to_string(), vec![0; 3]),
            ]
            .into(),
        }),
        limits: Some(Limits {
            page_bytes: 4096,
            frames: 60,
            watermark_min: Some(2),
            watermark_low: Some(3),
            watermark_high: Some(4),
            dirty_background: Some(15),
            dirty_limit: Some(30),
        }),
        ..ArmReport::default()
    };
    let unknown = ArmReport {
        world: "raw".into(),
        preset: "depth 32".into(),
        ..ArmReport::default()
    };
    Report {
        scenario: name.into(),
        memory_bytes: 60 * 4096,
        disk: None,
        arms: vec![sampled, unknown],
        ..Report::default()
    }
}

#[test]
fn a_page_is_well_formed_and_alone() {
    let html = page(&report("t"), &About::default());
    assert_eq!(well_formed(&html), Ok(()), "{html}");
    for id in [
        "summary",
        "latency",
        "memory",
        "writers",
        "stalls",
        "throughput",
    ] {
        assert!(html.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    for arm in ["lab 6.16", "raw depth 32"] {
        // In the table, the legends and its figures.
        assert!(html.matches(arm).count() >= 5, "{arm}");
    }
    for text in [
        "dirty limit",
        "dirty background",
        "high watermark",
        ">min<",
        ">low<",
        ">high<",
    ] {
        assert!(html.contains(text), "{text}");
    }
    let own = html.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for alien in [
        "http:", "https:", "<script", "<link", "@import", "url(", "src=",
    ] {
        assert!(!own.contains(alien), "{alien}");
    }
    assert!(!html.contains("NaN") && !html.contains("inf\"") && !html.contains("inf "));
}

/// Of a run in both worlds.
#[test]
fn a_page_has_the_predictions_of_its_run() {
    let mut report = report("t");
    assert!(!page(&report, &About::default()).contains("id=\"predictions\""));
    let os = ArmReport {
        world: "os".into(),
        ..report.arms[0].clone()
    };
    report.arms.push(os);
    let html = page(&report, &About::default());
    assert_eq!(well_formed(&html), Ok(()), "{html}");
    let (_, section) = html.split_once("<section id=\"predictions\">").unwrap();
    assert!(section.contains("within 25 %"), "{section}");
}

#[test]
fn no_name_is_markup() {
    let evil = "<script>alert('x')</script>&\"";
    let mut report = report(evil);
    report.arms[0].preset = evil.into();
    report.arms[0].tasks[0].name = evil.into();
    let about = About {
        about: evil.into(),
        facts: vec![(evil.into(), evil.into())],
        command: evil.into(),
    };
    let html = page(&report, &about);
    assert!(!html.contains("<script"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)"));
    assert_eq!(well_formed(&html), Ok(()));
}

#[test]
fn a_page_of_several_is_well_formed_with_an_index_and_each_id_once() {
    let about = About {
        about: "for <this>".into(),
        command: "highwater run all".into(),
        ..About::default()
    };
    let parts = [(report("a"), about.clone()), (report("b <i>"), about)];
    let html = page_of_all("All", &parts, "ratio < 1.25");
    assert_eq!(well_formed(&html), Ok(()), "{html}");
    for text in [
        "<h1>All</h1>",
        "<li><a href=\"#s1\">b &lt;i&gt;</a>: for &lt;this&gt;</li>",
        "<article id=\"s1\"><header><h2>b &lt;i&gt;</h2>",
        "<section id=\"s0-latency\"><h3>Latency</h3>",
        "<pre>ratio &lt; 1.25</pre>",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert_eq!(html.matches("highwater run all").count(), 1, "said once");
    let mut ids: Vec<&str> = html
        .split(" id=\"")
        .skip(1)
        .filter_map(|t| t.split('"').next())
        .collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id names one thing");
}

#[test]
fn an_idle_task_and_an_empty_report_have_pages() {
    let html = page(&report("t"), &About::default());
    assert!(html.contains("No operation was completed"));
    assert!(html.contains("idle &lt;i&gt;"));
    let mut nothing = report("t");
    nothing.arms[0].samples = Some(Samples::default());
    assert_eq!(well_formed(&page(&nothing, &About::default())), Ok(()));
    nothing.arms.truncate(1);
    nothing.arms[0].tasks.clear();
    assert_eq!(well_formed(&page(&nothing, &About::default())), Ok(()));
}

#[test]
fn the_lab_s_own_speed_is_not_on_the_page() {
    let mut fast = report("t");
    fast.arms[0].real = Some(crate::report::Real {
        total_s: 12.5,
        ..crate::report::Real::default()
    });
    assert_eq!(
        page(&fast, &About::default()),
        page(&report("t"), &About::default())
    );
}

#[test]
fn the_check_for_well_formed_pages_can_fail() {
    for bad in ["<p>", "<p></b>", "<p", "<ul><li></ul></li>"] {
        assert!(well_formed(bad).is_err(), "{bad}");
    }
}
