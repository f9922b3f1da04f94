//! Whose turn it is: projects in a circle, and within a project its jobs in a circle. A project with a hundred jobs gets
//! no more of the pool than one with a single job.

use std::collections::VecDeque;
use std::sync::Arc;

use forge_contract::JobId;

/// The order in which jobs are offered the next free agent.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    projects: VecDeque<(Arc<str>, VecDeque<JobId>)>,
}

impl Turns {
    /// A job joins its project's circle, last.
    pub fn join(&mut self, project: &Arc<str>, job: JobId) {
        match self.projects.iter_mut().find(|(name, _)| name == project) {
            Some((_, jobs)) => jobs.push_back(job),
            None => self.projects.push_back((Arc::clone(project), VecDeque::from([job]))),
        }
    }

    /// A job is over.
    pub fn leave(&mut self, job: JobId) {
        for (_, jobs) in &mut self.projects {
            jobs.retain(|turn| *turn != job);
        }
        self.projects.retain(|(_, jobs)| !jobs.is_empty());
    }

    /// The next job in turn that takes what it is offered. `offer` says whether it did; who did is last from then on,
    /// with its project, and who did not keeps its place.
    pub fn next<T>(&mut self, mut offer: impl FnMut(JobId) -> Option<T>) -> Option<(JobId, T)> {
        for place in 0..self.projects.len() {
            let (_, jobs) = self.projects.get(place)?;
            let found = jobs.iter().enumerate().find_map(|(at, job)| Some((at, *job, offer(*job)?)));
            let Some((at, job, taken)) = found else { continue };
            if let Some((name, mut jobs)) = self.projects.remove(place) {
                jobs.remove(at);
                jobs.push_back(job);
                self.projects.push_back((name, jobs));
            }
            return Some((job, taken));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u128) -> JobId {
        JobId::from_bits(number)
    }

    fn taken(turns: &mut Turns, times: usize, takes: impl Fn(JobId) -> bool) -> Vec<u128> {
        let next = |_| turns.next(|job| takes(job).then_some(())).map(|(job, ())| job.bits());
        (0..times).map_while(next).collect()
    }

    #[test]
    fn projects_take_turns_and_so_do_the_jobs_of_each() {
        let mut turns = Turns::default();
        let (many, one): (Arc<str>, Arc<str>) = ("many".into(), "one".into());
        for number in 1..=3 {
            turns.join(&many, job(number));
        }
        turns.join(&one, job(9));
        assert_eq!(taken(&mut turns, 8, |_| true), [1, 9, 2, 9, 3, 9, 1, 9]);
        turns.leave(job(9));
        assert_eq!(taken(&mut turns, 4, |_| true), [2, 3, 1, 2]);
    }

    #[test]
    fn who_takes_nothing_keeps_its_place() {
        let mut turns = Turns::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        turns.join(&a, job(1));
        turns.join(&a, job(2));
        turns.join(&b, job(3));
        assert_eq!(taken(&mut turns, 3, |of| of != job(1)), [2, 3, 2]);
        assert_eq!(taken(&mut turns, 2, |_| true), [3, 1], "its turn within its project was kept");
        assert_eq!(taken(&mut turns, 1, |_| false), []);
    }
}
