//! results.svg: a bar for each row, evbase over the best peer, on a logarithmic scale.

use std::fmt::Write;

use crate::report::{Results, rows};

const LINE: f64 = 18.0;
const LEFT: f64 = 330.0;
const WIDTH: f64 = 420.0;
const TOP: f64 = 60.0;
/// The scale goes from 1/8 to 8.
const OCTAVES: f64 = 3.0;

pub fn svg(results: &Results) -> String {
    let mut bars = String::new();
    let mut y = TOP;
    for (member, figure) in rows() {
        let (Some(evbase), Some(best), _) = results.compare(member, figure) else {
            continue;
        };
        let ratio = evbase.median / best.median;
        if !ratio.is_finite() || ratio <= 0.0 {
            continue;
        }
        let (from, to) = (x(1.0), x(ratio));
        let color = if ratio <= 1.0 { "#2a9d6f" } else { "#d1603d" };
        let _ = writeln!(
            bars,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}, {}</text>\n\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{color}\"/>\n\
             <text x=\"{:.0}\" y=\"{:.0}\">{ratio:.2} {}</text>",
            LEFT - 8.0,
            y + 12.0,
            member.name,
            figure.unit,
            from.min(to),
            y + 2.0,
            (from - to).abs().max(1.0),
            LINE - 5.0,
            LEFT + WIDTH + 8.0,
            y + 12.0,
            best.peer.text(),
        );
        y += LINE;
    }
    let mut grid = String::new();
    for (ratio, label) in [
        (0.125, "1/8"),
        (0.25, "1/4"),
        (0.5, "1/2"),
        (1.0, "1"),
        (2.0, "2"),
        (4.0, "4"),
        (8.0, "8"),
    ] {
        let stroke = if ratio == 1.0 { "#444" } else { "#ddd" };
        let _ = writeln!(
            grid,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{y}\" stroke=\"{stroke}\"/>\n\
             <text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\">{label}</text>",
            x(ratio),
            TOP - 6.0,
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{2}\" y=\"22\" text-anchor=\"middle\" font-size=\"15\">evbase / best peer: less is better, green wins, \
         log scale (cut at 8)</text>\n{grid}{bars}</svg>\n",
        LEFT + WIDTH + 150.0,
        y + 12.0,
        (LEFT + WIDTH + 150.0) / 2.0,
    )
}

fn x(ratio: f64) -> f64 {
    LEFT + WIDTH * (ratio.log2().clamp(-OCTAVES, OCTAVES) + OCTAVES) / (2.0 * OCTAVES)
}
