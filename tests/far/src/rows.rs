//! The networks, and who is on them.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) number: usize,
    pub(crate) name: &'static str,
    /// One way, and how far it strays in either direction.
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    /// Of each direction's packets.
    pub(crate) lost_percent: f64,
    pub(crate) doubled_percent: f64,
    pub(crate) keep_alive: usize,
    pub(crate) one_shot: usize,
    /// How long a keep-alive client pauses at most before it asks again.
    pub(crate) think: Duration,
    /// Requests that allout may lose at a stop.
    pub(crate) lost_max: u64,
}

const ONE_SHOT_100: Row = Row {
    number: 1,
    name: "100 ms round trip, 60 one-shot",
    delay: Duration::from_millis(50),
    jitter: Duration::from_millis(5),
    lost_percent: 0.0,
    doubled_percent: 0.0,
    keep_alive: 0,
    one_shot: 60,
    think: Duration::from_millis(50),
    lost_max: 0,
};

pub(crate) const ROWS: [Row; 5] = [
    ONE_SHOT_100,
    Row { number: 2, name: "100 ms, 60 keep-alive", keep_alive: 60, one_shot: 0, ..ONE_SHOT_100 },
    Row {
        number: 3,
        name: "100 ms, 5 % of packets lost, 60 keep-alive",
        jitter: Duration::from_millis(25),
        lost_percent: 5.0,
        doubled_percent: 1.0,
        keep_alive: 60,
        one_shot: 0,
        lost_max: 2,
        ..ONE_SHOT_100
    },
    Row {
        number: 4,
        name: "400 ms, 60 of each kind",
        delay: Duration::from_millis(200),
        keep_alive: 60,
        ..ONE_SHOT_100
    },
    Row {
        number: 5,
        name: "100 ms, 200 keep-alive that pause up to 2 s",
        keep_alive: 200,
        one_shot: 0,
        think: Duration::from_secs(2),
        lost_max: 1,
        ..ONE_SHOT_100
    },
];
