//! Files of a window become one, and the samples of an hour roll-ups.

use super::MetricError;
use super::aggregate::{Fold, Rolled, Row};
use super::plan::{Kind, rollup};
use super::segment::{Cursor, Segment};
use super::segment_writer::{Column, SegmentWriter};

/// A chunk of so many samples that no other file adds to is taken over as it is.
const WHOLE_SAMPLES: usize = 128;

/// Merges files of samples, earlier ones first; `rollups` takes the rows of five minutes.
///
/// `pause` is called now and then, for what cannot wait until the end.
pub(super) fn raw(
    inputs: &[&Segment],
    merged: &mut SegmentWriter,
    rollups: &mut SegmentWriter,
    mut pause: impl FnMut(),
) -> Result<(), MetricError> {
    let mut cursors = open(inputs)?;
    let (mut times, mut values, mut part) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(series) = cursors.iter().filter_map(Cursor::series).min() {
        times.clear();
        values.clear();
        let mut whole = None;
        for cursor in cursors.iter_mut().filter(|cursor| cursor.series() == Some(series)) {
            let chunk = cursor.chunk()?;
            chunk.values(0, &mut part)?;
            whole =
                (times.is_empty() && chunk.times.len() >= WHOLE_SAMPLES).then(|| chunk.encoded(0).map(<[u8]>::to_vec));
            // Never out of order, whatever the files hold.
            let after = times
                .last()
                .map_or(0, |&last| chunk.times.partition_point(|&time| time <= last));
            times.extend_from_slice(&chunk.times[after..]);
            values.extend_from_slice(&part[after..]);
            cursor.advance()?;
        }
        match whole.transpose()? {
            Some(encoded) => merged.push(series, &times, &[Column::Encoded(&encoded)])?,
            None => merged.push(series, &times, &[Column::Values(&values)])?,
        }
        let mut rolled = Rolled::default();
        rolled.push(&times, &values);
        push_rows(rollups, series, &rolled.rows)?;
        pause();
    }
    Ok(())
}

/// Merges files of roll-ups; where two have the same row, that of the later file counts.
pub(super) fn rolled(
    inputs: &[&Segment],
    merged: &mut SegmentWriter,
    mut pause: impl FnMut(),
) -> Result<(), MetricError> {
    let mut cursors = open(inputs)?;
    let mut columns: [Vec<f64>; 4] = Default::default();
    while let Some(series) = cursors.iter().filter_map(Cursor::series).min() {
        let mut rows: Vec<Row> = Vec::new();
        // The latest first: of equal times a stable sort and `dedup` keep it.
        for cursor in cursors
            .iter_mut()
            .rev()
            .filter(|cursor| cursor.series() == Some(series))
        {
            let chunk = cursor.chunk()?;
            for (column, values) in columns.iter_mut().enumerate() {
                chunk.values(column, values)?;
            }
            rows.extend(chunk.times.iter().enumerate().map(|(n, &at_ms)| Row {
                at_ms,
                min: columns[rollup::MIN][n],
                max: columns[rollup::MAX][n],
                sum: columns[rollup::SUM][n],
                count: columns[rollup::COUNT][n],
            }));
            cursor.advance()?;
        }
        rows.sort_by_key(|row| row.at_ms);
        rows.dedup_by_key(|row| row.at_ms);
        push_rows(merged, series, &rows)?;
        pause();
    }
    Ok(())
}

fn open<'a>(inputs: &[&'a Segment]) -> Result<Vec<Cursor<'a>>, MetricError> {
    inputs.iter().map(|input| input.cursor()).collect()
}

fn push_rows(out: &mut SegmentWriter, series: u32, rows: &[Row]) -> Result<(), MetricError> {
    let column = |value: fn(&Row) -> f64| rows.iter().map(value).collect::<Vec<f64>>();
    let times: Vec<i64> = rows.iter().map(|row| row.at_ms).collect();
    let columns: [Vec<f64>; 4] = [
        column(|row| row.min),
        column(|row| row.max),
        column(|row| row.sum),
        column(|row| row.count),
    ];
    debug_assert_eq!(columns.len(), Kind::Rollup.columns());
    let columns = columns.each_ref().map(|values| Column::Values(values));
    out.push(series, &times, &columns)
}
