//! A pattern search over a lattice of unequal rows: neighbours at halving distance from a few starts.
//!
//! For functions that are dear, smooth but for steps, and best found by looking at a tenth of the
//! lattice. Exact only where the function has few hills: callers hold it against the whole lattice in
//! their tests. Every value is asked for once; the answer depends on nothing but the values.
//!
//! Limit: exact only where there are few hills; a peak narrower than the last step between starts is missed.

/// Rows of a lattice, each of a block that a climb does not leave, and what was priced on them.
pub struct Climb<P, B> {
    blocks: Vec<usize>,
    /// Where each row begins, and the end of the last.
    starts: Vec<usize>,
    seen: Vec<Option<P>>,
    better: B,
}

impl<P: Copy, B: Fn(&P, &P) -> bool> Climb<P, B> {
    /// `rows`: block and width of each row; `better(a, b)`: whether a beats b, a strict weak order.
    pub(crate) fn new(rows: impl Iterator<Item = (usize, usize)>, better: B) -> Self {
        let (mut blocks, mut starts, mut end) = (Vec::new(), vec![0], 0);
        for (block, width) in rows {
            end += width;
            blocks.push(block);
            starts.push(end);
        }
        Climb { blocks, starts, seen: vec![None; end], better }
    }

    fn width(&self, i: usize) -> usize {
        self.starts[i + 1] - self.starts[i]
    }

    /// Looks at the ends and the middle of the rows `some`, at the whole of the `starts` best of them, and climbs.
    pub(crate) fn run(&mut self, some: &[usize], starts: usize, mut price: impl FnMut(usize, usize) -> P) {
        let mut leaders: Vec<(usize, usize, P)> = Vec::new();
        for &i in some {
            let columns = spread(self.width(i), 3);
            leaders.extend(self.best_of(i, columns.into_iter(), &mut price));
        }
        // The better first; equals stay in order.
        leaders.sort_by(|a, b| (self.better)(&b.2, &a.2).cmp(&(self.better)(&a.2, &b.2)));
        leaders.truncate(starts);
        let mut from: Vec<(usize, usize, P)> = Vec::new();
        for (i, _, _) in leaders {
            from.extend(self.best_of(i, 0..self.width(i), &mut price));
        }
        for (i, j, p) in from {
            self.climb(i, j, p, &mut price);
        }
    }

    fn best_of(
        &mut self,
        i: usize,
        columns: impl Iterator<Item = usize>,
        price: &mut impl FnMut(usize, usize) -> P,
    ) -> Option<(usize, usize, P)> {
        let mut best: Option<(usize, usize, P)> = None;
        for j in columns {
            let p = self.at(i, j, price);
            if best.as_ref().is_none_or(|(_, _, q)| (self.better)(&p, q)) {
                best = Some((i, j, p));
            }
        }
        best
    }

    /// Moves to the best neighbour until none is better, at halving distance.
    fn climb(&mut self, mut i: usize, mut j: usize, mut here: P, price: &mut impl FnMut(usize, usize) -> P) {
        let block = self.blocks[i];
        let length = self.blocks.iter().filter(|b| **b == block).count();
        let mut step = (length / 8).max(1).next_power_of_two();
        loop {
            let wide = if step > 2 { 2 } else { 1 };
            let mut next = None;
            for (di, dj) in [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)] {
                let row = i.checked_add_signed(di * step as isize).filter(|a| self.blocks.get(*a) == Some(&block));
                let Some(a) = row else { continue };
                let Some(b) = j.checked_add_signed(dj * wide).filter(|b| *b < self.width(a)) else { continue };
                let q = self.at(a, b, price);
                if (self.better)(&q, &here) {
                    here = q;
                    next = Some((a, b));
                }
            }
            match next {
                Some((a, b)) => (i, j) = (a, b),
                None if step > 1 => step /= 2,
                None => break,
            }
        }
    }

    fn at(&mut self, i: usize, j: usize, price: &mut impl FnMut(usize, usize) -> P) -> P {
        *self.seen[self.starts[i] + j].get_or_insert_with(|| price(i, j))
    }

    /// All that was priced, row by row.
    pub(crate) fn priced(&self) -> impl Iterator<Item = (usize, usize, P)> + '_ {
        let row = |i: usize| self.seen[self.starts[i]..self.starts[i + 1]].iter().enumerate();
        (0..self.blocks.len()).flat_map(move |i| row(i).filter_map(move |(j, p)| p.map(|p| (i, j, p))))
    }

    /// The best of all that was priced; the first of equals.
    pub(crate) fn best(&self) -> Option<(usize, usize, P)> {
        let mut best: Option<(usize, usize, P)> = None;
        for found in self.priced() {
            if best.as_ref().is_none_or(|(_, _, q)| (self.better)(&found.2, q)) {
                best = Some(found);
            }
        }
        best
    }
}

/// Up to `n` positions spread over `0..len`, both ends among them.
pub(crate) fn spread(len: usize, n: usize) -> Vec<usize> {
    let n = n.min(len);
    let mut out: Vec<usize> = (0..n).map(|k| if n == 1 { 0 } else { k * (len - 1) / (n - 1) }).collect();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_top_of_hills_and_prices_each_place_once() {
        let mut asked = std::collections::BTreeSet::new();
        // Two hills, the lower one wide, and a row that is short.
        let f = |i: usize, j: usize| {
            let hill = |a: f64, b: f64, w: f64, h: f64| h - ((i as f64 - a) / w).powi(2) - (j as f64 - b).powi(2);
            hill(61.0, 7.0, 9.0, 12.0).max(hill(15.0, 2.0, 20.0, 10.0))
        };
        let width = |i: usize| if i < 5 { 3 } else { 11 };
        let mut climb = Climb::new((0..80).map(|i| (0, width(i))), |a: &f64, b: &f64| a > b);
        climb.run(&spread(80, 6), 3, |i, j| {
            assert!(asked.insert((i, j)), "{i} {j} twice");
            f(i, j)
        });
        assert_eq!(climb.best().map(|b| (b.0, b.1)), Some((61, 7)));
        assert!(asked.len() < 250, "{}", asked.len());
    }

    #[test]
    fn climbs_stay_in_their_block_and_nothing_has_no_best() {
        let mut climb = Climb::new((0..20).map(|i| (i / 10, 2)), |a: &usize, b: &usize| a > b);
        climb.run(&[0], 1, |i, _| {
            assert!(i < 10, "left the block");
            i
        });
        assert_eq!(climb.best().map(|b| b.0), Some(9));
        let mut none = Climb::new(std::iter::empty(), |_: &u8, _: &u8| false);
        none.run(&[], 3, |_, _| 0);
        assert!(none.best().is_none());
        assert_eq!(spread(1, 5), [0]);
        assert_eq!(spread(7, 3), [0, 3, 6]);
    }
}
