//! Which core manages and which cores work.

/// CPU cores, by the system's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Runs the thread that starts EAL, and what that thread starts.
    pub management: usize,
    /// One core per worker; a core may stand here more than once.
    pub workers: Vec<usize>,
}

impl Cores {
    /// A choice among the cores this process may run on: the first manages, the next ones work, and workers share cores
    /// when there are more workers than cores. On a single core everything shares it.
    #[must_use]
    pub fn choose(workers: usize) -> Self {
        let mut allowed: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .map(|core| core.id)
            .collect();
        allowed.sort_unstable();
        Self::spread(&allowed, workers)
    }

    fn spread(allowed: &[usize], workers: usize) -> Self {
        let (management, rest) = match allowed {
            [] => (0, &[0][..]),
            [only] => (*only, allowed),
            [first, rest @ ..] => (*first, rest),
        };
        Self {
            management,
            workers: rest.iter().copied().cycle().take(workers).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_core_manages_and_the_others_work() {
        let cores = Cores::spread(&[2, 3, 5, 7], 2);
        assert_eq!(cores.management, 2);
        assert_eq!(cores.workers, [3, 5]);
    }

    #[test]
    fn workers_share_cores_when_there_are_too_few() {
        assert_eq!(Cores::spread(&[0, 1], 3).workers, [1, 1, 1]);
        assert_eq!(Cores::spread(&[4], 2).workers, [4, 4]);
        assert_eq!(Cores::spread(&[4], 2).management, 4);
        assert_eq!(Cores::spread(&[], 1).workers, [0]);
    }

    #[test]
    fn chooses_among_the_cores_of_this_machine() {
        assert_eq!(Cores::choose(3).workers.len(), 3);
    }
}
