//! Bars as SVG for docs/benchmarks.md, drawn from the JSON of runs: the median as a bar, the spread of the rounds as a line
//! over it. Text and lines follow the reader's light or dark scheme.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The file, where its figures are (a JSON pointer below `measurements`), the column, and whether less is better.
const PLOTS: [(&str, &str, &str, bool); 10] = [
    ("bench-bulk-cpu", "/bulk/mean", "CPU-s/GiB", true),
    ("bench-bulk-rate", "/bulk/mean", "MiB/s", false),
    ("bench-echo-lone", "/echo/lone", "p50 us", true),
    ("bench-echo-many", "/echo/many", "requests/s", false),
    ("bench-echo-paced", "/echo/paced", "p99 us", true),
    ("bench-connects", "/connects", "connections/s", false),
    ("bench-memory", "/memory", "KiB/session near", true),
    ("bench-keystroke", "/keystroke", "p99 us", true),
    (
        "bench-loss-1",
        "/loss/loss of 1 % both ways, 40 ms, 4 stream(s)",
        "down MiB/s",
        false,
    ),
    (
        "bench-loss-5",
        "/loss/loss of 5 % both ways, 40 ms, 4 stream(s)",
        "down MiB/s",
        false,
    ),
];

const WIDTH: f64 = 720.0;
const LABELS: f64 = 170.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const HEAD: f64 = 54.0;
/// Room for the figure behind the longest bar.
const FIGURES: f64 = 110.0;

const STYLE: &str = "text { font: 13px sans-serif; fill: #1f2328 } .title { font-weight: bold } .note { fill: #59636e } \
    .bar { fill: #8c959f } .ours { fill: #0969da } .spread { stroke: #1f2328; stroke-width: 1.5 } \
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .note { fill: #9198a1 } .bar { fill: #656c76 } \
    .ours { fill: #4493f8 } .spread { stroke: #e6edf3 } }";

/// Draws whatever the files have figures for into a folder, and says what.
pub(crate) fn draw(folder: &Path, files: &[PathBuf]) {
    let runs: Vec<Value> = files
        .iter()
        .map(|file| serde_json::from_str(&std::fs::read_to_string(file).expect("a file")).expect("JSON"))
        .collect();
    for (name, place, column, less) in PLOTS {
        let found = runs.iter().find_map(|run| run["measurements"].pointer(place));
        let Some(sheet) = found.filter(|sheet| sheet["rows"].is_array()) else {
            println!("no figures for {name}");
            continue;
        };
        let file = folder.join(format!("{name}.svg"));
        std::fs::write(&file, bars(sheet, column, less)).expect("the plot is written");
        println!("{}", file.display());
    }
}

fn bars(sheet: &Value, column: &str, less: bool) -> String {
    let rows: Vec<(&str, [f64; 3])> = sheet["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|row| {
            let figure = |name: &str| row[column][name].as_f64();
            Some((
                row["way"].as_str()?,
                [figure("median")?, figure("least")?, figure("most")?],
            ))
        })
        .collect();
    let most = rows
        .iter()
        .map(|(_, figures)| figures[2])
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABELS - FIGURES) / most;
    let height = HEAD + STEP * rows.len() as f64 + 8.0;
    let title = escaped(sheet["title"].as_str().unwrap_or_default());
    let better = if less { "less is better" } else { "more is better" };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<text class=\"title\" x=\"8\" y=\"20\">{title}</text>\n\
         <text class=\"note\" x=\"8\" y=\"40\">{}; {better}; lines are the spread of the rounds</text>\n",
        escaped(column)
    );
    for (at, (way, [median, least, most])) in rows.iter().enumerate() {
        let (top, end) = (HEAD + STEP * at as f64, LABELS + most * scale + 8.0);
        let (middle, base) = (top + BAR / 2.0, top + 14.0);
        let class = if way.starts_with("fairlead") { "bar ours" } else { "bar" };
        let digits = if *median < 100.0 { 2 } else { 0 };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect class=\"{class}\" x=\"{LABELS}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\n\
             <line class=\"spread\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\n\
             <text x=\"{end:.1}\" y=\"{base:.1}\">{median:.digits$}</text>\n",
            LABELS - 8.0,
            escaped(way),
            median * scale,
            LABELS + least * scale,
            LABELS + most * scale
        );
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
