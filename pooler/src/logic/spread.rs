//! How many of the workers serve, and which of them has too many clients.
//!
//! What one thread can carry costs less on one than on two: it is woken less often, finds more to do each time, and no
//! server changes hands between threads. So clients are kept together until their worker is busy, and spread by the load
//! that they make from then on.

#[cfg(test)]
mod tests;

/// Shares are of a core. What clients would ask of workers that are saturated cannot be seen: as many more help out.
const SATURATED: f64 = 0.9;
/// When one worker less would have no more than this part of what makes it busy,
const LIGHT: f64 = 0.6;
/// at so many looks one after the other, it is one less.
const LIGHT_LOOKS: u32 = 9;
/// A worker that has more to do than the mean by this part of what makes it busy gives clients away.
const UNEVEN: f64 = 0.2;

/// What a worker did since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Time that its thread ran, as a share of a core.
    pub share: f64,
    /// Clients for which there was something to do.
    pub lively: u32,
}

/// How many clients should leave a worker, and how many it can take, until the next look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub leave: u32,
    pub take: u32,
}

#[derive(Debug)]
pub struct Spread {
    /// When the workers in use take more than this each, one more helps out.
    busy: f64,
    in_use: usize,
    light_looks: u32,
}

impl Spread {
    pub fn new(busy: f64) -> Spread {
        Spread { busy, in_use: 1, light_looks: 0 }
    }

    /// The first so many workers serve.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// One quota for each worker's load.
    pub fn look(&mut self, loads: &[Load]) -> Vec<Quota> {
        let total: f64 = loads.iter().map(|load| load.share).sum();
        self.adapt(total, loads.len());
        self.quotas(loads, total / self.in_use as f64)
    }

    fn adapt(&mut self, total: f64, workers: usize) {
        let mean = total / self.in_use as f64;
        let is_light = self.in_use > 1 && total <= LIGHT * self.busy * (self.in_use - 1) as f64;
        self.light_looks = if is_light { self.light_looks + 1 } else { 0 };
        if mean >= SATURATED {
            self.in_use = (self.in_use * 2).min(workers);
        } else if mean >= self.busy {
            self.in_use = (self.in_use + 1).min(workers);
        } else if self.light_looks >= LIGHT_LOOKS {
            self.in_use -= 1;
            self.light_looks = 0;
        }
    }

    fn quotas(&self, loads: &[Load], mean: f64) -> Vec<Quota> {
        let quota = |load: &Load| Quota { leave: self.leaving(*load, mean), take: 0 };
        let mut quotas: Vec<Quota> = loads[..self.in_use].iter().map(quota).collect();
        quotas.extend(loads[self.in_use..].iter().map(|load| Quota { leave: load.lively, take: 0 }));
        let leaving: u32 = quotas.iter().map(|quota| quota.leave).sum();
        let room = |load: &Load| (mean - load.share).max(0.0);
        let all_room: f64 = loads[..self.in_use].iter().map(room).sum();
        let takers = quotas[..self.in_use].iter_mut().zip(loads).filter(|(quota, _)| quota.leave == 0);
        for (quota, load) in takers {
            let part = if all_room > 0.0 { room(load) / all_room } else { 1.0 };
            quota.take = (f64::from(leaving) * part).ceil() as u32;
        }
        quotas
    }

    /// A client takes its part of the load along. One alone stays: it would be as busy elsewhere.
    fn leaving(&self, load: Load, mean: f64) -> u32 {
        let excess = load.share - mean;
        if excess <= UNEVEN * self.busy {
            return 0;
        }
        let part = (f64::from(load.lively) * excess / load.share) as u32;
        part.min(load.lively.saturating_sub(1))
    }
}
