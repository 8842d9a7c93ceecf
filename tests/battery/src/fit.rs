//! A straight line through samples, by least squares.

/// One sample: when, what, and how much there was just then of something that the value goes with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: f64,
    pub(crate) value: f64,
    pub(crate) goes_with: f64,
}

/// How much the line rises from the first sample to the last, and the standard error of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rise {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

/// The rise in time, at an equal amount of what the value goes with: both are freed of it first (Frisch, Waugh).
/// `None`: there are too few samples.
pub(crate) fn rise(samples: &[Sample]) -> Option<Rise> {
    let time = samples.last()?.at - samples.first()?.at;
    let other: Vec<f64> = samples.iter().map(|sample| sample.goes_with).collect();
    let freed = |of: fn(&Sample) -> f64| off_line(&other, &samples.iter().map(of).collect::<Vec<_>>());
    let (at, value) = (freed(|sample| sample.at), freed(|sample| sample.value));
    let spread: f64 = at.iter().map(|at| at * at).sum();
    if samples.len() < 4 || spread == 0.0 {
        return None;
    }
    let slope = at.iter().zip(&value).map(|(at, value)| at * value).sum::<f64>() / spread;
    let left: f64 = at.iter().zip(&value).map(|(at, value)| (value - slope * at).powi(2)).sum();
    let error = (left / (samples.len() as f64 - 3.0) / spread).sqrt();
    Some(Rise { value: slope * time, error: error * time })
}

/// How far each value is off the best line over `x`; over an `x` that is always the same, off the mean.
fn off_line(x: &[f64], y: &[f64]) -> Vec<f64> {
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (middle, level) = (mean(x), mean(y));
    let spread: f64 = x.iter().map(|x| (x - middle).powi(2)).sum();
    let slope = if spread == 0.0 {
        0.0
    } else {
        x.iter().zip(y).map(|(x, y)| (x - middle) * (y - level)).sum::<f64>() / spread
    };
    x.iter().zip(y).map(|(x, y)| y - level - slope * (x - middle)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: u32, of: impl Fn(f64) -> (f64, f64)) -> Vec<Sample> {
        let sample = |at| {
            let (value, goes_with) = of(at);
            Sample { at, value, goes_with }
        };
        (0..count).map(|at| sample(f64::from(at))).collect()
    }

    #[track_caller]
    fn check(samples: &[Sample], value: f64) {
        let found = rise(samples).expect("samples enough");
        assert!((found.value - value).abs() < 1e-6 && found.error < 1e-6, "{found:?}");
    }

    #[test]
    fn a_line_is_found() {
        check(&samples(11, |at| (3.0 + 0.5 * at, 0.0)), 5.0);
        check(&samples(11, |_| (3.0, 7.0)), 0.0);
    }

    #[test]
    fn what_goes_with_something_else_is_no_rise() {
        let wave = |at: f64| (at * 1.3).sin();
        check(&samples(50, |at| (9.0 + 500.0 * wave(at), wave(at))), 0.0);
        check(&samples(50, |at| (9.0 + 500.0 * wave(at) + 0.1 * at, wave(at))), 4.9);
    }

    #[test]
    fn noise_has_an_error() {
        let found = rise(&samples(100, |at| (at % 2.0, 0.0))).expect("samples enough");
        assert!(found.value.abs() < 2.0 * found.error, "{found:?}");
        assert_eq!(rise(&samples(3, |at| (at, 0.0))), None);
        assert_eq!(rise(&[Sample { at: 1.0, value: 1.0, goes_with: 1.0 }; 9]), None);
    }
}
