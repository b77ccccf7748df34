//! The AFD pipeline when A2F and F2A share one resource: an event run, FIFO by ready time, F2A
//! first on ties (physics.md 5). Micro-batches still never overtake one another; only the
//! order of A2F against F2A on the shared link is found as the run goes.
//!
//! Jobs are served in the order in which they become ready, over all resources: whatever becomes
//! ready later cannot be ahead in any queue. Of each group they stand in one line a stage, for none overtakes another
//! (`Lines`), so the next job is the first of all the fronts.
//!
//! Groups of attention GPUs have a link each, and all share the FFN side's ports, half duplex too: a hop takes them
//! from its start for its `ports` seconds. A hop that waits for its own link holds its place in the queue of the ports.
//!
//! Within equal layers the run soon repeats: once the state as micro-batch 0 leaves a layer is that of an
//! earlier layer, shifted in time, all whole periods that stay inside the group are taken at once.
//!
//! Limit: deterministic times, one order of service; a link that serves both ways at part speed is not modelled.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::stages::{INLINE_MICROBATCHES, Rows};

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Stage {
    // The order settles ties: what may free or feed the link first, then F2A before A2F.
    Ffn,
    F2a,
    Attention,
    A2f,
    Done,
}

/// Where one micro-batch stands.
#[derive(Clone, Copy)]
struct Job {
    stage: Stage,
    ready: f64,
    group: usize,
    layer: u32,
    /// Attention-only time still owed, done together with the next attention.
    owed: f64,
    steps: u32,
}

struct Run<'a, 'b> {
    rows: &'a [Rows<'b>],
    overlapped: bool,
    /// Micro-batch i is the (i / groups)-th of group i % groups.
    jobs: &'a mut [Job],
    groups: usize,
    /// FFN; attention and link of each group; with several groups the ports they share.
    free: &'a mut [f64],
    /// The state at an earlier layer of the group that micro-batch 0 is in, and whether there is one.
    mark: &'a mut [Job],
    mark_free: &'a mut [f64],
    marked: bool,
    lines: Lines,
}

/// What settles which of two jobs is served first; equal stages at equal times: the micro-batch that is behind by a layer
/// is the earlier one in the ring.
type Key = (f64, Stage, u32, usize, u32, usize);

/// The jobs of each group and stage, in the order in which they came, and the first of each group.
#[derive(Default)]
struct Lines {
    lines: Vec<VecDeque<u32>>,
    first: Vec<Option<Key>>,
}

impl Lines {
    /// Stages in which a job waits.
    const STAGES: usize = 4;

    fn line(group: usize, stage: Stage) -> usize {
        Lines::STAGES * group + stage as usize
    }

    /// All jobs anew: those of one stage come in the order of their keys.
    fn fill(&mut self, jobs: &[Job], groups: usize) {
        self.lines.resize_with(Lines::STAGES * groups, VecDeque::new);
        self.lines.iter_mut().for_each(VecDeque::clear);
        self.first.resize(groups, None);
        let mut order: Vec<u32> = (0..jobs.len() as u32).filter(|i| jobs[*i as usize].stage != Stage::Done).collect();
        let key = |i: u32| Lines::key(jobs, i as usize);
        order.sort_by(|a, b| key(*a).partial_cmp(&key(*b)).unwrap_or(Ordering::Equal));
        for i in order {
            self.lines[Lines::line(i as usize % groups, jobs[i as usize].stage)].push_back(i);
        }
        (0..groups).for_each(|g| self.settle(jobs, g));
    }

    fn key(jobs: &[Job], i: usize) -> Key {
        let job = &jobs[i];
        (job.ready, job.stage, job.steps, job.group, job.layer, i)
    }

    /// Finds the first of a group again.
    fn settle(&mut self, jobs: &[Job], group: usize) {
        let fronts = self.lines[Lines::STAGES * group..Lines::STAGES * (group + 1)].iter().filter_map(VecDeque::front);
        self.first[group] = fronts.map(|i| Lines::key(jobs, *i as usize)).reduce(|a, b| if b < a { b } else { a });
    }

