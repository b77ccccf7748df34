//! Least value of a function of a few variables without its slope, by a simplex that turns, stretches and shrinks.
//!
//! Nelder and Mead (Computer Journal 7, 1965) with the usual 1, 2, 1/2, 1/2. For functions with small steps
//! in them (a simulation takes another turn), where differences give no slope. Limit: a local minimum.

/// What was found.
#[derive(Clone, Debug)]
pub struct Least {
    pub at: Vec<f64>,
    pub value: f64,
    pub calls: usize,
}

/// From `start`, with a first simplex of `size` along each axis, until it is smaller than `fine` or
/// `most` calls were made.
///
/// # Errors
/// The first one of `f`.
pub(crate) fn least<E>(
    start: &[f64],
    size: f64,
    fine: f64,
    most: usize,
    mut f: impl FnMut(&[f64]) -> Result<f64, E>,
) -> Result<Least, E> {
    let n = start.len();
    let mut calls = 0;
    let mut ask = |x: &[f64], calls: &mut usize| {
        *calls += 1;
        f(x)
    };
    let mut corners: Vec<(f64, Vec<f64>)> = Vec::with_capacity(n + 1);
    for i in 0..=n {
        let mut x = start.to_vec();
        if i > 0 {
            x[i - 1] += size;
        }
        corners.push((ask(&x, &mut calls)?, x));
    }
    loop {
        corners.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wide = (0..n).map(|k| (corners[n].1[k] - corners[0].1[k]).abs()).fold(0.0, f64::max);
        if wide < fine || calls >= most {
            let (value, at) = corners.swap_remove(0);
            return Ok(Least { at, value, calls });
        }
        let centre: Vec<f64> = (0..n).map(|k| corners[..n].iter().map(|c| c.1[k]).sum::<f64>() / n as f64).collect();
        let worst = corners[n].1.clone();
        // From the worst corner through the centre of the others: `by` 0 is the centre, 1 the mirror image.
        let along = |by: f64| -> Vec<f64> { centre.iter().zip(&worst).map(|(c, w)| c + by * (c - w)).collect() };
        let mirror = along(1.0);
        let at_mirror = ask(&mirror, &mut calls)?;
        if at_mirror < corners[0].0 {
            let far = along(2.0);
            let at_far = ask(&far, &mut calls)?;
            corners[n] = if at_far < at_mirror { (at_far, far) } else { (at_mirror, mirror) };
        } else if at_mirror < corners[n - 1].0 {
            corners[n] = (at_mirror, mirror);
        } else {
            let inside = along(if at_mirror < corners[n].0 { 0.5 } else { -0.5 });
            let at_inside = ask(&inside, &mut calls)?;
            if at_inside < at_mirror.min(corners[n].0) {
                corners[n] = (at_inside, inside);
            } else {
                let best = corners[0].1.clone();
                for corner in &mut corners[1..] {
                    for (x, b) in corner.1.iter_mut().zip(&best) {
                        *x = b + 0.5 * (*x - b);
                    }
                    corner.0 = ask(&corner.1, &mut calls)?;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_valley_of_rosenbrock_and_stops_when_told() {
        let f = |x: &[f64]| -> Result<f64, ()> { Ok((1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2)) };
        let found = least(&[-1.2, 1.0], 0.5, 1e-9, 1000, f).unwrap();
        assert!((found.at[0] - 1.0).abs() < 1e-6 && (found.at[1] - 1.0).abs() < 1e-6, "{found:?}");
        assert!(least(&[-1.2, 1.0], 0.5, 1e-9, 20, f).unwrap().calls < 25);
        assert_eq!(least(&[0.0], 1.0, 1e-3, 9, |_| Err::<f64, _>("no")).unwrap_err(), "no");
    }
}
