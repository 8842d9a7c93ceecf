//! `/metrics`: the server's figures in Prometheus' text format 0.0.4.
//!
//! No label has a value that clients choose: there are as many lines at the end as at the start.

use std::fmt::Write as _;
use std::time::Duration;

use allout::{Connections, Figures};

/// The media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Open connections, by what they are in the middle of.
pub(crate) fn states(connections: &Connections) -> [(&'static str, usize); 6] {
    let Connections { idle, reading, waiting, working, writing, lingering, .. } = *connections;
    [
        ("idle", idle),
        ("reading", reading),
        ("waiting", waiting),
        ("working", working),
        ("writing", writing),
        ("lingering", lingering),
    ]
}

/// The figures; `left` is how long is left until the deadline of a stop, if there is one.
pub(crate) fn text(figures: &Figures, left: Option<Duration>) -> String {
    let mut out = String::with_capacity(4096);
    let connections = &figures.connections;
    let answers = Figures::CLASSES.into_iter().zip(figures.answers);
    family(&mut out, "http_requests_total", "counter", "Answers given, by class of status.");
    answers.for_each(|(class, count)| sample(&mut out, "http_requests_total", "code", class, count));
    family(&mut out, "http_connections", "gauge", "Open connections, by what they are in the middle of.");
    states(connections)
        .into_iter()
        .for_each(|(state, count)| sample(&mut out, "http_connections", "state", state, count as u64));
    let refused = [
        ("connections", figures.refused_for_connections),
        ("handlers", figures.refused_for_handlers),
        ("memory", figures.refused_for_memory),
    ];
    family(&mut out, "http_refused_total", "counter", "Answers of 503, by what had run out.");
    refused.into_iter().for_each(|(want, count)| sample(&mut out, "http_refused_total", "want", want, count));
    for (name, kind, help, value) in [
        ("http_requests_in_flight", "gauge", "Handlers that run.", figures.handlers as u64),
        ("http_requests_waiting", "gauge", "Requests that wait for a handler.", connections.waiting as u64),
        ("http_connections_accepted_total", "counter", "Connections accepted.", figures.accepted),
        ("http_received_bytes_total", "counter", "Bytes read from connections.", figures.bytes_in),
        ("http_sent_bytes_total", "counter", "Bytes written to connections.", figures.bytes_out),
        ("http_handler_panics_total", "counter", "Handlers that panicked.", figures.panics),
        ("http_hand_offs_total", "counter", "Event loops taken over from slow handlers.", figures.hand_offs),
        ("allout_draining", "gauge", "1 while a stop drains.", u64::from(left.is_some())),
        ("allout_drained_requests_total", "counter", "Answers that have left since the stop.", figures.drained),
        ("allout_cut_off_requests_total", "counter", "Answers still owed at the deadline.", figures.cut_off),
    ] {
        family(&mut out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    }
    family(&mut out, "allout_drain_left_seconds", "gauge", "Time to the deadline; 0 without a stop.");
    let _ = writeln!(out, "allout_drain_left_seconds {}", seconds(left.unwrap_or_default()));
    durations(&mut out, figures);
    family(&mut out, "allout_build_info", "gauge", "1, with the version as a label.");
    sample(&mut out, "allout_build_info", "version", env!("CARGO_PKG_VERSION"), 1);
    out
}

fn durations(out: &mut String, figures: &Figures) {
    const NAME: &str = "http_request_duration_seconds";
    family(out, NAME, "histogram", "From a request's coming to its answer's leaving.");
    let durations = &figures.durations;
    let bucket =
        |out: &mut String, bound: &str, count| sample(out, "http_request_duration_seconds_bucket", "le", bound, count);
    durations.buckets().for_each(|(bound, count)| bucket(out, &seconds(bound), count));
    bucket(out, "+Inf", durations.count());
    let _ = writeln!(out, "{NAME}_sum {}\n{NAME}_count {}", seconds(durations.sum()), durations.count());
}

#[inline(never)]
fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[inline(never)]
fn sample(out: &mut String, name: &str, label: &str, value: &str, count: u64) {
    let _ = writeln!(out, "{name}{{{label}=\"{value}\"}} {count}");
}

/// Without floating point, whose code would enlarge a small binary.
fn seconds(time: Duration) -> String {
    let text = format!("{}.{:06}", time.as_secs(), time.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_short() {
        for (us, text) in [(0, "0"), (500, "0.0005"), (1_000_000, "1"), (10_000_000, "10"), (12_345_678, "12.345678")] {
            assert_eq!(seconds(Duration::from_micros(us)), text);
        }
    }
}