    /// The job that became ready first.
    fn next(&self) -> Option<usize> {
        self.first.iter().flatten().reduce(|a, b| if b < a { b } else { a }).map(|k| k.5)
    }

    /// A job has left the front of its line for another stage.
    fn moved(&mut self, jobs: &[Job], groups: usize, i: usize, from: Stage) {
        let group = i % groups;
        let line = &mut self.lines[Lines::line(group, from)];
        if line.front() == Some(&(i as u32)) {
            line.pop_front();
        } else {
            line.retain(|j| *j != i as u32);
        }
        if jobs[i].stage != Stage::Done {
            self.lines[Lines::line(group, jobs[i].stage)].push_back(i as u32);
        }
        self.settle(jobs, group);
    }
}

const START: Job = Job { stage: Stage::Attention, ready: 0.0, group: 0, layer: 0, owed: 0.0, steps: 0 };

/// Groups of fewer layers are run as they are.
const LEAST_LAYERS: u32 = 6;

/// Layers to run before the mean of the second half stands for a period that was not found
/// (cycles of tens of steps exist; the mean is then within one stage in some thousand).
const MAX_LAYERS: usize = 8192;

/// The same in layers of one micro-batch: the more of them there are, the more stages a step has to average over.
const MAX_CELLS: usize = 32_768;

/// Steps that are run at the least, whatever they take.
const LEAST_STEPS: usize = 4;

