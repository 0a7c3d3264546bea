//! The message of Prometheus remote write 1.0: `prometheus.WriteRequest`, in snappy's block format.

use prost::Message;
use telemetry::metrics::{NAME_LABEL, Series};

/// Series with their samples.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TimeSeries {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    /// Times ascending.
    #[prost(message, repeated, tag = "2")]
    pub(super) samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    /// ms since 1970 UTC.
    #[prost(int64, tag = "2")]
    pub(super) timestamp: i64,
}

impl From<Series> for TimeSeries {
    fn from(series: Series) -> Self {
        let name = (NAME_LABEL.to_owned(), series.labels.name);
        let mut labels: Vec<Label> = series
            .labels
            .labels
            .into_iter()
            .chain([name])
            .map(|(name, value)| Label { name, value })
            .collect();
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        let samples = series.points.into_iter();
        Self {
            samples: samples.map(|(timestamp, value)| Sample { value, timestamp }).collect(),
            labels,
        }
    }
}

/// A request's body. `None`: it is larger than snappy takes, which is 4 GiB.
pub(super) fn body(timeseries: Vec<TimeSeries>) -> Option<Vec<u8>> {
    let message = WriteRequest { timeseries }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&message).ok()
}

#[cfg(test)]
mod tests {
    use telemetry::metrics::Labels;

    use super::*;

    #[test]
    fn labels_are_sorted_by_bytes_with_the_name_among_them() {
        let labels = [("gpu", "0"), ("Hostname", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let series = Series {
            labels: Labels {
                name: "up".to_owned(),
                labels: labels.to_vec(),
            },
            points: vec![(5, 0.5)],
        };
        let body = body(vec![series.into()]).unwrap();
        let message = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        // By hand, after the protocol's definition: fields 1 (series), 1 (labels: 1 name, 2 value), 2 (samples: 1
        // value, 2 time).
        let expected = b"\x0a\x37\x0a\x0d\x0a\x08Hostname\x12\x01a\x0a\x0e\x0a\x08__name__\x12\x02up\
            \x0a\x08\x0a\x03gpu\x12\x010\x12\x0b\x09\0\0\0\0\0\0\xe0\x3f\x10\x05";
        let mut expected = expected.to_vec();
        expected[1] = u8::try_from(expected.len() - 2).unwrap();
        assert_eq!(message, expected);
    }
}
