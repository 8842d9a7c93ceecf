//! A plot as SVG: a panel of bars for each workload, and the limit as a line through it. Drawn by hand: some text and
//! rectangles are no reason for a library.

use std::fmt::Write;

/// What one panel shows: bars in the order of the servers, `None` for one that was not measured.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub bars: Vec<(String, Option<f64>)>,
    pub limit: Option<f64>,
}

const COLUMNS: usize = 3;
const PANEL_WIDTH: f64 = 320.0;
const GAP: f64 = 28.0;
const LABEL_WIDTH: f64 = 72.0;
/// For the figure behind the longest bar.
const FIGURE_WIDTH: f64 = 44.0;
const BAR_HEIGHT: f64 = 15.0;
const BAR_STEP: f64 = 20.0;
const TITLE_HEIGHT: f64 = 26.0;
const HEAD_HEIGHT: f64 = 34.0;

/// Colours by class, so that the plot is readable on a dark page too.
const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.head { font-size: 15px; font-weight: 600 }
.label { text-anchor: end }
.bar { fill: #9aa5b1 }
.ours { fill: #d9480f }
.limit { stroke: #24292f; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .bar { fill: #57606a } .limit { stroke: #e6edf3 } }
";

/// The first bar of each panel is ours.
pub fn svg(head: &str, panels: &[Panel]) -> String {
    let bars = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let panel_height = TITLE_HEIGHT + bars as f64 * BAR_STEP + GAP;
    let columns = panels.len().clamp(1, COLUMNS);
    let width = columns as f64 * (PANEL_WIDTH + GAP);
    let height = HEAD_HEIGHT + panels.len().div_ceil(COLUMNS) as f64 * panel_height;
    let mut svg = format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\">\n");
    let _ = writeln!(svg, "<style>\n{STYLE}</style>");
    let _ = writeln!(svg, "<text class=\"head\" x=\"0\" y=\"18\">{}</text>", escaped(head));
    for (at, panel) in panels.iter().enumerate() {
        let x = (at % COLUMNS) as f64 * (PANEL_WIDTH + GAP);
        let y = HEAD_HEIGHT + (at / COLUMNS) as f64 * panel_height;
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        draw(panel, &mut svg);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(panel: &Panel, svg: &mut String) {
    let longest = panel.bars.iter().filter_map(|(_, value)| *value).chain(panel.limit).fold(0.0, f64::max);
    let room = PANEL_WIDTH - LABEL_WIDTH - FIGURE_WIDTH;
    let length = |value: f64| if longest > 0.0 { value / longest * room } else { 0.0 };
    let _ = writeln!(svg, "<text class=\"title\" x=\"0\" y=\"14\">{}</text>", escaped(&panel.title));
    for (at, (name, value)) in panel.bars.iter().enumerate() {
        let (y, text_y) = (TITLE_HEIGHT + at as f64 * BAR_STEP, TITLE_HEIGHT + at as f64 * BAR_STEP + 12.0);
        let _ =
            writeln!(svg, "<text class=\"label\" x=\"{}\" y=\"{text_y}\">{}</text>", LABEL_WIDTH - 8.0, escaped(name));
        let (width, figure) = value.map_or((0.0, "–".to_owned()), |value| (length(value), figure(value)));
        let class = if at == 0 { "bar ours" } else { "bar" };
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\"/>\
             <text x=\"{:.1}\" y=\"{text_y}\">{figure}</text>",
            LABEL_WIDTH + width + 5.0
        );
    }
    if let Some(limit) = panel.limit {
        let (x, bottom) = (LABEL_WIDTH + length(limit), TITLE_HEIGHT + panel.bars.len() as f64 * BAR_STEP);
        let _ = writeln!(svg, "<path class=\"limit\" d=\"M{x:.1} {} V{bottom}\"/>", TITLE_HEIGHT - 4.0);
    }
}

fn figure(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