/// `m` micro-batches of each group.
pub(super) fn step_time(rows: &[Rows<'_>], m: usize, groups: u32, overlapped: bool) -> f64 {
    let groups = groups as usize;
    let m = m * groups;
    let mut inline = [START; INLINE_MICROBATCHES];
    let (mut inline_kept, mut inline_mark) = (inline, inline);
    let (mut heap, mut heap_kept, mut heap_mark);
    let (mut few, mut many);
    let servers = if groups == 1 { 3 } else { 2 * groups + 2 };
    let free: &mut [f64] = if groups == 1 {
        few = [0.0; 9];
        &mut few
    } else {
        many = vec![0.0; 3 * servers];
        &mut many
    };
    let (free, rest) = free.split_at_mut(servers);
    let (mark_free, kept_free) = rest.split_at_mut(servers);
    let (jobs, kept, mark) = if m <= INLINE_MICROBATCHES {
        (&mut inline[..m], &mut inline_kept[..m], &mut inline_mark[..m])
    } else {
        heap = vec![START; m];
        (heap_kept, heap_mark) = (heap.clone(), heap.clone());
        (&mut heap[..], &mut heap_kept[..], &mut heap_mark[..])
    };
    let mut run = Run { rows, overlapped, jobs, groups, free, mark, mark_free, marked: false, lines: Lines::default() };
    for i in 0..m {
        run.settle(i);
    }
    if m > INLINE_MICROBATCHES {
        run.lines.fill(run.jobs, groups);
    }
    if overlapped { run.period(kept, kept_free) } else { run.makespan() }
}

impl Run<'_, '_> {
    /// Takes micro-batch `i` to its next layer with work beyond attention, adding up the
    /// attention-only layers on the way.
    fn settle(&mut self, i: usize) {
        let job = &mut self.jobs[i];
        loop {
            let Some(rows) = self.rows.get(job.group) else {
                if !self.overlapped {
                    if job.owed == 0.0 {
                        job.stage = Stage::Done;
                    }
                    return;
                }
                job.group = 0;
                continue;
            };
            if job.layer >= rows.layers {
                job.group += 1;
                job.layer = 0;
            } else if rows.stages.iter().all(|s| s.a2f == 0.0 && s.ffn == 0.0 && s.f2a == 0.0) {
                job.owed += f64::from(rows.layers) * rows.stages[i / self.groups].attention;
                job.group += 1;
            } else {
                return;
            }
        }
    }

    /// The job that became ready first, of a few.
    fn first(&self) -> Option<usize> {
        let waiting = (0..self.jobs.len()).filter(|i| self.jobs[*i].stage != Stage::Done);
        waiting.map(|i| Lines::key(self.jobs, i)).reduce(|a, b| if b < a { b } else { a }).map(|k| k.5)
    }

    /// Serves the job that became ready first; returns its micro-batch.
    fn serve(&mut self) -> Option<usize> {
        let many = self.jobs.len() > INLINE_MICROBATCHES;
        let i = if many { self.lines.next()? } else { self.first()? };
        let job = self.jobs[i];
        let own = 1 + 2 * (i % self.groups);
        let (server, time, port, then) = match self.rows.get(job.group).map(|r| r.stages[i / self.groups]) {
            Some(s) => match job.stage {
                Stage::Attention => (own, job.owed + s.attention, None, Stage::A2f),
                Stage::A2f => (own + 1, s.a2f, Some(s.ports[0]), Stage::Ffn),
                Stage::Ffn => (0, s.ffn, None, Stage::F2a),
                Stage::F2a | Stage::Done => (own + 1, s.f2a, Some(s.ports[1]), Stage::Attention),
            },
            // Trailing attention-only layers of a step alone.
            None => (own, job.owed, None, Stage::Done),
        };
        let mut start = job.ready.max(self.free[server]);
        if let (Some(taken), true) = (port, self.groups > 1) {
            let ports = &mut self.free[2 * self.groups + 1];
            start = start.max(*ports);
            *ports = start + taken;
        }
        let end = start + time;
        self.free[server] = end;
        let job = &mut self.jobs[i];
        job.ready = end;
        let was = std::mem::replace(&mut job.stage, then);
        if was == Stage::Attention {
            job.owed = 0.0;
        } else if was == Stage::F2a {
            job.layer += 1;
            if self.last_layer(i) {
                self.jobs[i].steps += 1;
            }
            self.settle(i);
        }
        if many {
            self.lines.moved(self.jobs, self.groups, i, was);
        }
        if was == Stage::F2a && i == 0 && self.leap() && many {
            self.lines.fill(self.jobs, self.groups);
        }
        Some(i)
    }

    /// Micro-batch 0 has left a layer: takes whole periods at once, if the state repeats within the group, and says so.
    fn leap(&mut self) -> bool {
        let lead = self.jobs[0];
        let Some(layers) = self.rows.get(lead.group).map(|r| r.layers) else { return false };
        let inside = |j: &Job| j.group == lead.group && j.steps == lead.steps && j.owed == 0.0;
        if layers < LEAST_LAYERS || lead.layer == 0 || !self.jobs.iter().all(inside) {
            self.marked = false;
            return false;
        }
        if self.marked {
            let period = lead.layer - self.mark[0].layer;
            if same(self.jobs, self.free, self.mark, self.mark_free, period, 1e-12 * lead.ready) {
                self.marked = false;
                let furthest = self.jobs.iter().map(|j| j.layer).max().unwrap_or(layers);
                let periods = (layers - 1).saturating_sub(furthest) / period;
                let later = f64::from(periods) * (lead.ready - self.mark[0].ready);
                for j in self.jobs.iter_mut() {
                    j.layer += periods * period;
                    j.ready += later;
                }
                self.free.iter_mut().for_each(|f| *f += later);
                return true;
            }
        }
        // Renewed at layers 1, 2, 4, 8, ..: any period is found in the end.
        if !self.marked || lead.layer.is_power_of_two() {
            self.mark.copy_from_slice(self.jobs);
            self.mark_free.copy_from_slice(self.free);
            self.marked = true;
        }
        false
    }

    /// Whether micro-batch `i` has just left the last layer of the step that is not attention-only.
    fn last_layer(&self, i: usize) -> bool {
        let job = &self.jobs[i];
        job.layer >= self.rows[job.group].layers
            && self.rows[job.group + 1..]
                .iter()
                .all(|r| r.layers == 0 || r.stages.iter().all(|s| s.a2f == 0.0 && s.ffn == 0.0 && s.f2a == 0.0))
    }

    fn makespan(&mut self) -> f64 {
        while self.serve().is_some() {}
        self.jobs.iter().fold(0.0, |t, j| t.max(j.ready))
    }

    /// Runs steps until the state at the end of micro-batch 0's step repeats one seen before. One
    /// earlier state is kept and renewed at steps 4, 8, 16, ..: any period is found in the end.
    fn period(&mut self, kept: &mut [Job], kept_free: &mut [f64]) -> f64 {
        kept_free.copy_from_slice(self.free);
        let (mut kept_at, mut kept_step, mut renew) = (f64::NAN, 0, 2);
        let (mut half, mut now) = (0.0, 0.0);
        let layers: usize = self.rows.iter().map(|r| r.layers as usize).sum();
        let many = self.jobs.len() > INLINE_MICROBATCHES;
        let most = if many { MAX_CELLS / self.jobs.len() } else { MAX_LAYERS };
        let steps = 2 * (most / 2 / layers.max(1)).max(LEAST_STEPS / 2);
        for k in 0..steps {
            let before = self.jobs[0].steps;
            while self.jobs[0].steps == before {
                if self.serve().is_none() {
                    return 0.0;
                }
            }
            now = self.jobs[0].ready;
            if k > kept_step && kept_at.is_finite() {
                let mean = (now - kept_at) / (k - kept_step) as f64;
                if same(self.jobs, self.free, kept, kept_free, 0, 1e-12 * now) {
                    return mean;
                }
            }
            if k == renew || k == 0 {
                kept.copy_from_slice(self.jobs);
                kept_free.copy_from_slice(self.free);
                (kept_at, kept_step) = (now, k);
                renew = (2 * k).max(2);
            }
            if k == steps / 2 - 1 {
                half = now;
            }
        }
        let mean = (now - half) / (steps / 2) as f64;
        let (busiest, slack) = self.work();
        // No step takes less than the work of its busiest server. A mean that is not told from it is it.
        if many && mean <= busiest + slack { busiest } else { mean }
    }

    /// The work of the busiest server in a step, and how far apart two looks at a step may be: one micro-batch on its way
    /// through a layer.
    fn work(&self) -> (f64, f64) {
        let groups = self.groups as f64;
        let (mut attention, mut link, mut ffn, mut ports) = (0.0, 0.0, 0.0, 0.0);
        let mut slack: f64 = 0.0;
        for r in self.rows {
            let layers = f64::from(r.layers);
            for s in &r.stages[..self.jobs.len() / self.groups] {
                attention += layers * s.attention;
                link += layers * (s.a2f + s.f2a);
                ffn += layers * groups * s.ffn;
                ports += layers * groups * (s.ports[0] + s.ports[1]);
                slack = slack.max(s.attention + s.a2f + s.ffn + s.f2a);
            }
        }
        let shared = if self.groups > 1 { ports } else { 0.0 };
        (attention.max(link).max(ffn).max(shared), slack)
    }
}

/// Whether two states are the same but for a common shift in time and by `layers`. A resource that is free before
/// any job is ready is just free, however long it has been.
fn same(jobs: &[Job], free: &[f64], old_jobs: &[Job], old_free: &[f64], layers: u32, tolerance: f64) -> bool {
    let first = |jobs: &[Job]| jobs.iter().fold(f64::INFINITY, |t, j| t.min(j.ready));
    let (base, old_base) = (first(jobs), first(old_jobs));
    jobs.iter().zip(old_jobs).all(|(a, b)| {
        (a.stage, a.group, a.layer) == (b.stage, b.group, b.layer + layers)
            && ((a.ready - base) - (b.ready - old_base)).abs() <= tolerance
    }) && free.iter().zip(old_free).all(|(a, b)| ((a - base).max(0.0) - (b - old_base).max(0.0)).abs() <= tolerance)
}
