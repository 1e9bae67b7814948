//! Bars of the rates of W1, W2, W4 and W5 on a log axis, as SVG.

use plotters::prelude::{
    BLACK, ChartBuilder, Color, DrawingArea, IntoDrawingArea, IntoLogRange, IntoSegmentedCoord,
    Rectangle, SVGBackend, SegmentValue, WHITE,
};
use plotters::style::RGBColor;

use super::Row;
use crate::outcome::Failure;

/// What is drawn, if it was run.
const SHOWN: [&str; 4] = ["w1", "w2", "w4", "w5"];
const SIZE: (u32, u32) = (1200, 800);
/// Below the slowest client.
const LOWEST: f64 = 1e3;
/// Above the fastest.
const HIGHEST: f64 = 1e8;

const OURS: RGBColor = RGBColor(31, 119, 180);
const MARK: RGBColor = RGBColor(150, 150, 150);
const PEERS: RGBColor = RGBColor(214, 120, 39);

/// Draws it.
///
/// # Errors
/// None of the workloads that are drawn was run.
pub(crate) fn svg(results: &[Vec<Row>]) -> Result<String, Failure> {
    let shown = |rows: &&Vec<Row>| {
        rows.iter().any(|row| row.figure().is_some())
            && rows.first().is_some_and(|row| SHOWN.contains(&row.workload.name))
    };
    let panels: Vec<_> = results.iter().filter(shown).collect();
    if panels.is_empty() {
        return Err(format!("a plot needs one of {}", SHOWN.join(", ")).into());
    }
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let areas = root.split_evenly((panels.len().div_ceil(2), panels.len().min(2)));
        for (rows, area) in panels.into_iter().zip(areas) {
            panel(rows, &area)?;
        }
        root.present()?;
    }
    Ok(text)
}

fn panel(
    rows: &[Row],
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<(), Failure> {
    // The last of a segmented range is a segment of its own.
    let title = rows.first().map_or("", |row| row.workload.title);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(format!("{title}, messages/s"), ("sans-serif", 18))
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (0..rows.len().saturating_sub(1)).into_segmented(),
            (LOWEST..HIGHEST).log_scale(),
        )?;
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(at) => {
            rows.get(*at).map_or_else(String::new, |row| row.client.name().to_owned())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(rows.len() + 1)
        .x_label_formatter(&name)
        .y_label_formatter(&|rate| super::short(*rate))
        .label_style(("sans-serif", 12))
        .axis_style(BLACK)
        .draw()?;
    chart.draw_series(rows.iter().enumerate().filter_map(|(at, row)| {
        let colour = match row.client {
            client if client.is_ours() => OURS,
            client if client.is_peer() => PEERS,
            _ => MARK,
        };
        let (from, to) = (SegmentValue::Exact(at), SegmentValue::Exact(at + 1));
        let mut bar = Rectangle::new([(from, LOWEST), (to, row.figure()?)], colour.filled());
        bar.set_margin(0, 0, 6, 6);
        Some(bar)
    }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::rows;
    use super::svg;
    use crate::clients::Client;

    #[test]
    fn there_is_a_bar_for_each_client_that_was_measured() -> Result<(), Box<dyn std::error::Error>>
    {
        let figures: &[(Client, &[f64])] =
            &[(Client::TokioMt, &[4e6]), (Client::Bound, &[]), (Client::Lapin, &[2e4])];
        let text = svg(&[rows("w1", figures), rows("w3", figures)]).map_err(|it| it.to_string())?;
        for (colour, bars) in [("#1F77B4", 1), ("#969696", 0), ("#D67827", 1)] {
            assert_eq!(text.matches(&format!("fill=\"{colour}\"")).count(), bars, "{text}");
        }
        assert!(text.contains("tokio-mt") && text.contains("publish 16 B"));
        assert!(svg(&[rows("w3", figures)]).is_err());
        Ok(())
    }
}
